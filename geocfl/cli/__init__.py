"""The command line. Each command parses its options, calls one function of the package and prints the result."""

from geocfl.cli.entry import app

# Registers the commands, in the order in which geocfl --help lists them.
from geocfl.cli import finding, mapping, operating, planning, products, changes, sampling  # isort: skip
from geocfl.cli import labeling, patches, learning, models  # isort: skip

__all__ = [
    "app",
    "changes",
    "finding",
    "labeling",
    "learning",
    "mapping",
    "models",
    "operating",
    "patches",
    "planning",
    "products",
    "sampling",
]
