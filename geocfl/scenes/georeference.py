"""What a raster says about its place on the ground, and views of rasters that say it in another way."""

from __future__ import annotations

import math
from xml.etree import ElementTree as ET

import numpy as np
import pyproj
import rasterio
from affine import Affine
from pyproj.exceptions import ProjError
from rasterio._err import CPLE_BaseError
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import MaskFlags, Resampling
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile
from rasterio.shutil import copy
from rasterio.transform import from_gcps
from rasterio.vrt import WarpedVRT

from geocfl.scenes.remote import only_by

CONTROL_TOLERANCE = 0.5
"""Pixels by which an affine transform may miss ground control points; otherwise the raster is warped by them."""
EXAMPLE = "EPSG:32633"
"""The CRS in messages, UTM zone 33 north."""
SMALLEST, LARGEST = 0.001, 100_000
"""Sides of pixels that can be, meters; others are errors of the geotransform."""
REFUSALS = (RasterioError, CPLE_BaseError, RuntimeError)
"""What GDAL and PROJ raise, through rasterio and pyproj, where a raster cannot be warped."""


def georeferenced(dataset: rasterio.DatasetReader, crs: str | None = None) -> rasterio.DatasetReader:
    """The dataset with a CRS and geotransform, as far as anything says them; the dataset itself if it has them.

    Ground control points give both. Longitudes beyond -180..180 degrees are moved by whole turns, and those of a raster
    across the 180th meridian are counted from there.

    Args:
        dataset: Open; closed if another one is returned.
        crs: The CRS according to metadata outside the raster, such as ``"EPSG:32633"``; used if the raster has none.
    """
    points, their_crs = dataset.gcps
    if dataset.crs is None and their_crs is not None and _span_a_plane(points):
        transform = from_gcps(points)
        if max(math.dist(~transform @ (p.x, p.y), (p.col, p.row)) for p in points) <= CONTROL_TOLERANCE:
            return _placed(dataset, their_crs, transform)
        return _warped_by_points(dataset, their_crs)
    if dataset.crs is None and crs and not has_no_transform(dataset):
        return _placed(dataset, CRS.from_user_input(crs), dataset.transform)
    if dataset.crs is not None and dataset.crs.is_geographic and not has_no_transform(dataset):
        return _within_a_turn(dataset)
    return dataset


def _span_a_plane(points: list[GroundControlPoint]) -> bool:
    """Whether ground control points are enough for a transform: three that lie on no line, neither here nor there."""
    if not points:
        return False
    here, there = np.array([(p.col, p.row, 1.0) for p in points]), np.array([(p.x, p.y, 1.0) for p in points])
    return all(np.isfinite(each).all() and np.linalg.matrix_rank(each - each[0]) == 2 for each in (here, there))


def why_unplaced(dataset: rasterio.DatasetReader) -> str:
    """Why nobody knows where a raster lies, and what to do; empty if it can be placed."""
    if dataset.crs is None:
        if dataset.tags(ns="RPC"):  # not dataset.rpcs, which fails if one is no number
            return f"has only RPCs; orthorectify it with gdalwarp -rpc -t_srs {EXAMPLE}"
        return f"has no coordinate reference system; add it with gdal_edit.py -a_srs {EXAMPLE}"
    if has_no_transform(dataset):
        return (
            "has a coordinate reference system but no geotransform; add it with gdal_edit.py -a_ullr WEST NORTH EAST "
            "SOUTH"
        )
    try:
        return _why_not_on_the_ground(dataset, pyproj.CRS.from_wkt(dataset.crs.to_wkt()))
    except ProjError:
        return (
            f"has a coordinate reference system that cannot be used; set another one with gdal_edit.py -a_srs {EXAMPLE}"
        )


def _why_not_on_the_ground(dataset: rasterio.DatasetReader, crs: pyproj.CRS) -> str:
    if crs.geodetic_crs is None or crs.is_geocentric or not (crs.is_projected or crs.is_geographic):
        return (
            f"is in {crs.name!r}, of the type {crs.type_name}, which maps cannot use; set another one with "
            f"gdal_edit.py -a_srs {EXAMPLE}"
        )
    if SMALLEST <= _side(dataset, crs) <= LARGEST:
        return ""
    return (
        "has a geotransform and a coordinate reference system that do not fit each other; correct them with "
        "gdal_edit.py -a_ullr WEST NORTH EAST SOUTH or -a_srs"
    )


def has_no_transform(dataset: rasterio.DatasetReader) -> bool:
    """Whether a raster has no geotransform, or one that maps everything to a point or a line."""
    transform = dataset.transform
    return transform == Affine.identity() or not transform.determinant or not np.isfinite(tuple(transform)).all()


def is_north_up(dataset: rasterio.DatasetReader) -> bool:
    """Whether rows run from west to east, and columns from north to south."""
    transform = dataset.transform
    return bool(transform.a > abs(transform.b) and -transform.e > abs(transform.d))


def north_up(dataset: rasterio.DatasetReader) -> WarpedVRT:
    """A view of a dataset whose rows or columns run the other way, or are exchanged, with its pixels as they are."""
    west, south, east, north = _bounds(dataset)
    transform = dataset.transform
    across, down = (abs(transform.a), abs(transform.e)) if transform.a else (abs(transform.b), abs(transform.d))
    masked = MaskFlags.per_dataset in dataset.mask_flag_enums[0]
    return WarpedVRT(
        dataset,
        crs=dataset.crs,
        transform=Affine(across, 0, west, 0, -down, north),
        width=round((east - west) / across),
        height=round((north - south) / down),
        resampling=Resampling.nearest,
        add_alpha=masked,
        src_nodata=None if masked else dataset.nodata,
        nodata=None if masked else dataset.nodata,
    )


def _bounds(dataset: rasterio.DatasetReader) -> tuple[float, float, float, float]:
    corners = [dataset.transform @ (x, y) for x in (0, dataset.width) for y in (0, dataset.height)]
    xs, ys = zip(*corners, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _side(dataset: rasterio.DatasetReader, crs: pyproj.CRS) -> float:
    """The longer side of the pixel in the middle, meters; not finite where the CRS is undefined."""
    middle = (dataset.width / 2, dataset.height / 2)
    x, y = middle
    to_degrees = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    geod = crs.get_geod() or pyproj.Geod(ellps="WGS84")
    points = (to_degrees.transform(*(dataset.transform @ point)) for point in (middle, (x + 1, y), (x, y + 1)))
    here, right, below = (point[:2] for point in points)
    if not np.isfinite([here, right, below]).all():
        return math.inf
    sides = [geod.inv(*here, *other)[2] for other in (right, below)]
    return max(sides) if min(sides) >= SMALLEST else 0.0


def _within_a_turn(dataset: rasterio.DatasetReader) -> rasterio.DatasetReader:
    """A dataset in degrees with longitudes of -180..180, or counted from the 180th meridian if it crosses that."""
    west, _, east, _ = _bounds(dataset)
    turns = math.floor(((west + east) / 2 + 180) / 360)
    west, east = west - 360 * turns, east - 360 * turns
    moved = Affine.translation(-360 * turns, 0) @ dataset.transform
    if (west < -180 or east > 180) and east - west < 360:
        ellipsoid = pyproj.CRS(dataset.crs.to_wkt()).ellipsoid
        axes = (6_378_137.0, 6_356_752.314245)
        if ellipsoid:
            axes = (ellipsoid.semi_major_metre, ellipsoid.semi_minor_metre)  # codespell:ignore metre
        crs = CRS.from_dict(proj="longlat", a=axes[0], b=axes[1], pm=180)
        return _placed(dataset, crs, Affine.translation(-180 if east > 180 else 180, 0) @ moved)
    return _placed(dataset, dataset.crs, moved) if turns else dataset


def _placed(dataset: rasterio.DatasetReader, crs: CRS, transform: Affine) -> rasterio.DatasetReader:
    """The same pixels at another place."""
    with MemoryFile(ext=".vrt") as memory:
        copy(dataset, memory.name, driver="VRT")
        vrt = ET.fromstring(bytes(memory.getbuffer()))  # noqa: S314 - GDAL wrote it
    for old in [each for each in vrt if each.tag in ("SRS", "GeoTransform", "GCPList")]:
        vrt.remove(old)
    _keep_driver(vrt, dataset)
    ET.SubElement(vrt, "SRS").text = crs.to_wkt()
    ET.SubElement(vrt, "GeoTransform").text = ", ".join(map(repr, map(float, transform.to_gdal())))
    dataset.close()
    return rasterio.open(ET.tostring(vrt, encoding="unicode"))


def _warped_by_points(dataset: rasterio.DatasetReader, crs: CRS) -> rasterio.DatasetReader:
    """A raster warped by its ground control points, in their CRS."""
    nodata = 0 if dataset.nodata is None else dataset.nodata
    with (
        WarpedVRT(dataset, src_crs=crs, crs=crs, resampling=Resampling.cubic, src_nodata=nodata, nodata=nodata) as view,
        MemoryFile(ext=".vrt") as memory,
    ):
        copy(view, memory.name, driver="VRT")
        vrt = ET.fromstring(bytes(memory.getbuffer()))  # noqa: S314 - GDAL wrote it
    _keep_driver(vrt, dataset)
    dataset.close()
    return rasterio.open(ET.tostring(vrt, encoding="unicode"))


def _keep_driver(vrt: ET.Element, dataset: rasterio.DatasetReader) -> None:
    """Makes a virtual raster open a remote dataset with the driver that opened it."""
    if dataset.driver != "VRT":  # in which `assemble` did so
        for source in (*vrt.iter("SourceFilename"), *vrt.iter("SourceDataset")):
            source.text = only_by(dataset.driver, source.text or "")
