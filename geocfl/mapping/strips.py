"""Pixels to windows: a scene is read in full-width strips, and windows are views into them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geocfl.grid import CellGrid
from geocfl.scene import Scene

STRIP_PIXELS = 8_000_000
"""Pixels of one band that a strip holds at most, unless a single row of windows is larger."""


@dataclass(frozen=True)
class Strip:
    """Some whole rows of cells.

    Attributes:
        first: Index of the first cell row.
        inside: (B, h, width) float32 reflectance of the cells' own pixels, NaN no data; a view.
        windows: (k, columns, B, window, window) float32 reflectance of k cell rows' windows; a view, no copy.
        valid: (k, columns) bool, whether at least half of a cell's pixels inside the scene have data.
    """

    first: int
    inside: NDArray[np.float32]
    windows: NDArray[np.float32]
    valid: NDArray[np.bool_]


def read_strips(scene: Scene, bands: tuple[str, ...], grid: CellGrid) -> Iterator[Strip]:
    """Reads a scene from top to bottom, as many rows of cells at a time as `STRIP_PIXELS` allows.

    Args:
        scene: An open scene of at least one window's size.
        bands: Bands wanted, in order.
        grid: The cells.

    Yields:
        Strips that cover every cell row once.
    """
    per_strip = max(1, (STRIP_PIXELS // scene.width - grid.window) // grid.stride)
    columns = mirror(-grid.margin, (grid.columns - 1) * grid.stride - grid.margin + grid.window, grid.width)
    for first in range(0, grid.rows, per_strip):
        count = min(per_strip, grid.rows - first)
        start = first * grid.stride - grid.margin
        rows = mirror(start, start + (count - 1) * grid.stride + grid.window, grid.height)
        top = int(rows.min())
        pixels = scene.read(bands, top, int(rows.max()) + 1)
        mirrored = pixels[:, rows - top][:, :, columns]
        windows = np.lib.stride_tricks.sliding_window_view(mirrored, (grid.window, grid.window), axis=(1, 2))
        stop = min(grid.height, (first + count) * grid.stride)
        inside = pixels[:, first * grid.stride - top : stop - top]
        yield Strip(
            first=first,
            inside=inside,
            windows=windows[:, :: grid.stride, :: grid.stride].transpose(1, 2, 0, 3, 4),
            valid=has_data(~np.isnan(inside[0]), grid.stride),
        )


def mirror(start: int, stop: int, size: int) -> NDArray[np.int64]:
    """Indices start..stop-1 folded into 0..size-1 about the edge pixels, as numpy's ``reflect`` pads.

    Args:
        start: May be negative, down to 1 - size.
        stop: May exceed size, up to 2 * size - 1.
        size: At least 1.
    """
    indices = np.abs(np.arange(start, stop))
    return np.where(indices < size, indices, 2 * (size - 1) - indices)


def has_data(mask: NDArray[np.bool_], stride: int) -> NDArray[np.bool_]:
    """Whether at least half of each cell's pixels have data.

    Args:
        mask: (h, w) bool, True where a pixel has data; starts at a cell's corner and may end within a cell.
        stride: Side of a cell, pixels.

    Returns:
        (ceil(h / stride), ceil(w / stride)) bool.
    """
    height, width = mask.shape
    edges = [np.arange(0, size, stride) for size in (height, width)]
    filled = np.add.reduceat(np.add.reduceat(mask, edges[0], axis=0, dtype=np.int64), edges[1], axis=1)
    sizes = [np.minimum(stride, size - edge) for size, edge in zip((height, width), edges, strict=True)]
    enough: NDArray[np.bool_] = 2 * filled >= np.outer(*sizes)
    return enough
