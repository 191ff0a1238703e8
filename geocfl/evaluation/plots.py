"""The figures of a report: learning curves, confusion matrix, metrics per class, calibration and intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter

from geocfl.core.legend import EUROSAT, Legend
from geocfl.evaluation import paper

INK, MUTED, GRID, FAINT = "#222222", "#6b7280", "#e5e7eb", "#f1f3f5"
TRAINING, VALIDATION = "#e08e2b", "#1d4e9e"
# Text is drawn as paths, so that a figure looks the same everywhere; the salt makes its ids reproducible.
STYLE: dict[Any, Any] = {
    "svg.fonttype": "path",
    "svg.hashsalt": "geocfl",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "figure.dpi": 150,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "legend.frameon": False,
    "figure.constrained_layout.w_pad": 0.1,
    "figure.constrained_layout.h_pad": 0.1,
}
MAX_ANNOTATED = 20
"""Largest number of classes for which the confusion matrix shows its numbers."""


def save_figure(figure: Figure, folder: Path, name: str) -> None:
    """Writes ``<name>.png`` and ``<name>.svg``.

    Call it inside the ``matplotlib.rc_context(STYLE)`` of the drawing; then the same figure gives the same bytes.

    Args:
        figure: The figure; its resolution is that of the PNG.
        folder: Output folder; created if it does not exist.
        name: File name without suffix.
    """
    folder.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(folder / f"{name}.png", dpi="figure", metadata={"Software": None})
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})


def convergence_figure(history: Sequence[Mapping[str, float]]) -> Figure:
    """Losses over the epochs, and validation accuracy if there are validation patches."""
    validated = all("validation_accuracy" in row for row in history)
    figure = Figure(figsize=(9 if validated else 4.5, 3.4), layout="constrained")
    left = figure.add_subplot(1, 2 if validated else 1, 1)
    epochs = [row["epoch"] for row in history]
    line: dict[str, Any] = {"marker": "o", "markersize": 4, "linewidth": 1.8, "clip_on": False}
    left.plot(epochs, [row["loss"] for row in history], color=TRAINING, label="training (augmented)", **line)
    if validated:
        left.plot(epochs, [row["validation_loss"] for row in history], color=VALIDATION, label="validation", **line)
        _draw_accuracy(figure.add_subplot(1, 2, 2), history, line)
    left.set(title="Loss", xlabel="epoch")
    left.set_ylim(bottom=0)
    left.legend()
    for axes in figure.axes:
        axes.grid(axis="y")
        axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure


def _draw_accuracy(right: Axes, history: Sequence[Mapping[str, float]], line: Mapping[str, Any]) -> None:
    epochs = [row["epoch"] for row in history]
    accuracy = [row["validation_accuracy"] for row in history]
    right.plot(epochs, accuracy, color=VALIDATION, **line)
    # Ties go to the later epoch, as in training.
    best = max(range(len(accuracy)), key=lambda i: (accuracy[i], i))
    right.plot(epochs[best], accuracy[best], "o", markersize=10, fillstyle="none", color=INK, clip_on=False)
    right.annotate(
        f"kept: {accuracy[best]:.2%}",
        (epochs[best], accuracy[best]),
        xytext=(0, -18),
        textcoords="offset points",
        ha="center" if 0 < best < len(accuracy) - 1 else ("left" if best == 0 else "right"),
    )
    right.set(title="Validation accuracy", xlabel="epoch")
    right.yaxis.set_major_formatter(PercentFormatter(1))
    right.margins(y=0.25)
    right.set_ylim(top=min(1.0, right.get_ylim()[1]))


def confusion_figure(metrics: Mapping[str, Any], legend: Legend) -> Figure:
    """Counts and shares of true classes (rows) by predicted classes (columns)."""
    counts = np.array(metrics["confusion"])
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    classes = len(legend)
    side = 2.6 + 0.66 * min(max(classes, 4), MAX_ANNOTATED)
    figure = Figure(figsize=(side + 1.4, side), layout="constrained")
    axes = figure.subplots()
    # The square root of the share keeps rare confusions visible.
    image = axes.imshow(share, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
    axes.set_xticks(range(classes), legend.names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(classes), legend.names)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.set_xticks(np.arange(classes - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(classes - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    if classes <= MAX_ANNOTATED:
        for row, column in zip(*np.nonzero(counts), strict=True):
            part = share[row, column]
            text = f"{counts[row, column]:,}\n{percent(part)}"
            color = "white" if part > 0.35 else INK
            axes.text(column, row, text, ha="center", va="center", fontsize=8, linespacing=1.3, color=color)
    bar = figure.colorbar(image, ax=axes, aspect=35, pad=0.03, ticks=[0, 0.01, 0.05, 0.1, 0.25, 0.5, 1])
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1))
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)
    return figure


def per_class_figure(metrics: Mapping[str, Any], legend: Legend) -> Figure:
    """Accuracy and F1 of every class as bars in its color; for EuroSAT also the paper's results as markers.

    Args:
        metrics: From `geocfl.evaluation.metrics.metrics_at`.
        legend: Its classes.
    """
    classes = len(legend)
    figure = Figure(figsize=(9, 1.5 + 0.48 * classes), layout="constrained")
    axes = figure.subplots()
    for position, (lulc, row) in enumerate(zip(legend, metrics["per_class"], strict=True)):
        pale = tuple(0.45 * part + 0.55 for part in to_rgb(lulc.color))
        for value, color, y in ((row["accuracy"], lulc.color, position - 0.2), (row["f1"], pale, position + 0.2)):
            axes.barh(y, value, 0.36, color=color, edgecolor=MUTED, linewidth=0.5)
            # In a separate column, where no marker covers them.
            axes.text(1.055, y, f"{100 * value:.1f}", va="center", ha="right", fontsize=8)
    keys: list[Patch | Line2D] = [
        Patch(facecolor="#808080", edgecolor=MUTED, label="accuracy (upper, full color)"),
        Patch(facecolor="#c8c8c8", edgecolor=MUTED, label="F1 (lower, pale)"),
    ]
    if legend.names == EUROSAT.names:
        keys += _draw_paper(axes)
    axes.set_yticks(range(classes), legend.names)
    axes.set_ylim(classes - 0.45, -0.55)
    axes.set_xlim(0, 1.06)
    axes.set_xticks(np.linspace(0, 1, 11))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.legend(handles=keys, ncols=2, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.3)
    return figure


def _draw_paper(axes: Axes) -> list[Line2D]:
    """Marks the paper's results on the bars of EuroSAT's classes; returns the legend entries of the markers."""
    classes = np.arange(len(EUROSAT))
    focal: dict[str, Any] = {"marker": "D", "markersize": 5.5, "color": INK, "markeredgecolor": "white"}
    entropy: dict[str, Any] = {"marker": "o", "markersize": 5.5, "color": "white", "markeredgecolor": INK}
    axes.plot(paper.ENTROPY_ACCURACY, classes - 0.2, linestyle="none", **entropy)
    axes.plot(paper.ENTROPY_F1, classes + 0.2, linestyle="none", **entropy)
    axes.plot(paper.FOCAL_ACCURACY, classes - 0.2, linestyle="none", **focal)
    return [
        Line2D([], [], linestyle="none", label="paper, class focal loss (accuracy)", **focal),
        Line2D([], [], linestyle="none", label="paper, cross-entropy", **entropy),
    ]


def reliability_figure(metrics: Mapping[str, Any]) -> Figure:
    """Accuracy by confidence, and how many patches have that confidence, before and after temperature scaling.

    Args:
        metrics: From `geocfl.evaluation.metrics.compute_metrics`; there is only one panel if its ``uncalibrated``
            has no ``reliability``.
    """
    before = metrics.get("uncalibrated", {})
    panels = [("Expected calibration error {:.4f}", metrics)]
    if "reliability" in before:
        panels = [
            ("Before temperature scaling: ECE {:.4f}", before),
            ("After temperature scaling: ECE {:.4f}", metrics),
        ]
    figure = Figure(figsize=(0.8 + 4.6 * len(panels), 5.4), layout="constrained")
    grid = figure.subplots(2, len(panels), sharex=True, sharey="row", height_ratios=[3, 1], squeeze=False)
    most = max(b["count"] for _, part in panels for b in part["reliability"])
    for (upper, lower), (title, part) in zip(grid.T, panels, strict=True):
        _draw_reliability(upper, lower, part["reliability"])
        upper.set_title(title.format(part["ece"]))
    grid[0, 0].set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    grid[0, 0].yaxis.set_major_formatter(PercentFormatter(1))
    grid[1, 0].set(ylabel="patches", yscale=("symlog"), ylim=(0, 2 * max(1, most)))
    grid[1, 0].set_yticks([10**power for power in range(len(str(most)))])
    grid[1, 0].yaxis.set_major_formatter("{x:,.0f}")
    for lower in grid[1]:
        lower.set_xlabel("confidence")
        lower.xaxis.set_major_formatter(PercentFormatter(1))
        lower.minorticks_off()
    figure.legend(*grid[0, 0].get_legend_handles_labels(), ncols=3, loc="outside upper left", fontsize=8.5)
    return figure


def _draw_reliability(upper: Axes, lower: Axes, bins: Sequence[Mapping[str, float]]) -> None:
    width = 1 / len(bins)
    centers = (np.arange(len(bins)) + 0.5) * width
    filled = [b for b in bins if b["count"]]
    upper.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle="--", label="perfectly calibrated")
    upper.bar(centers, [b["accuracy"] for b in bins], width * 0.9, color=VALIDATION, label="accuracy of the bin")
    dots: dict[str, Any] = {"color": TRAINING, "markeredgecolor": "white", "markeredgewidth": 0.7, "clip_on": False}
    confidence, accuracy = [b["confidence"] for b in filled], [b["accuracy"] for b in filled]
    upper.plot(confidence, accuracy, "o", markersize=4.5, label="accuracy at mean confidence", **dots)
    lower.bar(centers, [b["count"] for b in bins], width * 0.9, color=MUTED)
    for axes in (upper, lower):
        axes.grid(axis="y")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)


def intervals_figure(
    panels: Sequence[tuple[str, Sequence[tuple[str, float, float]]]],
    titles: Sequence[str],
    columns: int,
    reference: str,
) -> Figure:
    """Means with their intervals as dots with error bars, in one panel per list.

    Args:
        panels: Title, and the name, mean and half width of each line, 0..1; a half width of NaN is no interval.
        titles: Titles of the rows of panels.
        columns: Panels in a row.
        reference: Name of the line with which the others are compared.
    """
    names = [name for name, _, _ in panels[0][1]]
    rows = len(titles)
    figure = Figure(figsize=(1.6 + 2.6 * columns, rows * (0.9 + 0.27 * len(names))), layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axes, (title, lines) in zip(grid.flat, panels, strict=True):
        axes.set_title(title, fontsize=9.5)
        for y, (name, mean, half) in enumerate(lines):
            color = TRAINING if name == reference else VALIDATION
            if name == reference:
                axes.axvline(mean, color=TRAINING, linewidth=0.8, linestyle=":", zorder=0)
            axes.errorbar(
                mean, y, xerr=np.nan_to_num(half), fmt="o", color=color, markersize=5, capsize=2.5, linewidth=1.4
            )
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    grid[0, 0].set_yticks(range(len(names)), names)
    grid[0, 0].set_ylim(len(names) - 0.4, -0.6)
    for axes, title in zip(grid[:, 0], titles, strict=True):
        axes.set_ylabel(title)
    return figure


def percent(share: float) -> str:
    """A share as a short percentage."""
    value = 100 * share
    return f"{value:.1f}%" if value >= 0.05 else "<0.1%"
