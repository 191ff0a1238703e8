"""The class focal loss, and the cross-entropy it is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geocfl.errors import UsageError


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
        counts: Patches per class in the training split, N_1..N_C; none negative, not all 0.
        gamma: Strength of the fading, >= 0; the paper found 0.5 the best.
        form: ``"exponent"`` or ``"factor"``.

    Raises:
        UsageError: An argument is out of its range.
    """

    def __init__(self, counts: Sequence[int] | Tensor, gamma: float = 0.5, form: str = "exponent") -> None:
        super().__init__()
        shares = torch.as_tensor(counts, dtype=torch.float64)
        if shares.ndim != 1 or not bool(((shares >= 0) & shares.isfinite()).all()) or not float(shares.sum()) > 0:
            raise UsageError(f"class counts must be a list of numbers >= 0 that are not all 0, got {counts}")
        if not 0 <= gamma < float("inf"):
            raise UsageError(f"gamma must be a number >= 0, got {gamma}")
        if form not in ("exponent", "factor"):
            raise UsageError(f"the form of the class focal loss is 'exponent' or 'factor', got {form!r}")
        self.gamma = gamma
        self.form = form
        # No buffer: float64, which some accelerators lack, stays on the CPU when the module is moved.
        self.beta = shares / shares.sum()

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean loss over a batch.

        Args:
            logits: (N, C) raw scores of any floating dtype; half precision is computed in float32.
            target: (N,) int64 class indices 0..C-1.

        Returns:
            Scalar, float32 or float64.
        """
        if logits.dtype not in (torch.float32, torch.float64):
            logits = logits.float()
        log_p = F.log_softmax(logits, dim=1).gather(1, target[:, None]).squeeze(1)
        # 1 - p without cancellation near p = 1. The floor keeps a power of 0 and its infinite slope out of reach:
        # where p rounds to 1 the gradient is exactly 0, as it should be.
        rest = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)
        beta = self.beta.to(log_p.dtype).to(log_p.device)[target]
        if self.form == "factor":
            return -(len(self.beta) * beta * rest**self.gamma * log_p).mean()
        return -(rest ** (self.gamma * beta) * log_p).mean()


LOSSES = ("class-focal", "ce")
"""Names that `make_loss` knows."""


def make_loss(name: str, counts: Sequence[int], gamma: float) -> nn.Module:
    """A loss by its name, for the class counts of a training split.

    Args:
        name: One of `LOSSES`.
        counts: Patches per class in the training split.
        gamma: Focusing strength; plain cross-entropy has none and ignores it.

    Raises:
        UsageError: The name is not known.
    """
    if name == "class-focal":
        return ClassFocalLoss(counts, gamma)
    if name == "ce":
        return nn.CrossEntropyLoss()
    raise UsageError(f"unknown loss {name!r}; choose one of: {', '.join(LOSSES)}")
