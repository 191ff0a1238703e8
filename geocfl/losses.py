"""The class focal loss, and the losses that it is compared with under class imbalance."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geocfl.errors import UsageError, unknown_name

COSINE_SCALE = 30.0
"""Factor *s* from cosines to logits in the network's last layer, for `LDAMLoss`."""

_TAU_STEPS = 20  # per 1; whole steps, so that equal distances compare as equal
_TAU_MAX = 2


def _checked_counts(counts: Sequence[int] | Tensor, *, every_class: bool) -> Tensor:
    """Patches per class as (C,) float64; a UsageError where they are no counts, or lack a class that is needed."""
    checked = torch.as_tensor(counts, dtype=torch.float64)
    if checked.ndim != 1 or not bool(((checked >= 0) & checked.isfinite()).all()) or not float(checked.sum()) > 0:
        raise UsageError(f"class counts must be a list of numbers >= 0 that are not all 0, got {counts}")
    if every_class and not bool(checked.all()):
        absent = ", ".join(str(i + 1) for i in (checked == 0).nonzero().flatten().tolist())
        raise UsageError(
            f"this loss needs training patches of every class, but of {len(checked)} classes these have none: "
            f"no. {absent}; choose class-focal, focal or ce, or leave the class out",
            page="how-to/imbalance/",
        )
    return checked


def _checked_gamma(gamma: float) -> float:
    """The focusing strength; a UsageError where it is negative or not finite."""
    if not 0 <= gamma < math.inf:
        raise UsageError(f"gamma must be a number >= 0, got {gamma}")
    return gamma


def _widened(logits: Tensor) -> Tensor:
    """Logits in float32, or in float64 where they are: half precision is too coarse for probabilities near 1."""
    return logits if logits.dtype in (torch.float32, torch.float64) else logits.float()


def _like(values: Tensor, logits: Tensor) -> Tensor:
    """Values per class in the logits' precision and on their device.

    Losses keep these values as plain float64 tensors, not as buffers: float64, which some accelerators lack, so stays
    on the CPU when the module is moved.
    """
    return values.to(logits.dtype).to(logits.device)


def focal_term(logits: Tensor, target: Tensor, exponent: Tensor | float) -> Tensor:
    r"""Softmax focal loss of every sample, without class weights.

    .. math::
        -(1 - p_y)^{e} \log p_y, \qquad p = \mathrm{softmax}(z)

    No library's is used. torchvision's ``sigmoid_focal_loss`` and the multiclass ``FocalLoss`` of
    segmentation-models-pytorch (torchgeo's ``loss="focal"``) are one-vs-rest sigmoid losses. kornia's ``focal_loss`` is
    the softmax loss, but takes one exponent for all classes, and kornia 0.8.2, which torchgeo admits, has NaN
    gradients where *p* rounds to 1 and the exponent is below 1.

    Args:
        logits: (N, C) raw scores of any floating dtype; half precision is computed in float32.
        target: (N,) int64 class indices 0..C-1.
        exponent: *e* >= 0, one for all samples or (N,).

    Returns:
        (N,) losses >= 0, float32 or float64. Losses and gradients are finite wherever the logits are.
    """
    log_p = F.log_softmax(_widened(logits), dim=1).gather(1, target[:, None]).squeeze(1)
    # The floor keeps a power of 0 and its infinite slope out of reach: where p rounds to 1 the gradient is exactly 0,
    # as it should be.
    rest = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)
    return -(rest**exponent) * log_p


def inverse_frequency_weights(counts: Sequence[int] | Tensor) -> Tensor:
    r"""Class weights by which every class weighs the same in the whole training split.

    .. math::
        w_c = N / (C N_c)

    These are scikit-learn's ``class_weight="balanced"``. Their mean over the *patches* of the training split is 1;
    their plain mean over the classes is above 1 where the classes are unequal.

    Args:
        counts: Patches per class in the training split, N_1..N_C, each at least 1.

    Returns:
        (C,) float64.

    Raises:
        UsageError: A class has no patches.
    """
    checked = _checked_counts(counts, every_class=True)
    return checked.sum() / (len(checked) * checked)


def effective_number_weights(counts: Sequence[int] | Tensor, beta: float = 0.9999) -> Tensor:
    r"""Class weights by the inverse effective number of samples, which sum to C.

    .. math::
        w_c \propto (1 - \beta) / (1 - \beta^{N_c}), \qquad \sum_c w_c = C

    :math:`\beta = 0` weights all classes alike, :math:`\beta \to 1` by inverse frequency.

    Source: Cui, Jia, Lin, Song and Belongie, "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019.

    Args:
        counts: Patches per class in the training split, N_1..N_C, each at least 1.
        beta: In [0, 1).

    Returns:
        (C,) float64.

    Raises:
        UsageError: A class has no patches, or beta is out of its range.
    """
    if not 0 <= beta < 1:
        raise UsageError(f"beta must be in [0, 1), got {beta}")
    weights = (1 - beta) / (1 - beta ** _checked_counts(counts, every_class=True))
    return weights * (len(weights) / weights.sum())


def log_prior(counts: Sequence[int] | Tensor) -> Tensor:
    r"""Log shares of the classes in the training split, :math:`\log \pi_c = \log(N_c / \sum_j N_j)`.

    Args:
        counts: Patches per class, N_1..N_C, each at least 1: a class without any would have an infinite prior.

    Returns:
        (C,) float64.

    Raises:
        UsageError: A class has no patches.
    """
    checked = _checked_counts(counts, every_class=True)
    return (checked / checked.sum()).log()


class CrossEntropyLoss(nn.CrossEntropyLoss):
    """torch's cross-entropy, in float32 where the logits are in half precision."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Mean cross-entropy of (N, C) logits and (N,) int64 class indices."""
        return super().forward(_widened(input), target)


class FocalLoss(nn.Module):
    r"""Softmax focal loss: cross-entropy whose easy samples fade, with a weight per class if any are given.

    .. math::
        \mathrm{FL}(z, y) = -w_y (1 - p_y)^{\gamma} \log p_y, \qquad p = \mathrm{softmax}(z)

    :math:`\gamma = 0` is (weighted) cross-entropy. The mean over a batch divides by its N samples, not, as the
    weighted mean of torch's ``CrossEntropyLoss`` does, by the sum of their weights: so a sample weighs the same
    whatever else is in its batch, and the mean over batches is an unbiased estimate of the weighted risk.

    With `inverse_frequency_weights` and :math:`\gamma = 0` this is ``weighted-ce``, with `effective_number_weights`
    ``cb-focal``. The latter's authors weight a *sigmoid* (one-vs-rest) focal loss; the softmax here keeps it comparable
    with the other losses, and makes the outputs probabilities.

    Source: Lin, Goyal, Girshick, He and Dollár, "Focal Loss for Dense Object Detection", ICCV 2017, equations 4 (no
    weights) and 5 (weights), there for two classes; the softmax is the usual extension to more.

    Args:
        gamma: Strength of the fading, >= 0; Lin et al. found 2 the best.
        weights: (C,) weights per class; none weights all with 1.

    Raises:
        UsageError: Gamma is out of its range.
    """

    def __init__(self, gamma: float = 2.0, weights: Tensor | None = None) -> None:
        super().__init__()
        self.gamma = _checked_gamma(gamma)
        self.weights = weights

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean loss over a batch.

        Args:
            logits: (N, C) raw scores of any floating dtype; half precision is computed in float32.
            target: (N,) int64 class indices 0..C-1.

        Returns:
            Scalar, float32 or float64.
        """
        losses = focal_term(logits, target, self.gamma)
        if self.weights is not None:
            losses = _like(self.weights, losses)[target] * losses
        return losses.mean()


class ClassFocalLoss(nn.Module):
    r"""Class focal loss: cross-entropy whose easy samples fade faster the larger their class is.

    .. math::
        \mathrm{CFL}(z, y) = -(1 - p_y)^{\gamma \beta_y} \log p_y, \qquad
        p = \mathrm{softmax}(z), \qquad \beta_y = N_y / \sum_j N_j

    with :math:`N_y` the patches of class *y* in the training split. :math:`\gamma = 0` is cross-entropy. The other
    reading of the paper, ``form="factor"``, is :math:`-C \beta_y (1 - p_y)^\gamma \log p_y` with *C* classes: the
    focal loss, weighted towards the larger classes.

    The exponent is small where there are many classes: ten equal classes at :math:`\gamma = 0.5` make it 0.05.

    Source: "Class Focal Loss Optimization with residual networks on EuroSAT"; focal loss by Lin et al., "Focal Loss
    for Dense Object Detection", ICCV 2017.

    Args:
        counts: Patches per class in the training split, N_1..N_C; none negative, not all 0. With the exponent, a class
            without patches has plain cross-entropy; with the factor, no loss.
        gamma: Strength of the fading, >= 0; the paper found 0.5 the best.
        form: ``"exponent"`` or ``"factor"``.

    Raises:
        UsageError: An argument is out of its range.
    """

    def __init__(self, counts: Sequence[int] | Tensor, gamma: float = 0.5, form: str = "exponent") -> None:
        super().__init__()
        shares = _checked_counts(counts, every_class=False)
        if form not in ("exponent", "factor"):
            raise UsageError(f"the form of the class focal loss is 'exponent' or 'factor', got {form!r}")
        self.gamma = _checked_gamma(gamma)
        self.form = form
        self.beta = shares / shares.sum()

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean loss over a batch.

        Args:
            logits: (N, C) raw scores of any floating dtype; half precision is computed in float32.
            target: (N,) int64 class indices 0..C-1.

        Returns:
            Scalar, float32 or float64.
        """
        logits = _widened(logits)
        beta = _like(self.beta, logits)[target]
        if self.form == "factor":
            return (len(self.beta) * beta * focal_term(logits, target, self.gamma)).mean()
        return focal_term(logits, target, self.gamma * beta).mean()


class LogitAdjustedLoss(nn.Module):
    r"""Cross-entropy of logits raised by the classes' log prior, so that the bare logits suit balanced classes.

    .. math::
        -\log \frac{e^{z_y + \tau \log \pi_y}}{\sum_j e^{z_j + \tau \log \pi_j}}, \qquad \pi_j = N_j / \sum_k N_k

    :math:`\tau = 0` is cross-entropy. :math:`\tau = 1` is the balanced softmax,
    :math:`-\log(N_y e^{z_y} / \sum_j N_j e^{z_j})`. Predictions take the logits as they are.

    Source: Menon, Jayasumana, Rawat, Jain, Veit and Kumar, "Long-tail learning via logit adjustment", ICLR 2021,
    equation 10; Ren, Yu, Sheng, Ma, Zhao, Yi and Li, "Balanced Meta-Softmax for Long-Tailed Visual Recognition",
    NeurIPS 2020 (without their meta sampler).

    Args:
        counts: Patches per class in the training split, N_1..N_C, each at least 1.
        tau: Strength of the adjustment, >= 0.

    Raises:
        UsageError: A class has no patches, or tau is out of its range.
    """

    def __init__(self, counts: Sequence[int] | Tensor, tau: float = 1.0) -> None:
        super().__init__()
        if not 0 <= tau < math.inf:
            raise UsageError(f"tau must be a number >= 0, got {tau}")
        self.adjustment = tau * log_prior(counts)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean loss over a batch.

        Args:
            logits: (N, C) raw scores of any floating dtype; half precision is computed in float32.
            target: (N,) int64 class indices 0..C-1.

        Returns:
            Scalar, float32 or float64.
        """
        logits = _widened(logits)
        return F.cross_entropy(logits + _like(self.adjustment, logits), target)


class LDAMLoss(nn.Module):
    r"""Label-distribution-aware margin loss: the rarer a class, the wider the margin by which it has to win.

    .. math::
        -\log \frac{e^{z_y - s m_y}}{e^{z_y - s m_y} + \sum_{j \ne y} e^{z_j}}, \qquad
        m_y = K N_y^{-1/4}, \qquad \max_y m_y = 0.5

    The logits are :math:`z_j = s \cos \theta_j`, from a last layer that multiplies the cosines between feature and
    class vectors by *s* already; the margin is in units of the cosine.

    Source: Cao, Wei, Gaidon, Arechiga and Ma, "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss",
    NeurIPS 2019; *s* = 30 and the largest margin of 0.5 are those of the authors' code. Their deferred re-weighting
    (DRW) of the last epochs is left out: it is a schedule, which could be added to any of the losses.

    Args:
        counts: Patches per class in the training split, N_1..N_C, each at least 1.
        max_margin: Margin of the rarest class, > 0.
        scale: *s* > 0, the same as in the network's last layer.

    Raises:
        UsageError: A class has no patches, or another argument is out of its range.
    """

    def __init__(self, counts: Sequence[int] | Tensor, max_margin: float = 0.5, scale: float = COSINE_SCALE) -> None:
        super().__init__()
        if not 0 < max_margin < math.inf or not 0 < scale < math.inf:
            raise UsageError(f"margin and scale must be numbers > 0, got {max_margin} and {scale}")
        checked = _checked_counts(counts, every_class=True)
        self.margins = max_margin * (checked.min() / checked) ** 0.25
        self.scale = scale

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean loss over a batch.

        Args:
            logits: (N, C) cosines times `scale`, of any floating dtype; half precision is computed in float32.
            target: (N,) int64 class indices 0..C-1.

        Returns:
            Scalar, float32 or float64.
        """
        logits = _widened(logits)
        margins = self.scale * _like(self.margins, logits)[target]
        return F.cross_entropy(logits.scatter_add(1, target[:, None], -margins[:, None]), target)


def _posthoc(counts: Sequence[int]) -> nn.Module:
    """Cross-entropy for a network whose logits are adjusted afterwards; refuses now what the adjustment would then."""
    log_prior(counts)
    return CrossEntropyLoss()


@dataclass(frozen=True)
class LossFacts:
    """What a loss is built from, and what it needs of network and training.

    Attributes:
        make: Builds the loss from the class counts of the training split, gamma and form.
        gamma: Focusing strength by default; None where the loss has none.
        head: The network's last layer, ``"linear"`` or ``"cosine"``, whose logits are `COSINE_SCALE` times cosines.
        posthoc: Trained with cross-entropy; afterwards tau times `log_prior` is subtracted from the logits, with the
            tau of `fit_tau`.
    """

    make: Callable[[Sequence[int], float, str], nn.Module]
    gamma: float | None = None
    head: str = "linear"
    posthoc: bool = False


LOSSES: dict[str, LossFacts] = {
    "ce": LossFacts(lambda counts, gamma, form: CrossEntropyLoss()),
    "weighted-ce": LossFacts(lambda counts, gamma, form: FocalLoss(0.0, inverse_frequency_weights(counts))),
    "focal": LossFacts(lambda counts, gamma, form: FocalLoss(gamma), gamma=2.0),
    "class-focal": LossFacts(ClassFocalLoss, gamma=0.5),
    # Cui et al. tried gamma 0.5, 1 and 2; 1 is their code's default, and its example of beta 0.9999 on ten classes.
    "cb-focal": LossFacts(lambda counts, gamma, form: FocalLoss(gamma, effective_number_weights(counts)), gamma=1.0),
    "balanced-softmax": LossFacts(lambda counts, gamma, form: LogitAdjustedLoss(counts)),
    "logit-adjusted": LossFacts(lambda counts, gamma, form: _posthoc(counts), posthoc=True),
    "ldam": LossFacts(lambda counts, gamma, form: LDAMLoss(counts), head="cosine"),
}
"""The losses by name; docs/reference/losses.md compares them."""


def loss_facts(name: str) -> LossFacts:
    """What a loss needs, by its name.

    Raises:
        UsageError: The name is not known.
    """
    if name not in LOSSES:
        raise UsageError(unknown_name("loss", name, LOSSES), page="reference/losses/")
    return LOSSES[name]


def make_loss(name: str, counts: Sequence[int], gamma: float | None = None, form: str = "exponent") -> nn.Module:
    """A loss by its name, for the class counts of a training split.

    Args:
        name: One of `LOSSES`.
        counts: Patches per class in the training split.
        gamma: Focusing strength, by default the loss's own; losses that have none ignore it.
        form: Of the class focal loss, ``"exponent"`` or ``"factor"``; other losses have the first only.

    Returns:
        A module that takes (N, C) logits and (N,) int64 targets and gives their mean loss.

    Raises:
        UsageError: The name is not known, an argument is out of its range, or the loss needs training patches of a
            class that has none.
    """
    facts = loss_facts(name)
    if name != "class-focal" and form != "exponent":
        raise UsageError(f"only the loss class-focal has forms, got {form!r} for {name}")
    return facts.make(counts, (facts.gamma or 0.0) if gamma is None else gamma, form)


def fit_tau(logits: Tensor, labels: Tensor, counts: Sequence[int]) -> float:
    r"""Strength of the post-hoc logit adjustment with the best mean recall per class on validation patches.

    .. math::
        \hat{y} = \arg\max_j z_j - \tau \log \pi_j

    Tau is searched from 0 to 2 in steps of 0.05. Of equally good values the nearest to 1 is taken, which is the best
    for balanced classes where the network's probabilities are right; of two equally near ones the smaller, which
    changes the network less.

    Source: Menon et al., "Long-tail learning via logit adjustment", ICLR 2021, equation 9.

    Args:
        logits: (N, C) of a network trained with cross-entropy, on validation patches.
        labels: (N,) int64 class indices 0..C-1. Classes without validation patches do not count.
        counts: Patches per class in the *training* split, each at least 1.

    Returns:
        Tau, 0 to 2.

    Raises:
        UsageError: A class has no training patches, or there are no validation patches.
    """
    prior = log_prior(counts)
    if not len(labels):
        raise UsageError("logit-adjusted needs validation patches to tune its tau")
    logits, labels = logits.double().cpu(), labels.cpu()
    # A class without patches adds 0 to the mean of every tau.
    sizes = labels.bincount(minlength=len(prior)).clamp_min(1)

    def recall(step: int) -> float:
        hits = labels[(logits - step / _TAU_STEPS * prior).argmax(1) == labels].bincount(minlength=len(prior))
        # Rounded, so that the same mean from other classes' hits is a tie.
        return round(float((hits.double() / sizes).mean()), 12)

    steps = range(_TAU_MAX * _TAU_STEPS + 1)
    return max(steps, key=lambda step: (recall(step), -abs(step - _TAU_STEPS), -step)) / _TAU_STEPS
