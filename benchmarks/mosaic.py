"""Measures time and peak memory of a mosaic for increasing numbers of maps of whole tiles at stride 64.

    python benchmarks/mosaic.py --maps 100 500

The maps have 172 x 172 generated cells in patches. They lie side by side in rows and overlap by a tenth, like tiles.
Each step runs in a separate process, so its peak memory is its own and includes Python and imports.
"""

from __future__ import annotations

import argparse
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from scipy.ndimage import gaussian_filter

from geocfl.analysis.mosaic import mosaic
from geocfl.core.grid import CellGrid
from geocfl.core.legend import EUROSAT
from geocfl.products.formats.raster import write_confidence, write_lulc
from geocfl.products.scratch import write_header

SIDE, STRIDE, STEP = 10_980, 64, 155
STEPS = {"raster": [], "raster and GeoPackage": ["gpkg"], "virtual raster": []}
"""Formats of polygons of each kind of mosaic."""


def draw(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    weights = [gaussian_filter(rng.random((400, 400), np.float32), 2.5) for _ in EUROSAT]
    land = np.argmax(weights, axis=0) + 1
    width = math.isqrt(count)
    for number in range(count):
        row, column = divmod(number, width)
        transform = Affine(10, 0, 300_000 + 640 * STEP * column, 0, -10, 6_000_000 - 640 * STEP * row)
        grid = CellGrid(SIDE, SIDE, STRIDE, 64, transform, CRS.from_epsg(3035))
        top, left = rng.integers(0, 400 - grid.rows, 2)
        codes = land[top : top + grid.rows, left : left + grid.columns]
        cells = folder / "cells"
        write_header(cells, grid.rows, grid.columns)
        cells.write_bytes(np.stack([codes, rng.integers(30, 100, codes.shape)], axis=1).astype(np.uint8).tobytes())
        tags = {"GEOCFL_STRIDE": str(STRIDE), "GEOCFL_WIDTH": str(SIDE), "GEOCFL_HEIGHT": str(SIDE)}
        write_lulc(cells, folder / f"M{number:05}_lulc.tif", grid, EUROSAT, tags)
        write_confidence(cells, folder / f"M{number:05}_confidence.tif", grid, tags)


def run(step: str, folder: Path) -> None:
    started = time.perf_counter()
    ending = "vrt" if step.startswith("virtual") else "tif"
    result = mosaic([folder], folder.parent / step.replace(" ", "-") / f"X_lulc.{ending}", vector=STEPS[step])
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6)
    cells = result.classes[""]["total"]["cells"]
    print(f"  {step}: {cells / 1e6:.1f} million cells, {seconds:.1f} s, {peak:.2f} GB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=int, nargs="+", default=[100, 500])
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        run(arguments.run[0], Path(arguments.run[1]))
        return
    for count in arguments.maps:
        print(f"{count} maps", flush=True)
        with tempfile.TemporaryDirectory() as work:
            folder = Path(work, "maps")
            folder.mkdir()
            draw(folder, count)
            for step in STEPS:
                subprocess.run([sys.executable, __file__, "--run", step, folder], check=True)


if __name__ == "__main__":
    main()
