"""Training: settings resolved once, one loop, a run folder."""

from __future__ import annotations

import csv
import json
import math
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from geocfl.data.augmentation import Augmentation
from geocfl.data.eurosat import DEFAULT_ROOT, is_torchgeo_root, read_torchgeo
from geocfl.data.patches import EUROSAT_BANDS, RGB, Patches, read_patches
from geocfl.data.splits import Split, make_split, train_share
from geocfl.errors import DataError, OutputError, UsageError
from geocfl.evaluation import fit_temperature, format_metrics, metrics
from geocfl.losses import LOSSES, make_loss
from geocfl.model import Model, load_model
from geocfl.network import (
    Reflectance,
    backbone_facts,
    build_network,
    choose_device,
    has_fast_bfloat16,
    load_weights,
)
from geocfl.radiometry import SENTINEL2, Scaling

AUGMENTATION = Augmentation(rotation=15, zoom=0.2, shift=0.06, dihedral=True, surface=0.5, gain=0.05, haze=0.005)
EPOCHS = {"fine-tuned": 4, "from scratch": 30}
"""Of the default recipe: longer fine-tuning forgets what the weights knew of other places."""
OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
SCHEDULES = ("one-cycle", "constant")
RUN_FILES = (
    "config.json",
    "checkpoint.pt",
    "checkpoint.partial",
    "model.safetensors",
    "model.json",
    "test_patches.txt",
    "history.csv",
    "report.html",
    "metrics.json",
)
"""What a run folder holds, beside its figures."""


@dataclass(frozen=True)
class Settings:
    """Everything that decides what a run computes; written to ``config.json``.

    Attributes:
        refit: Run folder of the same settings, whose validation stands for this run's: the validation patches train
            too, the last epoch counts, and the temperature is that run's. Empty for a run with its own validation.
    """

    data: str
    split: str = "paper"
    bands: tuple[str, ...] = RGB
    backbone: str = "resnet18"
    weights: str = ""
    recipe: str = "default"
    loss: str = "class-focal"
    gamma: float = 0.5
    epochs: int = 0
    batch_size: int = 64
    lr: float = 1e-3
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    schedule: str = "one-cycle"
    dropout: float = 0.25
    stage_dropout: float = 0.0
    augmentation: Augmentation = AUGMENTATION
    input_size: int = 0
    seed: int = 0
    scale: float | None = None
    offset: float | None = None
    refit: str = ""


RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    # The paper names batch, learning rate, gamma, dropout and "rotation and scale"; the rest is ours to choose.
    "paper": {
        "epochs": 30,
        "lr": 6e-4,
        "optimizer": "adam",
        "weight_decay": 0.0,
        "schedule": "constant",
        "stage_dropout": 0.25,
        "augmentation": Augmentation(rotation=180, zoom=0.2),
    },
}


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


def resolve(data: str, recipe: str = "default", **chosen: Any) -> Settings:
    """Settings from a recipe and what the user chose beside it (None is not chosen).

    Raises:
        UsageError: A name or value is not valid.
    """
    if recipe not in RECIPES:
        raise UsageError(f"unknown recipe {recipe!r}; choose one of: {', '.join(RECIPES)}")
    options = [f.name for f in fields(Settings)]
    if unknown := sorted(chosen.keys() - set(options)):
        raise UsageError(f"unknown option {', '.join(unknown)}; choose among: {', '.join(options)}")
    values = RECIPES[recipe] | {name: value for name, value in chosen.items() if value is not None}
    settings = Settings(data=data, recipe=recipe, **values)
    facts = backbone_facts(settings.backbone)
    weights = settings.weights or facts.weights
    settings = replace(
        settings,
        weights=weights,
        input_size=settings.input_size or facts.input_size,
        epochs=settings.epochs if "epochs" in values else EPOCHS["from scratch" if weights == "none" else "fine-tuned"],
    )
    _check(settings)
    return settings


def _check(settings: Settings) -> None:
    for name, known in (("loss", LOSSES), ("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
        if getattr(settings, name) not in known:
            raise UsageError(f"unknown {name} {getattr(settings, name)!r}; choose one of: {', '.join(known)}")
    if settings.split != "spatial":
        train_share(settings.split)
    rules = {
        "bands must name one band or more": bool(settings.bands),
        "epochs must be at least 1": settings.epochs >= 1,
        "the batch size must be at least 2, for batch normalisation": settings.batch_size >= 2,
        "the learning rate must be above 0": 0 < settings.lr < math.inf,
        "the weight decay must be at least 0": 0 <= settings.weight_decay < math.inf,
        "gamma must be at least 0": 0 <= settings.gamma < math.inf,
        "dropout must be at least 0 and below 1": 0 <= settings.dropout < 1 and 0 <= settings.stage_dropout < 1,
        "the input size must be at least 32 pixels": settings.input_size >= 32,
        "the seed must be from 0 to 4294967295": 0 <= settings.seed < 2**32,
        "the scale must be above 0": settings.scale is None or 0 < settings.scale < math.inf,
        "the offset must be a number": settings.offset is None or math.isfinite(settings.offset),
    }
    for rule, holds in rules.items():
        if not holds:
            raise UsageError(rule)


def parse_bands(bands: str) -> tuple[str, ...]:
    """``rgb``, ``all`` (EuroSAT's thirteen) or names separated by commas."""
    named = {"rgb": RGB, "all": EUROSAT_BANDS}
    return named.get(bands.lower()) or tuple(band.strip() for band in bands.split(",") if band.strip())


def train(
    data: str | Path,
    out: str | Path,
    *,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    **options: Any,
) -> Run:
    """Trains a scene classifier and writes its run folder.

    Args:
        data: ``EuroSAT.zip`` or its folder, torchgeo's EuroSAT root, ``eurosat`` (downloads it through torchgeo), or a
            folder (or zip) of class-named folders of patches.
        out: Run folder to write: the bundle, ``metrics.json``, ``history.csv``, ``config.json``, figures and
            ``report.html``.
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
    settings, out = resolve(str(data), **options), Path(out)
    resumed = _claim(out, settings, resume, overwrite)
    validated = _validated(settings)
    torch_device = choose_device(device)
    patches = load_patches(settings)
    lists = Path(settings.data) if Path(settings.data).is_dir() else Path(settings.data).parent
    split = make_split(patches, settings.split, settings.seed, DEFAULT_ROOT if settings.data == "eurosat" else lists)
    if validated:
        split = split.without_validation()
    model = describe_model(settings, patches, split, out.name)
    torch.manual_seed(settings.seed)
    network = build_network(
        settings.backbone, len(settings.bands), len(patches.legend), settings.dropout, settings.stage_dropout
    )
    if not resumed:
        load_weights(network, settings.backbone, settings.weights, settings.bands)
        _begin(out, settings)
    module = model.wrap(network).to(torch_device).to(memory_format=torch.channels_last)
    checkpoint = out / "checkpoint.pt"
    try:
        history, best = fit(module, patches, split, settings, checkpoint)
    except BaseException:
        if not checkpoint.exists():  # nothing to go on from
            _discard(out)
        raise

    load_state(module, best)
    if validated:
        temperature = validated.temperature
    else:
        labels = torch.from_numpy(patches.labels[split.validation])
        temperature = fit_temperature(predict(module, patches, split.validation), labels)
    # What ships is what is judged: the bundle is read back, in half precision, before the test patches are touched.
    model = replace(model, temperature=temperature).save(out, module.network.state_dict())
    shipped = model.network().to(torch_device).to(memory_format=torch.channels_last)
    result = _judge(shipped, patches, split, temperature)
    figures = {name: {key: result[name][key] for key in ("n", "accuracy", "macro_f1", "ece")} for name in result}
    model = replace(model, origin={**model.origin, "metrics": figures})
    if validated:
        model.origin["refit_of"] = {key: validated.origin.get(key) for key in ("patches", "metrics")}
    (out / "model.json").write_text(json.dumps(model.to_json(), indent=2) + "\n")
    _write_names(out / "test_patches.txt", patches, split.test)
    with (out / "history.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(history[0]))
        writer.writeheader()
        writer.writerows(history)
    from geocfl.report import write_report  # matplotlib, not needed before

    write_report(out, model, history, result)
    (out / "metrics.json").write_text(json.dumps(result, indent=2) + "\n")
    checkpoint.unlink()
    return Run(out, load_model(out), result)


def _judge(module: Reflectance, patches: Patches, split: Split, temperature: float) -> dict[str, Any]:
    """The content of ``metrics.json``: figures on validation, where there is one, and test."""
    result: dict[str, Any] = {}
    for name, part in (("validation", split.validation), ("test", split.test)):
        if len(part):
            logits, labels = predict(module, patches, part), torch.from_numpy(patches.labels[part])
            before = metrics(logits, labels, patches.legend)
            result[name] = metrics(logits, labels, patches.legend, temperature)
            result[name]["uncalibrated"] = {key: before[key] for key in ("ece", "nll")}
    return result


def _validated(settings: Settings) -> Model | None:
    """The model of the run that `settings.refit` names.

    Raises:
        ModelError: It is no finished run.
        UsageError: Its settings are others.
    """
    if not settings.refit:
        return None
    run = load_model(settings.refit)
    if not _is_content(Path(settings.refit) / "config.json", replace(settings, refit="")):
        raise UsageError(f"--refit {settings.refit}: that run has other settings than this command; repeat them here")
    return run


def _claim(out: Path, settings: Settings, resume: bool, overwrite: bool) -> bool:
    """Whether to go on from a checkpoint in `out`; refuses a folder that may not be written."""
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file; pass another folder as --out")
    if not out.is_dir() or not any(out.iterdir()):
        return False
    config, finished = out / "config.json", (out / "metrics.json").exists()
    if not config.is_file():
        raise OutputError(f"{out}: holds something else than a run; pass another --out")
    if resume and not finished:
        if not _is_content(config, settings):
            raise OutputError(
                f"{out}: holds a run of other settings; repeat its command, or pass --overwrite without --resume"
            )
        return (out / "checkpoint.pt").exists()
    if not overwrite:
        remedy = "--overwrite to replace it" if finished else "--resume to go on with it"
        raise OutputError(f"{out}: already holds a run; pass {remedy}, or another --out")
    return False


def _is_content(config: Path, settings: Settings) -> bool:
    try:
        return bool(json.loads(config.read_text()) == json.loads(json.dumps(asdict(settings))))
    except (OSError, ValueError):
        return False


def _begin(out: Path, settings: Settings) -> None:
    try:
        _discard(out)
        out.mkdir(parents=True, exist_ok=True)
        (out / "config.json").write_text(json.dumps(asdict(settings), indent=2) + "\n")
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror}); pass another --out") from error


def _discard(out: Path) -> None:
    """Removes a run; its folder too, unless it holds something else."""
    figures = out / "figures"
    for file in (*(out / name for name in RUN_FILES), *figures.glob("*.png"), *figures.glob("*.svg")):
        file.unlink(missing_ok=True)
    for folder in (figures, out):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def load_patches(settings: Settings) -> Patches:
    """The patches that settings name, whichever of the known layouts they lie in."""
    path, spatial = Path(settings.data), settings.split == "spatial"
    if settings.data == "eurosat":
        patches = read_torchgeo(DEFAULT_ROOT, settings.bands, spatial, download=True)
    elif is_torchgeo_root(path):
        patches = read_torchgeo(path, settings.bands, spatial)
    else:
        patches = read_patches(path, settings.bands)
    if settings.scale is None and settings.offset is None:
        return patches
    scale = SENTINEL2.scale if settings.scale is None else settings.scale
    return replace(patches, scaling=Scaling(scale, settings.offset or 0.0))


def describe_model(settings: Settings, patches: Patches, split: Split, name: str) -> Model:
    """The model that settings and patches will make, before it has weights: bands, normalisation, legend, origin."""
    clip = reflectance_range(patches)
    mean, std = band_statistics(patches, split.train, clip)
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
        origin={
            "data": patches.source,
            "split": settings.split,
            "patches": {"train": len(split.train), "validation": len(split.validation), "test": len(split.test)},
            "seed": settings.seed,
            "loss": settings.loss,
            "gamma": settings.gamma,
            "recipe": settings.recipe,
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


def batches(
    patches: Patches, indices: NDArray[np.int64], settings: Settings, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Augmented batches of one epoch, the same for the same seed and epoch.

    Yields:
        (n, B, S, S) float32 reflectance and (n,) int64 labels.
    """
    rng = torch.Generator().manual_seed(settings.seed * 100_003 + epoch)
    order = torch.randperm(len(indices), generator=rng).numpy()
    for start in range(0, len(order), settings.batch_size):
        chosen = indices[order[start : start + settings.batch_size]]
        if len(chosen) == 1:  # batch normalisation needs two
            continue
        x = torch.from_numpy(patches.reflectance(chosen))
        yield (
            settings.augmentation(x, patches.bands, settings.input_size, rng),
            torch.from_numpy(patches.labels[chosen]),
        )


def fit(
    module: Reflectance, patches: Patches, split: Split, settings: Settings, checkpoint: Path
) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    """Trains a network in place, epoch by epoch, each one checkpointed.

    Returns:
        One row per epoch (``epoch``, ``loss``, ``validation_loss``, ``validation_accuracy``, ``lr``, ``seconds``), and
        the network's state after the epoch with the best validation accuracy. Without validation patches its columns
        are absent and the last epoch counts.
    """
    device = next(module.parameters()).device
    criterion = make_loss(settings.loss, patches.counts(split.train), settings.gamma)
    optimiser, scheduler = _optimiser(module, settings, steps=-(-len(split.train) // settings.batch_size))
    history: list[dict[str, float]] = []
    best: dict[str, Tensor] = {}
    if checkpoint.exists():
        saved = _read_checkpoint(checkpoint, device)
        module.load_state_dict(saved["module"])
        optimiser.load_state_dict(saved["optimiser"])
        scheduler.load_state_dict(saved["scheduler"])
        history, best = saved["history"], saved["best"]
    labels = torch.from_numpy(patches.labels)[split.validation]
    for epoch in range(len(history) + 1, settings.epochs + 1):
        started = time.perf_counter()
        torch.manual_seed(settings.seed * 100_003 + epoch)  # dropout; a resumed run draws what an unbroken one does
        with tqdm(total=len(split.train), desc=f"epoch {epoch}/{settings.epochs}", unit="img", disable=None) as bar:
            views = batches(patches, split.train, settings, epoch)
            loss = _train_epoch(module, views, criterion, optimiser, scheduler, bar=bar)
        row = {"epoch": epoch, "loss": loss}
        if len(labels):
            logits = predict(module, patches, split.validation)
            row["validation_loss"] = float(criterion(logits, labels))
            row["validation_accuracy"] = float((logits.argmax(1) == labels).float().mean())
        row |= {"lr": float(scheduler.get_last_lr()[0]), "seconds": time.perf_counter() - started}
        history.append(row)
        tqdm.write("  ".join(f"{key} {value:.4g}" for key, value in history[-1].items()), file=sys.stderr)
        # Without validation all rows score 0; ties go to the later epoch.
        if row.get("validation_accuracy", 0) == max(past.get("validation_accuracy", 0) for past in history):
            best = {name: value.detach().cpu().clone() for name, value in module.network.state_dict().items()}
        _save_checkpoint(checkpoint, module, optimiser, scheduler, history=history, best=best)
    return history, best


def _train_epoch(
    module: Reflectance,
    views: Iterator[tuple[Tensor, Tensor]],
    criterion: nn.Module,
    optimiser: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    *,
    bar: tqdm[Any],
) -> float:
    """One pass over the training views; returns their mean loss."""
    device = next(module.parameters()).device
    total, seen = 0.0, 0
    module.train()
    for reflectance, target in views:
        x, y = reflectance.to(device, memory_format=torch.channels_last), target.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bfloat16(device)):
            logits = module(x)
        loss = criterion(logits.float(), y)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        scheduler.step()
        total += loss.item() * len(y)
        seen += len(y)
        bar.update(len(y))
        bar.set_postfix(loss=f"{total / seen:.3f}")
    return total / seen


def _optimiser(
    module: nn.Module, settings: Settings, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    # Biases and normalisation are not decayed.
    decayed = [p for p in module.parameters() if p.ndim > 1]
    rest = [p for p in module.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    optimiser = OPTIMIZERS[settings.optimizer](groups, lr=settings.lr)
    if settings.schedule == "one-cycle":
        return optimiser, torch.optim.lr_scheduler.OneCycleLR(
            optimiser, settings.lr, total_steps=settings.epochs * steps, pct_start=0.2
        )
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


def load_state(module: Reflectance, state: dict[str, Tensor]) -> Reflectance:
    """The module with the network's tensors replaced."""
    module.network.load_state_dict(state)
    return module


@torch.inference_mode()
def predict(module: Reflectance, patches: Patches, indices: NDArray[np.int64], batch_size: int = 256) -> Tensor:
    """(n, C) float32 logits, on the CPU, of the patches at `indices`, as they are."""
    device = next(module.parameters()).device
    module.eval()
    rows = []
    for start in range(0, len(indices), batch_size):
        x = torch.from_numpy(patches.reflectance(indices[start : start + batch_size]))
        with torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bfloat16(device)):
            rows.append(module(x.to(device, memory_format=torch.channels_last)).float().cpu())
    return torch.cat(rows)


def _write_names(path: Path, patches: Patches, indices: NDArray[np.int64]) -> None:
    path.write_text("".join(f"{patches.names[i]}\n" for i in indices))
