"""Times `geocfl map`: each stage of the pipeline separately, and the whole map.

    python benchmarks/map_profile.py tile.tif --model eurosat-rgb-dense
    python benchmarks/map_profile.py tile.tif --device cuda --stride 16 --batch-size 1024

Reading runs in parallel with classification, so the elapsed times do not add up. Reading costs processor time that the
network could use. On a GPU, digital numbers are read as stored and become reflectance there, and each stage ends when
the GPU has finished it. The last lines say how long the map took from its first window to its last product, which of
reading and classification bounds it, and how near reading is to the bare decode.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

import geocfl
from geocfl.core.windows import cut
from geocfl.mapping.mapper import GDAL_CACHE, cells_of
from geocfl.mapping.memory import STRIP_ROWS
from geocfl.mapping.strips import scene_strips
from geocfl.models.backends import load_backend
from geocfl.models.backends.base import BACKENDS, Backend
from geocfl.models.bundle import DEFAULT_MODEL
from geocfl.scenes import open_scene


def processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


@contextmanager
def stage(name: str) -> Iterator[list[float]]:
    """Prints the elapsed time of the block and the processor time of all threads, and appends the former."""
    started, before, elapsed = time.perf_counter(), processor_seconds(), list[float]()
    yield elapsed
    elapsed.append(time.perf_counter() - started)
    print(f"{name:<42}{elapsed[0]:8.1f} s{processor_seconds() - before:10.1f} s", flush=True)


def gpu_finished(device: str) -> Callable[[], object]:
    """A function that waits until the GPU has done all its work; one that does nothing on a CPU."""
    if not device.startswith("cuda"):
        return lambda: None
    import torch

    return torch.cuda.synchronize


def classify(backend: Backend, placed: Any, rows: NDArray[np.int64], columns: NDArray[np.int64], stride: int) -> None:
    for _ in backend.classify(placed, rows, columns, stride):
        pass


def decode(path: Path, bands: list[int]) -> int:
    """Decodes a raster from top to bottom without using its numbers; returns their bytes."""
    with rasterio.Env(GDAL_NUM_THREADS="ALL_CPUS", GDAL_CACHEMAX=GDAL_CACHE), rasterio.open(path) as dataset:
        starts = range(0, dataset.height, STRIP_ROWS)
        windows = (Window(0, row, dataset.width, min(STRIP_ROWS, dataset.height - row)) for row in starts)
        return sum(dataset.read(bands, window=window).nbytes for window in windows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scene", type=Path)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--stride", type=int, default=64)
    parser.add_argument("--backend", choices=BACKENDS, default="auto")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int)
    options = parser.parse_args()

    model = geocfl.load_model(options.model)
    print(f"{'':<42}{'elapsed':>10}{'processor':>12}")
    with stage("load the back end"):
        backend = load_backend(model, options.backend, options.device, batch_size=options.batch_size)
    finished = gpu_finished(options.device)
    with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE), open_scene(options.scene, needed=model.bands, gsd=model.gsd) as scene:
        grid = cells_of(scene, model, options.stride)
        cell_rows = max(1, STRIP_ROWS // options.stride)
        count = 0
        if len(scene.files) == 1:
            with stage("decode only") as bare:
                count = decode(Path(scene.files[0]), [scene.bands[band] for band in model.bands])
        stored = backend.takes_numbers
        what = "find no data" if stored else "convert, find no data"
        with stage(f"read: decode, {what}") as reading:
            strips = sum(1 for _ in scene_strips(scene, model.bands, grid, cell_rows, stored=stored))
        strip = next(scene_strips(scene, model.bands, grid, cell_rows, stored=stored))
    rows, columns = np.nonzero(strip.valid)
    if isinstance(strip.pixels, np.ndarray):
        with stage("cut windows (one strip, times all)"):
            for _ in range(strips):
                for start in range(0, len(rows), backend.batch_size):
                    chosen = slice(start, start + backend.batch_size)
                    cut(strip.pixels, model.window, rows[chosen] * options.stride, columns[chosen] * options.stride)
    with stage("the first batches, while kernels are chosen"):
        classify(backend, backend.place(strip.pixels), rows, columns, options.stride)
        finished()
    with stage("send, convert (one strip, times all)") as sending:
        for _ in range(strips):
            placed = backend.place(strip.pixels)
        finished()
    with stage("cut and classify (one strip, times all)") as classifying:
        for _ in range(strips):
            classify(backend, placed, rows, columns, options.stride)
        finished()
    with tempfile.TemporaryDirectory() as out, stage("the whole map, start-up included"):
        options_ = {
            "model": options.model,
            "stride": options.stride,
            "backend": options.backend,
            "device": options.device,
            "batch_size": options.batch_size,
        }
        summary = geocfl.map_scene(options.scene, out, **options_).summary
    timing = summary["timing"]
    print(", ".join(f"{name} {value}" for name, value in timing.items()))
    print(f"from the first window to the last product: {timing['classify_s'] + timing['write_s']:.2f} s")
    if count:
        rates = f"reads {count / reading[0] / 1e6:.0f} MB/s; the bare decode {count / bare[0] / 1e6:.0f} MB/s"
        bound = "reading" if reading[0] + sending[0] > classifying[0] else "classification"
        print(f"{bound} bounds the map; it {rates}")


if __name__ == "__main__":
    main()
