"""The folder of a training run: whether it may be written, and the files in it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geocfl.core.files import parsed_json, write_whole
from geocfl.data.patches import Patches
from geocfl.errors import OutputError, UsageError
from geocfl.models.bundle import FACTS, GRAPH, WEIGHTS, Bundle
from geocfl.models.stored import FEATURES
from geocfl.training.config import TrainSettings, read_config

RUN_FILES = (
    "metrics.json",
    "checkpoint.pt",
    "checkpoint.partial",
    GRAPH,
    FEATURES,
    WEIGHTS,
    FACTS,
    "test_patches.txt",
    "skipped_patches.txt",
    "history.csv",
    "report.html",
    "config.json",
)
"""The files of a run, besides its ``figures/``, in the order in which they are deleted: if that is interrupted, the
settings are still there, but the run is not finished."""


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
        """Whether the run is finished; metrics that were cut off do not count."""
        try:
            return isinstance(parsed_json((self.path / "metrics.json").read_bytes()), dict)
        except (OSError, ValueError):
            return False

    def claim(self, settings: TrainSettings, *, resume: bool, overwrite: bool) -> bool:
        """Checks that a run may be written; changes nothing, except what a killed process left.

        It restores a ``config.json`` without end, and removes the checkpoint of a finished run.

        Returns:
            Whether there is a checkpoint to resume from.

        Raises:
            OutputError: The folder has other files, or a run that may not be replaced.
        """
        out = self.path
        if out.exists() and not out.is_dir():
            raise OutputError(f"{out}: is a file; pass another folder as `out`")
        if not out.is_dir() or not any(out.iterdir()) or self._only_begun():
            return False
        known = self._known()
        if self.finished:
            self.checkpoint.unlink(missing_ok=True)  # left if a process was killed after its metrics
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

    def _only_begun(self) -> bool:
        """Whether there is nothing but a ``config.json`` that was cut off: a run was killed at its very start."""
        names = {entry.name for entry in self.path.iterdir() if not entry.name.startswith(".config.json.")}
        return names <= {"config.json"} and self._cut_off("config.json")

    def _cut_off(self, name: str) -> bool:
        """Whether a file of JSON lacks its end or all of its content."""
        try:
            parsed_json((self.path / name).read_bytes())
        except ValueError:
            return True
        except OSError:
            return False
        return False

    def _known(self) -> TrainSettings:
        """The settings of the run in the folder; from its checkpoint if ``config.json`` was cut off, as by a power cut.

        Raises:
            OutputError: It is not a run's folder.
        """
        config = self.path / "config.json"
        if self._cut_off("config.json") and self.checkpoint.exists():
            with suppress(Exception):  # pickle, zipfile and torch have different errors
                saved = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
                write_whole(config, (json.dumps(json.loads(saved["settings"]), indent=2) + "\n").encode())
        try:
            return read_config(config)
        except UsageError:
            raise OutputError(f"{self.path}: contains other files than those of a run; pass another `out`") from None

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turns errors of writing into an `OutputError`."""
        try:
            yield
        except OSError as error:
            raise OutputError(
                f"{self.path}: cannot be written ({error.strerror or error}); free some space, then pass `resume=True` "
                "to finish the run"
            ) from error

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
        self.checkpoint.unlink(missing_ok=True)

    def _write_json(self, name: str, content: Any) -> None:
        write_whole(self.path / name, (json.dumps(content, indent=2) + "\n").encode())

    def _write_lines(self, name: str, lines: Sequence[str]) -> None:
        text = "".join(f"{line}\n" for line in lines)
        (self.path / name).write_text(text, encoding="utf-8", errors="surrogateescape", newline="\n")


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
