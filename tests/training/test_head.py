from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from geocfl.losses import make_loss
from geocfl.training.head import PENALTIES, Head, Rows, cross_validate, fit_head


def clouds(each: int = 30, classes: int = 3, spread: float = 1.0, seed: int = 0) -> Rows:
    """Gaussian clouds around the axes, in five folds."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    features = rng.normal(0, spread, (len(labels), 8)) + 3 * np.eye(8)[labels] + 5
    return Rows(torch.from_numpy(features).float(), torch.from_numpy(labels), np.arange(len(labels)) % 5)


def test_it_is_the_minimum_of_the_loss():
    rows, penalty = clouds(), 1e-2
    head = fit_head(rows, 3, F.cross_entropy, penalty, 200)
    weight, bias = head.weight.clone().requires_grad_(), head.bias.clone().requires_grad_()
    scale = float((rows.features - rows.features.mean(0)).square().sum(1).mean().sqrt())
    loss = F.cross_entropy(F.linear(rows.features, weight, bias), rows.labels)
    (loss + penalty / 2 * (scale * weight).square().sum()).backward()
    assert weight.grad is not None
    assert bias.grad is not None
    assert weight.grad.abs().max() < 2e-3
    assert bias.grad.abs().max() < 1e-3
    assert list(head.losses) != sorted(head.losses)
    assert min(head.losses) == pytest.approx(float(loss.detach()), abs=0.2)


@pytest.mark.parametrize("factor", [0.01, 100.0])
def test_the_scale_of_features_does_not_matter(factor):
    rows = clouds()
    other = Rows(factor * rows.features - 7, rows.labels, rows.folds)
    one, two = (fit_head(r, 3, F.cross_entropy, 1e-2, 200)(r.features) for r in (rows, other))
    torch.testing.assert_close(one, two, atol=0.05, rtol=0.05)


def test_a_start_changes_the_way_and_not_the_goal():
    rows = clouds()
    cold = fit_head(rows, 3, F.cross_entropy, 1e-2, 300)
    warm = fit_head(rows, 3, F.cross_entropy, 1e-2, 300, start=fit_head(rows, 3, F.cross_entropy, 1e-1, 300))
    torch.testing.assert_close(warm(rows.features), cold(rows.features), atol=0.05, rtol=0.05)


def test_balanced_classes_weigh_the_same():
    few = clouds(each=4, classes=1, seed=1)
    many = clouds(each=200, classes=2, spread=3.0)
    features = torch.cat([many.features, few.features + 3 * torch.eye(8)[2] - 3 * torch.eye(8)[0]])
    labels = torch.cat([many.labels, few.labels + 2])
    folds = np.arange(len(labels)) % 5
    plain, balanced = (
        fit_head(Rows(features, labels, folds, balanced=b), 3, F.cross_entropy, 1e-2, 200) for b in (False, True)
    )
    rare = [(head(features).argmax(1) == 2).sum() for head in (plain, balanced)]
    assert rare[1] > rare[0]


def test_every_row_is_predicted_by_the_other_folds():
    rows = clouds()
    noise = Rows(torch.randn(90, 8, generator=torch.Generator().manual_seed(0)), rows.labels, rows.folds)
    _, logits = cross_validate(noise, 3, F.cross_entropy, 100)
    accuracy = (logits.argmax(1) == noise.labels).float().mean()
    assert accuracy < 0.55, "labels that nothing predicts are not predicted"
    penalty, logits = cross_validate(rows, 3, make_loss("class-focal", [30] * 3, 0.5, "exponent"), 100)
    assert penalty in PENALTIES
    assert (logits.argmax(1) == rows.labels).float().mean() > 0.9


def test_its_progress_is_reported():
    seen: list[tuple[str, int, int, str]] = []
    cross_validate(clouds(each=5), 3, F.cross_entropy, 5, lambda *report: seen.append(report))
    assert seen == [("cross-validation", n, 5, "fold") for n in range(1, 6)]


def test_a_head_is_a_linear_layer():
    head = Head(torch.tensor([[1.0, 2.0], [0.0, -1.0]]), torch.tensor([0.5, 0.0]))
    assert head(torch.tensor([[1.0, 1.0]])).tolist() == [[3.5, -1.0]]
