"""The commands of geocfl that the plugin offers: their options as QGIS shows them, and the arguments they become.

Knows nothing of QGIS, so that the tests can compare it with the command line of geocfl.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import cast

RASTER, RASTERS, VECTOR, VECTOR_FILE, FIELD = "raster", "rasters", "vector", "vector file", "field"
FILE, FOLDER, TEXT, TEXTS, FLAG = "file", "folder", "text", "texts", "flag"
INTEGER, NUMBER, CHOICE, CHOICES = "integer", "number", "choice", "choices"
EXTENT, POINT, CRS = "extent", "point", "crs"
NEW_FILE, NEW_FOLDER, PAGE = "new file", "new folder", "page"
"""Kinds of options and outputs. `VECTOR` may be any layer; `VECTOR_FILE` is the file that a layer shows."""

ADVANCED = True


@lru_cache
def sentences() -> dict[str, dict[str, str]]:
    """What the command line says about each command (under ``""``) and its options; `make plugin` writes the file."""
    read: dict[str, dict[str, str]] = json.loads(Path(__file__).with_name("sentences.json").read_text(encoding="utf-8"))
    return read


@dataclass(frozen=True)
class Option:
    """An option of a command, as a parameter in QGIS.

    Attributes:
        key: Name of the parameter in QGIS.
        label: What the dialog calls it.
        kind: One of the kinds above.
        advanced: Whether the dialog hides it under "Advanced parameters".
        default: Default value; None for none.
        parameter: Name of the parameter in geocfl's command, the key in lowercase if empty. If several options have
            the same one, the last that is given counts.
        positional: Whether geocfl takes it as an argument without a name.
        required: Whether QGIS asks for a value.
        choices: Values to choose from.
        between: Smallest and largest number.
        value: What geocfl gets if a flag is set; nothing but the flag if empty.
        points: Whether a vector layer may have points too, not only polygons.
        fields_of: Key of the layer whose fields a field is chosen from.
        layer: Parameter in geocfl that names the layer of a vector file; if empty, it reads files of one layer only.
        filter: File filter of the dialog.
        ending: End of the name of a new file, such as ``_change.tif``.
    """

    key: str
    label: str
    kind: str
    advanced: bool = False
    default: object = None
    parameter: str = ""
    positional: bool = False
    required: bool = False
    choices: tuple[str, ...] = ()
    between: tuple[float | None, float | None] = (None, None)
    value: str = ""
    points: bool = False
    fields_of: str = ""
    layer: str = ""
    filter: str = ""
    ending: str = ""

    @property
    def name(self) -> str:
        """Name of the parameter in geocfl's command."""
        return self.parameter or self.key.lower()

    @property
    def flag(self) -> str:
        """Name of the option on the command line."""
        return f"--{self.name.replace('_', '-')}"


@dataclass(frozen=True)
class Output:
    """A file that a command writes.

    Attributes:
        key: Name of the output in QGIS.
        label: Name of its layer.
        kind: `RASTER`, `VECTOR`, `FILE` or `PAGE`.
        ending: End of the file's name.
        layer: Layer in the file, if it has several.
        shown: Whether a loaded layer is visible; None loads none.
        style: Style in the plugin's folder, for a file without one.
        listed: Whether the command lists the file at its end; if not, the file is in the output folder, by this name.
    """

    key: str
    label: str
    kind: str
    ending: str
    layer: str = ""
    shown: bool | None = None
    style: str = ""
    listed: bool = True


@dataclass(frozen=True)
class Command:
    """A command of geocfl, as an algorithm in QGIS."""

    name: str
    title: str
    group: str
    options: tuple[Option, ...]
    outputs: tuple[Output, ...] = ()

    def sentence(self, option: Option | None = None, tr: Callable[[str], str] = str) -> str:
        """What the command line says about the command or an option, translated by `tr`, with the labels of options."""
        return self.with_labels(tr(sentences()[self.name][option.name if option else ""]), tr)

    def with_labels(self, message: str, tr: Callable[[str], str] = str) -> str:
        """A message of the command line in which options have their labels: ``--overwrite`` is "Replace ..."."""
        labels = {option.flag: tr(option.label) for option in reversed(self.options)}
        return re.sub(
            r"--[a-z][a-z-]*[a-z]",
            lambda found: f"“{labels[found.group()]}”" if found.group() in labels else found.group(),
            message,
        )


def arguments(command: Command, values: Mapping[str, object]) -> list[str]:
    """The arguments of geocfl for values of a dialog.

    Args:
        command: The command to run.
        values: By key of the option: a path, text or number, a list of them, or a bool; a `VECTOR` is a path and the
            layer in it, an `EXTENT` is west, south, east and north, a `POINT` is longitude and latitude. None, an empty
            text or list stand for no value, and a default value is left out, since geocfl has the same.

    Returns:
        The command and its arguments, those without a name last, after ``--``.
    """
    options: dict[str, list[str]] = {}
    positional: dict[str, list[str]] = {}
    for option in command.options:
        value = values.get(option.key)
        if value is None or value is False or value in ("", []):
            continue
        if option.kind != FLAG and _text(value) == _text(option.default):
            continue
        if option.kind == RASTERS:
            positional[option.name] = [str(item) for item in cast("list[str]", value)]
        elif option.positional:
            first, *layer = _option(option, value)
            positional[option.name] = [first.removeprefix(f"{option.flag}=")]
            options[option.name] = layer
        else:
            options[option.name] = _option(option, value)
    every = [argument for group in options.values() for argument in group]
    last = [argument for group in positional.values() for argument in group]
    return [command.name, *every, *(["--", *last] if last else [])]


def _text(value: object) -> str:
    """A value as geocfl takes it: the parts of a list separated by commas."""
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _option(option: Option, value: object) -> list[str]:
    """An option and its value in one argument each, because a value may begin with a dash."""
    if option.kind == FLAG:
        return [f"{option.flag}={option.value}" if option.value else option.flag]
    if option.kind == TEXTS:
        return [f"{option.flag}={line.strip()}" for line in str(value).splitlines() if line.strip()]
    if option.kind == VECTOR and isinstance(value, tuple):
        path, layer = value
        named = [f"--{option.layer.replace('_', '-')}={layer}"] if layer and option.layer else []
        return [f"{option.flag}={path}", *named]
    if option.kind == NEW_FILE and option.ending:
        value = with_ending(str(value), option.ending)
    return [f"{option.flag}={_text(value)}"]


def shown(arguments: Sequence[str]) -> str:
    """The command as it can be copied into a shell."""
    return " ".join(["geocfl", *map(shlex.quote, arguments)])


def with_ending(path: str, ending: str) -> str:
    """``valley.tif`` as ``valley_change.tif``, and ``valley_change.tif`` as it is."""
    stem, dot, suffix = ending.rpartition(".")
    if path.lower().endswith((ending, f"{stem}.vrt")):
        return path
    return f"{path[: -len(suffix) - 1] if path.lower().endswith(dot + suffix) else path}{ending}"


def printed_files(lines: Sequence[str]) -> list[str]:
    """The files that a command lists at its end: the lines that name one."""
    return [name for line in lines if (name := line.strip()) and Path(name).is_file()]


def results(command: Command, files: Sequence[str], out: str) -> list[tuple[Output, str]]:
    """The outputs of a command, each with its file; some have several files.

    Args:
        command: The command.
        files: The files that it has listed.
        out: Its output file or folder.
    """
    found = []
    for output in command.outputs:
        candidates = files if output.listed else [str(Path(out) / output.ending)]
        found += [(output, file) for file in candidates if file.endswith(output.ending) and Path(file).is_file()]
    return found
