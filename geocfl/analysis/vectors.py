"""Features of users' vector files: their geometries and one of their fields, from any format that GDAL reads."""

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

from geocfl.analysis.reproject import Polygons
from geocfl.errors import DataError, UsageError, did_you_mean

log = logging.getLogger("geocfl")

Name = int | str | None
"""Value of a field; None stands for NULL."""
ARCHIVES = ("/vsizip/", "/vsitar/", "/vsigzip/")
"""GDAL's prefixes of files in archives on disk."""
PARQUET = (".parquet", ".geoparquet")
FARTHEST = 1e9
"""Largest coordinate, in any unit; the earth is 1.3e8 feet around."""


def read_features(
    path: Path, layer: str | None, by: str | None, what: str = "polygons"
) -> tuple[gpd.GeoSeries, list[Name] | None]:
    """Reads features.

    Args:
        path: A file of any format that GDAL reads, or GeoParquet; also in an archive, as ``/vsizip/a.zip/b.shp``.
        layer: Layer of the file; needed where several have geometries.
        by: Field whose values are wanted; None for none.
        what: What the features should be, for messages.

    Returns:
        Their geometries in two dimensions, with a coordinate reference system, and the values of the field, in the
        order of the file.

    Raises:
        DataError: The file holds no features, or has no coordinate reference system.
        UsageError: It has no such layer or field.
    """
    source = _on_disk(path, what)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # rings that are not closed and NaN are refused later
        try:
            shapes, names = _read(path, source, layer, by, what)
        except (DataSourceError, DataLayerError) as error:
            raise DataError(f"{path}: not a vector file that GDAL reads; pass {what}, such as a GeoPackage") from error
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}: its texts are not in the encoding that it states; correct that, such as in a shapefile's .cpg"
            ) from error
        except (FeatureError, GeometryError, shapely.errors.ShapelyError) as error:
            raise DataError(
                f"{path}: holds a geometry that cannot be read, such as a ring of two points; "
                "repair it, such as by ogr2ogr -makevalid"
            ) from error
    if not len(shapes):
        raise DataError(f"{path}: holds no features; pass {what}")
    if shapes.crs is None:
        raise DataError(
            f"{path}: has no coordinate reference system; "
            f"assign one, such as by ogr2ogr -a_srs EPSG:4326 assigned.gpkg {path.name}, and pass the result"
        )
    return shapes, names


def check_coordinates(path: Path, shapes: gpd.GeoSeries) -> None:
    """Refuses coordinates that are no numbers.

    Raises:
        DataError: There are some.
    """
    points, index = shapely.get_coordinates(shapes.to_numpy(), return_index=True)
    if len(broken := index[~(np.abs(points) <= FARTHEST).all(axis=1)]):
        raise DataError(
            f"{path}: feature {broken[0] + 1} has coordinates that are not finite numbers, or lie beyond the earth; "
            "correct or delete it"
        )


def without_missing(path: Path, shapes: gpd.GeoSeries) -> Polygons:
    """Geometries as an array, with empty ones for features that have none; says how many."""
    found: Polygons = shapes.to_numpy(copy=True)
    if count := int((missing := shapely.is_missing(found)).sum()):
        log.warning("%s: %d feature%s no geometry", path, count, " has" if count == 1 else "s have")
        found[missing] = shapely.Polygon()
    return found


def _on_disk(path: Path, what: str) -> str:
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
    raise DataError(f"{path}: no such file; pass {what}, such as a GeoPackage")


def _read(
    path: Path, source: str, layer: str | None, by: str | None, what: str
) -> tuple[gpd.GeoSeries, list[Name] | None]:
    """Geometries, and the values of a field."""
    if path.suffix.lower() in PARQUET and "Parquet" not in pyogrio.list_drivers():
        return _read_parquet(path, source, layer, by, what)
    layer = _choose_layer(path, source, layer, what)
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
    return polygons, _values(values)


def _read_parquet(
    path: Path, source: str, layer: str | None, by: str | None, what: str
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
        raise DataError(f"{path}: not a GeoParquet file; pass {what}, such as a GeoPackage") from error
    polygons = gpd.GeoSeries(shapely.force_2d(frame.geometry.to_numpy()), crs=frame.crs)
    return polygons, None if values is None else _values(pd.Series(values, dtype=object))


def _require_field(path: Path, fields: list[str], by: str | None) -> None:
    """Refuses a field that the file lacks.

    Raises:
        UsageError: It lacks it.
    """
    if by is not None and by not in fields:
        has = f"it has: {', '.join(fields)}" if fields else "it has none"
        raise UsageError(f"{path}: has no field {by!r} for `by`; {did_you_mean(by, fields)}{has}")


def _choose_layer(path: Path, source: str, layer: str | None, what: str) -> str:
    """The requested layer, or the only one that has geometries."""
    spatial = [str(name) for name, kind in pyogrio.list_layers(source) if kind is not None]
    if not spatial:
        raise DataError(f"{path}: has no geometries; pass {what}")
    if layer is None and len(spatial) > 1:
        raise UsageError(f"{path}: has several layers; choose one as `layer`: {', '.join(spatial)}")
    if layer is not None and layer not in spatial:
        remedy = f"{did_you_mean(layer, spatial)}choose from: {', '.join(spatial)}"
        raise UsageError(f"{path}: has no layer {layer!r} of geometries for `layer`; {remedy}")
    return layer or spatial[0]


def _values(values: pd.Series) -> list[Name]:
    """Values of a field as texts and whole numbers: whole numbers stay numbers, and None stands for missing values."""
    if pd.api.types.is_integer_dtype(values):
        return [int(value) for value in values]
    if values.dtype == object and all(value is None or type(value) is int for value in values):
        return list(values)
    return [None if pd.isna(value) else str(value) for value in values.convert_dtypes()]
