"""Progress on standard error: bars on a terminal, one for each task in progress, or lines of JSON for programs."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from geocfl.cli.entry import printable, printable_lines

LONGEST_NAME = 24
"""Longest name of a task to show, in characters, so that the bar fits on a narrow terminal."""


@contextmanager
def bars() -> Iterator[Bars | Lines]:
    """Shows bars on standard error, below the log, while the block runs; none if standard error is not a terminal.

    With ``GEOCFL_PROGRESS=json`` in the environment, each step is a line of JSON instead, such as
    ``{"progress": "scene.tif", "done": 20, "total": 320, "unit": "window"}``.

    Yields:
        The value for a function's `progress`.
    """
    if os.environ.get("GEOCFL_PROGRESS") == "json":
        yield Lines()
        return
    from tqdm.contrib.logging import logging_redirect_tqdm

    shown = Bars()
    with logging_redirect_tqdm([logging.getLogger("geocfl")]):
        try:
            yield shown
        finally:
            shown.close()


class Bars:
    """A `geocfl.core.progress.Progress` with tqdm bars; a bar disappears when its task is done."""

    def __init__(self) -> None:
        self._bars: dict[str, Any] = {}
        self._lock = threading.Lock()

    def __call__(self, what: str, done: int, total: int, unit: str) -> None:
        """Advances the bar of the task `what`; the first call shows it."""
        from tqdm import tqdm

        with self._lock:
            bar = self._bars.get(what)
            if bar is None and done < total:
                bar = self._bars[what] = tqdm(
                    total=total,
                    initial=done,
                    desc=_shortened(printable(what)),
                    unit=f" {unit}s",
                    miniters=1,  # calls are already rate-limited
                    dynamic_ncols=True,
                    leave=False,
                    disable=None,
                )
            if bar is not None:
                bar.update(done - bar.n)
                if done >= total:
                    self._bars.pop(what).close()

    def say(self, text: str) -> None:
        """Prints text above the bars."""
        from tqdm import tqdm

        with tqdm.external_write_mode(file=sys.stdout):
            typer.echo(printable_lines(text))

    def close(self) -> None:
        """Removes the remaining bars, for example after an error."""
        with self._lock:
            for bar in self._bars.values():
                bar.close()
            self._bars.clear()


class Lines:
    """A `geocfl.core.progress.Progress` for programs that run geocfl: a line of JSON for each step."""

    def __call__(self, what: str, done: int, total: int, unit: str) -> None:
        """Prints a line; JSON escapes whatever would break it."""
        step = {"progress": printable(what), "done": done, "total": total, "unit": unit}
        typer.echo(json.dumps(step), err=True)

    def say(self, text: str) -> None:
        """Prints text on standard output."""
        typer.echo(printable_lines(text))


def _shortened(name: str) -> str:
    half = LONGEST_NAME // 2 - 1
    return name if len(name) <= LONGEST_NAME else f"{name[:half]}..{name[-half:]}"
