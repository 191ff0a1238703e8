"""Hostile files: what a stranger may send to read or write other files, to exhaust memory or to change a terminal."""

from __future__ import annotations

import json
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import rasterio
from affine import Affine

from trials import material
from trials.inputs import Case, evaluation, mapping, zonal
from trials.processes import files_in, geocfl

SECRET = b"the secret of this machine\n" * 2000
Attack = Callable[[Path, Path], list[str]]


def raw_vrt(secret: Path) -> str:
    """A virtual raster that shows the bytes of any file as pixels."""
    band = (
        '<VRTRasterBand dataType="UInt16" band="{0}" subClass="VRTRawRasterBand"><Description>B0{1}</Description>'
        f'<SourceFilename relativetoVRT="0">{secret}</SourceFilename><ImageOffset>0</ImageOffset><PixelOffset>2'
        "</PixelOffset><LineOffset>384</LineOffset></VRTRasterBand>"
    )
    bands = "".join(band.format(number, 5 - number) for number in (1, 2, 3))
    return (
        f'<VRTDataset rasterXSize="128" rasterYSize="96"><SRS>EPSG:32633</SRS><GeoTransform>300000,10,0,5000000,0,-10'
        f"</GeoTransform>{bands}</VRTDataset>"
    )


def replaced(pattern: str, *, zipped: bool) -> Attack:
    """A SAFE product in which images are such virtual rasters."""

    def build(work: Path, model: Path) -> list[str]:
        product = material.write_safe(work)
        for file in product.rglob(pattern):
            file.write_text(raw_vrt(work / "secret"))
        return [*mapping(material.zip_folder(product) if zipped else product, work / "out", model)]

    return build


def band_files(work: Path, model: Path) -> list[str]:
    """A folder of band files that are such virtual rasters."""
    (work / "scene").mkdir()
    for band in ("B02", "B03", "B04"):
        (work / "scene" / f"{band}.tif").write_text(raw_vrt(work / "secret"))
    return [*mapping(work / "scene", work / "out", model)]


def item_with(href: str) -> Attack:
    """A STAC Item that refers to another place."""

    def build(work: Path, model: Path) -> list[str]:
        path = material.write_item(work)
        item = json.loads(path.read_text())
        (work / "raw.vrt").write_text(raw_vrt(work / "secret"))
        for asset in item["assets"].values():
            asset["href"] = href.replace("WORK", str(work))
        path.write_text(json.dumps(item))
        return [*mapping(path, work / "out", model)]

    return build


def model_with(command: str, **facts: object) -> Attack:
    """A model whose facts are changed."""

    def build(work: Path, model: Path) -> list[str]:
        shutil.copytree(model, work / "model")
        file = work / "model/model.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | facts))
        if command == "export":
            return ["export", str(work / "model"), "--out", str(work / "out/exported.pt"), "--format", "torchscript"]
        return [*mapping(material.write_scene(work / "scene.tif"), work / "out", work / "model")]

    return build


def control_class(work: Path, model: Path) -> list[str]:
    """A model with a class name that changes the terminal."""
    legend = json.loads((model / "model.json").read_text())["legend"]
    legend[0]["name"] = "\x1b]0;owned\x07\x1b[2J"
    return model_with("map", legend=legend)(work, model)


def sparse(height: int, width: int, **layout: object) -> Attack:
    """A GeoTIFF of a few bytes with billions of pixels."""

    def build(work: Path, model: Path) -> list[str]:
        path = work / "scene.tif"
        with rasterio.open(
            path, "w", driver="GTiff", count=3, height=height, width=width, dtype="uint16", sparse_ok=True,
            bigtiff=True, crs="EPSG:32633", transform=Affine(10, 0, 3e5, 0, -10, 5e6), **layout,
        ) as file:  # fmt: skip
            file.descriptions = ("B04", "B03", "B02")
        return [*mapping(path, work / "out", model)]

    return build


def picture_bomb(work: Path, model: Path) -> list[str]:
    """A patch of 50,000 by 50,000 pixels in a few kilobytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(50_001)) for _ in range(2000)) + packer.flush()
    picture = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0))
    picture += chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    folder = material.write_patches(work / "patches", each=2)
    next(folder.rglob("*.png")).write_bytes(picture)
    return [*evaluation(material.zip_folder(folder), work / "out", model)]


def zip_bomb(work: Path, model: Path) -> list[str]:
    """A product whose metadata is a gigabyte of spaces."""
    path = material.write_safe(work, zipped=True)
    name = path.stem + ".SAFE"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(f"{name}/MTD_MSIL2A.xml", "w") as file,
    ):
        for _ in range(1000):
            file.write(b" " * 1_000_000)
    return [*mapping(path, work / "out", model)]


def many_images(work: Path, model: Path) -> list[str]:
    """A product that lists 100,000 images."""
    product = material.write_safe(work)
    file = product / "MTD_MSIL2A.xml"
    image = "<IMAGE_FILE>GRANULE/x/IMG_DATA/R10m/T33TUL_20220601T100031_B04_10m</IMAGE_FILE>"
    text = file.read_text().replace("</Granule>", image * 100_000 + "</Granule>")
    file.write_text(text)
    return [*mapping(product, work / "out", model)]


def climbing_zip(work: Path, model: Path) -> list[str]:
    """A zip whose members lie outside it."""
    path = work / "scene.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for band in ("B02", "B03", "B04"):
            archive.writestr(f"../../{band}.tif", b"II*\x00")
            archive.writestr(f"{work}/{band}.tif", b"II*\x00")
    return [*mapping(path, work / "out", model)]


def deep(name: str, command: Callable[[Path, Path, Path], object]) -> Attack:
    """A JSON document of a million levels."""

    def build(work: Path, model: Path) -> list[str]:
        path = work / "in" / name
        path.parent.mkdir()
        path.write_text('{"type":' * 1_000_000)
        material.write_map(work, "A")
        return list(map(str, command(path, work / "out", model)))  # type: ignore[call-overload]

    return build


def escapes(work: Path, model: Path) -> list[str]:
    """A file name that changes the terminal."""
    return [*mapping(work / "\x1b[31mred\x1b[2J\n.tif", work / "out", model)]


ATTACKS: dict[str, Attack] = {
    "a VRT called .jp2 in a SAFE folder": replaced("*_B0?_10m.jp2", zipped=False),
    "a VRT called .jp2 in a zip": replaced("*_B0?_10m.jp2", zipped=True),
    "one band is a VRT called .jp2": replaced("*_B04_10m.jp2", zipped=False),
    "VRTs called .tif in a folder": band_files,
    "an Item with a VRT": item_with("WORK/raw.vrt"),
    "an Item with the secret": item_with("WORK/secret"),
    "an Item with file:///etc/passwd": item_with("file:///etc/passwd"),
    "an Item with the cloud's metadata address": item_with("http://169.254.169.254/latest/meta-data"),
    "an Item with a closed port of this machine": item_with("http://127.0.0.1:9/x.tif"),
    "an Item with a driver's prefix": item_with("VRTNC:WORK/raw.vrt"),
    "an Item with /vsicurl/": item_with("/vsicurl?url=http://127.0.0.1:9/x.tif"),
    "a model called ../../x, exported": model_with("export", name="../../x"),
    "a model called ../../x, mapped": model_with("map", name="../../x"),
    "a model with a terminal sequence in its name": model_with("map", name="\x1b[2J"),
    "a model with a terminal sequence in a class": control_class,
    "a model with windows of 2^31 pixels": model_with("map", window=2**31),
    "a model of an unknown backbone": model_with("map", backbone="os.system"),
    "1 x 2,000,000,000 pixels": sparse(1, 2_000_000_000),
    "2,000,000,000 x 1 pixels": sparse(2_000_000_000, 1, tiled=True, blockxsize=16, blockysize=32_768),
    "64 x 1,000,000,000 pixels": sparse(64, 1_000_000_000, tiled=True, blockxsize=32_768, blockysize=64),
    "a picture of 2.5 gigapixels in training patches": picture_bomb,
    "a gigabyte of metadata in a zip": zip_bomb,
    "100,000 images in the metadata": many_images,
    "a zip with members outside": climbing_zip,
    "zones of a million levels": deep("zones.geojson", zonal),
    "an Item of a million levels": deep("item.json", mapping),
    "a file name that changes the terminal": escapes,
}


def attack_all(folder: Path, count: int) -> Iterator[Case]:
    """Runs a command on each hostile file, or on the first few kinds.

    Args:
        folder: An empty folder to work in.
        count: Attacks at most.
    """
    model = material.write_model(folder / "tiny")
    for number, (name, build) in enumerate(list(ATTACKS.items())[:: max(1, len(ATTACKS) // count)]):
        work = Path(tempfile.mkdtemp(dir=folder))
        (work / "secret").write_bytes(SECRET)
        command = build(work, model)
        before = set(files_in(folder))
        outcome = geocfl(command, environment={"GEOCFL_CACHE": str(work / "cache"), "TMPDIR": str(work)})
        left = sorted(set(files_in(folder)) - before)
        verdict, detail = "error", outcome.reason
        if outcome.defect:
            verdict, detail = outcome.defect, outcome.err[-3000:]
        elif "\x1b" in outcome.out + outcome.err:
            verdict = "terminal"
        elif outcome.code == 0:
            verdict, detail = "obeyed", outcome.err[-1500:]
        elif left:
            verdict, detail = "left over", str(left)
        yield Case("hostile files", number, name, verdict, detail, outcome.peak_mb)
        shutil.rmtree(work)
