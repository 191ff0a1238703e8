"""What runs on Dask workers: a plugin that holds the mapper, and the tasks."""

from __future__ import annotations

import os
import platform
import shutil
import threading
import uuid
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from distributed import Reschedule, WorkerPlugin, get_worker

from geocfl._version import __version__
from geocfl.core.machine import cores
from geocfl.core.progress import Progress
from geocfl.errors import GeocflError, UsageError
from geocfl.mapping.attempts import Attempt, attempt
from geocfl.mapping.blocks import Blocks
from geocfl.mapping.dask_checks import absolute_folder, other_version
from geocfl.mapping.divide import classify_block, divide
from geocfl.mapping.mapper import Mapper
from geocfl.mapping.measured import Measured
from geocfl.models.bundle import FACTS, GRAPH, WEIGHTS, Bundle
from geocfl.products.lock import BusyError
from geocfl.products.scene_map import SceneMap
from geocfl.scenes import Source
from geocfl.scenes.source import absolute_path

T = TypeVar("T")


class Plugin(WorkerPlugin):  # type: ignore[misc]
    """Sets up a mapper on each worker, including those that join later.

    Args:
        mapper: The mapper to copy; the files of its bundle travel to the workers, not its network.
        gpus: Number of GPUs that numbered workers take in turn; 0 if each worker sees only its own.
    """

    def __init__(self, mapper: Mapper, gpus: int = 0) -> None:
        self._gpus = gpus
        files = [mapper.model.folder / name for name in (FACTS, WEIGHTS, GRAPH)]
        self._bundle = {file.name: file.read_bytes() for file in files if file.name != GRAPH or file.is_file()}
        mask = mapper.reading.mask_file
        reading = replace(mapper.reading, mask=absolute_path(mask)) if mask else mapper.reading
        self._settings = mapper.settings
        self._options = {name: getattr(mapper, name) for name in ("device", "batch_size", "memory", "remember")}
        self._options["redo"] = mapper.orders.redo
        self._options["reading"] = reading
        self._options["work"] = absolute_folder(mapper.orders.work)
        self._version = __version__
        self.name = f"geocfl-{uuid.uuid4().hex[:16]}"

    async def setup(self, worker: Any) -> None:
        """Writes the model beside the worker's other files, and loads it; workers on a host share cores and memory.

        A worker with another version, which has joined late, is closed.

        Raises:
            UsageError: The worker has another version of geocfl than the command.
        """
        if __version__ != self._version:
            worker.loop.add_callback(partial(worker.close, reason="geocfl-version"))
            raise UsageError(other_version(worker.address, __version__, self._version))
        self.closing = threading.Event()
        self._folder = Path(worker.local_directory) / self.name
        self._folder.mkdir(parents=True, exist_ok=True)
        for name, content in self._bundle.items():
            (self._folder / name).write_bytes(content)
        known = (await worker.scheduler.identity(n_workers=-1))["workers"].values()
        sharers = max(1, sum(each["host"] == worker.ip for each in known))
        self.mapper = Mapper(
            Bundle.load(self._folder),
            self._settings,
            scenes_at_once=worker.state.nthreads,
            threads=max(1, cores() // sharers),
            sharers=sharers,
            **self._options | {"device": own_device(self._options["device"], worker.name, self._gpus)},
        )

    def teardown(self, worker: Any) -> None:
        """Stops the tasks, for whose threads a worker waits some seconds when it closes; removes the model's files."""
        self.closing.set()
        shutil.rmtree(self._folder, ignore_errors=True)


def own_device(device: str, worker: object, gpus: int) -> str:
    """The device of a local worker: with several GPUs, those that `device` leaves open are taken in turn.

    Args:
        device: As for `geocfl.map_scene`.
        worker: The worker's number, or its name on a cluster that geocfl did not start.
        gpus: Number of GPUs.
    """
    if device in ("auto", "cuda") and gpus > 1 and isinstance(worker, int):
        return f"cuda:{worker % gpus}"
    return device


# The tasks. They return errors instead of raising them, so that the client decides what is tried again, and when.


def stamped(
    version: str, plugin: str, path: str, note: tuple[int, int] | None, task: Callable[..., T], *arguments: Any
) -> Attempt[T] | str:
    """Does a task on a scene, unless the worker has another version of geocfl, which is then returned.

    Args:
        version: The version of the command.
        plugin: Name of the plugin with the mapper.
        path: The scene.
        note: Index of the scene and number of the attempt, for the client when it begins; None for a part of one.
        task: Called with the mapper, what receives the measurements, what stops the work, and the arguments.
        *arguments: Those of the task.
    """
    if version != __version__:
        return __version__
    worker = get_worker()
    held: Plugin = worker.plugins[plugin]
    if note is not None:
        worker.log_event(plugin, (*note, platform.node(), os.getpid()))

    def stop(what: str, done: int, total: int, unit: str) -> None:
        if held.closing.is_set():  # the plugin is taken from its worker, such as after SIGTERM
            raise KeyboardInterrupt

    try:
        return attempt(path, lambda measured: task(held.mapper, measured, stop, *arguments))
    except KeyboardInterrupt as error:
        raise Reschedule from error  # gives the task to another worker


def map_one(
    mapper: Mapper, measured: Measured, stop: Progress, source: Source, out: Path, overwrite: bool, block_windows: int
) -> SceneMap | Blocks:
    """The task to map a scene, or to divide it if it has more than `block_windows` windows."""
    measured.stage = "open"
    blocks = divide(mapper, source, out, overwrite=overwrite, windows=block_windows)
    return blocks or mapper.map(source, out, overwrite=overwrite, progress=stop, measured=measured)


def classify_one_block(
    mapper: Mapper, measured: Measured, stop: Progress, source: Source, blocks: Blocks, first: int, last: int
) -> None:
    """The task to classify one block of a scene."""
    classify_block(mapper, source, blocks, first, last, stop, measured)


def join_blocks(
    mapper: Mapper,
    measured: Measured,
    stop: Progress,
    source: Source,
    out: Path,
    overwrite: bool,
    blocks: Blocks,
    parts: list[Attempt[None] | str],
) -> SceneMap:
    """The task to write the map of a scene whose blocks are classified.

    Raises:
        GeocflError: A block failed.
    """
    ended = [part for part in parts if isinstance(part, Attempt)]
    errors = [(part.result, part.measured.stage) for part in ended if part.result]
    if len(ended) < len(parts):
        errors.append((GeocflError(f"{source.path}: a worker has another version of geocfl", transient=True), ""))
    try:
        # A transient error keeps the other blocks; in a busy folder, they belong to another process.
        if errors:
            error, measured.stage = min(errors, key=lambda each: each[0].transient)
            if not error.transient and not isinstance(error, BusyError):
                shutil.rmtree(blocks.parent, ignore_errors=True)
            raise error
        return mapper.map(source, out, overwrite=overwrite, progress=stop, blocks=blocks, measured=measured)
    finally:
        measured.add(part.measured for part in ended)
