"""What a raster calls its bands besides their descriptions: metadata, and the names of a virtual raster's sources."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from xml.etree import ElementTree as ET

import rasterio

from geocfl.scenes.virtual import source_file, vrt_bands

KEYS = ("BANDNAME", "BAND_NAME", "DESCRIPTION", "LONG_NAME", "NETCDF_VARNAME", "NAME", "STANDARD_NAME", "BAND")
"""Items of a band's metadata that may name it: of ArcGIS, openEO, xarray and GDAL's netCDF driver."""
LISTS = ("BAND_NAMES", "BANDNAMES", "BANDS", "LONG_NAME", "DESCRIPTIONS", "BAND_DESCRIPTIONS", "BANDS_LIST")
"""Items of a raster's metadata that may list the names of its bands."""


def other_labels(dataset: rasterio.DatasetReader) -> Iterator[Sequence[str | None]]:
    """Labels of the bands of a raster, the most trustworthy first; None where a band has none."""
    tags = [_upper(dataset.tags(index)) for index in dataset.indexes]
    for key in KEYS:
        if any(key in band for band in tags):
            yield [band.get(key) for band in tags]
    wavelengths = [_wavelength(band, _upper(dataset.tags(index, ns="IMAGERY"))) for index, band in enumerate(tags, 1)]
    if any(wavelengths):
        yield wavelengths
    whole = _upper(dataset.tags())
    if any(f"BAND_{index}" in whole for index in dataset.indexes):
        yield [whole.get(f"BAND_{index}") for index in dataset.indexes]
    dimensions = [key for key in whole if re.fullmatch(r"NETCDF_DIM_\w+_VALUES", key)]
    for key in (*LISTS, *dimensions):
        names = _listed(whole.get(key, ""))
        if len(names) == dataset.count:
            yield names
    if dataset.driver == "VRT":
        yield _source_descriptions(dataset)
        yield _source_names(dataset)


def _upper(tags: dict[str, str]) -> dict[str, str]:
    return {key.upper(): value for key, value in tags.items()}


def _wavelength(tags: dict[str, str], imagery: dict[str, str]) -> str | None:
    """The wavelength that ENVI's header or GDAL's IMAGERY domain states, with its unit."""
    if micrometers := imagery.get("CENTRAL_WAVELENGTH_UM"):
        return f"{micrometers} um"
    if not (stated := tags.get("WAVELENGTH")):
        return None
    guessed = "um" if stated.startswith(("0.", "1.", "2.")) else "nm"
    unit = tags.get("WAVELENGTH_UNITS") or tags.get("WAVELENGTH_UNIT") or guessed
    return f"{stated} {unit}"


def _listed(text: str) -> list[str]:
    """``"B04,B03"``, ``"B04 B03"`` or ``"('B04', 'B03')"`` as names."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = None
    if isinstance(value, list | tuple):
        return [str(name) for name in value]
    return [name.strip(" '\"{}[]()") for name in re.split(r"[,;|]" if re.search(r"[,;|]", text) else r"\s+", text)]


def _source_names(dataset: rasterio.DatasetReader) -> list[str | None]:
    """For each band of a virtual raster, the name of its source file; None if it has several."""
    stems = [_stems(band) for band in vrt_bands(dataset)]
    return [next(iter(names)) if len(names) == 1 else None for names in stems]


def _source_descriptions(dataset: rasterio.DatasetReader) -> list[str | None]:
    """For each band of a virtual raster, how its first source file describes it, which ``gdalbuildvrt`` leaves out."""
    return [_description(dataset, band) for band in vrt_bands(dataset)]


def _description(dataset: rasterio.DatasetReader, band: ET.Element) -> str | None:
    found = source_file(dataset, band)
    if found is None or not Path(found[0]).is_file():
        return None
    path, number = found
    try:
        with rasterio.open(path) as source:
            described: tuple[str | None, ...] = source.descriptions
    except rasterio.RasterioIOError:  # reading says so
        return None
    return described[number - 1] if 1 <= number <= len(described) else None


def _stems(band: ET.Element) -> set[str]:
    return {PurePath(source.text or "").stem for source in band.iter("SourceFilename")}
