"""Maps one scene: checks it, classifies its windows and writes its products, all or none."""

from __future__ import annotations

import datetime as dt
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from geocfl.core.grid import CellGrid
from geocfl.core.keywords import declared
from geocfl.core.machine import threads_within_quota
from geocfl.core.progress import Progress, silent
from geocfl.errors import GeocflError, OutputError, SceneError, UsageError
from geocfl.mapping.blocks import Blocks
from geocfl.mapping.checkpoint import CHECKPOINT, Checkpoint
from geocfl.mapping.encode import Decision
from geocfl.mapping.estimate import stride_estimate
from geocfl.mapping.gpu import on_gpu, surviving
from geocfl.mapping.measured import Measured
from geocfl.mapping.memory import (
    RESERVE,
    WORKING,
    choose_cell_rows,
    efficient_rows,
    memory_budget,
    resident,
    strip_bytes,
    within_memory,
)
from geocfl.mapping.offers import check_features, check_novelty, missing_products
from geocfl.mapping.pipeline import classify_scene
from geocfl.mapping.provenance import CLASSIFICATION, Provenance
from geocfl.mapping.recall import Opening, Recall
from geocfl.mapping.refine import Refinement
from geocfl.mapping.saved import SavedCheckpoint
from geocfl.mapping.settings import MapOptions, MapSettings
from geocfl.mapping.strips import scene_strips
from geocfl.models.backends import load_backend
from geocfl.models.backends.base import Backend, measure_rate
from geocfl.models.backends.jobs import tile_rows
from geocfl.models.bundle import DEFAULT_MODEL, Bundle
from geocfl.models.projection import projection_of
from geocfl.products.files import FILES
from geocfl.products.formats.features import FeatureSpace
from geocfl.products.formats.truecolor import thumbnail_step
from geocfl.products.restore import MapCells
from geocfl.products.scene_map import SceneMap
from geocfl.products.scratch import BANDS
from geocfl.products.selection import Selection
from geocfl.products.staging import Earlier, Staging, folder_of
from geocfl.products.storage import in_store, output_folder
from geocfl.products.update import Order, Update, counted, finished
from geocfl.scenes import Reading, Scene, Source, find_source, open_scene
from geocfl.scenes.checks import scene_warnings

log = logging.getLogger("geocfl")

SCENES_AT_ONCE = 2
"""Threads that map with one `Mapper`: one classifies, the other hashes and reads a scene or writes products."""
MAX_BATCH = 65_536
"""Windows in a batch at most: gigabytes for a model of three bands, and no faster than a few thousand."""
GDAL_CACHE = 64
"""Megabytes of decoded blocks that GDAL may keep; its default is 5 % of all memory, but strips keep what is reused."""

_WRITING = threading.Lock()
"""Products are written by one thread at a time, because matplotlib is not thread-safe."""


@declared
def map_scene(
    scene: str | Path | Source,
    out: str | Path,
    *,
    model: str | Path = DEFAULT_MODEL,
    device: str = "auto",
    batch_size: int | None = None,
    memory: int | str | None = None,
    overwrite: bool = False,
    redo: bool = False,
    work: str | Path | None = None,
    progress: Progress = silent,
    **options: Unpack[MapOptions],
) -> SceneMap:
    """Maps a Sentinel-2 scene and writes its products into a folder.

    Args:
        scene: Path or URL of a raster, a SAFE product, a folder with one file per band, or a STAC Item.
        out: Output folder, created if missing.
        model: Folder of a model, or the name of a built-in one.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        batch_size: Windows per batch; None for what is fast on the device.
        memory: Memory that the process may use: bytes, or text such as ``"2GB"``; None for a quarter of what is free.
        overwrite: Replace products made from another input, model or with other settings; those that are done stay.
        redo: Map again even what is done.
        work: Folder or address in an object store that receives the checkpoint of an unfinished map, so that another
            machine can resume it; None to keep it on this machine only.
        progress: Called with the number of windows that are classified.
        **options: Fields of `MapSettings`.

    Returns:
        The map; that of an earlier run if scene, model and settings are the same. If only products are missing, they
        are added to it, without classification where the map's files suffice.

    Raises:
        GeocflError: The scene, model or output folder cannot be used. No half-written file is left.
    """
    mapper = Mapper(
        Bundle.load(model),
        MapSettings(**options),
        device=device,
        batch_size=batch_size,
        memory=memory,
        redo=redo,
        work=work,
    )
    return mapper.map(find_source(scene, mapper.settings.bands), out, overwrite=overwrite, progress=progress)


class Mapper:
    """Maps scenes with one model and the same settings; loads the network when the first scene needs it.

    Several threads may use one mapper: one scene is read, or its products are written, while another is classified.

    Args:
        model: The bundle.
        settings: The settings of every map.
        device: As for `map_scene`.
        batch_size: As for `map_scene`.
        memory: As for `map_scene`.
        scenes_at_once: Number of threads that use this mapper and share its memory.
        threads: Cores of the CPU to classify with; None for all.
        sharers: Number of mappers on the machine, which share the free memory unless `memory` is given.
        reading: How to read scenes; None to follow the settings.
        redo: Whether to map again even what is done.
        work: As for `map_scene`.
        remember: Whether to list each output folder once, and to remember there the hashes of scenes; a map of other
            processes that is not in the listing costs time, but is found.

    Raises:
        UsageError: A value is out of range.
        GeocflError: The area's file cannot be read.
    """

    def __init__(
        self,
        model: Bundle,
        settings: MapSettings,
        *,
        device: str = "auto",
        batch_size: int | None = None,
        memory: int | str | None = None,
        scenes_at_once: int = 1,
        threads: int | None = None,
        sharers: int = 1,
        reading: Reading | None = None,
        redo: bool = False,
        work: str | Path | None = None,
        remember: bool = False,
    ) -> None:
        model.check_stride(settings.stride)
        if batch_size is not None and not 1 <= batch_size <= MAX_BATCH:
            raise UsageError(f"`batch_size` is {batch_size} but must be 1 to {MAX_BATCH}")
        self.model = model.with_tta(settings.tta)
        self.settings = replace(settings, tta=self.model.tta)
        check_novelty(model, settings)
        self.selection = Selection.of(settings.products, settings.vector, missing_products(model))
        check_features(settings, self.selection)
        self.refinement = Refinement.of(settings, model)
        self.decision = Decision(
            len(model.legend),
            settings.min_confidence,
            self.selection.detail,
            logits=bool(self.refinement),
            novelty=bool(model.novelty),
            max_novelty=settings.max_novelty,
            saturation=model.clip[1],
            conformal=model.conformal if "sets" in self.selection.products else (),
            projection=projection_of(self.model) if self.selection.features else None,
        )
        self.reading = reading or settings.reading()
        self.device, self.batch_size, self.memory, self.redo = device, batch_size, memory, redo
        self.work = output_folder(work) if work else None
        self.remember, self.recall = remember, Recall() if remember else None
        self._bytes = memory_budget(memory, sharers)
        self._threads, self._scenes_at_once = threads, scenes_at_once
        self._loading, self._classifying = threading.Lock(), threading.Lock()

    @cached_property
    def backend(self) -> Backend:
        """The classifier."""
        how = self.settings
        more = {"features": True} if self.selection.features else {}
        threads = self._threads or threads_within_quota()
        return load_backend(self.model, how.backend, self.device, how.precision, self.batch_size, threads, **more)

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

    @cached_property
    def model_hash(self) -> str:
        """SHA-256 of the model's description, followed by that of its weights."""
        return self.model.digest()

    def map(
        self,
        source: Source,
        out: str | Path,
        *,
        overwrite: bool = False,
        progress: Progress = silent,
        blocks: Blocks | None = None,
        measured: Measured | None = None,
    ) -> SceneMap:
        """Maps one scene.

        Arguments, return value and errors are those of `map_scene`; `blocks` have already been classified, and
        `measured` receives what the work takes, also if it fails.
        """
        started, measured = time.perf_counter(), measured or Measured()
        if self.redo or not self._summary_exists(source, out):
            self._load_ahead()
        opening = self._opening(source, out)
        if done := self._done(source, out, self._recalled(opening), started, measured, overwrite=overwrite):
            return done
        with within_memory(source.path), self.opened(source) as scene, measured.reading(scene):
            grid = cells_of(scene, self.model, self.settings.stride)
            order = self.order(out, scene)
            if opening:
                opening.remember({"cells": order.cells, "taken": scene.taken.isoformat() if scene.taken else None})
            if done := self._done(source, out, order, started, measured, overwrite=overwrite):
                return done
            update = self.update(source, out, order, overwrite=overwrite)
            measured.digest = update.order.digest()
            measured.seconds["open"] = time.perf_counter() - started
            with self.staging(source, out, update, overwrite=overwrite) as staging:
                targets = _paths(out, source.stem, update.order)
                if staging.state == "done":
                    return SceneMap(targets, already_done=True)
                warnings = scene_warnings(scene)
                for warning in warnings:
                    log.warning("%s", warning)
                timing = {"start_s": time.perf_counter() - started}
                held = self.held(update, staging)
                saved = self._saved(out, source.stem, update.order.digest())
                cells = self._restored(scene, grid, held, update, staging.folder, progress)
                if cells is None:
                    cells = self._classified(scene, grid, update, staging.folder, blocks, saved, progress)
                timing["classify_s"] = cells.seconds
                windows = cells.windows
                summary, timing["write_s"] = self._write(scene, grid, cells, held, update, warnings, staging)
                del cells  # with the thumbnail, which must not be open at commit
                measured.seconds |= {"classify": timing["classify_s"], "write": timing["write_s"]}
                measured.windows = windows
                summary["timing"] = {name: round(seconds, 3) for name, seconds in timing.items()}
                summary["timing"]["windows"] = windows
                if "summary" in update.made:
                    staging.path(FILES["summary"]).write_text(json.dumps(summary, indent=2) + "\n")
                measured.bytes_written = sum(staging.path(FILES[name]).stat().st_size for name in update.made)
                staging.commit()
                if saved:
                    saved.remove()
        return SceneMap(targets, summary)

    def order(self, out: str | Path, scene: Scene) -> Order:
        """What is asked of the map of an open scene.

        Raises:
            SceneError: The scene does not say when it was taken, but a product needs it.
        """
        when, origin = self._taken(scene), self.provenance(scene)
        if self.recall:
            origin = replace(origin, known=self.recall.known(output_folder(out)))
        return self._order(origin.digest(), when)

    def _order(self, cells: str, when: dt.datetime | None) -> Order:
        how = self.settings
        time = when.isoformat().replace("+00:00", "Z") if when else None
        return Order(cells, self.selection, how.simplify, how.min_area, time)

    def update(self, source: Source, out: str | Path, order: Order, *, overwrite: bool) -> Update:
        """What is to do in an output folder for the map of a scene to hold what is asked of it."""
        if self.redo:
            return Update(order)
        return Update.of(order, *finished(output_folder(out), source.stem), overwrite=overwrite)

    def _done(
        self,
        source: Source,
        out: str | Path,
        order: Order | None,
        started: float,
        measured: Measured,
        *,
        overwrite: bool,
    ) -> SceneMap | None:
        """The map of a scene, if the listing of the folder shows that it is done; None if that is not known."""
        if self.recall is None or self.redo or order is None:
            return None
        done = self.recall.done(output_folder(out), source.stem, order, overwrite=overwrite)
        if done is None or Staging(out, source.stem, done.digest(), work=self._spool(out)).left():
            return None
        measured.digest = done.digest()
        measured.seconds["open"] = time.perf_counter() - started
        return SceneMap(_paths(out, source.stem, done), already_done=True)

    def _opening(self, source: Source, out: str | Path) -> Opening | None:
        """What was remembered of a scene when it was opened before; None if nothing is to be remembered."""
        if self.recall is None:
            return None
        area, mask = self.reading.area, self.reading.mask_file or self.settings.mask
        how = [CLASSIFICATION, self.model_hash, self.settings.to_json(redacted=False), area.identity if area else None]
        more = [str(mask)] if mask else []
        return Opening(self.recall.known(output_folder(out)), source, self.model.bands, more, how)

    def _recalled(self, opening: Opening | None) -> Order | None:
        """What is asked of the map of a scene that was opened before and has not changed; None if that is not known."""
        facts = opening.recalled() if opening else None
        if facts is None:
            return None
        try:
            return self._order(str(facts["cells"]), self._when(facts["taken"]))
        except (KeyError, TypeError, ValueError):
            return None

    def _when(self, taken: str | None) -> dt.datetime | None:
        """When a scene was taken, by what is remembered; ValueError if a product needs it and it is unknown."""
        when = self.settings.taken() or (dt.datetime.fromisoformat(taken) if taken else None)
        if when is None and "stac" in self.selection.products:
            raise ValueError("unknown time")
        return when

    def _summary_exists(self, source: Source, out: str | Path) -> bool:
        """Whether the scene has been mapped into this folder, perhaps otherwise; True if that is not known."""
        try:
            summary = output_folder(out) / f"{source.stem}{FILES['summary']}"
            return in_store(summary) or summary.exists()
        except (GeocflError, OSError):  # raised again later
            return True

    def _load_ahead(self) -> None:
        """Loads the classifier in another thread, while the scene is opened and hashed."""

        def load() -> None:
            with self._loading, suppress(Exception):  # raised again where the classifier is needed
                self.backend  # noqa: B018, a cached property

        if "backend" not in vars(self):
            threading.Thread(target=load, name="load").start()

    def _saved(self, out: str | Path, stem: str, digest: str) -> SavedCheckpoint | None:
        """The copy of a scene's checkpoint; None if there is to be none, or `work` holds the checkpoint itself."""
        if not self.work or self._spool(out):
            return None
        return SavedCheckpoint(self.work / folder_of(output_folder(out), stem, digest))

    def _spool(self, out: str | Path) -> Path | None:
        """The folder in `work` for products that go into a store; None to use another."""
        return self.work if self.work and not in_store(self.work) and in_store(output_folder(out)) else None

    def is_shared(self, out: str | Path) -> bool:
        """Whether all machines that use this mapper see the folders of unfinished maps."""
        return self._spool(out) is not None or not in_store(output_folder(out))

    def _begin(
        self,
        scene: Scene,
        grid: CellGrid,
        update: Update,
        folder: Path,
        blocks: Blocks | None,
        saved: SavedCheckpoint | None,
    ) -> tuple[Checkpoint, int]:
        """The scene's checkpoint, with the rows of `blocks` if there are any, and the rows of cells in a strip."""
        step = thumbnail_step(grid, detail=update.detail)
        if blocks is None:
            rows = self.cell_rows(scene, grid)
            log.log(self._level, "%r", self.backend)
            appended = partial(saved.save_sometimes, folder) if saved else lambda: None
            return self.checkpoint(folder, grid, rows, step, appended=appended), rows
        (folder / CHECKPOINT).unlink(missing_ok=True)  # blocks begin at the first row
        checkpoint = self.checkpoint(folder, grid, blocks.cell_rows, step)
        checkpoint.join([blocks.folder(first) for first, _ in blocks.rows])
        return checkpoint, blocks.cell_rows

    def held(self, update: Update, staging: Staging) -> MapCells:
        """What the finished map holds of the cells that an update needs."""
        return MapCells(update, staging.target, replace(self.decision, logits=False).bands)

    def _restored(
        self, scene: Scene, grid: CellGrid, held: MapCells, update: Update, folder: Path, progress: Progress
    ) -> _Cells | None:
        """The cells of the finished map, as far as they are needed; None if the scene must be classified."""
        summary = update.summary
        if summary is None:
            return None
        started, path = time.perf_counter(), folder / "cells-held"
        if not held.suffice or not held.write(path, grid):
            lacking = ", ".join(sorted(held.missing)) or "readable cells"
            log.log(self._level, "%s: classified again, because its map holds no %s", scene.name, lacking)
            return None
        also = "; the scene is read for its picture" if update.pictures else ""
        log.log(self._level, "%s: products are made from the finished map, without classification%s", scene.name, also)
        thumbnail = np.empty((0, 0, len(self.shown)), np.float32)
        if update.pictures:
            thumbnail = self._picture(scene, grid, update, folder, progress)
        seconds = time.perf_counter() - started
        return _Cells(path, thumbnail, summary["settings"]["classifier"], summary["masked_cells"], 0, seconds, True)

    def _picture(
        self, scene: Scene, grid: CellGrid, update: Update, folder: Path, progress: Progress
    ) -> NDArray[np.float32]:
        """Reads the scene for its thumbnail only."""
        bands, itemsize = len(self.model.bands), np.dtype(scene.dtype).itemsize
        memory = (self._bytes - resident() - RESERVE) // self._scenes_at_once
        rows = choose_cell_rows(grid, bands, itemsize, scene.block_rows, memory)
        step = thumbnail_step(grid, detail=update.detail)
        checkpoint = Checkpoint(folder, grid, self.shown, {"picture": rows}, cell_bands=BANDS[:1], thumbnail_step=step)
        for strip in scene_strips(scene, self.model.bands, grid, rows, checkpoint.row, self.settings.max_masked):
            checkpoint.append(np.zeros((1, *strip.valid.shape), np.uint8), strip.inside, 0)
            progress(scene.name, checkpoint.row * grid.columns, grid.rows * grid.columns, "window")
        return checkpoint.thumbnail()

    def _classified(
        self,
        scene: Scene,
        grid: CellGrid,
        update: Update,
        folder: Path,
        blocks: Blocks | None,
        saved: SavedCheckpoint | None,
        progress: Progress,
    ) -> _Cells:
        """Classifies what is not classified yet."""
        if saved and blocks is None:
            saved.fetch(folder)
        checkpoint, rows = self._begin(scene, grid, update, folder, blocks, saved)
        resumed = checkpoint.windows
        paced = partial(self._announce, scene, grid, rows, resident())
        with saved.kept(folder) if saved else nullcontext():
            seconds = self.classify(scene, grid, rows, checkpoint, progress, paced=paced)
            _refuse_empty(scene, checkpoint)
        return _Cells(
            checkpoint.cells,
            checkpoint.thumbnail(),
            ", then ".join([*checkpoint.earlier, repr(self.backend)]),
            checkpoint.masked,
            checkpoint.windows - resumed,
            seconds,
            False,
        )

    def _write(
        self,
        scene: Scene,
        grid: CellGrid,
        cells: _Cells,
        held: MapCells,
        update: Update,
        warnings: list[str],
        staging: Staging,
    ) -> tuple[dict[str, Any], float]:
        """Writes the products, one scene at a time; returns the summary and the seconds it took."""
        from geocfl.products.write import ClassifiedScene, write_products  # with matplotlib: not before the map

        origin, order = self.provenance(scene), update.order
        with _WRITING:
            started = time.perf_counter()
            path = cells.path if cells.restored else self.refined(cells.path, grid)
            if update.kept and not cells.restored:
                _refuse_others(held, path, grid, staging)
            finished = ClassifiedScene(
                staging.stem,
                path,
                grid,
                self.model.legend,
                cells.thumbnail,
                origin.tags(grid),
                origin.facts(grid, order=order, warnings=warnings, classifier=cells.classifier, masked=cells.masked),
                dt.datetime.fromisoformat(order.when) if order.when else None,
                self._feature_space(),
                counted(update.summary),
                {name: staging.target(FILES[name]) for name in update.kept},
            )
            summary = write_products(
                finished, order.selection, staging, simplify_m=order.simplify, min_area_ha=order.min_area
            )
            return summary, time.perf_counter() - started

    def _feature_space(self) -> FeatureSpace | None:
        """What the features of cells are the components of; None if they are not kept."""
        found = self.decision.projection
        if not found:
            return None
        return FeatureSpace(self.model.name, self.model_hash, found.mean, found.components, found.source)

    def refined(self, cells: Path, grid: CellGrid) -> Path:
        """The work raster that the products are made from: that of the classification, or another beside it."""
        if not self.refinement:
            return cells
        refined = cells.with_name("refined")
        self.refinement.apply(cells, refined, grid, self.decision)
        return refined

    def provenance(self, scene: Scene) -> Provenance:
        """What a map of this scene is made from."""
        return Provenance(scene, self.model, self.model_hash, self.settings, self.reading.area)

    @contextmanager
    def opened(self, source: Source) -> Iterator[Scene]:
        """Opens a scene as the settings and the model need it.

        Raises:
            GeocflError: The scene cannot be read, or has no place for products that need one.
        """
        with (
            rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE),  # before GDAL first asks for it
            open_scene(
                source,
                self.reading,
                needed=self.model.bands,
                gsd=self.model.gsd,
                stride=self.settings.stride,
                window=self.model.footprint,
            ) as scene,
        ):
            located = scene.crs and (scene.crs.is_projected or scene.crs.is_geographic)
            if "geojson" in self.selection.vector and not located:
                raise UsageError(
                    f"{source.path}: has no place on the earth, and geojson in `vector` needs one; choose gpkg",
                    page="how-to/products/",
                )
            yield scene

    def staging(self, source: Source, out: str | Path, update: Update, *, overwrite: bool) -> Staging:
        """The staging of a scene's products."""
        files, earlier = update.order.selection.files, None
        if update.summary is not None:
            kept, replaced = (frozenset(FILES[name] for name in names) for names in (update.kept, update.there))
            earlier = Earlier(update.summary["hash"], kept, replaced)
        return Staging(
            out,
            source.stem,
            update.order.digest(),
            overwrite=overwrite,
            redo=self.redo,
            suffixes=[suffix for name, suffix in FILES.items() if name in files],
            earlier=earlier,
            work=self._spool(out),
        )

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

    @property
    def _level(self) -> int:
        """Level of messages about one scene, which would be too many for a run of thousands."""
        return logging.INFO if self._scenes_at_once == 1 else logging.DEBUG

    def _announce(self, scene: Scene, grid: CellGrid, rows: int, loaded: int, rate: float) -> None:
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
        log.log(self._level, "%s", estimate)

    def _taken(self, scene: Scene) -> dt.datetime | None:
        """When the scene was taken, from the settings or the scene; None if neither says so.

        Raises:
            SceneError: Neither says so, but a product needs it.
        """
        when = self.settings.taken() or scene.taken
        if when is None and "stac" in self.selection.products:
            raise SceneError(
                f"{scene.path}: does not say when it was taken, which a STAC Item needs; set `datetime`, such as "
                "2019-04-16, or leave stac out of `products`",
                page="how-to/stac/",
            )
        return when

    @property
    def shown(self) -> list[int]:
        """Indices of the model's bands for red, green and blue; its first band stands for those it does not read."""
        bands = self.model.bands
        return [bands.index(band) if band in bands else 0 for band in ("B04", "B03", "B02")]


@dataclass(frozen=True)
class _Cells:
    """Cells that products are made from.

    Attributes:
        path: Work raster.
        thumbnail: (h, w, 3) reflectance of every n-th pixel of the scene; empty if it is not needed.
        classifier: The back ends that classified them.
        masked: Cells left empty because of the mask.
        windows: Windows classified for them now.
        seconds: How long that took.
        restored: Whether they come from the finished map.
    """

    path: Path
    thumbnail: NDArray[np.float32]
    classifier: str
    masked: int
    windows: int
    seconds: float
    restored: bool


def _paths(out: str | Path, stem: str, order: Order) -> dict[str, Path]:
    """Name and path of each file of a map."""
    files, folder = order.selection.files, output_folder(out)
    return {name: folder / f"{stem}{suffix}" for name, suffix in FILES.items() if name in files}


def cells_of(scene: Scene, model: Bundle, stride: int) -> CellGrid:
    """The cells of a scene that was opened for this model.

    Raises:
        SceneError: The scene is smaller than a window.
    """
    if min(scene.height, scene.width) < model.window:
        raise SceneError(
            f"{scene.path}: {scene.width} x {scene.height} px is smaller than the model's window of {model.window} px; "
            "use a larger scene"
        )
    return CellGrid(scene.height, scene.width, stride, model.window, scene.transform, scene.crs, model.context)


def _refuse_empty(scene: Scene, checkpoint: Checkpoint) -> None:
    """Raises SceneError if no window was classified."""
    if not checkpoint.windows:
        remedy = "raise `max_masked`" if checkpoint.masked else "check the scene's nodata value"
        raise SceneError(
            f"{scene.path}: no cell has data in half of its pixels, so there is nothing to map; {remedy}",
            page="how-to/clouds/",
        )


def _refuse_others(held: MapCells, cells: Path, grid: CellGrid, staging: Staging) -> None:
    """Raises OutputError if cells differ from those of the finished map whose files stay."""
    try:
        agree = held.agree(cells, grid)
    except (RasterioError, OSError, ValueError):
        agree = False
    if not agree:
        raise OutputError(
            f"{staging.target(FILES['summary'])}: the cells of this map were classified on another device or are "
            "damaged, so that no product can be added; use `redo=True` to map the scene again",
            page="how-to/resume/",
        )
