"""What counts where several maps overlap: the surest, the newest, the majority, or all of them together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geocfl.analysis.alignment import AlignedMap
from geocfl.analysis.change_probability import from_percent
from geocfl.core.grid import CellGrid
from geocfl.core.legend import NODATA, UNCLASSIFIED
from geocfl.errors import DataError
from geocfl.products import scratch

LEAST_WEIGHT = 0.01
"""Weight of a map on land that is more unlike its training data than every validation patch."""
MEAN_WEIGHT = np.float32(0.5)
"""Weight of a map without novelty: the mean weight of validation patches, whose percentiles are spread evenly."""
Cells = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""(rows, columns) class codes, and confidences in percent, `geocfl.products.scratch.NO_CONFIDENCE` without data."""


@dataclass(frozen=True)
class Piece:
    """The part of a map in a strip of a mosaic.

    Attributes:
        part: The map on the mosaic's grid.
        grid: The mosaic's cells.
        rows: Rows of the mosaic.
        columns: Columns of the mosaic.
        there: The same in the strip.
        correlation: How much the map errs together with others of its place, `geocfl.models.bundle.Bundle.correlation`.
    """

    part: AlignedMap
    grid: CellGrid
    rows: slice
    columns: slice
    there: tuple[slice, slice]
    correlation: float = 1.0

    def codes(self) -> NDArray[np.uint8]:
        """(r, c) class codes.

        Raises:
            DataError: They cannot be decoded, or the legend lacks one.
        """
        m = self.part.map
        codes: NDArray[np.uint8] = self.part.read(m.path, self.grid, self.rows, self.columns)
        if ((codes > len(m.legend)) & (codes != UNCLASSIFIED)).any():
            raise DataError(f"{m.path}: holds codes that its legend lacks; pass an unchanged map")
        return codes

    def product(self, name: str, bands: int | list[int] = 1) -> NDArray[Any]:
        """Cells of another raster of the map."""
        return self.part.read(self.part.map.paths[name], self.grid, self.rows, self.columns, bands)

    def confidence(self) -> NDArray[np.int16]:
        """(r, c) confidences in percent; 0 where there is none."""
        sure = self.product("confidence").astype(np.int16)
        sure[sure == scratch.NO_CONFIDENCE] = 0
        return sure


@dataclass(frozen=True)
class Rule:
    """What counts where maps overlap.

    Attributes:
        cells: Makes the cells of a strip of its pieces, its shape and the number of classes.
        planes: Bytes for each cell and class while it does; 0 if they do not depend on the classes.
        needs: Products that every map must have.
        uses: Products that count where a map has them.
        newest_first: Whether the maps are taken from the newest to the oldest, for which each must have a time.
    """

    cells: Callable[[Sequence[Piece], tuple[int, int], int], Cells]
    planes: int = 0
    needs: tuple[str, ...] = ("confidence",)
    uses: tuple[str, ...] = ()
    newest_first: bool = False


def _surest(pieces: Sequence[Piece], shape: tuple[int, int], classes: int) -> Cells:
    """The most confident cell; of equal ones, that of the first map."""
    codes, score = np.full(shape, NODATA, np.uint8), np.full(shape, -1, np.int16)
    for piece in pieces:
        mine, sure = piece.codes(), piece.confidence()
        sure[mine == NODATA] = -1
        wins = sure > score[piece.there]
        codes[piece.there][wins], score[piece.there][wins] = mine[wins], sure[wins]
    return codes, np.where(score < 0, scratch.NO_CONFIDENCE, score).astype(np.uint8)


def _first(pieces: Sequence[Piece], shape: tuple[int, int], classes: int) -> Cells:
    """The cell of the first map that has data there."""
    codes, confidence = np.full(shape, NODATA, np.uint8), np.full(shape, scratch.NO_CONFIDENCE, np.uint8)
    for piece in pieces:
        mine, sure = piece.codes(), piece.confidence()
        wins = (codes[piece.there] == NODATA) & (mine != NODATA)
        codes[piece.there][wins], confidence[piece.there][wins] = mine[wins], sure[wins]
    return codes, confidence


def _majority(pieces: Sequence[Piece], shape: tuple[int, int], classes: int) -> Cells:
    """The class of most maps; of classes with as many, the one of higher confidence in all. Unclassified cells abstain.

    Its confidence is the sum of those for the class by the number of maps that have one.
    """
    votes, sure = np.zeros((classes, *shape), np.uint16), np.zeros((classes, *shape), np.uint32)
    seen = np.zeros(shape, bool)
    for piece in pieces:
        mine, confidence = piece.codes(), piece.confidence()
        seen[piece.there] |= mine != NODATA
        for code in np.setdiff1d(mine, [NODATA, UNCLASSIFIED]):
            is_class, index = mine == code, (int(code) - 1, *piece.there)
            votes[index] += is_class
            sure[index] += np.where(is_class, confidence, 0).astype(np.uint32)
    best = np.lexsort((sure, votes), axis=0)[-1:]
    total, won = votes.sum(axis=0), np.take_along_axis(sure, best, axis=0)[0]
    voted = total > 0
    codes = np.where(voted, best[0] + 1, np.where(seen, UNCLASSIFIED, NODATA)).astype(np.uint8)
    shares = np.divide(won, total, out=np.zeros(shape), where=voted)
    return codes, np.where(seen, np.rint(shares), scratch.NO_CONFIDENCE).astype(np.uint8)


def _fused(pieces: Sequence[Piece], shape: tuple[int, int], classes: int) -> Cells:
    """The class of the highest weighted geometric mean of the maps' probabilities, and its probability.

    The mean is the logarithmic opinion pool (Genest and Zidek 1986, Statistical Science 1, 114-135). A map weighs 1
    less the percentile of novelty, or `MEAN_WEIGHT` if its novelty is unknown, times the valid share of the window, if
    that is known. Maps that err together do not make each other sure: the logarithms of the mean count `worth` times.
    """
    logs = np.zeros((classes, *shape), np.float32)
    weights, squares, shared = np.zeros((3, *shape), np.float32)
    for piece in pieces:
        percent = piece.product("probabilities", list(range(1, classes + 1)))
        weight = np.where(percent[0] == scratch.NO_CONFIDENCE, np.float32(0), _weight(piece))
        logs[(slice(None), *piece.there)] += weight * np.log(from_percent(percent))
        weights[piece.there] += weight
        squares[piece.there] += weight**2
        shared[piece.there] += weight * np.float32(piece.correlation)
    known = weights > 0
    for total in (logs, shared):
        np.divide(total, weights, out=total, where=known)
    maps = np.divide(weights**2, squares, out=np.ones_like(weights), where=known)
    logs *= worth(maps, shared)
    pooled = np.exp(logs - logs.max(axis=0))
    best = pooled.argmax(axis=0)
    sure = np.rint(100 * pooled.max(axis=0) / pooled.sum(axis=0))
    return (
        np.where(known, best + 1, NODATA).astype(np.uint8),
        np.where(known, sure, scratch.NO_CONFIDENCE).astype(np.uint8),
    )


def _weight(piece: Piece) -> NDArray[np.float32]:
    """What a map counts in its cells: (r, c), or one number for all."""
    there = piece.part.map.paths
    weight: NDArray[np.float32] = np.full((), MEAN_WEIGHT, np.float32)
    if "novelty" in there:
        weight = np.maximum(np.float32(1) - _share(piece.product("novelty")), np.float32(LEAST_WEIGHT))
    if "valid" in there:
        weight = weight * _share(piece.product("valid"))
    return weight


def _share(percent: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Percent as numbers from 0 to 1, also where there are no data."""
    return np.minimum(percent, 100).astype(np.float32) / np.float32(100)


def worth(maps: NDArray[np.float32], correlation: NDArray[np.float32]) -> NDArray[np.float32]:
    """How many independent maps are worth as much as some that err together: n = k / (1 + (k - 1) r).

    Source: Clemen and Winkler, "Limits for the precision and value of information from dependent sources", Operations
    Research 33, 427-442, 1985. It is the ratio of the variance of one error to that of their weighted mean.

    Args:
        maps: k >= 1, the number of maps; of unequal weights, (sum w)^2 / sum w^2 (Kish, Survey Sampling, 1965).
        correlation: r of their errors, 0..1; of several models, the weighted mean.

    Returns:
        n, between 1 and k.
    """
    return maps / (1 + (maps - 1) * correlation)


RULES = {
    "confidence": Rule(_surest),
    "newest": Rule(_first, newest_first=True),
    "mode": Rule(_majority, planes=14),
    "fuse": Rule(_fused, planes=16, needs=("probabilities",), uses=("novelty", "valid")),
}
"""Names of the rules. Each makes a cell of the maps that have data there, and of no others."""
