"""Computes on all cores: rows of large arrays, a few at a time, or one item after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

from geocfl.core.machine import cores

T = TypeVar("T")
R = TypeVar("R")

CHUNK = 1 << 18
"""Pixels at once: a few bands of them stay in a core's cache, and a chunk outweighs the start of its task."""


def in_chunks(work: Callable[[slice], object], rows: int, columns: int) -> None:
    """Calls a function for consecutive slices of rows, from several threads.

    Args:
        work: Computes a slice of the rows independently of all others; NumPy lets threads compute at once.
        rows: Number of rows.
        columns: Pixels in a row.
    """
    step = max(1, CHUNK // max(1, columns))
    chunks = [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
    if len(chunks) < 2:
        for chunk in chunks:
            work(chunk)
        return
    for _ in _pool().map(work, chunks):
        pass


def on_all_cores(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """The results of a function for each item, in their order; all of them are started at once."""
    return _pool().map(work, items)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores(), thread_name_prefix="chunk")
