"""Builds the QGIS plugin: ``dist/geocfl_qgis.zip``, and the texts that translators need.

    .venv/bin/python geocfl-qgis/build_plugin.py

What the command line says about its commands and options becomes ``sentences.json`` in the plugin, its help in QGIS.
The file is also written beside the source, where git ignores it, for those who link that folder into QGIS.
"""

from __future__ import annotations

import ast
import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

from geocfl_qgis.catalog import COMMANDS

PLUGIN = Path(__file__).with_name("geocfl_qgis")
SENTENCES = "sentences.json"
PACKED = ("*.py", "*.svg", "*.qml", "*.txt", "LICENSE", "i18n/*.qm")
EPOCH = (2026, 1, 1, 0, 0, 0)
"""The date of all files in the zip, so that the same source gives the same zip."""


def sentences() -> dict[str, dict[str, str]]:
    """The help of the commands that the plugin offers and of their options; that of a command is under ``""``."""
    from geocfl.cli import app
    from typer.main import get_command

    program = get_command(app).commands  # type: ignore[attr-defined]
    said = {}
    for command in COMMANDS:
        names = {option.name for option in command.options}
        helps = {
            parameter.name: parameter.help for parameter in program[command.name].params if parameter.name in names
        }
        said[command.name] = {"": program[command.name].help.strip(), **helps}
    return said


def translatable() -> list[str]:
    """All texts that QGIS shows: labels, sentences of the command line, and what the plugin's code passes to ``tr``."""
    texts: list[str] = []
    for command in COMMANDS:
        texts += [command.title, command.group, *(output.label for output in command.outputs)]
        texts += [option.label for option in command.options]
    for said in sentences().values():
        texts += said.values()
    for source in sorted(PLUGIN.glob("*.py")):
        texts += _literals(ast.parse(source.read_text(encoding="utf-8")))
    return list(dict.fromkeys(texts))


def _literals(tree: ast.AST) -> Iterable[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "tr":
            yield from (str(text.value) for text in node.args if isinstance(text, ast.Constant))


def write_translations(path: Path) -> None:
    """Writes all texts as a Qt translation source, for Qt Linguist; ``lrelease`` makes the ``i18n/*.qm`` from it."""
    root = ElementTree.Element("TS", version="2.1", language="", sourcelanguage="en")
    context = ElementTree.SubElement(root, "context")
    ElementTree.SubElement(context, "name").text = "geocfl"
    for text in translatable():
        message = ElementTree.SubElement(context, "message")
        ElementTree.SubElement(message, "source").text = text
        ElementTree.SubElement(message, "translation", type="unfinished")
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def write_zip(path: Path) -> None:
    """Writes the plugin as QGIS installs it: one folder."""
    files = {file.relative_to(PLUGIN).as_posix(): file.read_bytes() for kind in PACKED for file in PLUGIN.glob(kind)}
    files[SENTENCES] = json.dumps(sentences()).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(f"{PLUGIN.name}/{name}", EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[name])


def main(folder: Path) -> None:
    """Writes the zip and the translation source into a folder, and the sentences beside the source."""
    folder.mkdir(parents=True, exist_ok=True)
    write_zip(folder / "geocfl_qgis.zip")
    write_translations(folder / "geocfl_qgis.ts")
    (PLUGIN / SENTENCES).write_text(json.dumps(sentences()), encoding="utf-8")
    print(f"Install {folder / 'geocfl_qgis.zip'} in QGIS: Plugins > Manage and Install Plugins > Install from ZIP")


if __name__ == "__main__":
    main(Path(__file__).parents[1] / "dist")
