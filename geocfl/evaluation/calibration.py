"""Calibration: whether confidences match accuracy, and the temperature that makes them match."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

ECE_BINS = 15


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
        labels: (N,) int64.

    Returns:
        T > 0; probabilities are ``softmax(logits / T)``.
    """
    logits, log_t = logits.double(), torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_t], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(logits / log_t.exp(), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    # If the logits are separable there is no minimum: the loss keeps falling as T approaches 0.
    return float(log_t.detach().clamp(-3, 3).exp())
