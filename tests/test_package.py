"""What an installation promises."""

import subprocess
import sys
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

import geocfl


def test_the_version_is_in_one_place() -> None:
    assert version("geocfl") == geocfl.__version__


def test_typed_and_with_an_entry_point() -> None:
    assert (Path(geocfl.__file__).parent / "py.typed").is_file()
    assert any(entry.name == "geocfl" for entry in entry_points(group="console_scripts"))


@pytest.mark.parametrize("name", geocfl.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    if name != "__version__":
        assert getattr(geocfl, name).__doc__
    assert name in dir(geocfl)


def test_the_reference_lists_every_public_name() -> None:
    reference = (Path(geocfl.__file__).parents[1] / "docs" / "reference" / "api.md").read_text()
    listed = [line.removeprefix("::: geocfl.") for line in reference.splitlines() if line.startswith("::: ")]
    assert set(geocfl.__all__) - {"__version__"} == {name for name in listed if "." not in name}


def test_unknown_names() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = geocfl.nothing


@pytest.mark.integration
def test_import_loads_nothing_heavy() -> None:
    code = "import sys, geocfl; print(*{'torch', 'torchgeo', 'rasterio', 'numpy'}.intersection(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []


def test_every_dependency_bound_says_why() -> None:
    lines = (Path(geocfl.__file__).parents[1] / "pyproject.toml").read_text().splitlines()
    start = lines.index("dependencies = [")
    bounds = lines[start + 1 : lines.index("]", start)]
    assert bounds
    assert all(">=" in line and "#" in line for line in bounds)
