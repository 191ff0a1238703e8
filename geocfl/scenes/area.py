"""The part of a scene to map: a box or polygons."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import geometry_mask
from rasterio.warp import transform_bounds
from rasterio.windows import Window
from shapely.affinity import translate

from geocfl.errors import SceneError, UsageError
from geocfl.scenes.warp import outline

Box = tuple[float, float, float, float]
"""West, south, east, north in degrees."""
SIDE_POINTS = 50
"""Minimum number of points along the longer side of an area, so that its edges stay correct in another CRS."""


@dataclass(frozen=True)
class Area:
    """The ground to map.

    Attributes:
        name: What the user passed, for messages.
        polygons: Shapely polygons in `crs`.
        crs: Their coordinate reference system.
        box: West, south, east, north in degrees, if it is a box.
    """

    name: str
    polygons: tuple[shapely.Geometry, ...]
    crs: pyproj.CRS
    box: Box | None = None

    @property
    def identity(self) -> str:
        """A text that changes when the ground does."""
        content = b"".join(shapely.to_wkb(polygon) for polygon in self.polygons)
        return hashlib.sha256(content + self.crs.to_wkt().encode()).hexdigest()

    @classmethod
    def of_box(cls, box: Box) -> Area:
        """A box in degrees: west, south, east, north. West is greater than east if the box crosses 180 degrees.

        Raises:
            UsageError: It is not a box.
        """
        west, south, east, north = box = check_box(box)
        name = f"`bbox` {','.join(map(str, box))}"
        polygon = shapely.box(west, south, east + 360 * (east < west), north)
        return cls(name, (polygon,), pyproj.CRS.from_epsg(4326), box)

    @classmethod
    def of_file(cls, path: str | Path) -> Area:
        """Reads the polygons of the first layer, in any CRS and any vector format that GDAL reads.

        Raises:
            SceneError: It cannot be read, holds no polygons or has no CRS.
        """
        import geopandas as gpd
        from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, GeometryError

        unreadable = (DataSourceError, DataLayerError, FeatureError, GeometryError, shapely.errors.ShapelyError)
        try:
            frame = gpd.read_file(path)
        except (*unreadable, pyproj.exceptions.ProjError, OSError) as error:
            reason = str(error).split("; ")[0].rstrip(".")  # without advice about drivers
            raise SceneError(f"{path}: cannot be read as polygons ({reason}); use a GeoPackage or GeoJSON") from error
        if "geometry" not in frame or not frame.geom_type.isin(["Polygon", "MultiPolygon"]).any():
            raise SceneError(f"{path}: holds no polygons; use a file with the area of interest as polygons")
        if frame.crs is None:
            raise SceneError(f"{path}: has no coordinate reference system; add it, such as ogr2ogr -a_srs EPSG:4326")
        polygons = frame.geometry[frame.geom_type.isin(["Polygon", "MultiPolygon"])]
        if not np.isfinite(shapely.get_coordinates(polygons.to_numpy())).all():
            raise SceneError(f"{path}: has coordinates that are not finite numbers; correct or delete these polygons")
        return cls(str(path), tuple(shapely.make_valid(polygons.to_numpy())), pyproj.CRS.from_user_input(frame.crs))


@dataclass(frozen=True)
class Extent:
    """The part of a raster that is read, and which of its pixels to map.

    Attributes:
        row: First row.
        column: First column.
        height: Rows.
        width: Columns.
        shapes: Polygons in pixel coordinates of the raster; None for all pixels.
    """

    row: int
    column: int
    height: int
    width: int
    shapes: tuple[shapely.Geometry, ...] | None = None

    @classmethod
    def whole(cls, dataset: rasterio.DatasetReader) -> Extent:
        """The whole raster."""
        return cls(0, 0, dataset.height, dataset.width)

    @classmethod
    def around(cls, area: Area, dataset: rasterio.DatasetReader, stride: int, window: int) -> Extent:
        """The part of a raster that an area needs.

        It starts at a cell of the whole scene's map and extends half a window beyond the area, so that the map inside
        the area equals that of the whole scene.

        Args:
            area: The ground.
            dataset: The raster, which has a CRS.
            stride: Cell size in pixels.
            window: Window size in pixels; the part is at least this large if the raster is.

        Raises:
            SceneError: The area lies outside the raster.
        """
        shapes = _in_pixels(area, dataset)
        frame = shapely.box(0, 0, dataset.width, dataset.height)
        inside = [shape for shape in shapely.intersection(shapes, frame) if shape.area > 0]
        if not inside:
            raise SceneError(
                f"{area.name} lies outside the scene {Path(dataset.name).name}; {_remedy(area, dataset)}",
                page="how-to/parts/",
            )
        west, north, east, south = shapely.total_bounds(inside)
        margin = -(-(window // 2) // stride) * stride
        rows = _span(north, south, stride, margin, window, dataset.height)
        columns = _span(west, east, stride, margin, window, dataset.width)
        return cls(rows[0], columns[0], rows[1] - rows[0], columns[1] - columns[0], tuple(inside))

    def window(self, start: int, stop: int) -> Window:
        """Full-width rows of the part, in pixel coordinates of the raster."""
        return Window(self.column, self.row + start, self.width, stop - start)

    def inside(self, start: int, stop: int) -> NDArray[np.bool_] | None:
        """(stop - start, width) bool, which pixel centers lie in the area; None if all do."""
        if self.shapes is None:
            return None
        place = Affine.translation(self.column, self.row + start)
        inside: NDArray[np.bool_] = geometry_mask(
            self.shapes, (stop - start, self.width), place, invert=True, all_touched=False
        )
        return inside


def check_box(box: Box) -> Box:
    """A box as plain numbers.

    Raises:
        UsageError: It is not west, south, east, north in degrees.
    """
    try:
        west, south, east, north = (math.nan,) * 4 if isinstance(box, str) else map(float, box)
    except (TypeError, ValueError):
        west = south = east = north = math.nan
    if not _is_box(west, south, east, north):
        remedy = "use one such as `bbox=(13.2, 45.7, 13.4, 45.8)`"
        if _is_box(west, north, east, south):
            remedy = f"south comes before north, so use `bbox=({west:g}, {north:g}, {east:g}, {south:g})`"
        elif _is_box(south, west, north, east):
            remedy = _swapped(west, south, east, north)
        shown = ",".join(map(str, box)) if isinstance(box, list | tuple) else repr(box)
        raise UsageError(f"`bbox` {shown} is not west,south,east,north in degrees; {remedy}", page="how-to/parts/")
    return west, south, east, north


def _swapped(west: float, south: float, east: float, north: float) -> str:
    return f"latitude and longitude look swapped, so use `bbox=({south:g}, {west:g}, {north:g}, {east:g})`"


def _is_box(west: float, south: float, east: float, north: float) -> bool:
    return -180 <= west <= 360 and -180 <= east <= 360 and -90 <= south < north <= 90 and west != east


def _remedy(area: Area, dataset: rasterio.DatasetReader) -> str:
    """What to do about an area outside a raster: a box may have latitude and longitude swapped."""
    if area.box:
        west, south, east, north = area.box
        if _is_box(south, west, north, east):
            frame = shapely.box(0, 0, dataset.width, dataset.height)
            swapped = Area.of_box((south, west, north, east))
            if shapely.intersects(_in_pixels(swapped, dataset), frame).any():
                return _swapped(west, south, east, north)
    bounds = transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
    if not np.isfinite(bounds).all():  # of a raster with a wrong place
        return "choose an area within the scene"
    return "choose an area within the scene, " + ",".join(f"{degrees:.4f}" for degrees in bounds)


def _span(first: float, last: float, stride: int, margin: int, window: int, size: int) -> tuple[int, int]:
    """Start and end in pixels around first..last: whole cells plus a margin, at least a window if the raster allows."""
    start = max(0, math.floor(first / stride) * stride - margin)
    stop = min(size, math.ceil(last / stride) * stride + margin)
    if stop - start < window:
        start = max(0, (stop - window) // stride * stride)
        stop = min(size, max(stop, start + window))
    return start, stop


def _in_pixels(area: Area, dataset: rasterio.DatasetReader) -> NDArray[Any]:
    """The area's polygons in pixel coordinates of a raster."""
    target = pyproj.CRS.from_wkt(dataset.crs.to_wkt())
    try:
        transformer = pyproj.Transformer.from_crs(area.crs, target, always_xy=True)
    except pyproj.exceptions.ProjError as error:
        raise SceneError(
            f"{area.name}: its {area.crs.name} cannot be reprojected to the scene's {target.name}; give polygons in "
            "EPSG:4326"
        ) from error
    nearby = _nearby(area, dataset)
    if not len(nearby):
        return nearby
    west, south, east, north = shapely.total_bounds(nearby)
    dense = shapely.segmentize(nearby, max(east - west, north - south) / SIDE_POINTS)
    back = ~dataset.transform

    def place(points: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = transformer.transform(*points.T)
        columns, rows = back @ (np.asarray(x), np.asarray(y))
        return np.column_stack([columns, rows])

    shapes: NDArray[Any] = shapely.make_valid(shapely.transform(dense, place))
    return shapes


def _nearby(area: Area, dataset: rasterio.DatasetReader) -> NDArray[Any]:
    """The polygons near a raster, because a projection is undefined far from it.

    Longitudes are shifted by 360 degrees where that brings them near.
    """
    x, y = outline(dataset, area.crs)
    polygons = np.array(area.polygons, dtype=object)
    if area.crs.is_geographic:
        x = x[0] + (x - x[0] + 180) % 360 - 180
        polygons = np.array([translate(polygon, turn) for polygon in polygons for turn in (-360, 0, 360)], dtype=object)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return polygons
    spare = 0.1 * max(np.ptp(x), np.ptp(y))
    frame = shapely.box(min(x) - spare, min(y) - spare, max(x) + spare, max(y) + spare)
    clipped = shapely.intersection(polygons, frame)
    near: NDArray[Any] = clipped[~shapely.is_empty(clipped)]
    return near
