"""The valid share of cells: how much of the window that decides each one holds pixels of the scene."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geocfl.core.grid import CellGrid
from geocfl.core.numbers import known
from geocfl.mapping.strips import Strip


def valid_shares(strip: Strip, grid: CellGrid) -> NDArray[np.uint8]:
    """The share of each cell's window that holds pixels with data, neither masked nor beyond the scene's edge.

    Args:
        strip: Some rows of cells.
        grid: All cells.

    Returns:
        (k, columns) whole percent, at least 1, because any cell with data has a share.
    """
    data = known(strip.pixels)
    top, left = grid.margin - strip.first * grid.stride, grid.margin  # where the scene begins in the strip
    data[: max(top, 0)] = data[max(top + grid.height, 0) :] = False  # mirrored
    data[:, :left] = data[:, left + grid.width :] = False
    rows, columns = strip.valid.shape
    counts = _window_sums(_window_sums(data, rows, grid).T, columns, grid).T
    return np.rint(100 * counts / grid.window**2).clip(1).astype(np.uint8)


def _window_sums(values: NDArray[np.generic], cells: int, grid: CellGrid) -> NDArray[np.int32]:
    """(cells, w) sums of (h, w) values over the rows of each cell's window; the sum moves from cell to cell."""
    sums = np.empty((cells, values.shape[1]), np.int32)
    first, last = grid.context, grid.context + grid.window
    moving = values[first:last].sum(axis=0, dtype=np.int32)
    for cell in range(cells):
        sums[cell] = moving
        step = cell * grid.stride
        moving += values[last + step : last + step + grid.stride].sum(axis=0, dtype=np.int32)
        moving -= values[first + step : first + step + grid.stride].sum(axis=0, dtype=np.int32)
    return sums
