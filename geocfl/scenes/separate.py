"""Virtual rasters whose bands are files of their own, such as those of ``gdalbuildvrt -separate``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

import rasterio
from rasterio.enums import MaskFlags

from geocfl.scenes.remote import remote_settings
from geocfl.scenes.source import Band
from geocfl.scenes.stack import open_dataset
from geocfl.scenes.urls import gdal_path, is_remote
from geocfl.scenes.virtual import source_file, vrt_bands


def masked_files(dataset: rasterio.DatasetReader, bands: Mapping[str, int]) -> dict[str, Band]:
    """The files that a virtual raster takes its bands from, if they have masks that it leaves out, or lie on servers.

    Args:
        dataset: A raster of any format.
        bands: Band name to number in it, from 1.

    Returns:
        Band name to its file; empty if it has a mask itself, a band is not a whole file, or nothing is gained by the
        files.
    """
    elements = vrt_bands(dataset)
    if not elements or not Path(dataset.name).is_file():
        return {}
    if any(MaskFlags.per_dataset in flags for flags in dataset.mask_flag_enums):
        return {}
    found = {name: _file(dataset, elements[index - 1]) for name, index in bands.items()}
    files = {name: band for name, band in found.items() if band}
    if len(files) < len(bands):
        return {}
    fit = [_mask_of(band, dataset, bands[name]) for name, band in files.items()]
    return files if None not in fit and (any(fit) or any(is_remote(band.path) for band in files.values())) else {}


def _file(dataset: rasterio.DatasetReader, element: ET.Element) -> Band | None:
    """The file that is a band of a virtual raster, unchanged; None if there is no such file.

    Here, its pixels must not be moved within the virtual raster; `_mask_of` compares the size and place of both.
    """
    sources = [child for child in element if child.tag.endswith("Source")]
    changed = ("ScaleRatio", "ScaleOffset", "LUT", "ColorTableComponent", "Exponent")
    if len(sources) != 1 or any(sources[0].find(tag) is not None for tag in changed):
        return None
    whole = {"xOff": 0.0, "yOff": 0.0, "xSize": float(dataset.width), "ySize": float(dataset.height)}
    rectangles = [part for tag in ("SrcRect", "DstRect") if (part := sources[0].find(tag)) is not None]
    if any(float(part.get(key, value)) != value for part in rectangles for key, value in whole.items()):
        return None
    found = source_file(dataset, sources[0])
    if found is None:
        return None
    path, number = found
    if is_remote(path):
        return Band(gdal_path(path), number)
    return Band(str(Path(path)), number) if Path(path).is_file() else None


def _mask_of(band: Band, dataset: rasterio.DatasetReader, index: int) -> bool | None:
    """Whether a file has a mask; None if it lies elsewhere than the virtual raster, or has other values."""
    with remote_settings(band.path), open_dataset(band.path) as file:
        same = file.shape == dataset.shape and file.transform.almost_equals(dataset.transform)
        scaled = (file.scales[band.index - 1], file.offsets[band.index - 1])
        if not same or file.crs != dataset.crs or scaled != (dataset.scales[index - 1], dataset.offsets[index - 1]):
            return None
        return MaskFlags.per_dataset in file.mask_flag_enums[band.index - 1]
