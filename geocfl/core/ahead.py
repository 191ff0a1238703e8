"""Does in another thread what is needed next: the next item of an iterator, or the import of a module."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def ahead(items: Iterator[T]) -> Iterator[Iterator[T]]:
    """Makes each item in another thread while the previous one is used; at most two exist at a time.

    The first one is started at once.
    """
    end = object()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead") as pool:
        coming = pool.submit(next, items, end)

        def each() -> Iterator[T]:
            nonlocal coming
            while (item := coming.result()) is not end:
                coming = pool.submit(next, items, end)
                yield item  # type: ignore[misc]
                del item  # otherwise three would exist

        yield each()


def import_ahead(module: str) -> None:
    """Imports a module in another thread, so that a later import of it takes no time."""

    def load() -> None:
        with suppress(Exception):  # raised again by the later import
            importlib.import_module(module)

    threading.Thread(target=load, name="import").start()
