"""Saturated cells, such as snow and bright cloud, which are unlike any training data whatever a network says."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geocfl.core.numbers import Pixels, at_least, known
from geocfl.core.windows import share

SATURATED = 0.1
"""A cell is saturated if more than this fraction of its pixels with data is."""


def saturated_cells(pixels: Pixels, stride: int, limit: float) -> NDArray[np.bool_]:
    """Cells of whose pixels with data more than a tenth saturate in all bands.

    96 % of snow and 95 % of cloud windows do, and 0.02 % of EuroSAT's test patches.

    Args:
        pixels: Those of the cells themselves.
        stride: Side of a cell in pixels.
        limit: Reflectance from which on a pixel saturates: the highest that the model tells apart.

    Returns:
        (ceil(h / stride), ceil(w / stride)) bool.
    """
    bright = at_least(pixels, 0, limit)
    for band in range(1, pixels.shape[0]):
        if not bright.any():  # as in most scenes; the rest would be most of the work
            break
        bright &= at_least(pixels, band, limit)
    rows, columns = (-(-side // stride) for side in bright.shape)
    if not bright.any():
        return np.zeros((rows, columns), bool)
    return share(bright, stride) > SATURATED * share(known(pixels), stride)
