"""Where to label next: the windows of a map that a model is unsure of, or has seen none like."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
from numpy.typing import NDArray
from scipy.ndimage import minimum_filter

from geocfl.analysis.places import Apart, window_reach
from geocfl.analysis.sample_files import REFERENCE, is_answer, read_points, refuse_answered, sample_files, unanswered
from geocfl.analysis.suggest_files import write_suggestions
from geocfl.core.files import refuse_existing
from geocfl.core.grid import CellGrid
from geocfl.core.keywords import declared
from geocfl.core.legend import WITHHELD
from geocfl.core.table import align
from geocfl.errors import DataError, UsageError
from geocfl.products.formats.vector import window_squares
from geocfl.products.scene_map import SceneMap, georeferenced

log = logging.getLogger("geocfl")

LEAST = 0.05
"""Uncertainty that every window has at least, so that distance still counts where the model is sure."""
EACH = 3
"""Windows of each class of the map in all rounds, because a class with one patch cannot be trained; at most half of a
round is chosen for this."""
PLACE = 0.1
"""Weight of the place beside the probabilities of a map without features."""
SPREAD, UNCERTAIN = "spread", "uncertain"
"""Why a window is suggested."""


@dataclass(frozen=True, eq=False, repr=False)
class Suggestions:
    """Windows to label next.

    Attributes:
        cells: (n, 2) rows and columns of their cells, the most useful first.
        map: The map.
        reason: ``"spread"`` if they were chosen to cover all kinds of land, ``"uncertain"`` if also by uncertainty.
        paths: The files that were written: the GeoPackage first.
    """

    cells: NDArray[np.int64]
    map: SceneMap
    reason: str
    paths: tuple[Path, ...]

    def points(self) -> gpd.GeoDataFrame:
        """The windows as the GeoPackage holds them now."""
        return read_points(self.paths[0])

    def frame(self) -> pd.DataFrame:
        """One row per class of the map that has suggestions: ``class`` and ``windows``."""
        names = {c.code: c.name for c in (*self.map.legend, WITHHELD)}
        codes, counts = np.unique(self.map.lulc[tuple(self.cells.T)], return_counts=True)
        return pd.DataFrame({"class": [names[code] for code in codes.tolist()], "windows": counts})

    def table(self) -> str:
        """The same as aligned plain text, without a newline at the end."""
        rows = [(name, f"{count:,}") for name, count in self.frame().itertuples(index=False)]
        return align([("class on the map", "windows"), *rows, ("Total", f"{len(self.cells):,}")], text_columns=[0])

    def __repr__(self) -> str:
        """One line: how many windows, of which map, in which file."""
        return f"<Suggestions: {len(self.cells)} windows of {self.map.name}; {self.paths[0]}>"

    def _repr_html_(self) -> str:
        return str(self.frame().to_html(index=False))


@declared
def suggest(
    map: SceneMap | str | Path,
    out: str | Path,
    *,
    n: int = 50,
    labeled: Sequence[str | Path] = (),
    classes: Sequence[str] = (),
    overwrite: bool = False,
) -> Suggestions:
    """Chooses the windows of a map to label next, for training, and writes them with a form for QGIS.

    Each window is the one that is farthest, in the features of the model, from all that are labeled or already chosen.
    As soon as windows are labeled, the distance is multiplied by the uncertainty of the map, 1 - the difference of the
    two largest probabilities. So the first round covers all kinds of land, and later rounds also look where the model
    is unsure. Up to half of the windows see to it that each class of the map has three. Suggested windows do not touch,
    lie in the scene, and have data.

    Args:
        map: A map with ``features`` or ``probabilities`` among its products, or a path as `geocfl.open_map` takes it.
        out: GeoPackage to write, ``.gpkg``: layer ``suggest`` with the windows in the order of their use, an empty
            field ``reference`` and a form for it. A QGIS project, ``.qgz``, is written beside it.
        n: Number of windows.
        labeled: Files with labels in a field ``reference``, such as answered suggestions of earlier rounds. The map
            then needs ``probabilities`` or ``confidence``, and is best that of a model trained on these labels.
        classes: More classes for the drop-down of the form than those of the map.
        overwrite: Replace `out` if it exists; a file with answers is never replaced.

    Raises:
        DataError: The map lacks what is needed, or `labeled` cannot be read.
        UsageError: A parameter is not allowed, or `n` is more than there are windows.
        OutputError: `out` exists already, holds answers, or cannot be written.

    Source: farthest-first traversal as in Sener and Savarese, "Active Learning for Convolutional Neural Networks: A
    Core-Set Approach", ICLR 2018, weighted by the margin; `benchmarks/suggest.py` compares.
    """
    files = sample_files(Path(out), csv=False, kml=False)
    for path in files:
        refuse_existing(path, overwrite=overwrite)
    refuse_answered(files[0])
    if n < 1:
        raise UsageError(f"`n` is {n} but must be 1 or more")
    finished = georeferenced(map)
    window = _window(finished)
    known = _labeled_cells(finished, labeled)
    valid, space = _space(finished, window)
    weight = np.ones(valid.shape, np.float32)
    if len(known):
        weight = _uncertainty(finished) + LEAST
    reach = -(-window // finished.grid.stride)
    cells = farthest_cells(space, weight, valid, known, n, reach, finished.lulc)
    if len(cells) < n:
        raise UsageError(
            f"`n` is {n}, but {finished.path.name} has only {len(cells)} windows left that do not touch each other or "
            "labeled ones; use fewer"
        )
    reason = UNCERTAIN if len(known) else SPREAD
    names = {c.code: c.name for c in (*finished.legend, WITHHELD)}
    squares = unanswered(
        window_squares(finished.grid, window, *cells.T),
        [names[code] for code in finished.lulc[tuple(cells.T)].tolist()],
        [reason] * n,
        finished.grid.crs.to_wkt(),
    )
    offered = list(dict.fromkeys([*finished.legend.names, *classes]))
    write_suggestions(files, finished, squares, offered, {"n": n, "labeled": len(known), "by": reason})
    if "truecolor" not in finished.paths:
        log.info("the project has no picture of the scene; map it with truecolor among its products to have one")
    return Suggestions(cells, finished, reason, tuple(files))


def farthest_cells(
    space: NDArray[np.floating],
    weight: NDArray[np.floating],
    valid: NDArray[np.bool_],
    known: NDArray[np.int64],
    n: int,
    reach: int,
    kinds: NDArray[np.integer] | None = None,
) -> NDArray[np.int64]:
    """Takes one cell after the other, the one with the largest product of weight and distance to all taken before.

    Args:
        space: (rows, columns, D) positions of the cells in a space in which near cells are alike.
        weight: (rows, columns), above 0.
        valid: (rows, columns) which cells may be taken.
        known: (k, 2) cells that are taken before.
        n: Number of cells.
        reach: Cells in each direction of a taken cell that cannot be taken any more.
        kinds: (rows, columns) what each cell is. The last cells, at most half of them, are typical ones of the kinds of
            which fewer than `EACH` are taken; None does without.

    Returns:
        (n, 2) rows and columns in the order in which they were taken; fewer if no more are left. Without known cells,
        the first is the most common one: that nearest to the mean.
    """
    rows, columns = np.nonzero(valid)
    positions, weights = space[rows, columns].astype(np.float32), weight[rows, columns].astype(np.float32)
    apart = Apart((valid.shape[0], valid.shape[1]), reach)
    nearest = np.full(len(rows), np.inf, np.float32)

    def take(row: int, column: int) -> None:
        apart.block(row, column)
        position = space[row, column].astype(np.float32)
        if np.isfinite(position).all():
            np.minimum(nearest, np.linalg.norm(positions - position, axis=1), out=nearest)

    for row, column in known.tolist():
        take(row, column)
    taken: list[tuple[int, int]] = []
    classes = np.zeros(len(rows), np.int64) if kinds is None else kinds[rows, columns].astype(np.int64)
    common = _commonness(positions, np.zeros(len(rows), np.int64))
    typical = _commonness(positions, classes)
    lacking = np.where(np.bincount(classes) > 0, EACH if kinds is not None else 0, 0)
    for row, column in known.tolist():
        if kinds is not None and kinds[row, column] < len(lacking):
            lacking[kinds[row, column]] -= 1
    while len(taken) < n and (free := apart.free[rows, columns]).any():
        lacking[np.setdiff1d(np.arange(len(lacking)), classes[free])] = 0  # none is left of these
        score = common if np.isinf(nearest[0]) else weights * nearest
        if n - len(taken) <= min(lacking.clip(0).sum(), n // 2):
            free &= lacking[classes] > 0
            score = typical  # the farthest of a class are often of another in truth
        best = int(np.where(free, score, -np.inf).argmax())
        taken.append((int(rows[best]), int(columns[best])))
        lacking[classes[best]] -= 1
        take(*taken[-1])
    return np.array(taken, np.int64).reshape(-1, 2)


def _commonness(positions: NDArray[np.float32], groups: NDArray[np.int64]) -> NDArray[np.float32]:
    """(n,) minus the distance of each of (n, D) positions to the mean of its group."""
    counts = np.bincount(groups)
    sums = np.zeros((len(counts), positions.shape[1]))
    np.add.at(sums, groups, positions)
    means = sums / np.maximum(counts, 1)[:, None]
    result: NDArray[np.float32] = -np.linalg.norm(positions - means[groups], axis=1)
    return result


def _window(finished: SceneMap) -> int:
    """Side of the windows in pixels.

    Raises:
        DataError: The map does not say.
    """
    return int(finished.summary["model"]["window"])


def _space(finished: SceneMap, window: int) -> tuple[NDArray[np.bool_], NDArray[np.floating]]:
    """Which cells have a window with data in the scene, and the space in which similar windows are near each other.

    Raises:
        DataError: The map has neither features nor probabilities.
    """
    grid = finished.grid
    if "features" in finished.paths:
        space: NDArray[np.floating] = finished.features
    elif "probabilities" in finished.paths:
        rows, columns = np.indices((grid.rows, grid.columns), np.float32)
        place = PLACE * np.stack([rows, columns], axis=-1) / max(grid.rows, grid.columns)
        space = np.concatenate([np.sqrt(finished.probabilities), place], axis=-1)
    else:
        raise DataError(
            f"{finished.path}: the map has neither features nor probabilities, by which windows are chosen; map the "
            "scene again with features or probabilities in `products`"
        )
    # A cell beside one without data may lack some pixels itself, and geocfl.patches leaves out such windows.
    around = 2 * window_reach(window, grid.stride) + 3
    there = minimum_filter(finished.lulc != 0, size=around, mode="nearest")
    inside = np.outer(_inside(grid.rows, grid.height, window, grid), _inside(grid.columns, grid.width, window, grid))
    return there & inside & np.isfinite(space[..., 0]), space


def _inside(count: int, pixels: int, window: int, grid: CellGrid) -> NDArray[np.bool_]:
    """(count,) which rows or columns of cells have windows inside a scene of so many pixels."""
    first = np.arange(count) * grid.stride + (grid.stride - window) // 2
    return (first >= 0) & (first + window <= pixels)


def _uncertainty(finished: SceneMap) -> NDArray[np.float32]:
    """(rows, columns) 0 where the map is sure to 1 where it is not; 1 without data.

    Raises:
        DataError: The map has neither probabilities nor confidence.
    """
    if "probabilities" in finished.paths:
        ordered = np.partition(np.nan_to_num(finished.probabilities), -2, axis=-1)
        margin: NDArray[np.float32] = ordered[..., -1] - ordered[..., -2]
        return 1 - margin
    if "confidence" in finished.paths:
        return 1 - np.nan_to_num(finished.confidence)
    raise DataError(
        f"{finished.path}: the map has neither probabilities nor confidence, which say where it is unsure; map the "
        "scene again with probabilities in `products`"
    )


def _labeled_cells(finished: SceneMap, files: Sequence[str | Path]) -> NDArray[np.int64]:
    """(k, 2) cells in which the middles of labeled points and polygons lie; those outside the map are left out.

    Raises:
        DataError: A file cannot be read, or has no coordinate reference system.
    """
    grid, found = finished.grid, [np.empty((0, 2), np.int64)]
    for file in (Path(each) for each in files):
        points = read_points(file)
        if points.crs is None:
            raise DataError(f"{file}: has no coordinate reference system; assign one, such as by ogr2ogr -a_srs")
        answered = points[is_answer(points[REFERENCE]) & points.geometry.notna()]
        middles = answered.geometry.to_crs(pyproj.CRS.from_wkt(grid.crs.to_wkt())).centroid
        if not len(answered):
            log.warning("%s: has no answers", file)
        columns, rows = ~grid.transform @ (middles.x.to_numpy(), middles.y.to_numpy())
        inside = (rows >= 0) & (columns >= 0) & (rows < grid.height) & (columns < grid.width)
        cells = np.column_stack([rows[inside], columns[inside]]) // grid.stride
        found.append(cells.astype(np.int64))
    return np.concatenate(found)
