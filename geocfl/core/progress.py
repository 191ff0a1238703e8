"""Progress of long work, reported to a callback; the library itself prints nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """Callback that every long function of geocfl accepts as ``progress``."""

    def __call__(self, what: str, done: int, total: int, unit: str) -> object:
        """Reports how much of a piece of work is done; called from any thread, and at the end with `done` = `total`.

        Args:
            what: The piece of work, such as ``"scene.tif"`` or ``"epoch 3/20"``; several may run at the same time.
            done: Units done so far, including those of an earlier, interrupted run.
            total: Units in total.
            unit: What is counted, such as ``"window"``.
        """


def silent(what: str, done: int, total: int, unit: str) -> None:
    """Reports nothing."""


def counted(items: Iterable[T], progress: Progress, what: str, total: int, unit: str) -> Iterator[T]:
    """Yields the items, and reports each one that the caller has finished."""
    progress(what, 0, total, unit)
    for done, item in enumerate(items, start=1):
        yield item
        progress(what, done, total, unit)
