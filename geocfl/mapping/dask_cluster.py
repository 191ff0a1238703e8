"""Maps scenes on a Dask cluster: one task per scene, or per block of a large scene."""

from __future__ import annotations

import logging
import os
import platform
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, overload

from distributed import (
    CancelledError,
    Client,
    Future,
    KilledWorker,
    LocalCluster,
    Reschedule,
    WorkerPlugin,
    get_worker,
)

from geocfl._version import __version__
from geocfl.core.machine import cores
from geocfl.core.progress import Progress
from geocfl.errors import GeocflError, OutputError, SceneError, UsageError
from geocfl.mapping.attempts import Attempt, Ended, attempt, in_turn, refused
from geocfl.mapping.blocks import Blocks
from geocfl.mapping.divide import BLOCK_WINDOWS, classify_block, divide
from geocfl.mapping.mapper import SCENES_AT_ONCE, Mapper
from geocfl.mapping.measured import Measured
from geocfl.mapping.results import unexpected
from geocfl.models.backends import count_gpus
from geocfl.models.bundle import FACTS, GRAPH, WEIGHTS, Bundle
from geocfl.products.lock import BusyError
from geocfl.products.scene_map import SceneMap
from geocfl.products.storage import in_store, output_folder
from geocfl.scenes import Source
from geocfl.scenes.collect import Listed
from geocfl.scenes.fingerprint import local_file
from geocfl.scenes.source import absolute, absolute_path

T = TypeVar("T")

log = logging.getLogger("geocfl")

PATIENCE = 30.0
"""Seconds to wait for a scheduler, for its first worker, and for either to come back."""
GPU = "GPU"
"""Dask resource of a worker that classifies on a GPU; a task takes a part of it, so that `SCENES_AT_ONCE` share one."""


def map_on_dask(
    mapper: Mapper,
    listed: Sequence[Listed],
    out: str | Path,
    *,
    overwrite: bool = False,
    workers: int = 0,
    scheduler: str | None = None,
    retries: int = 2,
    block_windows: int = BLOCK_WINDOWS,
    begun: Callable[[int, int, str, int], object] = lambda *_: None,
) -> Generator[Ended, None, None]:
    """Maps scenes on Dask workers, as `geocfl.map_scenes` does; divides scenes of more than `block_windows` windows.

    Every worker must see the scenes and `out` under the same paths. If a worker dies, another resumes its scene after
    the last finished strip. If the scheduler is lost and comes back, it receives the unfinished scenes again. When an
    attempt begins, `begun` is called with the index of the scene, the number of the attempt, the host and the process.

    Raises:
        UsageError: The scheduler cannot be reached or has no workers, or these have another version of geocfl, lack the
            GPU asked for, or do not see the files. Raised before work starts.
        GeocflError: The scheduler was lost and did not come back, or was lost more often than `retries` allows.
    """
    left = {index: scene for index, scene in enumerate(listed) if scene.source}
    for index, scene in enumerate(listed):
        if scene.source is None:
            error = scene.error or SceneError(f"{scene.path}: cannot be read")
            yield Ended(index, refused(error, "open"), 1, "failed")
    if not left:
        return
    folder = _absolute(output_folder(out))
    with (
        _connected(scheduler, workers, mapper) as client,
        _Run(client, mapper, folder, overwrite, retries, block_windows, begun, local=not scheduler) as run,
    ):
        run.prepare(left.values())
        for losses in range(retries, -1, -1):
            for ended in run.ends(left):
                if ended.outcome not in ("retried", "busy"):
                    del left[ended.index]
                yield ended
            if not left:
                return
            lost = f"the connection to the scheduler was lost with {len(left)} scenes to go"
            again = "run the same command again to do the rest"
            if not losses:
                raise GeocflError(f"{lost}, again; {again}")
            log.warning("%s; waiting for the scheduler to come back", lost)
            try:
                run.prepare(left.values())
            except UsageError as error:
                raise GeocflError(f"{lost} ({error}); {again}") from error


@contextmanager
def _connected(scheduler: str | None, workers: int, mapper: Mapper) -> Iterator[Client]:
    """A client of the scheduler, or of a local cluster that lasts as long as the block."""
    if scheduler:
        try:
            client = Client(scheduler, timeout=PATIENCE, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise UsageError(
                f"`scheduler` {scheduler}: no Dask scheduler answers there; start one with dask scheduler, or correct "
                "the address, such as tcp://10.0.0.1:8786"
            ) from error
        with client:
            log.info("%s: dashboard at %s", scheduler, client.dashboard_link)
            yield client
        return
    resources = {GPU: 1} if mapper.device.startswith("cuda") else None
    with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=SCENES_AT_ONCE,
            dashboard_address="localhost:0",
            resources=resources,
            silence_logs=logging.ERROR,
        ) as cluster,
        Client(cluster, timeout=PATIENCE, set_as_default=False) as client,
    ):
        log.info("%d workers on this machine; dashboard at %s", workers, client.dashboard_link)
        yield client


class _Plugin(WorkerPlugin):  # type: ignore[misc]
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
        self._options["work"] = _absolute(mapper.orders.work)
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
            raise UsageError(_other_version(worker.address, __version__, self._version))
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


def _stamped(
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
    held: _Plugin = worker.plugins[plugin]
    if note is not None:
        worker.log_event(plugin, (*note, platform.node(), os.getpid()))

    def stop(what: str, done: int, total: int, unit: str) -> None:
        if held.closing.is_set():  # the plugin is taken from its worker, such as after SIGTERM
            raise KeyboardInterrupt

    try:
        return attempt(path, lambda measured: task(held.mapper, measured, stop, *arguments))
    except KeyboardInterrupt as error:
        raise Reschedule from error  # gives the task to another worker


def _map_scene(
    mapper: Mapper, measured: Measured, stop: Progress, source: Source, out: Path, overwrite: bool, block_windows: int
) -> SceneMap | Blocks:
    blocks = divide(mapper, source, out, overwrite=overwrite, windows=block_windows)
    return blocks or mapper.map(source, out, overwrite=overwrite, progress=stop, measured=measured)


def _classify_block(
    mapper: Mapper, measured: Measured, stop: Progress, source: Source, blocks: Blocks, first: int, last: int
) -> None:
    classify_block(mapper, source, blocks, first, last, stop, measured)


def _join_blocks(
    mapper: Mapper,
    measured: Measured,
    stop: Progress,
    source: Source,
    out: Path,
    overwrite: bool,
    blocks: Blocks,
    parts: list[Attempt[None] | str],
) -> SceneMap:
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


class _Run:
    """The scenes of one call on a cluster: checks the workers, submits scenes, and yields results as they finish.

    A context manager: at its end, the model is removed from the workers, which may live on.
    """

    def __init__(
        self,
        client: Client,
        mapper: Mapper,
        out: Path,
        overwrite: bool,
        retries: int,
        block_windows: int,
        begun: Callable[[int, int, str, int], object],
        *,
        local: bool,
    ) -> None:
        self._local, self._begun = local, begun
        self._client, self._mapper, self._out = client, mapper, out
        self._overwrite, self._retries, self._block_windows = overwrite, retries, block_windows
        self._plugin = ""
        self._resources: dict[str, float] | None = None

    def __enter__(self) -> _Run:
        return self

    def __exit__(self, *_: object) -> None:
        self._take_back()

    def _take_back(self) -> None:
        """Removes the model from the workers."""
        if self._plugin:
            with suppress(Exception):  # the scheduler may be gone, and the workers with it
                self._client.unregister_worker_plugin(self._plugin)
                self._client.unsubscribe_topic(self._plugin)

    def prepare(self, scenes: Collection[Listed]) -> None:
        """Checks the workers and sends the model to each.

        Raises:
            UsageError: The workers cannot do the work.
        """
        client, device = self._client, self._mapper.device
        try:
            client.wait_for_workers(1, timeout=PATIENCE)
        except (TimeoutError, OSError) as error:
            raise UsageError(
                "the scheduler has no workers; start some with dask worker ADDRESS --nthreads 2, then run the same "
                "command again"
            ) from error
        workers = client.scheduler_info(n_workers=-1)["workers"]
        equipped = [address for address, worker in workers.items() if worker["resources"].get(GPU)]
        if device.startswith("cuda") and not equipped:
            raise UsageError(
                f"`device` is {device}, but no worker has a GPU resource; start workers with a GPU by "
                'dask worker --resources "GPU=1"'
            )
        on_gpus = device.startswith("cuda") or len(equipped) == len(workers)
        self._resources = {GPU: 1 / SCENES_AT_ONCE} if on_gpus else None
        _check_versions(client)
        _check_paths(client, scenes, self._mapper.reading.mask_file)
        for folder in filter(None, (_absolute(self._mapper.orders.work), self._out)):
            _check_folder(client, folder)
        self._take_back()
        plugin = _Plugin(self._mapper, count_gpus() if self._local else 0)
        client.register_plugin(plugin)
        self._plugin = plugin.name
        client.subscribe_topic(plugin.name, self._note)

    def _note(self, event: tuple[float, tuple[int, int, str, int]]) -> None:
        """Takes note of an attempt that has begun on a worker."""
        index, number, host, pid = event[1]
        self._begun(index, number, host, pid)

    def ends(self, scenes: Mapping[int, Listed]) -> Generator[Ended, None, None]:
        """Attempts scenes; those lost with the scheduler do not end."""
        sources = {index: absolute(scene.source) for index, scene in scenes.items() if scene.source}
        divided: dict[int, tuple[Attempt[Any], float]] = {}
        numbers: dict[int, int] = {}

        def submit(index: int, number: int) -> Future:
            numbers[index] = number
            source, out = sources[index], scenes[index].below(self._out)
            note = (index, number)
            task = (_map_scene, source, out, self._overwrite, self._block_windows)
            return self._submit(scenes[index].path, note, *task, priority=-1 if number > 1 else 0)

        def settle(index: int, future: Future) -> Attempt[SceneMap] | Future | None:
            path, source = scenes[index].path, sources[index]
            ended = self._ended(future, path)
            if isinstance(ended, str):
                return submit(index, numbers[index])
            if ended is not None and isinstance(blocks := ended.result, Blocks):
                divided[index] = ended, time.monotonic()
                parts = [self._submit(path, None, _classify_block, source, blocks, *rows) for rows in blocks.rows]
                where = (scenes[index].below(self._out), self._overwrite)
                return self._submit(path, None, _join_blocks, source, *where, blocks, parts)
            if ended is not None and index in divided:
                first, since = divided.pop(index)
                elapsed = first.elapsed + time.monotonic() - since
                return replace(ended, start=first.start, elapsed=elapsed)
            return ended

        yield from in_turn(sources, submit, settle, self._retries, unforeseen_too=True)

    def _ended(self, future: Future, path: str) -> Attempt[Any] | str | None:
        """What a task gave: an attempt, the version of the worker that refused it, or None if it was lost."""
        try:
            ended: Attempt[Any] | str = future.result()
        except CancelledError:
            return None
        except KilledWorker:
            return refused(
                SceneError(
                    f"{path}: the workers that mapped it died, perhaps because they ran out of memory; give them more, "
                    "or lower `memory`"
                )
            )
        except Exception as error:
            if version := self._dismiss_others():  # its geocfl does not know this task
                return version
            return replace(refused(unexpected(path, error)), unforeseen=True)
        if isinstance(ended, str):
            self._dismiss_others()
        return ended

    def _dismiss_others(self) -> str:
        """Closes workers of other versions, which have joined late; returns the version of one, or nothing."""
        try:
            others = _other_versions(self._client)
            for address, version in others.items():
                log.warning("%s; it is closed", _other_version(address, version, __version__))
            if others:
                self._client.retire_workers(list(others))
        except (OSError, TimeoutError):  # they are gone already, or the scheduler is
            return ""
        return next(iter(others.values()), "")

    def _submit(
        self, path: str, note: tuple[int, int] | None, task: Callable[..., Any], *arguments: Any, priority: int = 1
    ) -> Future:
        """Submits a task; by default before waiting tasks, because its scene has been started."""
        return self._client.submit(
            _stamped,
            __version__,
            self._plugin,
            path,
            note,
            task,
            *arguments,
            key=f"geocfl{task.__name__}-{uuid.uuid4().hex}",
            retries=self._retries,
            resources=self._resources,
            priority=priority,
        )


def _check_versions(client: Client) -> None:
    """Checks that all workers have this version of geocfl.

    Raises:
        UsageError: A worker has another version or none.
    """
    for address, found in _other_versions(client).items():
        raise UsageError(_other_version(address, found, __version__))


def _other_versions(client: Client) -> dict[str, str]:
    """Workers with another version of geocfl than this one, by address; an empty version is no geocfl."""

    def version() -> str:  # pickled by value, because workers may lack geocfl
        try:
            from geocfl._version import __version__

            return __version__
        except ImportError:
            return ""

    return {address: found for address, found in client.run(version, on_error="ignore").items() if found != __version__}


def _other_version(address: str, found: str, wanted: str) -> str:
    has = f"geocfl {found}" if found else "no geocfl"
    return f"worker {address} has {has}, but this is {wanted}; install the same version there"


def _check_paths(client: Client, scenes: Collection[Listed], mask: str | None) -> None:
    """Checks that all workers see the scenes and the mask.

    Raises:
        UsageError: A worker does not see one of them.
    """
    sources = [scene.source for scene in scenes if scene.source]
    bands = {band.path for source in sources for band in (*source.bands.values(), source.scl) if band}
    rasters = [*bands, *(source.raster for source in sources if source.raster), *([mask] if mask else [])]
    local = sorted({str(file) for file in map(local_file, map(absolute_path, rasters)) if file})

    for address, missing in _lacking(client, local).items():
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise UsageError(
                f"worker {address} does not see {missing[0]}{more}; mount the same folders there, under the same paths"
            )


def _check_folder(client: Client, folder: Path) -> None:
    """Checks that all workers see a folder that they write to, unless it is in an object store.

    Raises:
        UsageError: A worker does not see it, or sees another folder in its place.
        OutputError: It cannot be written to.
    """
    if in_store(folder):
        return
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    mark = folder / f".geocfl-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mark.touch()
        for address, missing in _lacking(client, [str(mark)]).items():
            if missing:
                raise UsageError(f"worker {address} does not see the folder {folder}; mount it there under that path")
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written to ({error.strerror}); choose another folder") from error
    finally:
        with suppress(OSError):  # another process has written into it
            mark.unlink(missing_ok=True)
            for each in made:
                each.rmdir()


def _lacking(client: Client, paths: list[str]) -> dict[str, list[str]]:
    """Those of the paths that each worker does not see."""

    def lacking() -> list[str]:  # pickled by value, because it does not need geocfl
        import os

        return [path for path in paths if not os.path.exists(path)]

    found: dict[str, list[str]] = client.run(lacking)
    return found


@overload
def _absolute(folder: None) -> None: ...
@overload
def _absolute(folder: Path) -> Path: ...
def _absolute(folder: Path | None) -> Path | None:
    """A folder as all workers may see it."""
    return folder if folder is None or in_store(folder) else folder.absolute()
