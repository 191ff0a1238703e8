"""Cells of a map by place: the one at a point, and those whose windows do not overlap."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyproj
from numpy.typing import NDArray

from geocfl.core.grid import CellGrid
from geocfl.errors import UsageError
from geocfl.products.scene_map import SceneMap


def cell_at(finished: SceneMap, point: tuple[float, float]) -> tuple[int, int]:
    """Row and column of the cell at a point.

    Args:
        finished: The map.
        point: Longitude and latitude in degrees or, if they cannot be degrees, coordinates of the map.

    Raises:
        UsageError: The point is not two numbers, lies outside the map, or on a cell without data.
    """
    if len(point) != 2 or not np.isfinite(point).all():
        raise UsageError(f"`point` is {point!r} but must be two numbers, such as 13.4,45.8")
    x, y = map(float, point)
    grid, crs = finished.grid, finished.crs
    if crs and crs.is_projected and abs(x) <= 360 and abs(y) <= 90:
        x, y = pyproj.Transformer.from_crs(4326, crs.to_wkt(), always_xy=True).transform(x, y)
    column, row = ~grid.transform @ (x, y) if np.isfinite([x, y]).all() else (np.nan, np.nan)
    if not (0 <= column < grid.width and 0 <= row < grid.height):
        west, south, east, north = grid.bounds()
        raise UsageError(
            f"`point` {point[0]:g},{point[1]:g} is outside the map {finished.path.name}, which reaches from "
            f"{west:.6g},{south:.7g} to {east:.6g},{north:.7g}; give another point, as longitude,latitude or in the "
            "map's coordinates"
        )
    cell = int(row) // grid.stride, int(column) // grid.stride
    if not finished.lulc[cell]:
        raise UsageError(
            f"`point` {point[0]:g},{point[1]:g} is on a cell without data of the map {finished.path.name}; give "
            "another point"
        )
    return cell


def cell_centers(grid: CellGrid, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n, 2) coordinates of the middles of cells."""
    a, b, c, d, e, f = grid.cell_transform[:6]
    return np.column_stack(
        [a * (columns + 0.5) + b * (rows + 0.5) + c, d * (columns + 0.5) + e * (rows + 0.5) + f]
    ).astype(np.float64)


class Apart:
    """Takes cells whose windows do not overlap.

    Args:
        shape: Rows and columns of the map.
        reach: Cells in each direction whose windows overlap, `window_reach`.
    """

    def __init__(self, shape: tuple[int, int], reach: int) -> None:
        self.free = np.ones(shape, bool)
        self._reach = reach

    def block(self, row: int, column: int) -> None:
        """Takes a cell: those whose windows overlap with its window are no longer free."""
        reach = self._reach
        self.free[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1] = False

    def among(self, cells: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """Those of some cells that are free when it is their turn; each is taken."""
        for row, column in cells:
            if self.free[row, column]:
                self.block(row, column)
                yield row, column


def window_reach(window: int, stride: int) -> int:
    """Cells in each direction whose windows overlap with that of a cell; 0 if only its own does."""
    return -(-window // stride) - 1
