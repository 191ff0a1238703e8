"""Evaluation of a model on labeled patches: metrics, predictions, figures and a report."""

from __future__ import annotations

import csv
import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geocfl.core.keywords import declared
from geocfl.core.progress import Progress, silent
from geocfl.core.table import spreadsheet_text
from geocfl.data.load import load_patches, load_split
from geocfl.data.patches import Patches
from geocfl.data.splits import STATED, listed, train_share
from geocfl.errors import DataError, OutputError, UsageError, unknown_name
from geocfl.evaluation.logits import mosaic_logits, patch_logits
from geocfl.evaluation.metrics import MOSAICS, compute_metrics, describe_metrics, format_metrics, metrics_html
from geocfl.models.bundle import DEFAULT_MODEL, FACTS, Bundle, looks_like_model
from geocfl.models.devices import autocast, choose_device
from geocfl.models.network import load_network
from geocfl.models.predict import Model, load_model
from geocfl.models.reflectance import DenseReflectance

logger = logging.getLogger("geocfl")

SUBSETS = ("test", "validation", "train")
OUTPUTS = ("predictions.csv", "report.html", "metrics.json")


@dataclass(frozen=True, repr=False)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        path: Folder of its files.
        metrics: Content of ``metrics.json``: the metrics of one subset, under its name, such as ``test`` or
            ``test_mosaics``.
        model: The evaluated model.
    """

    path: Path
    metrics: dict[str, Any]
    model: Model

    def table(self) -> str:
        """The metrics as plain text."""
        return format_metrics(self._metrics())

    def __repr__(self) -> str:
        """One line: the metrics and the folder."""
        return f"<Evaluation of {self.model.name}: {describe_metrics(self._metrics())}; in {self.path}>"

    def _repr_html_(self) -> str:
        return metrics_html(self._metrics(), self.model.legend, repr(self)[1:-1])

    def _metrics(self) -> dict[str, Any]:
        metrics: dict[str, Any] = next(iter(self.metrics.values()))
        return metrics


@declared
def evaluate(
    model: str | Path = DEFAULT_MODEL,
    *,
    data: str | Path,
    out: str | Path,
    split: str | Path | None = None,
    subset: str = "test",
    mosaics: bool = False,
    seed: int | None = None,
    scale: float | None = None,
    offset: float | None = None,
    skip_bad: bool = False,
    tta: int | None = None,
    device: str = "auto",
    precision: str = "float32",
    batch_size: int | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Evaluation:
    """Evaluates a model on labeled patches; writes ``metrics.json``, ``predictions.csv``, figures and ``report.html``.

    Args:
        model: A model folder or the name of a built-in model.
        data: Patches in any layout that `geocfl.train` reads.
        out: Folder to write.
        split: ``paper``, ``spatial``, ``manifest`` or ``random:FRACTION``; ``all`` for every patch; or a text file of
            patch names, such as a run's ``test_patches.txt``. None takes the model's own split.
        subset: ``test``, ``validation`` or ``train``: which patches of the split.
        mosaics: Evaluate a dense model on patches inside random mosaics of 4 x 4, as it meets them in a scene, instead
            of each patch alone.
        seed: Random seed of a random split, 0..4294967295; None takes the model's own.
        scale: In reflectance = (DN + offset) / scale, > 0; None takes the layout's own.
        offset: In the same formula, in digital numbers; None takes the layout's own.
        skip_bad: Leave out patches that cannot be read or differ from the others.
        tta: Test-time augmentation: average over this many rotations and flips, 1, 2, 4 or 8;
            None takes the model's own.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        precision: ``float32``, ``bfloat16`` or ``float16``. Publish metrics in ``float32``.
        batch_size: Patches per batch; None takes a fast number for the device.
        overwrite: Replace an earlier evaluation in `out`.
        progress: Called with the progress of reading and of classifying.

    Returns:
        The metrics, and the folder of the files.

    Raises:
        GeocflError: A value is not valid, the data are broken, their classes or bands differ from the model's, or `out`
            is in use. Nothing is written then.
    """
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"`batch_size` is {batch_size} but must be at least 1")
    if seed is not None and seed not in range(2**32):
        raise UsageError(f"`seed` is {seed!r} but must be a whole number from 0 to 4294967295")
    if subset not in SUBSETS:
        raise UsageError(unknown_name("`subset`", subset, SUBSETS))
    _check_arguments(model, data)
    bundle, out = load_model(model).with_tta(tta), Path(out)
    if mosaics:
        _check_mosaics(bundle, batch_size)
    torch_device = choose_device(device)
    autocast(torch_device, precision)  # refuses an unknown precision before the patches are read
    _claim(out, overwrite)
    chosen = str(split or bundle.origin.get("split", "all"))
    random_seed = int(bundle.origin.get("seed", 0)) if seed is None else seed
    names_patches = _names_patches(chosen)
    patches = load_patches(
        data,
        bundle.bands,
        split="all" if names_patches else chosen,
        scale=scale,
        offset=offset,
        skip_bad=skip_bad,
        progress=progress,
        fewest_classes=1 if bundle.origin.get("add_classes") else 2,
    )
    patches = _checked(bundle, patches)
    if chosen == "all":
        subset, indices = "all", np.arange(len(patches))
    elif names_patches:
        subset, indices = Path(chosen).stem, listed(patches, Path(chosen))
    else:
        indices = getattr(load_split(patches, data, chosen, random_seed), subset)
    if names_patches:
        logger.warning("%s may have been trained on some of these patches", bundle.name)
    elif _may_know_labels(bundle, chosen, random_seed, subset, len(indices)):
        trained = bundle.origin.get("split"), bundle.origin.get("seed")
        logger.warning(
            "%s may have been trained on some of these patches: its own split is %s with seed %s", bundle.name, *trained
        )
    module = load_network(bundle).to(torch_device).to(memory_format=torch.channels_last)
    if mosaics and isinstance(module, DenseReflectance):
        subset += MOSAICS
        logits = mosaic_logits(module, patches, indices, progress=progress, precision=precision)
    else:
        logits = patch_logits(module, patches, indices, batch_size, progress, precision)
    labels = torch.from_numpy(patches.labels[indices])
    metrics = {subset: compute_metrics(logits, labels, bundle.legend, bundle.temperature, bundle.conformal)}
    _write(out, bundle, metrics, patches, indices, logits)
    return Evaluation(out, metrics, bundle)


def _check_arguments(model: str | Path, data: str | Path) -> None:
    """Refuses patches as the model, which are easily confused with it."""
    if looks_like_model(data) and not looks_like_model(model):
        raise UsageError(f"{data} is a model and {model} is not: swap them, the model first and the patches as `data`")
    if str(model).lower().endswith(".zip"):
        raise UsageError(f"{model} is not a model; pass patches as `data`, and a model folder first")


def _check_mosaics(model: Bundle, batch_size: int | None) -> None:
    """Refuses what cannot be evaluated inside mosaics."""
    if not model.feature_stride:
        raise UsageError(f"{model.name} is not a dense model, so it classifies each patch alone; leave out `mosaics`")
    if model.tta != 1:
        raise UsageError("mosaics are classified without test-time augmentation; pass `tta=1`, or leave out `mosaics`")
    if batch_size is not None:
        raise UsageError("mosaics are classified one at a time; leave out `batch_size` or `mosaics`")


def _claim(out: Path, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file; pass another folder as `out`")
    if (out / "config.json").exists() or (out / FACTS).exists():
        raise OutputError(f"{out}: contains a training run; pass another `out`")
    if any((out / name).exists() for name in OUTPUTS) and not overwrite:
        raise OutputError(
            f"{out}: already contains an evaluation; pass `overwrite=True` to replace it, or another `out`"
        )


def _names_patches(split: str) -> bool:
    """Whether a split is ``all`` or the file of a list, rather than the name of a split; checks the name."""
    path = Path(split)
    if split == "all" or path.is_file():
        return True
    if path.suffix == ".txt":
        raise UsageError(
            f"{split}: no such list of patches; pass a text file, or paper, spatial, manifest, random:FRACTION or all"
        )
    if split not in STATED:
        train_share(split)
    return False


def _checked(model: Bundle, patches: Patches) -> Patches:
    """The patches with the legend of a model; those of a model with added classes need not have all of its classes."""
    theirs, ours = ([lulc.folder for lulc in legend] for legend in (patches.legend, model.legend))
    added = bool(model.origin.get("add_classes"))
    if different := sorted(set(theirs) - set(ours) if added else set(theirs) ^ set(ours)):
        raise DataError(
            f"{patches.source}: its classes are not those of {model.name}, for example '{different[0]}'; "
            f"rename the folders to {', '.join(ours)}"
        )
    height, width = patches.pixels.shape[2:]
    if (height, width) != (model.window, model.window):
        raise DataError(
            f"{patches.source}: patches have {width} x {height} px, but {model.name} classifies windows of "
            f"{model.window} x {model.window} px; cut the patches again"
        )
    labels = np.array([ours.index(folder) for folder in theirs], np.int64)[patches.labels]
    return replace(patches, legend=model.legend, labels=labels)


def _may_know_labels(model: Bundle, split: str, seed: int, subset: str, patches: int) -> bool:
    """Whether a model may have been trained on these patches of a split."""
    origin = model.origin
    trained_on = ("train", "validation") if "refit_of" in origin else ("train",)
    same_split = origin.get("split") == split and (split in STATED or origin.get("seed") == seed)
    same_data = origin.get("patches", {}).get(subset) == patches
    return subset in trained_on or not same_split or not same_data


def _write(
    out: Path,
    model: Bundle,
    metrics: dict[str, Any],
    patches: Patches,
    indices: NDArray[np.int64],
    logits: torch.Tensor,
) -> None:
    from geocfl.evaluation.report import write_report  # imports matplotlib

    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "metrics.json").unlink(missing_ok=True)  # written last: it marks a finished evaluation
        _write_predictions(out / "predictions.csv", model, patches, indices, logits)
        write_report(out, model, metrics, patches=patches, indices=indices, logits=logits)
        (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror}); pass another `out`") from error


def _write_predictions(
    path: Path, model: Bundle, patches: Patches, indices: NDArray[np.int64], logits: torch.Tensor
) -> None:
    confidence, predicted = (logits.double() / model.temperature).softmax(1).max(1)
    names = [lulc.folder for lulc in model.legend]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["patch", "true_class", "predicted_class", "confidence"])
        for index, code, value in zip(indices, predicted.tolist(), confidence.tolist(), strict=True):
            texts = [patches.names[index], names[patches.labels[index]], names[code]]
            writer.writerow([*map(spreadsheet_text, texts), f"{value:.4f}"])
