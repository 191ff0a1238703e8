"""The grid of a comparison: its runs, and which of them are left to train."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from geocfl.data.patches import Patches
from geocfl.data.splits import Split
from geocfl.errors import DataError, UsageError
from geocfl.experiments.leaderboard import REFERENCE
from geocfl.experiments.results import Results, patch_list_digest, relevant_settings, run_name
from geocfl.losses import loss_facts, make_loss
from geocfl.training.config import GridOptions, TrainSettings
from geocfl.training.recipe import resolve
from geocfl.training.start import training_split

LOSSES, IMBALANCES, SEEDS = ("ce", "focal", "class-focal"), ("none", "long-tail:50"), (0, 1, 2)
"""The grid by default."""


def make_grid(
    data: str | Path,
    losses: Sequence[str],
    imbalances: Sequence[str],
    seeds: Sequence[int],
    options: GridOptions,
) -> list[TrainSettings]:
    """The settings of every run: each loss under each imbalance with each seed.

    Raises:
        UsageError: A name or value is not valid, or a list is empty or has something twice.
    """
    for name, values, example in (
        ("losses", losses, LOSSES),
        ("imbalances", imbalances, IMBALANCES),
        ("seeds", seeds, SEEDS),
    ):
        if isinstance(values, str) or not isinstance(values, Sequence):
            raise UsageError(f"`{name}` is {values!r} but must be a sequence, such as {example!r}")
        if not values or len(set(values)) < len(values):
            raise UsageError(f"`{name}` must name one or more, each once")
    shared: dict[str, Any] = dict(options)
    gamma, cfl_form = shared.pop("gamma", None), shared.pop("cfl_form", None)
    return [
        resolve(
            data,
            on_model=False,
            loss=loss,
            gamma=gamma if loss_facts(loss).gamma is not None else None,
            cfl_form=cfl_form if loss == "class-focal" else None,
            imbalance=imbalance,
            seed=seed,
            **shared,
        )
        for imbalance in imbalances
        for loss in losses
        for seed in seeds
    ]


def unfinished(
    grid: Sequence[TrainSettings], patches: Patches, fingerprint: str, results: Results
) -> list[list[TrainSettings]]:
    """The runs to train, grouped by training: post-hoc losses differ only after it and share one.

    Raises:
        GeocflError: A run cannot be trained on these patches, or a finished one had other settings or patches.
    """
    groups: dict[str, list[TrainSettings]] = {}
    splits: dict[tuple[str, int], Split] = {}
    for settings in grid:
        key = settings.imbalance, settings.seed
        split = splits.get(key) or splits.setdefault(key, training_split(patches, settings))
        make_loss(settings.loss, patches.counts(split.train), settings.gamma, settings.cfl_form)
        name = run_name(settings, fingerprint)
        if name in results.runs:
            _check_run(name, results, settings, patches, split)
            continue
        shared = replace(settings, loss=REFERENCE) if loss_facts(settings.loss).posthoc else settings
        groups.setdefault(json.dumps(relevant_settings(shared)), []).append(settings)
    return list(groups.values())


def _check_run(name: str, results: Results, settings: TrainSettings, patches: Patches, split: Split) -> None:
    """Refuses a run that was trained with other defaults or split lists, which its name does not show."""
    run = results.runs[name]
    then: dict[str, Any] = relevant_settings(TrainSettings(data="")) | run.settings
    now = {"train": patches.counts(split.train), "test_sha256": patch_list_digest(patches, split.test)}
    if then != relevant_settings(settings) or now != {key: run.patches[key] for key in now}:
        raise DataError(
            f"{results.path}: the run {name} was trained with other settings or another split; delete its line to "
            "train it again"
        )
