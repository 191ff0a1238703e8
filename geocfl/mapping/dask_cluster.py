"""Maps scenes on a Dask cluster: one task per scene, or per block of a large scene."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from distributed import CancelledError, Client, Future, KilledWorker

from geocfl._version import __version__
from geocfl.errors import GeocflError, SceneError, UsageError
from geocfl.mapping.attempts import Attempt, Ended, attempt, in_turn, refused
from geocfl.mapping.blocks import Blocks
from geocfl.mapping.dask_checks import (
    absolute_folder,
    check_folder,
    check_paths,
    check_versions,
    other_version,
    other_versions,
)
from geocfl.mapping.dask_client import GPU, connected, wait_for_workers
from geocfl.mapping.dask_worker import Plugin, classify_one_block, join_blocks, map_one, stamped
from geocfl.mapping.divide import BLOCK_WINDOWS
from geocfl.mapping.mapper import SCENES_AT_ONCE, Mapper
from geocfl.mapping.results import unexpected
from geocfl.models.backends import count_gpus
from geocfl.products.scene_map import SceneMap
from geocfl.products.storage import output_folder
from geocfl.scenes import Source
from geocfl.scenes.collect import LOOKING, Listed
from geocfl.scenes.source import absolute

log = logging.getLogger("geocfl")


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

    Every worker must see the scenes and `out` under the same paths. Scenes that are remembered and listed as done get
    no task. If a worker dies, another resumes its scene after the last finished strip. If the scheduler is lost and
    comes back, it receives the unfinished scenes again. When an attempt begins, `begun` is called with the index of the
    scene, the number of the attempt, the host and the process.

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
    folder = absolute_folder(output_folder(out))
    for index, done in _finished(mapper, left, folder, overwrite):
        del left[index]
        yield Ended(index, done, 1, "skipped")
    if not left:
        return
    with (
        connected(scheduler, workers, mapper) as client,
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


def _finished(
    mapper: Mapper, scenes: Mapping[int, Listed], out: Path, overwrite: bool
) -> Iterator[tuple[int, Attempt[SceneMap]]]:
    """The scenes whose maps are remembered and listed as done; others may be done, too."""

    def look(index: int, scene: Listed, source: Source) -> tuple[int, Attempt[SceneMap]] | None:
        folder = scene.below(out)
        found = attempt(scene.path, lambda m: mapper.remembered(source, folder, overwrite=overwrite, measured=m))
        if not isinstance(found.result, SceneMap):  # an error is left to the workers
            return None
        return index, Attempt(found.result, found.start, found.end, found.elapsed, found.measured)

    sources = [(index, scene, scene.source) for index, scene in scenes.items() if scene.source]
    with ThreadPoolExecutor(LOOKING) as pool:
        yield from filter(None, list(pool.map(look, *zip(*sources, strict=True))))


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
        wait_for_workers(client)
        workers = client.scheduler_info(n_workers=-1)["workers"]
        equipped = [address for address, worker in workers.items() if worker["resources"].get(GPU)]
        if device.startswith("cuda") and not equipped:
            raise UsageError(
                f"`device` is {device}, but no worker has a GPU resource; start workers with a GPU by "
                'dask worker --resources "GPU=1"'
            )
        on_gpus = device.startswith("cuda") or len(equipped) == len(workers)
        self._resources = {GPU: 1 / SCENES_AT_ONCE} if on_gpus else None
        check_versions(client)
        check_paths(client, scenes, self._mapper.reading.mask_file)
        for folder in filter(None, (absolute_folder(self._mapper.orders.work), self._out)):
            check_folder(client, folder)
        self._take_back()
        plugin = Plugin(self._mapper, count_gpus() if self._local else 0)
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
            task = (map_one, source, out, self._overwrite, self._block_windows)
            return self._submit(scenes[index].path, note, *task, priority=-1 if number > 1 else 0)

        def settle(index: int, future: Future) -> Attempt[SceneMap] | Future | None:
            path, source = scenes[index].path, sources[index]
            ended = self._ended(future, path)
            if isinstance(ended, str):
                return submit(index, numbers[index])
            if ended is not None and isinstance(blocks := ended.result, Blocks):
                divided[index] = ended, time.monotonic()
                parts = [self._submit(path, None, classify_one_block, source, blocks, *rows) for rows in blocks.rows]
                where = (scenes[index].below(self._out), self._overwrite)
                return self._submit(path, None, join_blocks, source, *where, blocks, parts)
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
            others = other_versions(self._client)
            for address, version in others.items():
                log.warning("%s; it is closed", other_version(address, version, __version__))
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
            stamped,
            __version__,
            self._plugin,
            path,
            note,
            task,
            *arguments,
            key=f"geocfl_{task.__name__}-{uuid.uuid4().hex}",
            retries=self._retries,
            resources=self._resources,
            priority=priority,
        )
