"""The command line: one command a verb; each parses, calls one function of the package and prints."""

from geocfl.cli.entry import app

# Registers the commands, in the order in which geocfl --help lists them.
from geocfl.cli import mapping, planning, products, learning, models  # isort: skip

__all__ = ["app", "learning", "mapping", "models", "planning", "products"]
