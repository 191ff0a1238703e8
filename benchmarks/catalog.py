"""Measures the catalog of many maps: writing it with and without Items, and reading it.

    python benchmarks/catalog.py --maps 10000

One map is made, and stands in folders by tile and year for all others: each has a summary and a place of its own, and
links to the same rasters. Times are of one round, since the first creates the Items.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import geopandas
import pystac

import geocfl
from geocfl.demonstration.landscape import write_synthetic_scene
from geocfl.products.files import FILES

TILE = 109_800
"""Meters from one map to the next."""


def fill(folder: Path, count: int) -> None:
    """Writes the stand-ins of maps."""
    scene = folder / "S2A_33TUL_20200601_0_L2A.tif"
    write_synthetic_scene(scene, folder / "truth.tif")
    done = geocfl.map_scene(scene, folder / "one")
    text = (folder / f"one/{scene.stem}{FILES['summary']}").read_text()
    for number in range(count):
        row, column = divmod(number % 5000, 100)
        tile, year = f"{31 + column // 50}T{chr(65 + row % 8)}{chr(65 + column % 8)}", 2019 + number // 5000
        name = f"S2A_{tile}_{year}0601_{number}_L2A"
        out = folder / "maps" / tile / str(year)
        out.mkdir(parents=True, exist_ok=True)
        summary = json.loads(text)
        place = summary["scene"]["transform"]
        place[2], place[5] = 3e5 + TILE / 20 * column, 5.4e6 - TILE / 2 * row
        summary["scene"]["file"] = f"{name}.tif"
        (out / f"{name}{FILES['summary']}").write_text(json.dumps(summary, indent=2) + "\n")
        for key, path in done.paths.items():
            if key != "summary":
                os.link(path, out / f"{name}{FILES[key]}")


def seconds(work: Callable[[], object]) -> float:
    """Elapsed time of a call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=int, default=10_000)
    count = parser.parse_args().maps
    logging.getLogger("geocfl").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(folder, count)
        maps = folder / "maps"
        table, catalog = maps / "catalog.parquet", str(maps / "catalog.json")
        rows = [
            ("write the catalog and all Items", seconds(lambda: geocfl.write_catalog(maps))),
            ("write the catalog again", seconds(lambda: geocfl.write_catalog(maps))),
            ("the same with catalog.parquet", seconds(lambda: geocfl.write_catalog(maps, parquet=True))),
            ("read the table with GeoPandas", seconds(lambda: geopandas.read_parquet(table))),
            ("read all Items with pystac", seconds(lambda: list(pystac.Catalog.from_file(catalog).get_items()))),
        ]
        print(f"{count:,} maps")
        for what, took in rows:
            print(f"{what:<36}{took:8.1f} s")
        for path in sorted(maps.glob("c*")):
            print(f"{path.name:<36}{path.stat().st_size / 1e6:8.1f} MB")


if __name__ == "__main__":
    main()
