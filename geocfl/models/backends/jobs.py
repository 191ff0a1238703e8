"""Divides the windows of a strip into the inputs of a network: batches of windows, or tiles of a dense model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geocfl.models.bundle import Bundle

TILE = 768
"""Side in pixels of the cells that a dense model's trunk computes at once: a multiple of 16, 32, 48 and 64."""


class Tile(NamedTuple):
    """A part of a strip that a dense model's trunk runs over, and the windows that are read from it.

    Attributes:
        windows: (n,) which of the windows lie in it.
        rows: Its rows of the strip's pixels.
        columns: Its columns of the strip's pixels.
        row: (n,) row of each window in the network's output.
        column: (n,) column of each window in the network's output.
    """

    windows: NDArray[np.int64]
    rows: slice
    columns: slice
    row: NDArray[np.int64]
    column: NDArray[np.int64]


def batches(count: int, batch_size: int) -> Iterator[slice]:
    """Slices of at most `batch_size` that cover `count` windows."""
    for start in range(0, count, batch_size):
        yield slice(start, min(start + batch_size, count))


def tile_rows(stride: int) -> int:
    """Rows and columns of cells in a tile, at a stride in pixels."""
    return TILE // stride


def longest_side(bundle: Bundle) -> int:
    """Pixels of the longest side of a tile, with what its outermost windows see beyond its cells."""
    return TILE + bundle.footprint


def tiles(
    rows: NDArray[np.int64], columns: NDArray[np.int64], stride: int, bundle: Bundle, shape: tuple[int, int]
) -> Iterator[Tile]:
    """Divides the cells of a strip into tiles, which lie the same way in the scene whatever the strip's height.

    A window's class depends a little on what else its tile shows, so strips must begin at a tile's first row.

    Args:
        rows: (n,) rows of the cells to classify.
        columns: (n,) columns of the cells to classify.
        stride: Side of a cell in pixels.
        bundle: A dense model.
        shape: Height and width of the strip in pixels. The footprint of cell (k, j) starts at (k * stride, j * stride).

    Yields:
        Tiles that have cells to classify.
    """
    side, step = tile_rows(stride), bundle.feature_stride
    within, offset = stride // step, bundle.context // step
    height, width = ((size - bundle.footprint) // stride + 1 for size in shape)  # in cells
    across = -(-width // side)
    tile = rows // side * across + columns // side
    order = np.argsort(tile, kind="stable")
    for windows in np.split(order, np.flatnonzero(np.diff(tile[order])) + 1) if len(order) else ():
        top, left = (int(cells[windows[0]]) // side * side for cells in (rows, columns))
        bottom, right = min(top + side, height), min(left + side, width)
        yield Tile(
            windows,
            slice(top * stride, (bottom - 1) * stride + bundle.footprint),
            slice(left * stride, (right - 1) * stride + bundle.footprint),
            (rows[windows] - top) * within + offset,
            (columns[windows] - left) * within + offset,
        )
