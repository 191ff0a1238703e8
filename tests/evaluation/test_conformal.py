from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import binom

from geocfl.evaluation.conformal import ALPHA, fit_thresholds, set_metrics
from geocfl.models.sets import prediction_sets


def draw(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of three classes of different difficulty, and labels of unequal frequency."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, n, p=[0.7, 0.2, 0.1])
    logits = rng.normal(0, 1, (n, 3))
    logits[np.arange(n), labels] += np.array([3.0, 1.0, 0.3])[labels]
    return torch.from_numpy(logits), torch.from_numpy(labels)


def test_every_class_is_covered_on_fresh_draws_within_the_binomial_bound():
    """The coverage of a class varies with the patches that fit its threshold, like a beta variable: Vovk 2012."""
    logits, labels = draw(30_000, 0)
    thresholds = fit_thresholds(logits, labels)
    fresh, truth = draw(30_000, 1)
    members = prediction_sets(fresh.softmax(1).numpy(), thresholds)
    for c in range(3):
        fitted, covered = int((labels == c).sum()), members[truth.numpy() == c, c]
        spread = math.sqrt(ALPHA * (1 - ALPHA) / fitted)  # of the true coverage about 1 - alpha
        low = binom.ppf(1e-4, len(covered), 1 - ALPHA - 4 * spread)
        high = binom.ppf(1 - 1e-4, len(covered), 1 - ALPHA + 4 * spread)
        assert low <= covered.sum() <= high
    assert len(set(thresholds)) == 3, "each class has its own"
    assert thresholds[0] < thresholds[2], "an easy class needs a smaller one"


def test_coverage_holds_on_average_with_few_patches():
    """With n = 9 patches per class the promise is exact: 9 of 10 on average."""
    covered = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        scores = rng.normal(size=10)
        logits = torch.from_numpy(np.stack([scores, -scores], 1))
        thresholds = fit_thresholds(logits[:9], torch.zeros(9, dtype=torch.int64))
        covered.append(prediction_sets(logits[9:].softmax(1).numpy(), thresholds)[0, 0])
    assert binom.ppf(1e-4, 400, 0.9) <= sum(covered) <= binom.ppf(1 - 1e-4, 400, 0.9)


@pytest.mark.parametrize(("patches", "full"), [(0, True), (1, True), (8, True), (9, False), (10, False)])
def test_a_class_with_too_few_patches_is_in_every_set(patches, full):
    logits = torch.randn(patches + 50, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0] * patches + [1] * 50)
    first, second = fit_thresholds(logits, labels)
    assert (first == 1.0) == full
    assert second < 1.0
    assert prediction_sets(np.array([0.0, 1.0]), (first, second)).tolist() == [full, True]


def test_the_threshold_is_the_ninth_of_nine():
    probabilities = torch.linspace(0.1, 0.9, 9)
    logits = torch.log(torch.stack([probabilities, 1 - probabilities], 1))
    assert fit_thresholds(logits, torch.zeros(9, dtype=torch.int64))[0] == pytest.approx(0.9, abs=2e-6)
    assert fit_thresholds(logits, torch.zeros(9, dtype=torch.int64), alpha=0.5)[0] == pytest.approx(0.5, abs=2e-6)


def test_sets_hold_what_the_thresholds_allow():
    probabilities = np.array([[[0.7, 0.2, 0.1], [0.4, 0.35, 0.25]]], np.float32)
    members = prediction_sets(probabilities, (0.5, 0.7, 0.9))
    assert members.tolist() == [[[True, False, True], [False, True, True]]]
    assert not prediction_sets(np.array([0.5, 0.5]), (0.1, 0.1)).any(), "a set may be empty"


def test_metrics_of_sets():
    logits = torch.log(torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.4, 0.6], [0.2, 0.8]]))
    found = set_metrics(logits, torch.tensor([0, 0, 0, 1]), (0.5, 0.65))
    assert found == {"coverage": 0.75, "worst_class_coverage": pytest.approx(2 / 3), "mean_size": 1.25}
