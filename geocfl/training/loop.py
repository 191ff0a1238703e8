"""The training loop: what is trained, on which batches, and how an interrupted training is resumed."""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geocfl.core.ahead import ahead
from geocfl.core.files import write_whole
from geocfl.core.progress import Progress, silent
from geocfl.core.transfer import send
from geocfl.data.mosaics import GROUP, groups, mosaic_batches
from geocfl.data.patches import Patches
from geocfl.data.placed import PlacedPatches, place
from geocfl.data.splits import Split
from geocfl.errors import OutputError
from geocfl.evaluation.logits import patch_logits
from geocfl.losses import make_loss
from geocfl.models.bundle import Bundle
from geocfl.models.devices import has_fast_bfloat16
from geocfl.models.reflectance import DenseReflectance, Reflectance
from geocfl.training.config import TrainSettings
from geocfl.training.distillation import Imitator, Objective, load_teacher
from geocfl.training.features import read_features
from geocfl.training.step import Stepper

log = logging.getLogger("geocfl")


@dataclass(frozen=True)
class Learner:
    """What is trained: a whole network on augmented patches, or its last layer on fixed features.

    Attributes:
        module: Has the parameters to train; a checkpoint keeps its state.
        batches: The batches of an epoch: (n, ...) inputs of `module` and (n,) int64 labels, on its device or the CPU.
        logits: (n, C) float32 logits on the CPU of the patches at n indices, without augmentation.
        objective: The loss of a step.
        steps: Batches of an epoch.
    """

    module: nn.Module
    batches: Callable[[int], Iterator[tuple[Tensor, Tensor]]]
    logits: Callable[[NDArray[np.int64]], Tensor]
    objective: Objective
    steps: int


class MosaicStudent(nn.Module):
    """A dense network in training: from mosaics to the logits of their patches."""

    def __init__(self, network: DenseReflectance) -> None:
        super().__init__()
        self.network = network

    def forward(self, mosaics: Tensor) -> Tensor:
        """See `geocfl.models.reflectance.DenseReflectance.patches_of`."""
        return self.network.patches_of(mosaics)


def make_learner(
    module: Reflectance,
    model: Bundle,
    patches: Patches,
    split: Split,
    settings: TrainSettings,
    progress: Progress = silent,
) -> Learner:
    """Prepares the whole network for training, or only its last layer if `settings.freeze` is set.

    Raises:
        GeocflError: The teacher cannot be used.
    """
    device = next(module.parameters()).device
    placed = place(patches, device)
    criterion = make_loss(settings.loss, patches.counts(split.train), settings.gamma, settings.cfl_form)
    if isinstance(module, DenseReflectance):
        precision = "bfloat16" if has_fast_bfloat16(device) else "float32"  # it costs as much as half an epoch
        return Learner(
            MosaicStudent(module),
            lambda epoch: mosaic_batches(
                placed, split.train, settings.augmentation, settings.batch_size, _generator(settings, epoch)
            ),
            lambda indices: patch_logits(module, placed, indices, precision=precision),
            Objective(criterion, smoothing=settings.label_smoothing),
            -(-groups(len(split.train)) // (settings.batch_size // GROUP)),
        )
    steps = -(-len(split.train) // settings.batch_size)
    if not settings.freeze:
        teacher = load_teacher(settings.teacher, model, patches, device)
        student: nn.Module = module
        if teacher and settings.hint:
            with torch.inference_mode():
                _, features = teacher(torch.from_numpy(patches.reflectance(split.train[:1])).to(device))
            student = Imitator(module, features.shape[1]).to(device)
        return Learner(
            student,
            lambda epoch: augmented_batches(placed, split.train, settings, epoch),
            lambda indices: patch_logits(module, placed, indices),
            Objective(
                criterion, settings.mixup, teacher, settings.distill, settings.hint, smoothing=settings.label_smoothing
            ),
            steps,
        )
    features = read_features(module, patches, progress=progress).to(device)
    labels = torch.from_numpy(patches.labels).to(device)
    head = nn.Sequential(nn.Dropout(settings.dropout), module.head)

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for chosen in _shuffled(split.train, settings, _generator(settings, epoch)):
            rows = send(torch.from_numpy(chosen), device)
            yield features[rows], labels[rows]

    @torch.inference_mode()
    def logits(indices: NDArray[np.int64]) -> Tensor:
        head.eval()
        rows: Tensor = head(features[indices]).float().cpu()
        return rows

    return Learner(head, batches, logits, Objective(criterion, smoothing=settings.label_smoothing), steps)


def _generator(settings: TrainSettings, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(settings.seed * 100_003 + epoch)


def _shuffled(indices: NDArray[np.int64], settings: TrainSettings, rng: torch.Generator) -> Iterator[NDArray[np.int64]]:
    """The indices of an epoch's batches; the last batch is smaller, and left out if it has a single patch."""
    order = torch.randperm(len(indices), generator=rng).numpy()
    for start in range(0, len(order), settings.batch_size):
        chosen = indices[order[start : start + settings.batch_size]]
        if len(chosen) > 1:  # batch normalization needs two
            yield chosen


def augmented_batches(
    patches: PlacedPatches, indices: NDArray[np.int64], settings: TrainSettings, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Augmented batches of one epoch, the same for the same seed and epoch.

    Yields:
        (n, B, S, S) float32 reflectance and (n,) int64 labels, on the device of `patches`.
    """
    rng = _generator(settings, epoch)
    for chosen in _shuffled(indices, settings, rng):

        def batch(chosen: NDArray[np.int64] = chosen) -> tuple[Tensor, Tensor]:
            x = settings.augmentation(patches.reflectance(chosen), patches.bands, settings.input_size, rng)
            return x, patches.labels(chosen)

        yield patches.prepared(batch, rng)


def fit(
    learner: Learner,
    patches: Patches,
    split: Split,
    settings: TrainSettings,
    checkpoint: Path,
    progress: Progress = silent,
) -> list[dict[str, float]]:
    """Trains in place; writes a checkpoint and logs the metrics after every epoch.

    Returns:
        One row per epoch (``epoch``, ``loss``, ``validation_loss``, ``validation_accuracy``, ``lr``, ``seconds``). The
        learner has the weights of the epoch with the best validation accuracy. Without validation patches there are no
        validation columns, and the last epoch is kept.
    """
    module = learner.module
    optimizer, scheduler = make_optimizer(module, settings, learner.steps)
    history: list[dict[str, float]] = []
    best: dict[str, Tensor] = {}
    if checkpoint.exists():
        saved = _read_checkpoint(checkpoint, next(module.parameters()).device)
        module.load_state_dict(saved["module"])
        optimizer.load_state_dict(saved["optimizer"])
        scheduler.load_state_dict(saved["scheduler"])
        history, best = saved["history"], saved["best"]
    labels = torch.from_numpy(patches.labels)[split.validation]
    shown = len(split.train) - (len(split.train) % settings.batch_size == 1)  # see _shuffled
    stepper = Stepper(module, learner.objective, optimizer, settings.batch_size if settings.compile else 0)
    for epoch in range(len(history) + 1, settings.epochs + 1):
        started = time.perf_counter()
        torch.manual_seed(settings.seed * 100_003 + epoch)  # dropout: a resumed run draws the same numbers
        name = f"epoch {epoch}/{settings.epochs}"

        def report(seen: int, name: str = name) -> None:
            progress(name, min(seen, shown), shown, "img")  # mosaics use some patches twice

        row = {"epoch": epoch, "loss": train_epoch(learner.batches(epoch), stepper, scheduler, report)}
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
        state = {"settings": json.dumps(settings.to_json()), "history": history, "best": best}
        _save_checkpoint(checkpoint, module, optimizer, scheduler, **state)
    module.load_state_dict(best)
    return history


def train_epoch(
    batches: Iterator[tuple[Tensor, Tensor]],
    stepper: Stepper,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    report: Callable[[int], object] = lambda _: None,
) -> float:
    """Takes a step with each batch; while a GPU takes it, the next batch is made.

    Args:
        batches: Those of an epoch.
        stepper: Takes the steps. On a GPU it does not wait for their results, which are fetched at the end.
        scheduler: Sets the learning rate after each step.
        report: Called with the number of labels used so far.

    Returns:
        The mean loss over all labels.
    """
    losses, sizes, seen = [], [], 0
    stepper.module.train()
    # On a CPU the network already uses all cores, and a second thread would only disturb it.
    with nullcontext(batches) if stepper.device.type == "cpu" else ahead(batches) as coming:
        for x, y in coming:
            losses.append(stepper(x, y))
            sizes.append(len(y))
            scheduler.step()
            seen += len(y)
            report(seen)
    total = 0.0
    for loss, size in zip(torch.stack(losses).tolist(), sizes, strict=True):
        total += loss * size
    return total / seen


def make_optimizer(
    module: nn.Module, settings: TrainSettings, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """The optimizer of a module's parameters, and its learning-rate schedule with `steps` per epoch."""
    # Biases and normalization layers are not decayed.
    decayed = [p for p in module.parameters() if p.ndim > 1]
    rest = [p for p in module.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    optimizer = kind(groups, lr=settings.lr)
    total = settings.epochs * steps
    if settings.schedule == "one-cycle" and total > 2:
        # The rise needs at least one whole step, more than a fifth of a handful.
        rise = max(0.2, 2 / total)
        return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.lr, total, pct_start=rise)
    return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


def _save_checkpoint(path: Path, module: nn.Module, optimizer: Any, scheduler: Any, **progress: Any) -> None:
    buffer = io.BytesIO()  # torch aborts the process if it cannot write to a file
    torch.save(
        {
            "module": module.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
            **progress,
        },
        buffer,
    )
    try:
        write_whole(path, buffer.getvalue())
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror}); free some space, then pass `resume=True` to resume"
        ) from error


def _read_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    try:
        saved: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        return {name: saved[name] for name in ("module", "optimizer", "scheduler", "history", "best")}
    except Exception as error:  # pickle, zipfile and torch have different errors
        raise OutputError(f"{path}: not a readable checkpoint; delete it to start the training again") from error
