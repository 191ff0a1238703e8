"""Maps one scene: checks it, classifies its windows and writes its products, all or none."""

from __future__ import annotations

import datetime as dt
import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import rasterio

from geocfl.core.grid import CellGrid
from geocfl.core.keywords import declared
from geocfl.core.progress import Progress, silent
from geocfl.errors import SceneError, UsageError
from geocfl.mapping.blocks import Blocks
from geocfl.mapping.cells import Cells, classified, refuse_others, restored
from geocfl.mapping.classifier import Classifier
from geocfl.mapping.encode import Decision
from geocfl.mapping.measured import Measured
from geocfl.mapping.memory import (
    within_memory,
)
from geocfl.mapping.offers import check_features, check_novelty, missing_products
from geocfl.mapping.orders import Orders, paths_of
from geocfl.mapping.refine import Refinement
from geocfl.mapping.settings import MapOptions, MapSettings
from geocfl.models.bundle import DEFAULT_MODEL, Bundle
from geocfl.models.projection import projection_of
from geocfl.products.files import FILES
from geocfl.products.formats.features import FeatureSpace
from geocfl.products.restore import MapCells
from geocfl.products.scene_map import SceneMap
from geocfl.products.selection import Selection
from geocfl.products.staging import Staging
from geocfl.products.update import Order, Update, counted
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
            valid="valid" in self.selection.products,
            conformal=model.conformal if "sets" in self.selection.products else (),
            projection=projection_of(self.model) if self.selection.features else None,
        )
        self.reading = reading or settings.reading()
        self.device, self.batch_size, self.memory, self.remember = device, batch_size, memory, remember
        self.orders = Orders(
            self.model, self.settings, self.selection, self.reading, redo=redo, work=work, remember=remember
        )
        self.classifier = Classifier(
            self.model,
            self.settings,
            self.decision,
            device=device,
            batch_size=batch_size,
            memory=memory,
            scenes_at_once=scenes_at_once,
            threads=threads,
            sharers=sharers,
        )

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
        measured.stage = "open"
        if self.orders.redo or not self.orders.may_exist(source, out):
            self.classifier.load_ahead()
        opening = self.orders.opening(source, out)
        order = self.orders.recalled(opening)
        if order and (done := self._done(source, out, order, started, measured, overwrite=overwrite)):
            return done
        with within_memory(source.path), self.opened(source) as scene, measured.reading(scene):
            grid = cells_of(scene, self.model, self.settings.stride)
            order = self.orders.order(out, scene)
            if opening:
                opening.remember({"cells": order.cells, "taken": scene.taken.isoformat() if scene.taken else None})
            if done := self._done(source, out, order, started, measured, overwrite=overwrite):
                return done
            update = self.orders.update(source, out, order, overwrite=overwrite)
            measured.digest = update.order.digest()
            measured.seconds["open"] = time.perf_counter() - started
            with self.orders.staging(source, out, update, overwrite=overwrite) as staging:
                targets = paths_of(out, source.stem, update.order)
                if staging.state == "done":
                    return SceneMap(targets, already_done=True)
                warnings = scene_warnings(scene)
                for warning in warnings:
                    log.warning("%s", warning)
                timing = {"start_s": time.perf_counter() - started}
                measured.stage = "classify"
                held = self.held(update, staging)
                saved = self.orders.saved(out, source.stem, update.order.digest())
                cells = restored(self.classifier, scene, grid, held, update, staging.folder, progress)
                if cells is None:
                    cells = classified(self.classifier, scene, grid, update, staging.folder, blocks, saved, progress)
                timing["classify_s"] = cells.seconds
                windows, measured.stage = cells.windows, "write"
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

    def remembered(
        self, source: Source, out: str | Path, *, overwrite: bool = False, measured: Measured | None = None
    ) -> SceneMap | None:
        """The map of a scene, if it is done according to what is remembered and listed; None if that is not known.

        Arguments are those of `map`. The scene is not opened.
        """
        started, opening = time.perf_counter(), self.orders.opening(source, out)
        order = self.orders.recalled(opening) if opening and opening.known else None
        if order is None:
            return None
        return self._done(source, out, order, started, measured or Measured(), overwrite=overwrite)

    def _done(
        self, source: Source, out: str | Path, order: Order, started: float, measured: Measured, *, overwrite: bool
    ) -> SceneMap | None:
        """The map of a scene, if the listing of the folder shows that it is done; None if that is not known."""
        done = self.orders.done(source, out, order, overwrite=overwrite)
        if done is None:
            return None
        measured.digest = done.digest()
        measured.seconds["open"] = time.perf_counter() - started
        return SceneMap(paths_of(out, source.stem, done), already_done=True)

    def held(self, update: Update, staging: Staging) -> MapCells:
        """What the finished map holds of the cells that an update needs."""
        return MapCells(update, staging.target, replace(self.decision, logits=False).bands)

    def _write(
        self,
        scene: Scene,
        grid: CellGrid,
        cells: Cells,
        held: MapCells,
        update: Update,
        warnings: list[str],
        staging: Staging,
    ) -> tuple[dict[str, Any], float]:
        """Writes the products, one scene at a time; returns the summary and the seconds it took."""
        from geocfl.products.write import ClassifiedScene, write_products  # with matplotlib: not before the map

        origin, order = self.orders.provenance(scene), update.order
        with _WRITING:
            started = time.perf_counter()
            path = cells.path if cells.restored else self.refined(cells.path, grid)
            if update.kept and not cells.restored:
                refuse_others(held, path, grid, staging)
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
        return FeatureSpace(self.model.name, self.orders.model_hash, found.mean, found.components, found.source)

    def refined(self, cells: Path, grid: CellGrid) -> Path:
        """The work raster that the products are made from: that of the classification, or another beside it."""
        if not self.refinement:
            return cells
        refined = cells.with_name("refined")
        self.refinement.apply(cells, refined, grid, self.decision)
        return refined

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
