"""NetCDF and HDF5 files with one variable per band, such as those of openEO and xarray."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePath

import rasterio

from geocfl.errors import SceneError
from geocfl.scenes.acquisition import find_datetime
from geocfl.scenes.bands import BANDS, band_name
from geocfl.scenes.source import Band, Source, file_name
from geocfl.scenes.stack import open_dataset

_COUNT = re.compile(r"band[ _-]?\d+", re.IGNORECASE)
"""Names such as GDAL's ``Band1``, which count variables and name no band of Sentinel-2."""
_NAMES = ("long_name", "standard_name", "DESCRIPTION")


def find_variables(path: str, subdatasets: Sequence[str]) -> Source:
    """The scene whose bands are variables of a file.

    Args:
        path: The file, for messages and names.
        subdatasets: Its variables as GDAL opens them, such as ``netcdf:scene.nc:B04``.

    Raises:
        SceneError: No variable is named after a band, two are, or one holds several rasters.
    """
    found: dict[str, Band] = {}
    for variable in subdatasets:
        with open_dataset(variable) as dataset:
            name = next((band for label in _labels(variable, dataset) if (band := band_name(label))), None)
            count = dataset.count
        if name is None:
            continue
        if count > 1:
            raise SceneError(f"{path}: its variable {name} holds {count} rasters; write one time to a file of its own")
        if name in found:
            raise SceneError(f"{path}: two of its variables are named {name}; remove one of them")
        found[name] = Band(variable)
    if not found:
        raise SceneError(
            f"{path}: none of its variables is named after a band, such as B04; use a raster with all bands, or a "
            "folder with one file per band",
            page="how-to/formats/",
        )
    stem = PurePath(file_name(path)).stem
    level = re.findall("L1C|L2A", stem.upper())
    return Source(
        path=path,
        stem=stem,
        bands={band: found[band] for band in BANDS if band in found},
        level=level[0] if len(level) == 1 else "unknown",
        taken=find_datetime(stem, {}),
    )


def _labels(variable: str, dataset: rasterio.DatasetReader) -> Iterator[str]:
    """What may name the band, the most exact first; counts do not."""
    tags = dataset.tags(1) if dataset.count else {}
    labels = (variable.rpartition(":")[2].strip('"/'), *(tags.get(key, "") for key in _NAMES))
    yield from (label for label in labels if label and not _COUNT.fullmatch(label))
