"""Combines bands in several rasters into one virtual raster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import PurePosixPath
from xml.etree import ElementTree as ET

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.drivers import raster_driver_extensions
from rasterio.enums import Interleaving, MaskFlags
from rasterio.transform import from_gcps

from geocfl.core.machine import cores
from geocfl.errors import SceneError
from geocfl.scenes.remote import DRIVERS, only_by, open_remote, remote_settings
from geocfl.scenes.source import Band
from geocfl.scenes.urls import is_remote, shown, without_secrets

HALF_PIXEL = 0.5
"""Maximum distance between the edges of two bands, pixels of the coarser one."""
_ARCHIVES = ("/vsizip/", "/vsitar/", "/vsigzip/")
OWN_PIXELS = ("jp2", "j2k", "tif", "tiff")
"""Endings of formats that contain their own pixels."""
MOST_PIXELS = 10_000_000
"""Along one side of a raster; around the Earth there are 4 million pixels of 10 m."""
LARGEST_BLOCK = 256_000_000
"""Bytes of a block that may be four times as large as its raster: one of a raster of zeros takes kilobytes on disk."""
COARSER = "GEOCFL_COARSER"
"""Tag of a band in a virtual raster: how many times as large its own pixels are."""
# GDAL's names of data types are capitalized: uint16 is UInt16.
KINDS = {
    "uint8": "Byte",
    "int8": "Int8",
    "uint16": "UInt16",
    "int16": "Int16",
    "uint32": "UInt32",
    "int32": "Int32",
}


@dataclass(frozen=True)
class _Raster:
    """A band and its open raster."""

    dataset: rasterio.DatasetReader
    band: Band

    @property
    def crs(self) -> CRS | None:
        """Its CRS, or that of its ground control points."""
        return self.dataset.crs or self.dataset.gcps[1]

    @property
    def transform(self) -> Affine:
        """Pixel (column, row) to coordinates, approximately if only ground control points say it."""
        points, _ = self.dataset.gcps
        placed: Affine = from_gcps(points) if points and self.dataset.crs is None else self.dataset.transform
        return placed

    @property
    def name(self) -> str:
        """Its path in messages."""
        return shown(self.band.path)

    @property
    def opened(self) -> str:
        """Its path in a virtual raster."""
        return only_by(self.dataset.driver, self.band.path)

    @property
    def pixel(self) -> float:
        return abs(float(self.transform.a)) + abs(float(self.transform.b))

    @property
    def corners(self) -> NDArray[np.float64]:
        height, width = self.dataset.shape
        return np.array([self.transform @ (x, y) for x in (0, width) for y in (0, height)])

    @property
    def masked(self) -> bool:
        """Whether a mask of its own, an alpha band or a ``.msk`` file says which of its pixels have data."""
        return MaskFlags.per_dataset in self.dataset.mask_flag_enums[self.band.index - 1]


def assemble(name: str, bands: Mapping[str, Band], nodata: float | None, override: float | None = None) -> str:
    """The text of a virtual raster with all bands of a scene, which GDAL opens like a file.

    Its grid is that of the finest band; coarser ones are resampled with cubic convolution. A pixel that the mask of any
    raster leaves out is masked in all bands.

    Args:
        name: What the user passed, for messages.
        bands: Name to where each band lies, in the order of the virtual raster's bands.
        nodata: Digital number of pixels without data, if the rasters do not declare it.
        override: The same, whatever they declare.

    Raises:
        SceneError: A raster cannot be read, cannot hold `override`, or covers another place than the others.
    """
    with ExitStack() as stack:
        rasters = {
            name: _Raster(stack.enter_context(_open_band(name, band.path)), band) for name, band in bands.items()
        }
        finest = min(rasters.values(), key=lambda raster: raster.pixel)
        for raster in rasters.values():
            _refuse_elsewhere(name, raster, finest)
            if override is not None and not _holds(raster.dataset, override):
                raise SceneError(
                    f"{raster.name}: no pixel of its data type {raster.dataset.dtypes[0]} has the value "
                    f"{override:g}; correct `nodata`"
                )
        return _virtual(rasters, finest, nodata, override)


def _holds(dataset: rasterio.DatasetReader, value: float) -> bool:
    kind = np.dtype(dataset.dtypes[0])
    return kind.kind not in "iu" or (float(value).is_integer() and np.iinfo(kind).min <= value <= np.iinfo(kind).max)


def coarseness(dataset: rasterio.DatasetReader) -> tuple[float, ...]:
    """For each band of a dataset, how many times as large as the dataset's pixels its own are; 1 unless assembled."""
    if dataset.driver != "VRT":  # whose tags may cost requests to a server
        return tuple(1.0 for _ in dataset.indexes)
    return tuple(float(dataset.tags(number).get(COARSER, 1)) for number in dataset.indexes)


def _open_band(name: str, path: str) -> rasterio.DatasetReader:
    """Opens one raster of a scene.

    Raises:
        SceneError: It cannot be read.
    """
    try:
        return open_dataset(path)
    except rasterio.RasterioIOError as error:
        raise SceneError(
            f"{shown(path)}: the raster of {name} cannot be read ({reason(error)}); get the scene again"
        ) from error


def open_dataset(path: str) -> rasterio.DatasetReader:
    """Opens a raster; a remote one with the settings for its server, and only if its format names no other files.

    Raises:
        RasterioIOError: It is local and cannot be opened, or is of a format that its name does not say; or its numbers
            are complex, or its size or that of its blocks is absurd.
        SceneError: It is remote, and cannot be opened or names other files.
    """
    if is_remote(path):
        dataset = open_remote(path)
    else:
        with rasterio.Env(GDAL_NUM_THREADS=str(cores())):  # drivers choose the number of decoding threads on opening
            dataset = rasterio.open(path, driver=_driver(path))
    if why := _why_unusable(dataset):
        dataset.close()
        raise rasterio.RasterioIOError(why)
    return dataset


def _why_unusable(dataset: rasterio.DatasetReader) -> str:
    """Why a raster that GDAL opens cannot be a scene or a mask, or is not worth its memory; empty if it can."""
    if not dataset.count:
        return ""
    if any(kind.startswith("complex") for kind in dataset.dtypes):
        return "its numbers are complex, as those of radar are, and no reflectance"
    if max(dataset.shape) > MOST_PIXELS:
        return f"it has {dataset.width} x {dataset.height} px, and there are only 4 million of 10 m around the Earth"
    height, width = dataset.block_shapes[0]
    together = dataset.count if dataset.interleaving is Interleaving.pixel else 1
    size = height * width * together * np.dtype(dataset.dtypes[0]).itemsize
    if size > LARGEST_BLOCK and height * width > 4 * dataset.height * dataset.width:
        return (
            f"its blocks of {width} x {height} px take {size / 1e6:.0f} MB each, although it has only "
            f"{dataset.width} x {dataset.height} px; write it anew with gdal_translate -co TILED=YES"
        )
    return ""


def open_virtual(text: str, paths: Iterable[str]) -> rasterio.DatasetReader:
    """Opens a virtual raster that `assemble` made of the rasters at these paths, which GDAL opens when it needs them.

    Raises:
        RasterioIOError: It cannot be opened.
    """
    threads = {} if any(map(is_remote, paths)) else {"GDAL_NUM_THREADS": str(cores())}
    with remote_settings(*paths), rasterio.Env(**threads):
        return rasterio.open(text, driver="VRT")


def _driver(path: str) -> str | None:
    """The only driver that may open a local raster; None for any.

    What lies in an archive, or is named as a GeoTIFF or JPEG 2000, may come from anybody, and must hold its own pixels:
    a VRT under such a name could show any file of this machine.

    Raises:
        RasterioIOError: It lies in an archive and is named otherwise.
    """
    ending = PurePosixPath(path).suffix.lower().removeprefix(".")
    known: dict[str, str] = raster_driver_extensions()
    if ending in OWN_PIXELS and known.get(ending) in DRIVERS:
        return known[ending]
    if path.startswith(_ARCHIVES):
        raise rasterio.RasterioIOError("only GeoTIFF and JPEG 2000 are read in archives; unpack it")
    return None


def reason(error: Exception) -> str:
    """GDAL's message without the path, which ours names anyway."""
    detail = str(error.__cause__ or error)
    return without_secrets(detail.splitlines()[0].rstrip(".")) if detail else type(error).__name__


def _refuse_elsewhere(name: str, raster: _Raster, finest: _Raster) -> None:
    if raster.crs != finest.crs:
        raise SceneError(
            f"{raster.name}: is in {_crs(raster)} but {finest.name} in {_crs(finest)}; use bands of one scene"
        )
    if np.abs(raster.corners - finest.corners).max() > HALF_PIXEL * raster.pixel:
        raise SceneError(f"{raster.name}: covers another extent than {finest.name}; use bands of one scene")


def _crs(raster: _Raster) -> str:
    return raster.crs.to_string() if raster.crs else "no CRS"


def _virtual(rasters: Mapping[str, _Raster], finest: _Raster, nodata: float | None, override: float | None) -> str:
    grid = finest.dataset
    vrt = _empty(grid)
    for number, (name, raster) in enumerate(rasters.items(), start=1):
        dataset, path, index = raster.dataset, raster.opened, raster.band.index
        declared = dataset.nodatavals[index - 1]
        missing = override if override is not None else nodata if declared is None else declared
        band = _add_band(vrt, number, grid, missing)
        ET.SubElement(band, "Description").text = name
        resampling = {}
        if dataset.shape != grid.shape:
            resampling = {"resampling": "nearest" if name == "SCL" else "cubic"}
            metadata = ET.SubElement(band, "Metadata")
            ET.SubElement(metadata, "MDI", key=COARSER).text = repr(raster.pixel / finest.pixel)
            if missing != declared and not raster.masked:
                path, index = _declaring(raster, missing), 1
        source = _add_source(band, path, index, resampling)
        _add_rectangles(source, dataset, grid)
        if missing is not None:
            ET.SubElement(source, "NODATA").text = repr(missing)
    _add_masks(vrt, {raster.band.path: raster for raster in rasters.values() if raster.masked}, grid)
    return ET.tostring(vrt, encoding="unicode")


def _add_masks(vrt: ET.Element, rasters: Mapping[str, _Raster], grid: rasterio.DatasetReader) -> None:
    """Adds a mask of the pixels that have data in all of these rasters."""
    if not rasters:
        return
    mask = ET.SubElement(ET.SubElement(vrt, "MaskBand"), "VRTRasterBand", dataType="Byte")
    for number, raster in enumerate(rasters.values()):
        source = _add_source(mask, raster.opened, f"mask,{raster.band.index}", {})
        _add_rectangles(source, raster.dataset, grid)
        if number:  # the masks so far stay where this one has data
            ET.SubElement(source, "NODATA").text = "255"


def _add_rectangles(source: ET.Element, dataset: rasterio.DatasetReader, grid: rasterio.DatasetReader) -> None:
    for tag, shape in (("SrcRect", dataset.shape), ("DstRect", grid.shape)):
        ET.SubElement(source, tag, xOff="0", yOff="0", xSize=str(shape[1]), ySize=str(shape[0]))


def _declaring(raster: _Raster, missing: float | None) -> str:
    """The text of a virtual raster of one band that declares its nodata value, so that resampling leaves it out."""
    vrt = _empty(raster.dataset)
    _add_source(_add_band(vrt, 1, raster.dataset, missing), raster.opened, raster.band.index, {})
    return ET.tostring(vrt, encoding="unicode")


def _empty(grid: rasterio.DatasetReader) -> ET.Element:
    """A virtual raster without bands."""
    vrt = ET.Element("VRTDataset", rasterXSize=str(grid.width), rasterYSize=str(grid.height))
    points, crs = grid.gcps
    if points and crs and not grid.crs:
        listed = ET.SubElement(vrt, "GCPList", Projection=crs.to_wkt(), dataAxisToSRSAxisMapping="1,2")
        for point in points:
            places = {"Pixel": point.col, "Line": point.row, "X": point.x, "Y": point.y, "Z": point.z or 0.0}
            ET.SubElement(listed, "GCP", {"Id": point.id} | {key: repr(float(at)) for key, at in places.items()})
        return vrt
    if grid.crs:
        ET.SubElement(vrt, "SRS", dataAxisToSRSAxisMapping="1,2").text = grid.crs.to_wkt()
    ET.SubElement(vrt, "GeoTransform").text = ", ".join(map(repr, grid.transform.to_gdal()))
    return vrt


def _add_band(vrt: ET.Element, number: int, grid: rasterio.DatasetReader, missing: float | None) -> ET.Element:
    kind = KINDS.get(grid.dtypes[0], "Float64" if grid.dtypes[0] == "float64" else "Float32")
    band = ET.SubElement(vrt, "VRTRasterBand", dataType=kind, band=str(number))
    if missing is not None:
        ET.SubElement(band, "NoDataValue").text = repr(missing)
    return band


def _add_source(band: ET.Element, path: str, index: int | str, resampling: Mapping[str, str]) -> ET.Element:
    source = ET.SubElement(band, "ComplexSource", dict(resampling))
    ET.SubElement(source, "SourceFilename", relativeToVRT="0").text = path
    ET.SubElement(source, "SourceBand").text = str(index)
    return source
