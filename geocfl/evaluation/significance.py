"""Significance of differences: intervals over seeds, McNemar's test, and its correction for many tests."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def t_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Mean and half width of Student's t interval.

    Args:
        values: One value per seed.
        level: Coverage, 0..1.

    Returns:
        Mean and half width in the same unit; the half width of a single value is NaN.
    """
    from scipy.stats import t

    n = len(values)
    mean = float(np.mean(values))
    if n < 2:
        return mean, math.nan
    return mean, float(t.ppf((1 + level) / 2, n - 1) * np.std(values, ddof=1) / math.sqrt(n))


def wilson_interval(correct: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion, such as the accuracy of a class.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.

    Args:
        correct: Number of successes.
        n: Number of trials, >= 1.
        level: Coverage, 0..1.

    Returns:
        Its ends, 0..1. They assume independent trials; patches of one region are more alike than that.
    """
    from scipy.stats import binomtest

    interval = binomtest(correct, n).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> tuple[int, int, float]:
    """McNemar's exact test of two classifiers on the same patches.

    Source: McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
    Psychometrika 1947; exact as the binomial test of the discordant pairs.

    Args:
        one: (n,) whether the first classifier is correct.
        other: (n,) whether the second one is, on the same patches in the same order.

    Returns:
        The number of patches that only the first classifies correctly, that of the second, and the two-sided p-value.
    """
    from scipy.stats import binomtest

    ours, theirs = int((one & ~other).sum()), int((other & ~one).sum())
    if ours + theirs == 0:
        return 0, 0, 1.0
    return ours, theirs, float(binomtest(ours, ours + theirs).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted so that the probability of any false positive among all tests stays below the level.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 1979.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
