"""Reprojects polygons to a map's coordinate reference system, with sides that bend and across the antimeridian."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray
from pyproj.enums import TransformDirection

from geocfl.core.grid import CellGrid
from geocfl.errors import DataError

METERS, DEGREES = 1000.0, 0.01
"""Sides longer than this are divided before they are reprojected, so that they stay on their lines within
centimeters."""

Polygons = NDArray[np.object_]


def onto_map(path: Path, shapes: Polygons, source: pyproj.CRS, grid: CellGrid) -> Polygons:
    """Reprojects polygons to a map's CRS, with parts that lie on it 360 degrees away; results may be invalid.

    Args:
        path: Their file, for messages.
        shapes: (Z,) polygons.
        source: Their coordinate reference system.
        grid: The map's cells.

    Raises:
        DataError: They cannot be reprojected.
    """
    target = pyproj.CRS.from_wkt(grid.crs.to_wkt())
    shapes = shapes.copy() if source == target else _reproject(path, shapes, source, grid, target)
    if target.is_geographic:
        there = shapely.box(*grid.bounds())
        for turned in [_moved(shapes, 360), _moved(shapes, -360)]:
            also = shapely.intersects(turned, there)
            on_it = shapely.intersection(shapely.make_valid(turned[also]), there)
            shapes[also] = shapely.union(shapely.make_valid(shapes[also]), on_it)
    return shapes


def far_off(shapes: Polygons, source: pyproj.CRS, grid: CellGrid) -> NDArray[np.bool_]:
    """(Z,) whether a part of each polygon lies so far off a map that `onto_map` leaves it out; arguments as there."""
    target = pyproj.CRS.from_wkt(grid.crs.to_wkt())
    if source == target:
        return np.zeros(len(shapes), bool)
    transformer = pyproj.Transformer.from_crs(source, target, always_xy=True)
    left_out: NDArray[np.bool_] = ~shapely.covered_by(shapes, _surroundings(transformer, source, grid))
    return left_out


def _surroundings(transformer: pyproj.Transformer, source: pyproj.CRS, grid: CellGrid) -> shapely.Geometry:
    """The map's surroundings in the CRS of the polygons; the transformer leads from there to the map's."""
    west, south, east, north = transformer.transform_bounds(*grid.bounds(), direction=TransformDirection.INVERSE)
    turns = [0]
    if source.is_geographic:
        east += 360 if east < west else 0  # across the antimeridian, zones may use either longitude
        turns = [-360, 0, 360]
    margin = longest_side(source) + 0.1 * max(east - west, north - south)
    return shapely.union_all(
        [shapely.box(west + t - margin, south - margin, east + t + margin, north + margin) for t in turns]
    )


def _moved(shapes: Polygons, degrees: float) -> Polygons:
    moved: Polygons = shapely.transform(shapes, lambda x, y: (x + degrees, y), interleaved=False)
    return moved


def _reproject(path: Path, shapes: Polygons, source: pyproj.CRS, grid: CellGrid, target: pyproj.CRS) -> Polygons:
    """Reprojects polygons after cutting them to the map's surroundings: elsewhere the projection may be undefined."""
    try:
        transformer = pyproj.Transformer.from_crs(source, target, always_xy=True)
    except pyproj.exceptions.ProjError as error:
        raise DataError(f"{path}: its {source.name} cannot be reprojected; reproject it to {target.name}") from error
    near = _surroundings(transformer, source, grid)
    shapes = shapes.copy()
    cut = ~shapely.covered_by(shapes, near)
    shapes[cut] = polygonal(shapely.intersection(shapes[cut], near))
    shapes = shapely.segmentize(shapes, longest_side(source))
    shapes = shapely.transform(shapes, transformer.transform, interleaved=False)
    if not np.isfinite(shapely.get_coordinates(shapes)).all():
        raise DataError(
            f"{path}: cannot be reprojected to the map's {target.name}; reproject it yourself, and cut it to the map"
        )
    return untorn(shapes) if target.is_geographic else shapes


def untorn(shapes: Polygons) -> Polygons:
    """Joins polygons in degrees that jump from 180 to -180: they continue beyond 180.

    Args:
        shapes: (Z,) polygons with short sides.
    """
    west, _, east, _ = shapely.bounds(shapes).T
    shapes = shapes.copy()
    for number in np.flatnonzero(east - west > 180):
        parts = [part for part in shapely.get_parts(shapes[number]) if not part.is_empty]
        shapes[number] = shapely.MultiPolygon([_untorn(part) for part in parts])
    return shapes


def _untorn(polygon: shapely.Polygon) -> shapely.Polygon:
    longitudes, latitudes = shapely.get_coordinates(polygon).T
    turns = np.rint((np.unwrap(longitudes, period=360) - longitudes) / 360)  # whole turns, so that rings stay closed
    if turns[shapely.get_num_coordinates(polygon.exterior) - 1]:  # around the earth, with a pole inside
        south, north = (latitudes.min(), 90) if latitudes.mean() > 0 else (-90, latitudes.max())
        return shapely.box(-180, south, 180, north)
    return shapely.set_coordinates(polygon, np.column_stack([longitudes + 360 * turns, latitudes]))


def longest_side(crs: pyproj.CRS) -> float:
    """Longest side that is reprojected without division, in units of a CRS."""
    return DEGREES if crs.is_geographic else METERS / crs.axis_info[0].unit_conversion_factor


def polygonal(shapes: Polygons) -> Polygons:
    """Shapes without the lines and points in which polygons touch."""
    parts, index = shapely.get_parts(shapes, return_index=True)
    parts, inner = shapely.get_parts(parts, return_index=True)  # of multipolygons in collections
    areal = (shapely.get_type_id(parts) == shapely.GeometryType.POLYGON) & ~shapely.is_empty(parts)
    out = np.full(len(shapes), shapely.MultiPolygon())
    shapely.multipolygons(parts[areal], indices=index[inner][areal], out=out)
    return out
