"""The zip is what QGIS installs."""

import ast
import configparser
import json
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
from build_plugin import PLUGIN, translatable, write_translations, write_zip
from geocfl_qgis.catalog import COMMANDS

import geocfl

REQUIRED = (
    "name", "description", "about", "version", "qgisMinimumVersion", "author", "email", "repository", "tracker",
)  # fmt: skip
"""Keys that plugins.qgis.org asks for."""
SOURCES = sorted(PLUGIN.glob("*.py"))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dist") / "geocfl_qgis.zip"
    write_zip(path)
    return path


def test_the_zip_holds_one_plugin(archive: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        names = set(opened.namelist())
        metadata = configparser.ConfigParser()
        metadata.read_string(opened.read("geocfl_qgis/metadata.txt").decode())
    assert {Path(name).parts[0] for name in names} == {"geocfl_qgis"}
    assert {f"geocfl_qgis/{file.name}" for file in SOURCES} <= names
    assert {"geocfl_qgis/LICENSE", "geocfl_qgis/sentences.json"} <= names
    general = metadata["general"]
    assert [key for key in REQUIRED if not general.get(key)] == []
    assert general["version"] == geocfl.__version__.removesuffix(".dev0")
    assert (general["qgisMinimumVersion"], general["qgisMaximumVersion"]) == ("3.22", "4.99")
    assert general.getboolean("hasProcessingProvider")
    assert f"geocfl_qgis/{general['icon']}" in names


def test_the_same_source_gives_the_same_zip(archive: Path, tmp_path: Path) -> None:
    write_zip(tmp_path / "again.zip")
    assert archive.read_bytes() == (tmp_path / "again.zip").read_bytes()


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_the_source_runs_in_every_qgis(source: Path) -> None:
    """Python 3.9 of QGIS 3.22, Qt 5 and Qt 6: Qt through ``qgis.PyQt`` alone, and modules of QGIS and Python only."""
    tree = ast.parse(source.read_text(encoding="utf-8"), feature_version=(3, 9))
    modules = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
    modules |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    roots = {module.partition(".")[0] for module in modules}
    assert not roots & {"PyQt5", "PyQt6", "geocfl", "numpy", "typer"}


def test_all_texts_can_be_translated(tmp_path: Path) -> None:
    texts = translatable()
    assert {"Map land cover", "Cell size in pixels", "Replace outputs that already exist.", "Program"} <= set(texts)
    write_translations(tmp_path / "a.ts")
    written = ElementTree.parse(tmp_path / "a.ts").getroot()
    assert [message.findtext("source") for message in written.iter("message")] == texts


def test_the_help_is_that_of_the_command_line(archive: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        said = json.loads(opened.read("geocfl_qgis/sentences.json"))
    assert list(said) == [command.name for command in COMMANDS]
    assert said["map"][""].startswith("Map the land cover of Sentinel-2 scenes")
    assert all(said[command.name][option.name] for command in COMMANDS for option in command.options)
