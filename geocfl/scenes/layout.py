"""Folders below the output folder for the maps of many scenes, such as one for each tile and year."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from string import Formatter

from geocfl.errors import SceneError, UsageError, unknown_name
from geocfl.scenes.acquisition import find_datetime
from geocfl.scenes.collect import Listed, safe_folders
from geocfl.scenes.source import Source, file_name

FIELDS = ("mgrs", "year", "month", "day", "folder", "name")
"""What a layout may contain in braces."""
_TILE = re.compile(r"(?<![A-Z0-9])T?(\d{1,2}[C-HJ-NP-X][A-HJ-NP-Z][A-HJ-NP-V])(?![A-Z0-9])")
_PART = re.compile(r"(?!\.)[\w.{}=+ -]+(?<![. ])")
"""A folder's name in a layout: no hidden folder, and nothing that a file system or a store refuses."""


def check_layout(layout: str) -> None:
    """Checks a layout before scenes are looked at.

    Args:
        layout: Names of folders with fields of `FIELDS` in braces, such as ``"{mgrs}/{year}"``; empty for no folders.

    Raises:
        UsageError: It names an unknown field, or no folder below the output folder.
    """
    if not layout:
        return
    example = "use names of folders and fields, such as {mgrs}/{year}"
    try:
        fields = [(name, spec or conversion) for _, name, spec, conversion in Formatter().parse(layout)]
    except ValueError as error:
        raise UsageError(f"`layout` {layout!r} has a brace without its other; {example}") from error
    for name, more in fields:
        if name is not None and name not in FIELDS:
            raise UsageError(unknown_name("field of `layout`", name, FIELDS))
        if more:
            raise UsageError(f"`layout` {layout!r} says more of {name} than its name; {example}")
    if not all(map(_PART.fullmatch, layout.split("/"))):
        raise UsageError(f"`layout` {layout!r} names no folder below the output folder; {example}")


def needs_time(layout: str) -> bool:
    """Whether a layout asks for the time of acquisition, which a scene may state only when it is opened."""
    return any(f"{{{field}}}" in layout for field in ("year", "month", "day"))


def arrange(listed: Sequence[Listed], layout: str = "", taken: datetime | None = None) -> list[Listed]:
    """The same scenes, each with the folder of its map. Folder and name depend on nothing but the scene.

    Args:
        listed: The scenes.
        layout: As for `check_layout`. ``{mgrs}`` is the tile, such as 33TUL, ``{year}``, ``{month}`` and ``{day}`` are
            those of the acquisition (UTC), ``{folder}`` is the folder of the scene, and ``{name}`` is that of its map.
        taken: When all scenes were taken, if the user says so.

    Returns:
        The scenes; one that lacks a field has the error in place of its source.

    Raises:
        UsageError: The layout is not valid, or two scenes would get the same name in the same folder, also on file
            systems that ignore case.
    """
    check_layout(layout)
    arranged = [_placed(each, layout, taken) for each in listed]
    _refuse_same_names(arranged, layout)
    return arranged


def _placed(listed: Listed, layout: str, taken: datetime | None) -> Listed:
    if listed.source is None or not layout:
        return listed
    try:
        return replace(listed, folder=_folder(listed.source, layout, taken))
    except SceneError as error:
        return replace(listed, source=None, error=error)


def _folder(source: Source, layout: str, taken: datetime | None) -> str:
    """The folder of a scene's map.

    Raises:
        SceneError: The scene lacks a field of the layout.
    """
    when = taken or source.taken or find_datetime(source.stem, {})
    known: Mapping[str, Callable[[], str]] = {
        "mgrs": lambda: _tile(source),
        "year": lambda: f"{when:%Y}" if when else "",
        "month": lambda: f"{when:%m}" if when else "",
        "day": lambda: f"{when:%d}" if when else "",
        "folder": lambda: next(iter(safe_folders(source)), ""),
        "name": lambda: source.stem,
    }
    text = ""
    for literal, field, _, _ in Formatter().parse(layout):
        text += literal
        if field is None:
            continue
        value = known[field]()
        if not value:
            raise SceneError(
                f"{source.path}: does not state the {field} that `layout` asks for; leave {{{field}}} out, or rename "
                "the scene as Sentinel-2's products are, such as S2B_33TUL_20220601_0_L2A"
            )
        text += value
    return text


def _tile(source: Source) -> str:
    """The MGRS tile in the names of a scene, with two digits; empty if there is none."""
    names = (source.stem.upper(), file_name(source.path.rstrip("/")).upper())
    return next((found[1].zfill(5) for name in names if (found := _TILE.search(name))), "")


def _refuse_same_names(listed: Sequence[Listed], layout: str) -> None:
    """Raises UsageError if two scenes have the same name in the same folder."""
    first: dict[str, Listed] = {}
    clashing: list[tuple[Listed, Listed]] = []
    for each in listed:
        if each.source:
            name = unicodedata.normalize("NFC", f"{each.folder}/{each.source.stem}").casefold()
            other = first.setdefault(name, each)
            if other is not each:
                clashing.append((other, each))
    if not clashing:
        return
    one, other = clashing[0]
    more = f", and there are {len(clashing) - 1} more such pairs" if len(clashing) > 1 else ""
    remedy = "rename one" if "{folder}" in layout else "use `layout={folder}` to keep the folders of the scenes apart"
    raise UsageError(
        f"{one.path} and {other.path} would both be mapped as {one.source.stem if one.source else ''}{more}; {remedy}, "
        "or map them into different folders",
        page="how-to/scene-lists/#scenes-with-the-same-name",
    )
