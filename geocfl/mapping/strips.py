"""Reads a scene once, in full-width strips that hold the windows of some rows of cells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geocfl.core.grid import CellGrid
from geocfl.core.numbers import Numbers, Pixels, known
from geocfl.core.windows import has_data, mirror, share
from geocfl.mapping.interpolate import cells_to_classify
from geocfl.scenes import Scene


@dataclass(frozen=True)
class Strip:
    """Some rows of cells, and the pixels that their windows need.

    Attributes:
        first: Index of the first cell row.
        pixels: (B, h, w) float32 reflectance, NaN is no data, or digital numbers; mirrored beyond the scene. The
            footprint of cell (k, j) of the strip starts at (k * stride, j * stride).
        inside: (B, h', width) of the cells' own pixels; a view.
        valid: (k, columns) bool, which cells have data: at least half of their pixels inside the scene do and lie in
            the area to map, and no more are masked than allowed.
        chosen: (k, columns) bool, which of these are classified: all, unless the others are to be interpolated.
        masked: (k, columns) bool, which cells are left empty only because of the mask.
    """

    first: int
    pixels: Pixels
    inside: Pixels
    valid: NDArray[np.bool_]
    chosen: NDArray[np.bool_]
    masked: NDArray[np.bool_]


def scene_strips(
    scene: Scene,
    bands: tuple[str, ...],
    grid: CellGrid,
    cell_rows: int,
    first: int = 0,
    max_masked: float = 0.5,
    last: int | None = None,
    *,
    interpolate: bool = False,
    stored: bool = False,
) -> Iterator[Strip]:
    """Reads a scene from top to bottom, each pixel once: rows that the next strip needs are kept.

    If a strip is at least as high as the file's blocks, reading stops at their edges, so that none is decoded twice.

    Args:
        scene: An open scene, at least as large as a window.
        bands: Bands to read, in order.
        grid: The cells.
        cell_rows: Rows of cells per strip; the last strip may have fewer.
        first: Row of cells to start at, a multiple of `cell_rows`.
        max_masked: Fraction of a cell's pixels that may be masked, 0..1.
        last: Row of cells to stop before, a multiple of `cell_rows`; None for all.
        interpolate: Whether to choose only the cells that the others can be interpolated from; `cell_rows` is even.
        stored: Whether to give digital numbers if the scene has such as devices take, else reflectance.

    Yields:
        Strips that together cover every row of cells from `first` to `last`.

    Raises:
        SceneError: The scene cannot be decoded.
    """
    left = grid.margin
    columns = mirror(-left, (grid.columns - 1) * grid.stride - left + grid.footprint, grid.width)
    outside = np.flatnonzero((np.arange(len(columns)) < left) | (np.arange(len(columns)) >= left + grid.width))
    align = scene.block_rows if scene.block_rows <= cell_rows * grid.stride else 1

    needs = [_pixel_rows(grid, row, cell_rows) for row in range(first, last or grid.rows, cell_rows)]
    if not needs:
        return
    # The last strip is mirrored at the bottom, so it may need rows above those of the strip before it.
    keep = np.minimum.accumulate([rows.min() for rows in needs][::-1])[::-1]
    dtype = scene.stored_dtype(bands) if stored else None
    planes = len(bands) if dtype is None else len(bands) + 1
    held = np.empty((planes, 0, len(columns)), dtype or np.float32)

    def of(part: NDArray[Any]) -> Pixels:
        return part if dtype is None else Numbers(part, tuple(scene.scaling[band] for band in bands))

    top = stop = int(keep[0])
    for index, (rows, lowest) in enumerate(zip(needs, keep.tolist(), strict=True)):
        row = first + index * cell_rows
        end = max(stop, min(grid.height, -(-(int(rows.max()) + 1) // align) * align))
        pixels = np.empty((planes, end - lowest, len(columns)), held.dtype)
        kept = stop - lowest
        pixels[:, :kept] = held[:, lowest - top :]
        if end > stop:
            (scene.read if dtype is None else scene.read_stored)(
                bands, stop, end, out=pixels[:, kept:, left : left + grid.width]
            )
            pixels[:, kept:, outside] = pixels[:, kept:, left + columns[outside]]
        held, top, stop = pixels, lowest, end
        below = min(grid.height, (row + cell_rows) * grid.stride)
        inside = of(held[:, row * grid.stride - top : below - top, left : left + grid.width])
        valid, masked = _wanted_cells(scene, known(inside), row * grid.stride, below, grid.stride, max_masked)
        chosen = cells_to_classify(valid, grid.rows - row) if interpolate else valid
        yield Strip(row, of(_take(held, rows - top)), inside, valid, chosen, masked)


def _wanted_cells(
    scene: Scene, known: NDArray[np.bool_], start: int, stop: int, stride: int, max_masked: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(k, columns) bool twice: cells that are classified, and cells left empty only because of the mask."""
    wanted = scene.extent.inside(start, stop)
    if wanted is not None:
        known = known & wanted
    if scene.mask is None:
        valid = has_data(known, stride)
        return valid, np.zeros_like(valid)
    hidden = scene.mask.read(scene.extent, start, stop)
    if wanted is not None:
        hidden &= wanted
    would_be = has_data(known | hidden, stride)
    clear = (share(hidden, stride) <= max_masked) & (share(known, stride) > 0)
    return would_be & clear, would_be & ~clear


def _pixel_rows(grid: CellGrid, row: int, cell_rows: int) -> NDArray[np.int64]:
    """Pixel rows of the scene, mirrored at its edges, that the windows of some rows of cells read."""
    start = row * grid.stride - grid.margin
    count = min(cell_rows, grid.rows - row)
    return mirror(start, start + (count - 1) * grid.stride + grid.footprint, grid.height)


def _take(pixels: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    """Rows of (B, h, w); a view unless some are mirrored, as at the scene's top and bottom."""
    if (np.diff(rows) == 1).all():
        return pixels[:, rows[0] : rows[-1] + 1]
    return pixels[:, rows]
