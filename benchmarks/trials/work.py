"""The commands that are killed and disturbed, their inputs, and what they write without a disturbance."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from geocfl.mapping.recall import MANIFEST
from trials import material
from trials.processes import files_in

STRIP_ROWS = 128
"""Rows of a strip in these trials, so that small scenes have several."""
TORCH = ("--backend", "torch", "--precision", "float32")


@dataclass(frozen=True)
class Job:
    """A command with its output.

    Attributes:
        row: Its row in the tables.
        arguments: Those of the command line; ``OUT`` stands for the output folder.
        finished: What the command says if it has been finished before, instead of success.
    """

    row: str
    arguments: Sequence[str]
    finished: str = "nothing"

    def into(self, out: Path) -> list[str]:
        """The arguments with an output folder."""
        return [argument.replace("OUT", str(out)) for argument in self.arguments]


def jobs(folder: Path) -> dict[str, Job]:
    """Writes inputs into an empty folder and returns the commands by name."""
    material.write_model(folder / "tiny")
    (folder / "maps").mkdir(exist_ok=True)
    for name in ("A", "B", "C"):
        material.write_scene(folder / f"{name}.tif", material.land(5 * STRIP_ROWS, 192, seed=ord(name)))
    material.write_map(folder / "maps", "A")
    material.write_map(folder / "maps", "B", east=320, seed=1)
    material.write_zones(folder / "zones.gpkg")
    material.write_patches(folder / "patches")
    model, maps, zones = str(folder / "tiny"), str(folder / "maps"), str(folder / "zones.gpkg")
    scenes = [str(folder / f"{name}.tif") for name in ("A", "B", "C")]
    mapping = ("--model", model, "--stride", "16", *TORCH, "--datetime", "2024-06-01T10:00Z", "--out", "OUT")
    training = ("--backbone", "lite0", "--weights", "none", "--epochs", "2", "--batch-size", "16", "--input-size", "32")
    zonal = ("stats", f"{maps}/A_lulc.tif", "--zones", zones, "--out")
    return {
        "map": Job("`map`", ["map", scenes[0], *mapping, "--products", "lulc,confidence,vector,project,stac"]),
        "maps": Job("`map` of three scenes", ["map", *scenes, *mapping, "--products", "lulc,confidence,stac"]),
        "train": Job(
            "`train --resume`",
            ["train", "--data", str(folder / "patches"), "--out", "OUT/run", "--resume", *training],
            "already contains a run",
        ),
        "mosaic": Job(
            "`mosaic`",
            ["mosaic", maps, "--out", "OUT/X_lulc.tif", "--vector", "gpkg,geojson"],
            "already exists",
        ),
        "virtual": Job("`mosaic` to a VRT", ["mosaic", maps, "--out", "OUT/X_lulc.vrt"], "already exists"),
        "regions": Job(
            "`mosaic --regions`",
            ["mosaic", maps, "--regions", zones, "--by", "name", "--out", "OUT/regions"],
            "already exists",
        ),
        "table": Job("`stats` to CSV", [*zonal, "OUT/t.csv"], "already exists"),
        "areas": Job("`stats` to a GeoPackage", [*zonal, "OUT/t.gpkg"], "already exists"),
    }


def written(out: Path) -> dict[str, bytes]:
    """Every file below an output folder, without what depends on the clock: seconds, and the manifest of times."""
    files = files_in(out) if out.exists() else {}
    files = {name: content for name, content in files.items() if not name.endswith(MANIFEST)}
    for name, content in files.items():
        if name.endswith("_summary.json"):
            summary = json.loads(content)
            summary.pop("timing", None)  # that of a mosaic has none
            files[name] = json.dumps(summary).encode()
        elif name.endswith("history.csv"):
            rows = list(csv.DictReader(io.StringIO(content.decode())))
            files[name] = repr(
                [{key: value for key, value in row.items() if key != "seconds"} for row in rows]
            ).encode()
        elif name.endswith("report.html"):
            files[name] = b"with seconds"
    return files


def difference(found: dict[str, bytes], right: dict[str, bytes]) -> str:
    """In what two outputs differ; empty if in nothing."""
    lines = [
        f"{what}: {sorted(names)}"
        for what, names in (
            ("missing", right.keys() - found.keys()),
            ("left over", found.keys() - right.keys()),
            ("different", {name for name in right.keys() & found.keys() if right[name] != found[name]}),
        )
        if names
    ]
    return "; ".join(lines)
