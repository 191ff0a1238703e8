"""Broken inputs: intact ones are damaged by a seeded generator, and geocfl is run on them.

A case counts as wrong in silence if the command succeeds without a new warning and its result differs both from the
result for the intact input and from the result for a copy that the format's own library (GDAL, zipfile, GeoPandas)
makes of everything it reads in the damaged input. Where bytes were damaged at random and the text is still a
well-formed document, it says something else, and nothing can tell: those cases count as "another document".
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil

from trials import damage, material
from trials.processes import Outcome, files_in, geocfl, in_fork, preload_model

QUICK = ("--stride", "16", "--backend", "torch", "--precision", "float32", "--vector", "none")
RIGHT, READ, WARNED, OTHER, ERROR = "right", "as its library reads it", "warning", "another document", "error"
OUTCOMES = (RIGHT, READ, OTHER, WARNED, ERROR)
"""Good outcomes, in the order of the table's columns."""


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
        name: Its row in the table.
        build: Writes an intact input into an empty folder and returns its path.
        victims: Pattern of the files of which one is damaged.
        command: The arguments for an input, an output folder and a model.
        damages: The damages to choose from.
        copy: Rewrites a damaged file as its format's own library reads it.
        well_formed: Whether a text is a document; None for binary formats.
        share: Share of the cases.
    """

    name: str
    build: Callable[[Path], Path]
    victims: str
    command: Callable[[Path, Path, Path], Sequence[str]]
    damages: Sequence[damage.Damage]
    copy: Callable[[Path], Any] | None = None
    well_formed: Callable[[bytes], Any] | None = None
    share: int = 1


@dataclass(frozen=True)
class Case:
    """What happened to a damaged input."""

    kind: str
    number: int
    said: str
    verdict: str
    detail: str = ""
    peak_mb: float = 0


def mapping(scene: Path, out: Path, model: Path) -> Sequence[str]:
    """``geocfl map`` of the scene."""
    return ["map", str(scene), "--out", str(out), "--model", str(model), "--products", "lulc,confidence", *QUICK]


def with_model(model: Path, out: Path, _: Path) -> Sequence[str]:
    """``geocfl map`` of an intact scene with the model."""
    return mapping(model.parent.parent / "scene.tif", out, model)


def zonal(zones: Path, out: Path, _: Path) -> Sequence[str]:
    """``geocfl stats`` of an intact map with the zones."""
    map_ = zones.parent.parent / "A_lulc.tif"
    return ["stats", str(map_), "--zones", str(zones), "--by", "name", "--out", str(out / "areas.csv")]


def of_map(map_: Path, out: Path, _: Path) -> Sequence[str]:
    """``geocfl stats`` of the map with intact zones."""
    zones = map_.parent.parent / "zones.geojson"
    return ["stats", str(map_), "--zones", str(zones), "--by", "name", "--out", str(out / "areas.csv")]


def mosaics(map_: Path, out: Path, _: Path) -> Sequence[str]:
    """``geocfl mosaic`` of the map and an intact one."""
    return ["mosaic", str(map_), str(map_.parent.parent / "B_lulc.tif"), "--out", str(out / "X_lulc.tif")]


def evaluation(patches: Path, out: Path, model: Path) -> Sequence[str]:
    """``geocfl evaluate`` on the patches."""
    return ["evaluate", str(model), "--data", str(patches), "--split", "all", "--out", str(out)]


def scene_in(folder: Path) -> Path:
    return material.write_scene(folder / "scene.tif")


def safe_in(folder: Path) -> Path:
    return material.write_safe(folder)


def zip_in(folder: Path) -> Path:
    path = material.write_safe(folder, zipped=True)
    shutil.rmtree(path.with_suffix(".SAFE"))
    return path


def model_in(folder: Path) -> Path:
    return material.write_model(folder / "tiny")


def map_in(folder: Path) -> Path:
    return material.write_map(folder, "A")


def patches_in(folder: Path) -> Path:
    path = material.zip_folder(material.write_patches(folder / "patches", each=2))
    shutil.rmtree(folder / "patches")
    return path


def zones_in(name: str) -> Callable[[Path], Path]:
    return lambda folder: material.write_zones(folder / name)


def copy_raster(path: Path) -> None:
    """Rewrites a raster as GDAL reads it, pixels and metadata, without loss."""
    new = path.with_name("copy" + path.suffix)
    lossless = {"QUALITY": "100", "REVERSIBLE": "YES"} if path.suffix == ".jp2" else {}
    driver = "JP2OpenJPEG" if lossless else "GTiff"
    with rasterio.Env(GDAL_NUM_THREADS="ALL_CPUS"), rasterio.open(path) as dataset:  # as geocfl opens it
        rasterio.shutil.copy(dataset, new, driver=driver, **lossless)
        transform = dataset.transform
    if driver == "GTiff":
        with rasterio.open(new, "r+") as copied:
            copied.transform = transform  # GDAL drops one that begins at 0, 0
    os.replace(new, path)


def copy_zones(path: Path) -> None:
    """Rewrites zones as GeoPandas reads them."""
    import geopandas as gpd

    zones = gpd.read_file(path)
    for file in path.parent.glob(f"{path.stem}.*"):
        file.unlink()
    zones.to_file(path.with_suffix(".gpkg"))
    os.replace(path.with_suffix(".gpkg"), path)


def copy_zip(path: Path) -> None:
    """Rewrites an archive as zipfile reads it, which verifies checksums; members that it does not read are left out."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(path.with_suffix(".new"), "w") as new:
        for member in old.infolist():
            with contextlib.suppress(Exception):
                new.writestr(member.filename, old.read(member))
    os.replace(path.with_suffix(".new"), path)


TIFF = (*damage.BYTES, *[damage.tiff_entry] * 6, *[damage.tiff_double] * 3)
DOCUMENT = [damage.flipped, damage.truncated, damage.blanked, damage.shifted, damage.emptied]
KINDS = (
    Kind("GeoTIFF, a scene", scene_in, "scene.tif", mapping, TIFF, copy_raster, share=7),
    Kind("GeoTIFF, a map (`stats`)", map_in, "A_lulc.tif", of_map, TIFF, copy_raster, share=2),
    Kind("GeoTIFF, a map (`mosaic`)", map_in, "A_*.tif", mosaics, TIFF, copy_raster, share=2),
    Kind("JPEG 2000 in SAFE", safe_in, "*.SAFE/GRANULE/*/IMG_DATA/R10m/*_B0[34]_10m.jp2", mapping,
         (*damage.BYTES, *[damage.jp2_field] * 7), copy_raster, share=4),
    Kind("SAFE, metadata", safe_in, "*.SAFE/MTD_MSIL2A.xml", mapping,
         (*DOCUMENT, *[damage.xml_element] * 12), well_formed=ET.fromstring, share=4),
    Kind("SAFE in a zip", zip_in, "*.zip", mapping, (*damage.BYTES, *[damage.zip_field] * 7), copy_zip, share=4),
    Kind("VRT", material.write_vrt, "scene.vrt", mapping,
         (*DOCUMENT, *[damage.xml_element] * 12), copy_raster, share=4),
    Kind("STAC Item", material.write_item, "item.json", mapping,
         (*DOCUMENT, *[damage.json_value] * 14), well_formed=json.loads, share=4),
    Kind("`model.json`", model_in, "tiny/model.json", with_model,
         (*DOCUMENT, *[damage.json_value] * 14), well_formed=json.loads, share=4),
    Kind("`model.safetensors`", model_in, "tiny/model.safetensors", with_model,
         (damage.flipped_early, damage.truncated, damage.emptied, *[damage.tensors] * 5, damage.weights), share=3),
    Kind("Zones, GeoJSON", zones_in("zones.geojson"), "zones.geojson", zonal,
         (*DOCUMENT, *[damage.json_value] * 14), copy_zones, json.loads, share=3),
    Kind("Zones, GeoPackage", zones_in("zones.gpkg"), "zones.gpkg", zonal, damage.BYTES, copy_zones, share=2),
    Kind("Zones, shapefile", zones_in("zones.shp"), "zones.*", zonal, damage.BYTES, copy_zones, share=2),
    Kind("Patches in a zip", patches_in, "*.zip", evaluation,
         (*damage.BYTES, *[damage.zip_field] * 4), copy_zip, share=2),
)  # fmt: skip


class Bench:
    """Intact inputs of each kind and their results, and the trial of damaged ones.

    Args:
        folder: An empty folder to work in.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = material.write_model(folder / "tiny")
        preload_model(self.model)
        material.write_scene(folder / "scene.tif")
        material.write_map(folder, "A")
        material.write_map(folder, "B", east=320, seed=1)
        material.write_zones(folder / "zones.geojson")
        self.intact: dict[str, tuple[str, Any, set[str]]] = {}
        for kind in KINDS:
            place = self.place(kind)
            place.mkdir(parents=True)
            path = kind.build(place)
            with self.work() as work:
                shutil.copytree(place, work / "in")
                outcome = self.run(kind, work / "in" / path.name, work)
                assert (outcome.code, outcome.defect) == (0, ""), (kind.name, outcome)
                self.intact[kind.name] = path.name, result(work / "out"), outcome.warnings

    @contextlib.contextmanager
    def work(self) -> Iterator[Path]:
        """A folder for one run, beside the intact inputs."""
        with tempfile.TemporaryDirectory(dir=self.folder, prefix="case") as name:
            work = Path(name)
            for file in self.folder.iterdir():
                if file.is_file():
                    os.link(file, work / file.name)
            (work / "tmp").mkdir()
            yield work

    def run(self, kind: Kind, path: Path, work: Path) -> Outcome:
        """Runs the command of a kind on an input."""
        arguments = kind.command(path, work / "out", self.model)
        return geocfl(arguments, environment={"TMPDIR": str(work / "tmp"), "GEOCFL_CACHE": str(work / "tmp/cache")})

    def trial(self, kind: Kind, number: int, seed: int) -> Case:
        """Damages an input and runs the command on it."""
        rng = np.random.default_rng([seed, KINDS.index(kind), number])
        name = self.intact[kind.name][0]
        with self.work() as work:
            place = work / "in"
            shutil.copytree(self.place(kind), place)
            victims = sorted(place.glob(kind.victims))
            victim = victims[rng.integers(len(victims))]
            how = kind.damages[int(rng.integers(len(kind.damages)))]
            content, said = how(rng, victim.read_bytes())
            victim.write_bytes(content)
            before = set(files_in(place))
            outcome = self.run(kind, place / name, work)
            left = sorted(set(files_in(place)) - before | set(files_in(work / "tmp")))
            if outcome.code and (work / "out").exists():
                left += sorted(files_in(work / "out"))
            if outcome.defect:
                verdict, detail = outcome.defect, outcome.err[-3000:]
            elif left:
                verdict, detail = "left over", f"{left}; {outcome.reason}"
            elif outcome.code:
                verdict, detail = ERROR, outcome.reason
            else:
                document = kind.well_formed and how in DOCUMENT and _holds(kind.well_formed, content)
                verdict, detail = self.judged(kind, work, outcome, OTHER if document else "")
            return Case(kind.name, number, f"{victim.name}: {said}", verdict, detail, outcome.peak_mb)

    def judged(self, kind: Kind, work: Path, outcome: Outcome, excuse: str) -> tuple[str, str]:
        """The verdict on a command that succeeded, and the evidence."""
        name, right, usual = self.intact[kind.name]
        found = result(work / "out")
        if found == right:
            return RIGHT, ""
        if outcome.warnings - usual:
            return WARNED, " ".join(sorted(outcome.warnings - usual))
        if not excuse and self.copied(kind, work, name, found):
            excuse = READ
        return excuse or "wrong in silence", outcome.err[-1500:]

    def place(self, kind: Kind) -> Path:
        """The folder of the intact input of a kind."""
        return self.folder / "intact" / str(KINDS.index(kind))

    def copied(self, kind: Kind, work: Path, name: str, found: Any) -> bool:
        """Whether the result is also that of a copy made by the format's own library."""
        if kind.copy is None:
            return False
        victims = [work / "in" / name] if name.endswith(".shp") else sorted((work / "in").glob(kind.victims))
        if not all(in_fork(kind.copy, victim) for victim in victims):
            return False
        shutil.rmtree(work / "out")
        outcome = self.run(kind, work / "in" / name, work)
        return outcome.code == 0 and result(work / "out") == found


def _holds(parse: Callable[[bytes], Any], content: bytes) -> bool:
    try:
        parse(content)
    except Exception:
        return False
    return True


def result(out: Path) -> Any:
    """What a command made, as values that can be compared: pixels and places of rasters, texts of tables."""
    made: dict[str, Any] = {}
    for path in sorted(out.iterdir()):
        if path.suffix == ".tif":
            with rasterio.open(path) as dataset:
                made[path.name] = dataset.read().tobytes(), tuple(dataset.transform), str(dataset.crs), dataset.shape
        elif path.name in {"areas.csv", "metrics.json"}:
            made[path.name] = path.read_bytes()
    assert made, out
    return made
