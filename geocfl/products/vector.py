"""Polygons of a map: 4-connected cells of one class, dissolved, in a GeoPackage that opens styled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio
import pyogrio.raw
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.features import shapes

from geocfl.grid import CellGrid
from geocfl.legend import UNCLASSIFIED, Legend
from geocfl.products.cells import open_cells, read_strips
from geocfl.products.style import polygons_qml, shown_classes

LAYER = "lulc"
GEOMETRY = "geom"
EPOCH = "2000-01-01T00:00:00.000Z"
"""What stands where a GeoPackage wants a date: nothing in a product depends on the clock."""


def write_polygons(cells: Path, path: Path, grid: CellGrid, legend: Legend) -> None:
    """Writes layer ``lulc``: dissolved polygons with ``class_code``, ``class_name``, ``area_ha`` and ``confidence``.

    A polygon is a connected piece (by sides, not corners) of cells of one class, or of unclassified cells, cut at the
    scene's rectangle. ``area_ha`` is the sum of its cells' hectares, ``confidence`` the mean of theirs, 0..1. The
    layer's default style is inside, so that QGIS shows names and colours by itself.

    Args:
        cells: Work raster of `grid.rows` x `grid.columns` cells.
        path: GeoPackage to write; replaced where it exists.
        grid: Where the cells lie.
        legend: Names and colours of the codes.
    """
    pieces = _trace(cells)
    names = {c.code: c.name for c in shown_classes(legend, unclassified=True)}
    hectares, confidence = _measure(cells, grid, pieces)
    frame = gpd.GeoDataFrame(
        {
            "class_code": pieces.codes,
            "class_name": [names[code] for code in pieces.codes.tolist()],
            "area_ha": hectares,
            "confidence": confidence,
        },
        geometry=_polygons(grid, pieces),
        crs=grid.crs.to_wkt(),
    ).rename_geometry(GEOMETRY)
    style = polygons_qml(legend, unclassified=bool((pieces.codes == UNCLASSIFIED).any()))
    path.unlink(missing_ok=True)
    with _fixed_date():
        pyogrio.write_dataframe(
            frame,
            path,
            layer=LAYER,
            driver="GPKG",
            geometry_type="Polygon",
            GEOMETRY_NAME=GEOMETRY,
            VERSION="1.2",  # GDAL before 3.7, and so QGIS 3.22, warns of newer ones
        )
        _write_default_style(path, style)


@dataclass(frozen=True)
class _Pieces:
    """Connected pieces of equal cells as rings of cell corners, in the order that GDAL finds them.

    Attributes:
        codes: (pieces,) int32 raster codes.
        corners: (corners, 2) int64 column and row; each ring closes on its first corner.
        rings: (rings + 1,) where each ring starts in `corners`.
        parts: (pieces + 1,) where each piece starts in `rings`; its outer ring comes first.
    """

    codes: NDArray[np.int32]
    corners: NDArray[np.int64]
    rings: NDArray[np.int64]
    parts: NDArray[np.int64]


def _trace(cells: Path) -> _Pieces:
    """Finds the pieces, without those of no data.

    GDAL reads the raster line by line, so that no piece is cut where strips meet; pieces joined by sides alone have
    valid outlines.
    """
    codes: list[int] = []
    parts, rings = [0], [0]
    corners: list[NDArray[np.int64]] = []
    with open_cells(cells) as dataset:
        band = rasterio.band(dataset, 1)
        for geometry, code in shapes(band, mask=band, connectivity=4):
            codes.append(int(code))
            outlines = geometry["coordinates"]
            parts.append(parts[-1] + len(outlines))
            for outline in outlines:
                rings.append(rings[-1] + len(outline))
                corners.append(np.fromiter(chain.from_iterable(outline), np.int64, 2 * len(outline)))
    flat = np.concatenate(corners) if corners else np.empty(0, np.int64)
    return _Pieces(np.array(codes, np.int32), flat.reshape(-1, 2), np.array(rings), np.array(parts))


def _polygons(grid: CellGrid, pieces: _Pieces) -> NDArray[np.object_]:
    """The pieces in coordinates of the grid's CRS.

    Cells are cut at the scene's rectangle by moving their corners there: as each cell has a pixel inside, that is exact
    and keeps neighbours' corners equal.
    """
    columns = np.minimum(pieces.corners[:, 0] * grid.stride, grid.width)
    rows = np.minimum(pieces.corners[:, 1] * grid.stride, grid.height)
    a, b, c, d, e, f = grid.transform[:6]
    points = np.column_stack([a * columns + b * rows + c, d * columns + e * rows + f])
    polygons: NDArray[np.object_] = shapely.from_ragged_array(
        shapely.GeometryType.POLYGON, points, (pieces.rings, pieces.parts)
    )
    return polygons


def _measure(cells: Path, grid: CellGrid, pieces: _Pieces) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Area in hectares and mean confidence (0..1) of each piece, as sums over its cells.

    By Green's theorem on the grid: with S(row, column) the sum of a quantity over all cells above and left of a corner,
    a piece's sum is that of S(end) - S(start) over the vertical sides of its rings. That needs S at corners alone.
    """
    columns, rows = pieces.corners.T
    width = np.minimum(columns * grid.stride, grid.width)
    height = np.concatenate([[0.0], np.cumsum(grid.row_hectares())])
    hectares = _sum_sides(pieces, height[rows] * width)
    count = _sum_sides(pieces, rows * columns)
    percent = _sum_sides(pieces, _confidence_above(cells, rows, columns))
    return np.abs(hectares), percent / count / 100


def _sum_sides(pieces: _Pieces, corner_sums: NDArray[Any]) -> NDArray[Any]:
    """Adds up end - start over the vertical sides of each piece's rings; a sign common to a piece may remain."""
    columns, _ = pieces.corners.T
    steps = np.zeros_like(corner_sums)
    # Neighbours in `corners` that belong to different rings may look like a side too; the last corner of a ring is
    # never the start of one.
    steps[:-1] = np.where(columns[1:] == columns[:-1], corner_sums[1:] - corner_sums[:-1], 0)
    steps[pieces.rings[1:] - 1] = 0
    sums: NDArray[Any] = np.add.reduceat(steps, pieces.rings[pieces.parts[:-1]]) if len(pieces.codes) else steps
    return sums


def _confidence_above(cells: Path, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """(corners,) sum of the confidence in percent of all cells above and left of each corner, strip by strip."""
    sums = np.zeros(len(rows), np.int64)
    order = np.argsort(rows, kind="stable")
    sorted_rows = rows[order]
    above: NDArray[np.int64] | None = None
    for first, _, confidence in read_strips(cells):
        table = np.zeros((confidence.shape[0] + 1, confidence.shape[1] + 1), np.int64)
        np.cumsum(confidence, axis=0, out=table[1:, 1:])
        np.cumsum(table, axis=1, out=table)
        if above is not None:
            table += above
        start, stop = np.searchsorted(sorted_rows, [first + 1, first + len(confidence) + 1])
        here = order[start:stop]
        sums[here] = table[rows[here] - first, columns[here]]
        above = table[-1].copy()
    return sums


def _write_default_style(path: Path, qml: str) -> None:
    """Adds QGIS's table of styles, whose default row goes before any QML file: the one beside is the raster's."""
    row: dict[str, str | bool | None] = {
        "f_table_catalog": "",
        "f_table_schema": "",
        "f_table_name": LAYER,
        "f_geometry_column": GEOMETRY,
        "styleName": LAYER,
        "styleQML": qml,
        "styleSLD": "",
        "useAsDefault": True,
        "description": "Classes by name and colour",
        "owner": "",
        "ui": None,
    }
    values = [np.array([value], bool if isinstance(value, bool) else object) for value in row.values()]
    pyogrio.raw.write(
        path,
        geometry=None,
        field_data=[*values, np.array([EPOCH.rstrip("Z")], "datetime64[ms]")],
        fields=[*row, "update_time"],
        layer="layer_styles",
        driver="GPKG",
    )


@contextmanager
def _fixed_date() -> Iterator[None]:
    """Lets GDAL write one date instead of today's."""
    before = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": EPOCH})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": before})
