"""Measures scenes per minute in a loop over `geocfl map`, in one command and on Dask, and the cost of Dask.

    python benchmarks/many_scenes.py --scenes 12 --side 2048 --rounds 3

Scenes are generated: three uint16 bands of noise, deflate compression, blocks of 512 pixels. Everything runs in
separate processes, rounds alternate, and results are medians. The cost of Dask is measured with a model that does
nothing, for one worker and a thousand, in one process with the scheduler and the client.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine

GEOCFL = str(Path(sys.executable).with_name("geocfl"))


def write_scenes(folder: Path, count: int, side: int) -> list[Path]:
    """Writes scenes of noise, each shifted against the others."""
    noise = np.random.default_rng(0).integers(200, 2000, (3, side, side), dtype=np.uint16)
    paths = []
    for index in range(count):
        path = folder / f"S2A_20240601T{index:06}.tif"
        with rasterio.open(
            path, "w", driver="GTiff", height=side, width=side, count=3, dtype="uint16", crs="EPSG:32633",
            transform=Affine(10, 0, 3e5, 0, -10, 5e6), tiled=True, blockxsize=512, blockysize=512, compress="deflate",
            predictor=2,
        ) as dataset:  # fmt: skip
            dataset.write(np.roll(noise, 64 * index, axis=2))
            dataset.descriptions = ("B04", "B03", "B02")
        paths.append(path)
    return paths


def elapsed(commands: Sequence[Sequence[str]]) -> float:
    """Runs commands one after the other and returns the seconds they take."""
    started = time.perf_counter()
    for command in commands:
        subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def compare(scenes: list[Path], folder: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Times each way for all scenes and for the first few, which separates start-up from the time per scene."""
    ways = {"loop of geocfl map": None, "geocfl map A B ...": [], "--workers 1": ["--workers", "1"]}
    ways["--workers 2"] = ["--workers", "2"]
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, options in ways.items():
            out = str(folder / "maps")
            base = [GEOCFL, "map", "--out", out]
            found = []
            for chosen in (scenes[: max(1, 0 if options is None else 2)], scenes):
                if options is None:
                    found.append(elapsed([[*base, str(scene)] for scene in chosen]))
                else:
                    found.append(elapsed([[*base, *map(str, chosen), *options]]))
                shutil.rmtree(out)
            times[name].append((found[0], found[1]))
    rows = {}
    for name, pairs in times.items():
        few = 1 if ways[name] is None else 2
        slope = statistics.median((whole - part) / (len(scenes) - few) for part, whole in pairs)
        whole = statistics.median(whole for _, whole in pairs)
        rows[name] = {"seconds": whole, "seconds_per_scene": slope, "start_up": whole - slope * len(scenes)}
    return rows


def dispatch(workers: int, count: int) -> dict[str, float]:
    """Times scheduling: a model that does nothing, on workers in this process, after they have the model."""
    import dask
    from distributed import LocalCluster

    from geocfl import load_model
    from geocfl.mapping import dask_cluster as distributed
    from geocfl.mapping.mapper import Mapper
    from geocfl.mapping.settings import MapSettings
    from geocfl.products.scene_map import SceneMap
    from geocfl.scenes.collect import Listed
    from geocfl.scenes.source import Band, Source

    model = load_model()
    bands = {name: Band("/vsicurl/https://example.com/scene.tif") for name in model.bands}
    listed = [Listed(f"s{n}.tif", Source(f"s{n}.tif", f"s{n}", bands)) for n in range(count)]
    summary = {"scene": {"file": "s.tif"}, "classes": [{"name": str(n), "cells": n} for n in range(10)]}
    replaced: Any = distributed
    replaced.map_one = lambda *_: SceneMap({}, summary)
    replaced.Plugin.setup = lambda plugin, worker: setattr(plugin, "mapper", None)
    replaced.Plugin.teardown = lambda plugin, worker: None
    started = time.perf_counter()
    # Otherwise a thousand workers in one process spend their time on monitoring it.
    quiet = {
        "distributed.admin.system-monitor.interval": "1h",
        "distributed.admin.tick.interval": "1h",
        "distributed.worker.profile.enabled": False,
    }
    with (
        dask.config.set(quiet),
        tempfile.TemporaryDirectory() as out,
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=False,
            memory_limit=0,  # otherwise each monitors the memory of all
            dashboard_address=None,
            silence_logs=logging.ERROR,
        ) as cluster,
    ):
        gc.freeze()  # otherwise the garbage collector spends its time on the workers
        ready = time.perf_counter()
        mapper = Mapper(model, MapSettings())
        results = distributed.map_on_dask(mapper, listed, out, scheduler=cluster.scheduler_address)
        next(results)
        first = time.perf_counter()
        done = sum(1 for _ in results)
        end = time.perf_counter()
    assert done == count - 1
    return {
        "workers": workers,
        "scenes": count,
        "start_workers_s": ready - started,
        "first_scene_s": first - ready,
        "ms_per_scene": 1000 * (end - first) / (count - 1),
        "scenes_per_s": (count - 1) / (end - first),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=12)
    parser.add_argument("--side", type=int, default=2048, help="pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tile-seconds", type=float, default=41.0, help="seconds that a full tile takes")
    parser.add_argument("--dispatch", nargs=2, type=int, metavar=("WORKERS", "SCENES"), help="time the scheduling only")
    parser.add_argument("--no-maps", action="store_true", help="skip the maps; measure the cost of Dask only")
    options = parser.parse_args()
    if options.dispatch:
        print(json.dumps(dispatch(*options.dispatch)))
        return
    if not options.no_maps:
        with tempfile.TemporaryDirectory() as folder:
            scenes = write_scenes(Path(folder), options.scenes, options.side)
            rows = compare(scenes, Path(folder), options.rounds)
        print(f"{options.scenes} scenes of {options.side} x {options.side} pixels, medians of {options.rounds}:\n")
        print("| | scenes per minute | seconds per scene, without start-up | start-up |\n| --- | ---: | ---: | ---: |")
        for name, row in rows.items():
            rate = 60 * options.scenes / row["seconds"]
            print(f"| {name} | {rate:.1f} | {row['seconds_per_scene']:.2f} | {row['start_up']:.1f} s |")
        print()
    for workers, count in ((1, 5000), (1000, 5000)):
        command = [sys.executable, __file__, "--dispatch", str(workers), str(count)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        share = found["ms_per_scene"] / 1000 / options.tile_seconds
        print(
            f"{workers:,} worker{'s' * (workers > 1)}, {count:,} scenes, a model that does nothing: "
            f"{found['ms_per_scene']:.1f} ms per scene ({found['scenes_per_s']:.0f} scenes/s), {share:.2%} of a tile's "
            f"{options.tile_seconds:g} s; all workers ready after {found['first_scene_s']:.1f} s"
        )


if __name__ == "__main__":
    main()
