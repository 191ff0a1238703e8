"""The folder of a training run: whether it may be written, and the files in it."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from geocfl.data.patches import Patches
from geocfl.errors import OutputError, UsageError
from geocfl.models.bundle import FACTS, WEIGHTS, Bundle
from geocfl.training.config import TrainSettings, read_config

RUN_FILES = (
    "config.json",
    "checkpoint.pt",
    "checkpoint.partial",
    WEIGHTS,
    FACTS,
    "test_patches.txt",
    "skipped_patches.txt",
    "history.csv",
    "report.html",
    "metrics.json",
)
"""The files of a run, besides its ``figures/``."""


@dataclass(frozen=True)
class RunFolder:
    """Writes the files of a run. ``metrics.json`` is written last: a run that has it is finished.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def checkpoint(self) -> Path:
        """The state of an unfinished training."""
        return self.path / "checkpoint.pt"

    @property
    def finished(self) -> bool:
        """Whether the run is finished."""
        return (self.path / "metrics.json").is_file()

    def claim(self, settings: TrainSettings, *, resume: bool, overwrite: bool) -> bool:
        """Checks that a run may be written; changes nothing.

        Returns:
            Whether there is a checkpoint to resume from.

        Raises:
            OutputError: The folder has other files, or a run that may not be replaced.
        """
        out = self.path
        if out.exists() and not out.is_dir():
            raise OutputError(f"{out}: is a file; pass another folder as `out`")
        if not out.is_dir() or not any(out.iterdir()):
            return False
        try:
            known = read_config(out / "config.json")
        except UsageError:
            raise OutputError(f"{out}: contains other files than those of a run; pass another `out`") from None
        if resume and not self.finished:
            if known != settings:
                raise OutputError(
                    f"{out}: contains a run with other settings; repeat its command, or pass `overwrite=True` without "
                    "`resume`"
                )
            return self.checkpoint.exists()
        if not overwrite:
            remedy = "`overwrite=True` to replace it" if self.finished else "`resume=True` to resume it"
            raise OutputError(
                f"{out}: already contains a run; pass {remedy}, or another `out`", page="how-to/training/"
            )
        return False

    def begin(self, settings: TrainSettings) -> None:
        """Deletes an earlier run and writes ``config.json``."""
        try:
            self.discard()
            self.path.mkdir(parents=True, exist_ok=True)
            self._write_json("config.json", settings.to_json())
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror}); pass another `out`") from error

    def discard(self) -> None:
        """Deletes the files of a run, and its folder if nothing else is in it."""
        figures = self.path / "figures"
        for file in (*(self.path / name for name in RUN_FILES), *figures.glob("*.png"), *figures.glob("*.svg")):
            file.unlink(missing_ok=True)
        for folder in (figures, self.path):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def finish(
        self,
        model: Bundle,
        metrics: Mapping[str, Mapping[str, Any]],
        *,
        history: Sequence[Mapping[str, float]],
        patches: Patches,
        test: NDArray[np.int64],
        logits: Tensor,
    ) -> None:
        """Writes what is left when the model has been saved and evaluated, and deletes the checkpoint.

        Args:
            model: The evaluated model, in this folder; its metrics go into ``model.json``.
            metrics: Content of ``metrics.json``.
            history: Content of ``history.csv``.
            patches: The data set.
            test: (n,) indices of the test patches.
            logits: (n, C) of the test patches.
        """
        from geocfl.evaluation.report import write_report  # imports matplotlib

        model.write_facts(self.path)
        self._write_lines("test_patches.txt", [patches.names[i] for i in test])
        if patches.skipped:
            self._write_lines("skipped_patches.txt", patches.skipped)
        with (self.path / "history.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(history[0]))
            writer.writeheader()
            writer.writerows(history)
        write_report(self.path, model, metrics, history=history, patches=patches, indices=test, logits=logits)
        self._write_json("metrics.json", metrics)
        self.checkpoint.unlink()

    def _write_json(self, name: str, content: Any) -> None:
        (self.path / name).write_text(json.dumps(content, indent=2) + "\n")

    def _write_lines(self, name: str, lines: Sequence[str]) -> None:
        (self.path / name).write_text("".join(f"{line}\n" for line in lines))


def validated_run(settings: TrainSettings) -> Bundle | None:
    """The model of the run in `settings.refit`; None without one.

    Its teacher and initial weights may differ: those of the first run must not know the validation patches, those of
    the second may.

    Raises:
        UsageError: It is not a finished run, or its settings differ.
        ModelError: Its model cannot be read.
    """
    if not settings.refit:
        return None
    folder = RunFolder(Path(settings.refit))
    if not folder.finished:
        raise UsageError(f"{folder.path}: not a finished run; finish it with `resume=True`, or pass another `refit`")
    run, known = Bundle.load(folder.path), read_config(folder.path / "config.json")
    if known != replace(settings, refit="", teacher=known.teacher, weights=known.weights):
        raise UsageError(f"{folder.path}: this run has other settings; repeat them here, or pass another `refit`")
    return run
