"""The bands of a virtual raster as its XML has them, and the files that they come from."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import rasterio

from geocfl.scenes.urls import is_remote


def vrt_bands(dataset: rasterio.DatasetReader) -> list[ET.Element]:
    """The elements of a virtual raster's bands; empty for other rasters."""
    texts = list(dataset.tags(ns="xml:VRT").values()) if dataset.driver == "VRT" else []
    return ET.fromstring(texts[0]).findall("VRTRasterBand") if texts else []  # noqa: S314 - GDAL wrote it


def source_file(dataset: rasterio.DatasetReader, element: ET.Element) -> tuple[str, int] | None:
    """Path or URL of the first file in an element of a virtual raster, and which of its bands; None if it names none.

    Args:
        dataset: The virtual raster, which local paths may be relative to.
        element: A band or one of its sources.
    """
    name, number = element.find(".//SourceFilename"), element.findtext(".//SourceBand", "1")
    if name is None or not name.text or not number.isdigit():
        return None
    relative = name.get("relativeToVRT") == "1" and not is_remote(name.text)
    return str(Path(dataset.name).parent / name.text) if relative else name.text, int(number)
