"""Vector files of a map: polygons of the classes and squares of the cells, in common GIS formats."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyogrio
import pyogrio.raw
import shapely
from numpy.typing import NDArray
from rasterio.windows import Window

from geocfl.core.grid import CellGrid
from geocfl.core.legend import NODATA, Legend, shown_classes
from geocfl.products.formats.vector_formats import GEOMETRY, POLYGONS, WINDOWS
from geocfl.products.scratch import CODE, CONFIDENCE, NOVELTY, PROBABILITY, band_numbers, open_cells

EPOCH = "2000-01-01T00:00:00.000Z"
"""Date in every GeoPackage, since no product depends on the clock."""
WINDOWS_AT_A_TIME = 100_000


def write_polygons(polygons: gpd.GeoDataFrame, path: Path, format: str, layer: str = POLYGONS) -> None:
    """Writes polygons in one of `geocfl.products.formats.vector_formats.VECTOR_FORMATS`.

    GeoJSON follows RFC 7946: coordinates in WGS 84, cut at the antimeridian.

    Args:
        polygons: From `geocfl.products.polygons.dissolve`.
        path: File to write; other layers of a GeoPackage are kept.
        format: One of them.
        layer: Name of the layer in a GeoPackage.
    """
    several = bool((polygons.geom_type == "MultiPolygon").any())  # simplified polygons may be
    if several:
        polygons = polygons.set_geometry(
            [shapely.multipolygons([p]) if p.geom_type == "Polygon" else p for p in polygons.geometry]
        ).set_crs(polygons.crs)
    kind = "MultiPolygon" if several else "Polygon"
    if format == "gpkg":
        with fixed_date():
            write_layer(polygons, path, layer, kind)
    elif format == "geoparquet":
        polygons.to_parquet(path, index=False, compression="zstd", write_covering_bbox=True)
    elif format == "flatgeobuf":
        pyogrio.write_dataframe(polygons, path, layer=POLYGONS, driver="FlatGeobuf", geometry_type=kind)
    else:
        _write_geojson(polygons, path, kind)


def _write_geojson(polygons: gpd.GeoDataFrame, path: Path, kind: str) -> None:
    """Writes GeoJSON; GDAL leaves lines where it cuts polygons that only touch 180 degrees, so these are taken out."""

    def write(frame: gpd.GeoDataFrame) -> None:
        pyogrio.write_dataframe(frame, path, layer=POLYGONS, driver="GeoJSON", geometry_type=kind, RFC7946="YES")

    write(polygons)
    with path.open("rb") as file:
        if not any(b'"GeometryCollection"' in line for line in file):  # a line for each feature
            return
    frame = pyogrio.read_dataframe(path)
    shapes = frame.geometry.to_numpy(copy=True)
    for number in np.flatnonzero(frame.geom_type == "GeometryCollection"):
        parts = shapely.get_parts(shapely.get_parts(shapes[number]))
        areal = parts[shapely.get_dimensions(parts) == 2]
        shapes[number] = areal[0] if len(areal) == 1 else shapely.multipolygons(areal)
    write(frame.set_geometry(gpd.GeoSeries(shapes, crs=frame.crs)))


def write_windows(cells: Path, path: Path, grid: CellGrid, legend: Legend) -> None:
    """Writes layer ``windows`` of a GeoPackage: a square for each cell with data, cut at the scene's rectangle.

    Its fields are ``class_code``, ``class_name``, ``confidence`` (0..1), ``novelty`` (0..100) if the cells have it and,
    for each class, its probability ``p_<name>`` (0..1). Cells are written row by row, so that a large map is never all
    in memory.

    Args:
        cells: Work raster with probabilities.
        path: GeoPackage to write; other layers are kept.
        grid: Where the cells lie.
        legend: Names of the codes.
    """
    names = np.full(256, "", object)
    for c in shown_classes(legend, unclassified=True):
        names[c.code] = c.name
    novelty = band_numbers(cells, NOVELTY)
    scales = {"confidence": 100, **dict.fromkeys([NOVELTY][: len(novelty)], 1)}
    scales |= dict.fromkeys(probability_fields(legend), 100)
    bands = [CODE, CONFIDENCE, *novelty, *band_numbers(cells, PROBABILITY)]
    with open_cells(cells) as dataset, fixed_date():
        step = max(1, WINDOWS_AT_A_TIME // grid.columns)
        for first in range(0, grid.rows, step):
            codes, *values = dataset.read(bands, window=Window(0, first, grid.columns, min(step, grid.rows - first)))
            rows, columns = np.nonzero(codes != NODATA)
            if not len(rows) and first:
                continue
            frame = gpd.GeoDataFrame(
                {
                    "class_code": codes[rows, columns].astype(np.int32),
                    "class_name": names[codes[rows, columns]],
                    **{
                        field: band[rows, columns] / scale
                        for (field, scale), band in zip(scales.items(), values, strict=True)
                    },
                },
                geometry=cell_squares(grid, rows + first, columns),
                crs=grid.crs.to_wkt(),
            ).rename_geometry(GEOMETRY)
            write_layer(frame, path, WINDOWS, "Polygon", append=first > 0)


def probability_fields(legend: Legend) -> list[str]:
    """Names of the fields of probability, such as ``"p_annual_crop"``; unique even if class names are not."""
    fields: list[str] = []
    for c in legend:
        name = "p_" + "_".join("".join(s if s.isalnum() else " " for s in c.name.lower()).split())
        fields.append(name if name not in fields and name != "p_" else f"{name}_{c.code}")
    return fields


def cell_squares(grid: CellGrid, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.object_]:
    """(n,) squares of the cells in the grid's CRS, cut at the scene's rectangle."""
    left, right = columns * grid.stride, np.minimum((columns + 1) * grid.stride, grid.width)
    top, bottom = rows * grid.stride, np.minimum((rows + 1) * grid.stride, grid.height)
    return _rectangles(grid, left, right, top, bottom)


def window_squares(
    grid: CellGrid, window: int, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.object_]:
    """(n,) squares of the windows, of `window` pixels, that decide the cells; cut at the scene's rectangle."""
    offset = (grid.stride - window) // 2
    left, top = columns * grid.stride + offset, rows * grid.stride + offset
    return _rectangles(
        grid,
        np.maximum(left, 0),
        np.minimum(left + window, grid.width),
        np.maximum(top, 0),
        np.minimum(top + window, grid.height),
    )


def _rectangles(
    grid: CellGrid,
    left: NDArray[np.int64],
    right: NDArray[np.int64],
    top: NDArray[np.int64],
    bottom: NDArray[np.int64],
) -> NDArray[np.object_]:
    """(n,) rectangles of pixels in the grid's CRS."""
    a, b, c, d, e, f = grid.transform[:6]
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    points = np.array([[a * x + b * y + c, d * x + e * y + f] for x, y in corners])
    squares: NDArray[np.object_] = shapely.polygons(points.transpose(2, 0, 1))
    return squares


def write_layer(
    frame: gpd.GeoDataFrame,
    path: Path,
    layer: str,
    kind: str,
    *,
    append: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes a layer of a GeoPackage, or adds to it; `metadata` is that of the whole file."""
    pyogrio.write_dataframe(
        frame,
        path,
        layer=layer,
        driver="GPKG",
        geometry_type=kind,
        append=append,
        dataset_metadata=metadata,
        GEOMETRY_NAME=GEOMETRY,
        VERSION="1.2",  # GDAL before 3.7, and so QGIS 3.22, warns about newer ones
    )


def write_default_styles(path: Path, styles: dict[str, str]) -> None:
    """Adds QGIS's table of styles to a GeoPackage; a layer's default style overrides a QML file beside it.

    Args:
        path: GeoPackage with the layers.
        styles: Layer to its QML.
    """
    columns: dict[str, Sequence[str | bool | None]] = {
        "f_table_catalog": [""] * len(styles),
        "f_table_schema": [""] * len(styles),
        "f_table_name": list(styles),
        "f_geometry_column": [GEOMETRY] * len(styles),
        "styleName": list(styles),
        "styleQML": list(styles.values()),
        "styleSLD": [""] * len(styles),
        "useAsDefault": [True] * len(styles),
        "description": ["Classes by name and color"] * len(styles),
        "owner": [""] * len(styles),
        "ui": [None] * len(styles),
    }
    values = [np.array(column, bool if column[0] is True else object) for column in columns.values()]
    with fixed_date():
        pyogrio.raw.write(
            path,
            geometry=None,
            field_data=[*values, np.array([EPOCH.rstrip("Z")] * len(styles), "datetime64[ms]")],
            fields=[*columns, "update_time"],
            layer="layer_styles",
            driver="GPKG",
        )


_DATED = threading.RLock()


@contextmanager
def fixed_date() -> Iterator[None]:
    """Makes GDAL write `EPOCH` instead of today's date, in one thread at a time, since its options are global."""
    with _DATED:
        before = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": EPOCH})
        try:
            yield
        finally:
            pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": before})
