"""Evaluation of a model on labelled patches: figures, predictions and a report."""

from __future__ import annotations

import csv
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geocfl.core.progress import Progress, silent
from geocfl.data.patches import Patches
from geocfl.data.splits import listed
from geocfl.errors import DataError, OutputError, UsageError, unknown_name
from geocfl.evaluation.metrics import compute_metrics, describe_metrics, format_metrics, metrics_html
from geocfl.models.bundle import DEFAULT_MODEL, FACTS, Bundle
from geocfl.models.network import autocast, choose_device
from geocfl.models.predict import Model, load_model
from geocfl.training.config import Settings, resolve
from geocfl.training.loop import predict
from geocfl.training.train import load_patches, split_patches

logger = logging.getLogger("geocfl")

SUBSETS = ("test", "validation", "train")
OUTPUTS = ("predictions.csv", "report.html", "metrics.json")


@dataclass(frozen=True, repr=False)
class Evaluation:
    """What an evaluation found.

    Attributes:
        path: Folder of its outputs.
        metrics: Content of ``metrics.json``, by split.
        model: What was judged.
    """

    path: Path
    metrics: dict[str, Any]
    model: Model

    def table(self) -> str:
        """The figures as plain text."""
        return format_metrics(self._figures())

    def __repr__(self) -> str:
        """One line: how good the model is, where it is written."""
        return f"<Evaluation of {self.model.name}: {describe_metrics(self._figures())}; in {self.path}>"

    def _repr_html_(self) -> str:
        return metrics_html(self._figures(), self.model.legend, repr(self)[1:-1])

    def _figures(self) -> dict[str, Any]:
        figures: dict[str, Any] = next(iter(self.metrics.values()))
        return figures


def evaluate(
    model: str | Path = DEFAULT_MODEL,
    *,
    data: str | Path,
    out: str | Path,
    split: str = "",
    subset: str = "test",
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
    """Judges a model on labelled patches and writes ``metrics.json``, ``predictions.csv``, figures and ``report.html``.

    Args:
        model: A bundle's folder or the name of a bundled model.
        data: Patches, in any layout that `geocfl.train` reads.
        out: Folder to write.
        split: ``paper``, ``spatial`` or ``random:FRACTION``; ``all`` for every patch; or a text file of patch names,
            such as a run's ``test_patches.txt``. The model's own split by default.
        subset: ``test``, ``validation`` or ``train``: which patches of the split.
        seed: Of a random split; the model's own by default.
        scale: In reflectance = (DN + offset) / scale; the layout's own by default.
        offset: Likewise.
        skip_bad: Leave out patches that cannot be read or are unlike the others.
        tta: Test-time augmentation: average over so many rotations and flips, one of `geocfl.models.bundle.TTA`; the
            model's own by default.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        precision: ``float32``, ``bfloat16`` or ``float16``; metrics to publish are those of ``float32``.
        batch_size: Patches at a time; what is fast on the device by default.
        overwrite: Replace an earlier evaluation in `out`.
        progress: Told how many patches are read, and how many are classified.

    Raises:
        GeocflError: Bad data, classes or bands that differ from the model's, an `out` that is in use. Nothing is
            written then.
    """
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"--batch-size {batch_size} is below 1")
    bundle, out = load_model(model).with_tta(tta), Path(out)
    torch_device = choose_device(device)
    autocast(torch_device, precision)  # refuses an unknown one before the patches are read
    _claim(out, overwrite)
    split = split or str(bundle.origin.get("split", "all"))
    seed = int(bundle.origin.get("seed", 0)) if seed is None else seed
    listing = Path(split)
    in_parts = split != "all" and not listing.is_file()
    if in_parts and listing.suffix == ".txt":
        raise UsageError(
            f"{split}: no such list of patches; pass a text file, or paper, spatial, random:FRACTION or all"
        )
    if subset not in SUBSETS:
        raise UsageError(unknown_name("`subset`", subset, SUBSETS))
    settings = resolve(
        str(data),
        split=split if in_parts else None,
        seed=seed,
        bands=bundle.bands,
        scale=scale,
        offset=offset,
        skip_bad=skip_bad,
    )
    patches = load_patches(settings, progress)
    _check(bundle, patches)
    if in_parts:
        indices = getattr(split_patches(patches, settings), subset)
        _warn_of_known_labels(bundle, settings, subset, len(indices))
    else:
        indices, subset = (
            (np.arange(len(patches)), "all") if split == "all" else (listed(patches, listing), listing.stem)
        )
        logger.warning("whether %s was trained on some of these patches cannot be told from here", bundle.name)
    module = bundle.network().to(torch_device).to(memory_format=torch.channels_last)
    logits = predict(module, patches, indices, batch_size, progress, precision)
    result = {
        subset: compute_metrics(logits, torch.from_numpy(patches.labels[indices]), bundle.legend, bundle.temperature)
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "metrics.json").unlink(missing_ok=True)  # written last: a killed evaluation must not look finished
        _write_predictions(out / "predictions.csv", bundle, patches, indices, logits)
        from geocfl.evaluation.report import write_report  # matplotlib, not needed before

        write_report(out, bundle, result, patches=patches, indices=indices, logits=logits)
        (out / "metrics.json").write_text(json.dumps(result, indent=2) + "\n")
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror}); pass another --out") from error
    return Evaluation(out, result, bundle)


def _claim(out: Path, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file; pass another folder as --out")
    if (out / "config.json").exists() or (out / FACTS).exists():
        raise OutputError(f"{out}: holds a training run; pass another --out")
    if any((out / name).exists() for name in OUTPUTS) and not overwrite:
        raise OutputError(f"{out}: already holds an evaluation; pass --overwrite to replace it, or another --out")


def _check(model: Bundle, patches: Patches) -> None:
    theirs, ours = ([lulc.folder for lulc in legend] for legend in (patches.legend, model.legend))
    if theirs != ours:
        odd = sorted(set(theirs) ^ set(ours)) or theirs
        raise DataError(
            f"{patches.source}: its classes are not those of {model.name}, for one '{odd[0]}'; "
            f"make the folders {', '.join(ours)}"
        )
    height, width = patches.pixels.shape[2:]
    if (height, width) != (model.window, model.window):
        raise DataError(
            f"{patches.source}: patches of {width} x {height} px, but {model.name} judges windows of {model.window} x "
            f"{model.window} px; cut the patches anew"
        )


def _warn_of_known_labels(model: Bundle, settings: Settings, subset: str, patches: int) -> None:
    known = {"train"} if "refit_of" not in model.origin else {"train", "validation"}
    same = model.origin.get("split") == settings.split and (
        settings.split == "spatial" or model.origin.get("seed") == settings.seed
    )
    same = same and model.origin.get("patches", {}).get(subset) == patches  # else it is another data set
    if subset in known or not same:
        logger.warning(
            "%s was trained on split %s, seed %s; it may have learned the labels of these patches",
            model.name,
            model.origin.get("split"),
            model.origin.get("seed"),
        )


def _write_predictions(
    path: Path, model: Bundle, patches: Patches, indices: NDArray[np.int64], logits: torch.Tensor
) -> None:
    confidence, predicted = (logits.double() / model.temperature).softmax(1).max(1)
    names = [lulc.folder for lulc in model.legend]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["patch", "true_class", "predicted_class", "confidence"])
        for index, code, sure in zip(indices, predicted.tolist(), confidence.tolist(), strict=True):
            writer.writerow([patches.names[index], names[patches.labels[index]], names[code], f"{sure:.4f}"])
