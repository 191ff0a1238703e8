"""Windows of pixels: cut them from a strip, mirror them at the scene's edge, fill their missing pixels."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)


def cut(pixels: NDArray[T], window: int, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[T]:
    """(n, B, window, window) windows of (B, h, w) pixels, by the `rows` and `columns` of their upper left pixels."""
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (window, window), axis=(1, 2))
    return windows.transpose(1, 2, 0, 3, 4)[rows, columns]


def mirror(start: int, stop: int, size: int) -> NDArray[np.int64]:
    """Indices start..stop-1 reflected into 0..size-1 about the edge pixels, like numpy's ``reflect`` padding.

    Args:
        start: May be negative.
        stop: May exceed size.
        size: At least 2.
    """
    indices = np.abs(np.arange(start, stop)) % (2 * (size - 1))
    return np.where(indices < size, indices, 2 * (size - 1) - indices)


def spread(size: int, side: int, count: int) -> NDArray[np.int64]:
    """First pixels of squares spread over a length, with one at each end; fewer where they would be the same.

    Args:
        size: Pixels of the length.
        side: Pixels of a square.
        count: Number of squares.
    """
    return np.unique(np.linspace(0, max(0, size - side), count).astype(np.int64))


def fill(windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Fills missing pixels with their mirror image about the nearest pixel with data.

    A constant color would look like water to a network; ``benchmarks/no_data.py`` measures it. Only pixels of the same
    window are used, so the class of a cell does not depend on how the scene is read.

    Args:
        windows: (n, B, H, W) reflectance, filled in place; NaN in all bands is no data. Where the mirror image has no
            data either, the nearest pixel with data is used. A window without any data is left as it is.

    Returns:
        The same array.
    """
    known = ~np.isnan(windows[:, 0])
    for index in np.flatnonzero(~known.all(axis=(1, 2)) & known.any(axis=(1, 2))):
        pixels = windows[index].reshape(windows.shape[1], -1)
        windows[index] = pixels.take(sources(known[index]), axis=1).reshape(windows.shape[1:])
    return windows


def sources(known: NDArray[np.bool_]) -> NDArray[np.intp]:
    """(H * W,) index of the pixel of an (H, W) window that each of its pixels is filled with, as by `fill`.

    Args:
        known: (H, W), which pixels have data.
    """
    if not known.any():
        return np.arange(known.size)
    from scipy.ndimage import distance_transform_edt  # slow to import, and most scenes have no missing pixels

    nearest = distance_transform_edt(~known, return_distances=False, return_indices=True)
    mirrored = 2 * nearest - np.indices(known.shape)
    last = np.array(known.shape)[:, None, None] - 1
    row, column = mirrored.clip(0, last)
    usable = ((mirrored >= 0) & (mirrored <= last)).all(axis=0) & known[row, column]
    row, column = np.where(usable, mirrored, nearest)
    found: NDArray[np.intp] = (row * known.shape[1] + column).ravel()
    return found


def has_data(mask: NDArray[np.bool_], stride: int) -> NDArray[np.bool_]:
    """Whether at least half of the pixels of each cell have data.

    Args:
        mask: (h, w) bool, True where a pixel has data. It starts at a corner of a cell and may end inside a cell.
        stride: Side of a cell in pixels.

    Returns:
        (ceil(h / stride), ceil(w / stride)) bool.
    """
    return share(mask, stride) >= 0.5


def share(mask: NDArray[np.bool_], stride: int) -> NDArray[np.float64]:
    """Fraction of the pixels of each cell that are True; arguments and shape as in `has_data`."""
    height, width = mask.shape
    edges = [np.arange(0, size, stride) for size in (height, width)]
    if mask.all():  # as in most scenes; the sums take ten times as long
        return np.ones((len(edges[0]), len(edges[1])))
    # Rows first, in the smallest integers that hold the sum of a column: this is most of the work.
    filled = np.add.reduceat(np.add.reduceat(mask, edges[0], axis=0, dtype=np.int16), edges[1], axis=1, dtype=np.int32)
    sizes = [np.minimum(stride, size - edge) for size, edge in zip((height, width), edges, strict=True)]
    shares: NDArray[np.float64] = filled / np.outer(*sizes)
    return shares
