"""How many points a sample needs, and how many of them go to each stratum."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

FEWEST = 2
"""Points in every stratum: fewer have no variance."""
ALLOCATIONS = ("proportional", "equal", "neyman")
"""Names of allocations; ``rare:MIN`` is another."""


def sample_size(weights: Floats, accuracies: Floats, target: float, cells: float) -> int:
    """Points that give the overall accuracy with a target standard error.

    Source: Cochran, "Sampling Techniques", 1977, eq. 5.25, as eq. 13 of Olofsson et al., "Good practices for estimating
    area and assessing accuracy of land change", Remote Sensing of Environment 2014.

    Args:
        weights: (H,) shares of the area, summing to 1.
        accuracies: (H,) expected user's accuracies, 0..1.
        target: Standard error of the overall accuracy, > 0.
        cells: Number of cells in the population.
    """
    variances = accuracies * (1 - accuracies)
    size = (weights @ np.sqrt(variances)) ** 2 / (target**2 + weights @ variances / cells)
    return max(int(np.ceil(size - 1e-9)), 1)


def allocate(size: int, shares: Floats, cells: Counts, fewest: int = FEWEST) -> Counts:
    """Divides a sample among strata in proportion to shares.

    Strata that would get fewer points than `fewest` get that many, and no stratum gets more than its cells; the others
    share the rest.

    Args:
        size: Points in all.
        shares: (H,) shares, >= 0, in any unit; not all 0.
        cells: (H,) cells of each stratum, >= 1.
        fewest: Points that each stratum gets at least, if it has as many cells.

    Returns:
        (H,) points, summing to `size` or to all cells if there are fewer.

    Raises:
        ValueError: `size` is too small to give each stratum `fewest` points.
    """
    lowest, highest = np.minimum(fewest, cells), cells
    size = min(size, int(cells.sum()))
    if size < lowest.sum():
        raise ValueError(f"{size} points are too few: {len(cells)} strata with {fewest} each need {lowest.sum()}")
    points = lowest.astype(np.float64)
    low, high = 0.0, 1.0
    # The factor between shares and points, by bisection: the sum grows with it.
    shares = np.maximum(shares, 1e-12 * shares.max())
    while np.clip(high * shares, lowest, highest).sum() < size:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        points = np.clip(middle * shares, lowest, highest)
        low, high = (middle, high) if points.sum() < size else (low, middle)
    whole = np.floor(points + 1e-6).astype(np.int64)
    order = np.argsort(-(points - whole), kind="stable")
    for index in order[: size - int(whole.sum())]:  # the largest remainders get the points that are left
        whole[index] += 1
    return whole
