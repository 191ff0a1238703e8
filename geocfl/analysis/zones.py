"""Zones and regions: named polygons from a vector file."""

from __future__ import annotations

import logging
import warnings
from importlib.util import find_spec
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import shapely
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, GeometryError

from geocfl.analysis.reproject import Polygons, polygonal
from geocfl.errors import DataError, UsageError, did_you_mean

log = logging.getLogger("geocfl")


Name = int | str | None
"""Name of a zone; None stands for NULL."""
ARCHIVES = ("/vsizip/", "/vsitar/", "/vsigzip/")
"""GDAL's prefixes of files in archives on disk."""
PARQUET = (".parquet", ".geoparquet")
COLLECTION = "GeometryCollection"

FARTHEST = 1e9
"""Largest coordinate, in any unit; the earth is 1.3e8 feet around."""


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
    source = _on_disk(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # rings that are not closed and NaN are refused below
        try:
            polygons, names = _read(path, source, layer, by)
        except (DataSourceError, DataLayerError) as error:
            raise DataError(
                f"{path}: not a vector file that GDAL reads; pass polygons, such as a GeoPackage"
            ) from error
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}: its texts are not in the encoding that it states; correct that, such as in a shapefile's .cpg"
            ) from error
        except (FeatureError, GeometryError, shapely.errors.ShapelyError) as error:
            raise DataError(
                f"{path}: holds a geometry that cannot be read, such as a ring of two points; "
                "repair it, such as by ogr2ogr -makevalid"
            ) from error
    if not len(polygons):
        raise DataError(f"{path}: holds no features; pass polygons")
    if polygons.crs is None:
        raise DataError(
            f"{path}: has no coordinate reference system; "
            "assign one, such as by ogr2ogr -a_srs EPSG:4326 zones.gpkg, and pass the result"
        )
    polygons = _repaired(path, _only_polygons(path, polygons))
    if names is None:
        return list(range(1, len(polygons) + 1)), polygons
    _count_unnamed(path, str(by), names)
    numbers: dict[Name, int] = {}
    one = gpd.GeoDataFrame({"zone": [numbers.setdefault(name, len(numbers)) for name in names]}, geometry=polygons)
    return list(numbers), one.dissolve("zone", sort=False).geometry.reset_index(drop=True)


def _on_disk(path: Path) -> str:
    """The path that GDAL opens; paths in archives get back the slash that pathlib takes.

    Raises:
        DataError: There is no such file.
    """
    text = str(path)
    if path.exists():
        return text
    prefix = next((prefix for prefix in ARCHIVES if text.startswith(prefix)), None)
    if prefix:
        inside = text.removeprefix(prefix)
        for candidate in (Path("/", inside), Path(inside)):
            if any(folder.is_file() for folder in (candidate, *candidate.parents)):
                return f"{prefix}{candidate}"
    raise DataError(f"{path}: no such file; pass polygons, such as a GeoPackage")


def _read(path: Path, source: str, layer: str | None, by: str | None) -> tuple[gpd.GeoSeries, list[Name] | None]:
    """Geometries, and the values of a field."""
    if path.suffix.lower() in PARQUET and "Parquet" not in pyogrio.list_drivers():
        return _read_parquet(path, source, layer, by)
    layer = _choose_layer(path, source, layer)
    info = pyogrio.read_info(source, layer=layer)
    fields = list(info["fields"])
    _require_field(path, fields, by)
    columns = [] if by is None else [by]
    frame = pyogrio.read_dataframe(source, layer=layer, columns=columns, force_2d=True, fid_as_index=True)
    polygons = gpd.GeoSeries(frame.geometry.to_numpy(), crs=frame.crs)
    if by is None:
        return polygons, None
    values = frame[by]
    if "int" in info["dtypes"][fields.index(by)] and values.isna().any():
        # With a NULL among them, pandas would make floats of whole numbers, and long ones would become equal.
        named = f'"{by.replace(chr(34), 2 * chr(34))}" IS NOT NULL'
        known = pyogrio.read_dataframe(
            source, layer=layer, columns=columns, where=named, fid_as_index=True, read_geometry=False
        )[by]
        return polygons, [int(known[fid]) if fid in known.index else None for fid in values.index]
    return polygons, _labels(values)


def _read_parquet(
    path: Path, source: str, layer: str | None, by: str | None
) -> tuple[gpd.GeoSeries, list[Name] | None]:
    """The same of a GeoParquet file, which few builds of GDAL read."""
    if not find_spec("pyarrow"):
        raise DataError(f"{path}: GeoParquet needs pyarrow; run: pip install pyarrow, or pass a GeoPackage")
    import pyarrow
    from pyarrow import parquet

    if layer is not None:
        raise UsageError(f"{path}: has no layer {layer!r} of geometries for `layer`; GeoParquet has no layers")
    try:
        frame = gpd.read_parquet(source)
        fields = [str(name) for name in frame.columns if name != frame.geometry.name]
        _require_field(path, fields, by)
        values = None if by is None else parquet.read_table(source, columns=[by])[by].to_pylist()
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        raise DataError(f"{path}: not a GeoParquet file; pass polygons, such as a GeoPackage") from error
    polygons = gpd.GeoSeries(shapely.force_2d(frame.geometry.to_numpy()), crs=frame.crs)
    return polygons, None if values is None else _labels(pd.Series(values, dtype=object))


def _require_field(path: Path, fields: list[str], by: str | None) -> None:
    """Refuses a field that the file lacks.

    Raises:
        UsageError: It lacks it.
    """
    if by is not None and by not in fields:
        has = f"it has: {', '.join(fields)}" if fields else "it has none"
        raise UsageError(f"{path}: has no field {by!r} for `by`; {did_you_mean(by, fields)}{has}")


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
    points, index = shapely.get_coordinates(shapes.to_numpy(), return_index=True)
    if len(broken := index[~(np.abs(points) <= FARTHEST).all(axis=1)]):
        raise DataError(
            f"{path}: feature {broken[0] + 1} has coordinates that are not finite numbers, or lie beyond the earth; "
            "correct or delete it"
        )
    return shapes


def _count_unnamed(path: Path, by: str, names: list[Name]) -> None:
    """Says how many features have no name, or an empty one."""
    for count, what in ((names.count(None), "no (NULL)"), (names.count(""), "an empty")):
        if count:
            log.warning("%s: %d feature%s with %s %s", path, count, " comes" if count == 1 else "s come", what, by)


def _choose_layer(path: Path, source: str, layer: str | None) -> str:
    """The requested layer, or the only one that has geometries."""
    spatial = [str(name) for name, kind in pyogrio.list_layers(source) if kind is not None]
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
    if count := int((missing := shapely.is_missing(shapes)).sum()):
        log.warning("%s: %d feature%s no geometry", path, count, " has" if count == 1 else "s have")
        shapes[missing] = shapely.Polygon()
    if count := int((invalid := ~shapely.is_valid(shapes)).sum()):
        log.info("%s: %d invalid polygon%s repaired, as ST_MakeValid does", path, count, "" if count == 1 else "s")
        shapes[invalid] = shapely.make_valid(shapes[invalid], method="structure", keep_collapsed=False)
    return gpd.GeoSeries(shapes, crs=polygons.crs)


def _labels(values: pd.Series) -> list[Name]:
    """Values of a field as names of zones: whole numbers stay numbers, and None stands for missing values."""
    if pd.api.types.is_integer_dtype(values):
        return [int(value) for value in values]
    if values.dtype == object and all(value is None or type(value) is int for value in values):
        return list(values)
    return [None if pd.isna(value) else str(value) for value in values.convert_dtypes()]
