"""Measures time and peak memory of each product, for a full tile at stride 16 (687 x 687 cells).

    python benchmarks/map_products.py

Cells are generated: `patchy` has patches of a few cells with ragged edges, like real maps; `noise` is the worst case,
with independent cells. Each step runs in a separate process, so its peak memory is its own.
"""

from __future__ import annotations

import argparse
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

from geocfl.core.grid import CellGrid
from geocfl.core.legend import EUROSAT
from geocfl.products.formats.raster import write_lulc, write_probabilities
from geocfl.products.formats.vector import write_polygons, write_windows
from geocfl.products.formats.vector_formats import VECTOR_FORMATS
from geocfl.products.generalize import merge_small
from geocfl.products.polygons import dissolve, simplify
from geocfl.products.scratch import BANDS, ENTROPY, PROBABILITY, write_header

SIDE, STRIDE = 10_980, 16
GRID = CellGrid(SIDE, SIDE, STRIDE, 64, Affine(10, 0, 600_000, 0, -10, 5_100_000), CRS.from_epsg(32633))
STEPS = ("start", "raster", "probabilities", "polygons", *VECTOR_FORMATS[1:], "simplify", "merge", "windows")


def draw(cells: Path, patchy: bool) -> None:
    rng = np.random.default_rng(0)
    weights = rng.random((len(EUROSAT), GRID.rows, GRID.columns), np.float32)
    if patchy:
        weights = np.stack([gaussian_filter(w, 2.5) + 0.004 * rng.normal(size=w.shape) for w in weights])
    codes = weights.argmax(axis=0) + 1
    probability = 100 * weights / weights.sum(axis=0)
    values = np.stack([codes, probability.max(axis=0), probability.max(axis=0), *probability]).astype(np.uint8)
    cells.write_bytes(values.transpose(1, 0, 2).tobytes())
    write_header(cells, GRID.rows, GRID.columns, [*BANDS, ENTROPY, *[PROBABILITY] * len(EUROSAT)])


def run(step: str, cells: Path, out: Path) -> None:
    if step == "draw":
        draw(cells, cells.name == "patchy")
        return
    started = time.perf_counter()
    count = ""
    if step == "raster":
        write_lulc(cells, out / "S.tif", GRID, EUROSAT, {})
    elif step == "probabilities":
        write_probabilities(cells, out / "S.tif", GRID, EUROSAT, {})
    elif step == "windows":
        write_windows(cells, out / "S.gpkg", GRID, EUROSAT)
    elif step != "start":
        if step == "merge":
            merge_small(cells, out / "merged", GRID, 50)
            cells = out / "merged"
        polygons = dissolve(cells, GRID, EUROSAT)
        if step == "simplify":
            polygons = simplify(polygons, GRID, 200)
        count = f"{len(polygons):,} polygons"
        write_polygons(polygons, out / "S.gpkg", step if step in VECTOR_FORMATS else "gpkg")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{step:<14} {time.perf_counter() - started:6.1f} s  {peak:5.2f} GB  {count}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--cells", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        with tempfile.TemporaryDirectory() as out:
            run(options.step, options.cells, Path(out))
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in ("patchy", "noise"):
            cells = Path(folder) / name
            print(f"\n{name}, {GRID.rows} x {GRID.columns} cells", flush=True)
            # Cells are generated in a separate process, since a child's peak memory starts at its parent's.
            for step in ("draw", *STEPS):
                subprocess.run([sys.executable, __file__, "--step", step, "--cells", cells], check=True)


if __name__ == "__main__":
    main()
