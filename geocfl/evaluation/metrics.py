"""How good predictions are, and how far their probabilities can be believed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from geocfl.core.display import html_table
from geocfl.core.legend import Legend
from geocfl.core.table import align

ECE_BINS = 15


def metrics_at(logits: Tensor, labels: Tensor, legend: Legend, temperature: float = 1.0) -> dict[str, Any]:
    """The figures of ``metrics.json`` for one split.

    Args:
        logits: (N, C) float32.
        labels: (N,) int64, legend code - 1; N >= 1.
        legend: The C classes.
        temperature: Divides the logits before `ece`, `nll` and `brier` are taken; > 0.

    Returns:
        ``n``, ``accuracy``, ``balanced_accuracy`` (mean recall of the classes that have patches),
        ``worst_class_recall`` (the least of those recalls), ``macro_f1`` (mean over all classes; F1 of a class without
        patches or predictions is 0), ``ece`` (expected calibration error: mean over 15 equal-width confidence bins,
        weighted by their samples, of the gap between confidence and accuracy), ``nll`` (mean negative log-likelihood,
        nats), ``brier`` (mean over the patches of ``sum_c (p_c - [c = y])^2``, 0..2: Brier, "Verification of forecasts
        expressed in terms of probability", Monthly Weather Review 78, 1950, formula 2), ``per_class``, ``confusion``
        (rows are true classes, columns predicted ones) and ``reliability`` (the bins of `ece`: mean ``confidence``,
        ``accuracy`` and ``count``).
    """
    # One line, where importing torchmetrics for it takes seconds of every command.
    pairs = labels.numpy() * len(legend) + logits.argmax(1).numpy()
    confusion = np.bincount(pairs, minlength=len(legend) ** 2).reshape(len(legend), -1)
    true, predicted, correct = confusion.sum(1), confusion.sum(0), np.diag(confusion)
    f1, recall = _ratio(2 * correct, true + predicted), _ratio(correct, true)
    scaled = logits / temperature
    bins = reliability(scaled, labels)
    return {
        "n": len(labels),
        "accuracy": float(correct.sum() / len(labels)),
        "balanced_accuracy": float(recall[true > 0].mean()),
        "worst_class_recall": float(recall[true > 0].min()),
        "macro_f1": float(f1.mean()),
        "ece": sum(b["count"] * abs(b["confidence"] - b["accuracy"]) for b in bins) / len(labels),
        "nll": float(F.cross_entropy(scaled, labels)),
        "brier": _brier(scaled, labels),
        "per_class": [
            {
                "code": c.code,
                "name": c.name,
                "count": int(true[c.code - 1]),
                "correct": int(correct[c.code - 1]),
                "accuracy": float(recall[c.code - 1]),
                "f1": float(f1[c.code - 1]),
            }
            for c in legend
        ],
        "confusion": confusion.tolist(),
        "reliability": bins,
    }


def _brier(logits: Tensor, labels: Tensor) -> float:
    probabilities = logits.double().softmax(1)
    truth = F.one_hot(labels, logits.shape[1])
    return float((probabilities - truth).square().sum(1).mean())


def compute_metrics(logits: Tensor, labels: Tensor, legend: Legend, temperature: float) -> dict[str, Any]:
    """The figures of one split as they stand in ``metrics.json``, with and without calibration.

    Args:
        logits: (N, C) float32.
        labels: (N,) int64, legend code - 1; N >= 1.
        legend: The C classes.
        temperature: The model's; > 0.

    Returns:
        `metrics_at` `temperature`, and as ``uncalibrated`` the ``ece``, ``nll``, ``brier`` and ``reliability`` of
        temperature 1. The other figures are the same at every temperature.
    """
    raw = metrics_at(logits, labels, legend)
    uncalibrated = {key: raw[key] for key in ("ece", "nll", "brier", "reliability")}
    return {**metrics_at(logits, labels, legend, temperature), "uncalibrated": uncalibrated}


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


def format_metrics(figures: Mapping[str, Any]) -> str:
    """One split's figures as plain text, classes in the form of the paper's Table 3.

    Args:
        figures: From `metrics_at` or `compute_metrics`; what an older ``metrics.json`` lacks is left out.

    Returns:
        The table of the classes, a sentence on their mean and worst, and calibration: before and after temperature
        scaling where `figures` has ``uncalibrated``.
    """
    lines = [("code", "class", "correct", "patches", "accuracy", "F1")]
    for row in figures["per_class"]:
        counts = f"{row['correct']:,}", f"{row['count']:,}"
        lines.append((str(row["code"]), row["name"], *counts, f"{row['accuracy']:.2%}", f"{row['f1']:.4f}"))
    correct = sum(row["correct"] for row in figures["per_class"])
    total = f"{correct:,}", f"{figures['n']:,}", f"{figures['accuracy']:.2%}", f"{figures['macro_f1']:.4f}"
    lines.append(("", "All (F1: mean of the classes)", *total))
    parts = [align(lines, text_columns=[1]), _format_balance(figures), _format_calibration(figures)]
    return "\n\n".join(part for part in parts if part)


def describe_metrics(figures: Mapping[str, Any]) -> str:
    """One split's figures in a line."""
    return (
        f"accuracy {figures['accuracy']:.1%}, macro F1 {figures['macro_f1']:.3f}, calibration error "
        f"{figures['ece']:.3f} on {figures['n']:,} patches"
    )


def metrics_html(figures: Mapping[str, Any], legend: Legend, caption: str) -> str:
    """One split's figures by class, for a notebook."""
    lines = [
        (legend[row["code"]].color, [row["name"], f"{row['count']:,}", f"{row['accuracy']:.1%}", f"{row['f1']:.3f}"])
        for row in figures["per_class"]
    ]
    return html_table(["class", "patches", "accuracy", "F1"], lines, caption=caption)


def _format_balance(figures: Mapping[str, Any]) -> str:
    if "balanced_accuracy" not in figures:
        return ""
    worst = min((row for row in figures["per_class"] if row["count"]), key=lambda row: float(row["accuracy"]))
    mean = f"Balanced accuracy, the mean of the classes' accuracies: {figures['balanced_accuracy']:.2%}"
    return f"{mean}; lowest: {worst['accuracy']:.2%}, {worst['name']}."


def _format_calibration(figures: Mapping[str, Any]) -> str:
    names = {
        "ece": "Expected calibration error",
        "nll": "Negative log-likelihood (nats)",
        "brier": "Brier score (0..2)",
    }
    known = [key for key in names if key in figures]
    before = figures.get("uncalibrated", {})
    if not before:
        return ", ".join(f"{names[key]} {figures[key]:.4f}" for key in known)
    lines = [("temperature scaling", "before", "after")]
    for key in known:
        lines.append((names[key], f"{before[key]:.4f}" if key in before else "-", f"{figures[key]:.4f}"))
    return align(lines, text_columns=[0])


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
