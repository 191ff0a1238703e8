"""The pipeline: while one strip of a scene is classified and written, the next is read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from geocfl.core.grid import CellGrid
from geocfl.core.legend import NODATA
from geocfl.core.progress import Progress, silent
from geocfl.mapping.checkpoint import Checkpoint
from geocfl.mapping.encode import Decision
from geocfl.mapping.strips import Strip, scene_strips
from geocfl.models.backends.base import Backend
from geocfl.products.scratch import NO_CONFIDENCE
from geocfl.scenes import Scene

T = TypeVar("T")


def classify_scene(
    scene: Scene,
    bands: tuple[str, ...],
    grid: CellGrid,
    backend: Backend,
    decision: Decision,
    cell_rows: int,
    checkpoint: Checkpoint,
    max_masked: float = 0.5,
    *,
    last: int | None = None,
    progress: Progress = silent,
    turn: AbstractContextManager[Any] | None = None,
) -> float:
    """Classifies every cell of a scene, or of some of its rows, that the checkpoint does not hold yet.

    Args:
        scene: An open scene of at least one window's size.
        bands: The classifier's bands.
        grid: The scene's cells.
        backend: The classifier.
        decision: What a cell keeps of its window's probabilities.
        cell_rows: Rows of cells in a strip.
        checkpoint: Takes the results, strip by strip.
        max_masked: Share of a cell's pixels that may be masked, 0..1.
        last: Row of cells to end before, a multiple of `cell_rows`; all by default.
        progress: Told the windows that are done; what it raises stops the work after a batch.
        turn: Held while windows are classified, from when the first strip has begun to be read: a lock, where several
            scenes share the back end.

    Returns:
        Seconds from when its turn came.

    Raises:
        SceneError: The scene cannot be decoded.
    """
    strips = scene_strips(scene, bands, grid, cell_rows, checkpoint.row, max_masked, last)
    total, done = grid.rows * grid.columns, checkpoint.row * grid.columns

    def advance(cells: int) -> None:
        nonlocal done
        done += cells
        progress(scene.name, done, total, "window")

    with ahead((strip, backend.place(strip.pixels)) for strip in strips) as coming, turn or nullcontext():
        started = time.perf_counter()
        advance(0)
        for strip, placed in coming:
            cells = classify_strip(strip, placed, grid.stride, backend, decision, advance)
            checkpoint.append(cells, strip.inside, int(strip.valid.sum()), int(strip.masked.sum()))
    return time.perf_counter() - started


def classify_strip(
    strip: Strip,
    placed: Any,
    stride: int,
    backend: Backend,
    decision: Decision,
    advance: Callable[[int], object] = lambda _: None,
) -> NDArray[np.uint8]:
    """Classifies the cells of a strip that have data; the others never reach the classifier.

    Args:
        strip: From `scene_strips`.
        placed: Its pixels, as `backend` has placed them.
        stride: Side of a cell, pixels.
        backend: The classifier.
        decision: What a cell keeps of its window's probabilities.
        advance: Told how many cells each step finished.

    Returns:
        (bands, k, columns) uint8 cells of a work raster.
    """
    cells = np.full((decision.bands, *strip.valid.shape), NO_CONFIDENCE, np.uint8)
    cells[0] = NODATA
    rows, columns = np.nonzero(strip.valid)
    advance(strip.valid.size - len(rows))
    done = 0
    for probability in backend.classify(placed, rows * stride, columns * stride):
        chosen = slice(done, done + len(probability))
        cells[:, rows[chosen], columns[chosen]] = decision.of(probability)
        done += len(probability)
        advance(len(probability))
    return cells


@contextmanager
def ahead(items: Iterator[T]) -> Iterator[Iterator[T]]:
    """The same items, each made in another thread while the one before is used: two exist at a time, never more.

    The first is begun at once, before it is asked for.
    """
    end = object()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read") as pool:
        coming = pool.submit(next, items, end)

        def each() -> Iterator[T]:
            nonlocal coming
            while (item := coming.result()) is not end:
                coming = pool.submit(next, items, end)
                yield item  # type: ignore[misc]
                del item  # or the next one would be the third

        yield each()
