"""Prediction sets that contain the true class with a known probability: their thresholds, and their coverage."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from geocfl.models.sets import prediction_sets

ALPHA = 0.1
"""Share of windows of each class whose set may lack the class."""


def fit_thresholds(logits: Tensor, labels: Tensor, alpha: float = ALPHA) -> tuple[float, ...]:
    """Thresholds of prediction sets that hold for each class: split conformal prediction, class by class.

    A new window of class c gets a set that contains c with a probability of at least 1 - alpha, if it is drawn like the
    patches that the thresholds are fitted on. For a class with fewer than 1 / alpha - 1 patches, only the threshold 1
    promises that: then the class is in every set.

    Source: Vovk, "Conditional validity of inductive conformal predictors", ACML 2012; Angelopoulos and Bates, "A gentle
    introduction to conformal prediction and distribution-free uncertainty quantification", 2021, section 4.2.

    Args:
        logits: (N, C), divided by the temperature, of patches that were not used for training.
        labels: (N,) int64.
        alpha: Share of windows whose set may lack their class, in (0, 1).

    Returns:
        The C thresholds, 0..1: the ceil((n_c + 1) (1 - alpha))-th smallest of 1 - p_y of the n_c patches of class c,
        rounded up.
    """
    probabilities, truth = logits.double().softmax(1).numpy(), labels.numpy()
    thresholds = []
    for c in range(probabilities.shape[1]):
        scores = np.sort(1 - probabilities[truth == c, c])
        rank = math.ceil((len(scores) + 1) * (1 - alpha) - 1e-9)  # 10 * (1 - 0.1) is 9
        thresholds.append(min(1.0, math.ceil(scores[rank - 1] * 1e6) / 1e6) if rank <= len(scores) else 1.0)
    return tuple(thresholds)


def set_metrics(logits: Tensor, labels: Tensor, thresholds: tuple[float, ...]) -> dict[str, float]:
    """How often prediction sets contain the true class, and how large they are.

    Args:
        logits: (N, C), divided by the temperature.
        labels: (N,) int64; N >= 1.
        thresholds: From `fit_thresholds`.

    Returns:
        ``coverage`` (share of patches whose set contains their class), ``worst_class_coverage`` (the lowest of this
        share over the classes that have patches) and ``mean_size`` (mean number of classes in a set).
    """
    members, truth = prediction_sets(logits.double().softmax(1).numpy(), thresholds), labels.numpy()
    covered = members[np.arange(len(truth)), truth]
    return {
        "coverage": float(covered.mean()),
        "worst_class_coverage": float(min(covered[truth == c].mean() for c in np.unique(truth))),
        "mean_size": float(members.sum(1).mean()),
    }
