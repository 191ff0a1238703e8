"""Tiles of a mosaic: the 100 km squares of the Military Grid Reference System, or the polygons of a file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import rasterio
import shapely
from shapely.affinity import translate

from geocfl.analysis.regions import WGS84, Regions, map_footprints
from geocfl.analysis.reproject import longest_side
from geocfl.core.grid import CellGrid
from geocfl.errors import DataError, UsageError
from geocfl.products.scene_map import SceneMap

MGRS = "mgrs"
SQUARE = 100_000
"""Side of a square of the Military Grid Reference System, meters."""
ZONE_DEGREES = 6
SOUTH, NORTH = -80, 84
"""Latitudes between which it has UTM zones; around the poles it has others."""
NORWAY, SVALBARD = (56, 64), (72, 84)
"""Latitudes where its zones are not all 6 degrees wide."""
WIDER = {
    NORWAY: {31: (0, 3), 32: (3, 12)},
    SVALBARD: {31: (0, 9), 32: (0, 0), 33: (9, 21), 34: (0, 0), 35: (21, 33), 36: (0, 0), 37: (33, 42)},
}
"""Longitudes of the zones there; zones of the same two do not exist."""


@dataclass(frozen=True)
class Tile:
    """A tile that gets its own mosaic.

    Attributes:
        name: Its name.
        stem: Beginning of its files' names.
        crs: Coordinate reference system of its mosaic.
        square: Polygon in it that the mosaic covers.
        part: Polygon outside which the square's cells have no data; None if the square lies in it.
        maps: The maps that reach into it.
    """

    name: str
    stem: str
    crs: rasterio.CRS
    square: Any
    part: Any
    maps: tuple[SceneMap, ...]

    def on_grid(self, lattice: CellGrid) -> tuple[slice, slice, Any]:
        """The rows and columns that it covers on the cells of a grid, and its part as a shape in these cells.

        Sides of rectangles are moved to the nearest border of cells, so that neighbors share no cell and omit none.

        Args:
            lattice: Cells of its CRS, one pixel each; the tile may reach beyond them.
        """
        square, part = (self._in_cells(shape, lattice) for shape in (self.square, self.part))
        if shapely.equals_exact(shapely.normalize(square), shapely.normalize(shapely.box(*square.bounds)), 1e-6):
            left, top, right, bottom = (math.floor(edge + 0.5) for edge in square.bounds)
        else:
            left, top, right, bottom = _outward(square)
            part = square if part is None else shapely.intersection(square, part)
        if part is not None:
            west, north, east, south = _outward(shapely.intersection(square, part))
            left, top, right, bottom = max(left, west), max(top, north), min(right, east), min(bottom, south)
            part = translate(part, -left, -top)
        return slice(top, bottom), slice(left, right), part

    @staticmethod
    def _in_cells(shape: Any, lattice: CellGrid) -> Any:
        """A shape of the CRS in cells: x is the column, y the row."""
        if shape is None:
            return None
        if lattice.crs.is_geographic:  # the same longitudes as the cells
            middle = lattice.cell_transform @ (lattice.columns / 2, lattice.rows / 2)
            shape = translate(shape, 360 * round((middle[0] - shape.centroid.x) / 360))
        to_cell = ~lattice.cell_transform
        return shapely.make_valid(shapely.transform(shape, lambda x, y: to_cell @ (x, y), interleaved=False))


def tiles_of(
    grid: str | Path, maps: Sequence[SceneMap], by: str | None, layer: str | None, crs: rasterio.CRS | None
) -> list[Tile]:
    """The tiles of a grid that maps reach into, each in the coordinate reference system of its mosaic.

    Args:
        grid: ``"mgrs"``, or a file of polygons in any format that GDAL reads.
        maps: The maps.
        by: Field that names the polygons.
        layer: Layer of the file, if it has several.
        crs: That of the mosaics of a file's polygons; the first map's by default. Those of MGRS are in their UTM zones.

    Raises:
        UsageError: A package is missing, arguments do not fit the grid, or the file has no such layer or field.
        DataError: The file cannot be read or reprojected, or no map reaches into a tile.
    """
    if grid_name(grid) == MGRS:
        if by or layer or crs:
            raise UsageError("`by`, `layer` and `crs` belong to polygons; leave them out with the `grid` mgrs")
        tiles = list(_mgrs_tiles(maps))
    else:
        if not Path(grid).suffix and not Path(grid).exists():
            raise UsageError(f"`grid` is {grid} but must be {MGRS} or a file of polygons")
        if not by:
            raise UsageError(f"{grid}: pass the field that names its tiles as `by`, or use the `grid` mgrs")
        named = Regions(grid, by, layer)
        common = crs or maps[0].grid.crs
        shapes, reached = named.outlines(common), named.reached_by(maps)
        tiles = [
            Tile(region.name, region.stem, common, shape, None, tuple(here))
            for region, shape, here in zip(named.all, shapes, reached, strict=True)
            if here
        ]
    if not tiles:
        raise DataError(f"{grid}: no map reaches into any tile; pass tiles, or maps, of the same place")
    return tiles


def grid_name(grid: str | Path) -> str:
    """What the summaries of tiles call their grid: ``"mgrs"``, or the name of the file."""
    return MGRS if str(grid).lower() == MGRS else Path(grid).name


def _mgrs_tiles(maps: Sequence[SceneMap]) -> Iterator[Tile]:
    """The squares of every UTM zone that maps reach into, cut at the zone's borders."""
    if not find_spec("mgrs"):
        raise UsageError("`grid` is mgrs, which needs the package mgrs; run: pip install mgrs")
    footprints, numbers = map_footprints(maps)
    tree = shapely.STRtree(footprints)
    for zone in range(1, 61):
        for north in (False, True):
            ground = _zone(zone, north)
            near = tree.query(ground, predicate="intersects")
            if not near.size:
                continue
            crs = rasterio.CRS.from_epsg((32600 if north else 32700) + zone)
            to_zone = pyproj.Transformer.from_crs(WGS84.to_wkt(), crs.to_wkt(), always_xy=True)
            reached = shapely.intersection(tree.geometries[near], ground)
            inside = _projected(reached, to_zone)
            whole = _projected(np.array([shapely.intersection(ground, _band(reached))]), to_zone)[0]
            yield from _squares(inside, [maps[numbers[index]] for index in near], whole, crs, to_zone)


def _squares(
    reached: Any, maps: Sequence[SceneMap], zone: Any, crs: rasterio.CRS, to_zone: pyproj.Transformer
) -> Iterator[Tile]:
    """The squares of a zone that the parts of maps in it reach into, from the south-west on.

    Args:
        reached: (n,) parts of the maps in the zone's coordinates.
        maps: The n maps.
        zone: The zone.
        crs: Its coordinate reference system.
        to_zone: Leads there from longitude and latitude.
    """
    import mgrs  # a wrapper of GeoTrans, the reference for the names; it has wheels

    tree = shapely.STRtree(reached)
    west, south, east, north = shapely.total_bounds(reached)
    for row in range(math.floor(south / SQUARE), math.ceil(north / SQUARE)):
        for column in range(math.floor(west / SQUARE), math.ceil(east / SQUARE)):
            square = shapely.box(column * SQUARE, row * SQUARE, (column + 1) * SQUARE, (row + 1) * SQUARE)
            part = shapely.intersection(square, zone)
            near = tree.query(part, predicate="intersects")
            near = near[shapely.area(shapely.intersection(tree.geometries[near], part)) > 0]
            if not near.size:
                continue
            place = part.representative_point()
            longitude, latitude = to_zone.transform(place.x, place.y, direction="INVERSE")
            name = mgrs.MGRS().toMGRS(latitude, longitude, MGRSPrecision=0)
            cut = None if part.area > square.area - 1 else zone
            found = {maps[index].path: maps[index] for index in sorted(near)}
            yield Tile(name, name, crs, square, cut, tuple(found.values()))


def _zone(zone: int, north: bool) -> Any:
    """The ground of a UTM zone in longitude and latitude, in one hemisphere."""
    west = -180 + ZONE_DEGREES * (zone - 1)
    if not north:
        return shapely.box(west, SOUTH, west + ZONE_DEGREES, 0)
    edges = [0, *NORWAY, *SVALBARD]
    parts = []
    for low, high in pairwise(edges):
        start, stop = WIDER.get((low, high), {}).get(zone, (west, west + ZONE_DEGREES))
        if start < stop:
            parts.append(shapely.box(start, low, stop, high))
    return shapely.union_all(parts)


def _band(shapes: Any) -> Any:
    """The latitudes of shapes and two degrees more on both sides, more than a square, around the earth."""
    _, south, _, north = shapely.total_bounds(shapes)
    return shapely.box(-180, max(south - 2, SOUTH), 180, min(north + 2, NORTH))


def _projected(shapes: Any, to_zone: pyproj.Transformer) -> Any:
    """Shapes of longitudes and latitudes in a zone's coordinates."""
    divided = shapely.segmentize(shapes, longest_side(pyproj.CRS.from_wkt(WGS84.to_wkt())))
    return shapely.make_valid(shapely.transform(divided, to_zone.transform, interleaved=False))


def _outward(shape: Any) -> tuple[int, int, int, int]:
    """The cells that a shape touches: first column and row, column and row after the last."""
    left, top, right, bottom = shape.bounds
    return math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)
