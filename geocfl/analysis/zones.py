"""Zones and regions: named polygons from a vector file."""

from __future__ import annotations

import logging
from pathlib import Path

import geopandas as gpd
import shapely

from geocfl.analysis.reproject import polygonal
from geocfl.analysis.vectors import Name, check_coordinates, read_features, without_missing
from geocfl.errors import DataError

log = logging.getLogger("geocfl")

COLLECTION = "GeometryCollection"


def read_zones(path: Path, layer: str | None, by: str | None) -> tuple[list[Name], gpd.GeoSeries]:
    """Reads zones or regions.

    Args:
        path: Polygons, in any format that GDAL reads, or GeoParquet; also in an archive, as ``/vsizip/a.zip/b.shp``.
        layer: Layer of the file; needed where several have geometries.
        by: Field that names them; polygons of the same name form one. Without it they are numbered from 1.

    Returns:
        Their names and their valid polygons, in the order of the file.

    Raises:
        DataError: The file holds no polygons, or has no coordinate reference system.
        UsageError: It has no such layer or field.
    """
    polygons, names = read_features(path, layer, by)
    polygons = _repaired(path, _only_polygons(path, polygons))
    if names is None:
        return list(range(1, len(polygons) + 1)), polygons
    _count_unnamed(path, str(by), names)
    numbers: dict[Name, int] = {}
    one = gpd.GeoDataFrame({"zone": [numbers.setdefault(name, len(numbers)) for name in names]}, geometry=polygons)
    return list(numbers), one.dissolve("zone", sort=False).geometry.reset_index(drop=True)


def _only_polygons(path: Path, shapes: gpd.GeoSeries) -> gpd.GeoSeries:
    """Shapes with the polygons of collections, and without their points and lines.

    Raises:
        DataError: Other shapes are among them, or coordinates that are no numbers.
    """
    kinds = shapes.geom_type
    others = set(kinds.dropna()) - {"Polygon", "MultiPolygon", COLLECTION}
    mixed = (kinds == COLLECTION).to_numpy()
    if mixed.any():
        found = shapes.to_numpy(copy=True)
        parts = polygonal(found[mixed])
        if (lost := shapely.is_empty(parts) & ~shapely.is_empty(found[mixed])).any():
            others.add(f"{COLLECTION} without a polygon")
        left = int((shapely.get_num_geometries(found[mixed]) > shapely.get_num_geometries(parts)).sum()) - int(
            lost.sum()
        )
        if left:
            log.warning("%s: points and lines in %d %ss are left out", path, left, COLLECTION)
        found[mixed] = parts
        shapes = gpd.GeoSeries(found, crs=shapes.crs)
    if others:
        raise DataError(
            f"{path}: holds {' and '.join(sorted(others))} features, but zones must be polygons; pass another layer"
        )
    check_coordinates(path, shapes)
    return shapes


def _count_unnamed(path: Path, by: str, names: list[Name]) -> None:
    """Says how many features have no name, or an empty one."""
    for count, what in ((names.count(None), "no (NULL)"), (names.count(""), "an empty")):
        if count:
            log.warning("%s: %d feature%s with %s %s", path, count, " comes" if count == 1 else "s come", what, by)


def _repaired(path: Path, polygons: gpd.GeoSeries) -> gpd.GeoSeries:
    """Valid polygons; empty ones for features without a geometry."""
    shapes = without_missing(path, polygons)
    if count := int((invalid := ~shapely.is_valid(shapes)).sum()):
        log.info("%s: %d invalid polygon%s repaired, as ST_MakeValid does", path, count, "" if count == 1 else "s")
        shapes[invalid] = shapely.make_valid(shapes[invalid], method="structure", keep_collapsed=False)
    return gpd.GeoSeries(shapes, crs=polygons.crs)
