"""Crosswalks: which classes of a map each code of another map corresponds to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from geocfl.core.legend import UNCLASSIFIED, Legend
from geocfl.core.table import read_csv
from geocfl.errors import DataError, unknown_name

COLUMNS = ("code", "name", "class")
SEPARATOR = ";"
"""Between several classes in one field."""
PAGE = "how-to/compare-maps/"


@dataclass(frozen=True)
class ForeignClass:
    """A class of the other map.

    Attributes:
        code: Its value in the raster.
        name: Its name.
        classes: Codes of the map's classes that it corresponds to; none if it has no counterpart.
    """

    code: int
    name: str
    classes: frozenset[int]


def read_crosswalk(path: Path, legend: Legend) -> list[ForeignClass]:
    """Reads a crosswalk from a CSV file.

    Args:
        path: CSV with the columns ``code``, ``name`` and ``class``; the last one holds names of the map's classes with
            semicolons between them, or nothing.
        legend: The map's legend.

    Returns:
        The classes in the order of the file.

    Raises:
        DataError: It cannot be read, lacks a column, has a code twice, or names a class that the map lacks.
    """
    found: dict[int, ForeignClass] = {}
    for row in read_csv(path, COLUMNS, f"pass a crosswalk with the columns {', '.join(COLUMNS)}", PAGE):
        entry = _entry(path, row, legend)
        if entry.code in found:
            raise DataError(f"{path}: has code {entry.code} twice; keep one of the rows", page=PAGE)
        found[entry.code] = entry
    if not found:
        raise DataError(f"{path}: has no rows; add one for each code of the other map", page=PAGE)
    return list(found.values())


def _entry(path: Path, row: dict[str, str], legend: Legend) -> ForeignClass:
    if not (row["code"].isdecimal() and int(row["code"]) <= UNCLASSIFIED):
        raise DataError(f"{path}: code is {row['code']!r} but must be a whole number from 0 to 255", page=PAGE)
    codes = {c.name.casefold(): c.code for c in legend}
    names = [name.strip() for name in row["class"].split(SEPARATOR) if name.strip()]
    for name in names:
        if name.casefold() not in codes:
            raise DataError(f"{path}: {unknown_name('class', name, legend.names)}", page=PAGE)
    code = int(row["code"])
    return ForeignClass(code, row["name"] or str(code), frozenset(codes[name.casefold()] for name in names))
