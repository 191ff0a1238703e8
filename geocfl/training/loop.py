"""The loop over epochs: what learns, from what, and how a killed training goes on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geocfl.core.progress import Progress, silent
from geocfl.data.patches import Patches
from geocfl.data.splits import Split
from geocfl.errors import OutputError
from geocfl.losses import make_loss
from geocfl.models.bundle import Bundle
from geocfl.models.network import Reflectance, autocast, fast_batch_size, has_fast_bfloat16
from geocfl.training.config import Settings
from geocfl.training.distillation import Imitator, Objective, load_teacher
from geocfl.training.features import read_features

log = logging.getLogger("geocfl")

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


@dataclass(frozen=True)
class Learner:
    """What learns, and what from: a whole network from views of patches, or its head from fixed features.

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


def make_learner(
    module: Reflectance,
    model: Bundle,
    patches: Patches,
    split: Split,
    settings: Settings,
    progress: Progress = silent,
) -> Learner:
    """The network as it is to be trained: whole, or its head alone where `settings.freeze` is set.

    Raises:
        GeocflError: A teacher that cannot be used.
    """
    device = next(module.parameters()).device
    criterion = make_loss(settings.loss, patches.counts(split.train), settings.gamma, settings.cfl_form)
    if not settings.freeze:
        teacher = load_teacher([name for name in settings.teacher.split(",") if name], model, patches, device)
        pupil: nn.Module = module
        if teacher and settings.hint:
            with torch.inference_mode():
                _, features = teacher(torch.from_numpy(patches.reflectance(split.train[:1])).to(device))
            pupil = Imitator(module, features.shape[1]).to(device)
        return Learner(
            pupil,
            lambda epoch: batches(patches, split.train, settings, epoch),
            lambda indices: predict(module, patches, indices),
            Objective(criterion, settings.mixup, teacher, settings.distill, settings.hint),
        )
    features = read_features(module, patches, progress=progress).to(device)
    labels = torch.from_numpy(patches.labels)
    head = nn.Sequential(nn.Dropout(settings.dropout), module.head)

    def views(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for chosen in _shuffled(split.train, settings, _generator(settings, epoch)):
            yield features[chosen], labels[chosen]

    @torch.inference_mode()
    def logits(indices: NDArray[np.int64]) -> Tensor:
        head.eval()
        rows: Tensor = head(features[indices]).float().cpu()
        return rows

    return Learner(head, views, logits, Objective(criterion))


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
    learner: Learner,
    patches: Patches,
    split: Split,
    settings: Settings,
    checkpoint: Path,
    progress: Progress = silent,
) -> list[dict[str, float]]:
    """Trains in place, epoch by epoch, each one checkpointed; every epoch's row is logged.

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
    shown = len(split.train) - (len(split.train) % settings.batch_size == 1)  # see _shuffled
    # Compiled for one batch size: the last, smaller batch of an epoch is not worth compiling again.
    compiled = torch.compile(module, dynamic=False) if settings.compile else module
    for epoch in range(len(history) + 1, settings.epochs + 1):
        started = time.perf_counter()
        torch.manual_seed(settings.seed * 100_003 + epoch)  # dropout; a resumed run draws what an unbroken one does
        total, seen = 0.0, 0
        module.train()
        for x, y in learner.views(epoch):
            network = compiled if len(y) == settings.batch_size else module
            total += train_step(network, learner, optimiser, x, y) * len(y)
            scheduler.step()
            seen += len(y)
            progress(f"epoch {epoch}/{settings.epochs}", seen, shown, "img")
        row = {"epoch": epoch, "loss": total / seen}
        if len(labels):
            logits = learner.logits(split.validation)
            row["validation_loss"] = float(learner.objective.criterion(logits, labels))
            row["validation_accuracy"] = float((logits.argmax(1) == labels).float().mean())
        row |= {"lr": float(scheduler.get_last_lr()[0]), "seconds": time.perf_counter() - started}
        history.append(row)
        log.info("%s", "  ".join(f"{key} {value:.4g}" for key, value in row.items()))
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
        raise OutputError(f"{path}: not a readable checkpoint; delete it to start again") from error
    return saved


@torch.inference_mode()
def predict(
    module: Reflectance,
    patches: Patches,
    indices: NDArray[np.int64],
    batch_size: int | None = None,
    progress: Progress = silent,
    precision: str = "float32",
) -> Tensor:
    """(n, C) float32 logits, on the CPU, of the patches at `indices`, as they are.

    In float32 unless asked otherwise, so that metrics do not depend on what the processor is fast at.
    """
    device = next(module.parameters()).device
    module.eval()
    batch_size = batch_size or fast_batch_size(device) // module.tta
    rows = []
    for start in range(0, len(indices), batch_size):
        x = torch.from_numpy(patches.reflectance(indices[start : start + batch_size]))
        with autocast(device, precision):
            rows.append(module(x.to(device, memory_format=torch.channels_last)).float().cpu())
        progress("classifying", min(start + batch_size, len(indices)), len(indices), "img")
    return torch.cat(rows)
