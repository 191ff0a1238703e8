"""Zarr stores with one array per band, such as the EOPF products of Sentinel-2, as folders."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import rasterio

from geocfl.errors import SceneError
from geocfl.scenes.acquisition import find_datetime
from geocfl.scenes.bands import BANDS, band_name
from geocfl.scenes.source import Band, Source, holder
from geocfl.scenes.stack import open_dataset, reason
from geocfl.scenes.urls import is_remote, shown

REFLECTANCE = "/measurements/reflectance/"
"""The group of an EOPF product that holds its bands; other groups hold masks and pictures of the same names."""
MOST_BYTES = 16 << 20
"""Larger files are not the attributes of an array."""


def find_zarr(path: str) -> Source | None:
    """Finds the bands of a Zarr store, each at its finest resolution; None if `path` is not called one.

    Raises:
        SceneError: It is on a server, GDAL cannot read it, or no array in it is named after a band.
    """
    if not path.rstrip("/").lower().endswith(".zarr"):
        return None
    remedy = "use the SAFE product or a GeoTIFF of the same scene"
    if is_remote(path) or not Path(path).is_dir():
        why = "on a server, which is not read; download it, or" if is_remote(path) else "that is not a folder;"
        raise SceneError(f"{shown(path)}: is a Zarr store {why} {remedy}", page="how-to/formats/")
    try:
        with rasterio.open(path, driver="Zarr") as store:
            arrays = store.subdatasets
    except rasterio.RasterioIOError as error:
        raise SceneError(
            f"{path}: is a Zarr store that GDAL cannot read here ({reason(error)}); {remedy}", page="how-to/formats/"
        ) from error
    reflectance = [array for array in arrays if REFLECTANCE in array] or arrays
    bands = _finest(path, {array: name for array in reflectance if (name := band_name(_own_name(array)))})
    if not bands:
        raise SceneError(f"{path}: none of its arrays is named after a band, such as b04; {remedy}")
    masks = _finest(path, {array: "SCL" for array in arrays if _own_name(array).lower() == "scl"})
    stem = Path(path).resolve().stem
    level = re.findall("L1C|L2A", stem.upper())
    return Source(
        path=path,
        stem=stem,
        bands={band: Band(bands[band]) for band in BANDS if band in bands},
        level=level[0] if len(level) == 1 else "L2A" if masks else "unknown",
        taken=find_datetime(stem, {}),
        scl=Band(masks["SCL"]) if masks else None,
        crs=_crs(Path(path), Path(holder(next(iter(bands.values()))))),
    )


def _own_name(array: str) -> str:
    return array.rpartition("/")[2].strip('"')


def _finest(path: str, named: Mapping[str, str]) -> dict[str, str]:
    """Band to the array with most pixels, of arrays and the bands that they hold."""
    found: dict[str, tuple[int, str]] = {}
    for array, band in named.items():
        try:
            with open_dataset(array) as dataset:
                count, width = dataset.count, dataset.width
        except rasterio.RasterioIOError as error:
            raise SceneError(f"{path}: its array {array} cannot be read ({reason(error)})") from error
        if count == 1:
            found[band] = max(found.get(band, (0, "")), (width, array))
    return {band: array for band, (_, array) in found.items()}


def _crs(store: Path, array: Path) -> str | None:
    """The CRS that the attributes of an array or, failing that, of its store state."""
    for said in _attributes(array):
        if code := said.get("proj:code"):
            return str(code)
        if code := said.get("proj:epsg"):
            return f"EPSG:{code}"
    for said in _attributes(store):
        other = said.get("other_metadata")
        if isinstance(other, dict) and (code := other.get("horizontal_CRS_code")):
            return str(code)
    return None


def _attributes(folder: Path) -> Iterator[dict[str, Any]]:
    """The attributes of an array or group, in versions 2 and 3 of Zarr."""
    for name in (".zattrs", "zarr.json"):
        file = folder / name
        try:
            said = json.loads(file.read_bytes()) if file.is_file() and file.stat().st_size <= MOST_BYTES else None
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(said, dict):
            attributes = said.get("attributes") if name == "zarr.json" else said
            if isinstance(attributes, dict):
                yield attributes
