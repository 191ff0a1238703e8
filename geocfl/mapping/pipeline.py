"""The pipeline: reads the next strip of a scene while the current one is classified."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geocfl.core.ahead import ahead
from geocfl.core.grid import CellGrid
from geocfl.core.legend import NODATA, UNCLASSIFIED
from geocfl.core.progress import Progress, silent
from geocfl.mapping.checkpoint import Checkpoint
from geocfl.mapping.encode import Decision
from geocfl.mapping.saturation import saturated_cells
from geocfl.mapping.strips import Strip, scene_strips
from geocfl.mapping.valid import valid_shares
from geocfl.models.backends.base import Backend
from geocfl.products.scratch import NO_CONFIDENCE, NOVELTY, VALID
from geocfl.scenes import Scene

MEASURED = 0.5
"""Seconds after the first result in which the rate is measured."""


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
    interpolate: bool = False,
    progress: Progress = silent,
    paced: Callable[[float], object] = lambda _: None,
    turn: AbstractContextManager[Any] | None = None,
) -> float:
    """Classifies all cells of a scene, or of some rows, that the checkpoint does not hold yet.

    Args:
        scene: An open scene, at least as large as a window.
        bands: The classifier's bands.
        grid: The scene's cells.
        backend: The classifier.
        decision: Turns probabilities into the values of cells.
        cell_rows: Rows of cells per strip.
        checkpoint: Receives the results, strip by strip.
        max_masked: Fraction of a cell's pixels that may be masked, 0..1.
        last: Row of cells to stop before, a multiple of `cell_rows`; None for all.
        interpolate: Whether to classify only the cells that the others can be interpolated from; `cell_rows` is even.
        progress: Called with the windows done; an exception that it raises stops the work after a batch.
        paced: Called once, with the windows per second that the first results took, if there are any.
        turn: A lock if several scenes share the back end: held while windows are classified, but not while the first
            strip is read.

    Returns:
        Seconds since the lock was acquired.

    Raises:
        SceneError: The scene cannot be decoded.
    """
    strips = scene_strips(
        scene,
        bands,
        grid,
        cell_rows,
        checkpoint.row,
        max_masked,
        last,
        interpolate=interpolate,
        stored=backend.takes_numbers,
    )
    total, done = grid.rows * grid.columns, checkpoint.row * grid.columns

    def advance(cells: int) -> None:
        nonlocal done
        done += cells
        progress(scene.name, done, total, "window")

    with (
        ahead((strip, backend.place(strip.pixels)) for strip in strips) as coming,
        turn or nullcontext(),
        _keeping(checkpoint, aside=backend.takes_numbers) as keep,
    ):
        started, pace = time.perf_counter(), _Pace(paced)
        advance(0)
        for strip, placed in coming:
            cells = classify_strip(strip, placed, grid, backend, decision, advance, pace)
            keep(cells, strip.inside, int(strip.chosen.sum()), int(strip.masked.sum()))
        pace.finish()
    return time.perf_counter() - started


@contextmanager
def _keeping(checkpoint: Checkpoint, *, aside: bool) -> Iterator[Callable[..., object]]:
    """`checkpoint.append`, or a function that calls it in another thread: writing to disk would keep a GPU waiting.

    Stored digital numbers are so small that one more strip in memory for a moment stays within the bound.
    """
    if not aside:
        yield checkpoint.append
        return
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="keep") as pool:
        last: Future[None] | None = None

        def append(*strip: Any) -> None:
            nonlocal last
            if last:
                last.result()
            last = pool.submit(checkpoint.append, *strip)

        yield append
        if last:
            last.result()


def classify_strip(
    strip: Strip,
    placed: Any,
    grid: CellGrid,
    backend: Backend,
    decision: Decision,
    advance: Callable[[int], object] = lambda _: None,
    classified: Callable[[int], object] = lambda _: None,
) -> NDArray[np.uint8]:
    """Classifies the cells of a strip that are to be classified; others with data are left unclassified.

    Args:
        strip: From `scene_strips`.
        placed: Its pixels, from `backend.place`.
        grid: The scene's cells.
        backend: The classifier.
        decision: Turns probabilities into the values of cells.
        advance: Called with the number of cells that each step finishes.
        classified: Called with the number of windows that each step classifies.

    Returns:
        (bands, k, columns) uint8 cells of a work raster.
    """
    cells = np.full((len(decision.bands), *strip.valid.shape), NO_CONFIDENCE, np.uint8)
    cells[0] = np.where(strip.valid, UNCLASSIFIED, NODATA)
    rows, columns = np.nonzero(strip.chosen)
    advance(strip.valid.size - len(rows))
    saturated = np.zeros_like(strip.valid)
    if decision.novelty:
        saturated = strip.valid & saturated_cells(strip.inside, grid.stride, decision.saturation)
        cells[decision.bands.index(NOVELTY), saturated] = 100
    shares = valid_shares(strip, grid) if decision.valid else None
    if shares is not None:
        cells[decision.bands.index(VALID), strip.valid] = shares[strip.valid]
    for found in backend.classify(placed, rows, columns, grid.stride):
        here, novelty = (rows[found.windows], columns[found.windows]), found.novelty
        if novelty is not None:
            novelty = np.where(saturated[here], np.float32(100), novelty)
        features = None
        if decision.projection and found.features is not None:
            features = decision.projection.of(found.features)
        valid = None if shares is None else shares[here]
        cells[:, *here] = decision.of(found.probabilities, novelty, features, valid)
        classified(len(found.probabilities))
        advance(len(found.probabilities))
    return cells


class _Pace:
    """Measures the rate of the first windows, and reports it once.

    The first result does not count, because it includes the start of the back end.

    Args:
        report: Called with the windows per second.
    """

    def __init__(self, report: Callable[[float], object]) -> None:
        self._report: Callable[[float], object] | None = report
        self._started = time.perf_counter()
        self._first, self._windows = 0.0, 0

    def __call__(self, windows: int) -> None:
        """Counts windows."""
        now = time.perf_counter()
        if not self._first:
            self._first, self._leading = now, windows
        self._windows += windows
        if now - self._first >= MEASURED:
            self._say((self._windows - self._leading) / (now - self._first))

    def finish(self) -> None:
        """Reports the rate of all windows, if there were too few to measure it earlier."""
        if self._windows:
            self._say(self._windows / (time.perf_counter() - self._started))

    def _say(self, rate: float) -> None:
        if self._report is not None:
            report, self._report = self._report, None
            report(rate)
