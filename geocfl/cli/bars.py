"""Progress on the terminal: a bar for each piece of work that is under way."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

LONGEST_NAME = 24
"""Characters of a piece of work's name that are shown, so that a narrow terminal has room for the bar."""


@contextmanager
def bars() -> Iterator[Bars]:
    """Bars on standard error while the block runs, below what is logged; none where that is no terminal.

    Yields:
        What to pass as `progress`.
    """
    from tqdm.contrib.logging import logging_redirect_tqdm

    shown = Bars()
    with logging_redirect_tqdm([logging.getLogger("geocfl")]):
        try:
            yield shown
        finally:
            shown.close()


class Bars:
    """A `geocfl.core.progress.Progress` of tqdm bars; a bar disappears when its work is done."""

    def __init__(self) -> None:
        self._bars: dict[str, Any] = {}
        self._lock = threading.Lock()

    def __call__(self, what: str, done: int, total: int, unit: str) -> None:
        """Moves the bar of `what`, which appears when first heard of."""
        from tqdm import tqdm

        with self._lock:
            bar = self._bars.get(what)
            if bar is None and done < total:
                bar = self._bars[what] = tqdm(
                    total=total,
                    initial=done,
                    desc=_shortened(what),
                    unit=f" {unit}s",
                    miniters=1,  # it is told now and then already
                    dynamic_ncols=True,
                    leave=False,
                    disable=None,
                )
            if bar is not None:
                bar.update(done - bar.n)
                if done >= total:
                    self._bars.pop(what).close()

    def say(self, text: str) -> None:
        """Prints above the bars."""
        from tqdm import tqdm

        with tqdm.external_write_mode(file=sys.stdout):
            typer.echo(text)

    def close(self) -> None:
        """Takes away what is still shown, as after an error."""
        with self._lock:
            for bar in self._bars.values():
                bar.close()
            self._bars.clear()


def _shortened(name: str) -> str:
    half = LONGEST_NAME // 2 - 1
    return name if len(name) <= LONGEST_NAME else f"{name[:half]}..{name[-half:]}"
