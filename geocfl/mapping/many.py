"""Maps many scenes into one folder, on this machine or on a Dask cluster."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Unpack

from geocfl.core.keywords import declared
from geocfl.core.progress import Progress, silent
from geocfl.errors import GeocflError, SceneError, UsageError
from geocfl.mapping.mapper import SCENES_AT_ONCE, Mapper
from geocfl.mapping.results import Result, unexpected
from geocfl.mapping.settings import MapOptions, MapSettings
from geocfl.mapping.shards import Shard, check_shard, take
from geocfl.models.bundle import DEFAULT_MODEL, Bundle
from geocfl.products.formats.catalog import check_catalog, write_catalog
from geocfl.products.scene_map import SceneMap
from geocfl.products.storage import output_folder
from geocfl.scenes import Source
from geocfl.scenes.collect import Listed, list_scenes
from geocfl.scenes.layout import arrange, check_layout
from geocfl.scenes.remote import pause_before_retry

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
        shard: Map only this share of the scenes: its index, from 0, and the number of shards, such as ``(0, 4)``. Each
            shard must get the same scenes. A shard writes no catalog; see `geocfl.write_catalog`.
        progress: Called with the scenes done and, without Dask, with the windows done of each scene.
        **options: Fields of `MapSettings`.

    Yields:
        Each scene's path, as it was passed, with its map or the error that stopped it, as they finish. After the last
        of several scenes, ``catalog.json`` is in the folder, unless no scene could be mapped.

    Raises:
        UsageError: There are no scenes, two have the same name, a value is invalid, or the cluster cannot do what is
            asked.
        ModelError: The model cannot be used.
        OutputError: The folder has a ``catalog.json`` that geocfl did not write.
    """
    if workers and scheduler:
        raise UsageError("`workers` and `scheduler` exclude each other; use one of them")
    if workers < 0 or retries < 0:
        raise UsageError("`workers` and `retries` must be 0 or more")
    if (workers or scheduler) and not find_spec("distributed"):
        raise UsageError("`workers` and `scheduler` need Dask; run: pip install distributed bokeh")
    check_layout(layout)
    if shard:
        check_shard(shard)
    chosen, bundle = MapSettings(**options), Bundle.load(model)
    listed = list_scenes(scenes, list_file=list_file, stac_items=stac_items, bands=chosen.bands, progress=progress)
    listed = arrange(listed, layout, chosen.taken())
    if shard:
        of = len(listed)
        listed = take(listed, [each.path for each in listed], shard)
        log.info("shard %d/%d: %d of %d scenes", *shard, len(listed), of)
    several = len(listed) > 1
    cataloged = several and not shard
    if cataloged:
        check_catalog(out, overwrite=overwrite or redo)
    on_dask = bool(workers or scheduler)
    mapper = Mapper(
        bundle,
        chosen,
        device=device,
        batch_size=batch_size,
        memory=memory,
        redo=redo,
        scenes_at_once=max(1, min(SCENES_AT_ONCE, len(listed))),
        work=work,
    )
    if on_dask:
        from geocfl.mapping.dask_cluster import map_on_dask

        results = map_on_dask(
            mapper, listed, out, overwrite=overwrite, workers=workers, scheduler=scheduler, retries=retries
        )
    else:
        results = _map_here(mapper, listed, out, overwrite, retries, progress)
    mapped = False
    with closing(results):  # stops the work when this loop stops, even if a traceback keeps the generator alive
        for finished, (path, result) in enumerate(results, start=1):
            mapped |= isinstance(result, SceneMap)
            if several:
                progress("scenes", finished, len(listed), "scene")
            yield path, result
    if cataloged and mapped:
        depth = len(layout.split("/")) if layout else 0
        undated = write_catalog(out, overwrite=overwrite or redo, depth=depth).undated
        if undated:
            log.warning(
                "catalog.json lacks %d of the maps, such as %s, because their scenes do not say when they were taken; "
                "set `datetime` if you know it",
                len(undated),
                undated[0],
            )


def attempt(
    mapper: Mapper, scene: Listed, out: str | Path, overwrite: bool, progress: Progress
) -> SceneMap | GeocflError:
    """A scene's map, or the error that stopped it."""
    if scene.source is None:
        return scene.error or SceneError(f"{scene.path}: cannot be read")
    try:
        return mapper.map(scene.source, scene.below(output_folder(out)), overwrite=overwrite, progress=progress)
    except GeocflError as error:
        return error


def _map_here(
    mapper: Mapper, listed: Sequence[Listed], out: str | Path, overwrite: bool, retries: int, progress: Progress
) -> Generator[Result, None, None]:
    """Maps in threads, which take turns at classifying. If the caller stops, each stops after its current batch.

    Scenes with transient errors are mapped again after the others.
    """
    stopped = threading.Event()

    def report(what: str, done: int, total: int, unit: str) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        progress(what, done, total, unit)

    with ThreadPoolExecutor(SCENES_AT_ONCE, thread_name_prefix="scene") as pool:
        try:
            left = list(listed)
            for round in range(retries + 1):
                coming = {pool.submit(attempt, mapper, scene, out, overwrite, report): scene for scene in left}
                left = []
                for future in as_completed(list(coming)):
                    scene, error = coming.pop(future), future.exception()
                    result = unexpected(scene.path, error) if isinstance(error, Exception) else future.result()
                    if round < retries and scene.source and isinstance(result, GeocflError) and result.transient:
                        left.append(scene)
                    else:
                        yield scene.path, result
                if not left:
                    break
                pause = pause_before_retry(round + 1)
                log.warning("%d scenes failed and may succeed later; they are mapped again in %.0f s", len(left), pause)
                time.sleep(pause)
        finally:
            stopped.set()
            pool.shutdown(cancel_futures=True)
