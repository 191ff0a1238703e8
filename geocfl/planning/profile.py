"""Measures the cost of one scene on this machine, step by step."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import time
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from geocfl.core.grid import CellGrid
from geocfl.core.machine import cores
from geocfl.core.numbers import thinned
from geocfl.core.windows import has_data, share
from geocfl.demonstration.landscape import BANDS, write_synthetic_scene
from geocfl.mapping.mapper import Mapper, cells_of
from geocfl.mapping.pipeline import classify_strip
from geocfl.mapping.strips import Strip, scene_strips
from geocfl.models.backends.jobs import tile_rows
from geocfl.models.bundle import Bundle
from geocfl.planning.requests import counted_requests
from geocfl.planning.stored_size import file_bytes, stored_bytes
from geocfl.products.files import FILES
from geocfl.products.formats.truecolor import thumbnail_step
from geocfl.products.scratch import write_header
from geocfl.products.update import Order, Update
from geocfl.products.write import ClassifiedScene, write_products
from geocfl.scenes import Scene, Source, find_source, open_scene
from geocfl.scenes.checks import scene_warnings
from geocfl.scenes.find import chosen_bands
from geocfl.scenes.urls import is_remote

SIDE = 10_980
"""Width and height of a Sentinel-2 tile at 10 m, pixels."""
SECONDS = 3.0
"""Time to spend on classifying each measured scene."""
WRITTEN_CELLS = 500_000
"""Largest map, in cells, that is written to measure products; the cost of larger maps is extrapolated."""
SAMPLED_ROWS = 9
"""Rows of cells, spread over a scene, from which the share inside the area and outside the mask is estimated."""
ACQUIRED = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
"""Placeholder date of acquisition; the size of a STAC Item does not depend on it."""
DIGEST = "0" * 64
"""Placeholder digest."""
STAND_IN = (3, 4)
"""Repetitions of the synthetic scene, down and across, in the stand-in for a tile: 3072 x 5120 px."""


@dataclass(frozen=True)
class Stage:
    """Cost of one step on one scene.

    Attributes:
        seconds: Elapsed time.
        processor: CPU time, summed over all cores, in seconds.
    """

    seconds: float
    processor: float

    def __add__(self, other: Stage) -> Stage:
        """The cost of both steps in sequence."""
        return Stage(self.seconds + other.seconds, self.processor + other.processor)


@dataclass(frozen=True)
class Cost:
    """Cost of one scene on one machine.

    Attributes:
        scene: Name of the scene.
        pixels: Number of pixels.
        windows: Number of windows with data.
        start: Opening the scene, hashing its files and reading a sample.
        read: Reading and decoding the pixels.
        classify: Classifying the windows.
        write: Writing the products.
        bytes_read: Stored size of the bands; None if unknown.
        bytes_written: Size of the products.
        bytes_hashed: Size of the files on this machine that are read whole, to identify the scene.
        requests: Requests to servers; 0 if the scene lies on this machine.
    """

    scene: str
    pixels: int
    windows: int
    start: Stage
    read: Stage
    classify: Stage
    write: Stage
    bytes_read: int | None
    bytes_written: int
    bytes_hashed: int = 0
    requests: int = 0


class _Clock:
    """Measures the time of a ``with`` block.

    Args:
        far: Whether to count requests to servers too.
    """

    def __init__(self, far: bool = False) -> None:
        self._counting = counted_requests() if far else nullcontext()
        self.requests = 0

    def __enter__(self) -> _Clock:
        self._seen = self._counting.__enter__()
        self._seconds, self._processor = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self._seconds = time.perf_counter() - self._seconds
        self._processor = time.process_time() - self._processor
        self._counting.__exit__(None, None, None)
        self.requests = self._seen.count if self._seen else 0

    def stage(self, times: float = 1.0) -> Stage:
        """The cost of the block, multiplied by `times`."""
        return Stage(times * self._seconds, times * self._processor)


def measure_scene(mapper: Mapper, source: Source, folder: Path, stand_in: bool = False) -> Cost:
    """Measures the cost of mapping a scene.

    Reads a few strips, classifies some windows, and writes a map of the scene's size made of the classified cells.

    Args:
        mapper: The model and settings; its classifier is loaded if necessary.
        source: The scene.
        folder: Folder for the products, which are kept.
        stand_in: Whether the scene stands in for a tile; every cost that grows with the pixels is then scaled up to
            `SIDE` x `SIDE` pixels.

    Raises:
        SceneError: The scene cannot be read, or lacks what the model needs.
        GeocflError: The products cannot be written, or the model cannot be used.
    """
    settings, model = mapper.settings, mapper.model
    with ExitStack() as stack:
        far = any(is_remote(band.path) for band in source.bands.values())
        with _Clock(far) as opening:
            scene = stack.enter_context(mapper.opened(source))
        with _Clock(far) as hashing:
            mapper.orders.provenance(scene).digest()
        with _Clock(far) as sampling:
            known = scene.data_share()
        grid = own = cells_of(scene, model, settings.stride)
        if stand_in:
            grid, known = replace(own, height=SIDE, width=SIDE), 1.0
        pixels, windows = grid.height * grid.width, known * grid.rows * grid.columns
        larger = pixels / (own.height * own.width)
        read, strip, placed = _read(mapper, scene, own, far)
        of_strip = strip.inside.shape[1] * own.width
        windows = round(windows * _wanted(scene, own, settings.max_masked) * _not_interpolated(strip))
        classify, cells = _classify(mapper, own, strip, placed)
        write, written = _write(mapper, source, scene, grid, strip, cells, folder / source.stem)
        stored = stored_bytes(chosen_bands(source, model.bands))
        bytes_read = None if stored is None else round(stored * pixels / _whole_pixels(mapper, source, own))
        started = opening.requests + hashing.requests + sampling.requests
        return Cost(
            scene=scene.name,
            pixels=pixels,
            windows=windows,
            start=opening.stage() + hashing.stage(larger) + sampling.stage(),
            read=read.stage(pixels / of_strip),
            classify=Stage(windows * classify.seconds, windows * classify.processor),
            write=write,
            bytes_read=bytes_read,
            bytes_written=written,
            bytes_hashed=round(larger * sum(file_bytes(file) or 0 for file in set(scene.files))),
            requests=started + round(read.requests * pixels / of_strip),
        )


def _wanted(scene: Scene, grid: CellGrid, max_masked: float) -> float:
    """Share of the cells to classify inside the area and outside the mask, 0..1, estimated from some rows."""
    if scene.mask is None and scene.extent.shapes is None:
        return 1.0
    left = []
    for row in np.unique(np.linspace(0, grid.rows - 1, SAMPLED_ROWS).round().astype(int)).tolist():
        start, stop = row * grid.stride, min(grid.height, (row + 1) * grid.stride)
        wanted = scene.extent.inside(start, stop)
        cells = np.ones((1, grid.columns), bool) if wanted is None else has_data(wanted, grid.stride)
        if scene.mask is not None:
            hidden = scene.mask.read(scene.extent, start, stop)
            cells &= share(hidden if wanted is None else hidden & wanted, grid.stride) <= max_masked
        left.append(cells.mean())
    return float(np.mean(left))


def _not_interpolated(strip: Strip) -> float:
    """Share of a strip's cells with data that are classified, 0..1."""
    return float(strip.chosen.sum() / strip.valid.sum()) if strip.valid.any() else 1.0


def _read(mapper: Mapper, scene: Scene, grid: CellGrid, far: bool) -> tuple[_Clock, Strip, Any]:
    """Reads a strip in the middle of a scene as the pipeline does, after the strip before it, which shares blocks.

    Returns:
        The time, the strip, and its pixels on the device of the classifier.
    """
    rows = mapper.classifier.cell_rows(scene, grid)
    middle = max(0, -(-grid.rows // rows) // 2 - 1) * rows
    how = mapper.settings
    strips = scene_strips(
        scene,
        mapper.model.bands,
        grid,
        rows,
        middle,
        how.max_masked,
        interpolate=how.interpolate,
        stored=mapper.classifier.backend.takes_numbers,
    )
    if middle + rows < grid.rows:
        next(strips)
    with _Clock(far) as clock:
        strip = next(strips)
        placed = mapper.classifier.backend.place(strip.pixels)
    return clock, strip, placed


def _classify(mapper: Mapper, grid: CellGrid, strip: Strip, placed: Any) -> tuple[Stage, NDArray[np.uint8]]:
    """Classifies as many columns of a strip as time allows, where it has the most data.

    Returns:
        The cost of a window, and the (bands, k, n) values of the cells, some of which are classified.
    """
    rows, columns = strip.valid.shape
    stride, model = mapper.settings.stride, mapper.model
    unit = tile_rows(stride) if model.feature_stride else 1  # a dense model computes whole tiles
    # Some back ends compute several batches or tiles at once.
    least = 2 * rows * unit if model.feature_stride else 4 * mapper.classifier.backend.batch_size
    filled = np.concatenate([[0], np.cumsum(strip.valid.sum(axis=0))])

    def classified(windows: int) -> tuple[_Clock, int, NDArray[np.uint8]]:
        width = min(columns, -(-windows // (rows * unit)) * unit)
        first = int((filled[width:] - filled[:-width])[::unit].argmax()) * unit
        valid = np.zeros_like(strip.valid)
        valid[:, first : first + width] = strip.valid[:, first : first + width]
        with _Clock() as clock:
            chosen = replace(strip, valid=valid, chosen=valid)
            cells = classify_strip(chosen, placed, grid, mapper.classifier.backend, mapper.decision)
        return clock, int(valid.sum()), cells[:, :, first : first + width]

    trial, count, cells = classified(least)  # also warms up the back end
    if not count:  # use the rate measured on noise
        per_second = (
            mapper.classifier.rate * (model.window / stride) ** 2 if model.feature_stride else mapper.classifier.rate
        )
        return Stage(1 / per_second, cores() / per_second), cells
    clock, count, cells = classified(max(least, int(SECONDS * count / trial.stage().seconds)))
    return clock.stage(1 / count), cells


def _write(
    mapper: Mapper, source: Source, scene: Scene, grid: CellGrid, strip: Strip, cells: NDArray[np.uint8], folder: Path
) -> tuple[Stage, int]:
    """Writes the products of a map that repeats the classified cells, mirrored.

    For a large map, writes a part and half of that part, and derives from them a fixed cost and a cost per row of
    cells. Each is written twice and the faster time counts, because a disturbance would be scaled up too.

    Returns:
        The cost of the whole map, and the bytes of its products.
    """
    step = thumbnail_step(grid, detail=mapper.selection.truecolor)
    shown = thinned(strip.inside, mapper.classifier.shown, slice(None, None, step), slice(None, None, step))
    order = Order(DIGEST, mapper.selection, mapper.settings.simplify, mapper.settings.min_area, ACQUIRED.isoformat())
    origin, warnings, count = mapper.orders.provenance(scene), scene_warnings(scene), itertools.count()

    def write(rows: int) -> NDArray[np.float64]:
        part = replace(grid, height=min(grid.height, rows * grid.stride))
        thumbnail = _repeated(shown, -(-part.height // step), -(-part.width // step)).transpose(1, 2, 0)
        with mapper.orders.staging(source, folder / str(next(count)), Update(order), overwrite=True) as staging:
            work = staging.folder / "cells"
            write_header(work, part.rows, part.columns, mapper.decision.bands)
            work.write_bytes(_repeated(cells, part.rows, part.columns).transpose(1, 0, 2).tobytes())
            facts = origin.facts(
                part, order=order, warnings=warnings, classifier=repr(mapper.classifier.backend), masked=0
            )
            tags = origin.tags(part)
            finished = ClassifiedScene(source.stem, work, part, mapper.model.legend, thumbnail, tags, facts, ACQUIRED)
            how = mapper.settings
            with _Clock() as clock:
                finished = replace(finished, cells=mapper.refined(work, part))
                summary = write_products(
                    finished, mapper.selection, staging, simplify_m=how.simplify, min_area_ha=how.min_area
                )
            staging.path(FILES["summary"]).write_text(json.dumps(summary, indent=2) + "\n")
            size = sum(staging.path(FILES[name]).stat().st_size for name in mapper.selection.files)
        stage = clock.stage()
        return np.array([stage.seconds, stage.processor, size])

    rows = max(2, min(grid.rows, WRITTEN_CELLS // grid.columns))
    if rows < grid.rows:
        part, half = (np.minimum(write(some), write(some)) for some in (rows, rows // 2))
        taken = part + np.maximum(0, part - half) / (rows - rows // 2) * (grid.rows - rows)
    else:
        taken = write(grid.rows)
    seconds, processor, size = taken.tolist()
    return Stage(seconds, processor), round(size)


def _repeated(values: NDArray[Any], rows: int, columns: int) -> NDArray[Any]:
    """Extends (B, h, w) values to (B, rows, columns) by mirroring at each edge, so that there are no seams."""

    def indices(count: int, size: int) -> NDArray[np.int64]:
        index = np.arange(count) % (2 * size)
        return np.minimum(index, 2 * size - 1 - index)

    _, height, width = values.shape
    repeated: NDArray[Any] = values[:, indices(rows, height)[:, None], indices(columns, width)]
    return repeated


def _whole_pixels(mapper: Mapper, source: Source, grid: CellGrid) -> int:
    """Pixels of the whole scene, also if only an area is mapped."""
    if mapper.reading.area is None:
        return grid.height * grid.width
    how = replace(mapper.reading, area=None, mask=None)
    with open_scene(source, how, needed=mapper.model.bands, gsd=mapper.model.gsd) as scene:
        return scene.height * scene.width


def write_stand_in(folder: Path, model: Bundle) -> Source:
    """Writes a repeated synthetic scene with a model's bands; a band that it lacks is a copy of the near infrared."""
    path, truth = folder / "generated.tif", folder / "truth.tif"
    write_synthetic_scene(path, truth)
    with rasterio.open(path) as dataset:
        held = {band: dataset.read(1 + BANDS.index(band if band in BANDS else "B08")) for band in model.bands}
        profile = dataset.profile | {"count": len(held), "blockxsize": 512, "blockysize": 512}
    held = {band: np.tile(np.where(pixels == 0, np.median(pixels), pixels), STAND_IN) for band, pixels in held.items()}
    profile["height"], profile["width"] = next(iter(held.values())).shape
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.descriptions = tuple(held)
        for number, pixels in enumerate(held.values(), start=1):
            dataset.write(pixels.astype(profile["dtype"]), number)
    return find_source(path)
