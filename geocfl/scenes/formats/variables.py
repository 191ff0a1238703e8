"""NetCDF and HDF5 files with one variable per band, such as those of openEO and xarray."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import PurePath

import rasterio

from geocfl.errors import SceneError
from geocfl.scenes.acquisition import find_datetime
from geocfl.scenes.band_order import likely_orders
from geocfl.scenes.bands import BANDS, BandNumbers, Orders, band_name, find_bands
from geocfl.scenes.source import Band, Source, file_name
from geocfl.scenes.stack import assemble, open_dataset

_COUNT = re.compile(r"band[ _-]?\d+", re.IGNORECASE)
"""Names such as GDAL's ``Band1``, which count variables and name no band of Sentinel-2."""
SHOWN = 13
"""Names of variables in a message."""
_NAMES = ("long_name", "standard_name", "DESCRIPTION")


def find_variables(path: str, subdatasets: Sequence[str], chosen: BandNumbers | None = None) -> Source:
    """The scene whose bands are variables of a file.

    Args:
        path: The file, for messages and names.
        subdatasets: Its variables as GDAL opens them, such as ``netcdf:scene.nc:B04``.
        chosen: Which variable is which band, by their numbers; overrides their names.

    Raises:
        SceneError: Nothing tells which variable is which band, two have the same name, or one holds several rasters.
    """
    found: dict[str, Band] = {}
    rasters: list[str] = []
    for variable in subdatasets:
        with open_dataset(variable) as dataset:
            name = next((band for label in _labels(variable, dataset) if (band := band_name(label))), None)
            count = dataset.count
        if count == 1:
            rasters.append(variable)
        if name is None or chosen:
            continue
        if count > 1:
            raise SceneError(f"{path}: its variable {name} holds {count} rasters; write one time to a file of its own")
        if name in found:
            raise SceneError(f"{path}: two of its variables are named {name}; remove one of them")
        found[name] = Band(variable)
    note = ""
    if not found:
        numbers, note = find_bands(path, [None] * len(rasters), [], chosen, likely=partial(_likely, path, rasters))
        found = {band: Band(rasters[number - 1]) for band, number in numbers.items()}
    if not found:
        names = ", ".join(_own_name(variable) for variable in rasters[:SHOWN])
        raise SceneError(
            f"{path}: none of its {len(rasters)} variables ({names}) is named after a band, such as B04; use `bands` "
            "to say which of them is which, by their numbers in this order",
            page="how-to/formats/#other-layouts",
        )
    stem = PurePath(file_name(path)).stem
    level = re.findall("L1C|L2A", stem.upper())
    return Source(
        path=path,
        stem=stem,
        bands={band: found[band] for band in BANDS if band in found},
        level=level[0] if len(level) == 1 else "unknown",
        taken=find_datetime(stem, {}),
        notes=(note,) if note else (),
        raster_bands=len(rasters),
    )


def _likely(path: str, rasters: Sequence[str], orders: Orders, colors: Sequence[str]) -> Orders:
    """Those orders of the variables that their pixels allow."""
    if not orders:
        return orders
    with open_dataset(assemble(path, {str(number): Band(each) for number, each in enumerate(rasters)}, None)) as cube:
        return likely_orders(cube, orders, colors)


def _own_name(variable: str) -> str:
    return variable.rpartition(":")[2].strip('"/')


def _labels(variable: str, dataset: rasterio.DatasetReader) -> Iterator[str]:
    """What may name the band, the most exact first; counts do not."""
    tags = dataset.tags(1) if dataset.count else {}
    labels = (_own_name(variable), *(tags.get(key, "") for key in _NAMES))
    yield from (label for label in labels if label and not _COUNT.fullmatch(label))
