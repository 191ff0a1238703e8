"""Maps many scenes into one folder, on this machine or on a Dask cluster."""

from __future__ import annotations

import logging
import os
import platform
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Unpack

from geocfl.core.keywords import declared
from geocfl.core.progress import Progress, silent
from geocfl.errors import SceneError, UsageError
from geocfl.mapping.attempts import Attempt, Ended, attempt, in_turn, refused
from geocfl.mapping.events import EventLog, list_identity
from geocfl.mapping.mapper import SCENES_AT_ONCE, Mapper
from geocfl.mapping.measured import Measured
from geocfl.mapping.results import FailureLimit, Result
from geocfl.mapping.retry import failed_scenes, scenes_to_retry
from geocfl.mapping.settings import MapOptions, MapSettings
from geocfl.mapping.shards import Shard, check_shard, take
from geocfl.models.bundle import DEFAULT_MODEL, Bundle
from geocfl.products.formats.catalog import check_catalog, write_catalog
from geocfl.products.scene_map import SceneMap
from geocfl.products.storage import output_folder
from geocfl.scenes import Source
from geocfl.scenes.collect import Listed, list_scenes
from geocfl.scenes.layout import arrange, check_layout, needs_time
from geocfl.scenes.urls import is_public, shown

log = logging.getLogger("geocfl")


@declared
def map_scenes(
    scenes: Iterable[str | Path | Source] | Path | Source = (),
    out: str | Path = "maps",
    *,
    list_file: str | Path | None = None,
    stac_items: str | Path | None = None,
    model: str | Path = DEFAULT_MODEL,
    device: str = "auto",
    batch_size: int | None = None,
    memory: int | str | None = None,
    overwrite: bool = False,
    redo: bool = False,
    workers: int = 0,
    scheduler: str | None = None,
    retries: int = 2,
    work: str | Path | None = None,
    layout: str = "",
    shard: Shard | None = None,
    events: str | Path | None = None,
    retry_failed: str | Path | None = None,
    max_failed: float | None = None,
    progress: Progress = silent,
    **options: Unpack[MapOptions],
) -> Iterator[Result]:
    """Maps scenes into one folder, and writes a STAC catalog of the folder if there are several.

    The model is loaded once. Scenes that are already mapped are skipped, so the same call again does only what is
    missing.

    Args:
        scenes: One or several scenes, as `map_scene` takes them, or patterns such as ``"scenes/*.tif"``.
        out: Output folder, created if missing; may be in an object store, such as ``"s3://bucket/maps"``.
        list_file: Text file with more scenes, one per line.
        stac_items: JSON file or URL of STAC Items to map, such as the result of a search.
        model: As for `map_scene`.
        device: As for `map_scene`.
        batch_size: As for `map_scene`.
        memory: Memory that each process may use, as for `map_scene`.
        overwrite: Replace products made from another input, model or with other settings; those that are done stay.
        redo: Map again even what is done.
        workers: Number of Dask processes on this machine that share the scenes; 0 maps them in this process.
        scheduler: Address of a Dask scheduler whose workers map the scenes.
        retries: How often a scene is mapped again if its server had failed, after all others; each resumes after its
            last finished strip. Also how often Dask retries after an unexpected failure, such as running out of memory.
        work: Folder that all machines see, or address in an object store, for what is unfinished: other machines resume
            from it if this one is lost. With a folder, huge scenes are also divided among Dask workers if `out` is in
            an object store.
        layout: Folders below `out` for the maps, such as ``"{mgrs}/{year}"``, see `geocfl.scenes.layout.arrange`.
        shard: Map only this shard of the scenes: its index, from 0, and the number of shards, such as ``(0, 4)``. Each
            shard must get the same scenes. A shard writes no catalog; see `geocfl.write_catalog`.
        events: File that receives an event, a line of JSON, whenever an attempt at a scene begins or ends; ``"-"`` for
            standard output. An existing file is appended to. The fields are in the documentation.
        retry_failed: File of such events, of an earlier run: map only the scenes that failed, which it names. If scenes
            are passed, they must be those of that run.
        max_failed: Stop once more than this fraction (0..1) of the scenes has failed, of at least
            `geocfl.mapping.results.FEWEST` that were mapped or failed.
        progress: Called with the scenes done and, without Dask, with the windows done of each scene.
        **options: Fields of `MapSettings`.

    Yields:
        Each scene's path, as it was passed, with its map or the error that stopped it, as they finish. After the last
        of several scenes, ``catalog.json`` is in the folder, unless no scene could be mapped.

    Raises:
        UsageError: There are no scenes, two have the same name, a value is invalid, or the cluster cannot do what is
            asked.
        ModelError: The model cannot be used.
        OutputError: The folder has a ``catalog.json`` that geocfl did not write, or `events` cannot be written.
        GeocflError: More scenes failed than `max_failed` allows; all results so far have been given.
    """
    _check_cluster(workers, scheduler, retries)
    check_layout(layout)
    if shard:
        check_shard(shard)
    limit = FailureLimit(max_failed)
    chosen, bundle = MapSettings(**options), Bundle.load(model)
    dated = needs_time(layout) and chosen.taken() is None
    if retry_failed and not (scenes or list_file or stac_items):
        if shard:
            raise UsageError(
                "`shard` is a part of all scenes, not of those that failed; pass the scenes of that run too"
            )
        again = scenes_to_retry(retry_failed, bands=chosen.bands, open_all=dated, progress=progress)
        listed, count, identity = again.scenes, again.listed, again.identity
    else:
        listed = list_scenes(
            scenes,
            list_file=list_file,
            stac_items=stac_items,
            bands=chosen.bands,
            open_all=dated,
            progress=progress,
        )
        count, identity = len(listed), ""
    listed = arrange(listed, layout, chosen.taken())
    identity = identity or list_identity([each.path for each in listed])
    listed = _chosen(listed, shard, retry_failed)
    several = count > 1
    cataloged = several and not shard
    if cataloged:
        check_catalog(out, overwrite=overwrite or redo)
    mapper = Mapper(
        bundle,
        chosen,
        device=device,
        batch_size=batch_size,
        memory=memory,
        redo=redo,
        remember=several,
        scenes_at_once=max(1, min(SCENES_AT_ONCE, len(listed))),
        work=work,
    )
    facts = {
        "scenes": len(listed),
        "listed": count,
        "list": identity,
        "stac_items": shown(str(stac_items)) if stac_items and is_public(str(stac_items)) else None,
        "shard": "/".join(map(str, shard)) if shard else None,
        "out": shown(str(out)),
        "model": mapper.model.name,
        "model_hash": mapper.orders.model_hash,
        "device": device,
        "workers": workers,
        "scheduler": shown(scheduler) if scheduler else None,
        "retries": retries,
        "overwrite": overwrite,
        "redo": redo,
        "settings": mapper.settings.to_json(),
    }
    mapped = finished = 0
    with EventLog(events, facts) as written:

        def begun(index: int, number: int, host: str, pid: int) -> None:
            written.started(listed[index], number, host, pid)

        if workers or scheduler:
            from geocfl.mapping.dask_cluster import map_on_dask

            ends = map_on_dask(
                mapper,
                listed,
                out,
                overwrite=overwrite,
                workers=workers,
                scheduler=scheduler,
                retries=retries,
                begun=begun,
            )
        else:
            ends = _map_here(mapper, listed, output_folder(out), overwrite, retries, progress, begun)
        with closing(ends):  # stops the work when this loop stops, even if a traceback keeps the generator alive
            for ended in ends:
                written.ended(listed[ended.index], ended)
                if ended.outcome in ("retried", "busy"):
                    continue
                finished += 1
                mapped += ended.outcome != "failed"
                if several:
                    progress("scenes", finished, len(listed), "scene")
                yield listed[ended.index].path, ended.attempt.result
                limit.add(ended.outcome)
    if cataloged and mapped:
        _write_catalog(out, overwrite or redo, layout)


def _check_cluster(workers: int, scheduler: str | None, retries: int) -> None:
    """Raises UsageError if there cannot be such a cluster."""
    if workers and scheduler:
        raise UsageError("`workers` and `scheduler` exclude each other; use one of them")
    if workers < 0 or retries < 0:
        raise UsageError("`workers` and `retries` must be 0 or more")
    if (workers or scheduler) and not find_spec("distributed"):
        raise UsageError("`workers` and `scheduler` need Dask; run: pip install distributed bokeh")


def _chosen(listed: Sequence[Listed], shard: Shard | None, retry_failed: str | Path | None) -> list[Listed]:
    """The scenes of a shard, and of these the ones that failed in an earlier run."""
    chosen = list(listed)
    if shard:
        chosen = take(listed, [each.path for each in listed], shard)
        log.info("shard %d/%d: %d of %d scenes", *shard, len(chosen), len(listed))
    if retry_failed:
        failed = failed_scenes(retry_failed, listed)
        chosen = [each for each in chosen if each.path in failed]
        log.info("%s: %d scenes to map again", retry_failed, len(chosen))
    return chosen


def _write_catalog(out: str | Path, overwrite: bool, layout: str) -> None:
    """Writes the catalog of the folder, and says which maps are not in it."""
    depth = len(layout.split("/")) if layout else 0
    undated = write_catalog(out, overwrite=overwrite, depth=depth).undated
    if undated:
        log.warning(
            "catalog.json lacks %d of the maps, such as %s, because their scenes do not say when they were taken; "
            "set `datetime` if you know it",
            len(undated),
            undated[0],
        )


def _map_here(
    mapper: Mapper,
    listed: Sequence[Listed],
    out: Path,
    overwrite: bool,
    retries: int,
    progress: Progress,
    begun: Callable[[int, int, str, int], object],
) -> Generator[Ended, None, None]:
    """Maps in threads, which take turns at classifying. If the caller stops, each stops after its current batch."""
    stopped = threading.Event()

    def report(what: str, done: int, total: int, unit: str) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        progress(what, done, total, unit)

    def work(index: int, number: int) -> Attempt[SceneMap]:
        scene = listed[index]
        source = scene.source
        if source is None:
            return refused(scene.error or SceneError(f"{scene.path}: cannot be read"), "open")
        begun(index, number, platform.node(), os.getpid())

        def mapped(measured: Measured) -> SceneMap:
            return mapper.map(source, scene.below(out), overwrite=overwrite, progress=report, measured=measured)

        return attempt(scene.path, mapped)

    def settled(_: int, done: Future[Attempt[SceneMap]]) -> Attempt[SceneMap]:
        return done.result()

    with ThreadPoolExecutor(SCENES_AT_ONCE, thread_name_prefix="scene") as pool:
        try:
            scenes, ahead = range(len(listed)), 2 * SCENES_AT_ONCE  # so that no thread waits for the caller
            yield from in_turn(scenes, lambda *which: pool.submit(work, *which), settled, retries, at_once=ahead)
        finally:
            stopped.set()
            pool.shutdown(cancel_futures=True)
