"""Plays what an operator of many scenes meets, and checks what comes out of it.

    python benchmarks/operations.py [PART...]

Parts: `shards` (scenes of which some are broken, in shards of which some are killed and run again), `versions` (late
Dask workers of another version), `memory` (of one process over many scenes), `dates` (geocfl find, map and mosaic
--overlap fuse over a STAC API and a web server on this machine), `again` (scenes that are done). All scenes are
generated and tiny. Each part prints what it measured, and raises an error if that is not what it must be.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import rasterio
from affine import Affine
from rasterio.warp import transform_bounds

sys.path.insert(0, str(Path(__file__).parents[1]))  # the servers of the tests

from geocfl.demonstration.landscape import write_synthetic_scene
from tests.planning.stac_api import Api, item, serving
from tests.scenes.range_server import RangeServer

GEOCFL = str(Path(sys.executable).with_name("geocfl"))
LITTLE = ("--products", "lulc")
OTHER_VERSION = "0.0.9"


def write_scenes(folder: Path, good: int, broken: int, side: int) -> Path:
    """Writes scenes of noise, and files that are none between them; returns the list of all."""
    folder.mkdir(parents=True)
    names = [f"S2A_20240601T{index:06}.tif" for index in range(good)]
    for index, name in enumerate(names):
        digital = np.random.default_rng(index).integers(200, 2000, (3, side, side), dtype=np.uint16)
        with rasterio.open(
            folder / name, "w", driver="GTiff", height=side, width=side, count=3, dtype="uint16", crs="EPSG:32633",
            transform=Affine(10, 0, 3e5 + 10 * side * index, 0, -10, 5e6),
        ) as dataset:  # fmt: skip
            dataset.write(digital)
            dataset.descriptions = ("B04", "B03", "B02")
    for index in range(broken):
        names.append(f"S2A_20240602T{index:06}.tif")
        (folder / names[-1]).write_text("no raster")
    listed = folder / "scenes.txt"
    listed.write_text("".join(f"{folder / name}\n" for name in sorted(names, key=lambda name: name[::-1])))
    return listed


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("waited in vain")
        time.sleep(0.05)


def finished(out: Path) -> int:
    return len(list(out.glob("*_summary.json")))


def status(*files: Path) -> Any:
    done = subprocess.run([GEOCFL, "status", *map(str, files), "--json"], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def shards(folder: Path, good: int, broken: int, count: int, killed: int, side: int) -> None:
    """Maps in shards, kills some with SIGKILL in the middle, runs those again, and asks geocfl status."""
    listed, out, events = write_scenes(folder / "in", good, broken, side), folder / "maps", folder / "events"
    events.mkdir()
    started = time.perf_counter()

    def start(index: int) -> subprocess.Popen[bytes]:
        command = [GEOCFL, "map", "--list", str(listed), "--out", str(out), *LITTLE, "--shard", f"{index}/{count}"]
        command += ["--events", str(events / f"{index}.jsonl")]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    codes: list[int] = []
    for index in range(count):
        before, process = finished(out), start(index)
        if index < killed:
            wait_for(lambda before=before: finished(out) >= before + good // count // 2)  # type: ignore[misc]
            process.kill()
        codes.append(process.wait())
    interim = status(*events.iterdir())
    again = [start(index).wait() for index in range(killed)]
    seconds = time.perf_counter() - started
    found = status(*events.iterdir())
    whole = folder / "whole"
    subprocess.run(
        [GEOCFL, "map", "--list", str(listed), "--out", str(whole), *LITTLE], capture_output=True, check=False
    )
    same = all((out / file.name).read_bytes() == file.read_bytes() for file in whole.glob("*_lulc.tif"))
    print(
        f"{good + broken} scenes, {broken} of them broken, in {count} shards: {seconds:.0f} s, exit codes {codes}; the"
    )
    print(f"{killed} that were killed (SIGKILL) run again: exit codes {again}")
    for when, counts in ((f"while {killed} were dead", interim), ("at the end", found)):
        shown = ", ".join(f"{name} {counts[name]}" for name in ("scenes", "done", "skipped", "failed", "left"))
        print(f"geocfl status {when}: {shown}; {[run['state'] for run in counts['runs']]}")
    for failure in found["failures"]:
        print(f"  {failure['error']}, {failure['scenes']} scenes, such as: {failure['reason']}")
    print(f"maps byte-identical to those of one command: {same}")
    assert codes[:killed] == [-signal.SIGKILL] * killed
    assert finished(out) == good == finished(whole)
    assert (found["done"] + found["skipped"], found["failed"], found["left"]) == (good, broken, 0)
    assert same


def versions(folder: Path, good: int, side: int) -> None:
    """Two workers that state another version of geocfl join a cluster while it maps."""
    listed, out, events = write_scenes(folder / "in", good, 0, side), folder / "maps", folder / "events.jsonl"
    late = folder / "late.py"
    late.write_text(f"import geocfl._version\ngeocfl._version.__version__ = {OTHER_VERSION!r}\n")
    dask = str(Path(sys.executable).with_name("dask"))
    address = folder / "scheduler.json"
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        log = (folder / f"log{len(processes)}.txt").open("w")
        command = [dask, *arguments, "--scheduler-file", str(address), "--no-dashboard"]
        processes.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, text=True))
        return processes[-1]

    worker = ("worker", "--nthreads", "2", "--no-nanny")
    try:
        start("scheduler", "--host", "127.0.0.1", "--port", "0")
        wait_for(address.exists)
        right = start(*worker)
        uri = json.loads(address.read_text())["address"]
        command = [GEOCFL, "map", "--list", str(listed), "--out", str(out), *LITTLE, "--scheduler", uri]
        run = subprocess.Popen([*command, "--events", str(events)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        wait_for(lambda: finished(out) >= 3)
        wrong = [start(*worker, "--preload", str(late)) for _ in range(2)]
        _, said = run.communicate(timeout=300)
        assert run.returncode == 0, said.decode()
        by = [event["pid"] for event in map(json.loads, events.open()) if event["kind"] == "scene"]
        print(
            f"{finished(out)} of {good} scenes mapped; by workers of geocfl {OTHER_VERSION} that joined late: ", end=""
        )
        print(sum(by.count(process.pid) for process in wrong))
        wait_for(lambda: all(process.poll() is not None for process in wrong))
        print(f"those workers have ended with exit codes {[process.returncode for process in wrong]}")
        for number in (2, 3):
            lines = (folder / f"log{number}.txt").read_text().splitlines()
            print("  their log:", next((line for line in lines if "install the same version" in line), "none"))
        assert finished(out) == good
        assert set(by) == {right.pid}
    finally:
        for process in processes:
            process.kill()
            process.wait()


def memory(folder: Path, good: int, side: int) -> None:
    """Samples the memory of one process over many scenes."""
    listed, out = write_scenes(folder / "in", good, 0, side), folder / "maps"
    command = [GEOCFL, "map", "--list", str(listed), "--out", str(out)]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    process, series, started = psutil.Process(run.pid), {}, time.perf_counter()
    while run.poll() is None:
        done = finished(out) // (good // 10) * (good // 10)
        if done not in series:
            try:
                series[done] = process.memory_info().rss / 1e6
            except psutil.NoSuchProcess:
                break
        time.sleep(0.05)
    assert run.wait() == 0
    print(f"{good} scenes of {side} x {side} px, default products, {time.perf_counter() - started:.0f} s; memory in MB")
    print("after scenes " + ", ".join(f"{done}: {megabytes:.0f}" for done, megabytes in series.items()))
    settled = [megabytes for done, megabytes in series.items() if done >= good // 5]
    growth = (settled[-1] - settled[0]) / settled[0]
    print(f"from {good // 5} scenes to the end: {growth:+.1%}")
    assert growth < 0.1


def dates(folder: Path, size: int) -> None:
    """Finds two dates of two places in a STAC API, maps them from a web server, and fuses the maps."""
    served = folder / "served"
    served.mkdir(parents=True)
    features = []
    with RangeServer(served) as server:
        for seed, (tile, day) in enumerate((tile, day) for tile in ("33TUL", "33TVL") for day in (12, 27)):
            name = f"S2A_{tile}_202206{day}"
            path = served / f"{name}.tif"
            write_synthetic_scene(path, folder / "truth.tif", size=size, seed=seed)
            with rasterio.open(path, "r+") as dataset:
                dataset.transform = Affine(10, 0, 3e5 + 10 * size * (tile == "33TVL"), 0, -10, 5e6)
                box = transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
                bands = [{"name": band} for band in dataset.descriptions]
            feature = item(name, box, f"2022-06-{day}", cloud=day)
            scaling = {"scale": 0.0001, "offset": 0}
            feature["assets"]["image"] = {
                "href": server.url(path.name), "type": "image/tiff; application=geotiff", "eo:bands": bands,
                "raster:bands": [scaling] * len(bands), "roles": ["data", "reflectance"],
            }  # fmt: skip
            features.append(feature)
        boxes = np.array([feature["bbox"] for feature in features])
        bbox = ",".join(f"{value:.6f}" for value in (*boxes[:, :2].min(0), *boxes[:, 2:].max(0)))
        items, maps, fused = folder / "items.json", folder / "dates", folder / "fused_lulc.tif"
        with serving(Api(features)) as api:
            steps = {
                "find": [
                    "find", "--api", api.url, "--collection", "sentinel-2-l2a", "--bbox", bbox, "--datetime",
                    "2022-06-01/2022-06-30", "--per-tile", "2", "--out", str(items),
                ],
                "map": [
                    "map", "--stac-items", str(items), "--products", "default,probabilities,novelty", "--out",
                    str(maps),
                ],
                "mosaic": ["mosaic", str(maps), "--out", str(fused), "--overlap", "fuse"],
            }  # fmt: skip
            for name, step in steps.items():
                started = time.perf_counter()
                done = subprocess.run([GEOCFL, *step], capture_output=True, text=True, check=False)
                assert done.returncode == 0, done.stderr
                print(f"geocfl {name}: {time.perf_counter() - started:.1f} s; {done.stdout.strip().splitlines()[0]}")
    with rasterio.open(fused) as mosaic:
        cells = mosaic.read(1)
    rows, columns = cells.shape
    print(f"{finished(maps)} maps, fused into {columns} x {rows} cells; {np.mean(cells > 0):.1%} have a class")
    assert finished(maps) == len(features)
    assert (cells > 0).mean() > 0.9


def again(scenes: int) -> None:
    """Runs over finished scenes in a folder, and over a tenth of them in an object store on this machine."""
    import reruns

    for store, count in (("", scenes), ("s3", scenes // 10)):
        found = reruns.measure(count, 256, store)
        where = f"in a store, with {found['second_requests']:.2f} requests a scene" if store else "in a folder"
        print(f"{count} finished scenes {where}: {1000 * found['second_seconds']:.1f} ms a scene")
        if found["second_requests"] > 0.5:
            raise RuntimeError(f"finished scenes cost {found['second_requests']:.2f} requests each")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts: dict[str, Callable[[Path], None]] = {
        "shards": lambda folder: shards(folder, options.scenes - options.scenes // 20, options.scenes // 20, 4, 2, 128),
        "versions": lambda folder: versions(folder, 27, 512),
        "memory": lambda folder: memory(folder, options.long, 128),
        "dates": lambda folder: dates(folder, 512),
        "again": lambda folder: again(options.done),
    }
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(parts))
    parser.add_argument("--scenes", type=int, default=200, help="scenes in shards, of which one in twenty is broken")
    parser.add_argument("--long", type=int, default=500, help="scenes over which memory is measured")
    parser.add_argument("--done", type=int, default=3000, help="finished scenes that are run again")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(parts):
        parser.error(f"unknown: {', '.join(unknown)}; choose from {', '.join(parts)}")
    for name in options.parts or parts:
        print(f"\n{name} ({os.cpu_count()} cores)")
        with tempfile.TemporaryDirectory() as folder:
            parts[name](Path(folder) / name)


if __name__ == "__main__":
    main()
