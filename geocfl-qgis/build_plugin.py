"""Builds the QGIS plugin: ``dist/geocfl_qgis.zip``, and the texts that translators need.

    .venv/bin/python geocfl-qgis/build_plugin.py

What the command line says about its commands and options becomes ``geocfl_qgis/sentences.json``, the help in QGIS.
"""

from __future__ import annotations

import ast
import json
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

HERE = Path(__file__).parent
PLUGIN = HERE / "geocfl_qgis"
SENTENCES = PLUGIN / "sentences.json"
PACKED = ("*.py", "*.json", "*.svg", "*.qml", "*.txt", "LICENSE", "i18n/*.qm")
EPOCH = (2026, 1, 1, 0, 0, 0)
"""The date of all files in the zip, so that the same source gives the same zip."""


def sentences() -> str:
    """The help of geocfl's command line as JSON: by command, then by parameter, that of the command under ``""``."""
    from geocfl.cli import app
    from typer.main import get_command

    said = {
        name: {"": (command.help or "").strip()}
        | {parameter.name: parameter.help for parameter in command.params if getattr(parameter, "help", "")}
        for name, command in get_command(app).commands.items()  # type: ignore[attr-defined]
    }
    return json.dumps({name: said[name] for name in command_names()}, indent=1, ensure_ascii=False) + "\n"


def command_names() -> list[str]:
    """The commands that the plugin offers, read from its source, which needs the sentences to be imported."""
    tree = ast.parse((PLUGIN / "catalog.py").read_text(encoding="utf-8"))
    calls = (
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Command"
    )
    return [str(call.args[0].value) for call in calls if isinstance(call.args[0], ast.Constant)]


def translatable() -> list[str]:
    """All texts that QGIS shows: labels, sentences of the command line, and what the plugin's code passes to ``tr``."""
    sys.path.insert(0, str(HERE))
    from geocfl_qgis.catalog import COMMANDS

    texts: list[str] = []
    for command in COMMANDS:
        texts += [command.title, command.group, *(output.label for output in command.outputs)]
        texts += [option.label for option in command.options]
    for said in json.loads(SENTENCES.read_text(encoding="utf-8")).values():
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
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(file for pattern in PACKED for file in PLUGIN.glob(pattern)):
            entry = zipfile.ZipInfo(f"{PLUGIN.name}/{file.relative_to(PLUGIN).as_posix()}", EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, file.read_bytes())


def main(folder: Path) -> None:
    """Updates the sentences, and writes the zip and the translation source into a folder."""
    SENTENCES.write_text(sentences(), encoding="utf-8")
    folder.mkdir(parents=True, exist_ok=True)
    write_translations(folder / "geocfl_qgis.ts")
    write_zip(folder / "geocfl_qgis.zip")
    print(f"Install {folder / 'geocfl_qgis.zip'} in QGIS: Plugins > Manage and Install Plugins > Install from ZIP")


if __name__ == "__main__":
    main(HERE.parent / "dist")
