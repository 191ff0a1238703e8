"""Maps on a common grid of cells: which grid that is, and where each map lies on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import CRSError, RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from geocfl.core.areas import METERS_PER_DEGREE
from geocfl.core.grid import CellGrid
from geocfl.errors import DataError, UsageError
from geocfl.products.scene_map import SceneMap
from geocfl.products.storage import open_raster

ALIGNED = 1e-3
"""Offset in cells up to which a map's cells count as aligned with the mosaic's and are copied unchanged."""
SIDE_POINTS = 101
"""Points along each side of a map that are reprojected to find its place on the grid."""
TORN = 20
"""A projection that puts maps this many times as far apart as they are on the ground has torn them apart."""
TOLERANCE = 1e-3
"""Error in cells that GDAL may make when it reprojects; rasterio fails at 0."""


@dataclass(frozen=True)
class AlignedMap:
    """A map on the grid of a mosaic.

    Attributes:
        map: The map.
        top: First row of the mosaic that the map reaches; negative where the mosaic was cropped.
        bottom: Row after the last.
        left: First column.
        right: Column after the last.
        place: Transform from its cells to the mosaic's; None if it is in another CRS.
    """

    map: SceneMap
    top: int
    bottom: int
    left: int
    right: int
    place: Affine | None

    @property
    def copied(self) -> bool:
        """Whether its cells are cells of the mosaic."""
        if self.place is None:
            return False
        a, b, c, d, e, f = self.place[:6]
        size = max(self.map.grid.rows, self.map.grid.columns)
        off = (size * (a - 1), size * b, c - self.left, size * d, size * (e - 1), f - self.top)
        return bool(max(map(abs, off)) < ALIGNED)

    def read(self, path: Path, grid: CellGrid, rows: slice, columns: slice, bands: int | list[int] = 1) -> NDArray[Any]:
        """Reads cells of one of its rasters; no data where it has none.

        Args:
            path: The raster.
            grid: The mosaic's cells.
            rows: Rows of the mosaic, from `top` to `bottom`.
            columns: Columns of the mosaic, from `left` to `right`.
            bands: Number of a band, which gives an array of two dimensions; or numbers of several, which give three.

        Raises:
            DataError: They cannot be decoded.
        """
        window = Window.from_slices(
            (rows.start - self.top, rows.stop - self.top), (columns.start - self.left, columns.stop - self.left)
        )
        try:
            with open_raster(path) as dataset:
                if self.copied:
                    values: NDArray[Any] = dataset.read(bands, window=window)
                    return values
                with WarpedVRT(
                    dataset,
                    crs=grid.crs,
                    transform=grid.cell_transform @ Affine.translation(self.left, self.top),
                    width=self.right - self.left,
                    height=self.bottom - self.top,
                    resampling=Resampling.nearest,
                    tolerance=TOLERANCE,
                ) as warped:
                    values = warped.read(bands, window=window)
                    return values
        except RasterioError as error:
            raise DataError(f"{path}: its cells cannot be decoded; map its scene again") from error


def place_maps(maps: Sequence[SceneMap], crs: rasterio.CRS) -> tuple[CellGrid, list[AlignedMap]]:
    """Finds the grid of a mosaic, one pixel a cell, and where each map lies on it.

    Args:
        maps: Finished maps, at least one.
        crs: The mosaic's coordinate reference system.

    Returns:
        The grid, and the maps in their order. Its cells are those of the map with the smallest cells in that system;
        if no map is in it, squares about as large as the cells of the first map.

    Raises:
        DataError: A map lies where the system is undefined, or the system tears the maps apart.
    """
    inside = [m for m in maps if m.grid.crs == crs]
    # No map loses detail to coarser ones.
    finest = min(inside, key=lambda m: abs(m.grid.cell_transform.determinant), default=None)
    lattice = finest.grid.cell_transform if finest else _squares(maps[0], crs)
    nearby = map_outline(finest or maps[0], crs, None)[0, 0]
    bounds, places = [], []
    for m in maps:
        place = ~lattice @ m.grid.cell_transform if m.grid.crs == crs else None
        if place is not None:
            corners = np.array([place @ (x, y) for x in (0, m.grid.columns) for y in (0, m.grid.rows)])
        else:
            corners = np.column_stack(~lattice @ tuple(map_outline(m, crs, nearby).T))
        if not np.isfinite(corners).all():
            raise DataError(f"{m.path}: lies where {crs_name(crs)} is undefined; choose another `crs`")
        bounds.append([*np.floor(corners.min(axis=0) + ALIGNED), *np.ceil(corners.max(axis=0) - ALIGNED)])
        places.append(place)
    left, top = np.min(bounds, axis=0)[:2]
    right, bottom = np.max(bounds, axis=0)[2:]
    grid = CellGrid(int(bottom - top), int(right - left), 1, 1, lattice @ Affine.translation(left, top), crs)
    _refuse_torn(maps, grid)
    shift = Affine.translation(-left, -top)
    return grid, [
        AlignedMap(m, int(y0 - top), int(y1 - top), int(x0 - left), int(x1 - left), shift @ place if place else None)
        for m, (x0, y0, x1, y1), place in zip(maps, bounds, places, strict=True)
    ]


def crop(
    grid: CellGrid, placed: Sequence[AlignedMap], rows: slice, columns: slice
) -> tuple[CellGrid, list[AlignedMap]]:
    """Crops a mosaic's grid; returns it with the maps that reach into it."""
    top, left = rows.start, columns.start
    part = CellGrid(
        rows.stop - top, columns.stop - left, 1, 1, grid.cell_transform @ Affine.translation(left, top), grid.crs
    )
    shift = Affine.translation(-left, -top)
    return part, [
        replace(
            p,
            top=p.top - top,
            bottom=p.bottom - top,
            left=p.left - left,
            right=p.right - left,
            place=shift @ p.place if p.place else None,
        )
        for p in placed
        if p.top < rows.stop and p.bottom > top and p.left < columns.stop and p.right > left
    ]


def _squares(example: SceneMap, crs: rasterio.CRS) -> Affine:
    """North-up squares about as large as a map's cells; the side has two digits, corners are multiples of it."""
    grid = example.grid
    column, row = grid.columns / 2, grid.rows / 2
    x, y = _project(grid, crs, np.array([(column, row), (column + 1, row), (column, row + 1)]))
    across, down = np.array([x[1] - x[0], y[1] - y[0]]), np.array([x[2] - x[0], y[2] - y[0]])
    if crs.is_geographic:
        across[0], down[0] = (across[0] + 180) % 360 - 180, (down[0] + 180) % 360 - 180
    area = abs(across[0] * down[1] - across[1] * down[0])
    if not np.isfinite(area):
        raise DataError(f"{example.path}: lies where {crs_name(crs)} is undefined; choose another `crs`")
    side = float(f"{math.sqrt(area):.1e}")
    return Affine(side, 0, 0, 0, -side, 0)


def map_outline(m: SceneMap, crs: rasterio.CRS, nearby: float | None, *, scene: bool = False) -> NDArray[np.float64]:
    """(n, 2) points around a map in a CRS, infinite where it is undefined.

    Args:
        m: The map.
        crs: Coordinate reference system of the points.
        nearby: The points' longitudes are moved to within 180 degrees of this longitude, so that no map is cut at the
            antimeridian; not with None, nor in a CRS that is not geographic.
        scene: Around its scene, beyond which its last row and column of cells may reach.
    """
    rows: float = m.grid.rows
    columns: float = m.grid.columns
    if scene:
        rows, columns = m.grid.height / m.grid.stride, m.grid.width / m.grid.stride
    along = np.linspace(0, 1, SIDE_POINTS)
    edge = np.concatenate([np.zeros(SIDE_POINTS), along, np.ones(SIDE_POINTS), 1 - along])
    points = np.column_stack([columns * np.roll(edge, -SIDE_POINTS), rows * edge])
    x, y = _project(m.grid, crs, points)
    if crs.is_geographic and nearby is not None:
        x = nearby + (x - nearby + 180) % 360 - 180
    return np.column_stack([x, y])


def _project(grid: CellGrid, crs: rasterio.CRS, cells: NDArray[np.float64]) -> tuple[Any, Any]:
    """Coordinates in a CRS of (n, 2) columns and rows of cells; infinite where it is undefined."""
    x, y = grid.cell_transform @ tuple(cells.T)
    if grid.crs == crs:
        return x, y
    projected: tuple[Any, Any] = _transformer(grid.crs.to_wkt(), crs.to_wkt()).transform(x, y)
    return projected


@cache
def _transformer(source: str, target: str) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(source, target, always_xy=True)


def _refuse_torn(maps: Sequence[SceneMap], grid: CellGrid) -> None:
    """Refuses a mosaic much larger than the ground it shows, such as one around the world for two maps at 180 degrees.

    Raises:
        DataError: The mosaic is torn apart.
    """
    degrees = np.concatenate([_degrees(m.grid) for m in maps])
    degrees[:, 0] = (degrees[:, 0] - degrees[0, 0] + 180) % 360 - 180
    width, height = np.ptp(degrees, axis=0) * METERS_PER_DEGREE
    on_ground = math.hypot(width * np.cos(np.radians(degrees[:, 1].mean())), height)
    unit = METERS_PER_DEGREE if grid.crs.is_geographic else grid.meters_per_unit
    west, south, east, north = grid.bounds()
    if math.hypot(east - west, north - south) * unit > TORN * on_ground:
        raise DataError(
            f"{maps[0].path}: {crs_name(grid.crs)} tears the maps apart, as at the antimeridian; "
            "choose another `crs`, such as the UTM zone of one of them"
        )


def _degrees(grid: CellGrid) -> NDArray[np.float64]:
    """(4, 2) longitudes and latitudes of a map's corners."""
    geographic: Any = pyproj.CRS.from_wkt(grid.crs.to_wkt()).geodetic_crs
    corners = np.array([(x, y) for x in (0.0, grid.columns) for y in (0.0, grid.rows)])
    x, y = grid.cell_transform @ tuple(corners.T)
    return np.column_stack(_transformer(grid.crs.to_wkt(), geographic.to_wkt()).transform(x, y))


def parse_crs(text: str | int | rasterio.CRS) -> rasterio.CRS:
    """The coordinate reference system that a text or an EPSG code names.

    Raises:
        UsageError: It names none that is projected or geographic.
    """
    try:
        crs = rasterio.CRS.from_user_input(text)
    except (CRSError, ValueError) as error:
        raise UsageError(f"`crs` is {text}, which is not a coordinate reference system; EPSG:32633 is one") from error
    if not (crs.is_projected or crs.is_geographic):
        raise UsageError(f"`crs` is {text} but must be projected or geographic, such as EPSG:32633")
    return crs


def crs_name(crs: rasterio.CRS) -> str:
    """Common name of a CRS."""
    return crs.to_string() if crs.to_epsg() else str(pyproj.CRS.from_wkt(crs.to_wkt()).name)
