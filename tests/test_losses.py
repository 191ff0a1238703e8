from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kornia.losses import focal_loss
from torch import nn
from torch.nn import functional as F

from geocfl.errors import UsageError
from geocfl.losses import (
    COSINE_SCALE,
    LOSSES,
    ClassFocalLoss,
    FocalLoss,
    LDAMLoss,
    LogitAdjustedLoss,
    effective_number_weights,
    fit_tau,
    inverse_frequency_weights,
    log_prior,
    loss_facts,
    make_loss,
)

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


# Every loss of one sample from its paper's formula: logits, class index, counts, gamma; scalar Python, no stability.


def p_true(z: list[float], y: int) -> float:
    return math.exp(z[y]) / sum(math.exp(v) for v in z)


def cb_weight(n: list[int], y: int, beta: float = 0.9999) -> float:
    inverse = [(1 - beta) / (1 - beta**count) for count in n]
    return inverse[y] * len(n) / sum(inverse)


def balms(z: list[float], y: int, n: list[int], gamma: float) -> float:
    return -math.log(n[y] * math.exp(z[y]) / sum(count * math.exp(v) for count, v in zip(n, z, strict=True)))


def ldam(z: list[float], y: int, n: list[int], gamma: float) -> float:
    constant = 0.5 / max(count**-0.25 for count in n)
    winner = math.exp(z[y] - 30 * constant * n[y] ** -0.25)
    return -math.log(winner / (winner + sum(math.exp(v) for j, v in enumerate(z) if j != y)))


FORMULAS: dict[str, Callable[[list[float], int, list[int], float], float]] = {
    "ce": lambda z, y, n, gamma: -math.log(p_true(z, y)),
    "weighted-ce": lambda z, y, n, gamma: -sum(n) / (len(n) * n[y]) * math.log(p_true(z, y)),
    "focal": lambda z, y, n, gamma: -((1 - p_true(z, y)) ** gamma) * math.log(p_true(z, y)),
    "class-focal": lambda z, y, n, gamma: -((1 - p_true(z, y)) ** (gamma * n[y] / sum(n))) * math.log(p_true(z, y)),
    "cb-focal": lambda z, y, n, gamma: -cb_weight(n, y) * (1 - p_true(z, y)) ** gamma * math.log(p_true(z, y)),
    "balanced-softmax": balms,
    "logit-adjusted": lambda z, y, n, gamma: -math.log(p_true(z, y)),
    "ldam": ldam,
}
WITH_GAMMA = ("focal", "class-focal", "cb-focal")
COUNTS_NEEDED = ("weighted-ce", "cb-focal", "balanced-softmax", "logit-adjusted", "ldam")


def test_the_registry():
    assert list(LOSSES) == [
        "ce",
        "weighted-ce",
        "focal",
        "class-focal",
        "cb-focal",
        "balanced-softmax",
        "logit-adjusted",
        "ldam",
    ]
    assert {name: facts.gamma for name, facts in LOSSES.items() if facts.gamma is not None} == {
        "focal": 2.0,
        "class-focal": 0.5,
        "cb-focal": 1.0,
    }
    assert [name for name in LOSSES if loss_facts(name).head != "linear"] == ["ldam"]
    assert [name for name in LOSSES if loss_facts(name).posthoc] == ["logit-adjusted"]
    assert isinstance(make_loss("ce", COUNTS), nn.CrossEntropyLoss)
    assert isinstance(make_loss("logit-adjusted", COUNTS), nn.CrossEntropyLoss)


@pytest.mark.parametrize("gamma", [None, 0.0, 0.3, 5.0])
@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_its_papers_formula(sample, name, gamma):
    logits, target = sample
    strength = LOSSES[name].gamma if gamma is None else gamma
    expected = [FORMULAS[name](z, y, COUNTS, strength) for z, y in zip(logits.tolist(), target.tolist(), strict=True)]
    loss = make_loss(name, COUNTS, gamma)
    assert float(loss(logits, target)) == pytest.approx(np.mean(expected), rel=1e-10)
    for i in range(8):  # single samples too: their mean is over samples, whatever the samples weigh
        assert float(loss(logits[[i]], target[[i]])) == pytest.approx(expected[i], rel=1e-10)


def test_the_form_reaches_the_class_focal_loss(sample):
    expected = ClassFocalLoss(COUNTS, 2.0, "factor")(*sample)
    torch.testing.assert_close(make_loss("class-focal", COUNTS, 2.0, "factor")(*sample), expected)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_focal_is_kornias_softmax_focal_loss(sample, gamma):
    expected = focal_loss(*sample, alpha=None, gamma=gamma, reduction="none").sum(1).mean()
    torch.testing.assert_close(FocalLoss(gamma)(*sample), expected)


def test_weighted_ce_divides_by_samples_and_is_torchs_weighted_mean_over_a_whole_split(sample):
    logits, target = sample
    counts = target.bincount(minlength=4).tolist()
    assert len(set(counts)) > 1
    ours = make_loss("weighted-ce", counts)
    torch_mean = nn.CrossEntropyLoss(inverse_frequency_weights(counts))
    torch.testing.assert_close(ours(logits, target), torch_mean(logits, target))
    batches = [float(ours(logits[i : i + 16], target[i : i + 16])) for i in range(0, 64, 16)]
    assert np.mean(batches) == pytest.approx(float(ours(logits, target)), rel=1e-12)
    torch_batches = [float(torch_mean(logits[i : i + 16], target[i : i + 16])) for i in range(0, 64, 16)]
    assert np.mean(torch_batches) != pytest.approx(float(ours(logits, target)), rel=1e-3)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_of_every_loss_are_those_of_finite_differences(sample, name):
    logits, target = sample[0][:8].requires_grad_(), sample[1][:8]
    assert torch.autograd.gradcheck(lambda z: make_loss(name, COUNTS)(z, target), logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("gamma", [0.0, 0.05, 0.5, 2.0, 5.0])
@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_and_gradient_is_finite_at_extreme_logits(name, gamma, dtype):
    values = [100.0, 30.0, 17.0, 16.0, 9.0, 0.0]
    logits = torch.tensor([[v, -v, 0.0] for v in values] + [[-v, v, 0.0] for v in values], dtype=dtype)
    logits.requires_grad_()
    loss = make_loss(name, [1000, 10, 1], gamma)(logits, torch.zeros(len(logits), dtype=torch.int64))
    loss.backward()
    assert loss.isfinite()
    assert loss > 0
    assert logits.grad.isfinite().all()
    assert logits.grad[6].any(), "a certain and wrong prediction has something to learn"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_computes_half_precision_in_float32(sample, name, dtype):
    logits = sample[0].to(dtype)
    loss = make_loss(name, COUNTS)(logits, sample[1])
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, make_loss(name, COUNTS)(logits.float(), sample[1]), rtol=0, atol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_goes_where_the_logits_are(name):
    # The meta device refuses to be mixed with the CPU, as an accelerator does.
    loss = make_loss(name, COUNTS)(torch.zeros(5, 4, device="meta"), torch.zeros(5, dtype=torch.int64, device="meta"))
    assert loss.device.type == "meta"


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "ldam"])
def test_equal_counts_and_gamma_0_are_cross_entropy(sample, name):
    ours, theirs = (sample[0].clone().requires_grad_() for _ in range(2))
    loss, expected = make_loss(name, [70] * 4, 0.0)(ours, sample[1]), F.cross_entropy(theirs, sample[1])
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(ours.grad, theirs.grad)


BATCHES = st.lists(
    st.tuples(st.lists(st.floats(-20, 20), min_size=3, max_size=3), st.integers(0, 2)), min_size=1, max_size=8
)
CLASS_COUNTS = st.lists(st.integers(1, 100_000), min_size=3, max_size=3)


def tensors(batch: list[tuple[list[float], int]]) -> tuple[torch.Tensor, torch.Tensor]:
    logits, target = zip(*batch, strict=True)
    return torch.tensor(logits, dtype=torch.float64), torch.tensor(target)


@settings(deadline=None, max_examples=30)
@given(batch=BATCHES, counts=CLASS_COUNTS, shift=st.floats(-50, 50), name=st.sampled_from(list(LOSSES)))
def test_losses_depend_on_differences_of_logits_only(batch, counts, shift, name):
    logits, target = tensors(batch)
    loss = make_loss(name, counts)
    torch.testing.assert_close(loss(logits + shift, target), loss(logits, target), rtol=1e-6, atol=1e-9)


@settings(deadline=None, max_examples=30)
@given(batch=BATCHES, counts=CLASS_COUNTS, order=st.permutations(range(3)), name=st.sampled_from(list(LOSSES)))
def test_losses_do_not_depend_on_the_order_of_classes(batch, counts, order, name):
    logits, target = tensors(batch)
    there = torch.tensor([order.index(c) for c in range(3)])
    loss = make_loss(name, [counts[c] for c in order])(logits[:, list(order)], there[target])
    torch.testing.assert_close(loss, make_loss(name, counts)(logits, target))


@settings(deadline=None, max_examples=30)
@given(batch=BATCHES, counts=CLASS_COUNTS, gammas=st.tuples(st.floats(0, 5), st.floats(0, 5)))
def test_more_gamma_is_less_loss(batch, counts, gammas):
    logits, target = tensors(batch)
    for name in WITH_GAMMA:
        less, more = (make_loss(name, counts, gamma)(logits, target) for gamma in sorted(gammas))
        assert 0 <= more <= less


@settings(deadline=None, max_examples=30)
@given(batch=BATCHES, counts=CLASS_COUNTS, factor=st.integers(2, 50))
def test_only_cb_focal_depends_on_the_amount_of_data(batch, counts, factor):
    logits, target = tensors(batch)
    for name in set(LOSSES) - {"cb-focal"}:
        more = make_loss(name, [factor * n for n in counts])(logits, target)
        torch.testing.assert_close(more, make_loss(name, counts)(logits, target))


@settings(deadline=None, max_examples=30)
@given(counts=CLASS_COUNTS)
def test_class_weights(counts):
    n = np.array(counts)
    inverse = inverse_frequency_weights(counts).numpy()
    np.testing.assert_allclose(n * inverse, n.sum() / 3)  # every class weighs the same, a patch 1 on average
    effective = effective_number_weights(counts).numpy()
    assert effective.sum() == pytest.approx(3)
    rare, common = n.argmin(), n.argmax()
    assert effective[rare] >= effective[common] * (1 - 1e-12)
    assert effective[rare] / effective[common] <= inverse[rare] / inverse[common] * (1 + 1e-9)
    np.testing.assert_allclose(effective_number_weights(counts, beta=0), 1)
    np.testing.assert_allclose(effective_number_weights(counts, beta=1 - 1e-10), inverse * 3 / inverse.sum(), rtol=1e-4)


def test_cb_focal_weights_rare_classes_less_than_inverse_frequency_does():
    effective, inverse = effective_number_weights([10_000, 10]), inverse_frequency_weights([10_000, 10])
    assert float(effective[1] / effective[0]) == pytest.approx(632.4, abs=0.1)  # (1 - 0.9999^10000) / (1 - 0.9999^10)
    assert float(inverse[1] / inverse[0]) == pytest.approx(1000)


@settings(deadline=None, max_examples=30)
@given(batch=BATCHES, counts=CLASS_COUNTS)
def test_logit_adjustment_at_tau_1_is_the_balanced_softmax_and_at_0_cross_entropy(batch, counts):
    logits, target = tensors(batch)
    expected = np.mean([balms(z, y, counts, 0) for z, y in batch])
    assert float(LogitAdjustedLoss(counts, 1.0)(logits, target)) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    torch.testing.assert_close(LogitAdjustedLoss(counts, 0.0)(logits, target), F.cross_entropy(logits, target))


def test_logit_adjustment_demands_a_wider_lead_of_rarer_classes():
    losses = [float(LogitAdjustedLoss([90, 10], tau)(torch.zeros(1, 2), torch.tensor([1]))) for tau in (0.0, 1.0, 2.0)]
    assert losses == pytest.approx([math.log(2), math.log(10), math.log(82)], rel=1e-6)


def test_ldam_margins_are_widest_for_the_rarest_class():
    np.testing.assert_allclose(LDAMLoss([160_000, 10_000, 16]).margins, [0.05, 0.1, 0.5])
    equal = torch.zeros(1, 2, dtype=torch.float64)
    loss = LDAMLoss([5, 5], max_margin=0.2, scale=10)(equal, torch.tensor([0]))
    assert float(loss) == pytest.approx(math.log(1 + math.exp(2)))
    assert COSINE_SCALE == 30


def test_log_prior():
    prior = log_prior([75, 20, 5])
    assert prior.dtype == torch.float64
    np.testing.assert_allclose(prior.exp(), [0.75, 0.2, 0.05], rtol=1e-15)


@pytest.mark.parametrize("name", COUNTS_NEEDED)
def test_losses_that_need_every_class_refuse_an_absent_one(name):
    with pytest.raises(UsageError, match=r"these of the 4 classes have none: no\. 2, 4"):
        make_loss(name, [5, 0, 5, 0])


@pytest.mark.parametrize("name", sorted(set(LOSSES) - set(COUNTS_NEEDED)))
def test_losses_that_do_not_divide_by_counts_take_an_absent_class(sample, name):
    assert make_loss(name, [5, 0, 5, 0])(*sample) > 0


@pytest.mark.parametrize("function", [log_prior, inverse_frequency_weights, effective_number_weights])
@pytest.mark.parametrize("counts", [[], [3, 0], [3, -1], [3, math.nan]])
def test_counts_out_of_range_are_refused(function, counts):
    with pytest.raises(UsageError):
        function(counts)


@pytest.mark.parametrize(
    "make",
    [
        lambda: FocalLoss(-1.0),
        lambda: FocalLoss(math.nan),
        lambda: make_loss("cb-focal", COUNTS, math.inf),
        lambda: effective_number_weights(COUNTS, 1.0),
        lambda: effective_number_weights(COUNTS, -0.1),
        lambda: LogitAdjustedLoss(COUNTS, -1.0),
        lambda: LogitAdjustedLoss(COUNTS, math.nan),
        lambda: LDAMLoss(COUNTS, max_margin=0.0),
        lambda: LDAMLoss(COUNTS, scale=-30.0),
        lambda: make_loss("focal", COUNTS, 2.0, "factor"),
        lambda: make_loss("class-focal", COUNTS, 2.0, "power"),
    ],
)
def test_other_arguments_out_of_range_are_refused(make):
    with pytest.raises(UsageError):
        make()


@pytest.mark.parametrize("function", [loss_facts, lambda name: make_loss(name, COUNTS)])
def test_an_unknown_name_lists_the_known_ones(function):
    with pytest.raises(UsageError) as error:
        function("dice")
    assert all(name in str(error.value) for name in ("'dice'", *LOSSES))


def posterior(counts: list[int], per_class: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Balanced validation samples of Gaussian classes, and the exact log posteriors under the counts' prior."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), per_class)
    centers = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    x = centers[labels] + rng.standard_normal((len(labels), 2))
    likelihood = -0.5 * ((x[:, None] - centers) ** 2).sum(2)
    return torch.from_numpy(likelihood + np.log(np.array(counts) / sum(counts))), torch.from_numpy(labels)


def mean_recall(logits: torch.Tensor, labels: torch.Tensor) -> float:
    hit = (logits.argmax(1) == labels).numpy()
    return float(np.mean([hit[labels.numpy() == c].mean() for c in labels.unique().tolist()]))


# A network that is too sure of itself by a factor has that much too much of the prior in its logits.
@pytest.mark.parametrize("sureness", [0.6, 1.0, 1.5])
def test_fit_tau_undoes_a_prior(sureness):
    counts = [9000, 800, 200]
    logits, labels = posterior(counts, 5_000)
    logits = sureness * logits
    tau = fit_tau(logits.float(), labels, counts)
    assert tau == pytest.approx(sureness, abs=0.1)
    adjusted = mean_recall(logits - tau * log_prior(counts), labels)
    assert adjusted > mean_recall(logits, labels) + 0.1
    taus = np.arange(41) * 0.05
    assert adjusted == pytest.approx(max(mean_recall(logits - t * log_prior(counts), labels) for t in taus), abs=1e-6)


def test_fit_tau_leaves_out_classes_without_validation_patches():
    counts = [9000, 800, 200]
    logits, labels = posterior(counts, 5_000)
    kept = labels != 1
    tau = fit_tau(logits[kept], labels[kept], counts)
    expected = max(mean_recall(logits[kept] - t * log_prior(counts), labels[kept]) for t in np.arange(41) * 0.05)
    assert mean_recall(logits[kept] - tau * log_prior(counts), labels[kept]) == pytest.approx(expected, abs=1e-12)


# Two classes of counts 3 : 1, so that class 0 wins where z0 - z1 > tau log 3.
@pytest.mark.parametrize(
    ("leads", "labels", "expected"),
    [
        ([9.0, -9.0], [0, 1], 1.0),  # right for every tau
        ([0.525], [0], 0.5),  # right for tau to 0.5
        ([1.275], [1], 1.3),  # right for tau from 1.3
        ([0.925, 1.075], [0, 1], 0.9),  # half right for tau to 0.9 and from 1.1, which are as near to 1
        ([0.525, 1.275], [0, 1], 1.3),  # half right for tau to 0.5 and from 1.3, which is nearer to 1
    ],
)
def test_fit_tau_takes_of_equals_the_nearest_to_1_then_the_smaller(leads, labels, expected):
    logits = torch.tensor([[lead * math.log(3), 0.0] for lead in leads], dtype=torch.float64)
    assert fit_tau(logits, torch.tensor(labels), [75, 25]) == expected


def test_fit_tau_knows_a_tie_in_spite_of_rounding():
    # Recalls of .3, .2, .1 for tau to 0.9 and of .1, .2, .3 from 1.5: in floating point, their sums differ.
    assert 0.3 + 0.2 + 0.1 != 0.1 + 0.2 + 0.3
    sure, to, since, wrong = 20.0, 0.925 * math.log(3), 1.475 * math.log(3), -20.0
    rows = [[lead, wrong, 0.0] for lead in [sure] + [to] * 2 + [wrong] * 7]
    rows += [[0.0, lead, 0.0] for lead in [sure] * 2 + [wrong] * 8]
    rows += [[lead, wrong, 0.0] for lead in [wrong] + [since] * 2 + [sure] * 7]
    labels = torch.arange(3).repeat_interleave(10)
    assert fit_tau(torch.tensor(rows, dtype=torch.float64), labels, [60, 20, 20]) == 0.9


def test_fit_tau_changes_nothing_where_counts_are_equal():
    logits, labels = posterior([5, 5, 5], 100)
    adjusted = logits - fit_tau(logits, labels, [5, 5, 5]) * log_prior([5, 5, 5])
    torch.testing.assert_close(adjusted.softmax(1), logits.softmax(1))


def test_fit_tau_refuses_what_it_cannot_tune_on():
    with pytest.raises(UsageError, match="validation"):
        fit_tau(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), [5, 5])
    with pytest.raises(UsageError, match=r"no\. 2"):
        fit_tau(torch.zeros(1, 2), torch.tensor([0]), [5, 0])
