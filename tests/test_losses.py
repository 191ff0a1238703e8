from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from geocfl.errors import UsageError
from geocfl.losses import LOSSES, ClassFocalLoss, make_loss

COUNTS = [900, 60, 30, 10]


def reference(logits: np.ndarray, target: np.ndarray, counts: list[int], gamma: float, form: str) -> float:
    """The class focal loss from its definition, in float64 and without any care for stability."""
    z = logits.astype(np.float64)
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    p_y = p[np.arange(len(z)), target]
    beta = np.array(counts, np.float64) / sum(counts)
    if form == "exponent":
        return float(np.mean(-((1 - p_y) ** (gamma * beta[target])) * np.log(p_y)))
    return float(np.mean(-len(counts) * beta[target] * (1 - p_y) ** gamma * np.log(p_y)))


@pytest.fixture
def sample() -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return 3 * torch.randn(64, 4, generator=rng, dtype=torch.float64), torch.randint(4, (64,), generator=rng)


@pytest.mark.parametrize("form", ["exponent", "factor"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_values_are_those_of_the_definition(sample, gamma, form):
    logits, target = sample
    expected = reference(logits.numpy(), target.numpy(), COUNTS, gamma, form)
    loss = ClassFocalLoss(COUNTS, gamma, form)
    assert float(loss(logits, target)) == pytest.approx(expected, rel=1e-12)
    assert float(loss(logits.float(), target)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("form", ["exponent", "factor"])
def test_gradients_are_those_of_finite_differences(sample, form):
    logits, target = sample[0][:8].requires_grad_(), sample[1][:8]
    assert torch.autograd.gradcheck(lambda z: ClassFocalLoss(COUNTS, 2.0, form)(z, target), logits)


def test_gamma_0_is_cross_entropy(sample):
    ours, theirs = (sample[0].clone().requires_grad_() for _ in range(2))
    loss, expected = ClassFocalLoss(COUNTS, 0.0)(ours, sample[1]), F.cross_entropy(theirs, sample[1])
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_easy_samples_of_larger_classes_fade_more():
    logits = torch.tensor([[3.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 3.0]])
    faded = [ClassFocalLoss(COUNTS)(logits[[i]], torch.tensor([y])) for i, y in ((0, 0), (1, 3))]
    assert faded[0] < faded[1]


def test_betas_are_shares_of_the_training_split():
    beta = ClassFocalLoss(COUNTS).beta
    assert float(beta.sum()) == pytest.approx(1, abs=1e-15)
    np.testing.assert_allclose(beta, [0.9, 0.06, 0.03, 0.01])


@pytest.mark.parametrize("form", ["exponent", "factor"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 5.0])
def test_extreme_logits_have_finite_losses_and_gradients(gamma, dtype, form):
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4], [0.0, 0.0], [88.0, -88.0], [9.0, -9.0]], dtype=dtype)
    logits.requires_grad_()
    loss = ClassFocalLoss([1, 3], gamma, form)(logits, torch.tensor([0, 0, 0, 0, 0]))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
    assert not logits.grad[0].any(), "a certain and right prediction has nothing to learn"


def test_a_class_without_training_patches_has_the_cross_entropy():
    logits = torch.tensor([[50.0, 0.0, 0.0], [0.5, 0.1, 0.2]])
    target = torch.zeros(2, dtype=torch.int64)
    torch.testing.assert_close(ClassFocalLoss([0, 5, 5], 2.0)(logits, target), F.cross_entropy(logits, target))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(sample, dtype):
    logits = sample[0].to(dtype)
    loss = ClassFocalLoss(COUNTS)(logits, sample[1])
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, ClassFocalLoss(COUNTS)(logits.float(), sample[1]))


@pytest.mark.parametrize(
    "arguments",
    [
        {"counts": []},
        {"counts": [[1, 2]]},
        {"counts": [0, 0]},
        {"counts": [1, -1]},
        {"counts": [1, float("nan")]},
        {"counts": [1, float("inf")]},
        {"gamma": -0.5},
        {"gamma": float("nan")},
        {"gamma": float("inf")},
        {"form": "power"},
    ],
)
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(UsageError):
        ClassFocalLoss(**{"counts": COUNTS, **arguments})


def test_losses_by_name(sample):
    for name in LOSSES:
        assert make_loss(name, COUNTS, 0.5)(*sample).ndim == 0
    torch.testing.assert_close(make_loss("ce", COUNTS, 0.5)(*sample), F.cross_entropy(*sample))
    torch.testing.assert_close(make_loss("class-focal", COUNTS, 0.5)(*sample), ClassFocalLoss(COUNTS, 0.5)(*sample))
    with pytest.raises(UsageError, match="class-focal, ce"):
        make_loss("focal", COUNTS, 0.5)
