"""From a scene's path to its products: checks, estimate, one pass, files whole or not at all."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio

from geocfl._version import __version__
from geocfl.core.grid import CellGrid
from geocfl.core.progress import Progress, silent
from geocfl.errors import SceneError, UsageError
from geocfl.mapping.checkpoint import JOURNAL, Journal
from geocfl.mapping.encode import Decision
from geocfl.mapping.memory import RESERVE, choose_cell_rows, parse_memory, resident, strip_bytes
from geocfl.mapping.pipeline import classify_scene
from geocfl.mapping.settings import MapSettings
from geocfl.models.backends import Backend, load_backend, measure
from geocfl.models.bundle import DEFAULT_MODEL, Model, load_model
from geocfl.products.formats.truecolor import PICTURE_PIXELS, PREVIEW_PIXELS
from geocfl.products.scene_map import SceneMap
from geocfl.products.selection import Selection
from geocfl.products.staging import FILES, Staging
from geocfl.products.write import Finished, write_products
from geocfl.scenes import Reading, Scene, Source, find_source, open_scene
from geocfl.scenes.fingerprint import file_hash, identity

if TYPE_CHECKING:
    from geocfl.mapping.blocks import Blocks

log = logging.getLogger("geocfl")

COMMON_STRIDES = (64, 32, 16)
GDAL_CACHE = 64
"""Megabytes that GDAL may keep of decoded blocks, instead of a twentieth of all memory: strips keep what is used
again."""

_WRITING = threading.Lock()
"""Products are made in one thread at a time: matplotlib is not made for several."""


def map_scene(
    scene: str | Path | Source,
    out: str | Path,
    *,
    model: str | Path = DEFAULT_MODEL,
    device: str = "auto",
    batch_size: int | None = None,
    memory: str = "",
    overwrite: bool = False,
    progress: Progress = silent,
    **settings: Any,
) -> SceneMap:
    """Maps a Sentinel-2 scene and writes its products into a folder.

    Args:
        scene: A raster, a SAFE product, a folder of one file a band or a STAC Item, as a path or a URL.
        out: Folder, made where it is missing.
        model: A bundle's folder or the name of a bundled model.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        batch_size: Windows classified at a time; what is fast on the device by default.
        memory: What the process may take, such as ``"2GB"``; a quarter of what is free by default.
        overwrite: Replace products of other settings that are in the way.
        progress: Told the windows that are classified.
        **settings: Fields of `MapSettings`.

    Returns:
        The products; those of an earlier run where scene, model and settings are the same.

    Raises:
        GeocflError: The scene, model or output folder cannot be used; nothing half-written is left.
    """
    mapper = Mapper(load_model(model), MapSettings(**settings), device=device, batch_size=batch_size, memory=memory)
    return mapper.map(find_source(scene, mapper.settings.bands), out, overwrite=overwrite, progress=progress)


class Mapper:
    """A model and settings that map scene after scene; the network is loaded at the first one that needs it.

    Several threads may map with one: one scene is read, or its products written, while another is classified.

    Args:
        model: The bundle.
        settings: Those of every scene.
        device: As for `map_scene`; likewise `batch_size` and `memory`.
        batch_size: Likewise.
        memory: Likewise.
        scenes_at_once: Threads that will map with it, which share the memory.
        threads: Cores of the CPU to classify with; all by default.
        sharers: Mappers like this one on the machine, which share what is free where `memory` says nothing.
        reading: How scenes are read; as the settings say by default.

    Raises:
        UsageError: An option is out of its range.
        GeocflError: The area's file cannot be read.
    """

    def __init__(
        self,
        model: Model,
        settings: MapSettings,
        *,
        device: str = "auto",
        batch_size: int | None = None,
        memory: str = "",
        scenes_at_once: int = 1,
        threads: int | None = None,
        sharers: int = 1,
        reading: Reading | None = None,
    ) -> None:
        if not 1 <= settings.stride <= model.window:
            raise UsageError(f"--stride {settings.stride} is not between 1 and the model's window of {model.window} px")
        if batch_size is not None and batch_size < 1:
            raise UsageError(f"--batch-size {batch_size} is below 1")
        self.model = model.with_tta(settings.tta)
        self.settings = replace(settings, tta=self.model.tta)
        self.selection = Selection.of(settings.products, settings.vector)
        self.decision = Decision(len(model.legend), settings.min_confidence, self.selection.detail)
        self.reading = reading or settings.reading()
        self.device, self.batch_size, self.memory = device, batch_size, memory
        self._bytes = parse_memory(memory, sharers)
        self._threads, self._scenes_at_once = threads, scenes_at_once
        self._loading, self._classifying = threading.Lock(), threading.Lock()

    @cached_property
    def backend(self) -> Backend:
        """The classifier."""
        how = self.settings
        return load_backend(self.model, how.backend, self.device, how.precision, self.batch_size, self._threads)

    @cached_property
    def rate(self) -> float:
        """Windows per second."""
        return measure(self.backend, self.model)

    @cached_property
    def strip_memory(self) -> int:
        """Bytes for the strips of each scene, once the classifier is loaded."""
        return (self._bytes - self._held) // self._scenes_at_once

    @cached_property
    def _held(self) -> int:
        return resident() + RESERVE if self.rate else 0  # measured, so that what classifying takes is known

    @cached_property
    def model_hash(self) -> str:
        """SHA-256 of the model's description and of its weights, one after the other."""
        folder = self.model.path or Path()  # load_model always sets it
        return "".join(file_hash(folder / name) for name in ("model.json", "model.safetensors"))

    def map(
        self,
        source: Source,
        out: str | Path,
        *,
        overwrite: bool = False,
        progress: Progress = silent,
        blocks: Blocks | None = None,
    ) -> SceneMap:
        """Maps one scene.

        Arguments, return and errors are those of `map_scene`; `blocks` are what has been classified of it already.
        """
        started = time.perf_counter()
        with self.opened(source) as scene:
            grid = cells_of(scene, self.model, self.settings.stride)
            when = self.taken(scene)
            digest = self.digest(scene)
            with self.staging(source, out, digest, overwrite=overwrite) as staging:
                targets = {name: staging.target(suffix) for name, suffix in self._files.items()}
                if staging.state == "done":
                    return SceneMap(targets, json.loads(targets["summary"].read_text()), already_done=True)
                warnings = scene.warnings()
                for warning in warnings:
                    log.warning("%s", warning)
                if blocks:  # they begin at the first row
                    (staging.folder / JOURNAL).unlink(missing_ok=True)
                rows = blocks.cell_rows if blocks else self._plan(scene, grid)
                journal = self.journal(staging.folder, grid, rows)
                if blocks:
                    journal.join([blocks.folder(first) for first, _ in blocks.rows])
                before, ready = journal.windows, time.perf_counter()
                seconds = self.classify(scene, grid, rows, journal, progress)
                if not journal.windows:
                    remedy = "allow more with --max-masked" if journal.masked else "check the scene's nodata value"
                    raise SceneError(
                        f"{scene.path}: no cell has data in half of its pixels; {remedy}", page="how-to/clouds/"
                    )
                finished = Finished(
                    source.stem,
                    journal.cells,
                    grid,
                    self.model.legend,
                    journal.thumbnail(),
                    self.tags(scene, grid),
                    self.facts(scene, grid, warnings, digest, when, journal.masked),
                    when,
                )
                with _WRITING:
                    written = time.perf_counter()
                    summary = write_products(
                        finished,
                        self.selection,
                        staging,
                        simplify_m=self.settings.simplify,
                        min_area_ha=self.settings.min_area,
                    )
                    timing = {
                        "start": ready - started,
                        "classify": seconds,
                        "write": time.perf_counter() - written,
                    }
                summary["timing"] = {f"{name}_s": round(value, 3) for name, value in timing.items()}
                summary["timing"]["windows"] = journal.windows - before  # those of this process, if it went on
                staging.path(FILES["summary"]).write_text(json.dumps(summary, indent=2) + "\n")
                del finished  # its thumbnail is a file that is open, which network file systems do not remove
                staging.commit()
        return SceneMap(targets, summary)

    @contextmanager
    def opened(self, source: Source) -> Iterator[Scene]:
        """The scene, read as the settings say and for the model.

        Raises:
            GeocflError: It cannot be read so.
        """
        with (
            rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE),  # before GDAL first asks for it
            open_scene(
                source,
                reading=self.reading,
                needed=self.model.bands,
                gsd=self.model.gsd,
                stride=self.settings.stride,
                window=self.model.window,
            ) as scene,
        ):
            yield scene

    @property
    def _files(self) -> dict[str, str]:
        """Key and suffix of what a map consists of."""
        return {name: suffix for name, suffix in FILES.items() if name in self.selection.files}

    def staging(self, source: Source, out: str | Path, digest: str, *, overwrite: bool) -> Staging:
        """A scene's products on their way into a folder."""
        return Staging(out, source.stem, digest, overwrite=overwrite, products=self._files.values())

    def journal(self, folder: Path, grid: CellGrid, cell_rows: int, first: int = 0) -> Journal:
        """The journal of a scene, or of a block of it, in strips of so many rows of cells, kept in a folder."""
        with self._loading:  # one thread loads the classifier, the others wait
            backend = self.backend
        how = {"backend": repr(backend), "batch_size": backend.batch_size, "cell_rows": cell_rows}
        return Journal(
            folder,
            grid,
            self.shown,
            how,
            cell_bands=self.decision.bands,
            thumbnail_pixels=PICTURE_PIXELS if self.selection.truecolor else PREVIEW_PIXELS,
            first=first,
        )

    def classify(
        self,
        scene: Scene,
        grid: CellGrid,
        cell_rows: int,
        journal: Journal,
        progress: Progress = silent,
        last: int | None = None,
    ) -> float:
        """Classifies what the journal lacks, down to a row, when no other scene is being classified.

        Returns:
            The seconds that it took.
        """
        return classify_scene(
            scene,
            self.model.bands,
            grid,
            self.backend,
            self.decision,
            cell_rows,
            journal,
            self.settings.max_masked,
            last=last,
            progress=progress,
            turn=self._classifying,
        )

    def cell_rows(self, scene: Scene, grid: CellGrid) -> int:
        """Rows of cells in a strip of a scene, as memory allows."""
        with self._loading:
            memory = self.strip_memory
        bands, itemsize = len(self.model.bands), np.dtype(scene.dtype).itemsize
        return choose_cell_rows(grid, bands, itemsize, scene.block_rows, memory)

    def _plan(self, scene: Scene, grid: CellGrid) -> int:
        """Rows of cells in a strip; says what is about to happen."""
        rows = self.cell_rows(scene, grid)
        bands, itemsize = len(self.model.bands), np.dtype(scene.dtype).itemsize
        memory = self._held + strip_bytes(grid, bands, itemsize, rows, scene.block_rows)
        level = logging.INFO if self._scenes_at_once == 1 else logging.DEBUG  # a run of thousands needs no such lines
        log.log(level, "%r", self.backend)
        log.log(level, "%s", estimate(scene.name, grid, self.model.gsd, scene.data_share(), self.rate, memory))
        return rows

    def digest(self, scene: Scene) -> str:
        """What products depend on: the scene's files, what is said of them, the model, the settings, this version."""
        bands, area = self.model.bands, self.reading.area
        said = [  # by files beside the rasters, too, such as a product's metadata
            [(scene.bands[band], asdict(scene.scaling[band])) for band in bands],
            (scene.nodata, str(scene.taken), scene.level),
            (list(scene.transform)[:6], scene.crs.to_wkt() if scene.crs else None),
        ]
        files = [identity(file) for file in scene.files]
        facts = [__version__, self.model_hash, files, said, asdict(self.settings), area.identity if area else None]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def taken(self, scene: Scene) -> dt.datetime | None:
        """When the scene was taken, where the option or the scene says so.

        Raises:
            SceneError: Neither does, and a product needs it.
        """
        when = self.settings.taken() or scene.taken
        if when is None and "stac" in self.selection.products:
            raise SceneError(
                f"{scene.path}: does not say when it was taken, which a STAC Item needs; "
                "pass --datetime, such as 2019-04-16, or leave stac out of --products",
                page="how-to/stac/",
            )
        return when

    def tags(self, scene: Scene, grid: CellGrid) -> dict[str, str]:
        """What the rasters say of themselves."""
        return {
            "GEOCFL_VERSION": __version__,
            "GEOCFL_MODEL": self.model.name,
            "GEOCFL_MODEL_HASH": self.model_hash,
            "GEOCFL_SOURCE": scene.name,
            "GEOCFL_SETTINGS": json.dumps(self.settings.to_json()),
            "GEOCFL_STRIDE": str(grid.stride),
            "GEOCFL_WIDTH": str(grid.width),
            "GEOCFL_HEIGHT": str(grid.height),
        }

    @property
    def shown(self) -> list[int]:
        """Which of the model's bands stand for red, green and blue; its first one for those that it does not read."""
        bands = self.model.bands
        return [bands.index(band) if band in bands else 0 for band in ("B04", "B03", "B02")]

    def facts(
        self, scene: Scene, grid: CellGrid, warnings: list[str], digest: str, when: dt.datetime | None, masked: int
    ) -> dict[str, Any]:
        """What the summary says beside the classes: input, model, settings and what was noticed."""
        model = self.model
        return {
            "geocfl": __version__,
            "hash": digest,
            "scene": {
                "file": scene.name,
                "datetime": when.isoformat().replace("+00:00", "Z") if when else None,
                "width": scene.width,
                "height": scene.height,
                "crs": grid.crs.to_string(),
                "transform": list(grid.transform)[:6],
                "bounds": list(grid.bounds()),
                "level": scene.level,
                "bands": {band: scene.bands[band] for band in model.bands},
                "scaling": {band: asdict(scene.scaling[band]) for band in model.bands},
                "scaling_from": scene.scaling_source,
            },
            "model": {"name": model.name, "hash": self.model_hash, "window": model.window, "origin": model.origin},
            "settings": self.settings.to_json() | {"classifier": repr(self.backend)},
            "cell_size_m": grid.stride * model.gsd,
            "masked_cells": masked,
            "warnings": warnings,
        }


def cells_of(scene: Scene, model: Model, stride: int) -> CellGrid:
    """The cells of a scene that was opened for a model.

    Raises:
        SceneError: It is smaller than a window.
    """
    if min(scene.height, scene.width) < model.window:
        raise SceneError(
            f"{scene.path}: {scene.width} x {scene.height} px is smaller than the model's window of {model.window} px; "
            "pass a larger scene"
        )
    return CellGrid(scene.height, scene.width, stride, model.window, scene.transform, scene.crs)


def estimate(name: str, grid: CellGrid, gsd: float, share: float, rate: float, memory: int) -> str:
    """One line on what a stride means: cell size, cells and time at this stride and at the common ones, and memory.

    Args:
        name: The scene's.
        grid: Its cells.
        gsd: Metres per pixel.
        share: Of the scene's pixels with data, 0..1: windows without are not classified.
        rate: Windows per second.
        memory: Bytes that the process will take at most.
    """

    def line(stride: int) -> str:
        cells = -(-grid.height // stride) * -(-grid.width // stride)
        return f"{cells:,} cells of {stride * gsd:g} m, about {_duration(share * cells / rate)}"

    others = [f"--stride {stride}: {line(stride)}" for stride in COMMON_STRIDES if stride != grid.stride]
    windows = "" if share > 0.995 else f", {share:.0%} of them with data"
    return f"{name}: {line(grid.stride)}{windows}, {memory / 1e9:.1f} GB of memory ({'; '.join(others)})"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
