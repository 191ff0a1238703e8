"""The folder of a training run: whether it may be written, what lies in it, how it is cleared."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from geocfl.errors import OutputError, UsageError
from geocfl.models.bundle import FACTS, WEIGHTS, Bundle
from geocfl.training.config import Settings, read_config

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
"""What a run folder holds, beside its figures."""


def claim(out: Path, settings: Settings, resume: bool, overwrite: bool) -> bool:
    """Whether to go on from a checkpoint in `out`; refuses a folder that may not be written."""
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file; pass another folder as --out")
    if not out.is_dir() or not any(out.iterdir()):
        return False
    config, finished = out / "config.json", (out / "metrics.json").exists()
    try:
        read_config(config)
    except UsageError:
        raise OutputError(f"{out}: holds something else than a run; pass another --out") from None
    if resume and not finished:
        if not _holds(config, settings):
            raise OutputError(
                f"{out}: holds a run of other settings; repeat its command, or pass --overwrite without --resume"
            )
        return (out / "checkpoint.pt").exists()
    if not overwrite:
        remedy = "--overwrite to replace it" if finished else "--resume to go on with it"
        raise OutputError(f"{out}: already holds a run; pass {remedy}, or another --out", page="how-to/training/")
    return False


def begin(out: Path, settings: Settings) -> None:
    """Clears `out` of an earlier run and writes the settings of the new one."""
    try:
        discard(out)
        out.mkdir(parents=True, exist_ok=True)
        (out / "config.json").write_text(json.dumps(settings.to_json(), indent=2) + "\n")
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror}); pass another --out") from error


def discard(out: Path) -> None:
    """Removes a run; its folder too, unless it holds something else."""
    figures = out / "figures"
    for file in (*(out / name for name in RUN_FILES), *figures.glob("*.png"), *figures.glob("*.svg")):
        file.unlink(missing_ok=True)
    for folder in (figures, out):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def validated_run(settings: Settings) -> Bundle | None:
    """The model of the run that `settings.refit` names.

    Its teacher may be another one: a teacher of the first run must not know the validation patches, that of the
    second may.

    Raises:
        ModelError: It is no finished run.
        UsageError: Its settings are others.
    """
    if not settings.refit:
        return None
    run = Bundle.load(settings.refit)
    config = Path(settings.refit) / "config.json"
    if not (Path(settings.refit) / "metrics.json").is_file():
        raise UsageError(f"--refit {settings.refit}: not a finished run; finish it with --resume, or pass another")
    try:
        facts = json.loads(config.read_text())
    except (OSError, ValueError):
        facts = {}
    if facts != replace(settings, refit="", teacher=facts.get("teacher", "")).to_json():
        raise UsageError(f"--refit {settings.refit}: that run has other settings than this command; repeat them here")
    return run


def _holds(config: Path, settings: Settings) -> bool:
    try:
        return bool(json.loads(config.read_text()) == settings.to_json())
    except (OSError, ValueError):
        return False
