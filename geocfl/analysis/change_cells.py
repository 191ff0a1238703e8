"""The cells of a change map: transition and probability of change of each, strip by strip from two maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from geocfl.analysis.alignment import AlignedMap
from geocfl.analysis.change_probability import change_probability, from_confidence, from_percent, most_probable
from geocfl.analysis.overlap import Overlap, PairCounter, PairTable, beyond_scene
from geocfl.core.legend import NODATA, UNCLASSIFIED, Legend
from geocfl.core.progress import Progress, counted
from geocfl.core.transitions import transition_codes
from geocfl.errors import DataError
from geocfl.products import scratch
from geocfl.products.files import FILES
from geocfl.products.scene_map import SceneMap
from geocfl.products.storage import open_raster

BANDS = ("transition", "probability", "changed", "before", "after")
"""Bands of the work raster: code of the transition; probability of change in percent, 255 where there is none; the code
again, where the class changed; and the class codes on both maps."""
TRANSITION, PROBABILITY, CHANGED, BEFORE, AFTER = range(1, 6)
VALUES = 4_000_000
"""Probabilities of one map that are in memory at a time, 16 MB."""


@dataclass(frozen=True)
class Evidence:
    """What the probability of change is computed from.

    Attributes:
        kind: ``"probabilities"`` of all classes, ``"confidence"`` of the cell's class, or ``""`` if both maps have
            neither.
        prior: (classes, classes) transition prior; rows have a sum of 1.
        forbidden: (256, 256) bool, pairs of class codes that cannot be.
    """

    kind: str
    prior: NDArray[np.float64]
    forbidden: NDArray[np.bool_]


@dataclass(frozen=True)
class ChangeTables:
    """What was counted while the cells were made.

    Attributes:
        pairs: What each pair of classes covers on the change map.
        percent: (256, 256) sum of the probabilities of change, in percent.
        resolved: What each forbidden pair covers on the maps.
    """

    pairs: PairTable
    percent: NDArray[np.int64]
    resolved: PairTable


def kind_of_evidence(maps: Sequence[SceneMap]) -> str:
    """The best kind of `Evidence` that all maps have.

    Raises:
        DataError: A raster of probabilities or confidences is broken, or of other cells than its map.
    """
    for kind in ("probabilities", "confidence"):
        if all(kind in m.paths for m in maps):
            for m in maps:
                _check(m, kind)
            return kind
    return ""


def write_cells(
    both: Overlap, cells: Path, legend: Legend, evidence: Evidence, progress: Progress, name: str
) -> ChangeTables:
    """Writes the work raster, strip by strip.

    Args:
        both: The maps on their common cells.
        cells: Work raster to write: uint16, `BANDS`.
        legend: The legend of both maps.
        evidence: What the probability of change is computed from.
        progress: Called with the strips that are done.
        name: The change map, for `progress`.

    Raises:
        DataError: A map cannot be decoded, or holds codes that its legend lacks.
    """
    grid, lookup, classes = both.grid, transition_codes(legend), len(legend)
    counter, removed, percent = PairCounter(grid), PairCounter(grid), np.zeros((256, 256), np.int64)
    scratch.write_header(cells, grid.rows, grid.columns, BANDS, "uint16")
    strips = list(both.strips(VALUES // classes if evidence.kind else VALUES // 4))
    with cells.open("wb") as file:
        for rows in counted(strips, progress, name, len(strips), "strip"):
            before, after = read_codes(both.first, both, rows, classes), read_codes(both.second, both, rows, classes)
            probability = np.full(before.shape, scratch.NO_CONFIDENCE, np.uint8)
            never = evidence.forbidden[before, after]
            if evidence.kind:
                known = (before != NODATA) & (after != NODATA) & (before != UNCLASSIFIED) & (after != UNCLASSIFIED)
                first = _probabilities(both.first, both, rows, before, evidence.kind, classes)[:, known]
                second = _probabilities(both.second, both, rows, after, evidence.kind, classes)[:, known]
                probability[known] = np.rint(100 * change_probability(first, second, evidence.prior))
                if never.any():
                    removed.add(rows, np.where(never, before, NODATA), np.where(never, after, NODATA))
                    those = never[known]
                    before[never], after[never] = most_probable(first[:, those], second[:, those], evidence.prior)
            counter.add(rows, before, after)
            percent += (
                np.bincount(
                    (before.astype(np.int32) * 256 + after).ravel(),
                    np.where(probability == scratch.NO_CONFIDENCE, 0, probability).ravel(),
                    1 << 16,
                )
                .reshape(256, 256)
                .astype(np.int64)
            )
            codes = lookup[before, after]
            changed = np.where((before != after) & (before != UNCLASSIFIED) & (after != UNCLASSIFIED), codes, NODATA)
            strip = np.stack([codes, probability, changed, before, after], axis=1)
            file.write(strip.astype("<u2").tobytes())
    removed.table.cells[NODATA, NODATA] = 0
    return ChangeTables(counter.table, percent, removed.table)


def read_codes(part: AlignedMap, both: Overlap, rows: slice, classes: int) -> NDArray[np.uint8]:
    """(rows, columns) class codes of a map on the common cells; no data beyond its scene.

    Raises:
        DataError: They cannot be decoded, or are not in the legend.
    """
    codes: NDArray[np.uint8] = part.read(part.map.path, both.grid, rows, slice(0, both.grid.columns))
    codes[beyond_scene(part, both, rows)] = NODATA
    if ((codes > classes) & (codes != UNCLASSIFIED)).any():
        raise DataError(f"{part.map.path}: holds codes that its legend lacks; pass an unchanged map")
    return codes


def _probabilities(
    part: AlignedMap, both: Overlap, rows: slice, codes: NDArray[np.uint8], kind: str, classes: int
) -> NDArray[np.float32]:
    """(classes, rows, columns) probabilities of a map on the common cells; of any value where it has no class."""
    columns, path = slice(0, both.grid.columns), part.map.paths[kind]
    if kind == "confidence":
        return from_confidence(codes, part.read(path, both.grid, rows, columns), classes)
    return from_percent(part.read(path, both.grid, rows, columns, list(range(1, classes + 1))))


def _check(m: SceneMap, kind: str) -> None:
    """Refuses a raster that is broken, of other cells, or of other classes than its map."""
    path: Any = m.paths[kind]
    try:
        with open_raster(path) as dataset:
            same = dataset.shape == (m.grid.rows, m.grid.columns)
            same &= dataset.transform.almost_equals(m.grid.cell_transform, 1e-6)
            same &= dataset.count == (len(m.legend) if kind == "probabilities" else 1)
            same &= set(dataset.dtypes) == {"uint8"}
    except RasterioError as error:
        raise DataError(f"{path}: not a raster that GDAL reads; map its scene again") from error
    if not same:
        raise DataError(
            f"{path}: has other cells or classes than {m.name}{FILES['lulc']}; pass both as geocfl has written them"
        )
