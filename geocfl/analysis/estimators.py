"""Estimators of map accuracy and area from a sample whose reference classes are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z = 1.959963984540054
"""The 97.5 % quantile of the normal distribution, for intervals of 95 %."""

Floats = NDArray[np.float64]
Indices = NDArray[np.integer]


@dataclass(frozen=True)
class Population:
    """The strata that a sample was drawn from; a simple random or systematic sample has one.

    Attributes:
        areas: (H,) area of each stratum in any unit, > 0.
        cells: (H,) number of cells of each stratum; infinite for a population without limit.
    """

    areas: Floats
    cells: Floats


@dataclass(frozen=True)
class Estimates:
    """Ratios with their standard errors and 95 % intervals; NaN where the sample says nothing.

    Attributes:
        value: (...) estimates, 0..1.
        error: (...) standard errors.
        low: (...) lower ends of the intervals.
        high: (...) upper ends.
    """

    value: Floats
    error: Floats
    low: Floats
    high: Floats

    def __getitem__(self, index: int | slice) -> Estimates:
        return Estimates(*(array[index] for array in (self.value, self.error, self.low, self.high)))


@dataclass(frozen=True)
class Accuracy:
    """What a sample says of a map with K classes.

    Attributes:
        counts: (K, K) points by map class (row) and reference class (column).
        matrix: (K, K) estimated shares of the area, summing to 1.
        overall: Overall accuracy, no dimension.
        users: (K,) user's accuracies.
        producers: (K,) producer's accuracies.
        f1: (K,) F1 scores.
        area: (K,) shares of the area by reference class.
        sampled: Share of the area whose strata have points, 0..1; the estimates are those of this part.
    """

    counts: NDArray[np.int64]
    matrix: Floats
    overall: Estimates
    users: Estimates
    producers: Estimates
    f1: Estimates
    area: Estimates
    sampled: float


def estimate_accuracy(
    population: Population,
    strata: Indices,
    mapped: Indices,
    reference: Indices,
    classes: int,
    cell_areas: Floats | None = None,
) -> Accuracy:
    """Estimates accuracies and areas from a stratified random sample, whose strata may differ from the map's classes.

    Each quantity is a ratio of two totals, estimated as in Stehman, "Estimating area and map accuracy for stratified
    random sampling when the strata are different from the map classes", International Journal of Remote Sensing 2014.
    Where the strata are the map's classes, these are the estimators of Olofsson et al., "Good practices for estimating
    area and assessing accuracy of land change", Remote Sensing of Environment 2014, with the correction for finite
    populations that Stehman has. Cells of unequal area count by their area.

    A stratum without points is left out, see `Accuracy.sampled`. The variance within a stratum of one point is taken
    about the mean of all points, which is conservative. The intervals are described at `_intervals`.

    Args:
        population: The H strata.
        strata: (n,) stratum of each point, 0..H-1; n >= 1.
        mapped: (n,) its class on the map, 0..K-1.
        reference: (n,) its reference class, 0..K-1.
        classes: K.
        cell_areas: (n,) area of its cell, in any unit; equal by default.
    """
    counts = np.bincount(strata, minlength=len(population.areas))
    used = counts > 0
    shares = np.where(used, population.areas, 0.0)
    sampled = float(shares.sum() / population.areas.sum())
    shares = shares / shares.sum()
    unsampled = np.where(used, 1 - counts / population.cells, 0)
    per_point = np.maximum(counts, 1)

    areas = np.ones(len(strata)) if cell_areas is None else cell_areas
    mean_areas = np.bincount(strata, areas, len(counts)) / per_point
    weights = areas / mean_areas[strata]
    expansion = shares[strata] * weights / per_point[strata]  # sums to 1

    top, bottom = _quantities(mapped, reference, classes)
    denominator = expansion @ bottom
    with np.errstate(invalid="ignore"):
        ratio = (expansion @ top) / denominator

    # The variance of a ratio is that of the mean of its residuals.
    finite = np.where(np.isnan(ratio), 0, ratio)
    residuals = top - finite * bottom
    deviations = residuals - _means(strata, weights, residuals, per_point)[strata]
    lonely = (counts == 1)[strata]
    deviations[lonely] = residuals[lonely]
    squares = _sums(strata, (weights[:, None] * deviations) ** 2, len(counts))
    variance = _total(shares, unsampled, squares / np.maximum(counts - 1, 1)[:, None] / per_point[:, None], denominator)

    smoothed = _smoothed(shares, unsampled, strata, mapped, weights, top, bottom, classes)
    estimates = _intervals(ratio, np.sqrt(variance), *smoothed, support=(bottom > 0).sum(axis=0))
    pairs = mapped * classes + reference
    return Accuracy(
        counts=np.bincount(pairs, minlength=classes**2).reshape(classes, classes),
        matrix=np.bincount(pairs, expansion, classes**2).reshape(classes, classes).astype(np.float64),
        overall=estimates[0],
        users=estimates[1 : 1 + classes],
        producers=estimates[1 + classes : 1 + 2 * classes],
        f1=estimates[1 + 2 * classes : 1 + 3 * classes],
        area=estimates[1 + 3 * classes :],
        sampled=sampled,
    )


def post_strata(population: Population, mapped: Indices) -> tuple[Population, Indices]:
    """Post-strata of a simple random or systematic sample: the classes of the map, whose areas are known.

    Classes with fewer than two points have no variance of their own; they are merged, with the smallest of the others
    if they have fewer than two points together.

    Args:
        population: The K classes of the map; areas may be 0.
        mapped: (n,) class of each point on the map, 0..K-1.

    Returns:
        The post-strata and the (n,) post-stratum of each point.
    """
    counts = np.bincount(mapped, minlength=len(population.areas))
    small = counts < 2
    if 0 < counts[small].sum() < 2 or (counts[small].sum() == 0 and population.areas[small].any()):
        others = np.flatnonzero(~small)
        if len(others):
            small[others[np.argmin(population.areas[others])]] = True
    number = np.where(small, 0, np.cumsum(~small))
    areas = np.bincount(number, population.areas).astype(np.float64)
    cells = np.bincount(number, population.cells).astype(np.float64)
    kept = areas > 0
    renumbered = np.cumsum(kept) - 1
    return Population(areas[kept], cells[kept]), renumbered[number[mapped]]


def _quantities(mapped: Indices, reference: Indices, classes: int) -> tuple[Floats, Floats]:
    """Numerators and denominators, (n, 1 + 4K): overall, user's, producer's, F1, area."""
    on_map = mapped[:, None] == np.arange(classes)
    in_truth = reference[:, None] == np.arange(classes)
    both = (on_map & in_truth).astype(np.float64)
    one = np.ones((len(mapped), 1))
    agree = both.sum(axis=1, keepdims=True)
    top = np.concatenate([agree, both, both, 2 * both, in_truth], axis=1)
    bottom = np.concatenate([one, on_map, in_truth, on_map.astype(int) + in_truth, np.tile(one, classes)], axis=1)
    return top, bottom


def _sums(strata: Indices, values: Floats, count: int) -> Floats:
    """(H, q) sums of (n, q) values by stratum."""
    out = np.zeros((count, values.shape[1]))
    np.add.at(out, strata, values)
    return out


def _means(strata: Indices, weights: Floats, values: Floats, counts: NDArray[np.integer]) -> Floats:
    return _sums(strata, weights[:, None] * values, len(counts)) / counts[:, None]


def _total(shares: Floats, unsampled: Floats, variances: Floats, denominator: Floats) -> Floats:
    """(q,) variances of ratios from the (H, q) variances of the means of strata."""
    with np.errstate(invalid="ignore", divide="ignore"):
        total: Floats = ((shares**2 * unsampled) @ variances) / denominator**2
    return total


def _smoothed(
    shares: Floats,
    unsampled: Floats,
    strata: Indices,
    mapped: Indices,
    weights: Floats,
    top: Floats,
    bottom: Floats,
    classes: int,
) -> tuple[Floats, Floats]:
    """Ratios and variances after one more point per stratum, divided among its map classes and all reference classes.

    So a kind of error that the sample happens to lack is not taken for impossible.

    Returns:
        (q,) ratios and (q,) variances.
    """
    count = len(shares)
    rows, members = np.unique(np.stack([strata, mapped]), axis=1, return_counts=True)
    added_strata, added_classes = np.repeat(rows, classes, axis=1)
    points = np.bincount(strata, minlength=count)
    added = np.repeat(members / points[rows[0]], classes) / classes
    added_top, added_bottom = _quantities(added_classes, np.tile(np.arange(classes), len(members)), classes)

    def means(own: Floats, others: Floats) -> Floats:
        sums = _sums(strata, weights[:, None] * own, count) + _sums(added_strata, added[:, None] * others, count)
        return sums / (points + 1)[:, None]

    denominator = shares @ means(bottom, added_bottom)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = (shares @ means(top, added_top)) / denominator
    finite = np.where(np.isnan(ratio), 0, ratio)
    residuals, others = top - finite * bottom, added_top - finite * added_bottom
    middle = means(residuals, others)
    spread = _sums(strata, (weights[:, None] * (residuals - middle[strata])) ** 2, count)
    spread += _sums(added_strata, added[:, None] * (others - middle[added_strata]) ** 2, count)
    variances = spread / (points + 1)[:, None] / np.maximum(points, 1)[:, None]
    return ratio, _total(shares, unsampled, variances, denominator)


def _intervals(ratio: Floats, error: Floats, moved: Floats, variance: Floats, *, support: Indices) -> Estimates:
    """Wilson's score intervals for an effective sample size.

    The effective size is the number of independent points that would have the smoothed variance; see Franco et al.,
    "Comparative study of confidence intervals for proportions in complex sample surveys", Journal of Survey Statistics
    and Methodology 2019. Unlike estimate +- 1.96 standard errors, these intervals stay within 0..1, are not empty where
    the sample has no error, and cover rare classes at about the stated rate.

    Args:
        ratio: (q,) estimates.
        error: (q,) their standard errors.
        moved: (q,) estimates from the smoothed sample.
        variance: (q,) their variances.
        support: (q,) points in the denominators.
    """
    spread = np.clip(moved * (1 - moved), 0, None)
    with np.errstate(invalid="ignore", divide="ignore"):
        size = np.where(variance > 0, np.where(spread > 0, spread / variance, np.maximum(support, 1)), np.inf)
    widening = Z**2 / size
    center = (ratio + widening / 2) / (1 + widening)
    half = Z * np.sqrt(np.clip(ratio * (1 - ratio), 0, None) / size + (Z / (2 * size)) ** 2) / (1 + widening)
    known = ~np.isnan(ratio)
    low, high = np.clip(center - half, 0, 1), np.clip(center + half, 0, 1)
    # Rounding must not move an end past the estimate.
    low, high = np.minimum(low, ratio), np.maximum(high, ratio)
    return Estimates(ratio, np.where(known, error, np.nan), np.where(known, low, np.nan), np.where(known, high, np.nan))
