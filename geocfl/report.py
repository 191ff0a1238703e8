"""A run told to people: its figures, and one page that holds everything and needs nothing."""

from __future__ import annotations

import html
import json
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter

from geocfl.legend import Legend
from geocfl.model import Model

INK, MUTED, GRID = "#222222", "#6b7280", "#e5e7eb"
TRAINING, VALIDATION = "#e08e2b", "#1d4e9e"
# Text becomes paths, so that a figure looks the same everywhere; the salt makes its ids the same in every run.
STYLE: dict[Any, Any] = {
    "svg.fonttype": "path",
    "svg.hashsalt": "geocfl",
    "font.family": "DejaVu Sans",
    "font.size": 10,
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
"""Classes up to which a confusion matrix has its numbers written into it."""


def write_report(
    out: Path, model: Model, history: Sequence[Mapping[str, float]], result: Mapping[str, Mapping[str, Any]]
) -> None:
    """Writes ``figures/*.png``, ``figures/*.svg`` and the self-contained ``report.html`` of a run.

    The same run gives the same bytes: nothing in them depends on the clock.

    Args:
        out: Run folder; its ``config.json`` is quoted where there is one.
        model: The run's bundle.
        history: One row per epoch, as in ``history.csv``.
        result: Content of ``metrics.json``; the figures show its last split, which is the test.
    """
    split = list(result)[-1]
    with mpl.rc_context(STYLE):
        figures = {
            "convergence": convergence_figure(history),
            "per_class": per_class_figure(result[split], model.legend),
            "confusion": confusion_figure(result[split], model.legend),
        }
        if "reliability" in result[split]:
            figures["reliability"] = reliability_figure(result[split])
        folder = out / "figures"
        folder.mkdir(exist_ok=True)
        for name, figure in figures.items():
            FigureCanvasAgg(figure)
            figure.savefig(folder / f"{name}.png", dpi=150, metadata={"Software": None})
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})
    config = out / "config.json"
    settings = json.loads(config.read_text()) if config.is_file() else {}
    images = {name: (folder / f"{name}.svg").read_bytes() for name in figures}
    (out / "report.html").write_text(_page(model, settings, history, result, images), encoding="utf-8")


def convergence_figure(history: Sequence[Mapping[str, float]]) -> Figure:
    """Losses, and validation accuracy where there was validation, over the epochs."""
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
    # The root of the share keeps a few confusions in a hundred visible beside a full diagonal.
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
            text = f"{counts[row, column]:,}\n{_percent(part)}"
            color = "white" if part > 0.35 else INK
            axes.text(column, row, text, ha="center", va="center", fontsize=8, linespacing=1.3, color=color)
    bar = figure.colorbar(image, ax=axes, aspect=35, pad=0.03, ticks=[0, 0.01, 0.05, 0.1, 0.25, 0.5, 1])
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1))
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)
    return figure


def per_class_figure(metrics: Mapping[str, Any], legend: Legend) -> Figure:
    """Accuracy and F1 of every class as bars in its colour."""
    classes = len(legend)
    figure = Figure(figsize=(9, 1.3 + 0.48 * classes), layout="constrained")
    axes = figure.subplots()
    for position, (lulc, row) in enumerate(zip(legend, metrics["per_class"], strict=True)):
        pale = tuple(0.45 * part + 0.55 for part in to_rgb(lulc.color))
        axes.barh(position - 0.2, row["accuracy"], 0.36, color=lulc.color, edgecolor=MUTED, linewidth=0.5)
        axes.barh(position + 0.2, row["f1"], 0.36, color=pale, edgecolor=MUTED, linewidth=0.5)
        for value, y in ((row["accuracy"], position - 0.2), (row["f1"], position + 0.2)):
            axes.text(value + 0.006, y, f"{100 * value:.1f}", va="center", fontsize=8)
    axes.set_yticks(range(classes), legend.names)
    axes.set_ylim(classes - 0.45, -0.55)
    axes.set_xlim(0, 1.05)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    keys = [
        Patch(facecolor="#808080", edgecolor=MUTED, label="accuracy (upper, full colour)"),
        Patch(facecolor="#c8c8c8", edgecolor=MUTED, label="F1 (lower, pale)"),
    ]
    axes.legend(handles=keys, ncols=2, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.3)
    return figure


def reliability_figure(metrics: Mapping[str, Any]) -> Figure:
    """Accuracy by confidence, and how many patches have that confidence."""
    bins = metrics["reliability"]
    width = 1 / len(bins)
    figure = Figure(figsize=(5.6, 5.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    centres = (np.arange(len(bins)) + 0.5) * width
    counts = np.array([b["count"] for b in bins])
    upper.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle="--", label="perfectly calibrated")
    upper.bar(centres, [b["accuracy"] for b in bins], width * 0.9, color=VALIDATION, label="accuracy")
    filled = [b for b in bins if b["count"]]
    upper.plot(
        [b["confidence"] for b in filled],
        [b["accuracy"] for b in filled],
        "o",
        markersize=4.5,
        color=TRAINING,
        markeredgecolor="white",
        markeredgewidth=0.7,
        clip_on=False,
        label="at mean confidence",
    )
    upper.set_title(f"Expected calibration error {metrics['ece']:.4f}", pad=30)
    upper.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    upper.legend(ncols=3, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.3, columnspacing=1.2, fontsize=8.5)
    upper.yaxis.set_major_formatter(PercentFormatter(1))
    lower.bar(centres, counts, width * 0.9, color=MUTED)
    lower.set(xlabel="confidence", ylabel="patches")
    lower.set_yscale("symlog", linthresh=1)
    lower.set_ylim(0, 2 * max(1, counts.max()))
    lower.set_yticks([10**power for power in range(len(str(counts.max())))])
    lower.minorticks_off()
    lower.yaxis.set_major_formatter("{x:,.0f}")
    lower.xaxis.set_major_formatter(PercentFormatter(1))
    for axes in (upper, lower):
        _grid(axes)
    return figure


def _grid(axes: Axes) -> None:
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _percent(share: float) -> str:
    """A share in as few characters as tell it from 0 and 1."""
    value = 100 * share
    return f"{value:.1f}%" if value >= 0.05 else "<0.1%"


CAPTIONS = {
    "convergence": "Convergence: loss, and accuracy on the validation patches, over the epochs. "
    "The epoch with the best validation accuracy is kept.",
    "per_class": "Accuracy and F1 of every class.",
    "confusion": "Confusion matrix: patches, and their share of the true class.",
    "reliability": "Reliability: accuracy of the patches in each of the confidence bins. "
    "Bars on the dashed line mean that a confidence can be taken at its word.",
}

CSS = """
:root { --ink: #222; --muted: #6b7280; --line: #e5e7eb; --accent: #1d4e9e; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 2rem 1.5rem 4rem; color: var(--ink); background: #fff;
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .7rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); }
p { margin: .4rem 0; } .muted, figcaption { color: var(--muted); }
.cards { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.4rem 0 0; padding: 0; list-style: none; }
.cards li { flex: 1 1 9rem; padding: .7rem .9rem; border: 1px solid var(--line); border-radius: .5rem; }
.cards b { display: block; font-size: 1.5rem; line-height: 1.2; color: var(--accent); }
figure { margin: 1rem 0 1.8rem; } figure img { display: block; max-width: 100%; margin: 0 auto; }
figcaption { font-size: .9rem; margin-top: .4rem; text-align: center; }
table { border-collapse: collapse; width: 100%; font-size: .95rem; font-variant-numeric: tabular-nums; }
th, td { padding: .32rem .7rem; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; white-space: nowrap; } th { font-weight: 600; }
thead th { border-bottom: 2px solid var(--muted); vertical-align: bottom; }
tfoot td { font-weight: 600; border-bottom: 0; border-top: 2px solid var(--muted); }
table.facts td { text-align: left; vertical-align: top; overflow-wrap: anywhere; }
table.facts td:first-child { color: var(--muted); width: 14rem; }
.code { display: inline-block; min-width: 1.8em; }
.swatch { display: inline-block; width: .85em; height: .85em; margin-right: .5em; border-radius: .15em;
  border: 1px solid rgba(0, 0, 0, .25); vertical-align: -.05em;
  print-color-adjust: exact; -webkit-print-color-adjust: exact; }
@page { size: A4; margin: 16mm; }
@media print { html { font-size: 9pt; } body { max-width: none; padding: 0; } h2 { break-after: avoid; }
  figure, tr, .cards { break-inside: avoid; } figure img { max-height: 150mm; }
  .per_class img, .reliability img { max-height: 90mm; } }
"""


def _page(
    model: Model,
    settings: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
    result: Mapping[str, Mapping[str, Any]],
    images: Mapping[str, bytes],
) -> str:
    split, judged = list(result.items())[-1]
    cards = [
        (f"{judged['accuracy']:.2%}", f"accuracy on {judged['n']:,} {split} patches"),
        (f"{judged['macro_f1']:.4f}", "macro F1"),
        (f"{judged['ece']:.4f}", "expected calibration error"),
        (f"{judged['nll']:.4f}", "negative log-likelihood, nats"),
    ]
    origin = model.origin
    parts = [
        f"<h1>{_text(model.name)}</h1>",
        f"<p class='muted'>{_text(_summary(model))}</p>",
        "<ul class='cards'>" + "".join(f"<li><b>{value}</b>{_text(word)}</li>" for value, word in cards) + "</ul>",
        f"<h2>Classes ({_text(split)} patches)</h2>",
        _class_table(judged, model.legend),
        *(_figure(name, images[name]) for name in ("per_class", "confusion") if name in images),
        "<h2>Calibration</h2>",
        f"<p>Logits are divided by a temperature of {model.temperature:.4f}, fitted on the validation patches.</p>",
        _split_table(result),
        *(_figure(name, images[name]) for name in ("reliability",) if name in images),
        "<h2>Training</h2>",
        _figure("convergence", images["convergence"]),
        _epoch_table(history),
        "<h2>Settings</h2>" if settings else "",
        _facts(settings) if settings else "",
        "<h2>Model and provenance</h2>",
        _facts(
            {
                "bands": model.bands,
                "window": f"{model.window} px at {model.gsd:g} m, scaled to {model.input_size} px",
                "clip, reflectance": model.clip,
                "mean, reflectance": model.mean,
                "standard deviation": model.std,
                **{name: value for name, value in origin.items() if name not in ("metrics", *settings)},
            }
        ),
    ]
    return (
        "<!doctype html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>\n"
        f"<title>{_text(model.name)}: training report</title>\n<style>{CSS}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body>\n</html>\n"
    )


def _summary(model: Model) -> str:
    origin = model.origin
    patches = origin.get("patches", {})
    words = [
        model.backbone,
        f"{origin.get('loss', '')} loss".strip(),
        f"bands {', '.join(model.bands)}",
        f"{patches['train']:,} training patches" if "train" in patches else "",
        f"{origin['split']} split" if "split" in origin else "",
        f"seed {origin['seed']}" if "seed" in origin else "",
    ]
    return " · ".join(word for word in words if word)


def _class_table(metrics: Mapping[str, Any], legend: Legend) -> str:
    rows = [
        (
            f"<span class='swatch' style='background:{lulc.color}'></span>"
            f"<span class='code'>{lulc.code}</span>{_text(lulc.name)}",
            f"{row['correct']:,}",
            f"{row['count']:,}",
            f"{row['accuracy']:.4f}",
            f"{row['f1']:.4f}",
        )
        for lulc, row in zip(legend, metrics["per_class"], strict=True)
    ]
    correct = sum(row["correct"] for row in metrics["per_class"])
    total = f"{correct:,}", f"{metrics['n']:,}", f"{metrics['accuracy']:.4f}", f"{metrics['macro_f1']:.4f}"
    titles = ("Class", "True predictions", "Label count", "Accuracy", "F1")
    return _table(titles, rows, ("All (F1: mean of the classes)", *total))


def _split_table(result: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for name, part in result.items():
        before = part.get("uncalibrated", {})
        ece, nll = (f"{before[key]:.4f}" if key in before else "" for key in ("ece", "nll"))
        quality = f"{part['n']:,}", f"{part['accuracy']:.4f}", f"{part['macro_f1']:.4f}"
        rows.append((_text(name), *quality, ece, f"{part['ece']:.4f}", nll, f"{part['nll']:.4f}"))
    return _table(
        ("Split", "Patches", "Accuracy", "Macro F1", "ECE before", "ECE after", "NLL before", "NLL after"), rows
    )


def _epoch_table(history: Sequence[Mapping[str, float]]) -> str:
    rows = [
        (
            f"{row['epoch']:.0f}",
            f"{row['loss']:.4f}",
            *(f"{row[key]:.4f}" if key in row else "-" for key in ("validation_loss", "validation_accuracy")),
            f"{row['lr']:.2e}",
            f"{row['seconds']:,.0f}",
        )
        for row in history
    ]
    titles = ("Epoch", "Training loss", "Validation loss", "Validation accuracy", "Learning rate at its end", "Seconds")
    return _table(titles, rows)


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]], total: Sequence[str] = ()) -> str:
    """A table of cells that are HTML already."""
    head = "".join(f"<th scope='col'>{title}</th>" for title in titles)
    body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    foot = "<tfoot><tr>" + "".join(f"<td>{cell}</td>" for cell in total) + "</tr></tfoot>" if total else ""
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>{foot}\n</table>"


def _facts(facts: Mapping[str, Any]) -> str:
    rows = "\n".join(
        f"<tr><td>{_text(name.replace('_', ' '))}</td><td>{_text(_value(value))}</td></tr>"
        for name, value in facts.items()
    )
    return f"<table class='facts'><tbody>\n{rows}\n</tbody></table>"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_value(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_value(item) for item in value)
    if value is None or isinstance(value, bool):
        return {None: "by default", True: "yes", False: "no"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _figure(name: str, svg: bytes) -> str:
    # As an image, not as elements: the ids of several inline drawings would clash.
    data = b64encode(svg).decode()
    return (
        f"<figure class='{name}'><img src='data:image/svg+xml;base64,{data}' alt='{_text(CAPTIONS[name])}'>"
        f"<figcaption>{_text(CAPTIONS[name])}</figcaption></figure>"
    )


def _text(value: object) -> str:
    return html.escape(str(value))
