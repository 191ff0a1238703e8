"""How far long work has come: told to whoever asks for it; the library itself prints nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """What every function of geocfl that takes long accepts as ``progress``."""

    def __call__(self, what: str, done: int, total: int, unit: str) -> object:
        """Told now and then how far a piece of work is; called from any thread, once more when `done` is `total`.

        Args:
            what: The piece of work, such as ``"scene.tif"`` or ``"epoch 3/20"``; several may be under way.
            done: Units done so far, those of an earlier, interrupted run included.
            total: Units in all.
            unit: What is counted, such as ``"window"``.
        """


def silent(what: str, done: int, total: int, unit: str) -> None:
    """The progress of who does not ask."""


def counted(items: Iterable[T], progress: Progress, what: str, total: int, unit: str) -> Iterator[T]:
    """The same items; `progress` is told whenever one has been dealt with."""
    progress(what, 0, total, unit)
    for done, item in enumerate(items, start=1):
        yield item
        progress(what, done, total, unit)
