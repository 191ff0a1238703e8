"""Comparison of losses under class imbalance: a grid of runs, each written to a file when it is finished."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import torch

from geocfl.core.files import parsed_json, write_whole
from geocfl.core.keywords import declared
from geocfl.core.progress import Progress, counted, silent
from geocfl.data.patches import Patches
from geocfl.errors import OutputError
from geocfl.evaluation.metrics import compute_metrics
from geocfl.experiments.grid import IMBALANCES, LOSSES, SEEDS, make_grid, unfinished
from geocfl.experiments.leaderboard import (
    METRICS,
    Row,
    format_rows,
    minority_recall,
    rows_frame,
    rows_html,
    summarize,
    write_tables,
)
from geocfl.experiments.results import (
    Results,
    fingerprint_of,
    pack,
    patch_list_digest,
    relevant_settings,
    run_name,
)
from geocfl.losses import loss_facts
from geocfl.models.devices import choose_device
from geocfl.training.calibrate import calibrate
from geocfl.training.config import GridOptions, TrainSettings
from geocfl.training.loop import fit, make_learner
from geocfl.training.start import check_network, start, training_patches, training_split

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("geocfl")


@dataclass(frozen=True, repr=False)
class Comparison:
    """A finished comparison.

    Attributes:
        path: Folder of the tables.
        rows: Losses by imbalance, in the given order.
    """

    path: Path
    rows: tuple[Row, ...]

    def table(self) -> str:
        """The comparison as plain text."""
        return format_rows(self.rows)

    def frame(self) -> pd.DataFrame:
        """The comparison as numbers, 0..1: means over seeds and half widths of 95 % intervals."""
        return rows_frame(self.rows)

    def __repr__(self) -> str:
        """One line: what was compared, and the folder of the tables."""
        losses, imbalances = (dict.fromkeys(getattr(row, name) for row in self.rows) for name in ("loss", "imbalance"))
        seeds = max((row.seeds for row in self.rows), default=0)
        return f"<Comparison of {', '.join(losses)} under {', '.join(imbalances)}, {seeds} seeds; in {self.path}>"

    def _repr_html_(self) -> str:
        return rows_html(self.rows)


@declared
def compare(
    data: str | Path,
    out: str | Path,
    *,
    losses: Sequence[str] = LOSSES,
    imbalances: Sequence[str] = IMBALANCES,
    seeds: Sequence[int] = SEEDS,
    results: str | Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
    progress: Progress = silent,
    **options: Unpack[GridOptions],
) -> Comparison:
    """Trains every loss under every imbalance with every seed, and writes a table of the results.

    A finished run is a line in `results`; it is read instead of trained again. An interrupted training resumes after
    its last finished epoch.

    Args:
        data: Patches in any layout that `geocfl.train` reads.
        out: Folder for ``table.csv``, ``table.md``, ``table.html`` and the checkpoints of unfinished trainings.
        losses: Names of losses, see `geocfl.losses`; they are tested against ``ce`` if it is among them.
        imbalances: Imbalances as for `geocfl.train`.
        seeds: Random seeds, each 0..4294967295; every loss is trained with each under each imbalance.
        results: File of finished runs, which is extended; None takes ``out/runs.jsonl``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        overwrite: Replace the tables of another comparison in `out`.
        progress: Called with the number of finished trainings, and with the progress of each.
        **options: Options of all runs, see `geocfl.TrainSettings`; None means not given.

    Returns:
        One row per imbalance and loss.

    Raises:
        GeocflError: A name is unknown, the data are broken, or a file cannot be written.
    """
    out = Path(out)
    grid = make_grid(data, losses, imbalances, seeds, options)
    _claim(out, grid, overwrite)
    finished = Results(Path(results) if results else out / "runs.jsonl")
    torch_device = choose_device(device)
    patches = training_patches(grid[0], progress)
    fingerprint = fingerprint_of(patches)
    groups = unfinished(grid, patches, fingerprint, finished)
    log.info("%d of %d runs are finished; %d trainings left", len(grid) - sum(map(len, groups)), len(grid), len(groups))
    if groups:  # finds missing weights and unsuitable networks before anything is written
        _, module = start(grid[0], patches, training_split(patches, grid[0]), "first", torch_device)
        for settings in grid:
            check_network(module.network, settings)
    try:
        for folder in (finished.path.parent, out):
            folder.mkdir(parents=True, exist_ok=True)
        write_whole(out / "grid.json", (json.dumps(_identity(grid), indent=2) + "\n").encode())
        (out / "checkpoints").mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"{error.filename}: cannot be written ({error.strerror}); pass another folder") from error
    for group in counted(groups, progress, "trainings", len(groups), "run"):
        _train(group, patches, fingerprint, finished, out / "checkpoints", torch_device, progress)
    runs = [finished.runs[run_name(settings, fingerprint)] for settings in grid]
    comparison = Comparison(out, tuple(summarize(runs)))
    write_tables(out, comparison.rows)
    return comparison


def _identity(grid: Sequence[TrainSettings]) -> list[dict[str, Any]]:
    return [relevant_settings(settings) for settings in grid]


def _claim(out: Path, grid: Sequence[TrainSettings], overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file; pass another folder as `out`")
    if not out.is_dir() or all(path.name.startswith(".grid.json.") for path in out.iterdir()):
        return  # killed while it wrote its first file, or never begun
    try:
        known = parsed_json((out / "grid.json").read_text())
        if not all("loss" in facts for facts in known):
            raise ValueError("not a grid")
    except (OSError, ValueError, TypeError):
        raise OutputError(f"{out}: contains other files than those of a comparison; pass another `out`") from None
    if known != _identity(grid) and not overwrite:
        raise OutputError(
            f"{out}: contains another comparison; pass `overwrite=True` to replace its tables, or another `out`"
        )


def _train(
    group: list[TrainSettings],
    patches: Patches,
    fingerprint: str,
    results: Results,
    checkpoints: Path,
    device: torch.device,
    progress: Progress,
) -> None:
    # Post-hoc losses come last because they change the network.
    group = sorted(group, key=lambda settings: loss_facts(settings.loss).posthoc)
    first = group[0]
    split = training_split(patches, first)
    model, module = start(first, patches, split, first.loss, device)
    learner = make_learner(module, model, patches, split, first, progress)
    checkpoint = checkpoints / f"{run_name(first, fingerprint)}.pt"
    started = time.perf_counter()
    history = fit(learner, patches, split, first, checkpoint, progress)
    counts = patches.counts(split.train)
    labels = torch.from_numpy(patches.labels[split.test])
    for settings in group:
        tuned = calibrate(model, module, learner, patches, split, settings, sets=False)
        logits = learner.logits(split.test)
        metrics = compute_metrics(logits, labels, patches.legend, tuned.temperature)
        recall = [row["accuracy"] for row in metrics["per_class"]]
        content = {
            "settings": relevant_settings(settings),
            "patches": {
                "source": patches.source,
                "sha256": fingerprint,
                "train": counts,
                "validation": len(split.validation),
                "test": len(split.test),
                "test_sha256": patch_list_digest(patches, split.test),
            },
            "metrics": {name: metrics[name] for name in METRICS if name in metrics}
            | {"minority_recall": minority_recall(recall, counts)},
            "recall": recall,
            "uncalibrated_ece": metrics["uncalibrated"]["ece"],
            "temperature": tuned.temperature,
            "tau": tuned.origin.get("tau"),
            "validation_accuracy": [row["validation_accuracy"] for row in history],
            "correct": pack(logits.argmax(1).eq(labels).numpy()),
            "seconds": round(time.perf_counter() - started, 1),
            "versions": tuned.origin["versions"],
        }
        results.add(run_name(settings, fingerprint), content)
    checkpoint.unlink(missing_ok=True)
