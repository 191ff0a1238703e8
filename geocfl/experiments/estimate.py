"""How long a comparison will take, from a few measured training steps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

import numpy as np
import torch

from geocfl.core.keywords import declared
from geocfl.core.progress import Progress, silent
from geocfl.data.patches import Patches
from geocfl.data.splits import STATED
from geocfl.evaluation.logits import patch_logits
from geocfl.experiments.grid import IMBALANCES, LOSSES, SEEDS, make_grid, unfinished
from geocfl.experiments.results import Results, fingerprint_of
from geocfl.losses import make_loss
from geocfl.models.devices import choose_device
from geocfl.training.config import GridOptions, TrainSettings
from geocfl.training.distillation import Objective
from geocfl.training.loop import Learner, make_learner, make_optimizer
from geocfl.training.start import start, training_patches, training_split
from geocfl.training.step import Stepper

STEPS, WARM_UP = 7, 2


@dataclass(frozen=True)
class Estimate:
    """How long a comparison will take.

    Attributes:
        runs: Number of runs in the grid.
        finished: Runs that are finished already.
        trainings: Trainings left; losses that differ only after training share one.
        step_seconds: Median time of a training step; None if nothing is left to train.
        seconds: Estimated time for all that is left, without reading the patches.
    """

    runs: int
    finished: int
    trainings: int
    step_seconds: float | None
    seconds: float

    def table(self) -> str:
        """The estimate as plain text."""
        left = f"{self.runs} runs, {self.finished} finished, {self.trainings} trainings left"
        if self.step_seconds is None:
            return left
        hours, minutes = divmod(round(self.seconds / 60), 60)
        return f"{left}: about {hours} h {minutes:02d} min at {self.step_seconds:.3f} s per step, as measured"


@declared
def estimate(
    data: str | Path,
    out: str | Path,
    *,
    losses: Sequence[str] = LOSSES,
    imbalances: Sequence[str] = IMBALANCES,
    seeds: Sequence[int] = SEEDS,
    results: str | Path | None = None,
    device: str = "auto",
    progress: Progress = silent,
    **options: Unpack[GridOptions],
) -> Estimate:
    """Estimates how long `geocfl.compare` with the same arguments will take; writes nothing.

    Steps are measured with random weights, so that no weights need to be downloaded.
    """
    grid = make_grid(data, losses, imbalances, seeds, options)
    finished_runs = Results(Path(results) if results else Path(out) / "runs.jsonl")
    patches = training_patches(grid[0], progress)
    groups = unfinished(grid, patches, fingerprint_of(patches), finished_runs)
    finished = len(grid) - sum(map(len, groups))
    if not groups:
        return Estimate(len(grid), finished, 0, None, 0.0)
    step, prediction = _time_steps(groups[0][0], patches, choose_device(device))
    # Features of a frozen backbone are computed once for every normalization, that is for every set of training
    # patches; they may be in the cache already.
    sets = 1 if grid[0].split in STATED else len({group[0].seed for group in groups})
    seconds = sets * len(patches) * prediction if grid[0].freeze else 0.0
    for group in groups:
        settings = group[0]
        split = training_split(patches, settings)
        seconds += settings.epochs * -(-len(split.train) // settings.batch_size) * step
        if not settings.freeze:
            seconds += (settings.epochs * len(split.validation) + len(split.test)) * prediction
    return Estimate(len(grid), finished, len(groups), step, seconds)


def _time_steps(settings: TrainSettings, patches: Patches, device: torch.device) -> tuple[float, float]:
    """Median seconds of a training step, and seconds that the whole network needs to classify a patch."""
    settings = replace(settings, weights="none", teacher=(), compile=False)
    split = training_split(patches, settings)
    model, module = start(settings, patches, split, "measured", device)
    few = split.train[: settings.batch_size]
    x, y = torch.from_numpy(patches.reflectance(few)), torch.from_numpy(patches.labels[few])
    patch_logits(module, patches, few)
    started = time.perf_counter()
    patch_logits(module, patches, few)
    prediction = (time.perf_counter() - started) / len(few)
    criterion = make_loss(settings.loss, patches.counts(split.train), settings.gamma, settings.cfl_form)
    if settings.freeze:
        learner = Learner(module.head, lambda _: iter(()), lambda _: x, Objective(criterion), STEPS)
        with torch.no_grad():
            x = module.features(x.to(device))
    else:
        learner = replace(make_learner(module, model, patches, split, settings), objective=Objective(criterion))
    optimizer = make_optimizer(learner.module, settings, steps=STEPS)[0]
    stepper, times = Stepper(learner.module, learner.objective, optimizer), []
    for _ in range(STEPS):
        started = time.perf_counter()
        stepper(x, y).item()  # waits for the device
        times.append(time.perf_counter() - started)
    return float(np.median(times[WARM_UP:])), prediction
