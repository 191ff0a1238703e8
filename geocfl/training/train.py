"""Training: patches and settings in, one loop, a run folder out."""

from __future__ import annotations

import csv
import json
import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geocfl.core.progress import Progress, silent
from geocfl.core.radiometry import SENTINEL2, Scaling
from geocfl.data.eurosat import DEFAULT_ROOT, is_torchgeo_root, read_torchgeo
from geocfl.data.imbalance import thin
from geocfl.data.patches import Patches, read_patches
from geocfl.data.splits import Split, make_split, spatial_lists
from geocfl.errors import DataError, UsageError
from geocfl.evaluation.metrics import compute_metrics, describe_metrics, fit_temperature, format_metrics, metrics_html
from geocfl.losses import fit_tau, log_prior, loss_facts
from geocfl.models.bundle import Bundle
from geocfl.models.network import Reflectance, build_network, choose_device, load_network, with_reflectance
from geocfl.models.predict import Model, load_model
from geocfl.models.weights import load_weights
from geocfl.training.config import Settings, resolve
from geocfl.training.loop import Learner, fit, make_learner, predict
from geocfl.training.run_folder import begin, claim, discard, validated_run


@dataclass(frozen=True, repr=False)
class Run:
    """A finished training.

    Attributes:
        path: The run folder.
        model: Its bundle.
        metrics: The content of ``metrics.json``, by split.
    """

    path: Path
    model: Model
    metrics: dict[str, Any]

    def table(self) -> str:
        """The figures on the test patches as plain text."""
        return format_metrics(self.metrics["test"])

    def __repr__(self) -> str:
        """One line: how good it is, where it lies."""
        return f"<Run {self.model.name}: {describe_metrics(self.metrics['test'])}; in {self.path}>"

    def _repr_html_(self) -> str:
        return metrics_html(self.metrics["test"], self.model.legend, repr(self)[1:-1])


def train(
    data: str | Path,
    out: str | Path,
    *,
    config: str | Path | None = None,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
    **options: Any,
) -> Run:
    """Trains a scene classifier and writes its run folder.

    Args:
        data: ``EuroSAT.zip`` or its folder, torchgeo's EuroSAT root, ``eurosat`` (downloads it through torchgeo), or a
            folder (or zip) of class-named folders of patches. May be empty with `config`.
        out: Run folder to write: the bundle, ``metrics.json``, ``history.csv``, ``config.json``, figures and
            ``report.html``.
        config: ``config.json`` of an earlier run, to run it again; `data` and `options` go before it.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        resume: Go on with a killed run in `out`, from its last finished epoch.
        overwrite: Replace a run in `out`.
        progress: Told how far reading and each epoch are.
        **options: Fields of `Settings`.

    Returns:
        The run, its bundle and its metrics.

    Raises:
        GeocflError: Bad data, an unusable output folder, weights that cannot be had. Nothing is written, and nothing
            of an older run is lost, before training itself begins.
    """
    settings, out = resolve(str(data), config=config, **options), Path(out)
    resumed = claim(out, settings, resume, overwrite)
    validated = validated_run(settings)
    torch_device = choose_device(device)
    patches = load_patches(settings, progress)
    split = split_patches(patches, settings)
    model, module = start(settings, patches, split, out.name, torch_device)
    learner = make_learner(module, model, patches, split, settings, progress)
    checkpoint = out / "checkpoint.pt"
    if not resumed:
        begin(out, settings)
    try:
        history = fit(learner, patches, split, settings, checkpoint, progress)
    except BaseException:
        if not checkpoint.exists():  # nothing to go on from
            discard(out)
        raise

    model = calibrate(model, module, learner, patches, split, settings, validated)
    # What ships is what is judged: the bundle is read back, in half precision, before the test patches are touched.
    model = model.save(out, module.network.state_dict())
    shipped = load_network(model).to(torch_device).to(memory_format=torch.channels_last)
    parts = {"validation": split.validation, "test": split.test}
    logits = {name: predict(shipped, patches, part) for name, part in parts.items() if len(part)}
    labels = torch.from_numpy(patches.labels)
    result = {
        name: compute_metrics(rows, labels[parts[name]], model.legend, model.temperature)
        for name, rows in logits.items()
    }
    figures = {name: {key: result[name][key] for key in ("n", "accuracy", "macro_f1", "ece")} for name in result}
    model = replace(model, origin={**model.origin, "metrics": figures})
    if validated:
        model.origin["refit_of"] = {key: validated.origin.get(key) for key in ("patches", "metrics")}
    model.write_facts(out)
    _write_lines(out / "test_patches.txt", [patches.names[i] for i in split.test])
    if patches.skipped:
        _write_lines(out / "skipped_patches.txt", patches.skipped)
    with (out / "history.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(history[0]))
        writer.writeheader()
        writer.writerows(history)
    from geocfl.evaluation.report import write_report  # matplotlib, not needed before

    write_report(out, model, result, history=history, patches=patches, indices=split.test, logits=logits["test"])
    (out / "metrics.json").write_text(json.dumps(result, indent=2) + "\n")
    checkpoint.unlink()
    return Run(out, load_model(out), result)


def load_patches(settings: Settings, progress: Progress = silent) -> Patches:
    """The patches that settings name, whichever of the known layouts they lie in."""
    path, spatial = Path(settings.data), settings.split == "spatial"
    if settings.skip_bad and (settings.data == "eurosat" or is_torchgeo_root(path)):
        raise UsageError(f"{path}: torchgeo's EuroSAT has no bad patches to skip; download it again without --skip-bad")
    if settings.data == "eurosat":
        patches = read_torchgeo(DEFAULT_ROOT, settings.bands, spatial, download=True, progress=progress)
    elif is_torchgeo_root(path):
        patches = read_torchgeo(path, settings.bands, spatial, progress=progress)
    else:
        if spatial and path.exists():
            spatial_lists(_lists(settings))  # told before all patches are read
        patches = read_patches(path, settings.bands, skip_bad=settings.skip_bad, progress=progress)
    if settings.scale is None and settings.offset is None:
        return patches
    scale = SENTINEL2.scale if settings.scale is None else settings.scale
    return replace(patches, scaling=Scaling(scale, settings.offset or 0.0))


def _lists(settings: Settings) -> Path:
    """The folder of the spatial split's lists."""
    path = Path(settings.data)
    return DEFAULT_ROOT if settings.data == "eurosat" else path if path.is_dir() else path.parent


def split_patches(patches: Patches, settings: Settings) -> Split:
    """Which patches train, validate and test; the training patches thinned to the imbalance."""
    split = make_split(patches, settings.split, settings.seed, _lists(settings))
    if settings.refit:
        split = split.without_validation()
    return thin(patches, split, settings.imbalance, settings.seed, settings.class_order)


def start(
    settings: Settings, patches: Patches, split: Split, name: str, device: torch.device
) -> tuple[Bundle, Reflectance]:
    """The model and its network before the first step, with the starting weights.

    Raises:
        ModelError: The weights cannot be had or do not fit.
    """
    model = describe_model(settings, patches, split, name)
    torch.manual_seed(settings.seed)
    network = build_network(
        settings.backbone,
        len(settings.bands),
        len(patches.legend),
        settings.dropout,
        settings.stage_dropout,
        model.head,
    )
    load_weights(network, settings.backbone, settings.weights, settings.bands)
    module: Reflectance = with_reflectance(network, model).to(device).to(memory_format=torch.channels_last)
    return model, module


def calibrate(
    model: Bundle,
    module: Reflectance,
    learner: Learner,
    patches: Patches,
    split: Split,
    settings: Settings,
    validated: Bundle | None = None,
) -> Bundle:
    """The model with what is tuned on the validation patches: temperature, and tau where logits are adjusted.

    Args:
        model: The model as it was described.
        module: Its trained network. Where the loss is the post-hoc logit adjustment, the bias of the head is moved, so
            that the logits are the adjusted ones from here on.
        learner: What was trained.
        patches: The patches.
        split: Their split.
        settings: The run's.
        validated: The run whose temperature and tau hold, where this one has no validation patches.
    """
    labels, counts = torch.from_numpy(patches.labels), patches.counts(split.train)
    if loss_facts(settings.loss).posthoc:
        if validated:
            tau = float(validated.origin["tau"])
        else:
            tau = fit_tau(learner.logits(split.validation), labels[split.validation], counts)
        _adjust(module.head, -tau * log_prior(counts))
        model = replace(model, origin={**model.origin, "tau": tau})
    if validated:
        return replace(model, temperature=validated.temperature)
    temperature = fit_temperature(learner.logits(split.validation), labels[split.validation])
    return replace(model, temperature=temperature)


@torch.no_grad()
def _adjust(head: nn.Module, offset: Tensor) -> None:
    head.bias += offset.to(head.bias)  # type: ignore[operator, arg-type]


def describe_model(settings: Settings, patches: Patches, split: Split, name: str) -> Bundle:
    """The model that settings and patches will make, before it has weights: bands, normalisation, legend, origin."""
    clip = reflectance_range(patches)
    # Of all training patches, thinned or not: pixels, no labels, and one set of features for all imbalances.
    unthinned = split_patches(patches, replace(settings, imbalance="none")).train
    mean, std = band_statistics(patches, unthinned, clip)
    return Bundle(
        name=name,
        backbone=settings.backbone,
        bands=settings.bands,
        gsd=10.0,
        window=patches.pixels.shape[-1],
        input_size=settings.input_size,
        clip=clip,
        mean=mean,
        std=std,
        legend=patches.legend,
        head=loss_facts(settings.loss).head,
        origin={
            "data": patches.source,
            "split": settings.split,
            "patches": {"train": len(split.train), "validation": len(split.validation), "test": len(split.test)},
            "seed": settings.seed,
            "imbalance": settings.imbalance,
            "loss": settings.loss,
            "gamma": settings.gamma,
            "recipe": settings.recipe,
            "freeze": settings.freeze,
            "teacher": settings.teacher,
            "epochs": settings.epochs,
            "weights": settings.weights,
            "versions": {
                "geocfl": version("geocfl"),
                "python": platform.python_version(),
                **{package: version(package) for package in ("torch", "torchgeo", "timm")},
            },
            "licence": "MIT",
        },
    )


def reflectance_range(patches: Patches) -> tuple[float, float]:
    """0 to 1, or to where the patches' numbers end if that is less: EuroSAT's JPEGs saturate at 0.275."""
    if not np.issubdtype(patches.pixels.dtype, np.integer):
        return 0.0, 1.0
    largest = patches.scaling.to_reflectance(np.array(np.iinfo(patches.pixels.dtype.name).max))
    return 0.0, min(1.0, round(float(largest), 6))


def band_statistics(
    patches: Patches, indices: NDArray[np.int64], clip: tuple[float, float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each band's clipped reflectance over the patches at `indices`."""
    total = np.zeros((2, len(patches.bands)))
    for start in range(0, len(indices), 1024):
        x = patches.reflectance(indices[start : start + 1024]).clip(*clip).astype(np.float64)
        total += [x.sum((0, 2, 3)), (x**2).sum((0, 2, 3))]
    mean, square = total / (len(indices) * math.prod(patches.pixels.shape[2:]))
    if not np.isfinite(mean).all():
        raise DataError(f"{patches.source}: some pixels are no numbers; fill them or remove their patches")
    std = np.sqrt(np.maximum(square - mean**2, 1e-12))
    return tuple(mean.round(6).tolist()), tuple(std.round(6).tolist())


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))
