"""A last layer on the features of a finished model: a model of one's own in minutes, also from few patches."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geocfl.core.legend import Legend
from geocfl.core.progress import Progress
from geocfl.data.blocks import Folds, make_folds, patch_blocks
from geocfl.data.patches import Patches
from geocfl.data.splits import Split
from geocfl.errors import DataError, UsageError
from geocfl.evaluation.metrics import MOSAICS, accuracy_interval, compute_metrics
from geocfl.losses import make_loss
from geocfl.models.backbones import build_network, layer_names
from geocfl.models.bundle import DEFAULT_MODEL, NOVELTY, WEIGHTS, Bundle
from geocfl.models.network import load_network, read_weights
from geocfl.models.novelty import Residual
from geocfl.models.reflectance import DenseReflectance
from geocfl.models.stored import FEATURES, StoredFeatures, read_stored
from geocfl.training.config import TrainSettings
from geocfl.training.features import read_features, views_of
from geocfl.training.head import Head, Rows, cross_validate, fit_head
from geocfl.training.start import run_facts
from geocfl.training.tuning import HeldOut, tune
from geocfl.training.unseen import check_unseen_trunk, trunk_origin

log = logging.getLogger("geocfl")

FEW = 20
"""Patches of a class below which its accuracy is hardly known."""
LEAST_FOR_SETS = 9
"""Patches of a class below which its threshold for prediction sets is 1."""
STORED = 150
"""Patches of each class whose features are stored at most."""


@dataclass(frozen=True)
class Frozen:
    """A last layer trained on the features of a model, before it is written.

    Attributes:
        model: The model.
        tensors: Content of its weights file.
        metrics: Metrics of the cross-validation, as those of a subset in ``metrics.json``; for a dense model also those
            inside mosaics, under "_mosaics".
        logits: (n, C) logits of the cross-validation.
        history: One row per iteration of the fit.
        stored: Features to store beside the model.
    """

    model: Bundle
    tensors: dict[str, Tensor]
    metrics: dict[str, dict[str, Any]]
    logits: Tensor
    history: list[dict[str, float]]
    stored: StoredFeatures


def extend_legend(source: Bundle, patches: Patches) -> Patches:
    """The patches with the classes of a model, followed by their own new classes.

    Raises:
        DataError: They have no new class, or one of the same name as another.
    """
    folders = [c.folder for c in patches.legend]
    try:
        legend = source.legend.extended(folders)
    except ValueError as error:
        raise DataError(f"{patches.source}: {error}; rename one of them") from error
    if len(legend) == len(source.legend):
        raise DataError(
            f"{patches.source}: all of its classes are classes of {source.name}; leave out `add_classes`, or add "
            "patches of a new class"
        )
    code_of = {c.folder: c.code for c in legend}
    labels = np.array([code_of[folder] - 1 for folder in folders], np.int64)[patches.labels]
    return replace(patches, legend=legend, labels=labels)


def train_frozen(
    settings: TrainSettings,
    source: Bundle,
    patches: Patches,
    split: Split,
    name: str,
    device: torch.device,
    progress: Progress,
) -> Frozen:
    """Fits a last layer to the features of a model, and tests it by cross-validation.

    Args:
        settings: Those of the run.
        source: The model whose features are used.
        patches: The data set, with the legend of the new model.
        split: Its split; training and validation patches are both used.
        name: Name of the new model.
        device: Where the features are computed.
        progress: Called with the progress of the features and of the cross-validation.

    Raises:
        GeocflError: The patches do not fit the model, or are too few.
    """
    used = split.without_validation().train
    stored = _stored_classes(settings, source, patches, used)
    _check_patches(source, patches, used, stored)
    model = _describe(settings, source, patches, split, name)
    check_unseen_trunk(source, patches, settings.split)
    module = load_network(source).to(device).to(memory_format=torch.channels_last)
    views = views_of(module)
    log.info(
        "features of %s patches by %s, then a last layer of %d classes",
        f"{len(patches):,}",
        source.name,
        len(model.legend),
    )
    chosen = torch.from_numpy(used)
    features = [read_features(module, patches, progress=progress, view=view)[chosen] for view in views]
    folds = make_folds(patches, used, _blocks(settings, patches), settings.seed)
    _describe_few(model.legend, patches.counts(used), folds)
    rows = _rows(features, torch.from_numpy(patches.labels[used]), folds, stored, settings)
    counts = [1] * len(model.legend) if rows.balanced else patches.counts(used)
    criterion = make_loss(settings.loss, counts, settings.gamma, settings.cfl_form)
    penalty, held_out = cross_validate(rows, len(model.legend), criterion, settings.epochs, progress)
    head = fit_head(rows, len(model.legend), criterion, penalty, settings.epochs)

    count, inside = len(used), 1 if isinstance(module, DenseReflectance) else 0
    seen = slice(inside * count, (inside + 1) * count), slice(len(views) * count, len(rows.labels))
    held = HeldOut(
        features=torch.cat([rows.features[part] for part in seen]),
        logits=torch.cat([held_out[part] for part in seen]),
        labels=torch.cat([rows.labels[part] for part in seen]),
        folds=np.concatenate([rows.folds[part] for part in seen]),
        own=count,
    )
    model, tuned = tune(model, source, module.cpu(), held, kept=stored is not None)
    metrics = {}
    for end, view in ((MOSAICS, inside), ("", 0)) if inside else (("", 0),):
        logits = tuned.damp(held_out[view * count : (view + 1) * count], tuned.residuals[:count])
        metrics[end] = compute_metrics(logits, held.labels[:count], model.legend, model.temperature, model.conformal)
    _describe_result(metrics, folds)
    return Frozen(
        replace(model, origin={**model.origin, "penalty": penalty, "cross_validation": folds.words}),
        _tensors(source, head, tuned.residual),
        dict(reversed(metrics.items())),
        logits,
        [{"epoch": n, "loss": loss, "lr": 1.0, "seconds": 0.0} for n, loss in enumerate(head.losses, start=1)],
        _to_store(rows, len(views), count, settings.seed),
    )


def _stored_classes(
    settings: TrainSettings, source: Bundle, patches: Patches, used: NDArray[np.int64]
) -> StoredFeatures | None:
    """The stored features of the classes that are kept; None if none are kept, or the patches have all of them.

    Raises:
        UsageError: The model has no stored features, and the patches lack one of its classes.
    """
    if not settings.add_classes or (stored := read_stored(source)):
        return stored if settings.add_classes else None
    counts = patches.counts(used)[: len(source.legend)]
    if absent := [c.folder for c, count in zip(source.legend, counts, strict=True) if not count]:
        more = f" and {len(absent) - 1} more of its classes" if len(absent) > 1 else ""
        raise UsageError(
            f"{source.name} has no stored features ({FEATURES}), and {patches.source} has no patches of '{absent[0]}'"
            f"{more}; add patches of them, or pass `weights` with stored features, such as {DEFAULT_MODEL}",
            page="how-to/own-model/",
        )
    return None


def _check_patches(source: Bundle, patches: Patches, used: NDArray[np.int64], stored: StoredFeatures | None) -> None:
    height, width = patches.pixels.shape[2:]
    if (height, width) != (source.window, source.window):
        raise DataError(
            f"{patches.source}: patches have {width} x {height} px, but {source.name} classifies windows of "
            f"{source.window} x {source.window} px; cut the patches again"
        )
    kept = len(source.legend) if stored else 0
    for lulc, count in zip(patches.legend, patches.counts(used), strict=True):
        if count < 2 and lulc.code > kept:
            some = "1 training patch" if count else "no training patches"
            raise DataError(
                f"{patches.source}: class '{lulc.folder}' has {some}, too few to train and to test; add patches or "
                "remove the class",
                page="how-to/own-model/",
            )


def _describe(settings: TrainSettings, source: Bundle, patches: Patches, split: Split, name: str) -> Bundle:
    """The new model, before it is tuned."""
    used = len(split.train) + len(split.validation)
    counts = {"train": used, "validation": used, "test": len(split.test) or used}
    facts = run_facts(settings, patches, split) | {"patches": counts, "add_classes": settings.add_classes}
    trunk = {key: value for key, value in trunk_origin(source).items() if key in ("data", "split", "seed", "patches")}
    legend = patches.legend
    return replace(
        source,
        name=name,
        legend=legend,
        head="linear",
        origin=facts | {"trunk": trunk},
        conformal=(),
        correlation=1.0,
        path=None,
    )


def _blocks(settings: TrainSettings, patches: Patches) -> NDArray[np.int64] | None:
    """The blocks of the patches; None if they are not known."""
    data = Path(settings.data)
    return patch_blocks(data, patches) if data.exists() else None


def _rows(
    features: Sequence[Tensor], labels: Tensor, folds: Folds, stored: StoredFeatures | None, settings: TrainSettings
) -> Rows:
    """The rows of all views of the patches, one view after the other, and then those of stored features."""
    parts, classes, held = [*features], [labels] * len(features), [folds.of] * len(features)
    if stored:
        rng = np.random.default_rng(settings.seed)
        parts.append(stored.features)
        classes.append(stored.labels)
        held.append(rng.permutation(len(stored.labels)) % (int(folds.of.max()) + 1))
    return Rows(torch.cat(parts), torch.cat(classes), np.concatenate(held), balanced=settings.add_classes)


def _tensors(source: Bundle, head: Head, residual: Residual | None) -> dict[str, Tensor]:
    """The weights of a model with another last layer; all others stay as they are."""
    weights = read_weights(source.folder / WEIGHTS)
    network = build_network(source.backbone, len(source.bands), len(head.bias))
    last = layer_names(network, source.backbone)[1]
    body = {name: value for name, value in weights.items() if not name.startswith((NOVELTY, f"{last}."))}
    novelty = {f"{NOVELTY}{name}": value for name, value in residual.named_buffers()} if residual else {}
    return {**body, f"{last}.weight": head.weight, f"{last}.bias": head.bias, **novelty}


def _to_store(rows: Rows, views: int, count: int, seed: int) -> StoredFeatures:
    """Features to store: at most `STORED` of each class, each patch in one of its views."""
    own = np.arange(count) + count * (np.arange(count) % views)
    candidates = np.concatenate([own, np.arange(views * count, len(rows.labels))])
    order = np.random.default_rng(seed).permutation(candidates)
    labels = rows.labels.numpy()
    chosen = np.sort(np.concatenate([order[labels[order] == c][:STORED] for c in np.unique(labels)]))
    return StoredFeatures(rows.features[chosen], rows.labels[chosen])


def _describe_few(legend: Legend, counts: Sequence[int], folds: Folds) -> None:
    """Warns of classes with few patches, and of those in a single block."""
    few = [f"{c.name} {count}" for c, count in zip(legend, counts, strict=True) if 0 < count < FEW]
    if few:
        log.warning("few patches (%s): their accuracy is hardly known, see the 95%% intervals", ", ".join(few))
    scarce = [c.name for c, count in zip(legend, counts, strict=True) if 0 < count < LEAST_FOR_SETS]
    if scarce:
        log.warning(
            "fewer than %d patches of %s: such a class is in every prediction set", LEAST_FOR_SETS, ", ".join(scarce)
        )
    if folds.confined:
        log.warning(
            "all patches of %s lie in one block: their accuracy is not tested at another place",
            ", ".join(legend[code].name for code in folds.confined),
        )


def _describe_result(metrics: dict[str, dict[str, Any]], folds: Folds) -> None:
    shown = metrics[""]
    correct = sum(row["correct"] for row in shown["per_class"])
    interval = accuracy_interval(correct, shown["n"])
    log.info("accuracy %.1f%% (95%% interval %s) by %s", 100 * shown["accuracy"], interval, folds.words)
