"""Windows with missing pixels, at the edge of a swath or under a mask: filled from the pixels beside them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def fill(windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mirrors what lies about the nearest pixel with data into the pixels without.

    One flat colour in their place looks like water to a network; ``benchmarks/no_data.py`` measures it. Only the window
    itself counts, so that a cell's class does not depend on how a scene is read.

    Args:
        windows: (n, B, S, S) reflectance, filled in place; NaN in all bands is no data. Where the mirror image has no
            data either, the nearest pixel's value is taken; a window without any data is left as it is.

    Returns:
        The same array.
    """
    known = ~np.isnan(windows[:, 0])
    for index in np.flatnonzero(~known.all(axis=(1, 2)) & known.any(axis=(1, 2))):
        pixels = windows[index].reshape(windows.shape[1], -1)
        windows[index] = pixels.take(_sources(known[index]), axis=1).reshape(windows.shape[1:])
    return windows


def _sources(known: NDArray[np.bool_]) -> NDArray[np.intp]:
    """(S * S,) index of the pixel that each pixel of a (S, S) window takes its value from."""
    from scipy.ndimage import distance_transform_edt  # most scenes need none

    nearest = distance_transform_edt(~known, return_distances=False, return_indices=True)
    mirrored = 2 * nearest - np.indices(known.shape)
    row, column = mirrored.clip(0, len(known) - 1)
    usable = (mirrored >= 0).all(axis=0) & (mirrored < len(known)).all(axis=0) & known[row, column]
    row, column = np.where(usable, mirrored, nearest)
    sources: NDArray[np.intp] = (row * len(known) + column).ravel()
    return sources
