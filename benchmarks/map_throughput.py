"""Measures how fast `geocfl map` maps a whole Sentinel-2 tile, compared with its network alone and with other code.

Four ways to classify the 64-px windows of one generated tile:

  a. the network alone, on windows in memory: directly through the library, and through geocfl's back end
  b. a plain loop: `rasterio` reads one window after the other, torch classifies 64 of them at a time
  c. torchgeo: `RasterDataset`, `GridGeoSampler` and a `DataLoader` with batches of 64
  d. `geocfl map`, the whole command with all its products

Each runs in a separate process, and rounds of all alternate, so changes in load affect all. The tile is in the
system's file cache for all of them. b, c and d use the same network and weights. Additional rows show d with all
defaults, including the default model, also in finer cells, and d with the built-in windowed model.

    python benchmarks/map_throughput.py --eurosat EuroSAT.zip --work /tmp/map-throughput --json map_throughput.json
"""

# Only the standard library is imported here: on Linux, the peak memory of a new process starts at that of its parent,
# so this process must stay smaller than what it measures.
from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import math
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import rasterio
    from numpy.typing import NDArray

    from geocfl.models.predict import Model

SIDE = 64
PEER_BATCH = 64
BANDS = ("B04", "B03", "B02")
BLOCK = 512
DN_PER_REFLECTANCE = 10_000
BUNDLED_MODEL = "eurosat-rgb-resnet18"
DEFAULT_MODEL = "eurosat-rgb-dense"
DEFAULT = "default model"
WINDOWED = "eurosat-rgb-lite0"
FINE = 16
"""Stride of the additional row in finer cells, pixels."""
MEMORY_LIMIT = "1.5GB"
CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16")
PACKAGES = ("geocfl", "torch", "torchgeo", "timm", "openvino", "onnxruntime", "rasterio", "numpy")

Record = dict[str, float]


# Scenes and the model.


def prepare(
    work: str, size: int, eurosat: str, model: str, device: str, peer_rows: int, linear: bool, memory_size: int
) -> dict[str, Any]:
    """Makes what the work folder lacks and loads every back end once, which exports the model to ONNX."""
    import rasterio
    import torch

    from geocfl.models.backends import load_backend
    from geocfl.models.predict import load_model

    folder = Path(work)
    chosen = find_model(folder, model)
    tile = folder / f"tile_{size}_{'eurosat' if eurosat else 'noise'}.tif"
    make(tile, lambda path: write_tile(path, size, Path(eurosat) if eurosat else None))
    scenes = {"tile": tile, "peers": tile}
    if peer_rows < size:
        scenes["peers"] = tile.with_stem(f"{tile.stem}_rows_{peer_rows}")
        make(scenes["peers"], lambda path: crop(tile, path, size, peer_rows))
    if linear:
        scenes["quarter"] = tile.with_stem(f"{tile.stem}_quarter")
        make(scenes["quarter"], lambda path: crop(tile, path, size // 2, size // 2))
    if memory_size:
        scenes["sparse"] = folder / f"sparse_{memory_size}.tif"
        make(scenes["sparse"], lambda path: write_sparse(path, memory_size))
    for path in scenes.values():
        path.read_bytes()  # so the first to be timed does not wait for the disk
    default = load_backend(load_model(), "auto", device)
    return {
        "scenes": {name: str(path) for name, path in scenes.items()},
        "default": {"batch_size": default.batch_size, "precision": default.precision, "repr": repr(default)},
        "model": str(chosen.path),
        "model_name": chosen.name,
        "classifiers": find_classifiers(chosen, device),
        "gdal": rasterio.__gdal_version__,
        "torch_threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
    }


def make(path: Path, write: Callable[[Path], None]) -> None:
    """Writes a file if it is missing; it gets its name when it is complete."""
    if not path.exists():
        partial = path.with_suffix(".partial.tif")
        write(partial)
        partial.replace(path)


def create(path: Path, width: int, height: int, **options: Any) -> rasterio.io.DatasetWriter:
    """Creates an empty three-band scene at 10 m with the layout of most Sentinel-2 GeoTIFFs."""
    import rasterio

    scene = rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=width,
        height=height,
        count=len(BANDS),
        dtype="uint16",
        nodata=0,
        crs="EPSG:32633",
        transform=rasterio.Affine(10, 0, 300_000, 0, -10, 5_100_000),
        tiled=True,
        blockxsize=BLOCK,
        blockysize=BLOCK,
        compress="deflate",
        predictor=2,
        num_threads="ALL_CPUS",
        **options,
    )
    scene.descriptions = BANDS
    return scene


def write_tile(path: Path, size: int, eurosat: Path | None) -> None:
    """Writes a scene without gaps: EuroSAT's patches side by side, or noise."""
    from rasterio.windows import Window

    rows_of_reflectance = quilt(eurosat, size) if eurosat else texture(size)
    with create(path, size, size) as scene:
        for top in range(0, size, BLOCK):
            height = min(BLOCK, size - top)
            scene.write(to_dn(rows_of_reflectance(top, height)), window=Window(0, top, size, height))


def to_dn(reflectance: NDArray[np.floating]) -> NDArray[np.uint16]:
    """Converts reflectance to digital numbers, never 0, which means no data."""
    import numpy as np

    dn: NDArray[np.uint16] = np.rint(reflectance * DN_PER_REFLECTANCE).clip(1, 65_535).astype(np.uint16)
    return dn


def quilt(archive: Path, size: int) -> Callable[[int, int], NDArray[np.floating]]:
    """Rows (starting at a multiple of 64) of random EuroSAT patches laid edge to edge."""
    import zipfile

    import numpy as np
    from PIL import Image

    from geocfl.core.radiometry import EUROSAT_RGB

    patches = zipfile.ZipFile(archive)
    names = sorted(name for name in patches.namelist() if name.endswith(".jpg"))
    count = math.ceil(size / SIDE)
    drawn = np.random.default_rng(0).integers(len(names), size=(count, count))

    def decode(index: int) -> NDArray[np.uint8]:
        with patches.open(names[index]) as file:
            return np.asarray(Image.open(file))

    def rows(top: int, height: int) -> NDArray[np.floating]:
        chosen = drawn[top // SIDE : math.ceil((top + height) / SIDE)]
        pixels = np.concatenate([np.concatenate([decode(i) for i in row], axis=1) for row in chosen])
        return EUROSAT_RGB.to_reflectance(pixels[:height, :size].transpose(2, 0, 1))

    return rows


def texture(size: int, period: int = 2048) -> Callable[[int, int], NDArray[np.floating]]:
    """Rows of noise smoothed at several scales, mostly common to all bands; one square is repeated."""
    import numpy as np
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)

    def layer() -> Any:
        noise = [rng.standard_normal((period, period), np.float32) for _ in range(4)]
        smooth = [gaussian_filter(n, 4**scale, mode="wrap") for scale, n in enumerate(noise)]
        return sum(s / s.std() for s in smooth) / 2

    common = layer()
    square = np.stack([0.1 + 0.03 * common + 0.01 * layer() for _ in BANDS])
    columns = np.arange(size) % period
    return lambda top, height: square[:, np.arange(top, top + height) % period][:, :, columns]


def write_sparse(path: Path, size: int) -> None:
    """Writes a mostly empty scene: two blocks with data per row of blocks; the others are not in the file."""
    import numpy as np
    from rasterio.windows import Window

    rng = np.random.default_rng(0)
    pixels = to_dn(texture(BLOCK, period=BLOCK)(0, BLOCK))
    with create(path, size, size, sparse_ok=True, bigtiff="if_safer") as scene:
        for top in range(0, size, BLOCK):
            for left in rng.choice(math.ceil(size / BLOCK), 2, replace=False) * BLOCK:
                height, width = min(BLOCK, size - top), min(BLOCK, size - int(left))
                scene.write(pixels[:, :height, :width], window=Window(int(left), top, width, height))


def crop(tile: Path, path: Path, width: int, height: int) -> None:
    """Writes the upper left part of a tile."""
    import rasterio
    from rasterio.windows import Window

    with rasterio.open(tile) as scene, create(path, width, height) as part:
        for top in range(0, height, BLOCK):
            window = Window(0, top, width, min(BLOCK, height - top))
            part.write(scene.read(window=window), window=window)


def find_model(folder: Path, name: str) -> Model:
    """Loads the named model; by default the built-in ResNet-18, or one with random weights, which is as fast."""
    import torch

    from geocfl.core.legend import EUROSAT as LEGEND
    from geocfl.models.backbones import build_network
    from geocfl.models.bundle import bundled_models
    from geocfl.models.predict import Model, load_model

    if not name and BUNDLED_MODEL not in bundled_models():
        torch.manual_seed(0)
        state = build_network("resnet18", len(BANDS), len(LEGEND)).state_dict()
        moments = (0.1,) * len(BANDS), (0.04,) * len(BANDS)
        model = Model("random-resnet18", "resnet18", BANDS, 10.0, SIDE, SIDE, (0.0, 0.275), *moments, LEGEND)
        return model.save(folder / model.name, state)
    model = load_model(name or BUNDLED_MODEL)
    if (model.bands, model.window) != (BANDS, SIDE):
        raise SystemExit(f"{model.name}: not a model of {SIDE}-px windows of {', '.join(BANDS)}; pass another --model")
    return model


def find_classifiers(model: Model, device: str) -> list[dict[str, Any]]:
    """Lists every back end and precision available on the device and marks those that `geocfl map` chooses."""
    from geocfl.errors import UsageError
    from geocfl.models.backends import load_backend
    from geocfl.models.backends.base import BACKENDS, PRECISIONS
    from geocfl.models.devices import choose_device, has_fast_bfloat16

    names = [name for name in BACKENDS if name != "auto"] if device == "cpu" else ["torch"]
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for name in names:
        for asked in sorted(PRECISIONS, key=lambda precision: precision != "auto"):
            # torch computes in bfloat16 on any processor, but on most of them many times slower than in float32.
            if (name, asked) == ("torch", "bfloat16") and not has_fast_bfloat16(choose_device(device)):
                continue
            try:
                backend = load_backend(model, name, device, asked)
            except UsageError:
                continue
            precision = str(getattr(backend, "precision", "float32"))
            facts = {"backend": name, "precision": precision, "batch_size": backend.batch_size, "repr": repr(backend)}
            found.setdefault((name, precision), facts | {"default": asked == "auto"})
    return list(found.values())


# The measured functions: each runs in a separate process and counts from when its network is loaded.


def through_backend(
    model: str, backend: str, precision: str, device: str, batch_size: int, seconds: float
) -> dict[str, float]:
    """a: windows in memory, through geocfl's back end, which cuts them from a strip."""
    import numpy as np

    from geocfl.models.backends import load_backend
    from geocfl.models.predict import load_model

    bundle = load_model(model)
    loaded = load_backend(bundle, backend, device, precision, batch_size)
    across, down = 32, 16
    around = bundle.footprint - SIDE  # pixels that a dense model reads around its windows
    strip = random_reflectance(SIDE * down + around, SIDE * across + around)
    placed = loaded.place(strip)
    # A dense model computes what windows share only once, so each window must count once.
    step = across * down if bundle.feature_stride else batch_size

    def classify(batches: int) -> None:
        cells = np.arange(batches * step) % (across * down)
        for part in np.split(cells, batches) if bundle.feature_stride else [cells]:
            for _ in loaded.classify(placed, part // across, part % across, SIDE):
                pass

    return paced(classify, step, seconds)


def through_library(
    model: str, backend: str, precision: str, device: str, batch_size: int, seconds: float
) -> dict[str, float]:
    """a: one batch repeatedly, directly through the library that the back end uses."""
    import numpy as np

    from geocfl.models.predict import load_model

    loaded = load_model(model)
    batch = np.stack([random_reflectance(SIDE, SIDE) for _ in range(batch_size)])
    if backend == "torch":
        classify = bare_torch(loaded, batch, precision, device)
    elif backend == "onnx":
        classify = bare_onnx(loaded, batch)
    else:
        classify = bare_openvino(loaded, batch, precision)
    return paced(classify, batch_size, seconds)


def random_reflectance(height: int, width: int) -> NDArray[np.float32]:
    import numpy as np

    return np.random.default_rng(0).uniform(0, 0.275, (len(BANDS), height, width)).astype(np.float32)


def bare_torch(model: Model, batch: NDArray[np.float32], precision: str, device: str) -> Callable[[int], None]:
    import torch

    network = model.network().to(device).to(memory_format=torch.channels_last)
    x = torch.from_numpy(batch).to(device).contiguous(memory_format=torch.channels_last)
    kind = torch.device(device).type

    @torch.inference_mode()
    def classify(batches: int) -> None:
        with torch.autocast(kind, getattr(torch, precision), enabled=precision != "float32"):
            for _ in range(batches):
                logits = network(x)
        logits.cpu()  # waits for the device to finish

    return classify


def bare_onnx(model: Model, batch: NDArray[np.float32]) -> Callable[[int], None]:
    import onnxruntime

    from geocfl.models.onnx_file import cached_onnx

    session = onnxruntime.InferenceSession(cached_onnx(model), providers=["CPUExecutionProvider"])
    inputs = {session.get_inputs()[0].name: batch}

    def classify(batches: int) -> None:
        for _ in range(batches):
            session.run(None, inputs)

    return classify


def bare_openvino(model: Model, batch: NDArray[np.float32], precision: str) -> Callable[[int], None]:
    from geocfl.models.onnx_file import cached_onnx
    from geocfl.models.quiet_openvino import ov

    core = ov.Core()
    network = core.read_model(cached_onnx(model))
    network.reshape(list(batch.shape))
    hint = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}[precision]
    hints = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": hint}
    jobs = ov.AsyncInferQueue(core.compile_model(network, "CPU", hints))

    def classify(batches: int) -> None:
        for _ in range(batches):
            jobs.start_async({0: batch})
        jobs.wait_all()

    return classify


def paced(classify: Callable[[int], None], batch_size: int, seconds: float) -> dict[str, float]:
    """Windows and seconds of as many batches as take about the given time, after a few to warm up."""

    def timed(batches: int) -> float:
        started = time.perf_counter()
        classify(batches)
        return time.perf_counter() - started

    warm_up = 8
    timed(warm_up)
    batches = max(warm_up, math.ceil(seconds * warm_up / timed(warm_up)))
    return {"windows": batches * batch_size, "work_s": timed(batches)}


def plain_loop(tile: str, out: str, model: str, device: str) -> dict[str, float]:
    """b: the obvious loop; it omits the incomplete windows at the right and bottom edges."""
    import numpy as np
    import rasterio
    import torch
    from rasterio.windows import Window

    from geocfl.models.predict import load_model

    network = load_model(model).network().to(device)
    started = time.perf_counter()
    with rasterio.open(tile) as scene, torch.no_grad():
        rows, columns = scene.height // SIDE, scene.width // SIDE
        windows = [Window(SIDE * j, SIDE * i, SIDE, SIDE) for i in range(rows) for j in range(columns)]
        codes = np.zeros(len(windows), np.uint8)
        for start in range(0, len(windows), PEER_BATCH):
            chosen = windows[start : start + PEER_BATCH]
            patches = [scene.read(window=window).astype(np.float32) / DN_PER_REFLECTANCE for window in chosen]
            logits = network(torch.from_numpy(np.stack(patches)).to(device))
            codes[start : start + len(chosen)] = logits.argmax(dim=1).cpu().numpy() + 1
        write_codes(out, codes.reshape(rows, columns), scene, 0)
    return {"windows": len(windows), "work_s": time.perf_counter() - started}


def torchgeo_loop(tile: str, out: str, model: str, device: str) -> dict[str, float]:
    """c: torchgeo's way to predict over a scene; its grid starts at the lower left and extends beyond the top."""
    import numpy as np
    import rasterio
    import torch
    from torch.utils.data import DataLoader
    from torchgeo.datasets import RasterDataset, stack_samples
    from torchgeo.samplers import GridGeoSampler

    from geocfl.models.predict import load_model

    network = load_model(model).network().to(device)
    started = time.perf_counter()
    dataset = RasterDataset(paths=[tile])
    sampler = GridGeoSampler(dataset, size=SIDE, stride=SIDE)  # in pixels, from 0.8 to 0.10
    loader = DataLoader(dataset, batch_size=PEER_BATCH, sampler=sampler, collate_fn=stack_samples)
    with torch.no_grad():
        found = [network(b["image"].to(device) / DN_PER_REFLECTANCE).argmax(dim=1).cpu().numpy() for b in loader]
    with rasterio.open(tile) as scene:
        columns = math.ceil(scene.width / SIDE)
        codes = np.concatenate(found).astype(np.uint8).reshape(-1, columns)[::-1] + 1
        write_codes(out, codes, scene, scene.height - SIDE * len(codes))
    return {"windows": codes.size, "work_s": time.perf_counter() - started}


def write_codes(path: str, codes: NDArray[np.uint8], scene: rasterio.DatasetReader, top: int) -> None:
    """Writes a map whose first row of cells starts at the given pixel row of the scene."""
    import rasterio

    transform = scene.transform @ rasterio.Affine.translation(0, top) @ rasterio.Affine.scale(SIDE)
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "nodata": 0, "compress": "deflate"}
    height, width = codes.shape
    with rasterio.open(path, "w", height=height, width=width, crs=scene.crs, transform=transform, **profile) as file:
        file.write(codes, 1)


CHILDREN: dict[str, Callable[..., dict[str, Any]]] = {
    function.__name__: function for function in (prepare, through_backend, through_library, plain_loop, torchgeo_loop)
}


# The measuring process.


def child(name: str, **arguments: Any) -> list[str]:
    """The command that calls one of `CHILDREN` in a separate process."""
    return [sys.executable, __file__, "--child", json.dumps({"name": name, "arguments": arguments})]


def map_command(scene: str, out: Path, model: str, backend: str, device: str, *options: str) -> list[str]:
    """d: the command as users run it, except that it prints its summary."""
    geocfl = [sys.executable, "-c", "from geocfl.cli import app; app()"]  # also where only PYTHONPATH leads to geocfl
    command = [*geocfl, "map", scene, "--out", str(out), "--model", model]
    return [*command, "--backend", backend, "--device", device, "--overwrite", "--json", *options]


def run(command: list[str], work: Path) -> tuple[dict[str, Any], float, float]:
    """A command's output as JSON, its seconds from start to end, and its peak resident memory in MB."""
    log = work / "log.txt"
    with tempfile.TemporaryFile(dir=work) as output, log.open("w") as errors:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{log.read_text()}\nfailed: {' '.join(command)}")
        output.seek(0)
        printed = json.load(output)
    return printed, seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def measure(command: list[str], work: Path) -> Record:
    """Measures one run; start-up is everything before the first window and after the last product."""
    printed, seconds, peak = run(command, work)
    timing = printed.get("timing", {})
    if timing:
        windows = printed["total"]["cells"] - printed["nodata"]["cells"]
        working = timing["classify_s"] + timing["write_s"]
    else:
        windows, working = printed["windows"], printed["work_s"]
    return {
        "windows": windows,
        "seconds": seconds,
        "start_s": seconds - working,
        "work_s": working,
        "windows_per_s": windows / seconds,
        "working_windows_per_s": windows / working,
        "peak_mb": peak,
        **{f"timing_{name}": value for name, value in timing.items()},
    }


def variants(options: argparse.Namespace, facts: dict[str, Any], work: Path) -> dict[str, list[str]]:
    """The commands of a round, by the name of their row."""
    model, device, scenes = facts["model"], options.device, facts["scenes"]
    commands = {}
    for classifier in facts["classifiers"]:
        how = {name: classifier[name] for name in ("backend", "precision", "batch_size")}
        for name in ("through_library", "through_backend"):
            label = alone(classifier, name)
            commands[label] = child(name, model=model, device=device, seconds=options.seconds, **how)
    peers = {"tile": scenes["peers"], "model": model, "device": device}
    commands["b plain loop"] = child("plain_loop", out=str(work / "plain_loop.tif"), **peers)
    commands["c torchgeo"] = child("torchgeo_loop", out=str(work / "torchgeo.tif"), **peers)
    for backend in used_backends(facts):
        commands[f"d geocfl map, {backend}"] = map_command(scenes["tile"], work / "maps", model, backend, device)
        if options.linear:
            quarter = map_command(scenes["quarter"], work / "maps", model, backend, device)
            commands[f"d geocfl map, {backend}, quarter"] = quarter
    how = {name: facts["default"][name] for name in ("precision", "batch_size")}
    commands[f"a {DEFAULT}"] = child(
        "through_backend", model=DEFAULT_MODEL, backend="auto", device=device, seconds=options.seconds, **how
    )
    usual = (scenes["tile"], work / "maps", DEFAULT_MODEL, "auto", device)
    commands[f"d geocfl map, {DEFAULT}"] = map_command(*usual)
    commands[f"d geocfl map, {DEFAULT}, stride {FINE}"] = map_command(*usual, "--stride", str(FINE))
    commands[f"d geocfl map, {WINDOWED}"] = map_command(scenes["tile"], work / "maps", WINDOWED, "auto", device)
    return commands


def alone(classifier: dict[str, Any], name: str) -> str:
    return f"a {classifier['backend']} {classifier['precision']}, {name.replace('_', ' ')}"


def used_backends(facts: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(classifier["backend"] for classifier in facts["classifiers"]))


def ratios(results: dict[str, Record], facts: dict[str, Any], linear: bool) -> dict[str, dict[str, float]]:
    """Ratios of `geocfl map` to the others, for each back end and for the one whose whole command is fastest."""
    found: dict[str, dict[str, float]] = {}

    def against_peers(ours: Record) -> dict[str, float]:
        return {
            f"d / {peer[0]}, {name}": ours[of] / results[peer][of]
            for peer in ("b plain loop", "c torchgeo")
            for name, of in (("whole command", "windows_per_s"), ("without start-up", "working_windows_per_s"))
        }

    for classifier in filter(lambda c: c["default"], facts["classifiers"]):
        backend = classifier["backend"]
        ours = results[f"d geocfl map, {backend}"]
        row = against_peers(ours)
        for name in ("through_backend", "through_library"):
            ceiling = results[alone(classifier, name)]["working_windows_per_s"]
            row[f"d / a {name.replace('_', ' ')}, without start-up"] = ours["working_windows_per_s"] / ceiling
        if linear:
            quarter = results[f"d geocfl map, {backend}, quarter"]
            for name, of in (("whole command", "seconds"), ("without start-up", "work_s")):
                row[f"seconds of the tile / of a quarter, {name}"] = ours[of] / quarter[of]
        found[backend] = row
    fastest = max(found, key=lambda backend: results[f"d geocfl map, {backend}"]["windows_per_s"])
    ours = results[f"d geocfl map, {DEFAULT}"]
    ceiling = results[f"a {DEFAULT}"]["working_windows_per_s"]
    usual = against_peers(ours) | {"d / a through backend, without start-up": ours["working_windows_per_s"] / ceiling}
    fine, windowed = results[f"d geocfl map, {DEFAULT}, stride {FINE}"], results[f"d geocfl map, {WINDOWED}"]
    usual |= {
        f"seconds / of {WINDOWED}": ours["seconds"] / windowed["seconds"],
        f"seconds at stride {FINE} / of {WINDOWED}": fine["seconds"] / windowed["seconds"],
    }
    return found | {f"fastest ({fastest})": found[fastest], DEFAULT: usual}


def measure_memory(options: argparse.Namespace, facts: dict[str, Any], work: Path) -> list[dict[str, Any]]:
    """Peak resident memory under a given bound, for the tile and for a large, mostly empty scene."""
    print(f"\n{'--memory ' + MEMORY_LIMIT:<30}  {'side':>9}  {'windows':>9}  {'seconds':>9}  {'peak':>9}")
    rows = []
    for scene, size in (("tile", options.size), ("sparse", options.memory_size)):
        for backend in used_backends(facts):
            how = (facts["scenes"][scene], work / "maps", facts["model"], backend, options.device)
            record = measure(map_command(*how, "--memory", MEMORY_LIMIT), work)
            rows.append({"scene": scene, "size": size, "backend": backend, "limit": MEMORY_LIMIT, **record})
            print(
                f"{scene + ', ' + backend:<30}  {size:6d} px  {record['windows']:9.0f}  {record['seconds']:7.1f} s  "
                f"{record['peak_mb']:6.0f} MB",
                flush=True,
            )
    return rows


def describe_machine(facts: dict[str, Any]) -> dict[str, Any]:
    """The hardware and versions that the results depend on."""
    cpuinfo = Path("/proc/cpuinfo")  # on Linux
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    name = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    flags = re.search(r"^flags\s*: (.*)$", text, re.MULTILINE)
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "processor": name[1] if name else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "flags": [flag for flag in CPU_FLAGS if flags and flag in flags[1].split()],
        "load": round(os.getloadavg()[0], 2),
        "device": facts["device"],
        "torch_threads": facts["torch_threads"],
        "versions": {"python": platform.python_version(), **versions, "GDAL": facts["gdal"]},
    }


def print_machine(machine: dict[str, Any]) -> None:
    print(f"{machine['processor']}, {machine['cores']} cores, {' '.join(machine['flags']) or 'flags unknown'}")
    print(f"device {machine['device']}, {machine['torch_threads']} threads in torch, load {machine['load']} before")
    print(", ".join(f"{name} {version}" for name, version in machine["versions"].items()))


def print_results(results: dict[str, Record]) -> None:
    columns = ("windows", "seconds", "start-up", "windows/s", "no start-up", "peak RSS")
    print(f"\n{'medians':<40}" + "".join(f"  {column:>11}" for column in columns))
    for name, row in results.items():
        # Runs of a have a fixed length and warm up first, so only their rate is meaningful.
        whole = f"{row['seconds']:9.1f} s  {row['start_s']:9.1f} s  {row['windows_per_s']:11.1f}"
        print(
            f"{name:<40}  {row['windows']:11.0f}  {'' if name.startswith('a ') else whole:>37}  "
            f"{row['working_windows_per_s']:11.1f}  {row['peak_mb']:8.0f} MB"
        )


def print_ratios(table: dict[str, dict[str, float]]) -> None:
    print(f"\n{'ratios':<54}" + "".join(f"  {column:>18}" for column in table))
    for name in dict.fromkeys(name for row in table.values() for name in row):
        values = (f"{row[name]:.2f}" if name in row else "" for row in table.values())
        print(f"{name:<54}" + "".join(f"  {value:>18}" for value in values))


def benchmark(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    os.environ["GEOCFL_CACHE"] = str(work / "cache")  # keeps exports out of the user's cache
    shutil.rmtree(work / "maps", ignore_errors=True)  # an interrupted map would resume
    setup = {
        "work": str(work),
        "size": options.size,
        "eurosat": str(options.eurosat or ""),
        "model": options.model,
        "device": options.device,
        "peer_rows": options.peer_rows or options.size,
        "linear": options.linear,
        "memory_size": options.memory_size if options.memory else 0,
    }
    print(f"preparing scenes in {work}", flush=True)
    facts, _, _ = run(child("prepare", **setup), work)
    machine = describe_machine(facts)
    print_machine(machine)
    timed = {
        "tile": f"{options.size} x {options.size} px of {'EuroSAT patches' if setup['eurosat'] else 'noise'}",
        "peers": f"the first {setup['peer_rows']} of its {options.size} rows",
        "model": facts["model_name"],
        "rounds": options.rounds,
    }
    print(f"a: {options.seconds:g} s of random windows; b, c: {timed['peers']}; d: {timed['tile']}")
    print(f"{DEFAULT}: {facts['default']['repr']}\nall others: {timed['model']}")
    for classifier in facts["classifiers"]:
        used = "   (default of geocfl map)" if classifier["default"] else ""
        print(f"  {classifier['repr']}, batches of {classifier['batch_size']}{used}")
    print()

    runs: dict[str, list[Record]] = {}
    for turn in range(options.rounds):
        for name, command in variants(options, facts, work).items():
            record = measure(command, work)
            runs.setdefault(name, []).append(record)
            rate = record["working_windows_per_s"]
            print(f"round {turn + 1}  {name:<40}  {record['seconds']:7.1f} s  {rate:9.1f} windows/s", flush=True)
    results = {
        name: {key: statistics.median(record[key] for record in records) for key in records[0]}
        for name, records in runs.items()
    }
    print_results(results)
    compared = ratios(results, facts, options.linear)
    print_ratios(compared)
    report = {
        "machine": machine,
        "timed": timed,
        "classifiers": facts["classifiers"],
        "medians": results,
        "ratios": compared,
        "runs": runs,
    }
    return report | ({"memory": measure_memory(options, facts, work)} if options.memory else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=10_980, help="side of the tile, pixels")
    parser.add_argument("--peer-rows", type=int, default=0, help="pixel rows that b and c classify (default: all)")
    parser.add_argument("--seconds", type=float, default=10, help="seconds of each run of a")
    parser.add_argument("--eurosat", type=Path, help="EuroSAT.zip, to fill the tile with (default: noise)")
    parser.add_argument("--model", default="", help=f"model (default: {BUNDLED_MODEL}, else a random ResNet-18)")
    parser.add_argument("--device", default="cpu", help="cpu; with cuda, a and d run with torch only")
    parser.add_argument("--linear", action="store_true", help="also time a quarter of the tile's area")
    parser.add_argument("--memory", action="store_true", help=f"also measure memory with --memory {MEMORY_LIMIT}")
    parser.add_argument("--memory-size", type=int, default=40_000, help="side of the mostly empty scene, pixels")
    parser.add_argument("--work", type=Path, help="folder that keeps the scenes for the next run (default: temporary)")
    parser.add_argument("--json", type=Path, help="file to write the results to")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        asked = json.loads(options.child)
        with contextlib.redirect_stdout(sys.stderr):
            result = CHILDREN[asked["name"]](**asked["arguments"])
        print(json.dumps(result))
        return
    with tempfile.TemporaryDirectory() as temporary:
        work = (options.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        report = benchmark(options, work)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
