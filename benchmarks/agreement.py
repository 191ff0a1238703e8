"""Counts the cells on which a device in half precision agrees with float32 on the CPU.

    python benchmarks/agreement.py --device cuda

Both map the demonstration scene with each built-in model; on a CPU, the half precision is that of ``auto``. The exit
status is 1 if fewer than 99.5 % of the cells agree.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

import geocfl

MODELS = {"eurosat-rgb-lite0": 64, "eurosat-rgb-dense": 16}
"""Built-in models, and the strides that they are compared at."""
LEAST = 0.995
"""Fraction of the cells that must agree."""


def corner(scene: Path, side: int, out: Path) -> Path:
    """The upper left corner of a scene, as a scene of its own."""
    with rasterio.open(scene) as whole:
        profile = whole.profile | {"driver": "GTiff", "width": side, "height": side}
        for tiling in ("tiled", "blockxsize", "blockysize"):
            profile.pop(tiling, None)
        with rasterio.open(out, "w", **profile) as part:
            part.write(whole.read(window=Window(0, 0, side, side)))
            part.descriptions = whole.descriptions
    return out


def codes(scene: Path, out: Path, model: str, stride: int, device: str, precision: str) -> NDArray[np.uint8]:
    """Classes of the cells of a map by torch."""
    made = geocfl.map_scene(
        scene,
        out,
        model=model,
        stride=stride,
        backend="torch",
        device=device,
        precision=precision,
        products=("lulc",),
        vector=(),
    )
    return made.lulc


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--scene", type=Path, help="scene to map (default: that of `geocfl demo`)")
    parser.add_argument("--side", type=int, help="side in pixels of the corner to map (default: the whole scene)")
    options = parser.parse_args()
    worst = 1.0
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        scene = options.scene or geocfl.demo(work / "demo").scene
        if options.side:
            scene = corner(scene, options.side, work / "corner.tif")
        print(f"{'model':<24}{'stride':>8}{'cells':>10}{'agree':>10}")
        for model, stride in MODELS.items():
            exact = codes(scene, work / "cpu" / model, model, stride, "cpu", "float32")
            fast = codes(scene, work / "device" / model, model, stride, options.device, "auto")
            agree = float((exact == fast)[exact > 0].mean())
            worst = min(worst, agree)
            print(f"{model:<24}{stride:>8}{np.count_nonzero(exact):>10}{agree:>10.2%}", flush=True)
    raise SystemExit(worst < LEAST)


if __name__ == "__main__":
    main()
