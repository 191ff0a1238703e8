"""A last layer fitted to features until it converges, with any loss, and its cross-validation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from geocfl.core.progress import Progress, silent

PENALTIES = (1e-2, 1e-3, 1e-4, 1e-5)
"""Penalties on squared weights to choose from, the largest first: each fit starts from the one before."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""Mean loss of (n, C) logits and (n,) labels."""


@dataclass(frozen=True)
class Head:
    """A linear last layer.

    Attributes:
        weight: (C, D) float32.
        bias: (C,) float32.
        losses: The loss, with the penalty, of every pass over the features that fitted it.
    """

    weight: Tensor
    bias: Tensor
    losses: tuple[float, ...] = ()

    def __call__(self, features: Tensor) -> Tensor:
        """(n, C) logits of (n, D) features."""
        return F.linear(features, self.weight, self.bias)


@dataclass(frozen=True)
class Rows:
    """Labeled features, a row for each view of each patch.

    Attributes:
        features: (R, D) float32.
        labels: (R,) int64, 0..C-1.
        folds: (R,) the fold in which a row is held out; all views of a patch have the same.
        balanced: Give every class the same weight instead of every row.
    """

    features: Tensor
    labels: Tensor
    folds: NDArray[np.int64]
    balanced: bool = False

    def loss(self, logits: Tensor, criterion: Loss, chosen: Tensor) -> Tensor:
        """The mean of a loss over the rows at (n,) indices, whose logits are (n, C)."""
        labels = self.labels[chosen]
        if not self.balanced:
            return criterion(logits, labels)
        parts = [
            criterion(logits[labels == c], labels[labels == c])
            for c in range(logits.shape[1])
            if bool((labels == c).any())
        ]
        return torch.stack(parts).mean()


def fit_head(rows: Rows, classes: int, criterion: Loss, penalty: float, steps: int, start: Head | None = None) -> Head:
    """Fits a last layer to all rows by L-BFGS.

    The features are centered and scaled to a mean square length of 1 first, so that a penalty means the same for every
    network. The bias has no penalty.

    Args:
        rows: What it is fitted to.
        classes: C.
        criterion: The loss.
        penalty: Weight of half the sum of the squared weights for scaled features, > 0.
        steps: Most iterations, >= 1.
        start: Where the fit starts; None starts at zero.
    """
    scaled, mean, scale = _scaled(rows.features)
    everything = torch.arange(len(scaled))
    first = start and Head(start.weight * scale, start.bias + F.linear(mean, start.weight))
    found = _fit(rows, scaled, everything, classes, criterion, penalty, steps, first)
    weight = found.weight / scale
    return Head(weight, found.bias - F.linear(mean, weight), found.losses)


def cross_validate(
    rows: Rows, classes: int, criterion: Loss, steps: int, progress: Progress = silent
) -> tuple[float, Tensor]:
    """Predicts every row by a last layer that was fitted to the rows of the other folds.

    Args:
        rows: R rows, in two folds or more.
        classes: C.
        criterion: The loss.
        steps: Most iterations of each fit, >= 1.
        progress: Called with the number of folds done so far.

    Returns:
        The penalty of `PENALTIES` whose predictions have the lowest negative log-likelihood, and its (R, C) logits.
    """
    scaled, _, _ = _scaled(rows.features)  # without labels, so that the folds learn nothing from each other
    logits = torch.zeros(len(PENALTIES), len(scaled), classes)
    folds = np.unique(rows.folds).tolist()
    for done, fold in enumerate(folds, start=1):
        held, used = (torch.from_numpy(np.flatnonzero(mask)) for mask in (rows.folds == fold, rows.folds != fold))
        head: Head | None = None
        for index, penalty in enumerate(PENALTIES):
            head = _fit(rows, scaled, used, classes, criterion, penalty, steps, head)
            logits[index, held] = head(scaled[held])
        progress("cross-validation", done, len(folds), "fold")
    everything = torch.arange(len(scaled))
    scores = [float(rows.loss(found, F.cross_entropy, everything)) for found in logits]
    best = int(np.argmin(scores))
    return PENALTIES[best], logits[best]


def _scaled(features: Tensor) -> tuple[Tensor, Tensor, float]:
    """Features with mean 0 and a mean square length of 1, their mean, and their scale."""
    mean = features.mean(0)
    centered = features - mean
    scale = float(centered.square().sum(1).mean().sqrt()) or 1.0
    return centered / scale, mean, scale


def _fit(
    rows: Rows,
    scaled: Tensor,
    chosen: Tensor,
    classes: int,
    criterion: Loss,
    penalty: float,
    steps: int,
    start: Head | None,
) -> Head:
    weight = start.weight.clone() if start else torch.zeros(classes, scaled.shape[1])
    bias = start.bias.clone() if start else torch.zeros(classes)
    weight.requires_grad_()
    bias.requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=steps, tolerance_change=1e-6, history_size=20, line_search_fn="strong_wolfe"
    )
    x, losses = scaled[chosen], []

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = rows.loss(F.linear(x, weight, bias), criterion, chosen) + penalty / 2 * weight.square().sum()
        loss.backward()
        losses.append(loss.item())
        return loss

    optimizer.step(closure)
    return Head(weight.detach(), bias.detach(), tuple(losses))
