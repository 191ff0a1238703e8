"""Where a scene's bands lie and what is known of them, before any pixel is read."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import PurePath
from urllib.parse import urlsplit

from geocfl.core.radiometry import Scaling


@dataclass(frozen=True)
class Band:
    """One band of a scene.

    Attributes:
        path: Its raster as GDAL opens it, such as ``"T33TUL_B04_10m.jp2"`` or ``"/vsizip/S2A.zip/.../B04.jp2"``.
        index: Which of the raster's bands it is, from 1.
        scaling: What makes its digital numbers reflectance, where metadata outside the raster says so.
    """

    path: str
    index: int = 1
    scaling: Scaling | None = None


@dataclass(frozen=True)
class Source:
    """A scene as a user hands it over: one raster, several, a product or a catalogue's item.

    Attributes:
        path: What the user passed, for messages.
        stem: What the products' names begin with.
        bands: Sentinel-2's name of each band that is there, such as ``"B04"``, to where it lies.
        scaling_source: Where the bands' scaling was found, in words; empty where none was.
        level: ``"L1C"``, ``"L2A"`` or ``"unknown"``.
        taken: When the scene was taken, UTC; None where nothing says so.
        scl: Its scene classification layer (L2A), where there is one.
        nodata: Digital number of pixels without data, where metadata outside the rasters says so.
        notes: What was assumed, a sentence each, to be shown to the user.
        raster_bands: Number of bands of the raster, if the scene is one raster; else 0.
    """

    path: str
    stem: str
    bands: Mapping[str, Band]
    scaling_source: str = ""
    level: str = "unknown"
    taken: datetime | None = None
    scl: Band | None = None
    nodata: float | None = None
    notes: tuple[str, ...] = ()
    raster_bands: int = 0


def file_name(path: str) -> str:
    """The file's name in a path or URL, without what a URL asks for after it."""
    return PurePath(urlsplit(path).path if "://" in path else path).name


_ARCHIVED = re.compile(r"(/vsi(?:zip|tar|gzip)/\{?)?(.*)", re.DOTALL)


def absolute_path(path: str) -> str:
    """A raster's path as a process in another folder opens it; URLs, and what is in them, stay as they are."""
    archive, rest = _ARCHIVED.fullmatch(path).groups(default="")  # type: ignore[union-attr]
    return path if "://" in path or rest.startswith("/vsi") else archive + os.path.abspath(rest)


def absolute(source: Source) -> Source:
    """A source that a process in another folder opens; what it is called in messages stays."""

    def placed(band: Band) -> Band:
        return replace(band, path=absolute_path(band.path))

    bands = {name: placed(band) for name, band in source.bands.items()}
    return replace(source, bands=bands, scl=placed(source.scl) if source.scl else None)
