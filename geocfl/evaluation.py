"""How good predictions are, and how far their probabilities can be believed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_confusion_matrix

from geocfl.legend import Legend
from geocfl.table import align

ECE_BINS = 15


def metrics(logits: Tensor, labels: Tensor, legend: Legend, temperature: float = 1.0) -> dict[str, Any]:
    """The figures of ``metrics.json`` for one split.

    Args:
        logits: (N, C) float32.
        labels: (N,) int64, legend code - 1.
        legend: The C classes.
        temperature: Divides the logits before `ece` and `nll` are taken.

    Returns:
        ``n``, ``accuracy``, ``macro_f1`` (mean over the classes; F1 of a class without patches or predictions is 0),
        ``ece`` (expected calibration error: mean over 15 equal-width confidence bins, weighted by their samples, of
        the gap between confidence and accuracy), ``nll`` (mean negative log-likelihood, nats), ``per_class``,
        ``confusion`` (rows are true classes, columns predicted ones) and ``reliability`` (the bins of `ece`: mean
        ``confidence``, ``accuracy`` and ``count``).
    """
    confusion = multiclass_confusion_matrix(logits, labels, num_classes=len(legend)).numpy()
    true, predicted, correct = confusion.sum(1), confusion.sum(0), np.diag(confusion)
    f1 = _ratio(2 * correct, true + predicted)
    scaled = logits / temperature
    bins = reliability(scaled, labels)
    return {
        "n": len(labels),
        "accuracy": float(correct.sum() / len(labels)),
        "macro_f1": float(f1.mean()),
        "ece": sum(b["count"] * abs(b["confidence"] - b["accuracy"]) for b in bins) / len(labels),
        "nll": float(F.cross_entropy(scaled, labels)),
        "per_class": [
            {
                "code": c.code,
                "name": c.name,
                "count": int(true[c.code - 1]),
                "correct": int(correct[c.code - 1]),
                "accuracy": float(_ratio(correct, true)[c.code - 1]),
                "f1": float(f1[c.code - 1]),
            }
            for c in legend
        ],
        "confusion": confusion.tolist(),
        "reliability": bins,
    }


def reliability(logits: Tensor, labels: Tensor) -> list[dict[str, float]]:
    """What came of the predictions of each level of confidence.

    torchmetrics' calibration error is not used: it sums in float32, and gives a confidence of 1 a bin of its own.

    Args:
        logits: (N, C), divided by the temperature.
        labels: (N,) int64.

    Returns:
        For each of 15 bins of equal width, from 0 to 1: mean ``confidence``, ``accuracy`` and ``count`` (0 each where
        the bin is empty).
    """
    confidence, predicted = logits.double().softmax(1).max(1)
    index = (confidence.numpy() * ECE_BINS).astype(int).clip(max=ECE_BINS - 1)
    count = np.bincount(index, minlength=ECE_BINS)
    mean_confidence = _ratio(np.bincount(index, confidence.numpy(), ECE_BINS), count)
    accuracy = _ratio(np.bincount(index, (predicted == labels).numpy(), ECE_BINS), count)
    return [
        {"confidence": float(c), "accuracy": float(a), "count": int(n)}
        for c, a, n in zip(mean_confidence, accuracy, count, strict=True)
    ]


def format_metrics(figures: dict[str, Any]) -> str:
    """One split's figures as plain text, classes in the form of the paper's Table 3."""
    lines = [("code", "class", "correct", "patches", "accuracy", "F1")]
    for row in figures["per_class"]:
        counts = f"{row['correct']:,}", f"{row['count']:,}"
        lines.append((str(row["code"]), row["name"], *counts, f"{row['accuracy']:.2%}", f"{row['f1']:.4f}"))
    correct = sum(row["correct"] for row in figures["per_class"])
    total = f"{correct:,}", f"{figures['n']:,}", f"{figures['accuracy']:.2%}", f"{figures['macro_f1']:.4f}"
    lines.append(("", "All (F1: mean of the classes)", *total))
    calibration = f"Expected calibration error {figures['ece']:.4f}, negative log-likelihood {figures['nll']:.4f}."
    return f"{align(lines, text_columns=[1])}\n\n{calibration}"


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    ratio: NDArray[np.float64] = np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
    return ratio


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature that minimises the negative log-likelihood of held-out patches.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2.

    Args:
        logits: (N, C) float32 of patches that were not trained on.
        labels: (N,) int64.

    Returns:
        T > 0; probabilities are ``softmax(logits / T)``.
    """
    logits, log_t = logits.double(), torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([log_t], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(logits / log_t.exp(), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    # Separable logits have no minimum: the loss falls for ever as T goes to 0.
    return float(log_t.detach().clamp(-3, 3).exp())
