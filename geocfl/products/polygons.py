"""Dissolves cells into polygons: traces, places and measures them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.features import shapes

from geocfl.core.areas import METERS_PER_DEGREE
from geocfl.core.grid import CellGrid
from geocfl.core.legend import Legend, LulcClass, shown_classes
from geocfl.products.formats.vector_formats import GEOMETRY
from geocfl.products.scratch import CODE, CONFIDENCE, NOVELTY, band_numbers, open_cells, read_strips


def dissolve(cells: Path, grid: CellGrid, legend: Legend) -> gpd.GeoDataFrame:
    """Makes the polygons of a map.

    A polygon is a connected piece (by sides, not corners) of cells of one class, or of unclassified cells, cut at the
    scene's rectangle. Cells without data have none. Together they form a coverage: where polygons meet, both have
    the same corners, so that borders stay shared when they are reprojected or simplified.

    Args:
        cells: Work raster of `grid.rows` x `grid.columns` cells.
        grid: Where the cells lie.
        legend: Names of the codes.

    Returns:
        Polygons in the grid's CRS with ``class_code``, ``class_name``, ``area_ha`` (sum of the cells' hectares),
        ``confidence`` (mean over the cells, 0..1) and, if the cells have it, ``novelty`` (mean over the cells, 0..100).
    """
    means = {"confidence": (CONFIDENCE, 100)}
    means |= {name: (number, 1) for name in (NOVELTY,) for number in band_numbers(cells, name)}
    return outline(cells, grid, shown_classes(legend, unclassified=True), CODE, means)


def outline(
    cells: Path, grid: CellGrid, classes: Sequence[LulcClass], band: int, means: Mapping[str, tuple[int, int]]
) -> gpd.GeoDataFrame:
    """Makes the polygons of a band of codes, as `dissolve` does.

    Args:
        cells: Work raster of `grid.rows` x `grid.columns` cells.
        grid: Where the cells lie.
        classes: Names of the codes.
        band: Number of the band of codes; 0 has no polygons.
        means: Fields with means over the cells: name to the number of a band, and what its values are divided by.

    Returns:
        Polygons in the grid's CRS with ``class_code``, ``class_name``, ``area_ha`` and the fields of `means`.
    """
    pieces = _trace(cells, band)
    names = {c.code: c.name for c in classes}
    return gpd.GeoDataFrame(
        {
            "class_code": pieces.codes,
            "class_name": [names[code] for code in pieces.codes.tolist()],
            "area_ha": _hectares(grid, pieces),
            **{name: _mean(cells, number, pieces) / scale for name, (number, scale) in means.items()},
        },
        geometry=_polygons(grid, _share_corners(pieces)),
        crs=grid.crs.to_wkt(),
    ).rename_geometry(GEOMETRY)


def first_cells(cells: Path, band: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A cell of each polygon that `outline` makes of a band of codes, in the same order.

    Args:
        cells: Work raster.
        band: Number of the band.

    Returns:
        Rows and columns: in the polygon's uppermost row the leftmost cell.
    """
    pieces = _trace(cells, band)
    columns, rows = pieces.corners.T
    if not len(pieces.codes):
        return rows, columns
    width = int(columns.max()) + 1
    first = np.minimum.reduceat(rows * width + columns, pieces.rings[pieces.parts[:-1]])
    return first // width, first % width


def simplify(polygons: gpd.GeoDataFrame, grid: CellGrid, meters: float) -> gpd.GeoDataFrame:
    """Simplifies polygons; borders stay shared, without overlaps or gaps.

    Coverage simplification by Visvalingam and Whyatt's algorithm in GEOS: it removes corners whose triangle with the
    neighboring corners is smaller than the square of the tolerance. The outer border of all polygons is kept, so that
    the map covers the same area.

    Args:
        polygons: From `dissolve`. Their attributes are kept: areas and confidences remain those of the cells.
        grid: Defines what a meter is, by its CRS.
        meters: Tolerance; 0 changes nothing.

    Returns:
        The polygons; some may have become multipolygons.
    """
    if not meters or polygons.empty:
        return polygons
    units = meters / (METERS_PER_DEGREE if grid.crs.is_geographic else grid.ground_meters_per_unit())
    outlines = shapely.coverage_simplify(polygons.geometry.to_numpy(), units, simplify_boundary=False)
    return polygons.set_geometry(gpd.GeoSeries(outlines, index=polygons.index, crs=polygons.crs, name=GEOMETRY))


@dataclass(frozen=True)
class _Pieces:
    """Connected pieces of equal cells as rings of cell corners, in the order in which GDAL finds them.

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


def _trace(cells: Path, number: int) -> _Pieces:
    """Finds the pieces in a band, except those without data.

    GDAL reads the raster line by line, so that no piece is cut where strips meet. Pieces joined only by sides have
    valid outlines.
    """
    codes: list[int] = []
    parts, rings = [0], [0]
    corners: list[NDArray[np.int64]] = []
    with open_cells(cells) as dataset:
        band = rasterio.band(dataset, number)
        for geometry, code in shapes(band, connectivity=4):  # a mask would have to be of bytes
            if not code:
                continue
            codes.append(int(code))
            outlines = geometry["coordinates"]
            parts.append(parts[-1] + len(outlines))
            for outline in outlines:
                rings.append(rings[-1] + len(outline))
                corners.append(np.fromiter(chain.from_iterable(outline), np.int64, 2 * len(outline)))
    flat = np.concatenate(corners) if corners else np.empty(0, np.int64)
    return _Pieces(np.array(codes, np.int32), flat.reshape(-1, 2), np.array(rings), np.array(parts))


def _share_corners(pieces: _Pieces) -> _Pieces:
    """Adds to every side the corners of other pieces that lie on it."""
    first = pieces.corners
    second = np.roll(first, -1, axis=0)
    across = first[:, 1] == second[:, 1]  # sides along a row; the others run along a column
    known: list[NDArray[np.int64]] = []
    low, high = np.zeros(len(first), np.int64), np.zeros(len(first), np.int64)
    rise = (second - first).sum(axis=1) > 0
    base = 0
    for along, sides in ((0, across), (1, ~across)):
        # Corners in their order along the lines of the grid.
        span = first[:, along].max(initial=0) + 1
        keys = np.unique(first[:, 1 - along] * span + first[:, along])
        start, end = (points[sides, 1 - along] * span + points[sides, along] for points in (first, second))
        low[sides] = base + np.searchsorted(keys, np.minimum(start, end), "right")
        high[sides] = base + np.searchsorted(keys, np.maximum(start, end), "left")
        line, place = np.divmod(keys, span)
        known.append(np.column_stack([line, place] if along else [place, line]))
        base += len(keys)
    inner = np.maximum(high - low, 0)
    inner[pieces.rings[1:] - 1] = 0  # a ring's last corner is its first; no side begins there
    places = np.concatenate([[0], np.cumsum(1 + inner)])
    corners = np.repeat(first, 1 + inner, axis=0)
    side = np.repeat(np.arange(len(first)), inner)
    nth = np.arange(len(side)) - np.repeat(np.cumsum(inner) - inner, inner)
    corners[places[side] + 1 + nth] = np.concatenate(known)[np.where(rise[side], low[side] + nth, high[side] - 1 - nth)]
    return _Pieces(pieces.codes, corners, places[pieces.rings], pieces.parts)


def _polygons(grid: CellGrid, pieces: _Pieces) -> NDArray[np.object_]:
    """The pieces in coordinates of the grid's CRS.

    Cells are cut at the scene's rectangle by moving their corners there. This is exact, since each cell has a pixel
    inside, and keeps the corners of neighbors equal.
    """
    columns = np.minimum(pieces.corners[:, 0] * grid.stride, grid.width)
    rows = np.minimum(pieces.corners[:, 1] * grid.stride, grid.height)
    a, b, c, d, e, f = grid.transform[:6]
    points = np.column_stack([a * columns + b * rows + c, d * columns + e * rows + f])
    polygons: NDArray[np.object_] = shapely.from_ragged_array(
        shapely.GeometryType.POLYGON, points, (pieces.rings, pieces.parts)
    )
    return polygons


def _hectares(grid: CellGrid, pieces: _Pieces) -> NDArray[np.float64]:
    """Area of each piece: the sum over its cells."""
    columns, rows = pieces.corners.T
    areas = grid.areas()
    above = np.zeros(len(rows))
    for row_areas, column_areas in zip(areas.rows, areas.columns, strict=True):
        height, width = (np.concatenate([[0.0], np.cumsum(sizes)]) for sizes in (row_areas, column_areas))
        above += height[rows] * width[columns]
    hectares: NDArray[np.float64] = np.abs(_sum_sides(pieces, above))
    return hectares


def _mean(cells: Path, band: int, pieces: _Pieces) -> NDArray[np.float64]:
    """Mean of a band of the work raster over the cells of each piece."""
    columns, rows = pieces.corners.T
    total = _sum_sides(pieces, _sums_above(cells, band, rows, columns))
    mean: NDArray[np.float64] = total / _sum_sides(pieces, rows * columns)
    return mean


def _sum_sides(pieces: _Pieces, corner_sums: NDArray[Any]) -> NDArray[Any]:
    """Sums of a quantity over the cells of each piece; a sign common to all sums of a piece may remain.

    By Green's theorem on the grid: with S(row, column) the sum over all cells above and left of a corner, a piece's sum
    is that of S(end) - S(start) over the vertical sides of its rings. That needs S only at corners.
    """
    columns, _ = pieces.corners.T
    steps = np.zeros_like(corner_sums)
    # Neighbors in `corners` from different rings may look like a side; the last corner of a ring never starts one.
    steps[:-1] = np.where(columns[1:] == columns[:-1], corner_sums[1:] - corner_sums[:-1], 0)
    steps[pieces.rings[1:] - 1] = 0
    sums: NDArray[Any] = np.add.reduceat(steps, pieces.rings[pieces.parts[:-1]]) if len(pieces.codes) else steps
    return sums


def _sums_above(cells: Path, band: int, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """(corners,) sum of a band over all cells above and left of each corner, strip by strip."""
    sums = np.zeros(len(rows), np.int64)
    order = np.argsort(rows, kind="stable")
    sorted_rows = rows[order]
    above: NDArray[np.int64] | None = None
    for first, (values,) in read_strips(cells, [band]):
        table = np.zeros((values.shape[0] + 1, values.shape[1] + 1), np.int64)
        np.cumsum(values, axis=0, out=table[1:, 1:])
        np.cumsum(table, axis=1, out=table)
        if above is not None:
            table += above
        start, stop = np.searchsorted(sorted_rows, [first + 1, first + len(values) + 1])
        here = order[start:stop]
        sums[here] = table[rows[here] - first, columns[here]]
        above = table[-1].copy()
    return sums
