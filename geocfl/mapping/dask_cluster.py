"""Maps scenes on a Dask cluster: one task per scene, or per block of a large scene."""

from __future__ import annotations

import logging
import shutil
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
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
    as_completed,
    get_worker,
)

from geocfl._version import __version__
from geocfl.core.machine import cores
from geocfl.core.progress import Progress
from geocfl.errors import GeocflError, OutputError, SceneError, UsageError
from geocfl.mapping.blocks import Blocks
from geocfl.mapping.divide import BLOCK_WINDOWS, classify_block, divide
from geocfl.mapping.mapper import SCENES_AT_ONCE, Mapper
from geocfl.mapping.results import Result, unexpected
from geocfl.models.backends import count_gpus
from geocfl.models.bundle import FACTS, GRAPH, WEIGHTS, Bundle
from geocfl.products.lock import BusyError
from geocfl.products.scene_map import SceneMap
from geocfl.products.storage import in_store, output_folder
from geocfl.scenes import Source
from geocfl.scenes.collect import Listed
from geocfl.scenes.fingerprint import local_file
from geocfl.scenes.remote import pause_before_retry
from geocfl.scenes.source import absolute, absolute_path

T = TypeVar("T")

log = logging.getLogger("geocfl")

PATIENCE = 30.0
"""Seconds to wait for a scheduler, for its first worker, and for either to come back."""
BUSY_PATIENCE, BUSY_PAUSE = 300.0, 2.0
"""Seconds to wait for a process that maps the same scene, and between two looks."""
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
) -> Generator[Result, None, None]:
    """Maps scenes on Dask workers, as `geocfl.map_scenes` does; divides scenes of more than `block_windows` windows.

    Every worker must see the scenes and `out` under the same paths. If a worker dies, another resumes its scene after
    the last finished strip. If the scheduler is lost and comes back, it receives the unfinished scenes again.

    Raises:
        UsageError: The scheduler cannot be reached or has no workers, or these have another version of geocfl, lack the
            GPU asked for, or do not see the files. Raised before work starts.
        GeocflError: The scheduler was lost and did not come back, or was lost more often than `retries` allows.
    """
    readable = {index: scene for index, scene in enumerate(listed) if scene.source}
    for scene in listed:
        if scene.source is None:
            yield scene.path, scene.error or SceneError(f"{scene.path}: cannot be read")
    if not readable:
        return
    folder = _absolute(output_folder(out))
    with (
        _connected(scheduler, workers, mapper) as client,
        _Run(client, mapper, folder, overwrite, retries, block_windows, local=not scheduler) as run,
    ):
        run.prepare(readable.values())
        for left in range(retries, -1, -1):
            for index, result in run.results(readable):
                scene = readable.pop(index)
                yield scene.path, result
            if not readable:
                return
            lost = f"the connection to the scheduler was lost with {len(readable)} scenes to go"
            again = "run the same command again to do the rest"
            if not left:
                raise GeocflError(f"{lost}, again; {again}")
            log.warning("%s; waiting for the scheduler to come back", lost)
            try:
                run.prepare(readable.values())
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
        self._options = {name: getattr(mapper, name) for name in ("device", "batch_size", "memory", "redo")}
        self._options["reading"] = reading
        self._options["work"] = _absolute(mapper.work)
        self.name = f"geocfl-{uuid.uuid4().hex[:16]}"

    async def setup(self, worker: Any) -> None:
        """Writes the model beside the worker's other files, and loads it; workers on a host share cores and memory."""
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


def _mapper(plugin: str) -> Mapper:
    """The mapper of the worker that runs this task."""
    mapper: Mapper = get_worker().plugins[plugin].mapper
    return mapper


def _closing(plugin: str) -> Progress:
    """What stops the work after the current batch once the plugin is taken from its worker, such as after SIGTERM."""
    closing: threading.Event = get_worker().plugins[plugin].closing

    def stop(what: str, done: int, total: int, unit: str) -> None:
        if closing.is_set():
            raise KeyboardInterrupt

    return stop


@contextmanager
def _rescheduled() -> Iterator[None]:
    """Gives a task that is stopped to another worker."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise Reschedule from error


# The tasks. They return errors of the user instead of raising them, so that Dask does not retry what cannot succeed.


def _map_scene(
    plugin: str, source: Source, out: Path, overwrite: bool, block_windows: int, pause: float = 0
) -> SceneMap | Blocks | GeocflError:
    time.sleep(pause)
    mapper = _mapper(plugin)

    def work() -> SceneMap | Blocks:
        blocks = divide(mapper, source, out, overwrite=overwrite, windows=block_windows)
        return blocks or mapper.map(source, out, overwrite=overwrite, progress=_closing(plugin))

    try:
        with _rescheduled():
            return _patiently(work)
    except GeocflError as error:
        return error


def _classify_block(plugin: str, source: Source, blocks: Blocks, first: int, last: int) -> GeocflError | None:
    try:
        with _rescheduled():
            classify_block(_mapper(plugin), source, blocks, first, last, _closing(plugin))
        return None
    except GeocflError as error:
        return error


def _join_blocks(
    plugin: str, source: Source, out: Path, overwrite: bool, blocks: Blocks, errors: list[GeocflError | None]
) -> SceneMap | GeocflError:
    # A transient error keeps the other blocks; in a busy folder, they belong to another process.
    if error := min(filter(None, errors), key=lambda error: error.transient, default=None):
        if not error.transient and not isinstance(error, BusyError):
            shutil.rmtree(blocks.parent, ignore_errors=True)
        return error
    mapper = _mapper(plugin)
    try:
        with _rescheduled():
            return _patiently(
                lambda: mapper.map(source, out, overwrite=overwrite, progress=_closing(plugin), blocks=blocks)
            )
    except GeocflError as error:
        return error


def _patiently(work: Callable[[], T]) -> T:
    """Waits while another process maps the scene: a worker that was given up may still be running."""
    deadline = time.monotonic() + BUSY_PATIENCE
    while True:
        try:
            return work()
        except BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(BUSY_PAUSE)


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
        *,
        local: bool,
    ) -> None:
        self._local = local
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
        for folder in filter(None, (_absolute(self._mapper.work), self._out)):
            _check_folder(client, folder)
        self._take_back()
        plugin = _Plugin(self._mapper, count_gpus() if self._local else 0)
        client.register_plugin(plugin)
        self._plugin = plugin.name

    def results(self, scenes: Mapping[int, Listed]) -> Iterator[tuple[int, SceneMap | GeocflError]]:
        """Results of scenes as they finish, without those lost with the scheduler; retries after transient errors."""
        sources = {index: absolute(scene.source) for index, scene in scenes.items() if scene.source}
        where = {index: (scenes[index].below(self._out), self._overwrite) for index in sources}
        owners = {
            self._submit(_map_scene, source, *where[index], self._block_windows): index
            for index, source in sources.items()
        }
        tries = Counter[int]()
        coming = as_completed(list(owners), loop=self._client.loop, raise_errors=False)
        for future in coming:
            index = owners.pop(future)
            result = _outcome(future, scenes[index].path)
            if isinstance(result, Blocks):
                source, blocks = sources[index], result
                parts = [self._submit(_classify_block, source, blocks, *rows, first=True) for rows in blocks.rows]
                joined = self._submit(_join_blocks, source, *where[index], blocks, parts, first=True)
                owners[joined] = index
                coming.add(joined)
            elif isinstance(result, GeocflError) and result.transient and tries[index] < self._retries:
                tries[index] += 1
                log.warning("%s; it is mapped again later", result)
                pause = pause_before_retry(tries[index])
                again = self._submit(_map_scene, sources[index], *where[index], self._block_windows, pause, later=True)
                owners[again] = index
                coming.add(again)
            elif result is not None:
                yield index, result

    def _submit(self, task: Callable[..., Any], *arguments: Any, first: bool = False, later: bool = False) -> Future:
        """Submits a task; `first` puts it before waiting tasks, because its scene has been started, `later` after."""
        return self._client.submit(
            task,
            self._plugin,
            *arguments,
            key=f"geocfl{task.__name__}-{uuid.uuid4().hex}",
            retries=self._retries,
            resources=self._resources,
            priority=first - later,
        )


def _outcome(future: Future, path: str) -> SceneMap | Blocks | GeocflError | None:
    """Result of a task; None if the task was lost."""
    try:
        result: SceneMap | Blocks | GeocflError = future.result()
        return result
    except CancelledError:
        return None
    except KilledWorker:
        return SceneError(
            f"{path}: the workers that mapped it died, perhaps because they ran out of memory; give them more, or "
            "lower `memory`"
        )
    except Exception as error:
        return unexpected(path, error)


def _check_versions(client: Client) -> None:
    """Checks that all workers have this version of geocfl.

    Raises:
        UsageError: A worker has another version or none.
    """

    def version() -> str:  # pickled by value, because workers may lack geocfl
        try:
            from geocfl._version import __version__

            return __version__
        except ImportError:
            return ""

    for address, found in client.run(version).items():
        if found != __version__:
            has = f"geocfl {found}" if found else "no geocfl"
            raise UsageError(f"worker {address} has {has}, but this is {__version__}; install the same version there")


def _check_paths(client: Client, scenes: Collection[Listed], mask: str | None) -> None:
    """Checks that all workers see the scenes and the mask.

    Raises:
        UsageError: A worker does not see one of them.
    """
    sources = [scene.source for scene in scenes if scene.source]
    bands = {band.path for source in sources for band in (*source.bands.values(), source.scl) if band}
    rasters = [*bands, mask] if mask else bands
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
