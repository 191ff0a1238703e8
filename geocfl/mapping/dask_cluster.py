"""The same maps on a Dask cluster: a task a scene, or a block of a huge one; the model travels once to each worker."""

from __future__ import annotations

import logging
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import psutil
from distributed import (
    CancelledError,
    Client,
    Future,
    KilledWorker,
    LocalCluster,
    WorkerPlugin,
    as_completed,
    get_worker,
)

from geocfl._version import __version__
from geocfl.errors import GeocflError, OutputError, SceneError, UsageError
from geocfl.mapping.blocks import Blocks
from geocfl.mapping.divide import BLOCK_WINDOWS, classify_block, divide
from geocfl.mapping.mapper import SCENES_AT_ONCE, Mapper
from geocfl.mapping.results import Result, unexpected
from geocfl.models.bundle import FACTS, WEIGHTS, Bundle
from geocfl.products.scene_map import SceneMap
from geocfl.products.staging import BusyError
from geocfl.products.storage import in_store, output_folder
from geocfl.scenes import Source
from geocfl.scenes.collect import Listed
from geocfl.scenes.fingerprint import local_file
from geocfl.scenes.source import absolute, absolute_path

T = TypeVar("T")

log = logging.getLogger("geocfl")

PATIENCE = 30.0
"""Seconds to wait for a scheduler, for its first worker, and for either to come back."""
BUSY_PATIENCE, BUSY_PAUSE = 300.0, 2.0
"""Seconds to wait for a process that is at work on the same scene, and between looks."""
GPU = "GPU"
"""Dask resource of which a task takes one, where scenes are classified on GPUs."""


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
    """Maps scenes on Dask's workers; see `geocfl.map_scenes`. Those of more than `block_windows` are divided.

    Every worker has to see scenes and `out` by the same paths. One that dies is replaced by another, which goes on with
    its scene from the last strip; where the scheduler is lost and comes back, it is handed again what was not finished.

    Raises:
        UsageError: The scheduler cannot be reached or has no workers, or these have another version of geocfl, no GPU
            where one is asked for, or do not see the files; said before work starts.
        GeocflError: The scheduler was lost and did not come back, or was lost more often than `retries` allows.
    """
    readable = {index: scene for index, scene in enumerate(listed) if scene.source}
    for scene in listed:
        if scene.source is None:
            yield scene.path, scene.error or SceneError(f"{scene.path}: cannot be read")
    if not readable:
        return
    folder = output_folder(out)
    if not in_store(folder):
        folder = folder.absolute()
    with (
        _connected(scheduler, workers, mapper) as client,
        _Run(client, mapper, folder, overwrite, retries, block_windows) as run,
    ):
        run.prepare(readable.values())
        for left in range(retries, -1, -1):
            for index, result in run.results(readable):
                scene = readable.pop(index)
                yield scene.path, result
            if not readable:
                return
            lost = f"the scheduler was lost with {len(readable)} scenes to go"
            again = "run the same command once more, which does what is missing"
            if not left:
                raise GeocflError(f"{lost}, as before; {again}")
            log.warning("%s; waiting for it to come back", lost)
            try:
                run.prepare(readable.values())
            except UsageError as error:
                raise GeocflError(f"{lost} ({error}); {again}") from error


@contextmanager
def _connected(scheduler: str | None, workers: int, mapper: Mapper) -> Iterator[Client]:
    """A client of the scheduler, or of a cluster of processes here, which ends with the block."""
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
    """Keeps a mapper on each worker, those that join later included.

    Args:
        mapper: What decides the maps; its network stays behind, the bundle's files come along.
        sharers: Workers on each host, which share its cores and its memory.
    """

    def __init__(self, mapper: Mapper, sharers: dict[str, int]) -> None:
        self._bundle = {name: (mapper.model.folder / name).read_bytes() for name in (FACTS, WEIGHTS)}
        mask = mapper.reading.mask_file
        reading = replace(mapper.reading, mask=absolute_path(mask)) if mask else mapper.reading
        self._settings = mapper.settings
        self._options = {name: getattr(mapper, name) for name in ("device", "batch_size", "memory")}
        self._options["reading"] = reading
        self._sharers = sharers
        self.name = f"geocfl-{uuid.uuid4().hex[:16]}"

    def setup(self, worker: Any) -> None:
        """Puts the model down beside the worker's other files."""
        self._folder = Path(worker.local_directory) / self.name
        self._folder.mkdir(parents=True, exist_ok=True)
        for name, content in self._bundle.items():
            (self._folder / name).write_bytes(content)
        sharers = self._sharers.get(worker.ip, 1)
        self.mapper = Mapper(
            Bundle.load(self._folder),
            self._settings,
            scenes_at_once=worker.state.nthreads,
            threads=max(1, (psutil.cpu_count() or 1) // sharers),
            sharers=sharers,
            **self._options,
        )

    def teardown(self, worker: Any) -> None:
        """Leaves nothing behind."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _mapper(plugin: str) -> Mapper:
    """The mapper of the worker that this task runs on."""
    mapper: Mapper = get_worker().plugins[plugin].mapper
    return mapper


# The tasks. A user's error is a result: another worker would meet it as well, so that it is not tried again.


def _map_scene(
    plugin: str, source: Source, out: Path, overwrite: bool, block_windows: int
) -> SceneMap | Blocks | GeocflError:
    mapper = _mapper(plugin)

    def work() -> SceneMap | Blocks:
        # Where products are uploaded, blocks have no folder that all workers see.
        blocks = None if in_store(out) else divide(mapper, source, out, overwrite=overwrite, windows=block_windows)
        return blocks or mapper.map(source, out, overwrite=overwrite)

    try:
        return _patiently(work)
    except GeocflError as error:
        return error


def _classify_block(plugin: str, source: Source, blocks: Blocks, first: int, last: int) -> GeocflError | None:
    try:
        classify_block(_mapper(plugin), source, blocks, first, last)
        return None
    except GeocflError as error:
        return error


def _join_blocks(
    plugin: str, source: Source, out: Path, overwrite: bool, blocks: Blocks, errors: list[GeocflError | None]
) -> SceneMap | GeocflError:
    if error := next(filter(None, errors), None):
        if not isinstance(error, BusyError):  # then the folder is another's
            shutil.rmtree(blocks.parent, ignore_errors=True)
        return error
    mapper = _mapper(plugin)
    try:
        return _patiently(lambda: mapper.map(source, out, overwrite=overwrite, blocks=blocks))
    except GeocflError as error:
        return error


def _patiently(work: Callable[[], T]) -> T:
    """Does it as soon as nobody else is at work on the scene: a worker that was given up for dead may finish yet."""
    deadline = time.monotonic() + BUSY_PATIENCE
    while True:
        try:
            return work()
        except BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(BUSY_PAUSE)


class _Run:
    """The scenes of a call on a cluster: checked, handed out, and collected as they finish.

    A context manager: at its end the workers, which may live for long, give the model back.
    """

    def __init__(
        self, client: Client, mapper: Mapper, out: Path, overwrite: bool, retries: int, block_windows: int
    ) -> None:
        self._client, self._mapper, self._out = client, mapper, out
        self._overwrite, self._retries, self._block_windows = overwrite, retries, block_windows
        self._plugin = ""
        self._resources: dict[str, int] | None = None

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
        """Checks the workers, and takes the model to each.

        Raises:
            UsageError: They cannot do the work.
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
                f'--device {device}: no worker says that it has a GPU; start those that have with --resources "GPU=1"'
            )
        self._resources = {GPU: 1} if device.startswith("cuda") or len(equipped) == len(workers) else None
        _check_versions(client)
        _check_paths(client, scenes, self._mapper.reading.mask_file, self._out)
        self._take_back()
        plugin = _Plugin(self._mapper, Counter(worker["host"] for worker in workers.values()))
        client.register_plugin(plugin)
        self._plugin = plugin.name

    def results(self, scenes: Mapping[int, Listed]) -> Iterator[tuple[int, SceneMap | GeocflError]]:
        """What becomes of scenes, as they finish; those that are lost with the scheduler do not come."""
        sources = {index: absolute(scene.source) for index, scene in scenes.items() if scene.source}
        where = (self._out, self._overwrite)
        owners = {
            self._submit(_map_scene, source, *where, self._block_windows): index for index, source in sources.items()
        }
        coming = as_completed(list(owners), loop=self._client.loop, raise_errors=False)
        for future in coming:
            index = owners.pop(future)
            result = _outcome(future, scenes[index].path)
            if isinstance(result, Blocks):
                source, blocks = sources[index], result
                parts = [self._submit(_classify_block, source, blocks, *rows, first=True) for rows in blocks.rows]
                joined = self._submit(_join_blocks, source, *where, blocks, parts, first=True)
                owners[joined] = index
                coming.add(joined)
            elif result is not None:
                yield index, result

    def _submit(self, task: Callable[..., Any], *arguments: Any, first: bool = False) -> Future:
        """Hands out a task; before those that are waiting, where it belongs to a scene that was begun."""
        return self._client.submit(
            task,
            self._plugin,
            *arguments,
            key=f"geocfl{task.__name__}-{uuid.uuid4().hex}",
            retries=self._retries,
            resources=self._resources,
            priority=1 if first else 0,
        )


def _outcome(future: Future, path: str) -> SceneMap | Blocks | GeocflError | None:
    """What a task ended in; None where it is lost."""
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
    """Refuses workers without this version of geocfl, whose maps might differ.

    Raises:
        UsageError: Likewise.
    """

    def version() -> str:  # pickled by value, since workers may lack geocfl
        try:
            from geocfl._version import __version__

            return __version__
        except ImportError:
            return ""

    for address, found in client.run(version).items():
        if found != __version__:
            has = f"geocfl {found}" if found else "no geocfl"
            raise UsageError(f"worker {address} has {has}, but this is {__version__}; install the same version there")


def _check_paths(client: Client, scenes: Collection[Listed], mask: str | None, out: Path) -> None:
    """Refuses workers that do not see a scene or the mask, or see another folder than `out` in its place.

    Raises:
        UsageError: Likewise.
        OutputError: `out` cannot be written to.
    """
    sources = [scene.source for scene in scenes if scene.source]
    bands = {band.path for source in sources for band in (*source.bands.values(), source.scl) if band}
    rasters = [*bands, mask] if mask else bands
    local = sorted({str(file) for file in map(local_file, map(absolute_path, rasters)) if file})

    def lacking(paths: list[str]) -> list[str]:
        import os

        return [path for path in paths if not os.path.exists(path)]

    for address, missing in client.run(lacking, local).items():
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise UsageError(
                f"worker {address} does not see {missing[0]}{more}; mount the same folders there, by the same paths"
            )
    if in_store(out):
        return
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    mark = out / f".geocfl-{uuid.uuid4().hex}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        mark.touch()
        for address, missing in client.run(lacking, [str(mark)]).items():
            if missing:
                raise UsageError(f"worker {address} does not see the output folder {out}; mount it there, by that path")
    except OSError as error:
        raise OutputError(f"{out}: cannot be written to ({error.strerror}); choose another `out`") from error
    finally:
        with suppress(OSError):  # not empty: other work began
            mark.unlink(missing_ok=True)
            for folder in made:
                folder.rmdir()
