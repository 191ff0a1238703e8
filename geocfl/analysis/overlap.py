"""The common cells of two maps, and how much of each pair of codes they hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import geometry_mask

from geocfl.analysis.alignment import AlignedMap, crop, map_outline, place_maps
from geocfl.core.grid import CellGrid
from geocfl.errors import DataError
from geocfl.products.scene_map import SceneMap

PAIRS = 1 << 16
"""Pairs of two codes of a byte."""


@dataclass(frozen=True)
class Overlap:
    """Two maps on the cells that both cover.

    Attributes:
        grid: The cells, cut at the scene's rectangle of a map whose cells they are.
        first: The first map on them.
        second: The second map on them.
    """

    grid: CellGrid
    first: AlignedMap
    second: AlignedMap

    def strips(self, cells: int) -> Iterator[slice]:
        """Rows of the grid from top to bottom, about so many cells at a time."""
        step = max(1, cells // self.grid.columns)
        for top in range(0, self.grid.rows, step):
            yield slice(top, min(top + step, self.grid.rows))


def overlap(first: SceneMap, second: SceneMap) -> Overlap:
    """Finds the cells that two maps have in common, in the CRS of the first.

    If their cells do not coincide, they are the smaller ones, or those of the first map if the second is in another
    CRS, and the other map gives its nearest cell.

    Raises:
        DataError: The maps do not overlap.
    """
    crs = first.grid.crs
    apart = DataError(f"{second.path}: does not overlap {first.path}; pass two maps of the same place")
    outline = map_outline(first, crs, None)
    other = map_outline(second, crs, outline[0, 0])
    if not np.isfinite(other).all() or (outline.max(0) <= other.min(0)).any() or (other.max(0) <= outline.min(0)).any():
        raise apart
    grid, placed = place_maps([first, second], crs)
    rows = slice(max(part.top for part in placed), min(part.bottom for part in placed))
    columns = slice(max(part.left for part in placed), min(part.right for part in placed))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        raise apart
    grid, (one, two) = crop(grid, placed, rows, columns)
    return Overlap(_cut(grid, [one, two]), one, two)


def _cut(grid: CellGrid, placed: Sequence[AlignedMap]) -> CellGrid:
    """The grid in pixels of a map whose cells are its cells, cut at the scenes' rectangles of such maps."""
    copied = [part for part in placed if part.copied]
    if not copied:
        return grid
    stride, sides = copied[0].map.grid.stride, []
    for cells, starts, lengths in (
        (grid.rows, [p.top for p in copied], [p.map.grid.height for p in copied]),
        (grid.columns, [p.left for p in copied], [p.map.grid.width for p in copied]),
    ):
        strides = [p.map.grid.stride for p in copied]
        ends = [stride * start + stride * length / s for start, length, s in zip(starts, lengths, strides, strict=True)]
        end = min(float(cells * stride), *ends)
        if not end.is_integer():  # pixels of different sizes
            return grid
        sides.append(int(end))
    transform = copied[0].map.grid.transform
    pixel = transform @ Affine.translation(-copied[0].left * stride, -copied[0].top * stride)
    return CellGrid(sides[0], sides[1], stride, stride, pixel, grid.crs)


def beyond_scene(part: AlignedMap, both: Overlap, rows: slice) -> NDArray[np.bool_]:
    """(rows, columns) whether the middle of each common cell lies beyond the scene of a map with other cells.

    A map's last row and column of cells may reach beyond its scene; smaller cells there have no area on the map.
    """
    own, shape = part.map.grid, (rows.stop - rows.start, both.grid.columns)
    if part.copied or not (own.height % own.stride or own.width % own.stride):
        return np.zeros(shape, bool)
    edge = map_outline(part.map, both.grid.crs, both.grid.transform.c, scene=True)
    ring = {"type": "Polygon", "coordinates": [edge.tolist()]}
    cells = both.grid.cell_transform @ Affine.translation(0, rows.start)
    return np.asarray(geometry_mask([ring], shape, cells))


@dataclass(frozen=True)
class PairTable:
    """What each pair of codes covers, (256, 256) each, by the code on the first map and that on the second.

    Attributes:
        cells: Number of cells.
        pixels: Pixels of the first map's scene in them.
        hectares: Their area on the ground.
    """

    cells: NDArray[np.int64]
    pixels: NDArray[np.int64]
    hectares: NDArray[np.float64]


class PairCounter:
    """Counts pairs of codes strip by strip.

    Attributes:
        table: What has been counted so far.
    """

    def __init__(self, grid: CellGrid) -> None:
        self._areas, self._heights, self._widths = grid.areas(), grid.row_pixels(), grid.column_pixels()
        sides = (256, 256)
        self.table = PairTable(np.zeros(sides, np.int64), np.zeros(sides, np.int64), np.zeros(sides))

    def add(self, rows: slice, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> None:
        """Counts the (rows, columns) codes of a strip."""
        pairs = (first.astype(np.int32) * 256 + second).ravel()
        pixels = self._heights[rows, None] * self._widths
        hectares = self._areas.cells(rows.start, rows.stop)
        table = self.table
        table.cells[:] += np.bincount(pairs, minlength=PAIRS).reshape(256, 256)
        table.pixels[:] += np.bincount(pairs, pixels.ravel(), PAIRS).reshape(256, 256).astype(np.int64)
        table.hectares[:] += np.bincount(pairs, hectares.ravel(), PAIRS).reshape(256, 256)
