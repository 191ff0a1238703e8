"""Measures a run over scenes that are done: seconds a scene, and requests to a store.

    python benchmarks/reruns.py --scenes 3000
    python benchmarks/reruns.py --scenes 300 --store s3

One scene is mapped; the others are links to it, and copies of its map. The first run again has to hash each scene, the
second one remembers. The store is fsspec's memory, or an S3 server on this machine (moto); requests are calls of the
store's file system. Opening and listing the scenes is part of the time, loading the program is not.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine

import geocfl

REQUESTS = (
    "cat_file",
    "pipe_file",
    "put_file",
    "get_file",
    "info",
    "ls",
    "find",
    "exists",
    "isfile",
    "rm_file",
    "open",
)
"""Calls of a file system that become requests to a store, if nothing is kept of an earlier answer."""
OPTIONS: dict[str, Any] = {"stride": 64, "model": "eurosat-rgb-lite0"}


def measure(scenes: int = 3000, side: int = 1024, store: str = "") -> dict[str, float]:
    """Maps one scene, makes it many, and runs over all of them twice.

    Args:
        scenes: Number of scenes.
        side: Their rows and columns; three bands of noise.
        store: ``""`` for a folder, ``"memory"`` or ``"s3"``.

    Returns:
        Seconds a scene of the first and of the second run, and requests a scene of each.
    """
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ["GEOCFL_CACHE"] = str(work / "cache")
        folder = work / "scenes"
        folder.mkdir()
        first = _scene(folder / "s000000.tif", side)
        made = geocfl.map_scene(first, work / "first", **OPTIONS)
        out: Any = stack.enter_context(_store(store)) if store else work / "maps"
        if not store:
            out.mkdir()
        for index in range(scenes):
            stem = f"s{index:06}"
            if index:
                os.link(first, folder / f"{stem}.tif")
            for path in made.paths.values():
                name = path.name.replace("s000000", stem)
                if store:
                    out.fs.pipe_file((out / name).path, path.read_bytes())
                else:
                    shutil.copyfile(path, out / name)
        time.sleep(3)  # what has just changed is not remembered
        found: dict[str, float] = {}
        for number in ("first", "second"):
            with _counted(out.fs if store else None) as asked:
                started = time.perf_counter()
                skipped = 0
                for scene, result in geocfl.map_scenes(str(folder / "*.tif"), out, **CATALOGLESS, **OPTIONS):
                    if isinstance(result, geocfl.SceneMap) and result.already_done:
                        skipped += 1
                    else:
                        raise RuntimeError(f"{scene}: {result}")
                found[f"{number}_seconds"] = (time.perf_counter() - started) / skipped
            found[f"{number}_requests"] = sum(asked.values()) / skipped
        return found


CATALOGLESS: dict[str, Any] = {"shard": (0, 1)}
"""A shard of one writes no catalog."""


def _scene(path: Path, side: int) -> Path:
    noise = np.random.default_rng(0).integers(200, 2000, (3, side, side), dtype=np.uint16)
    place = {"crs": "EPSG:32633", "transform": Affine(10, 0, 3e5, 0, -10, 5e6)}
    with rasterio.open(
        path, "w", driver="GTiff", height=side, width=side, count=3, dtype="uint16", tiled=True, **place
    ) as dataset:
        dataset.write(noise)
        dataset.descriptions = ("B04", "B03", "B02")
        dataset.scales = (0.0001,) * 3
    return path


@contextmanager
def _store(kind: str) -> Iterator[Any]:
    """A folder of a store, which is empty."""
    import upath

    bucket = f"bucket-{uuid.uuid4().hex}"
    if kind == "memory":
        folder = upath.UPath(f"memory://{bucket}/maps")
        folder.mkdir(parents=True)
        yield folder
        return
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    folder = upath.UPath(f"s3://{bucket}/maps", endpoint_url=f"http://{host}:{port}", key="k", secret="s")
    folder.fs.mkdir(bucket)
    yield folder
    server.stop()


@contextmanager
def _counted(store: Any) -> Iterator[Counter[str]]:
    """Counts the requests of a store."""
    asked: Counter[str] = Counter()
    if store is None:
        yield asked
        return
    if hasattr(store, "_call_s3"):
        call = store._call_s3

        async def counted(method: str, *arguments: Any, **more: Any) -> Any:
            asked[method] += 1
            return await call(method, *arguments, **more)

        store._call_s3 = counted
        yield asked
        store._call_s3 = call
        return
    real = {name: getattr(store, name) for name in REQUESTS if hasattr(store, name)}

    def counting(name: str) -> Any:
        def call(*arguments: Any, **more: Any) -> Any:
            asked[name] += 1
            return real[name](*arguments, **more)

        return call

    for name in real:
        setattr(store, name, counting(name))
    yield asked
    for name in real:
        delattr(store, name)


def main() -> None:
    """Reads the command line and prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=3000)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--store", choices=["", "memory", "s3"], default="")
    chosen = parser.parse_args()
    print(json.dumps(measure(chosen.scenes, chosen.side, chosen.store), indent=2))


if __name__ == "__main__":
    main()
