"""Measures how long geocfl takes from a command to its first window, and what the imports until then cost.

Each row is a new process that ends with its first result: the median of several rounds, in which all rows alternate.
``first map`` has an empty cache, as after the installation; the others find there what they need.

    python benchmarks/startup.py --rounds 5 --json startup.json
    python benchmarks/startup.py --imports openvino
    python benchmarks/startup.py --steps cuda
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from geocfl.models.bundle import Bundle
from geocfl.planning.profile import write_stand_in

UNTIL_FIRST_WINDOW = """
import os, sys, time
import geocfl.cli

def progress(what, done, total, unit):
    if unit == "window" and done:
        used = sum(os.times()[:2])
        print(f"\\n{time.time() - float(sys.argv[1])} {used}", flush=True)
        os._exit(0)

scene, out, backend = sys.argv[2:]
list(geocfl.map_scenes([scene], out, overwrite=True, device="cpu", backend=backend, progress=progress))
"""
STEPS = """
import sys, time

started = time.perf_counter()

def step(name):
    global started
    now = time.perf_counter()
    print(f"{name:44} {now - started:6.2f} s", flush=True)
    started = time.perf_counter()

import torch
step("import torch")
device = torch.device(sys.argv[1])
torch.empty(1, device=device)
step("start the device")
import numpy as np
from geocfl.models.backends import load_backend
from geocfl.models.predict import load_model
step("import geocfl")
model = load_model(sys.argv[2])
backend = load_backend(model, "torch", sys.argv[1])
step("load the model")
side = 2 * 768 + model.footprint - model.window
placed = backend.place(np.full((len(model.bands), side, side), 0.1, np.float32))
step("place a strip, with pinned memory on a GPU")
x = torch.zeros(64, 32, 32, 32, device=device, dtype=torch.float16 if device.type == "cuda" else torch.float32)
layer = torch.nn.Conv2d(32, 32, 3, padding=1).to(x)
layer(x).sum().item()
step("one convolution, which loads its library")
x = x.to(memory_format=torch.channels_last)
layer = torch.nn.Conv2d(32, 32, 5, padding=2, groups=32).to(x)
with torch.backends.cudnn.flags(enabled=False):
    layer(x).sum().item()
step("one depthwise convolution, by torch")
layer(x).sum().item()
step("the same by cuDNN, on a GPU")
rows, columns = np.indices((24, 24)).reshape(2, -1)
for name in ("the first windows of the model", "the same windows again"):
    for _ in backend.classify(placed, rows, columns, 64):
        pass
    step(name)
"""
COMMANDS = {
    "geocfl --help": ("--help",),
    "geocfl map --help": ("map", "--help"),
    "geocfl info eurosat-rgb-dense": ("info", "eurosat-rgb-dense"),
    "geocfl info scene.tif": ("info", "{scene}"),
    "geocfl stats": ("stats", "{map}", "--zones", "{zones}", "--out", "{work}/zones.gpkg", "--overwrite"),
    "geocfl sample": ("sample", "{map}", "--size", "100", "--out", "{work}/sample.gpkg", "--overwrite"),
}
NUMERIC = ("torch", "timm", "torchvision", "sympy", "openvino", "onnxruntime", "numpy", "scipy")
GEOGRAPHIC = ("rasterio", "boto3", "botocore", "s3transfer", "pyproj", "shapely", "pandas", "geopandas")
GROUPS = (*NUMERIC, *GEOGRAPHIC, "matplotlib", "typer", "geocfl")
"""Packages that are shown apart; rasterio imports those of Amazon's storage where they are installed."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--backends", nargs="+", default=["openvino", "onnx", "torch"])
    arguments.add_argument("--imports", metavar="BACKEND", help="only show what is imported until the first window")
    arguments.add_argument("--steps", metavar="DEVICE", help="only show what the torch back end does until then")
    arguments.add_argument("--model", default="eurosat-rgb-dense", help="model of --steps")
    arguments.add_argument("--json", type=Path)
    chosen = arguments.parse_args()
    if chosen.steps:
        subprocess.run([sys.executable, "-c", STEPS, chosen.steps, chosen.model], check=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        scene = Path(write_stand_in(work, Bundle.load()).path)
        if chosen.imports:
            show_imports(scene, work, chosen.imports)
            return
        results = measure(scene, work, chosen.backends, chosen.rounds)
    for name, (seconds, processor) in results.items():
        print(f"{name:44} {seconds:6.2f} s   {processor:6.2f} s of processor time")
    if chosen.json:
        chosen.json.write_text(json.dumps(results, indent=2) + "\n")


def measure(scene: Path, work: Path, backends: list[str], rounds: int) -> dict[str, tuple[float, float]]:
    """Median seconds and processor seconds of each row."""
    names = commands(scene, work)
    runs: dict[str, list[tuple[float, float]]] = collections.defaultdict(list)
    for number in range(rounds + 1):
        for backend in backends:
            fresh = os.environ | {"GEOCFL_CACHE": tempfile.mkdtemp(dir=work)}
            rows = {f"map, {backend}": dict(os.environ), f"first map, {backend}": fresh}
            for name, environment in rows.items():
                if number or name.startswith("map"):  # the first round fills the caches of the system and of geocfl
                    runs[name].append(first_window(scene, work, backend, environment))
        for name, command in names.items():
            runs[name].append(whole_command(command))
    return {
        name: tuple(statistics.median(column) for column in zip(*taken[-rounds:], strict=True))
        for name, taken in runs.items()
    }


def first_window(
    scene: Path, work: Path, backend: str, environment: dict[str, str], *flags: str
) -> tuple[float, float]:
    """Seconds and processor seconds until the first windows are classified."""
    command = [sys.executable, *flags, "-c", UNTIL_FIRST_WINDOW, str(time.time()), scene, work / "out", backend]
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=True)
    seconds, processor = map(float, done.stdout.split()[-2:])
    return seconds, processor


def commands(scene: Path, work: Path) -> dict[str, list[str]]:
    """Whole commands, and the map, zones and folder that they need."""
    run = [sys.executable, "-c", "import geocfl.cli; geocfl.cli.app()"]
    subprocess.run([*run, "map", scene, "--out", work / "maps"], check=True, capture_output=True)
    summary = json.loads(next((work / "maps").glob("*_summary.json")).read_text())["scene"]
    west, south, east, north = summary["bounds"]
    square = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    zone = {"type": "Feature", "properties": {"name": "all"}, "geometry": {"type": "Polygon", "coordinates": [square]}}
    crs = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:{summary['crs'].replace(':', '::')}"}}
    zones = work / "zones.geojson"
    zones.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": [zone]}))
    places = {"scene": scene, "map": work / "maps" / f"{scene.stem}_lulc.tif", "zones": zones, "work": work}
    return {name: [*run, *(word.format(**places) for word in words)] for name, words in COMMANDS.items()}


def whole_command(command: list[str]) -> tuple[float, float]:
    """Seconds and processor seconds of a command."""
    started, before = time.perf_counter(), os.times()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - started, used


def show_imports(scene: Path, work: Path, backend: str) -> None:
    """Prints milliseconds of imports until the first window, by package."""
    first_window(scene, work, backend, dict(os.environ))  # fills the caches
    command = [sys.executable, "-X", "importtime", "-c", UNTIL_FIRST_WINDOW, "0", scene, work / "out", backend]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    taken: collections.Counter[str] = collections.Counter()
    for line in done.stderr.splitlines():
        if line.startswith("import time:") and (parts := line[12:].split("|"))[0].strip().isdigit():
            package = parts[2].strip().partition(".")[0]
            taken[package if package in GROUPS else "others"] += int(parts[0])
    for package, spent in taken.most_common():
        print(f"{package:16} {spent / 1000:8.0f} ms")
    print(f"{'together':16} {taken.total() / 1000:8.0f} ms")


if __name__ == "__main__":
    main()
