"""The report of a training or evaluation: figures, and one self-contained HTML page."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from geocfl.core.legend import EUROSAT, Legend
from geocfl.data.patches import Patches
from geocfl.evaluation import page, paper
from geocfl.evaluation.metrics import MOSAICS, accuracy_interval, describe_subset, subset_title, worst_class
from geocfl.evaluation.patch_plots import (
    MAX_ERRORS,
    MAX_ERRORS_PER_PAIR,
    SAMPLED_CLASSES,
    SAMPLES,
    errors_figure,
    samples_figure,
)
from geocfl.evaluation.plots import (
    STYLE,
    confusion_figure,
    convergence_figure,
    per_class_figure,
    reliability_figure,
    save_figure,
)
from geocfl.models.bundle import Bundle

PATCH_FIGURES = ("gallery", "samples")
"""Figures with patches, which the page has as PNG; the others are SVG."""


def write_report(
    out: Path,
    model: Bundle,
    result: Mapping[str, Mapping[str, Any]],
    *,
    history: Sequence[Mapping[str, float]] = (),
    patches: Patches,
    indices: NDArray[np.int64],
    logits: Tensor,
) -> None:
    """Writes ``figures/*.png``, ``figures/*.svg`` and the self-contained ``report.html`` of a training or evaluation.

    The same run gives the same bytes: nothing in them depends on the clock.

    Args:
        out: Folder; the report shows the settings of a ``config.json`` in it.
        model: The evaluated model.
        result: Content of ``metrics.json``, by subset, see `geocfl.evaluation.metrics.compute_metrics`; the figures
            show the test patches, each alone, or the only subset.
        history: One row per epoch, as in ``history.csv``; empty for an evaluation.
        patches: The data set, with labels in the order of the model's legend.
        indices: (n,) indices of the patches that the figures show.
        logits: (n, C) of these patches, not divided by the temperature.
    """
    metrics = result[_shown(result)]
    probabilities = (logits.double() / model.temperature).softmax(1).numpy()
    with mpl.rc_context(STYLE):
        figures: dict[str, Figure | None] = {
            "convergence": convergence_figure(history) if history else None,
            "per_class": per_class_figure(metrics, model.legend),
            "confusion": confusion_figure(metrics, model.legend),
            "reliability": reliability_figure(metrics),
            "gallery": errors_figure(patches, indices, probabilities, model.legend, model.clip[1]),
            "samples": samples_figure(patches, indices, model.legend, model.clip[1]),
        }
        drawn = {name: figure for name, figure in figures.items() if figure}
        for name, figure in drawn.items():
            save_figure(figure, out / "figures", name)
    config = out / "config.json"
    settings = json.loads(config.read_text()) if config.is_file() else {}
    images = {name: _image(out / "figures", name) for name in drawn}
    (out / "report.html").write_text(_page(model, settings, history, result, images), encoding="utf-8")


def _shown(result: Mapping[str, Mapping[str, Any]]) -> str:
    """The subset that the figures show."""
    return "test" if "test" in result else next(iter(result))


def _image(folder: Path, name: str) -> str:
    """A figure as a data URI; inline SVG elements would have clashing ids."""
    suffix, kind = ("png", "png") if name in PATCH_FIGURES else ("svg", "svg+xml")
    return f"data:image/{kind};base64,{b64encode((folder / f'{name}.{suffix}').read_bytes()).decode()}"


def _page(
    model: Bundle,
    settings: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
    result: Mapping[str, Mapping[str, Any]],
    images: Mapping[str, str],
) -> str:
    split = _shown(result)
    metrics = result[split]
    patches = describe_subset(split, metrics["n"])
    captions = _captions(model, split, metrics, validated=all("validation_accuracy" in row for row in history))

    def figure(name: str) -> str:
        return page.figure(name, images[name], captions[name]) if name in images else ""

    parts = [
        f"<h1>{page.text(model.name)}</h1>",
        f"<p class='muted'>{page.text(_summary(model))}</p>",
        _cards(split, result),
        page.section(f"Classes ({patches})", _class_table(metrics, model.legend), figure("per_class")),
        page.section("Confusion matrix", figure("confusion")),
        page.section("Misclassified patches", figure("gallery") or "<p>No patch was misclassified.</p>"),
        page.section(
            "Calibration", f"<p>{page.text(_temperature(model))}</p>", _calibration_table(result), figure("reliability")
        ),
        page.section("Sample patches", figure("samples")),
        page.section("Training", figure("convergence"), _epoch_table(history)) if history else "",
        page.section("Settings", page.facts(settings)) if settings else "",
        page.section("Model and provenance", page.facts(_provenance(model, settings))),
    ]
    title = f"{model.name}: {'training' if history else 'evaluation'} report"
    return page.document(title, parts)


def _cards(split: str, result: Mapping[str, Mapping[str, Any]]) -> str:
    metrics, inside = result[split], result.get(split + MOSAICS)
    worst = worst_class(metrics)
    cards = [
        (f"{metrics['accuracy']:.2%}", f"accuracy on {describe_subset(split, metrics['n'])}"),
        (f"{metrics['balanced_accuracy']:.2%}", "balanced accuracy"),
        (f"{metrics['worst_class_recall']:.2%}", f"lowest class accuracy ({worst['name']})"),
        (f"{metrics['macro_f1']:.4f}", "macro F1"),
        (f"{metrics['ece']:.4f}", "expected calibration error"),
        (f"{metrics['brier']:.4f}", "Brier score (0 to 2)"),
    ]
    if inside:
        cards.insert(1, (f"{inside['accuracy']:.2%}", f"accuracy on {describe_subset(split + MOSAICS, inside['n'])}"))
    return page.cards(cards)


def _captions(model: Bundle, split: str, metrics: Mapping[str, Any], *, validated: bool) -> dict[str, str]:
    """The captions of the figures, which are also their alternative texts."""
    errors = metrics["n"] - sum(row["correct"] for row in metrics["per_class"])
    shown = describe_subset(split, metrics["n"])
    per_class = "Accuracy and F1 of every class, in percent."
    if model.legend.names == EUROSAT.names:
        own = f"; this model's split is '{model.origin['split']}'" if "split" in model.origin else ""
        per_class += (
            f" Markers: results of the paper, {paper.FOCAL_TOTAL:.2%} over all patches with class focal loss and "
            f"{paper.ENTROPY_TOTAL:.2%} with cross-entropy. The paper trains on half of each class and tests on the "
            f"other half, at random{own}. Compare only results with the same split."
        )
    reliability = "Reliability: accuracy and number of the patches in each confidence bin."
    whose = "each class" if len(model.legend) <= SAMPLED_CLASSES else f"each of the first {SAMPLED_CLASSES} classes"
    kept = "accuracy on the validation patches, over the epochs. The epoch with the best validation accuracy is kept."
    return {
        "per_class": per_class,
        "confusion": "Confusion matrix: number of patches, and their share of the true class.",
        "gallery": f"The most confident of the {errors:,} errors on {shown} (at most {MAX_ERRORS}, "
        f"and at most {MAX_ERRORS_PER_PAIR} with the same true and predicted class).",
        "reliability": f"{reliability} Where bars reach the dashed line, confidence equals accuracy.",
        "samples": f"Up to {SAMPLES} patches of {whose}, drawn at random from {shown}.",
        "convergence": f"Convergence: loss, and {kept}" if validated else "Convergence: loss over the epochs.",
    }


def _temperature(model: Bundle) -> str:
    """Where the temperature comes from, if the model states it."""
    sentence = f"Logits are divided by a temperature of {model.temperature:.4f}"
    if model.damping:
        sentence += f" times max(1, novelty / median novelty) to the power {model.damping:.4f}"
    if "refit_of" in model.origin:
        return (
            f"{sentence}, fitted on the validation patches of the first run; this model was then trained again with "
            "these patches among its training patches."
        )
    if "cross_validation" in model.origin:
        kept = " This model keeps it at 1 where a fitted one is no better." if model.temperature == 1 else ""
        return f"{sentence}, fitted on the held-out patches of a cross-validation.{kept}"
    if model.origin.get("patches", {}).get("validation"):
        return f"{sentence}, fitted on the validation patches of its training."
    return f"{sentence}, which comes with the model."


def _provenance(model: Bundle, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "bands": model.bands,
        "window": f"{model.window} px at {model.gsd:g} m, scaled to {model.input_size} px",
        "clip, reflectance": model.clip,
        "mean, reflectance": model.mean,
        "standard deviation": model.std,
        **{name: value for name, value in model.origin.items() if name not in ("metrics", *settings)},
    }


def _summary(model: Bundle) -> str:
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
    calibrated = all("ece" in row for row in metrics["per_class"])
    rows = [
        (
            f"{page.swatch(lulc.color)}<span class='code'>{lulc.code}</span>{page.text(lulc.name)}",
            f"{row['correct']:,}",
            f"{row['count']:,}",
            f"{row['accuracy']:.4f}",
            accuracy_interval(row["correct"], row["count"]),
            f"{row['f1']:.4f}",
            *([f"{row['ece']:.4f}"] if calibrated else []),
        )
        for lulc, row in zip(legend, metrics["per_class"], strict=True)
    ]
    correct = sum(row["correct"] for row in metrics["per_class"])
    total = (
        f"{correct:,}",
        f"{metrics['n']:,}",
        f"{metrics['accuracy']:.4f}",
        accuracy_interval(correct, metrics["n"]),
        f"{metrics['macro_f1']:.4f}",
        *([f"{metrics['ece']:.4f}"] if calibrated else []),
    )
    titles = ("Class", "True predictions", "Label count", "Accuracy", "95% interval, %", "F1", *["ECE"] * calibrated)
    return page.table(titles, rows, ("All (F1: mean of the classes)", *total))


def _calibration_table(result: Mapping[str, Mapping[str, Any]]) -> str:
    """One row per split; separate columns before and after calibration only if a split has both."""
    names = {"ece": "ECE", "nll": "NLL", "brier": "Brier score"}
    scaled = any("uncalibrated" in part for part in result.values())
    titles = ["Split", "Patches", "Accuracy"]
    for name in names.values():
        titles += [f"{name} before", f"{name} after"] if scaled else [name]
    rows = []
    for split, part in result.items():
        row = [page.text(subset_title(split)), f"{part['n']:,}", f"{part['accuracy']:.4f}"]
        before = part.get("uncalibrated", {})
        for key in names:
            if scaled:
                row.append(f"{before[key]:.4f}" if key in before else "-")
            row.append(f"{part[key]:.4f}")
        rows.append(row)
    words = "ECE: expected calibration error; NLL: negative log-likelihood, nats; Brier score: from 0 (best) to 2."
    when = " Before and after temperature scaling." if scaled else ""
    return f"<p class='muted'>{words}{when}</p>\n{page.table(titles, rows)}"


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
    titles = ("Epoch", "Training loss", "Validation loss", "Validation accuracy", "Final learning rate", "Seconds")
    return page.table(titles, rows)
