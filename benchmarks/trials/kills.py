"""Kills commands and runs them again: the result has to be that of an undisturbed run, and nothing may be left over.

Half of the kills come at moments that are spread evenly over what the command does with files: the process kills
itself before its n-th such event, as Python's audit hooks report them. The other half come at random times.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from trials.inputs import Case
from trials.processes import Outcome, geocfl, preload_model
from trials.work import STRIP_ROWS, Job, difference, jobs, written

EVENTS = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.listdir", "shutil.rmtree"})
SHARES = {"map": 5, "maps": 2, "train": 3, "mosaic": 3, "virtual": 1, "regions": 3, "table": 2, "areas": 2}
"""Shares of the kills."""


def kill_all(folder: Path, count: int, seed: int, only: str = "") -> Iterator[Case]:
    """Kills each command several times.

    Args:
        folder: An empty folder to work in.
        count: Kills in total, about.
        seed: Of the random moments.
        only: Names of the commands to kill, separated by commas; empty for all.
    """
    commands = jobs(folder)
    preload_model(folder / "tiny")
    shares = {name: share for name, share in SHARES.items() if name in (only.split(",") if only else SHARES)}
    for name, share in shares.items():
        yield from _kill(folder, commands[name], max(2, round(count * share / sum(shares.values()))), seed)


def _kill(folder: Path, job: Job, count: int, seed: int) -> Iterator[Case]:
    with _folder(folder) as work:
        events, started = work / "events", time.monotonic()
        outcome = _run(job, work, before=lambda: _watched(work, 0, events))
        seconds, right = time.monotonic() - started, written(work / "out")
        assert (outcome.code, outcome.defect) == (0, ""), (job.row, outcome)
        total = int(events.read_text())
    with _folder(folder) as work:
        _run(job, work)
        assert not (differs := difference(written(work / "out"), right)), f"undisturbed, {job.row} differs: {differs}"
    rng = np.random.default_rng([seed, len(job.arguments)])
    for number in range(count):
        with _folder(folder) as work:
            if number % 2 == 0:
                event = 1 + (number * total) // count
                said = f"before event {event} of {total}"
                first = _run(job, work, before=lambda event=event: _watched(work, event))
            else:
                moment = rng.uniform(0.1, 1) * seconds
                said = f"after {moment:.2f} of {seconds:.2f} s"

                def end(process: int, age: float, moment: float = moment) -> None:
                    if age > moment:
                        os.kill(process, signal.SIGKILL)

                first = _run(job, work, watch=end)
            left = sorted(written_names(work))
            if first.code >= 0:
                said = f"too late, {said}"
            again = _run(job, work)
            yield Case(job.row, number, said, *_verdict(job, first, again, work, right, left), again.peak_mb)


def written_names(work: Path) -> list[str]:
    return [str(file.relative_to(work / "out")) for file in (work / "out").rglob("*") if file.is_file()]


def _verdict(job: Job, first: Outcome, again: Outcome, work: Path, right: Any, left: list[str]) -> tuple[str, str]:
    if again.defect:
        return again.defect, again.err[-3000:]
    differs = difference(written(work / "out"), right)
    if again.code and job.finished not in again.err:
        return "not resumed", f"{again.reason}; after the kill: {left}; {differs}"
    if differs:
        return "not the same", f"{differs}; after the kill: {left}; {again.reason}"
    temporary = [file.name for file in (work / "tmp").iterdir() if file.name != "cache"]
    return "the same", f"temporary files: {temporary}" if temporary else ""


def _run(job: Job, work: Path, *, before: Any = None, watch: Any = None) -> Outcome:
    def prepare() -> None:
        from geocfl.mapping import memory

        memory.STRIP_ROWS = STRIP_ROWS
        if before:
            before()

    environment = {"TMPDIR": str(work / "tmp"), "GEOCFL_CACHE": str(work / "tmp/cache")}
    return geocfl(job.into(work / "out"), environment=environment, before=prepare, watch=watch)


def _watched(work: Path, last: int, count_in: Path | None = None) -> None:
    """Counts the events on files below a folder; kills this process before event `last`, or writes their number."""
    begin, count = str(work / "out"), 0
    descriptor = os.open(count_in, os.O_CREAT | os.O_RDWR) if count_in else 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event in EVENTS and str(arguments[0]).startswith(begin):
            count += 1
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)
            if descriptor:
                os.pwrite(descriptor, str(count).encode(), 0)

    sys.addaudithook(hook)


@contextmanager
def _folder(parent: Path) -> Iterator[Path]:
    work = parent / "work"  # always the same, since reports name files
    for folder in (work / "tmp", work / "out"):
        folder.mkdir(parents=True)
    try:
        yield work
    finally:
        shutil.rmtree(work)
