"""Comparison of losses under class imbalance: a grid of trainings, each finished cell a small file."""

from __future__ import annotations

import hashlib
import json
import os
import time
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from geocfl.core.progress import Progress, counted, silent
from geocfl.data.patches import Patches
from geocfl.data.splits import Split
from geocfl.errors import DataError, OutputError, UsageError
from geocfl.evaluation.metrics import compute_metrics
from geocfl.experiments.leaderboard import (
    FIGURES,
    REFERENCE,
    Cell,
    Row,
    format_rows,
    minority_recall,
    rows_frame,
    rows_html,
    summarise,
    write_tables,
)
from geocfl.losses import loss_facts, make_loss
from geocfl.models.bundle import Bundle
from geocfl.models.network import choose_device
from geocfl.training.config import Settings, current_names, resolve
from geocfl.training.distillation import Objective
from geocfl.training.loop import Learner, fit, make_learner, make_optimiser, predict, train_step
from geocfl.training.train import calibrate, load_patches, split_patches, start

if TYPE_CHECKING:
    import pandas as pd

FORMAT_VERSION = 1
# Where the patches lie and how fast a step is do not change what a cell computes.
IRRELEVANT = ("data", "compile", "refit", "skip_bad")


@dataclass(frozen=True, repr=False)
class Comparison:
    """A finished grid.

    Attributes:
        path: Folder of the tables.
        rows: Losses by imbalance, in the order they were asked for.
    """

    path: Path
    rows: tuple[Row, ...]

    def table(self) -> str:
        """The comparison as plain text."""
        return format_rows(self.rows)

    def frame(self) -> pd.DataFrame:
        """The comparison as numbers, 0..1: means over seeds, half widths of 95 % intervals, by imbalance and loss."""
        return rows_frame(self.rows)

    def __repr__(self) -> str:
        """One line: what was compared, where the tables are."""
        losses, imbalances = (dict.fromkeys(getattr(row, name) for row in self.rows) for name in ("loss", "imbalance"))
        seeds = max((row.seeds for row in self.rows), default=0)
        return f"<Comparison of {', '.join(losses)} under {', '.join(imbalances)}, {seeds} seeds; in {self.path}>"

    def _repr_html_(self) -> str:
        return rows_html(self.rows)


@dataclass(frozen=True)
class Plan:
    """What a grid will take.

    Attributes:
        cells: Cells of the grid.
        finished: Cells whose results lie there already.
        trainings: Trainings left; losses that differ after training share one.
        step_seconds: Median of the measured steps; None where nothing is left to train.
        seconds: Estimate for all that is left, without reading the patches.
    """

    cells: int
    finished: int
    trainings: int
    step_seconds: float | None
    seconds: float

    def table(self) -> str:
        """The plan as plain text."""
        lines = f"{self.cells} cells, {self.finished} finished, {self.trainings} trainings to do"
        if self.step_seconds is None:
            return lines
        hours, minutes = divmod(round(self.seconds / 60), 60)
        return f"{lines}: about {hours} h {minutes:02d} min at {self.step_seconds:.3f} s a step, as measured"


def compare(
    data: str | Path,
    out: str | Path,
    *,
    losses: Sequence[str] = ("ce", "focal", "class-focal"),
    imbalance: Sequence[str] = ("none", "long-tail:50"),
    seeds: int = 3,
    results: str | Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
    progress: Progress = silent,
    **options: Any,
) -> Comparison:
    """Trains every loss under every imbalance with every seed, and writes the table of what came of it.

    A cell that is finished is a small JSON file in `results`, and is read instead of trained; a training that was
    killed goes on from its last epoch.

    Args:
        data: Patches, as for `geocfl.train`.
        out: Folder for ``table.csv``, ``table.md``, ``table.html`` and unfinished trainings' checkpoints.
        losses: Keys of `geocfl.losses.LOSSES`; tested against ``ce`` where it is among them.
        imbalance: As for `geocfl.train`.
        seeds: How many; they are 0, 1, ...
        results: Folder of the cells; ``out/cells`` by default.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        overwrite: Replace the tables of another grid in `out`.
        progress: Told how many trainings are done, and how far each one is.
        **options: Other fields of `geocfl.training.config.Settings`, for all cells.

    Raises:
        GeocflError: A name that is not known, bad data, an `out` that cannot be written.
    """
    out = Path(out)
    results = Path(results) if results else out / "cells"
    grid = _grid(data, losses, imbalance, seeds, options)
    _claim(out, grid, overwrite)
    torch_device = choose_device(device)
    patches = load_patches(grid[0], progress)
    fingerprint = _fingerprint(patches)
    groups = _unfinished(grid, patches, fingerprint, results)
    if groups:  # what cannot be had is found out before anything is written
        start(grid[0], patches, split_patches(patches, grid[0]), "first", torch_device)
    try:
        (out / "checkpoints").mkdir(parents=True, exist_ok=True)
        results.mkdir(parents=True, exist_ok=True)
        (out / "grid.json").write_text(json.dumps(_identity(grid), indent=2) + "\n")
    except OSError as error:
        raise OutputError(f"{error.filename}: cannot be written ({error.strerror}); pass another folder") from error
    for group in counted(groups, progress, "trainings", len(groups), "run"):
        _train(group, patches, fingerprint, results, out / "checkpoints", torch_device, progress)
    cells = [_read(_file(settings, fingerprint, results)) for settings in grid]
    comparison = Comparison(out, tuple(summarise(cells)))
    write_tables(out, comparison.rows)
    return comparison


def plan(
    data: str | Path,
    out: str | Path,
    *,
    losses: Sequence[str] = ("ce", "focal", "class-focal"),
    imbalance: Sequence[str] = ("none", "long-tail:50"),
    seeds: int = 3,
    results: str | Path | None = None,
    device: str = "auto",
    **options: Any,
) -> Plan:
    """What `compare` of the same arguments would train and, from a few measured steps, how long that would take.

    Nothing is written. Steps are measured with random weights: those that are to be used may yet have to be downloaded.
    """
    results = Path(results) if results else Path(out) / "cells"
    grid = _grid(data, losses, imbalance, seeds, options)
    patches = load_patches(grid[0])
    fingerprint = _fingerprint(patches)
    groups = _unfinished(grid, patches, fingerprint, results)
    finished = len(grid) - sum(map(len, groups))
    if not groups:
        return Plan(len(grid), finished, 0, None, 0.0)
    step, prediction = _measure(groups[0][0], patches, choose_device(device))
    # Activations of a frozen backbone are computed once for every normalisation, that is for every training half; they
    # may be in the cache already.
    halves = 1 if grid[0].split == "spatial" else len({group[0].seed for group in groups})
    seconds = halves * len(patches) * prediction if grid[0].freeze else 0.0
    for group in groups:
        settings = group[0]
        split = split_patches(patches, settings)
        seconds += settings.epochs * -(-len(split.train) // settings.batch_size) * step
        if not settings.freeze:
            seconds += (settings.epochs * len(split.validation) + len(split.test)) * prediction
    return Plan(len(grid), finished, len(groups), step, seconds)


def _grid(
    data: str | Path, losses: Sequence[str], imbalance: Sequence[str], seeds: int, options: dict[str, Any]
) -> list[Settings]:
    if seeds < 1:
        raise UsageError("--seeds must be at least 1")
    for name, values in (("losses", losses), ("imbalance", imbalance)):
        if not values or len(set(values)) < len(values):
            raise UsageError(f"--{name} must name one or more, each once")
    gamma = options.pop("gamma", None)
    return [
        resolve(
            str(data),
            loss=loss,
            gamma=gamma if loss_facts(loss).gamma is not None else None,
            cfl_form=options.get("cfl_form") if loss == "class-focal" else None,
            imbalance=how,
            seed=seed,
            **{name: value for name, value in options.items() if name != "cfl_form"},
        )
        for how in imbalance
        for loss in losses
        for seed in range(seeds)
    ]


def _relevant(settings: Settings) -> dict[str, Any]:
    facts = {name: value for name, value in settings.to_json().items() if name not in IRRELEVANT}
    if Path(settings.weights).is_file():
        facts["weights"] = f"sha256:{hashlib.sha256(Path(settings.weights).read_bytes()).hexdigest()}"
    return facts


def _identity(grid: Sequence[Settings]) -> list[dict[str, Any]]:
    return [_relevant(settings) for settings in grid]


def _claim(out: Path, grid: Sequence[Settings], overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file; pass another folder as --out")
    if not out.is_dir() or not any(out.iterdir()):
        return
    try:
        known = json.loads((out / "grid.json").read_text())
        if not all("loss" in facts for facts in known):
            raise ValueError("not a grid")
    except (OSError, ValueError, TypeError):
        raise OutputError(f"{out}: holds something else than a comparison; pass another --out") from None
    if known != _identity(grid) and not overwrite:
        raise OutputError(f"{out}: holds another comparison; pass --overwrite to replace its tables, or another --out")


def _fingerprint(patches: Patches) -> str:
    """Of names, labels, pixels and radiometry: what the cells were trained and tested on."""
    digest = hashlib.sha256(repr((patches.names, patches.bands, patches.scaling)).encode())
    digest.update(patches.labels.tobytes())
    digest.update(np.ascontiguousarray(patches.pixels).tobytes())
    return digest.hexdigest()


def _file(settings: Settings, fingerprint: str, results: Path) -> Path:
    # Settings at their defaults are left out, so that a setting added later leaves old cells what they are.
    defaults = _relevant(Settings(data=""))
    chosen = {name: value for name, value in _relevant(settings).items() if value != defaults[name]}
    digest = hashlib.sha256(json.dumps([chosen, fingerprint], sort_keys=True).encode()).hexdigest()
    frozen = "-frozen" if settings.freeze else ""
    name = f"{settings.split}_{settings.backbone}{frozen}_{settings.imbalance}_{settings.loss}_{settings.seed}"
    return results / f"{name.replace(':', '-')}_{digest[:10]}.json"


def _unfinished(grid: Sequence[Settings], patches: Patches, fingerprint: str, results: Path) -> list[list[Settings]]:
    """The cells to train, those that share a training together: post-hoc losses differ only after it.

    Raises:
        GeocflError: A cell cannot be trained on these patches, or a finished one is of other settings or patches.
    """
    groups: dict[str, list[Settings]] = {}
    splits: dict[tuple[str, int], Split] = {}
    for settings in grid:
        key = settings.imbalance, settings.seed
        split = splits.get(key) or splits.setdefault(key, split_patches(patches, settings))
        make_loss(settings.loss, patches.counts(split.train), settings.gamma, settings.cfl_form)
        file = _file(settings, fingerprint, results)
        if file.is_file():
            _check_cell(file, _read(file), settings, patches, split)
            continue
        shared = replace(settings, loss=REFERENCE) if loss_facts(settings.loss).posthoc else settings
        groups.setdefault(json.dumps(_relevant(shared)), []).append(settings)
    return list(groups.values())


def _check_cell(file: Path, cell: Cell, settings: Settings, patches: Patches, split: Split) -> None:
    """Refuses a cell whose defaults or lists were others when it was trained, which its name does not show."""
    then = _relevant(Settings(data="")) | cell.settings
    parts = {"train": patches.counts(split.train), "test_sha256": _digest(patches, split.test)}
    if then != _relevant(settings) or parts != {name: cell.patches[name] for name in parts}:
        raise DataError(f"{file}: a cell of other settings or another split; delete it to train it again")


def _digest(patches: Patches, indices: NDArray[np.int64]) -> str:
    return hashlib.sha256("\n".join(patches.names[i] for i in indices).encode()).hexdigest()


def _train(
    group: list[Settings],
    patches: Patches,
    fingerprint: str,
    results: Path,
    checkpoints: Path,
    device: torch.device,
    progress: Progress,
) -> None:
    # Adjusting the logits afterwards changes the network, and comes last.
    group = sorted(group, key=lambda settings: loss_facts(settings.loss).posthoc)
    first = group[0]
    split = split_patches(patches, first)
    model, module = start(first, patches, split, first.loss, device)
    learner = make_learner(module, model, patches, split, first, progress)
    checkpoint = checkpoints / f"{_file(first, fingerprint, results).stem}.pt"
    started = time.perf_counter()
    history = fit(learner, patches, split, first, checkpoint, progress)
    counts = patches.counts(split.train)
    labels = torch.from_numpy(patches.labels[split.test])
    for settings in group:
        tuned = calibrate(model, module, learner, patches, split, settings)
        logits = learner.logits(split.test)
        figures = compute_metrics(logits, labels, patches.legend, tuned.temperature)
        content = {
            "format_version": FORMAT_VERSION,
            "settings": _relevant(settings),
            "patches": {
                "source": patches.source,
                "sha256": fingerprint,
                "train": counts,
                "validation": len(split.validation),
                "test": len(split.test),
                "test_sha256": _digest(patches, split.test),
            },
            "figures": {name: figures[name] for name in FIGURES if name in figures}
            | {"minority_recall": minority_recall([row["accuracy"] for row in figures["per_class"]], counts)},
            "recall": [row["accuracy"] for row in figures["per_class"]],
            "uncalibrated_ece": figures["uncalibrated"]["ece"],
            "temperature": tuned.temperature,
            "tau": tuned.origin.get("tau"),
            "validation_accuracy": [row["validation_accuracy"] for row in history],
            "correct": _pack(logits.argmax(1).eq(labels).numpy()),
            "seconds": round(time.perf_counter() - started, 1),
            "versions": _versions(tuned),
        }
        _write_cell(_file(settings, fingerprint, results), content)
    checkpoint.unlink(missing_ok=True)


def _versions(model: Bundle) -> dict[str, str]:
    versions: dict[str, str] = model.origin["versions"]
    return versions


def _pack(correct: NDArray[np.bool_]) -> dict[str, Any]:
    return {"n": len(correct), "bits": b64encode(np.packbits(correct).tobytes()).decode()}


def _unpack(packed: dict[str, Any]) -> NDArray[np.bool_]:
    bits = np.frombuffer(b64decode(packed["bits"]), np.uint8)
    return np.unpackbits(bits, count=packed["n"]).astype(bool)


def _write_cell(file: Path, content: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(json.dumps(content, indent=1) + "\n")
    partial.replace(file)


def _read(file: Path) -> Cell:
    try:
        content = json.loads(file.read_text())
        if content["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format {content['format_version']}")
        return Cell(
            current_names(content["settings"]), content["figures"], _unpack(content["correct"]), content["patches"]
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{file}: not a readable cell of a comparison ({error}); delete it to train it again"
        ) from error


def _measure(settings: Settings, patches: Patches, device: torch.device) -> tuple[float, float]:
    """Median seconds of a training step, and seconds of the whole network's prediction of one patch."""
    settings = replace(settings, weights="none", teacher="", compile=False)
    split = split_patches(patches, settings)
    model, module = start(settings, patches, split, "measured", device)
    few = split.train[: settings.batch_size]
    x, y = torch.from_numpy(patches.reflectance(few)), torch.from_numpy(patches.labels[few])
    predict(module, patches, few)
    started = time.perf_counter()
    predict(module, patches, few)
    prediction = (time.perf_counter() - started) / len(few)
    criterion = make_loss(settings.loss, patches.counts(split.train), settings.gamma, settings.cfl_form)
    if settings.freeze:
        learner = Learner(module.head, lambda _: iter(()), lambda _: x, Objective(criterion))
        with torch.no_grad():
            x = module.features(x.to(device))
    else:
        learner = replace(make_learner(module, model, patches, split, settings), objective=Objective(criterion))
    optimiser = make_optimiser(learner.module, settings, steps=7)[0]
    times = []
    for _ in range(7):
        started = time.perf_counter()
        train_step(learner.module, learner, optimiser, x, y)
        times.append(time.perf_counter() - started)
    return float(np.median(times[2:])), prediction
