"""Calibration: whether confidences match accuracy, and what makes those of one date and of several match."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

ECE_BINS = 15
MOST_DAMPING = 2.0
"""Largest exponent with which a temperature may grow with novelty."""


def reliability(logits: Tensor, labels: Tensor) -> list[dict[str, float]]:
    """Accuracy by confidence, in bins of equal width from 0 to 1.

    torchmetrics' calibration error is not used because it sums in float32 and puts a confidence of 1 in a separate bin.

    Args:
        logits: (N, C), divided by the temperature.
        labels: (N,) int64.

    Returns:
        For each of `ECE_BINS` bins the mean ``confidence``, the ``accuracy`` and the ``count`` of its patches; all 0
        if the bin is empty.
    """
    confidence, predicted = logits.double().softmax(1).max(1)
    index = (confidence.numpy() * ECE_BINS).astype(int).clip(max=ECE_BINS - 1)
    count = np.bincount(index, minlength=ECE_BINS)
    filled = np.maximum(count, 1)
    mean_confidence = np.bincount(index, confidence.numpy(), ECE_BINS) / filled
    accuracy = np.bincount(index, (predicted == labels).numpy(), ECE_BINS) / filled
    return [
        {"confidence": float(c), "accuracy": float(a), "count": int(n)}
        for c, a, n in zip(mean_confidence, accuracy, count, strict=True)
    ]


def calibration_metrics(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Calibration error and scores of predicted probabilities.

    Args:
        logits: (N, C) float32, divided by the temperature.
        labels: (N,) int64; N >= 1.

    Returns:
        ``ece`` (expected calibration error: the mean gap between confidence and accuracy over the bins of
        `reliability`, weighted by their patches), ``nll`` (mean negative log-likelihood, nats) and ``brier`` (mean of
        ``sum_c (p_c - [c = y])^2``, 0..2: Brier, "Verification of forecasts expressed in terms of probability",
        Monthly Weather Review 78, 1950, formula 2).
    """
    gaps = [b["count"] * abs(b["confidence"] - b["accuracy"]) for b in reliability(logits, labels)]
    probabilities, truth = logits.double().softmax(1), F.one_hot(labels, logits.shape[1])
    return {
        "ece": sum(gaps) / len(labels),
        "nll": float(F.cross_entropy(logits, labels)),
        "brier": float((probabilities - truth).square().sum(1).mean()),
    }


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature that minimizes the negative log-likelihood of held-out patches.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2.

    Args:
        logits: (N, C) float32 of patches that were not used for training.
        labels: (N,) int64, or (N, C) float64 probabilities of the classes.

    Returns:
        T > 0; probabilities are ``softmax(logits / T)``.
    """
    return fit_damping(logits, labels)[0]


def fit_damping(logits: Tensor, labels: Tensor, ratio: Tensor | None = None) -> tuple[float, float]:
    """The temperature, and how fast it grows with novelty, that minimize the negative log-likelihood.

    Args:
        logits: (N, C) float32 of patches that were not used for training.
        labels: (N,) int64, or (N, C) float64 probabilities of the classes.
        ratio: (N,) novelty as a multiple of its median, >= 1; None to fit the temperature only.

    Returns:
        T > 0 and d in 0..`MOST_DAMPING`; probabilities are ``softmax(logits / (T * ratio ** d))``.
    """
    logits = logits.double()
    growth = torch.zeros(len(logits), dtype=torch.float64) if ratio is None else ratio.double().log()
    fitted = torch.zeros(2, dtype=torch.float64, requires_grad=True)  # log T and d
    optimizer = torch.optim.LBFGS([fitted], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(logits / (fitted[0] + fitted[1] * growth).exp()[:, None], labels)
        loss.backward()
        return loss

    optimizer.step(closure)
    # If the logits are separable there is no minimum: the loss keeps falling as T approaches 0.
    best = fitted.detach().nan_to_num()
    temperature, damping = float(best[0].clamp(-3, 3).exp()), float(best[1])
    if 0 <= damping <= MOST_DAMPING:
        return temperature, damping
    damping = min(max(damping, 0.0), MOST_DAMPING)  # the best temperature for the nearest damping that is allowed
    return fit_damping(logits / (damping * growth).exp()[:, None], labels)[0], damping


def fit_correlation(looks: Tensor, labels: Tensor) -> float:
    """How much calibrated probabilities of the same patches at several dates err together.

    If the errors of K dates have the correlation r, the dates are worth n = K / (1 + (K - 1) r) independent ones, and
    their log probabilities add up to n times their mean. The best n is 1 by the temperature of that mean, so that the
    temperature of what is pooled is fitted after pooling.

    Sources: Clemen and Winkler, "Limits for the precision and value of information from dependent sources", Operations
    Research 33, 1985, for n; Rahaman and Thiery, "Uncertainty quantification and deep ensembles", NeurIPS 2021, for
    calibration after pooling.

    Args:
        looks: (K, N, C) logarithms of calibrated probabilities of patches that were not used for training, K >= 2.
        labels: (N,) int64.

    Returns:
        r from 0 (independent) to 1 (the same errors); 1 if all patches are correct, because no error shows which.
    """
    mean, count = looks.mean(0), len(looks)
    if (mean.argmax(1) == labels).all():
        return 1.0
    return min(max((count * fit_temperature(mean, labels) - 1) / (count - 1), 0.0), 1.0)
