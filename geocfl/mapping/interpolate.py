"""Interpolates between cells: every second cell is classified in each direction, the others are computed from them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

INTERPOLATION_REACH = 3
"""Rows above and below a cell that it is interpolated from, at most."""


def cells_to_classify(valid: NDArray[np.bool_], rows_left: int) -> NDArray[np.bool_]:
    """Which cells are classified, so that all others with data can be interpolated.

    These are the cells in even rows and columns, and those that cells without data, or the edge of the map, leave
    without a neighbor: a cell in an even row needs those to its left and right, one in an odd row that above it. Cells
    in the last row of the map are classified if it is odd.

    Args:
        valid: (k, columns) which cells have data, in rows of which the first is even.
        rows_left: Rows from the first of these to the end of the map.

    Returns:
        (k, columns).
    """
    chosen = valid.copy()
    even, odd = valid[::2], valid[1::2]
    chosen[::2, 1:-1:2] &= ~(even[:, :-2:2] & even[:, 2::2])
    chosen[1::2] &= ~even[: len(odd)]
    if rows_left == len(valid) and rows_left % 2 == 0:
        chosen[-1] = valid[-1]
    return chosen


def interpolate(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Fills the cells between those that are classified, by cubic convolution first along rows, then along columns.

    Where one of the two outer neighbors is missing, the mean of the inner two counts; where no cell below is known, the
    cell above.

    Args:
        logits: (rows, columns, classes), NaN where a cell is not classified; the first row is even in the map.

    Returns:
        The same array, filled in place. A cell depends on no row further away than `INTERPOLATION_REACH`.
    """
    even = logits[::2]
    _fill(even[:, 1::2], _between(even[:, ::2], axis=1))
    _fill(logits[1::2], _between(even, axis=0))
    _fill(logits[1::2], even)
    return logits


def _between(values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Values halfway between each element and the next along an axis; NaN after the last and beside unknown ones.

    The weights are those of cubic convolution with a = -1/2 (Keys 1981, "Cubic convolution interpolation for digital
    image processing").
    """
    values = np.moveaxis(values, axis, 0)
    edge = np.full((2, *values.shape[1:]), np.nan, np.float32)
    padded = np.concatenate([edge[:1], values, edge])
    before, left, right, after = (padded[i : len(values) + i] for i in range(4))
    middle = (left + right) / 2
    cubic = middle + (left + right - before - after) / 16
    return np.moveaxis(np.where(np.isnan(cubic), middle, cubic), 0, axis)


def _fill(values: NDArray[np.float32], others: NDArray[np.float32]) -> None:
    """Replaces NaN by the values of another array, whose later columns or rows may be missing in this one."""
    others = others[: values.shape[0], : values.shape[1]]
    np.copyto(values, others, where=np.isnan(values))
