"""Labeled patches in memory, decoded once from a folder or zip archive of class-named folders."""

from __future__ import annotations

import io
import logging
import math
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
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

from geocfl.core.files import files_below
from geocfl.core.legend import MAX_CLASSES, Legend
from geocfl.core.machine import free_memory
from geocfl.core.progress import Progress, counted, silent
from geocfl.core.radiometry import EUROSAT_RGB, SENTINEL2, Scaling
from geocfl.errors import DataError

log = logging.getLogger("geocfl")

SUFFIXES = {".tif", ".tiff", ".png", ".jpg", ".jpeg"}
RGB = ("B04", "B03", "B02")
MOST_BYTES = 256_000_000
"""Bytes of a patch's file; its size in an archive says nothing of what it unpacks to."""
MOST_SIDE = 4096
"""Pixels along a side of a patch, of which a few kilobytes can hold gigabytes."""
UNREADABLE = (OSError, zipfile.BadZipFile, ValueError, NotImplementedError)
"""What zipfile raises where the list of an archive is damaged or unusual."""
# EuroSAT's own files and torchgeo's list put B8A last (torchgeo#2458).
EUROSAT_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A")


@dataclass(frozen=True)
class Patches:
    """Labeled patches of one size: digital numbers of named bands.

    Attributes:
        pixels: (N, B, H, W) digital numbers as stored, uint8 or uint16.
        labels: (N,) int64, legend code - 1.
        names: N names ``"Class/name.ext"`` such as ``"Forest/Forest_12.jpg"``: class folder and file.
        bands: Names of the B bands, such as ``("B04", "B03", "B02")``.
        scaling: Converts `pixels` to reflectance.
        legend: The classes.
        source: Description of where the patches come from.
        skipped: Names of bad patches that were left out on request.
    """

    pixels: NDArray[np.generic]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    bands: tuple[str, ...]
    scaling: Scaling
    legend: Legend
    source: str
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def reflectance(self, indices: NDArray[np.int64] | Sequence[int]) -> NDArray[np.float32]:
        """(n, B, H, W) float32 reflectance of the patches at `indices`."""
        return self.scaling.to_reflectance(self.pixels[indices])

    def counts(self, indices: NDArray[np.int64]) -> list[int]:
        """Number of patches of each class at `indices`, in the legend's order."""
        counts: list[int] = np.bincount(self.labels[indices], minlength=len(self.legend)).tolist()
        return counts


def read_patches(
    path: Path,
    bands: tuple[str, ...],
    scaling: Scaling | None = None,
    skip_bad: bool = False,
    progress: Progress = silent,
    fewest_classes: int = 2,
) -> Patches:
    """Reads a folder or zip archive whose subfolders are named after classes.

    The EuroSAT RGB archive has this layout in its folder ``2750``. An archive is read without unpacking it.

    Args:
        path: Folder or ``.zip``, with ``.../<Class>/<patch>.tif|png|jpg`` at any depth.
        bands: Bands to read, in this order. Files with three bands are taken as B04, B03, B02, files with thirteen as
            EuroSAT's, unless a GeoTIFF describes its bands.
        scaling: Digital numbers to reflectance; by default EuroSAT's for 8-bit files, 1 / 10,000 for others.
        skip_bad: Leave out patches that cannot be read, lack bands, or differ in size or type from most others. A
            warning gives their number, and `Patches.skipped` their names.
        progress: Called with the number of patches read so far.
        fewest_classes: Number of classes that are enough.

    Raises:
        DataError: There are no patches, a patch is bad and `skip_bad` is not set, or a class has only bad ones.
    """
    files = patch_files(path)
    if not files:
        raise DataError(
            f"{path}: no .tif, .png or .jpg files in class-named folders; pass the folder that holds them",
            page="tutorials/own-classes/",
        )
    folders = sorted({folder for folder, _, _ in files})
    if len(folders) > MAX_CLASSES:
        raise DataError(
            f"{path}: {len(folders)} class folders, but a map holds at most {MAX_CLASSES} classes; merge some"
        )
    try:
        legend = Legend.from_folders(folders)
    except ValueError as error:
        raise DataError(f"{path}: {error}; rename its folder") from error
    if len(legend) < fewest_classes:
        raise DataError(f"{path}: only one class folder, '{legend[1].folder}'; training needs two or more")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a patch may lie anywhere
        pixels, bad = _decode_all(path, files, bands, skip_bad, progress)
    good = [file for index, file in enumerate(files) if index not in bad]
    skipped = tuple(_name(files[index]) for index in bad)
    for lost in sorted(set(folders) - {folder for folder, _, _ in good}):
        problem = next(problem for index, problem in bad.items() if files[index][0] == lost)
        raise DataError(f"{path}: all patches of class '{lost}' are bad; the first: {problem}, or remove the class")
    if skipped:
        some = ", ".join(skipped[:3]) + (", ..." if len(skipped) > 3 else "")
        log.warning("%s: %d of %d patches are bad and are left out: %s", path, len(skipped), len(files), some)
    codes = {c.folder: c.code for c in legend}
    return Patches(
        pixels=pixels,
        labels=np.array([codes[folder] - 1 for folder, _, _ in good], dtype=np.int64),
        names=tuple(map(_name, good)),
        bands=bands,
        scaling=scaling or (EUROSAT_RGB if pixels.dtype == np.uint8 else SENTINEL2),
        legend=legend,
        source=path.name,
        skipped=skipped,
    )


# Class folder, file name, and a function that reads the file.
_File = tuple[str, str, Callable[[], bytes]]
# All patches must have the same shape (B, H, W) and type.
_Kind = tuple[tuple[int, ...], np.dtype[np.generic]]


def patch_files(path: Path) -> list[_File]:
    """The patches in a folder or zip archive: class folder, file name, and a function that reads the file.

    Raises:
        DataError: There is no such folder or archive.
    """
    return _list_zip(path) if path.suffix.lower() == ".zip" else _list_folder(path)


def _name(file: _File) -> str:
    return f"{file[0]}/{file[1]}"


def _list_folder(path: Path) -> list[_File]:
    if not path.is_dir():
        raise DataError(
            f"{path}: no such folder or .zip archive; pass the path of EuroSAT.zip or a folder of patches",
            page="how-to/training/",
        )
    found = [p for p in files_below(path) if _is_patch(p) and p.parent != path]
    return [(p.parent.name, p.name, partial(_read_file, p)) for p in found]


def _read_file(path: Path) -> bytes:
    _refuse_large(path.stat().st_size)
    return path.read_bytes()


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    _refuse_large(member.file_size)  # zipfile unpacks no more than this
    return archive.read(member)


def _refuse_large(size: int) -> None:
    if size > MOST_BYTES:
        raise DataError(f"takes {size / 1e6:,.0f} MB, but a patch may take {MOST_BYTES / 1e6:.0f} MB; remove it")


def _list_zip(path: Path) -> list[_File]:
    try:
        archive = zipfile.ZipFile(path)
    except UNREADABLE as error:
        raise DataError(f"{path}: not a readable zip archive ({error}); download it again") from error
    # Members are only read into memory, so a path such as ../../x.jpg does no harm.
    members = [(PurePosixPath(info.filename), info) for info in archive.infolist()]
    found = [(name, info) for name, info in members if _is_patch(name) and name.parent.name]
    found.sort(key=lambda each: each[0])
    return [(name.parent.name, name.name, partial(_read_member, archive, info)) for name, info in found]


def _is_patch(path: PurePath) -> bool:
    # Archives made on macOS have a ._x.jpg, which is not an image, for every x.jpg.
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _decode_all(
    path: Path, files: list[_File], bands: tuple[str, ...], skip_bad: bool, progress: Progress
) -> tuple[NDArray[np.generic], dict[int, str]]:
    """The pixels of the good patches, and the problem of each bad one by its index in `files`."""
    # A sample gives the kind of most patches, so that all are decoded once, into one array.
    guess = _most_common(_try_decode(file, bands)[0] for file in files[:: 1 + len(files) // 16])
    _refuse_too_many(path, len(files), guess)
    pixels, outcomes = _fill(files, bands, guess, progress)
    kind = _most_common(outcomes)
    bad: dict[int, str] = {}
    for index, outcome in enumerate(outcomes):
        if isinstance(outcome, str):
            bad[index] = outcome
        elif kind and outcome != kind:
            odd, usual = _words(outcome), _words(kind)
            bad[index] = f"'{_name(files[index])}' has {odd} but most have {usual}; give all patches the same size"
    if kind is None:
        raise DataError(f"{path}: none of the {len(files)} patches can be read; the first: {bad[0]}")
    if bad and not skip_bad:
        problem, more = next(iter(bad.values())), f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise DataError(f"{problem}, or leave it{more} out with `skip_bad=True`")
    if kind != guess:
        del pixels  # frees the memory before the next array is made
        _refuse_too_many(path, len(files), kind)
        pixels, _ = _fill(files, bands, kind, progress)
    # In place: a copy would double the memory.
    for target, index in enumerate(index for index in range(len(files)) if index not in bad):
        if target != index:
            pixels[target] = pixels[index]
    return pixels[: len(files) - len(bad)], bad


def _refuse_too_many(path: Path, count: int, kind: _Kind | None) -> None:
    """Raises DataError if patches of one kind need more memory than is free."""
    if kind is None:
        return
    shape, dtype = kind
    needed, free = count * math.prod(shape) * dtype.itemsize, free_memory()
    if needed > free:
        raise DataError(
            f"{path}: {count} patches of {_words(kind)} take {needed / 1e9:.1f} GB, but only {free / 1e9:.1f} GB of "
            "memory are free; use fewer or smaller patches, or fewer bands"
        )


def _fill(
    files: list[_File], bands: tuple[str, ...], kind: _Kind | None, progress: Progress
) -> tuple[NDArray[np.generic], list[_Kind | str]]:
    """An array with the patches of one kind at their indices, and the kind or the problem of every patch."""
    shape, dtype = kind or ((0,), np.dtype(np.uint8))
    pixels = np.empty((len(files), *shape), dtype)

    def fill(index: int) -> _Kind | str:
        outcome, patch = _try_decode(files[index], bands)
        if patch is not None and outcome == kind:
            pixels[index] = patch
        return outcome

    with ThreadPoolExecutor() as pool:
        found = pool.map(fill, range(len(files)))
        return pixels, list(counted(found, progress, "reading patches", len(files), "img"))


def _most_common(outcomes: Iterable[_Kind | str]) -> _Kind | None:
    counts = Counter(outcome for outcome in outcomes if not isinstance(outcome, str))
    return counts.most_common(1)[0][0] if counts else None


def _try_decode(file: _File, bands: tuple[str, ...]) -> tuple[_Kind | str, NDArray[np.generic] | None]:
    """The kind of a patch or its problem, and the patch."""
    try:
        patch = _decode(file, bands)
    except DataError as error:
        return str(error), None
    return (patch.shape, patch.dtype), patch


def _decode(file: _File, bands: tuple[str, ...]) -> NDArray[np.generic]:
    """(B, H, W) digital numbers of `bands`."""
    _, name, read = file
    try:
        content = read()
        if name.lower().endswith((".tif", ".tiff")):
            return _decode_tiff(content, bands)
        return _decode_picture(content, bands)
    except DataError as error:
        raise DataError(f"{_name(file)}: {error}") from error
    except Exception as error:  # zipfile, zlib, Pillow and GDAL have different errors
        problem = type(error).__name__
        raise DataError(f"{_name(file)}: cannot be decoded ({problem}); replace or remove the file") from error


def _decode_tiff(content: bytes, bands: tuple[str, ...]) -> NDArray[np.generic]:
    with MemoryFile(content) as memory, memory.open() as dataset:
        _refuse_wide(dataset.width, dataset.height)
        pixels: NDArray[np.generic] = dataset.read([1 + i for i in _indices(dataset, bands)])
    return pixels


def _decode_picture(content: bytes, bands: tuple[str, ...]) -> NDArray[np.generic]:
    missing = [band for band in bands if band not in RGB]
    if missing:
        raise DataError(f"an image has only the bands B04, B03, B02, not {', '.join(missing)}; use GeoTIFF patches")
    with Image.open(io.BytesIO(content)) as image:
        if image.mode.startswith(("I", "F")):
            raise DataError("not an 8-bit image; convert it to GeoTIFF")
        _refuse_wide(*image.size)
        pixels = np.asarray(image.convert("RGB"))
    return pixels.transpose(2, 0, 1)[[RGB.index(band) for band in bands]]


def _refuse_wide(width: int, height: int) -> None:
    if max(width, height) > MOST_SIDE:
        raise DataError(f"has {width} x {height} px, but a patch may have {MOST_SIDE} px a side; cut it into patches")


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


def _words(kind: _Kind) -> str:
    (bands, height, width), dtype = kind
    return f"{width} x {height} px and {bands} bands of {dtype}"
