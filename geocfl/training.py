"""Training: settings resolved once, one loop, a run folder."""

from __future__ import annotations

import csv
import json
import math
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
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
from geocfl.errors import OutputError, UsageError
from geocfl.evaluation import fit_temperature, metrics
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
from geocfl.radiometry import Scaling

MAX_REFLECTANCE = {np.dtype(np.uint8): 0.275}
"""Upper clip by the patches' dtype: EuroSAT's JPEGs saturate there. Others are clipped at 1."""


@dataclass(frozen=True)
class Settings:
    """Everything that decides what a run computes; written to ``config.json``."""

    data: str
    split: str = "paper"
    bands: tuple[str, ...] = RGB
    backbone: str = "resnet18"
    weights: str = ""
    recipe: str = "default"
    loss: str = "class-focal"
    gamma: float = 0.5
    epochs: int = 10
    batch_size: int = 64
    lr: float = 1e-3
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    schedule: str = "one-cycle"
    dropout: float = 0.25
    stage_dropout: float = 0.0
    augmentation: Augmentation = Augmentation(
        rotation=15, zoom=0.2, shift=0.06, dihedral=True, surface=0.5, gain=0.1, haze=0.01
    )
    input_size: int = 0
    seed: int = 0
    scale: float | None = None
    offset: float | None = None


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


def resolve(data: str, recipe: str = "default", **chosen: Any) -> Settings:
    """Settings from a recipe and what the user chose beside it (None is not chosen).

    Raises:
        UsageError: A name or value is not valid.
    """
    if recipe not in RECIPES:
        raise UsageError(f"unknown recipe {recipe!r}; choose one of: {', '.join(RECIPES)}")
    values = RECIPES[recipe] | {name: value for name, value in chosen.items() if value is not None}
    settings = Settings(data=data, recipe=recipe, **values)
    facts = backbone_facts(settings.backbone)
    if settings.loss not in LOSSES:
        raise UsageError(f"unknown loss {settings.loss!r}; choose one of: {', '.join(LOSSES)}")
    if settings.split != "spatial":
        train_share(settings.split)
    if min(settings.epochs, settings.batch_size) < 1 or not 0 < settings.lr < math.inf:
        raise UsageError("epochs and batch size must be at least 1 and the learning rate above 0")
    return replace(
        settings, weights=settings.weights or facts.weights, input_size=settings.input_size or facts.input_size
    )


def parse_bands(bands: str) -> tuple[str, ...]:
    """``rgb``, ``all`` (EuroSAT's thirteen) or names separated by commas."""
    named = {"rgb": RGB, "all": EUROSAT_BANDS}
    return named.get(bands.lower()) or tuple(band.strip() for band in bands.split(",") if band.strip())


def train(
    data: str | Path, out: str | Path, *, device: str = "auto", resume: bool = False, overwrite: bool = False, **options: Any
) -> Run:
    """Trains a scene classifier and writes its run folder.

    Args:
        data: ``EuroSAT.zip`` or its folder, torchgeo's EuroSAT root, ``eurosat`` (downloads it through torchgeo), or a
            folder (or zip) of class-named folders of patches.
        out: Run folder to write: the bundle, ``metrics.json``, ``history.csv``, ``config.json``, figures and
            ``report.html``.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        resume: Go on from the checkpoint of a killed run in `out`.
        overwrite: Replace a finished run in `out`.
        **options: Fields of `Settings`.

    Raises:
        GeocflError: Bad data, an unusable output folder, weights that cannot be had.
    """
    settings, out = resolve(str(data), **options), Path(out)
    checkpoint = _claim(out, settings, resume, overwrite)
    patches = load_patches(settings)
    lists = Path(settings.data) if Path(settings.data).is_dir() else Path(settings.data).parent
    split = make_split(patches, settings.split, settings.seed, DEFAULT_ROOT if settings.data == "eurosat" else lists)
    model = _describe(settings, patches, split, out.name)
    torch_device = choose_device(device)
    torch.manual_seed(settings.seed)
    network = build_network(
        settings.backbone, len(settings.bands), len(patches.legend), settings.dropout, settings.stage_dropout
    )
    if not checkpoint.exists():
        load_weights(network, settings.backbone, settings.weights, settings.bands)
    module = model.wrap(network).to(torch_device, memory_format=torch.channels_last)
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(asdict(settings), indent=2) + "\n")
    history, best = fit(module, patches, split, settings, checkpoint)

    validation = predict(load_state(module, best), patches, split.validation)
    labels = torch.from_numpy(patches.labels)
    temperature = fit_temperature(validation, labels[split.validation])
    # What ships is what is judged: the bundle is read back, in half precision, before the test patches are touched.
    model = replace(model, temperature=temperature).save(out, module.network.state_dict())
    shipped = model.network().to(torch_device, memory_format=torch.channels_last)
    result: dict[str, Any] = {}
    for name, part in (("validation", split.validation), ("test", split.test)):
        logits = predict(shipped, patches, part)
        result[name] = metrics(logits, labels[part], patches.legend, temperature)
        uncalibrated = metrics(logits, labels[part], patches.legend)
        result[name]["uncalibrated"] = {key: uncalibrated[key] for key in ("ece", "nll")}
    figures = {name: {key: result[name][key] for key in ("n", "accuracy", "macro_f1", "ece")} for name in result}
    model = replace(model, origin={**model.origin, "metrics": figures})
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


def _claim(out: Path, settings: Settings, resume: bool, overwrite: bool) -> Path:
    """The checkpoint's path in a run folder that may be written."""
    checkpoint, config = out / "checkpoint.pt", out / "config.json"
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file; pass another folder as --out")
    if not out.is_dir() or not any(out.iterdir()):
        return checkpoint
    if resume and checkpoint.exists():
        if json.loads(config.read_text()) != json.loads(json.dumps(asdict(settings))):
            raise OutputError(f"{out}: its checkpoint has other settings than this command; pass another --out")
        return checkpoint
    if not overwrite:
        remedy = "--resume to go on with it" if checkpoint.exists() else "--overwrite to replace it"
        raise OutputError(f"{out}: already holds a run; pass {remedy}, or another --out")
    checkpoint.unlink(missing_ok=True)
    (out / "metrics.json").unlink(missing_ok=True)
    return checkpoint


def load_patches(settings: Settings) -> Patches:
    """The patches that settings name, whichever of the known layouts they lie in."""
    scaling = None
    if settings.scale is not None or settings.offset is not None:
        scaling = Scaling(settings.scale or 10_000, settings.offset or 0.0)
    if settings.data == "eurosat":
        return read_torchgeo(DEFAULT_ROOT, settings.bands, settings.split == "spatial", download=True)
    path = Path(settings.data)
    if is_torchgeo_root(path):
        return read_torchgeo(path, settings.bands, settings.split == "spatial")
    return read_patches(path, settings.bands, scaling)


def _describe(settings: Settings, patches: Patches, split: Split, name: str) -> Model:
    clip = (0.0, MAX_REFLECTANCE.get(patches.pixels.dtype, 1.0))
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


def band_statistics(
    patches: Patches, indices: NDArray[np.int64], clip: tuple[float, float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each band's clipped reflectance over the patches at `indices`."""
    total = np.zeros((2, len(patches.bands)))
    for start in range(0, len(indices), 1024):
        x = patches.reflectance(indices[start : start + 1024]).clip(*clip).astype(np.float64)
        total += [x.sum((0, 2, 3)), (x**2).sum((0, 2, 3))]
    mean, square = total / (len(indices) * math.prod(patches.pixels.shape[2:]))
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
        the network's state after the epoch with the best validation accuracy.
    """
    device = next(module.parameters()).device
    criterion = make_loss(settings.loss, patches.counts(split.train), settings.gamma).to(device)
    steps = -(-len(split.train) // settings.batch_size)
    optimiser, scheduler = _optimiser(module, settings, steps)
    history: list[dict[str, float]] = []
    best: dict[str, Tensor] = {}
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        module.load_state_dict(saved["module"])
        optimiser.load_state_dict(saved["optimiser"])
        scheduler.load_state_dict(saved["scheduler"])
        history, best = saved["history"], saved["best"]
    labels = torch.from_numpy(patches.labels)[split.validation]
    for epoch in range(len(history) + 1, settings.epochs + 1):
        started, total, seen = time.perf_counter(), 0.0, 0
        torch.manual_seed(settings.seed * 100_003 + epoch)  # dropout; a resumed run draws what an unbroken one does
        module.train()
        with tqdm(total=len(split.train), desc=f"epoch {epoch}/{settings.epochs}", unit="img", disable=None) as bar:
            for x, y in batches(patches, split.train, settings, epoch):
                x = x.to(device, memory_format=torch.channels_last)
                with torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bfloat16(device)):
                    logits = module(x)
                loss = criterion(logits.float(), y.to(device))
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                scheduler.step()
                total += loss.item() * len(y)
                seen += len(y)
                bar.update(len(y))
                bar.set_postfix(loss=f"{total / seen:.3f}")
        logits = predict(module, patches, split.validation)
        history.append(
            {
                "epoch": epoch,
                "loss": total / seen,
                "validation_loss": float(criterion.cpu()(logits, labels)),
                "validation_accuracy": float((logits.argmax(1) == labels).float().mean()),
                "lr": scheduler.get_last_lr()[0],
                "seconds": time.perf_counter() - started,
            }
        )
        criterion.to(device)
        tqdm.write("  ".join(f"{key} {value:.4g}" for key, value in history[-1].items()))
        if history[-1]["validation_accuracy"] == max(row["validation_accuracy"] for row in history):
            best = {name: value.detach().cpu().clone() for name, value in module.network.state_dict().items()}
        _save_checkpoint(checkpoint, module, optimiser, scheduler, history, best)
    return history, best


def _optimiser(
    module: nn.Module, settings: Settings, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    # Biases and normalisation are not decayed.
    decayed = [p for p in module.parameters() if p.ndim > 1]
    rest = [p for p in module.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    optimiser = kinds[settings.optimizer](groups, lr=settings.lr)
    if settings.schedule == "one-cycle":
        return optimiser, torch.optim.lr_scheduler.OneCycleLR(
            optimiser, settings.lr, total_steps=settings.epochs * steps, pct_start=0.2
        )
    return optimiser, torch.optim.lr_scheduler.ConstantLR(optimiser, factor=1.0)


def _save_checkpoint(path: Path, module: nn.Module, optimiser: Any, scheduler: Any, history: Any, best: Any) -> None:
    partial = path.with_suffix(".partial")
    torch.save(
        {
            "module": module.state_dict(),
            "optimiser": optimiser.state_dict(),
            "scheduler": scheduler.state_dict(),
            "history": history,
            "best": best,
        },
        partial,
    )
    partial.replace(path)


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
