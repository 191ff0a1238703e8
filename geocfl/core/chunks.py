"""Computes rows of large arrays on all cores, a few rows at a time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from geocfl.core.machine import cores

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


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores(), thread_name_prefix="chunk")
