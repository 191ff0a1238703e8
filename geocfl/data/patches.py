"""Labelled patches in memory, decoded once from a folder or zip archive of class-named folders."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath, PurePosixPath

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile
from tqdm import tqdm

from geocfl.errors import DataError
from geocfl.legend import MAX_CLASSES, Legend
from geocfl.radiometry import EUROSAT_RGB, SENTINEL2, Scaling

SUFFIXES = {".tif", ".tiff", ".png", ".jpg", ".jpeg"}
RGB = ("B04", "B03", "B02")
# EuroSAT's own files and torchgeo's list put B8A last (torchgeo#2458).
EUROSAT_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A")


@dataclass(frozen=True)
class Patches:
    """Labelled patches of one size, undecoded radiometry, named bands.

    Attributes:
        pixels: (N, B, H, W) digital numbers as they were stored, uint8 or uint16.
        labels: (N,) int64, legend code - 1.
        names: N file names such as ``"Forest_12.jpg"``.
        bands: Names of the B bands, such as ``("B04", "B03", "B02")``.
        scaling: What makes `pixels` reflectance.
        legend: The classes.
        source: What the patches were read from, in words.
    """

    pixels: NDArray[np.generic]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    bands: tuple[str, ...]
    scaling: Scaling
    legend: Legend
    source: str

    def __len__(self) -> int:
        return len(self.labels)

    def reflectance(self, indices: NDArray[np.int64] | Sequence[int]) -> NDArray[np.float32]:
        """(n, B, H, W) float32 reflectance of the patches at `indices`."""
        return self.scaling.to_reflectance(self.pixels[indices])

    def counts(self, indices: NDArray[np.int64]) -> list[int]:
        """Patches per class among `indices`, in the legend's order."""
        counts: list[int] = np.bincount(self.labels[indices], minlength=len(self.legend)).tolist()
        return counts


def read_patches(path: Path, bands: tuple[str, ...], scaling: Scaling | None = None) -> Patches:
    """Reads a folder, or a zip archive of one, whose sub-folders are named after classes.

    The EuroSAT RGB archive is one such, under its folder ``2750``. An archive is read in place, never unpacked.

    Args:
        path: Folder or ``.zip``, with ``.../<Class>/<patch>.tif|png|jpg`` at any depth.
        bands: Bands wanted, in this order. Files of three bands are taken as B04, B03, B02, files of thirteen as
            EuroSAT's; where a GeoTIFF describes its bands, the descriptions count.
        scaling: Digital numbers to reflectance; by default EuroSAT's for 8-bit files, 1 / 10,000 for others.

    Raises:
        DataError: Nothing to read, an unreadable file, or files that differ in size, type or bands.
    """
    files = _list_zip(path) if path.suffix.lower() == ".zip" else _list_folder(path)
    if not files:
        raise DataError(f"{path}: no .tif, .png or .jpg files in class-named folders; pass the folder that holds them")
    folders = sorted({folder for folder, _, _ in files})
    if len(folders) > MAX_CLASSES:
        raise DataError(
            f"{path}: {len(folders)} class folders, but a map holds at most {MAX_CLASSES} classes; merge some"
        )
    legend = Legend.from_folders(folders)
    if len(legend) < 2:
        raise DataError(f"{path}: only one class folder, '{legend[1].folder}'; training needs two or more")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a patch may lie anywhere
        pixels = _decode_all(files, bands)
    codes = {c.folder: c.code for c in legend}
    return Patches(
        pixels=pixels,
        labels=np.array([codes[folder] - 1 for folder, _, _ in files], dtype=np.int64),
        names=tuple(name for _, name, _ in files),
        bands=bands,
        scaling=scaling or (EUROSAT_RGB if pixels.dtype == np.uint8 else SENTINEL2),
        legend=legend,
        source=path.name,
    )


_File = tuple[str, str, Callable[[], bytes]]


def _list_folder(path: Path) -> list[_File]:
    if not path.is_dir():
        raise DataError(f"{path}: no such folder or .zip archive; pass the path of EuroSAT.zip or a folder of patches")
    found = sorted(p for p in path.rglob("*") if _is_patch(p) and p.parent != path)
    return [(p.parent.name, p.name, p.read_bytes) for p in found]


def _list_zip(path: Path) -> list[_File]:
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a readable zip archive ({error}); download it again") from error
    # Members are only ever read into memory, so that a path such as ../../x.jpg leads nowhere.
    members = sorted((PurePosixPath(name), name) for name in archive.namelist())
    found = [(member, name) for member, name in members if _is_patch(member) and member.parent.name]
    return [(member.parent.name, member.name, partial(archive.read, name)) for member, name in found]


def _is_patch(path: PurePath) -> bool:
    # macOS archives hold a ._x.jpg, which is no picture, for every x.jpg.
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _decode_all(files: list[_File], bands: tuple[str, ...]) -> NDArray[np.generic]:
    first = _decode(files[0], bands)
    pixels = np.empty((len(files), *first.shape), first.dtype)

    def fill(index: int) -> None:
        patch = _decode(files[index], bands)
        if patch.shape != first.shape or patch.dtype != first.dtype:
            raise DataError(
                f"'{'/'.join(files[index][:2])}' is {_words(patch)} but '{'/'.join(files[0][:2])}' is {_words(first)}; "
                "make all patches alike"
            )
        pixels[index] = patch

    with ThreadPoolExecutor() as pool:
        for _ in tqdm(pool.map(fill, range(len(files))), "reading patches", len(files), unit="img", disable=None):
            pass
    return pixels


def _decode(file: _File, bands: tuple[str, ...]) -> NDArray[np.generic]:
    """(B, H, W) digital numbers of the wanted bands."""
    folder, name, read = file
    try:
        content = read()
        if name.lower().endswith((".tif", ".tiff")):
            return _decode_tiff(content, bands)
        return _decode_picture(content, bands)
    except DataError as error:
        raise DataError(f"{folder}/{name}: {error}") from error
    except Exception as error:  # zipfile, zlib, Pillow and GDAL each have errors of their own
        problem = type(error).__name__
        raise DataError(f"{folder}/{name}: cannot be decoded ({problem}); replace or remove the file") from error


def _decode_tiff(content: bytes, bands: tuple[str, ...]) -> NDArray[np.generic]:
    with MemoryFile(content) as memory, memory.open() as dataset:
        pixels: NDArray[np.generic] = dataset.read([1 + i for i in _indices(dataset, bands)])
    return pixels


def _decode_picture(content: bytes, bands: tuple[str, ...]) -> NDArray[np.generic]:
    missing = [band for band in bands if band not in RGB]
    if missing:
        raise DataError(f"a picture has no bands {', '.join(missing)}; pass --bands rgb")
    with Image.open(io.BytesIO(content)) as image:
        if image.mode.startswith(("I", "F")):
            raise DataError("not an 8-bit picture; convert it to GeoTIFF, whose numbers are read as they are")
        pixels = np.asarray(image.convert("RGB"))
    return pixels.transpose(2, 0, 1)[[RGB.index(band) for band in bands]]


def _indices(dataset: rasterio.DatasetReader, bands: tuple[str, ...]) -> list[int]:
    known = tuple(d or "" for d in dataset.descriptions)
    if not set(known) & set(EUROSAT_BANDS):
        known = {3: RGB, 13: EUROSAT_BANDS}.get(dataset.count, known)
    missing = [band for band in bands if band not in known]
    if missing:
        raise DataError(
            f"bands {', '.join(missing)} not found among its {dataset.count} bands; "
            "set band descriptions such as B04 or use files with 3 or 13 bands"
        )
    return [known.index(band) for band in bands]


def _words(patch: NDArray[np.generic]) -> str:
    bands, height, width = patch.shape
    return f"{width} x {height} px with {bands} bands of {patch.dtype}"
