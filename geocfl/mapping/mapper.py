"""From a scene's path to its products: checks, estimate, one pass, files whole or not at all."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from geocfl import __version__
from geocfl.errors import GeocflError, SceneError, UsageError
from geocfl.grid import CellGrid
from geocfl.mapping.backends import Backend, load_backend, measure
from geocfl.mapping.decision import Decision
from geocfl.mapping.engine import classify_scene
from geocfl.mapping.journal import Journal
from geocfl.mapping.memory import RESERVE, choose_cell_rows, parse_memory, resident, strip_bytes
from geocfl.mapping.scene_map import SceneMap
from geocfl.mapping.settings import MapSettings
from geocfl.model import DEFAULT_MODEL, Model, load_model
from geocfl.products.selection import Selection
from geocfl.products.staging import FILES, Staging
from geocfl.products.truecolor import PICTURE_PIXELS, PREVIEW_PIXELS
from geocfl.products.writing import Finished, write_products
from geocfl.scene import Scene, Source, find_source, group_files, open_scene
from geocfl.scene.identity import file_hash, identity

log = logging.getLogger("geocfl")

COMMON_STRIDES = (64, 32, 16)
GDAL_CACHE = 64
"""Megabytes that GDAL may keep of decoded blocks, instead of a twentieth of all memory: strips keep what is used
again."""


def map_scene(
    scene: str | Path | Source,
    out: str | Path,
    *,
    model: str | Path = DEFAULT_MODEL,
    device: str = "auto",
    batch_size: int | None = None,
    memory: str = "",
    overwrite: bool = False,
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
        **settings: Fields of `MapSettings`.

    Returns:
        The products; those of an earlier run where scene, model and settings are the same.

    Raises:
        GeocflError: The scene, model or output folder cannot be used; nothing half-written is left.
    """
    mapper = Mapper(load_model(model), device, batch_size, memory, MapSettings(**settings))
    return mapper.map(find_source(scene, mapper.settings.bands), Path(out), overwrite)


def map_scenes(
    scenes: Sequence[str | Path],
    out: str | Path,
    *,
    model: str | Path = DEFAULT_MODEL,
    device: str = "auto",
    batch_size: int | None = None,
    memory: str = "",
    overwrite: bool = False,
    **settings: Any,
) -> Iterator[tuple[str, SceneMap | GeocflError]]:
    """Maps scenes one after the other with the model loaded once; arguments are those of `map_scene`.

    Files of one band each whose names differ by the band alone are one scene.

    Yields:
        Each scene's path with its map, or with the error that it ended in; the others go on.

    Raises:
        UsageError: Two scenes have the same stem, so that their products would have the same names.
        ModelError: The model cannot be used.
    """
    mapper = Mapper(load_model(model), device, batch_size, memory, MapSettings(**settings))
    found: list[tuple[str, Source | GeocflError]] = []
    stems: dict[str, str] = {}
    for scene in group_files([str(scene) for scene in scenes]):
        path = scene.path if isinstance(scene, Source) else scene
        try:
            source = find_source(scene, mapper.settings.bands)
        except SceneError as error:
            found.append((path, error))
            continue
        if source.stem in stems:
            raise UsageError(
                f"{path} and {stems[source.stem]} would write products of the same names; map them into two folders"
            )
        stems[source.stem] = path
        found.append((path, source))
    for path, scene_or_error in found:
        if isinstance(scene_or_error, GeocflError):
            yield path, scene_or_error
            continue
        try:
            yield path, mapper.map(scene_or_error, Path(out), overwrite)
        except GeocflError as error:
            yield path, error


class Mapper:
    """A model, its network loaded at the first scene that needs it, and the settings of every scene."""

    def __init__(self, model: Model, device: str, batch_size: int | None, memory: str, settings: MapSettings) -> None:
        if not 1 <= settings.stride <= model.window:
            raise UsageError(f"--stride {settings.stride} is not between 1 and the model's window of {model.window} px")
        if batch_size is not None and batch_size < 1:
            raise UsageError(f"--batch-size {batch_size} is below 1")
        self.model = model
        self._device, self._batch_size = device, batch_size
        self.settings = settings
        self.selection = Selection.of(settings.products, settings.vector)
        self.decision = Decision(len(model.legend), settings.min_confidence, self.selection.detail)
        self.memory = parse_memory(memory)
        self.reading = settings.reading()

    @cached_property
    def backend(self) -> Backend:
        """The classifier."""
        settings = self.settings
        return load_backend(self.model, settings.backend, self._device, settings.precision, self._batch_size)

    @cached_property
    def rate(self) -> float:
        """Windows per second."""
        return measure(self.backend, self.model)

    @cached_property
    def model_hash(self) -> str:
        """SHA-256 of the model's description and of its weights, one after the other."""
        folder = self.model.path or Path()  # load_model always sets it
        return "".join(file_hash(folder / name) for name in ("model.json", "model.safetensors"))

    def map(self, source: Source, out: Path, overwrite: bool) -> SceneMap:
        """One scene's products."""
        started = time.perf_counter()
        settings, model = self.settings, self.model
        with (
            rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE),  # before GDAL first asks for it
            open_scene(
                source,
                reading=self.reading,
                needed=model.bands,
                gsd=model.gsd,
                stride=settings.stride,
                window=model.window,
            ) as scene,
        ):
            grid = cells_of(scene, model, settings.stride)
            when = self._taken(scene)
            digest = self._digest(scene)
            files = {name: suffix for name, suffix in FILES.items() if name in self.selection.files}
            with Staging(out, source.stem, digest, overwrite=overwrite, products=files.values()) as staging:
                targets = {name: staging.target(suffix) for name, suffix in files.items()}
                if staging.state == "done":
                    return SceneMap(targets, json.loads(targets["summary"].read_text()), already_done=True)
                warnings = scene.warnings()
                for warning in warnings:
                    log.warning("%s", warning)
                rows = self._plan(scene, grid)
                ready = time.perf_counter()
                how = {"backend": repr(self.backend), "batch_size": self.backend.batch_size, "cell_rows": rows}
                journal = Journal(
                    staging.folder,
                    grid,
                    self._shown,
                    how,
                    cell_bands=self.decision.bands,
                    thumbnail_pixels=PICTURE_PIXELS if self.selection.truecolor else PREVIEW_PIXELS,
                )
                before = journal.windows
                classify_scene(
                    scene, self.model.bands, grid, self.backend, self.decision, rows, journal, settings.max_masked
                )
                if not journal.windows:
                    remedy = "allow more with --max-masked" if journal.masked else "check the scene's nodata value"
                    raise SceneError(f"{scene.path}: no cell has data in half of its pixels; {remedy}")
                read = time.perf_counter()
                finished = Finished(
                    source.stem,
                    journal.cells,
                    grid,
                    self.model.legend,
                    journal.thumbnail(),
                    self._tags(scene, grid),
                    self._facts(scene, grid, warnings, digest, when, journal.masked),
                    when,
                )
                summary = write_products(
                    finished,
                    self.selection,
                    staging,
                    simplify_m=settings.simplify,
                    min_area_ha=settings.min_area,
                )
                timing = {"start": ready - started, "classify": read - ready, "write": time.perf_counter() - read}
                summary["timing"] = {f"{name}_s": round(seconds, 3) for name, seconds in timing.items()}
                summary["timing"]["windows"] = journal.windows - before  # those of this process, if it went on
                staging.path(FILES["summary"]).write_text(json.dumps(summary, indent=2) + "\n")
                staging.commit()
        return SceneMap(targets, summary)

    def _plan(self, scene: Scene, grid: CellGrid) -> int:
        """Rows of cells in a strip; says what is about to happen."""
        rate = self.rate  # loads the back end, so that what it takes is known
        held, bands, itemsize = resident() + RESERVE, len(self.model.bands), np.dtype(scene.dtype).itemsize
        rows = choose_cell_rows(grid, bands, itemsize, scene.block_rows, self.memory - held)
        memory = held + strip_bytes(grid, bands, itemsize, rows, scene.block_rows)
        log.info("%r", self.backend)
        log.info("%s", estimate(scene.name, grid, self.model.gsd, scene.data_share(), rate, memory))
        return rows

    def _digest(self, scene: Scene) -> str:
        """What products depend on: the scene's files, the model, the settings and this version."""
        files = [*scene.files, *([self.settings.aoi] if self.settings.aoi else [])]
        facts = [__version__, self.model_hash, [identity(file) for file in files], asdict(self.settings)]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def _taken(self, scene: Scene) -> dt.datetime | None:
        """When the scene was taken, where the option or the scene says so.

        Raises:
            SceneError: Neither does, and a product needs it.
        """
        when = self.settings.taken() or scene.taken
        if when is None and "stac" in self.selection.products:
            raise SceneError(
                f"{scene.path}: does not say when it was taken, which a STAC Item needs; "
                "pass --datetime, such as 2019-04-16, or leave stac out of --products"
            )
        return when

    def _tags(self, scene: Scene, grid: CellGrid) -> dict[str, str]:
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
    def _shown(self) -> list[int]:
        """Which of the model's bands stand for red, green and blue; its first one for those that it does not read."""
        bands = self.model.bands
        return [bands.index(band) if band in bands else 0 for band in ("B04", "B03", "B02")]

    def _facts(
        self, scene: Scene, grid: CellGrid, warnings: list[str], digest: str, when: dt.datetime | None, masked: int
    ) -> dict[str, Any]:
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
                "bounds": list(grid.bounds()),
                "level": scene.level,
                "bands": {band: scene.bands[band] for band in model.bands},
                "scaling": {band: asdict(scene.scaling[band]) for band in model.bands},
                "scaling_from": scene.scaling_source,
            },
            "model": {"name": model.name, "hash": self.model_hash, "origin": model.origin},
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
