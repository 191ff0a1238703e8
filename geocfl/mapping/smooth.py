"""Smooths a map: each cell gets the mean of the windows that cover it, in which sure windows count more."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIGMA_PIXELS = 12.0
"""Standard deviation of the Gaussian that a window's weight follows with distance; `benchmarks/quilts.py` compares."""
SHARPNESS = 8
"""A window's weight is its confidence to this power, so that sure windows decide."""


def smoothing_reach(stride: int, window: int) -> int:
    """Cells in each direction whose windows cover a part of a cell; 0 if windows do not overlap.

    Args:
        stride: Side of a cell, pixels, 1..window.
        window: Side of a window, pixels.
    """
    return (window + stride - 1) // (2 * stride)


def smooth(
    probability: NDArray[np.float32],
    valid: NDArray[np.bool_],
    stride: int,
    window: int,
    *,
    keep: tuple[int, ...] = (),
    sigma: float = SIGMA_PIXELS,
    sharpness: float = SHARPNESS,
) -> NDArray[np.float32]:
    """Replaces each cell's probabilities by the mean over the windows that cover the cell.

    The mean is P(u) ~ sum_j K(u - c_j) (max P_j)^q P_j over all cells j whose windows cover a part of cell u. K is a
    Gaussian of the distance to their centers c_j, and q the sharpness.

    Args:
        probability: (rows, columns, classes), each cell's sum to 1; ignored where a cell is not valid.
        valid: (rows, columns) which cells have data; only these count, and only these change.
        stride: Side of a cell, pixels.
        window: Side of a window, pixels.
        keep: Codes of classes, from 1: cells of these classes stay as they are.
        sigma: Standard deviation of the Gaussian, pixels.
        sharpness: The exponent q.

    Returns:
        (rows, columns, classes), each valid cell's sum to 1. A cell depends on no other than those in
        `smoothing_reach`.
    """
    from scipy.ndimage import correlate1d

    reach = smoothing_reach(stride, window)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * stride / sigma) ** 2)
    weight = np.where(valid, probability.max(axis=-1), 0).astype(np.float32) ** sharpness
    smoothed = np.empty_like(probability)
    for index in range(probability.shape[-1]):
        votes = weight * np.where(valid, probability[..., index], 0)
        smoothed[..., index] = correlate1d(correlate1d(votes, kernel, 0, mode="constant"), kernel, 1, mode="constant")
    kept = ~valid | np.isin(probability.argmax(axis=-1) + 1, keep)
    smoothed[kept] = probability[kept]
    smoothed[~kept] /= smoothed[~kept].sum(axis=-1, keepdims=True)
    return smoothed
