"""Where the bands of a scene lie, and what is known about them before any pixel is read."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import PurePath
from urllib.parse import urlsplit

from geocfl.core.radiometry import Scaling

_ARCHIVED = re.compile(r"(/vsi(?:zip|tar|gzip)/\{?)?(.*)", re.DOTALL)
_VARIABLE = re.compile(r'((?:netcdf|hdf5|zarr):"?)(.+?)("?:[^:"]+)', re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True)
class Band:
    """One band of a scene.

    Attributes:
        path: Its raster as GDAL opens it, such as ``"T33TUL_B04_10m.jp2"`` or ``"/vsizip/S2A.zip/.../B04.jp2"``, or its
            URL.
        index: Its number in the raster, from 1.
        scaling: Scaling of its digital numbers, if metadata outside the raster gives it.
    """

    path: str
    index: int = 1
    scaling: Scaling | None = None


@dataclass(frozen=True)
class Source:
    """A scene as a user provides it: one raster, several, a product or a STAC Item.

    Attributes:
        path: What the user passed, for messages.
        stem: The beginning of the products' names.
        bands: Sentinel-2 name of each band, such as ``"B04"``, to where it lies.
        scaling_source: Where the bands' scaling came from, in words; empty if unknown.
        level: ``"L1C"``, ``"L2A"`` or ``"unknown"``.
        taken: When the scene was taken, UTC; None if unknown.
        scl: Its scene classification layer (L2A) or cloud mask (MAJA, HLS), if there is one.
        nodata: Digital number of pixels without data, if metadata outside the rasters gives it.
        crs: CRS of rasters that state none, such as ``"EPSG:32633"``, if metadata outside the rasters gives it.
        notes: What was assumed, a sentence each, to be shown to the user.
        raster_bands: Number of bands of the raster, if the scene is one raster; else 0.
        baseline: Its processing baseline, such as ``"04.00"``, unless its scaling accounts for that; empty if unknown.
        tokens: Where the token for its files is, see `geocfl.scenes.signing`; empty if they need none.
        raster: The raster that the scene is, if only its name is known so far: `geocfl.scenes.find_source` finds the
            bands. Empty once they are known.
    """

    path: str
    stem: str
    bands: Mapping[str, Band]
    scaling_source: str = ""
    level: str = "unknown"
    taken: datetime | None = None
    scl: Band | None = None
    nodata: float | None = None
    crs: str | None = None
    notes: tuple[str, ...] = ()
    raster_bands: int = 0
    baseline: str = ""
    tokens: str = ""
    raster: str = ""


def file_name(path: str) -> str:
    """The file's name in a path or URL, without the query of a URL."""
    return PurePath(urlsplit(path).path if "://" in path else path).name


def holder(path: str) -> str:
    """The file of a variable as GDAL names it, such as ``"netcdf:cube.nc:B04"``; any other path as it is.

    For an array in a Zarr store, such as ``"ZARR:scene.zarr:/r10m/b04"``, it is the folder of the array.
    """
    found = _VARIABLE.fullmatch(path)
    if not found:
        return path
    return found[2] + found[3].strip('":') if found[1].lower().startswith("zarr") else found[2]


def absolute_path(path: str) -> str:
    """A raster's path as a process in another folder opens it; URLs and paths into them stay as they are."""
    if variable := _VARIABLE.fullmatch(path):
        return variable[1] + absolute_path(variable[2]) + variable[3]
    archive, rest = _ARCHIVED.fullmatch(path).groups(default="")  # type: ignore[union-attr]
    return path if "://" in path or rest.startswith("/vsi") else archive + os.path.abspath(rest)


def absolute(source: Source) -> Source:
    """A source that a process in another folder can open; its name in messages stays."""

    def placed(band: Band) -> Band:
        return replace(band, path=absolute_path(band.path))

    bands = {name: placed(band) for name, band in source.bands.items()}
    raster = absolute_path(source.raster) if source.raster else ""
    return replace(source, bands=bands, scl=placed(source.scl) if source.scl else None, raster=raster)
