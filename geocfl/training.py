"""Training: patches and settings in, one loop, a run folder out."""

from __future__ import annotations

import csv
import json
import math
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from geocfl.activations import read_activations
from geocfl.data.eurosat import DEFAULT_ROOT, is_torchgeo_root, read_torchgeo
from geocfl.data.imbalance import thin
from geocfl.data.patches import Patches, read_patches
from geocfl.data.splits import Split, make_split
from geocfl.errors import DataError, OutputError
from geocfl.evaluation import fit_temperature, format_metrics, judge
from geocfl.losses import fit_tau, log_prior, loss_facts, make_loss
from geocfl.model import Model, load_model
from geocfl.network import Reflectance, build_network, choose_device, fast_batch_size, has_fast_bfloat16, load_weights
from geocfl.objective import Objective, load_teacher
from geocfl.radiometry import SENTINEL2, Scaling
from geocfl.run_folder import begin, claim, discard, validated_run
from geocfl.settings import Settings, resolve

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


@dataclass(frozen=True)
class Learner:
    """What learns, and what from: a whole network from views of patches, or its head from fixed activations.

    Attributes:
        module: Holds the parameters to train; its state is what a checkpoint keeps.
        views: The batches of an epoch: (n, ...) inputs of `module` and (n,) int64 labels.
        logits: (n, C) float32 logits, on the CPU, of the patches at n indices, as they are.
        objective: What a step minimises.
    """

    module: nn.Module
    views: Callable[[int], Iterator[tuple[Tensor, Tensor]]]
    logits: Callable[[NDArray[np.int64]], Tensor]
    objective: Objective


@dataclass(frozen=True)
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


def train(
    data: str | Path,
    out: str | Path,
    *,
    config: str | Path | None = None,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
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
    patches = load_patches(settings)
    split = split_patches(patches, settings)
    model, module = start(settings, patches, split, out.name, torch_device)
    checkpoint = out / "checkpoint.pt"
    if not resumed:
        begin(out, settings)
    try:
        learner = make_learner(module, model, patches, split, settings)
        history = fit(learner, patches, split, settings, checkpoint)
    except BaseException:
        if not checkpoint.exists():  # nothing to go on from
            discard(out)
        raise

    model = calibrate(model, module, learner, patches, split, settings, validated)
    # What ships is what is judged: the bundle is read back, in half precision, before the test patches are touched.
    model = model.save(out, module.network.state_dict())
    shipped = model.network().to(torch_device).to(memory_format=torch.channels_last)
    parts = {"validation": split.validation, "test": split.test}
    logits = {name: predict(shipped, patches, part) for name, part in parts.items() if len(part)}
    labels = torch.from_numpy(patches.labels)
    result = {name: judge(rows, labels[parts[name]], model.legend, model.temperature) for name, rows in logits.items()}
    figures = {name: {key: result[name][key] for key in ("n", "accuracy", "macro_f1", "ece")} for name in result}
    model = replace(model, origin={**model.origin, "metrics": figures})
    if validated:
        model.origin["refit_of"] = {key: validated.origin.get(key) for key in ("patches", "metrics")}
    (out / "model.json").write_text(json.dumps(model.to_json(), indent=2) + "\n")
    _write_lines(out / "test_patches.txt", [patches.names[i] for i in split.test])
    if patches.skipped:
        _write_lines(out / "skipped_patches.txt", patches.skipped)
    with (out / "history.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(history[0]))
        writer.writeheader()
        writer.writerows(history)
    from geocfl.report import write_report  # matplotlib, not needed before

    write_report(out, model, result, history=history, patches=patches, indices=split.test, logits=logits["test"])
    (out / "metrics.json").write_text(json.dumps(result, indent=2) + "\n")
    checkpoint.unlink()
    return Run(out, load_model(out), result)


def load_patches(settings: Settings) -> Patches:
    """The patches that settings name, whichever of the known layouts they lie in."""
    path, spatial = Path(settings.data), settings.split == "spatial"
    if settings.data == "eurosat":
        patches = read_torchgeo(DEFAULT_ROOT, settings.bands, spatial, download=True)
    elif is_torchgeo_root(path):
        patches = read_torchgeo(path, settings.bands, spatial)
    else:
        patches = read_patches(path, settings.bands, skip_bad=settings.skip_bad)
    if settings.scale is None and settings.offset is None:
        return patches
    scale = SENTINEL2.scale if settings.scale is None else settings.scale
    return replace(patches, scaling=Scaling(scale, settings.offset or 0.0))


def split_patches(patches: Patches, settings: Settings) -> Split:
    """Which patches train, validate and test; the training patches thinned to the imbalance."""
    path = Path(settings.data)
    lists = DEFAULT_ROOT if settings.data == "eurosat" else path if path.is_dir() else path.parent
    split = make_split(patches, settings.split, settings.seed, lists)
    if settings.refit:
        split = split.without_validation()
    return thin(patches, split, settings.imbalance, settings.seed, settings.class_order)


def start(
    settings: Settings, patches: Patches, split: Split, name: str, device: torch.device
) -> tuple[Model, Reflectance]:
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
    module: Reflectance = model.wrap(network).to(device).to(memory_format=torch.channels_last)
    return model, module


def make_learner(module: Reflectance, model: Model, patches: Patches, split: Split, settings: Settings) -> Learner:
    """The network as it is to be trained: whole, or its head alone where `settings.freeze` is set.

    Raises:
        GeocflError: A teacher that cannot be used.
    """
    device = next(module.parameters()).device
    criterion = make_loss(settings.loss, patches.counts(split.train), settings.gamma, settings.form)
    if not settings.freeze:
        teacher = load_teacher([name for name in settings.teacher.split(",") if name], model, patches, device)
        return Learner(
            module,
            lambda epoch: batches(patches, split.train, settings, epoch),
            lambda indices: predict(module, patches, indices),
            Objective(criterion, settings.mixup, teacher, settings.distill),
        )
    activations, labels = read_activations(module, patches).to(device), torch.from_numpy(patches.labels)
    head = nn.Sequential(nn.Dropout(settings.dropout), module.head)

    def views(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for chosen in _shuffled(split.train, settings, _generator(settings, epoch)):
            yield activations[chosen], labels[chosen]

    @torch.inference_mode()
    def logits(indices: NDArray[np.int64]) -> Tensor:
        head.eval()
        rows: Tensor = head(activations[indices]).float().cpu()
        return rows

    return Learner(head, views, logits, Objective(criterion))


def calibrate(
    model: Model,
    module: Reflectance,
    learner: Learner,
    patches: Patches,
    split: Split,
    settings: Settings,
    validated: Model | None = None,
) -> Model:
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


def describe_model(settings: Settings, patches: Patches, split: Split, name: str) -> Model:
    """The model that settings and patches will make, before it has weights: bands, normalisation, legend, origin."""
    clip = reflectance_range(patches)
    # Of all training patches, thinned or not: pixels, no labels, and one set of activations for all imbalances.
    unthinned = split_patches(patches, replace(settings, imbalance="none")).train
    mean, std = band_statistics(patches, unthinned, clip)
    return Model(
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


def _generator(settings: Settings, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(settings.seed * 100_003 + epoch)


def _shuffled(indices: NDArray[np.int64], settings: Settings, rng: torch.Generator) -> Iterator[NDArray[np.int64]]:
    """The indices of an epoch's batches; the last is the smaller one, or left out if it would be of one patch."""
    order = torch.randperm(len(indices), generator=rng).numpy()
    for start in range(0, len(order), settings.batch_size):
        chosen = indices[order[start : start + settings.batch_size]]
        if len(chosen) > 1:  # batch normalisation needs two
            yield chosen


def batches(
    patches: Patches, indices: NDArray[np.int64], settings: Settings, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Augmented batches of one epoch, the same for the same seed and epoch.

    Yields:
        (n, B, S, S) float32 reflectance and (n,) int64 labels.
    """
    rng = _generator(settings, epoch)
    for chosen in _shuffled(indices, settings, rng):
        x = torch.from_numpy(patches.reflectance(chosen))
        yield (
            settings.augmentation(x, patches.bands, settings.input_size, rng),
            torch.from_numpy(patches.labels[chosen]),
        )


def fit(
    learner: Learner, patches: Patches, split: Split, settings: Settings, checkpoint: Path
) -> list[dict[str, float]]:
    """Trains in place, epoch by epoch, each one checkpointed.

    Returns:
        One row per epoch (``epoch``, ``loss``, ``validation_loss``, ``validation_accuracy``, ``lr``, ``seconds``). The
        learner is left in its state after the epoch with the best validation accuracy. Without validation patches
        their columns are absent and the last epoch counts.
    """
    module = learner.module
    optimiser, scheduler = make_optimiser(module, settings, steps=-(-len(split.train) // settings.batch_size))
    history: list[dict[str, float]] = []
    best: dict[str, Tensor] = {}
    if checkpoint.exists():
        saved = _read_checkpoint(checkpoint, next(module.parameters()).device)
        module.load_state_dict(saved["module"])
        optimiser.load_state_dict(saved["optimiser"])
        scheduler.load_state_dict(saved["scheduler"])
        history, best = saved["history"], saved["best"]
    labels = torch.from_numpy(patches.labels)[split.validation]
    # Compiled for one batch size: the last, smaller batch of an epoch is not worth compiling again.
    compiled = torch.compile(module, dynamic=False) if settings.compile else module
    for epoch in range(len(history) + 1, settings.epochs + 1):
        started = time.perf_counter()
        torch.manual_seed(settings.seed * 100_003 + epoch)  # dropout; a resumed run draws what an unbroken one does
        total, seen = 0.0, 0
        module.train()
        with tqdm(total=len(split.train), desc=f"epoch {epoch}/{settings.epochs}", unit="img", disable=None) as bar:
            for x, y in learner.views(epoch):
                network = compiled if len(y) == settings.batch_size else module
                total += train_step(network, learner, optimiser, x, y) * len(y)
                scheduler.step()
                seen += len(y)
                bar.update(len(y))
                bar.set_postfix(loss=f"{total / seen:.3f}")
        row = {"epoch": epoch, "loss": total / seen}
        if len(labels):
            logits = learner.logits(split.validation)
            row["validation_loss"] = float(learner.objective.criterion(logits, labels))
            row["validation_accuracy"] = float((logits.argmax(1) == labels).float().mean())
        row |= {"lr": float(scheduler.get_last_lr()[0]), "seconds": time.perf_counter() - started}
        history.append(row)
        tqdm.write("  ".join(f"{key} {value:.4g}" for key, value in history[-1].items()), file=sys.stderr)
        # Without validation all rows score 0; ties go to the later epoch.
        if row.get("validation_accuracy", 0) == max(past.get("validation_accuracy", 0) for past in history):
            best = {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}
        _save_checkpoint(checkpoint, module, optimiser, scheduler, history=history, best=best)
    module.load_state_dict(best)
    return history


def train_step(
    network: Callable[[Tensor], Tensor], learner: Learner, optimiser: torch.optim.Optimizer, x: Tensor, y: Tensor
) -> float:
    """One step of the optimiser; returns the batch's mean loss."""
    device = next(learner.module.parameters()).device
    x = x.to(device, memory_format=torch.channels_last) if x.ndim == 4 else x.to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bfloat16(device)):
        loss = learner.objective(network, x, y.to(device))
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return loss.item()


def make_optimiser(
    module: nn.Module, settings: Settings, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """The optimiser of a module's parameters, and the schedule of its learning rate over `steps` an epoch."""
    # Biases and normalisation are not decayed.
    decayed = [p for p in module.parameters() if p.ndim > 1]
    rest = [p for p in module.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    optimiser = OPTIMIZERS[settings.optimizer](groups, lr=settings.lr)
    total = settings.epochs * steps
    if settings.schedule == "one-cycle" and total > 2:
        # The rise needs a step of its own, which a fifth of a handful would not be.
        rise = max(0.2, 2 / total)
        return optimiser, torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.lr, total, pct_start=rise)
    return optimiser, torch.optim.lr_scheduler.ConstantLR(optimiser, factor=1.0)


def _save_checkpoint(path: Path, module: nn.Module, optimiser: Any, scheduler: Any, **progress: Any) -> None:
    partial = path.with_suffix(".partial")
    torch.save(
        {
            "module": module.state_dict(),
            "optimiser": optimiser.state_dict(),
            "scheduler": scheduler.state_dict(),
            **progress,
        },
        partial,
    )
    partial.replace(path)


def _read_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    try:
        saved: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # pickle, zipfile and torch each have errors of their own
        raise OutputError(f"{path}: not a readable checkpoint; pass --overwrite to start again") from error
    return saved


@torch.inference_mode()
def predict(module: Reflectance, patches: Patches, indices: NDArray[np.int64], batch_size: int | None = None) -> Tensor:
    """(n, C) float32 logits, on the CPU, of the patches at `indices`, as they are."""
    device = next(module.parameters()).device
    module.eval()
    batch_size = batch_size or fast_batch_size(device)
    rows = []
    for start in range(0, len(indices), batch_size):
        x = torch.from_numpy(patches.reflectance(indices[start : start + batch_size]))
        with torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bfloat16(device)):
            rows.append(module(x.to(device, memory_format=torch.channels_last)).float().cpu())
    return torch.cat(rows)


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))
