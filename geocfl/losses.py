"""The class focal loss, other losses for imbalanced classes, and the registry of losses."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geocfl.core.keywords import declared
from geocfl.core.transfer import send
from geocfl.errors import UsageError, unknown_name

Make = TypeVar("Make", bound=Callable[..., nn.Module])

COSINE_SCALE = 30.0
"""Factor *s* from cosines to logits in the last layer of a network for `LDAMLoss`."""

_TAU_STEPS = 20  # per 1; whole steps, so that equal distances compare as equal
_TAU_MAX = 2


def _checked_counts(counts: Sequence[int] | Tensor, *, every_class: bool) -> Tensor:
    """Patches per class as (C,) float64; raises UsageError if they are not counts, or if a needed class has none."""
    checked = torch.as_tensor(counts, dtype=torch.float64)
    if checked.ndim != 1 or not bool(((checked >= 0) & checked.isfinite()).all()) or not float(checked.sum()) > 0:
        raise UsageError(f"`counts` is {counts} but must be a list of numbers >= 0 that are not all 0")
    if every_class and not bool(checked.all()):
        absent = ", ".join(str(i + 1) for i in (checked == 0).nonzero().flatten().tolist())
        raise UsageError(
            f"this loss needs training patches of every class, but these of the {len(checked)} classes have none: "
            f"no. {absent}; choose class-focal, focal or ce, or remove the class",
            page="how-to/imbalance/",
        )
    return checked


def _checked_gamma(gamma: float) -> float:
    """The focusing parameter; raises UsageError if it is negative or not finite."""
    if not 0 <= gamma < math.inf:
        raise UsageError(f"`gamma` is {gamma} but must be a number >= 0")
    return gamma


def _widened(logits: Tensor) -> Tensor:
    """Logits in float32 or float64; half precision is too coarse for probabilities near 1."""
    return logits if logits.dtype in (torch.float32, torch.float64) else logits.float()


def _like(values: Tensor, logits: Tensor) -> Tensor:
    """Values per class in the precision and on the device of the logits.

    Losses keep these values as plain float64 tensors instead of buffers. They stay on the CPU when the module is moved,
    since some accelerators do not support float64.
    """
    return send(values.to(logits.dtype), logits.device)


def focal_term(logits: Tensor, target: Tensor, exponent: Tensor | float) -> Tensor:
    """Softmax focal loss of each sample, without class weights.

        -(1 - p_y)^e * log(p_y)

    where p = softmax(z) and e is the exponent.

    Other libraries do not provide it. torchvision's ``sigmoid_focal_loss`` and the multiclass ``FocalLoss`` of
    segmentation-models-pytorch (torchgeo's ``loss="focal"``) are one-vs-rest sigmoid losses. kornia's ``focal_loss`` is
    the softmax loss, but takes one exponent for all classes. kornia 0.8.2, which torchgeo allows, has NaN gradients if
    *p* rounds to 1 and the exponent is below 1.

    Args:
        logits: (N, C) raw scores of any floating dtype; half precision is computed in float32.
        target: (N,) int64 class indices 0..C-1.
        exponent: *e* >= 0, a number for all samples or (N,).

    Returns:
        (N,) losses >= 0, float32 or float64. Losses and gradients are finite if the logits are.
    """
    log_p = F.log_softmax(_widened(logits), dim=1).gather(1, target[:, None]).squeeze(1)
    # The lower bound avoids a power of 0 and its infinite slope. If p rounds to 1, the gradient is exactly 0, as it
    # should be.
    rest = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)
    return -(rest**exponent) * log_p


def inverse_frequency_weights(counts: Sequence[int] | Tensor) -> Tensor:
    """Class weights that give each class the same total weight in the training split.

        w_c = N / (C * N_c)

    where N = N_1 + ... + N_C. They equal scikit-learn's ``class_weight="balanced"``. Their mean over the *patches* of
    the training split is 1. Their mean over the classes is above 1 if the classes differ in size.

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
    """Class weights by the inverse effective number of samples. They sum to C.

    w_c is proportional to (1 - beta) / (1 - beta^N_c). Beta 0 weights all classes equally; beta close to 1 weights them
    by inverse frequency.

    Source: Cui, Jia, Lin, Song and Belongie, "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019.

    Args:
        counts: Patches per class in the training split, N_1..N_C, each at least 1.
        beta: In [0, 1).

    Returns:
        (C,) float64.

    Raises:
        UsageError: A class has no patches, or beta is out of range.
    """
    if not 0 <= beta < 1:
        raise UsageError(f"`beta` is {beta} but must be in [0, 1)")
    weights = (1 - beta) / (1 - beta ** _checked_counts(counts, every_class=True))
    return weights * (len(weights) / weights.sum())


def log_prior(counts: Sequence[int] | Tensor) -> Tensor:
    """Logarithm of the classes' shares in the training split, log(N_c / (N_1 + ... + N_C)).

    Args:
        counts: Patches per class, N_1..N_C, each at least 1; the prior of a class without patches would be infinite.

    Returns:
        (C,) float64.

    Raises:
        UsageError: A class has no patches.
    """
    checked = _checked_counts(counts, every_class=True)
    return (checked / checked.sum()).log()


class CrossEntropyLoss(nn.CrossEntropyLoss):
    """torch's cross-entropy, computed in float32 if the logits are in half precision."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Mean cross-entropy of (N, C) logits and (N,) int64 class indices."""
        return super().forward(_widened(input), target)


class FocalLoss(nn.Module):
    """Softmax focal loss: cross-entropy that down-weights easy samples, with optional class weights.

        FL(z, y) = -w_y * (1 - p_y)^gamma * log(p_y)

    where p = softmax(z). With gamma 0 it is (weighted) cross-entropy. The mean over a batch divides by its N samples.
    torch's weighted ``CrossEntropyLoss`` divides by the sum of their weights instead. Here the weight of a sample does
    not depend on the rest of its batch, and the mean over batches is an unbiased estimate of the weighted risk.

    With `inverse_frequency_weights` and gamma 0 this is ``weighted-ce``; with `effective_number_weights` it is
    ``cb-focal``. The authors of the latter weight a *sigmoid* (one-vs-rest) focal loss. The softmax makes it comparable
    with the other losses, and its outputs are probabilities.

    Source: Lin, Goyal, Girshick, He and Dollár, "Focal Loss for Dense Object Detection", ICCV 2017, equations 4 (no
    weights) and 5 (weights), for two classes; the softmax is the usual extension to more classes.

    Args:
        gamma: Focusing parameter, >= 0; Lin et al. found 2 to be the best.
        weights: (C,) weights per class; None weights all classes with 1.

    Raises:
        UsageError: Gamma is out of range.
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
    """Class focal loss: cross-entropy that down-weights easy samples, more so in larger classes.

        CFL(z, y) = -(1 - p_y)^(gamma * beta_y) * log(p_y)

    where p = softmax(z), beta_y = N_y / (N_1 + ... + N_C), and N_y is the number of training patches of class y. With
    gamma 0 it is cross-entropy. The paper can also be read as ``form="factor"``, with C classes:

        CFL(z, y) = -C * beta_y * (1 - p_y)^gamma * log(p_y)

    This is the focal loss, weighted toward the larger classes.

    The exponent is small if there are many classes: for ten equal classes and gamma 0.5 it is 0.05.

    Source: "Class Focal Loss Optimization with residual networks on EuroSAT"; focal loss by Lin et al., "Focal Loss
    for Dense Object Detection", ICCV 2017.

    Examples:
        ```python
        import torch
        from geocfl.losses import ClassFocalLoss

        criterion = ClassFocalLoss(counts=[1500, 1000, 500], gamma=0.5)
        logits = torch.randn(64, 3, requires_grad=True)
        labels = torch.randint(3, (64,))
        loss = criterion(logits, labels)
        loss.backward()
        ```

    Args:
        counts: Training patches per class, N_1..N_C, a sequence or a (C,) tensor; none negative, not all 0. A class
            without patches has plain cross-entropy with the exponent, and no loss with the factor.
        gamma: Focusing parameter, >= 0; the paper found 0.5 to be the best.
        form: ``"exponent"`` or ``"factor"``.

    Raises:
        UsageError: An argument is out of range.
    """

    def __init__(
        self,
        counts: Sequence[int] | Tensor,
        gamma: float = 0.5,
        form: Literal["exponent", "factor"] = "exponent",
    ) -> None:
        super().__init__()
        shares = _checked_counts(counts, every_class=False)
        if form not in ("exponent", "factor"):
            raise UsageError(unknown_name("`form`", form, ("exponent", "factor")))
        self.gamma = _checked_gamma(gamma)
        self.form = form
        self.beta = shares / shares.sum()

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean loss over a batch.

        Args:
            logits: (N, C) raw scores of any floating dtype; half precision is computed in float32.
            target: (N,) int64 class indices 0..C-1.

        Returns:
            Scalar tensor, float32 or float64. It is finite, with finite gradients, if the logits are.
        """
        logits = _widened(logits)
        beta = _like(self.beta, logits)[target]
        if self.form == "factor":
            return (len(self.beta) * beta * focal_term(logits, target, self.gamma)).mean()
        return focal_term(logits, target, self.gamma * beta).mean()


class LogitAdjustedLoss(nn.Module):
    """Cross-entropy of logits plus the log prior of the classes, so that the plain logits suit balanced classes.

        L(z, y) = -log(softmax(z + tau * log(pi))_y)

    where pi_c = N_c / (N_1 + ... + N_C). With tau 0 it is cross-entropy, with tau 1 the balanced softmax. Predictions
    use the plain logits.

    Source: Menon, Jayasumana, Rawat, Jain, Veit and Kumar, "Long-tail learning via logit adjustment", ICLR 2021,
    equation 10; Ren, Yu, Sheng, Ma, Zhao, Yi and Li, "Balanced Meta-Softmax for Long-Tailed Visual Recognition",
    NeurIPS 2020 (without their meta sampler).

    Args:
        counts: Patches per class in the training split, N_1..N_C, each at least 1.
        tau: Strength of the adjustment, >= 0.

    Raises:
        UsageError: A class has no patches, or tau is out of range.
    """

    def __init__(self, counts: Sequence[int] | Tensor, tau: float = 1.0) -> None:
        super().__init__()
        if not 0 <= tau < math.inf:
            raise UsageError(f"`tau` is {tau} but must be a number >= 0")
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
    """Label-distribution-aware margin loss: the rarer a class, the wider its margin.

    It is the cross-entropy after s * m_y is subtracted from the logit of the true class y. The margin m_c is
    proportional to N_c^(-1/4), and the largest is `max_margin`.

    The logits are cosines between feature and class vectors, which the last layer of the network has multiplied by *s*.
    The margin is in units of the cosine.

    Source: Cao, Wei, Gaidon, Arechiga and Ma, "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss",
    NeurIPS 2019; *s* = 30 and the largest margin of 0.5 are those of the authors' code. Their deferred re-weighting
    (DRW) of the last epochs is not included: it is a schedule that could be added to any of the losses.

    Args:
        counts: Patches per class in the training split, N_1..N_C, each at least 1.
        max_margin: Margin of the rarest class, > 0.
        scale: *s* > 0, the same as in the network's last layer.

    Raises:
        UsageError: A class has no patches, or another argument is out of range.
    """

    def __init__(self, counts: Sequence[int] | Tensor, max_margin: float = 0.5, scale: float = COSINE_SCALE) -> None:
        super().__init__()
        if not 0 < max_margin < math.inf or not 0 < scale < math.inf:
            raise UsageError(f"`max_margin` and `scale` must be numbers > 0 but are {max_margin} and {scale}")
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
    """Cross-entropy for a network whose logits are adjusted after training; checks the counts before training."""
    log_prior(counts)
    return CrossEntropyLoss()


@dataclass(frozen=True)
class LossFacts:
    """How to build a loss, and what it needs of network and training.

    Attributes:
        make: Builds the loss from the class counts of the training split, gamma and form.
        gamma: Default focusing parameter; None if the loss has none.
        head: Last layer of the network, ``"linear"`` or ``"cosine"``; the latter's logits are cosines times
            `COSINE_SCALE`.
        posthoc: The network is trained with cross-entropy. After training, tau times `log_prior` is subtracted from the
            logits, with the tau of `fit_tau`.
    """

    make: Callable[..., nn.Module]
    gamma: float | None = None
    head: str = "linear"
    posthoc: bool = False


LOSSES: dict[str, LossFacts] = {
    "ce": LossFacts(lambda counts, gamma, form: CrossEntropyLoss()),
    "weighted-ce": LossFacts(lambda counts, gamma, form: FocalLoss(0.0, inverse_frequency_weights(counts))),
    "focal": LossFacts(lambda counts, gamma, form: FocalLoss(gamma), gamma=2.0),
    "class-focal": LossFacts(ClassFocalLoss, gamma=0.5),
    # Cui et al. tried gamma 0.5, 1 and 2; 1 is the default of their code, and their example has beta 0.9999.
    "cb-focal": LossFacts(lambda counts, gamma, form: FocalLoss(gamma, effective_number_weights(counts)), gamma=1.0),
    "balanced-softmax": LossFacts(lambda counts, gamma, form: LogitAdjustedLoss(counts)),
    "logit-adjusted": LossFacts(lambda counts, gamma, form: _posthoc(counts), posthoc=True),
    "ldam": LossFacts(lambda counts, gamma, form: LDAMLoss(counts), head="cosine"),
}
"""The losses by name; docs/reference/losses.md compares them, and `register_loss` adds to them."""


@overload
def register_loss(
    name: str, make: None = None, *, gamma: float | None = None, head: Literal["linear", "cosine"] = "linear"
) -> Callable[[Make], Make]: ...
@overload
def register_loss(
    name: str, make: Make, *, gamma: float | None = None, head: Literal["linear", "cosine"] = "linear"
) -> Make: ...
@declared
def register_loss(name: str, make: Any = None, *, gamma: float | None = None, head: str = "linear") -> Any:
    """Adds a loss, which `geocfl.train` and `geocfl.compare` then accept by its name.

    Decorate an `nn.Module` class, or a function that makes a module:

    ```python
    @geocfl.register_loss("smoothed", gamma=0.1)
    def smoothed(counts: Sequence[int], gamma: float) -> nn.Module:
        return nn.CrossEntropyLoss(label_smoothing=gamma)
    ```

    A model does not need its loss after training.

    Args:
        name: Name of the loss, which is stored in the model's origin.
        make: Class or function. It gets the number of training patches per class, in the order of the legend; and the
            focusing parameter as a second argument if the loss has one. It returns a module from (N, C) logits, which
            may be in half precision, and (N,) int64 class indices to their mean loss, a scalar. Omit it to use
            `register_loss` as a decorator.
        gamma: Default focusing parameter, which the parameter `gamma` of `geocfl.train` changes; None if the loss has
            none.
        head: Last layer of the network: ``"linear"``; or ``"cosine"``, whose logits are cosines between features and
            class vectors times 30, for losses with margins.

    Returns:
        `make`, or the decorator.

    Raises:
        UsageError: The name is taken, or a value is not allowed.
    """
    if name in LOSSES:
        raise UsageError(f"a loss named {name!r} is already registered; choose another `name`")
    if head not in ("linear", "cosine"):
        raise UsageError(unknown_name("`head`", head, ("linear", "cosine")))
    if make is None:
        return lambda function: register_loss(name, function, gamma=gamma, head=head)  # type: ignore[call-overload]
    if not callable(make):
        raise UsageError(f"`make` is {make!r} but must be a class or function that makes the loss")

    def with_form(counts: Sequence[int], strength: float, form: str) -> nn.Module:
        module: nn.Module = make(counts) if gamma is None else make(counts, strength)
        return module

    LOSSES[name] = LossFacts(with_form, None if gamma is None else _checked_gamma(gamma), head)
    return make


def loss_facts(name: str) -> LossFacts:
    """The facts of a loss.

    Raises:
        UsageError: There is no such loss.
    """
    if name not in LOSSES:
        raise UsageError(unknown_name("`loss`", name, LOSSES), page="reference/losses/")
    return LOSSES[name]


def make_loss(name: str, counts: Sequence[int], gamma: float | None = None, form: str = "exponent") -> nn.Module:
    """A loss by its name, for the class counts of a training split.

    Args:
        name: One of `LOSSES`.
        counts: Patches per class in the training split.
        gamma: Focusing parameter; by default the loss's own. Losses without one ignore it.
        form: ``"exponent"`` or ``"factor"`` for the class focal loss, ``"exponent"`` for the others.

    Returns:
        A module from (N, C) logits and (N,) int64 class indices to their mean loss.

    Raises:
        UsageError: The name is unknown, an argument is out of range, or the loss needs training patches of every class
            and one has none.
    """
    facts = loss_facts(name)
    if name != "class-focal" and form != "exponent":
        raise UsageError(f"`cfl_form` is for the loss class-focal only, not for {name}; leave it out")
    return facts.make(counts, (facts.gamma or 0.0) if gamma is None else gamma, form)


def fit_tau(logits: Tensor, labels: Tensor, counts: Sequence[int]) -> float:
    """The strength of the post-hoc logit adjustment with the best mean recall on validation patches.

    With tau, the predicted class is the one with the largest z_c - tau * log(pi_c), where pi_c is the class's share in
    the training split. Tau is searched from 0 to 2 in steps of 0.05. Among equally good values the nearest to 1 is
    chosen, which is the best one for balanced classes if the network's probabilities are right. If two are equally
    near, the smaller one is chosen, which changes the network less.

    Source: Menon et al., "Long-tail learning via logit adjustment", ICLR 2021, equation 9.

    Args:
        logits: (N, C) on validation patches, of a network trained with cross-entropy.
        labels: (N,) int64 class indices 0..C-1. Classes without validation patches do not count.
        counts: Patches per class in the *training* split, each at least 1.

    Returns:
        Tau, 0 to 2.

    Raises:
        UsageError: A class has no training patches, or there are no validation patches.
    """
    prior = log_prior(counts)
    if not len(labels):
        raise UsageError("the loss logit-adjusted needs validation patches to tune its tau")
    logits, labels = logits.double().cpu(), labels.cpu()
    # A class without patches adds 0 to the mean for each tau.
    sizes = labels.bincount(minlength=len(prior)).clamp_min(1)

    def recall(step: int) -> float:
        hits = labels[(logits - step / _TAU_STEPS * prior).argmax(1) == labels].bincount(minlength=len(prior))
        # Rounded, so that equal means of different classes' hits are ties.
        return round(float((hits.double() / sizes).mean()), 12)

    steps = range(_TAU_MAX * _TAU_STEPS + 1)
    return max(steps, key=lambda step: (recall(step), -abs(step - _TAU_STEPS), -step)) / _TAU_STEPS
