"""What a run over many scenes will take: measured on a few windows here, before anything is mapped."""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Interleaving

from geocfl.errors import UsageError
from geocfl.grid import CellGrid
from geocfl.mapping.engine import classify_strip
from geocfl.mapping.many import SCENES_AT_ONCE
from geocfl.mapping.mapper import Mapper, cells_of
from geocfl.mapping.settings import MapSettings
from geocfl.mapping.strips import Strip, read_strips
from geocfl.model import DEFAULT_MODEL, Model, load_model
from geocfl.products.cells import write_header
from geocfl.products.staging import FILES
from geocfl.products.truecolor import PICTURE_PIXELS, PREVIEW_PIXELS
from geocfl.products.writing import Finished, write_products
from geocfl.progress import Progress, counted, silent
from geocfl.scene import Scene, Source, find_source, open_scene
from geocfl.scene.assembling import open_dataset
from geocfl.scene.finding import chosen_bands
from geocfl.scene.listing import list_scenes
from geocfl.scene.remote import is_remote, remote_settings
from geocfl.synthetic import BANDS, write_synthetic_scene
from geocfl.table import align

SIDE = 10_980
"""Pixels of a side of a Sentinel-2 tile at 10 m."""
LOOKED_AT = 3
"""Scenes that are measured, spread evenly over the list; the others are taken to be like them."""
SECONDS = 3.0
"""Of classifying, for each scene that is measured."""
WRITTEN_CELLS = 500_000
"""Cells of the map that is written to measure products; of larger ones a part, scaled up."""
BUSY = 0.75
"""A classifier on a CPU that gets less of the cores than this shares them with something else."""
STAND_IN = (3, 4)
"""Down and across, how often the synthetic scene is repeated in the one that stands in for a tile: 3072 x 5120 px."""


@dataclass(frozen=True)
class Stage:
    """What a step takes on one scene.

    Attributes:
        seconds: Elapsed.
        processor: Seconds of all cores together.
    """

    seconds: float
    processor: float


@dataclass(frozen=True)
class Cost:
    """What one scene takes on one machine.

    Attributes:
        scene: Its name.
        pixels: Its pixels.
        windows: Those of its windows that have data.
        start: Opening the scene, hashing its files and looking at a sample of it.
        read: Reading and decoding its pixels.
        classify: Classifying its windows.
        write: Making the products.
        bytes_read: What its bands take in their files; None where that is not known.
        bytes_written: What its products take.
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


@dataclass(frozen=True)
class Plan:
    """What a run will take.

    Attributes:
        scenes: Scenes, or tiles, in all.
        costs: What those that were measured take.
        unreadable: Why scenes were left out that cannot be read.
        stand_in: Whether a generated tile was measured, as there was no scene.
        workers: Machines like this one that share the scenes.
        cores: Of this machine's processor, as this process may use them.
        classifier: Back end and device.
        load: Seconds until a worker's classifier is ready.
        read_rate: Megabytes a second at which a worker gets its files, in addition to what was measured; None where
            that was not stated.
        remote: Whether scenes were measured over the network.
    """

    scenes: int
    costs: tuple[Cost, ...]
    unreadable: tuple[str, ...]
    stand_in: bool
    workers: int
    cores: int
    classifier: str
    load: float
    read_rate: float | None
    remote: bool

    def _mean(self, values: Iterable[float]) -> float:
        return sum(values) / len(self.costs)

    @property
    def windows(self) -> int:
        """Windows to classify, in all."""
        return round(self.scenes * self._mean(cost.windows for cost in self.costs))

    @property
    def bytes_read(self) -> int | None:
        """Bytes to read, in all; None where that is not known."""
        sizes = [cost.bytes_read for cost in self.costs if cost.bytes_read is not None]
        return round(self.scenes * self._mean(sizes)) if len(sizes) == len(self.costs) else None

    @property
    def bytes_written(self) -> int:
        """Bytes to write, in all."""
        return round(self.scenes * self._mean(cost.bytes_written for cost in self.costs))

    @property
    def stages(self) -> dict[str, Stage]:
        """The steps of a scene in the mean, as `Cost` has them, what the stated read rate adds included."""
        stages = {
            name: Stage(
                self._mean(getattr(cost, name).seconds for cost in self.costs),
                self._mean(getattr(cost, name).processor for cost in self.costs),
            )
            for name in ("start", "read", "classify", "write")
        }
        if self.read_rate and self.bytes_read:
            transfer = self.bytes_read / self.scenes / (1e6 * self.read_rate)
            stages["read"] = replace(stages["read"], seconds=stages["read"].seconds + transfer)
        return stages

    def _limits(self) -> tuple[float, float]:
        """Seconds a scene for the steps that wait for each other, and for the processor that they share."""
        stages = self.stages
        turn = max(stages["read"].seconds, stages["classify"].seconds)
        alternating = (stages["start"].seconds + turn + stages["write"].seconds) / SCENES_AT_ONCE
        return max(turn, alternating), sum(stage.processor for stage in stages.values()) / self.cores

    @property
    def seconds_per_scene(self) -> float:
        """Seconds from one scene's end to the next one's, on one worker.

        While a scene is classified its own next strip is read, another scene is opened or its products are written:
        the slowest of these counts, unless their processor time on all cores takes longer still.
        """
        return max(self._limits())

    @property
    def seconds(self) -> float:
        """Seconds from begin to end, with all workers."""
        ends = self.load + self.stages["start"].seconds + self.stages["write"].seconds
        return ends + math.ceil(self.scenes / self.workers) * self.seconds_per_scene

    @property
    def bound(self) -> str:
        """The step, named as in `Cost`, that takes longest, or most of the processor where that is what is short."""
        waiting, processor = self._limits()
        stages = self.stages
        by = "processor" if processor > waiting else "seconds"
        return max(stages, key=lambda name: float(getattr(stages[name], by)))

    def to_json(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        totals = {
            "windows": self.windows,
            "hours": self.seconds / 3600,
            "bytes_read": self.bytes_read,
            "bytes_written": self.bytes_written,
            "bound": self.bound,
            "seconds_per_scene": self.seconds_per_scene,
        }
        return totals | asdict(self)

    def table(self) -> str:
        """The plan as plain text, without a newline at its end."""
        stages, each = self.stages, 1 / self.scenes
        words = {"start": "open and hash", "read": "read", "classify": "classify", "write": "write products"}
        read = self.bytes_read
        by = f"{self.workers:,} worker{'s' if self.workers > 1 else ''}"
        rows = [
            ("windows", f"{round(self.windows * each):,}", f"{self.windows:,}"),
            *((words[name], _seconds(stage.seconds), "") for name, stage in stages.items()),
            ("time, with the steps overlapping", _seconds(self.seconds_per_scene), f"{_hours(self.seconds)}, {by}"),
            ("to read", _bytes(read and read * each), _bytes(read)),
            ("to write", _bytes(self.bytes_written * each), _bytes(self.bytes_written)),
        ]
        lines = [
            align([("", "a scene", f"{self.scenes:,} scene{'s' if self.scenes > 1 else ''}"), *rows], text_columns=[0]),
            "",
        ]
        return "\n".join([*lines, *self._notes()])

    def _notes(self) -> Iterator[str]:
        """What the numbers rest on, a sentence each."""
        doing = {"start": "Opening scenes", "read": "Reading", "classify": "Classifying", "write": "Writing products"}
        yield f"{doing[self.bound]} bounds it."
        names = ", ".join(cost.scene for cost in self.costs)
        cores = f"{self.cores} core{'s' if self.cores > 1 else ''}"
        if self.stand_in:
            yield (
                f"Measured on a generated scene, scaled up to tiles of {SIDE:,} x {SIDE:,} px; "
                "real ones compress differently, so pass one of yours."
            )
        else:
            like = f"; the other {self.scenes - len(self.costs):,} are taken to be like that"
            yield f"Measured on {names}{like if self.scenes > len(self.costs) else ''}."
        yield f"A worker is a machine like this one: {cores}, {self.classifier}."
        classify = self.stages["classify"]
        if " on cpu" in self.classifier and classify.processor < BUSY * self.cores * classify.seconds:
            share, alone = classify.processor / classify.seconds, self._limits()[1]
            yield (
                f"It was busy with other work, of {cores} classifying got {share:.1f}: alone, a scene takes it about "
                f"{_seconds(alone)}. Plan again when it is idle."
            )
        if self.read_rate:
            yield f"Files come at {self.read_rate:g} MB/s to each worker, as --read-rate says; decoding was measured."
        elif self.remote:
            yield "Reading was measured over the network, which workers may share."
        else:
            yield (
                "Files were read on this machine, perhaps from its memory; where they are slower to come by, say how "
                "fast with --read-rate."
            )
        if self.workers > 1 and self.bytes_read is not None:
            yield f"Together the workers read {_bytes(self.bytes_read / self.seconds)} a second."
        if self.unreadable:
            yield f"Left out, as they cannot be read: {'; '.join(self.unreadable)}."


def plan(
    scenes: Iterable[str | Path | Source] = (),
    *,
    tiles: int | None = None,
    workers: int = 1,
    read_rate: float | None = None,
    list_file: str | Path | None = None,
    stac_items: str | Path | None = None,
    model: str | Path = DEFAULT_MODEL,
    device: str = "auto",
    batch_size: int | None = None,
    memory: str = "",
    progress: Progress = silent,
    **settings: Any,
) -> Plan:
    """Finds out what a run of `geocfl.map_scenes` will take, in seconds and without writing anything that stays.

    Of up to three of the scenes, some strips are read, some windows classified, and a map of theirs repeated to the
    scene's size is written into a temporary folder.

    Args:
        scenes: As for `geocfl.map_scenes`; likewise `list_file` and `stac_items`.
        tiles: Plan for this number of scenes like the given ones instead, or where none is given like a generated one
            of a tile's 10,980 x 10,980 pixels. All land is some 20,000 tiles.
        workers: Machines like this one that share the scenes.
        read_rate: Megabytes a second at which a worker gets its files; as fast as it was here by default.
        list_file: Likewise.
        stac_items: Likewise.
        model: As for `geocfl.map_scene`; likewise `device`, `batch_size`, `memory` and the settings.
        device: Likewise.
        batch_size: Likewise.
        memory: Likewise.
        progress: Told of the scenes that are measured.
        **settings: Fields of `MapSettings`.

    Raises:
        UsageError: There is nothing to plan for, or an option is out of its range.
        GeocflError: The model cannot be used, or no scene can be read.
    """
    for option, value in (("tiles", tiles), ("workers", workers)):
        if value is not None and value < 1:
            raise UsageError(f"--{option} {value} is below 1")
    if read_rate is not None and not 0 < read_rate < math.inf:
        raise UsageError(f"--read-rate {read_rate:g} is no number of megabytes a second above 0")
    chosen = MapSettings(**settings)
    mapper = Mapper(load_model(model), chosen, device=device, batch_size=batch_size, memory=memory)
    named = [*scenes]
    stand_in = not (named or list_file or stac_items)
    if stand_in and tiles is None:
        raise UsageError("nothing to plan for; pass scenes, or a number of --tiles")
    with tempfile.TemporaryDirectory(prefix="geocfl-plan-") as folder:
        if stand_in:
            sources, errors = [_write_stand_in(Path(folder), mapper.model)], []
        else:
            listed = list_scenes(named, list_file=list_file, stac_items=stac_items, bands=chosen.bands)
            sources = [scene.source for scene in listed if scene.source]
            errors = [scene.error for scene in listed if scene.error]
            if not sources:
                raise errors[0]
        started = time.perf_counter()
        mapper.rate  # noqa: B018, loads the back end and warms it up
        load = time.perf_counter() - started
        spread = np.unique(np.linspace(0, len(sources) - 1, LOOKED_AT).round().astype(int))
        looked_at = counted([sources[index] for index in spread], progress, "plan", len(spread), "scene")
        costs = tuple(_measure(mapper, source, Path(folder), stand_in) for source in looked_at)
    if read_rate and any(cost.bytes_read is None for cost in costs):
        raise UsageError(f"--read-rate {read_rate:g}: how many bytes the scenes have is not known; leave it out")
    return Plan(
        scenes=tiles or len(sources),
        costs=costs,
        unreadable=tuple(str(error) for error in errors) if tiles is None else (),
        stand_in=stand_in,
        workers=workers,
        cores=_cores(),
        classifier=repr(mapper.backend),
        load=load,
        read_rate=read_rate,
        remote=any(is_remote(band.path) for source in sources for band in source.bands.values()),
    )


class _Clock:
    """What the block under it takes."""

    def __enter__(self) -> _Clock:
        self._seconds, self._processor = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self._seconds = time.perf_counter() - self._seconds
        self._processor = time.process_time() - self._processor

    def stage(self, times: float = 1.0) -> Stage:
        """So many times what the block took."""
        return Stage(times * self._seconds, times * self._processor)


def _measure(mapper: Mapper, source: Source, folder: Path, stand_in: bool) -> Cost:
    """What a scene takes; of the one that stands in for a tile, scaled up to its size."""
    settings, model = mapper.settings, mapper.model
    start = _Clock()
    with mapper.opened(source) as scene:
        with start:
            mapper.digest(scene)
            share = scene.data_share()
        grid = own = cells_of(scene, model, settings.stride)
        if stand_in:
            grid, share = replace(own, height=SIDE, width=SIDE), 1.0
        pixels, windows = grid.height * grid.width, round(share * grid.rows * grid.columns)
        read, strip, placed = _read(mapper, scene, own)
        classify, cells = _classify(mapper, strip, placed)
        write, written = _write(mapper, source, scene, grid, strip, cells, folder / source.stem)
        stored = _stored_bytes(chosen_bands(source, model.bands))
        return Cost(
            scene=scene.name,
            pixels=pixels,
            windows=windows,
            start=start.stage(),
            read=read.stage(pixels / (strip.inside.shape[1] * scene.width)),
            classify=Stage(windows * classify.seconds, windows * classify.processor),
            write=write,
            bytes_read=None if stored is None else round(stored * pixels / _whole_pixels(mapper, source, own)),
            bytes_written=written,
        )


def _read(mapper: Mapper, scene: Scene, grid: CellGrid) -> tuple[_Clock, Strip, Any]:
    """Reads a strip in the middle of a scene as the pipeline does, after the one before it, as blocks are shared.

    Returns:
        What it took, the strip, and its pixels where the classifier wants them.
    """
    rows = mapper.cell_rows(scene, grid)
    middle = max(0, -(-grid.rows // rows) // 2 - 1) * rows
    strips = read_strips(scene, mapper.model.bands, grid, rows, middle, mapper.settings.max_masked)
    if middle + rows < grid.rows:
        next(strips)
    with _Clock() as clock:
        strip = next(strips)
        placed = mapper.backend.place(strip.pixels)
    return clock, strip, placed


def _classify(mapper: Mapper, strip: Strip, placed: Any) -> tuple[Stage, NDArray[np.uint8]]:
    """Classifies as many columns of a strip as there is time for, where it has most data.

    Returns:
        What a window takes, and (bands, k, n) values of the cells, of which some are classified at least.
    """
    rows, columns = strip.valid.shape
    budget = max(mapper.backend.batch_size, int(SECONDS * mapper.rate))
    width = min(columns, -(-budget // rows))
    filled = np.concatenate([[0], np.cumsum(strip.valid.sum(axis=0))])
    first = int((filled[width:] - filled[:-width]).argmax())
    valid = np.zeros_like(strip.valid)
    valid[:, first : first + width] = strip.valid[:, first : first + width]
    with _Clock() as clock:
        cells = classify_strip(
            replace(strip, valid=valid), placed, mapper.settings.stride, mapper.backend, mapper.decision
        )
    cells = cells[:, :, first : first + width]
    if not valid.any():  # the rate on noise, then
        return Stage(1 / mapper.rate, _cores() / mapper.rate), cells
    return clock.stage(1 / int(valid.sum())), cells


def _write(
    mapper: Mapper, source: Source, scene: Scene, grid: CellGrid, strip: Strip, cells: NDArray[np.uint8], folder: Path
) -> tuple[Stage, int]:
    """Writes the products of a map with the classified cells over and over, mirrored.

    Of a large map a part and half of it: what a scene takes anyway and what each row of cells adds are told apart.

    Returns:
        What the whole map takes, and the bytes of its products.
    """
    picture = PICTURE_PIXELS if mapper.selection.truecolor else PREVIEW_PIXELS
    step = -(-max(grid.height, grid.width) // picture)
    shown = strip.inside[mapper.shown, ::step, ::step]
    when, warnings, digest = mapper.taken(scene), scene.warnings(), mapper.digest(scene)

    def write(rows: int) -> NDArray[np.float64]:
        part = replace(grid, height=min(grid.height, rows * grid.stride))
        thumbnail = _repeated(shown, -(-part.height // step), -(-part.width // step)).transpose(1, 2, 0)
        with mapper.staging(source, folder / f"{rows} rows", digest, overwrite=True) as staging:
            work = staging.folder / "cells"
            write_header(work, part.rows, part.columns, len(cells))
            work.write_bytes(_repeated(cells, part.rows, part.columns).transpose(1, 0, 2).tobytes())
            tags, facts = mapper.tags(scene, part), mapper.facts(scene, part, warnings, digest, when, 0)
            finished = Finished(source.stem, work, part, mapper.model.legend, thumbnail, tags, facts, when)
            how = mapper.settings
            with _Clock() as clock:
                summary = write_products(
                    finished, mapper.selection, staging, simplify_m=how.simplify, min_area_ha=how.min_area
                )
            staging.path(FILES["summary"]).write_text(json.dumps(summary, indent=2) + "\n")
            size = sum(staging.path(FILES[name]).stat().st_size for name in mapper.selection.files)
        stage = clock.stage()
        return np.array([stage.seconds, stage.processor, size])

    rows = max(2, min(grid.rows, WRITTEN_CELLS // grid.columns))
    taken = write(min(rows, grid.rows))
    if rows < grid.rows:
        each = np.maximum(0, taken - write(rows // 2)) / (rows - rows // 2)
        taken = taken + each * (grid.rows - rows)
    seconds, processor, size = taken.tolist()
    return Stage(seconds, processor), round(size)


def _repeated(values: NDArray[Any], rows: int, columns: int) -> NDArray[Any]:
    """(B, rows, columns) of (B, h, w) values, mirrored at each edge as often as that takes, so that none is a seam."""

    def indices(count: int, size: int) -> NDArray[np.int64]:
        index = np.arange(count) % (2 * size)
        return np.minimum(index, 2 * size - 1 - index)

    _, height, width = values.shape
    repeated: NDArray[Any] = values[:, indices(rows, height)[:, None], indices(columns, width)]
    return repeated


def _whole_pixels(mapper: Mapper, source: Source, grid: CellGrid) -> int:
    """Pixels of a whole scene, of which an area may be a part."""
    if mapper.reading.area is None:
        return grid.height * grid.width
    how = replace(mapper.reading, area=None, mask="")
    with open_scene(source, reading=how, needed=mapper.model.bands, gsd=mapper.model.gsd) as scene:
        return scene.height * scene.width


def _stored_bytes(source: Source) -> int | None:
    """Bytes that a scene's bands take in their files, compressed as they are; None where that cannot be found out."""
    indices: dict[str, list[int]] = {}
    for band in source.bands.values():
        indices.setdefault(band.path, []).append(band.index)
    total = 0
    for path, wanted in indices.items():
        size = _block_bytes(path, wanted)
        if size is None:
            return None
        total += size
    return total


def _block_bytes(path: str, wanted: list[int]) -> int | None:
    """Bytes of some bands of a raster: of their blocks in a TIFF, else their share of the file."""
    with remote_settings(path), open_dataset(path) as dataset:
        if dataset.driver == "GTiff":
            height, width = dataset.block_shapes[0]
            bands = wanted[:1] if dataset.interleaving == Interleaving.pixel else wanted
            blocks = [
                dataset.get_tag_item(f"BLOCK_SIZE_{x}_{y}", "TIFF", bidx=band)
                for band in bands
                for y in range(-(-dataset.height // height))
                for x in range(-(-dataset.width // width))
            ]
            return sum(int(block or 0) for block in blocks)  # one of no data alone may not be there
        size = _file_bytes(path)
        return None if size is None else round(size * len(wanted) / dataset.count)


def _file_bytes(path: str) -> int | None:
    """Bytes of a file on this machine, or of a member of a zip there."""
    if os.path.isfile(path):
        return os.path.getsize(path)
    if not path.startswith("/vsizip/") or is_remote(path):
        return None
    inner = Path(path.removeprefix("/vsizip/").removeprefix("{").replace("}", ""))
    archive = next((folder for folder in inner.parents if folder.is_file()), None)
    if archive is None:
        return None
    with zipfile.ZipFile(archive) as file:
        return file.getinfo(inner.relative_to(archive).as_posix()).compress_size


def _write_stand_in(folder: Path, model: Model) -> Source:
    """A synthetic scene, repeated, with a model's bands; those that it lacks are its near infrared."""
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


def _cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:,.0f} min"


def _hours(seconds: float) -> str:
    if seconds < 3600:
        return _seconds(seconds)
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 100 else f"{hours:,.0f} h or {hours / 24:,.0f} days"


def _bytes(size: float | None) -> str:
    if size is None:
        return "unknown"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:,.3g} {unit}" if size < 1000 else f"{size:,.0f} {unit}"
