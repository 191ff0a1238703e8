"""Zones and regions: named polygons from a vector file."""

from __future__ import annotations

import logging
from pathlib import Path

import geopandas as gpd
import pandas as pd
import pyogrio
import shapely
from pyogrio.errors import DataLayerError, DataSourceError

from geocfl.analysis.reproject import Polygons
from geocfl.errors import DataError, UsageError, did_you_mean

log = logging.getLogger("geocfl")


def read_zones(path: Path, layer: str | None, by: str | None) -> tuple[list[int] | list[str], gpd.GeoSeries]:
    """Reads zones or regions.

    Args:
        path: Polygons, in any format that GDAL reads.
        layer: Layer of the file; needed where several have geometries.
        by: Field that names them; polygons of the same name form one. Without it they are numbered from 1.

    Returns:
        Their names and their valid polygons, in the order of the file.

    Raises:
        DataError: The file holds no polygons, or has no coordinate reference system.
        UsageError: It has no such layer or field.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file; pass polygons, such as a GeoPackage")
    try:
        layer = _choose_layer(path, layer)
        fields = list(pyogrio.read_info(path, layer=layer)["fields"])
        if by is not None and by not in fields:
            has = f"it has: {', '.join(fields)}" if fields else "it has none"
            raise UsageError(f"{path}: has no field {by!r} for `by`; {did_you_mean(by, fields)}{has}")
        frame = pyogrio.read_dataframe(path, layer=layer, columns=[by] if by else [], force_2d=True)
    except (DataSourceError, DataLayerError) as error:
        raise DataError(f"{path}: not a vector file that GDAL reads; pass polygons, such as a GeoPackage") from error
    polygons = frame.geometry
    if not len(polygons):
        raise DataError(f"{path}: holds no features; pass polygons")
    if polygons.crs is None:
        raise DataError(
            f"{path}: has no coordinate reference system; "
            "assign one, such as by ogr2ogr -a_srs EPSG:4326 zones.gpkg, and pass the result"
        )
    others = sorted(set(polygons.geom_type.dropna()) - {"Polygon", "MultiPolygon"})
    if others:
        raise DataError(
            f"{path}: holds {' and '.join(others)} features, but zones must be polygons; pass another layer"
        )
    polygons = _repaired(path, polygons)
    if by is None:
        return list(range(1, len(polygons) + 1)), polygons.reset_index(drop=True)
    one = gpd.GeoDataFrame({"zone": _labels(frame[by])}, geometry=polygons).dissolve("zone", sort=False)
    return list(one.index), one.geometry.reset_index(drop=True)


def _choose_layer(path: Path, layer: str | None) -> str:
    """The requested layer, or the only one that has geometries."""
    spatial = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
    if not spatial:
        raise DataError(f"{path}: has no geometries; pass polygons")
    if layer is None and len(spatial) > 1:
        raise UsageError(f"{path}: has several layers; choose one as `layer`: {', '.join(spatial)}")
    if layer is not None and layer not in spatial:
        remedy = f"{did_you_mean(layer, spatial)}choose from: {', '.join(spatial)}"
        raise UsageError(f"{path}: has no layer {layer!r} of geometries for `layer`; {remedy}")
    return layer or spatial[0]


def _repaired(path: Path, polygons: gpd.GeoSeries) -> gpd.GeoSeries:
    """Valid polygons; empty ones for features without a geometry."""
    shapes: Polygons = polygons.to_numpy(copy=True)
    shapes[shapely.is_missing(shapes)] = shapely.Polygon()
    if count := int((invalid := ~shapely.is_valid(shapes)).sum()):
        log.info("%s: %d invalid polygon%s repaired, as ST_MakeValid does", path, count, "" if count == 1 else "s")
        shapes[invalid] = shapely.make_valid(shapes[invalid], method="structure", keep_collapsed=False)
    return gpd.GeoSeries(shapes, crs=polygons.crs)


def _labels(values: pd.Series) -> list[int] | list[str]:
    """Values of a field as names of zones: whole numbers stay numbers, missing values become empty."""
    if pd.api.types.is_integer_dtype(values):
        return [int(value) for value in values]
    return ["" if pd.isna(value) else str(value) for value in values.convert_dtypes()]
