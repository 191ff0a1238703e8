"""Metrics of predictions on labeled patches: the numbers of ``metrics.json``, and how they are shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from geocfl.core.display import html_table
from geocfl.core.legend import Legend
from geocfl.core.table import align
from geocfl.evaluation.calibration import calibration_metrics, reliability
from geocfl.evaluation.conformal import set_metrics
from geocfl.evaluation.significance import wilson_interval

MOSAICS = "_mosaics"
"""End of the name of a subset that was evaluated inside random mosaics; without it, each patch was evaluated alone."""


def metrics_at(logits: Tensor, labels: Tensor, legend: Legend, temperature: float = 1.0) -> dict[str, Any]:
    """Metrics at one temperature.

    Args:
        logits: (N, C) float32.
        labels: (N,) int64, legend code - 1; N >= 1.
        legend: The C classes.
        temperature: Divides the logits before ``ece``, ``nll`` and ``brier`` are computed; > 0.

    Returns:
        ``n``, ``accuracy``, ``balanced_accuracy`` (mean recall of the classes that have patches),
        ``worst_class_recall`` (the lowest of these recalls), ``macro_f1`` (mean over all classes; F1 of a class without
        patches or predictions is 0), ``ece``, ``nll`` and ``brier`` (see
        `geocfl.evaluation.calibration.calibration_metrics`), ``per_class`` (``accuracy`` is the recall, or producer's
        accuracy; ``precision``, the user's accuracy, and ``ece`` are of the patches that are called the class, None and
        0 if there are none), ``confusion`` (rows are true classes, columns predicted ones) and ``reliability`` (see
        `geocfl.evaluation.calibration.reliability`).
    """
    # torchmetrics is not used: importing it takes seconds.
    pairs = labels.numpy() * len(legend) + logits.argmax(1).numpy()
    confusion = np.bincount(pairs, minlength=len(legend) ** 2).reshape(len(legend), -1)
    true, predicted, correct = confusion.sum(1), confusion.sum(0), np.diag(confusion)
    f1, recall = _ratio(2 * correct, true + predicted), _ratio(correct, true)
    scaled = logits / temperature
    return {
        "n": len(labels),
        "accuracy": float(correct.sum() / len(labels)),
        "balanced_accuracy": float(recall[true > 0].mean()),
        "worst_class_recall": float(recall[true > 0].min()),
        "macro_f1": float(f1.mean()),
        **calibration_metrics(scaled, labels),
        "per_class": [
            {
                "code": c.code,
                "name": c.name,
                "count": int(true[c.code - 1]),
                "correct": int(correct[c.code - 1]),
                "accuracy": float(recall[c.code - 1]),
                "precision": float(correct[c.code - 1] / called) if (called := predicted[c.code - 1]) else None,
                "f1": float(f1[c.code - 1]),
                "ece": _calibration_error(scaled, labels, c.code - 1),
            }
            for c in legend
        ],
        "confusion": confusion.tolist(),
        "reliability": reliability(scaled, labels),
    }


def _calibration_error(logits: Tensor, labels: Tensor, predicted: int) -> float:
    called = logits.argmax(1) == predicted
    return calibration_metrics(logits[called], labels[called])["ece"] if called.any() else 0.0


def compute_metrics(
    logits: Tensor, labels: Tensor, legend: Legend, temperature: float, thresholds: tuple[float, ...] = ()
) -> dict[str, Any]:
    """The metrics of one subset as ``metrics.json`` has them, before and after calibration.

    Args:
        logits: (N, C) float32.
        labels: (N,) int64, legend code - 1; N >= 1.
        legend: The C classes.
        temperature: The model's; > 0.
        thresholds: The model's, for prediction sets; empty if it has none.

    Returns:
        `metrics_at` `temperature`, with ``ece``, ``nll``, ``brier`` and ``reliability`` at temperature 1 under
        ``uncalibrated``. The other metrics do not depend on the temperature. With thresholds, ``sets`` has those of
        `geocfl.evaluation.conformal.set_metrics`.
    """
    raw = metrics_at(logits, labels, legend)
    uncalibrated = {key: raw[key] for key in ("ece", "nll", "brier", "reliability")}
    found = {**metrics_at(logits, labels, legend, temperature), "uncalibrated": uncalibrated}
    return {**found, "sets": set_metrics(logits / temperature, labels, thresholds)} if thresholds else found


def format_metrics(metrics: Mapping[str, Any]) -> str:
    """The metrics of one subset as plain text, with classes as in the paper's Table 3.

    Args:
        metrics: From `metrics_at` or `compute_metrics`. Metrics that an older ``metrics.json`` lacks are left out.

    Returns:
        The table of classes, a sentence on balanced accuracy and the worst class, calibration, before and after
        temperature scaling if `metrics` has ``uncalibrated``, and a sentence on prediction sets if it has ``sets``.
    """
    calibrated = all("ece" in row for row in metrics["per_class"])
    lines = [("code", "class", "correct", "patches", "accuracy", "95% interval", "F1", *["ECE"] * calibrated)]
    for row in metrics["per_class"]:
        counts = f"{row['correct']:,}", f"{row['count']:,}"
        interval = accuracy_interval(row["correct"], row["count"])
        scores = f"{row['accuracy']:.2%}", interval, f"{row['f1']:.4f}"
        lines.append((str(row["code"]), row["name"], *counts, *scores, *[f"{row.get('ece', 0):.4f}"] * calibrated))
    correct = sum(row["correct"] for row in metrics["per_class"])
    total = (
        f"{correct:,}",
        f"{metrics['n']:,}",
        f"{metrics['accuracy']:.2%}",
        accuracy_interval(correct, metrics["n"]),
        f"{metrics['macro_f1']:.4f}",
    )
    lines.append(("", "All (F1: mean of the classes)", *total, *[f"{metrics.get('ece', 0):.4f}"] * calibrated))
    parts = [
        align(lines, text_columns=[1]),
        _format_balance(metrics),
        _format_calibration(metrics),
        describe_sets(metrics),
    ]
    return "\n\n".join(part for part in parts if part)


def accuracy_interval(correct: int, patches: int) -> str:
    """Wilson's 95 % interval of an accuracy in percent, such as "63.4-79.5"; "-" without patches."""
    if not patches:
        return "-"
    low, high = wilson_interval(correct, patches)
    return f"{100 * low:.1f}-{100 * high:.1f}"


def describe_metrics(metrics: Mapping[str, Any]) -> str:
    """The metrics of one subset in one line."""
    return (
        f"accuracy {metrics['accuracy']:.1%}, macro F1 {metrics['macro_f1']:.3f}, calibration error "
        f"{metrics['ece']:.3f} on {metrics['n']:,} patches"
    )


def describe_sets(metrics: Mapping[str, Any]) -> str:
    """The coverage and size of prediction sets in one sentence; empty without them."""
    if "sets" not in metrics:
        return ""
    sets = metrics["sets"]
    return (
        f"Prediction sets contain the class of {sets['coverage']:.1%} of the patches, and of "
        f"{sets['worst_class_coverage']:.1%} in the class where they do so least often; they hold "
        f"{sets['mean_size']:.2f} classes on average."
    )


def subset_title(subset: str) -> str:
    """The name of a subset in words, such as "test in mosaics"."""
    name = subset.removesuffix(MOSAICS)
    return name if name == subset else f"{name} in mosaics"


def describe_subset(subset: str, patches: int) -> str:
    """A subset and its number of patches in words, such as "5,400 test patches in mosaics"."""
    name = subset.removesuffix(MOSAICS)
    words = f"all {patches:,} patches" if name == "all" else f"{patches:,} {name} patches"
    return words if name == subset else f"{words} in mosaics"


def metrics_html(metrics: Mapping[str, Any], legend: Legend, caption: str) -> str:
    """The metrics of one subset by class, as a table for a notebook."""
    lines = [
        (legend[row["code"]].color, [row["name"], f"{row['count']:,}", f"{row['accuracy']:.1%}", f"{row['f1']:.3f}"])
        for row in metrics["per_class"]
    ]
    return html_table(["class", "patches", "accuracy", "F1"], lines, caption=caption)


def worst_class(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The ``per_class`` entry with the lowest accuracy among the classes that have patches."""
    rows: list[dict[str, Any]] = [row for row in metrics["per_class"] if row["count"]]
    return min(rows, key=lambda row: float(row["accuracy"]))


def _format_balance(metrics: Mapping[str, Any]) -> str:
    if "balanced_accuracy" not in metrics:
        return ""
    worst = worst_class(metrics)
    balanced = f"Balanced accuracy (mean of the classes' accuracies): {metrics['balanced_accuracy']:.2%}"
    return f"{balanced}; lowest: {worst['accuracy']:.2%}, {worst['name']}."


def _format_calibration(metrics: Mapping[str, Any]) -> str:
    names = {
        "ece": "Expected calibration error",
        "nll": "Negative log-likelihood (nats)",
        "brier": "Brier score (0..2)",
    }
    known = [key for key in names if key in metrics]
    before = metrics.get("uncalibrated", {})
    if not before:
        return ", ".join(f"{names[key]} {metrics[key]:.4f}" for key in known)
    lines = [("temperature scaling", "before", "after")]
    for key in known:
        lines.append((names[key], f"{before[key]:.4f}" if key in before else "-", f"{metrics[key]:.4f}"))
    return align(lines, text_columns=[0])


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    ratio: NDArray[np.float64] = np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
    return ratio
