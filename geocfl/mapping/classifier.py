"""Classifies scenes with one model: loads the network when it is needed, within the memory that the process may use."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import numpy as np

from geocfl.core.grid import CellGrid
from geocfl.core.machine import threads_within_quota
from geocfl.core.progress import Progress, silent
from geocfl.errors import UsageError
from geocfl.mapping.checkpoint import Checkpoint
from geocfl.mapping.encode import Decision
from geocfl.mapping.estimate import stride_estimate
from geocfl.mapping.gpu import on_gpu, surviving
from geocfl.mapping.memory import (
    RESERVE,
    WORKING,
    choose_cell_rows,
    efficient_rows,
    memory_budget,
    resident,
    strip_bytes,
)
from geocfl.mapping.pipeline import classify_scene
from geocfl.mapping.settings import MapSettings
from geocfl.models.backends import load_backend
from geocfl.models.backends.base import Backend, measure_rate
from geocfl.models.backends.jobs import tile_rows
from geocfl.models.bundle import Bundle
from geocfl.scenes import Scene

log = logging.getLogger("geocfl")

MAX_BATCH = 65_536
"""Windows in a batch at most: gigabytes for a model of three bands, and no faster than a few thousand."""


class Classifier:
    """Classifies the windows of scenes with one model and the same settings.

    Several threads may use one classifier; they take turns at classifying.

    Args:
        model: The bundle.
        settings: The settings of every map.
        decision: How scores become the values of cells.
        device: As for `geocfl.map_scene`.
        batch_size: As for `geocfl.map_scene`.
        memory: As for `geocfl.map_scene`.
        scenes_at_once: Number of threads that use this classifier and share its memory.
        threads: Cores of the CPU to classify with; None for all.
        sharers: Number of classifiers on the machine, which share the free memory unless `memory` is given.

    Raises:
        UsageError: A value is out of range.
    """

    def __init__(
        self,
        model: Bundle,
        settings: MapSettings,
        decision: Decision,
        *,
        device: str,
        batch_size: int | None,
        memory: int | str | None,
        scenes_at_once: int,
        threads: int | None,
        sharers: int,
    ) -> None:
        if batch_size is not None and not 1 <= batch_size <= MAX_BATCH:
            raise UsageError(f"`batch_size` is {batch_size} but must be 1 to {MAX_BATCH}")
        self.model, self.settings, self.decision = model, settings, decision
        self._device, self._batch_size, self._threads = device, batch_size, threads
        self._bytes, self._scenes_at_once = memory_budget(memory, sharers), scenes_at_once
        self._loading, self._classifying = threading.Lock(), threading.Lock()

    @cached_property
    def backend(self) -> Backend:
        """The classifier."""
        how = self.settings
        more = {"features": True} if self.decision.projection else {}
        threads = self._threads or threads_within_quota()
        return load_backend(self.model, how.backend, self._device, how.precision, self._batch_size, threads, **more)

    @cached_property
    def rate(self) -> float:
        """Windows per second on noise."""
        return measure_rate(self.backend, self.model)

    @cached_property
    def strip_memory(self) -> int:
        """Bytes for the strips of each scene, once the classifier has been loaded and has classified."""
        return (self._bytes - self._held) // self._scenes_at_once

    @cached_property
    def _held(self) -> int:
        return resident() + RESERVE if self.rate else 0  # `rate` has classified, so its memory is counted

    @cached_property
    def _roomy(self) -> int:
        """Bytes for the strips of each scene at least; the classifier is loaded but has not classified yet."""
        with self._loading:
            loaded = resident() if self.backend else 0
        return (self._bytes - loaded - RESERVE - WORKING) // self._scenes_at_once

    def load_ahead(self) -> None:
        """Loads the classifier in another thread, while the scene is opened and hashed."""

        def load() -> None:
            with self._loading, suppress(Exception):  # raised again where the classifier is needed
                self.backend  # noqa: B018, a cached property

        if "backend" not in vars(self):
            threading.Thread(target=load, name="load").start()

    def checkpoint(
        self,
        folder: Path,
        grid: CellGrid,
        cell_rows: int,
        step: int,
        first: int = 0,
        appended: Callable[[], object] = lambda: None,
    ) -> Checkpoint:
        """The checkpoint, in a folder, of a scene or of the block that begins at row `first`.

        Every `step`-th pixel is kept for pictures of the scene.
        """
        with self._loading:  # one thread loads the classifier while the others wait
            backend = self.backend
        how = {
            "backend": repr(backend),
            "batch_size": backend.batch_size,
            "cell_rows": cell_rows,
            "gpu": on_gpu(backend),
        }
        return Checkpoint(
            folder,
            grid,
            self.shown,
            how,
            cell_bands=self.decision.bands,
            thumbnail_step=step,
            first=first,
            appended=appended,
        )

    def classify(
        self,
        scene: Scene,
        grid: CellGrid,
        cell_rows: int,
        checkpoint: Checkpoint,
        progress: Progress = silent,
        last: int | None = None,
        paced: Callable[[float], object] = lambda _: None,
    ) -> float:
        """Classifies what the checkpoint lacks, up to row `last`, as soon as no other scene is being classified.

        Returns:
            Seconds spent.
        """
        with surviving(scene.path):
            return classify_scene(
                scene,
                self.model.bands,
                grid,
                self.backend,
                self.decision,
                cell_rows,
                checkpoint,
                self.settings.max_masked,
                last=last,
                interpolate=self.settings.interpolate,
                progress=progress,
                paced=paced,
                turn=self._classifying,
            )

    def cell_rows(self, scene: Scene, grid: CellGrid) -> int:
        """Rows of cells per strip that fit into memory."""
        bands, itemsize = len(self.model.bands), np.dtype(scene.dtype).itemsize
        multiple = tile_rows(grid.stride) if self.model.feature_stride else 2 if self.settings.interpolate else 1
        memory = self._roomy
        if strip_bytes(grid, bands, itemsize, efficient_rows(grid, multiple), scene.block_rows) > memory:
            with self._loading:
                memory = self.strip_memory  # exact, but has to classify first
        return choose_cell_rows(grid, bands, itemsize, scene.block_rows, memory, multiple)

    def picture_rows(self, scene: Scene, grid: CellGrid) -> int:
        """Rows of cells per strip that fit into memory if the scene is only read."""
        bands, itemsize = len(self.model.bands), np.dtype(scene.dtype).itemsize
        memory = (self._bytes - resident() - RESERVE) // self._scenes_at_once
        return choose_cell_rows(grid, bands, itemsize, scene.block_rows, memory)

    @property
    def level(self) -> int:
        """Level of messages about one scene, which would be too many for a run of thousands."""
        return logging.INFO if self._scenes_at_once == 1 else logging.DEBUG

    def announce(self, scene: Scene, grid: CellGrid, rows: int, loaded: int, rate: float) -> None:
        """Logs what is about to happen, when the first windows have been classified.

        Args:
            scene: The scene.
            grid: Its cells.
            rows: Rows of cells per strip.
            loaded: Bytes in use before the first strip.
            rate: Cells per second.
        """
        bands, itemsize = len(self.model.bands), np.dtype(scene.dtype).itemsize
        strips = strip_bytes(grid, bands, itemsize, rows, scene.block_rows)
        if self.model.feature_stride:
            rate *= (grid.stride / grid.window) ** 2  # areas of a window
        estimate = stride_estimate(
            scene.name,
            grid,
            self.model.gsd,
            scene.data_share(),
            rate,
            max(resident(), loaded + strips) + RESERVE,
            interpolate=self.settings.interpolate,
            dense=self.model.feature_stride > 0,
        )
        log.log(self.level, "%s", estimate)

    @property
    def shown(self) -> list[int]:
        """Indices of the model's bands for red, green and blue; its first band stands for those it does not read."""
        bands = self.model.bands
        return [bands.index(band) if band in bands else 0 for band in ("B04", "B03", "B02")]
