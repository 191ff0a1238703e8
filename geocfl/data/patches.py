"""Labelled patches in memory, decoded once from a folder or zip archive of class-named folders."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.io import MemoryFile
from tqdm import tqdm

from geocfl.errors import DataError
from geocfl.legend import Legend
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
        return np.bincount(self.labels[indices], minlength=len(self.legend)).tolist()


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
    legend = Legend.from_folders(sorted({folder for folder, _, _ in files}))
    if len(legend) < 2:
        raise DataError(f"{path}: only one class folder, '{legend[1].folder}'; training needs two or more")
    first = _decode(files[0], bands)
    pixels = np.empty((len(files), *first.shape), first.dtype)

    def fill(index: int) -> None:
        patch = _decode(files[index], bands)
        if patch.shape != first.shape or patch.dtype != first.dtype:
            raise DataError(
                f"{path}: '{files[index][1]}' is {_words(patch)} but '{files[0][1]}' is {_words(first)}; "
                "make all patches alike"
            )
        pixels[index] = patch

    with ThreadPoolExecutor() as pool:
        for _ in tqdm(pool.map(fill, range(len(files))), "reading patches", len(files), unit="img", disable=None):
            pass
    codes = {c.folder: c.code for c in legend}
    return Patches(
        pixels=pixels,
        labels=np.array([codes[folder] - 1 for folder, _, _ in files], dtype=np.int64),
        names=tuple(name for _, name, _ in files),
        bands=bands,
        scaling=scaling or (EUROSAT_RGB if first.dtype == np.uint8 else SENTINEL2),
        legend=legend,
        source=path.name,
    )


_File = tuple[str, str, Callable[[], bytes]]


def _list_folder(path: Path) -> list[_File]:
    if not path.is_dir():
        raise DataError(f"{path}: no such folder or .zip archive; pass the path of EuroSAT.zip or a folder of patches")
    found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.parent != path)
    return [(p.parent.name, p.name, p.read_bytes) for p in found]


def _list_zip(path: Path) -> list[_File]:
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a readable zip archive ({error}); download it again") from error
    members = sorted(PurePosixPath(name) for name in archive.namelist())
    found = [m for m in members if m.suffix.lower() in SUFFIXES and m.parent.name]
    return [(m.parent.name, m.name, lambda m=m: archive.read(str(m))) for m in found]  # type: ignore[misc]


def _decode(file: _File, bands: tuple[str, ...]) -> NDArray[np.generic]:
    """(B, H, W) digital numbers of the wanted bands."""
    _, name, read = file
    try:
        content = read()
        if name.lower().endswith((".tif", ".tiff")):
            with MemoryFile(content) as memory, memory.open() as dataset:
                return dataset.read([1 + i for i in _indices(dataset, bands, name)])
        with Image.open(io.BytesIO(content)) as image:
            if bands != RGB:
                raise DataError(f"{name}: an RGB picture has no bands {', '.join(bands)}; pass --bands rgb")
            return np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    except (OSError, rasterio.RasterioIOError, zipfile.BadZipFile) as error:
        raise DataError(f"{name}: cannot be decoded ({error}); replace or remove the file") from error


def _indices(dataset: rasterio.DatasetReader, bands: tuple[str, ...], name: str) -> list[int]:
    known = tuple(d or "" for d in dataset.descriptions)
    if not all(band in known for band in bands):
        known = {3: RGB, 13: EUROSAT_BANDS}.get(dataset.count, known)
    missing = [band for band in bands if band not in known]
    if missing:
        raise DataError(
            f"{name}: bands {', '.join(missing)} not found among its {dataset.count} bands; "
            "set band descriptions such as B04 or use files with 3 or 13 bands"
        )
    return [known.index(band) for band in bands]


def _words(patch: NDArray[np.generic]) -> str:
    bands, height, width = patch.shape
    return f"{width} x {height} px with {bands} bands of {patch.dtype}"
