"""The answers of a sample: checked against its design, with one sentence for what is wrong."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyproj
from numpy.typing import NDArray

from geocfl.analysis.design import Design
from geocfl.analysis.sample_files import REFERENCE, is_answer
from geocfl.core.legend import LulcClass
from geocfl.core.table import read_csv
from geocfl.errors import DataError, did_you_mean

MOVED = 0.5
"""A point farther than this from the middle of its cell, in cells, has been moved."""
SHOWN = 5
"""Points that a message names."""


@dataclass(frozen=True)
class Answers:
    """Points with answers.

    Attributes:
        points: (n,) their places in the design, or in the file without one.
        reference: (n,) places of their reference classes in the legend.
        missing: Number of points without an answer, those that are gone from the file included.
    """

    points: NDArray[np.int64]
    reference: NDArray[np.int64]
    missing: int


def read_answers(
    path: Path, points: gpd.GeoDataFrame, classes: tuple[LulcClass, ...], design: Design | None
) -> Answers:
    """Reads and checks the answers.

    Args:
        path: The file, for messages.
        points: Its content.
        classes: The legend.
        design: The sample's design; None for points without one.

    Raises:
        DataError: A point was moved, is there twice or is not of the design, an answer is no class, or there is none.
    """
    places = np.arange(len(points)) if design is None else _places(path, points, design)
    answered = is_answer(points[REFERENCE]).to_numpy()
    if not answered.any():
        raise DataError(f"{path}: has no answers; fill the field {REFERENCE} of its points, as in QGIS")
    reference = _classes(path, points[REFERENCE][answered].astype(str).tolist(), places[answered] + 1, classes)
    total = len(points) if design is None else len(design.cells)
    return Answers(places[answered], reference, total - int(answered.sum()))


def fill_in(path: Path, points: gpd.GeoDataFrame) -> None:
    """Replaces the answers of points by those of a CSV file, in place.

    Args:
        path: CSV file with columns ``id`` and ``reference``.
        points: The points, with a field ``id``.

    Raises:
        DataError: The file cannot be read, or is not of these points.
    """
    rows = read_csv(path, ("id", REFERENCE), f"pass answers with the columns id and {REFERENCE}")
    numbers = [row["id"] for row in rows]
    known = set(points["id"].astype(str)) if "id" in points.columns else set()
    if unknown := [number for number in numbers if number not in known]:
        raise DataError(f"{path}: {_listed(unknown)} not in the sample; pass the answers of this sample")
    if twice := sorted(number for number, count in Counter(numbers).items() if count > 1):
        raise DataError(f"{path}: {_listed(twice)} there twice; keep one line of each")
    given = {row["id"]: row[REFERENCE] for row in rows}
    points[REFERENCE] = [given.get(number) for number in points["id"].astype(str)]


def _places(path: Path, points: gpd.GeoDataFrame, design: Design) -> NDArray[np.int64]:
    """(n,) places of the points in the design.

    Raises:
        DataError: They are not those of the design.
    """
    if "id" not in points.columns:
        raise DataError(f"{path}: has no field id, which numbers the points; add it again, or draw another sample")
    numbers = points["id"]
    known = numbers.isin(range(1, len(design.cells) + 1))
    if not known.all():
        raise DataError(
            f"{path}: {_listed(numbers[~known].astype(str).tolist())} not in the design; delete points that were added"
        )
    places: NDArray[np.int64] = numbers.to_numpy(dtype=np.int64) - 1
    twice = np.flatnonzero(np.bincount(places, minlength=len(design.cells)) > 1)
    if len(twice):
        raise DataError(f"{path}: {_listed((twice + 1).tolist())} there twice; delete the copies")
    if points.crs is None:
        raise DataError(f"{path}: has no coordinate reference system any more; assign {design.crs.to_string()} to it")
    if points.geometry.isna().any() or points.geometry.is_empty.any():
        raise DataError(
            f"{path}: a point has no place any more; undo that, or delete the point, which is then unanswered"
        )
    centers = points.geometry.to_crs(pyproj.CRS.from_wkt(design.crs.to_wkt())).centroid
    off = np.column_stack([centers.x, centers.y]) - design.centers()[places]
    a, b, _, d, e, _ = design.transform[:6]
    cells = np.abs(np.linalg.solve(np.array([[a, b], [d, e]]), off.T)).max(axis=0)
    moved = np.sort(places[~(cells <= MOVED)]) + 1
    if len(moved):
        raise DataError(
            f"{path}: {_listed(moved.tolist())} not where the design has them; move them back, or assign the layer its "
            "coordinate reference system"
        )
    return places


def _classes(
    path: Path, answers: list[str], numbers: NDArray[np.int64], classes: tuple[LulcClass, ...]
) -> NDArray[np.int64]:
    """(n,) places of answers in the legend; case, spaces and hyphens do not matter, and codes are understood.

    Raises:
        DataError: One is no class.
    """
    known = {_plain(c.name): place for place, c in enumerate(classes)}
    known |= {str(c.code): place for place, c in enumerate(classes)}
    found = []
    for answer, number in zip(answers, numbers.tolist(), strict=True):
        place = known.get(_plain(answer))
        if place is None:
            names = [c.name for c in classes]
            same = sum(each == answer for each in answers)
            whose = f"point {number} has" if same == 1 else f"{same} points, such as {number}, have"
            raise DataError(
                f"{path}: {whose} the {REFERENCE} {answer!r}, which is no class; {did_you_mean(answer, names)}"
                f"choose from: {', '.join(names)}"
            )
        found.append(place)
    return np.array(found, np.int64)


def _plain(text: str) -> str:
    """A name without what people spell in different ways; a float that is whole is its code."""
    text = re.sub(r"(?<=\d)\.0$", "", text.strip())
    return re.sub(r"[\s_-]+", "", text).casefold()


def _listed(numbers: list[int] | list[str]) -> str:
    """``"points 3 and 7 are"``, at most `SHOWN` of them."""
    if len(numbers) == 1:
        return f"point {numbers[0]} is"
    shown = ", ".join(map(str, numbers[:SHOWN]))
    more = f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else ""
    return f"points {shown}{more} are"
