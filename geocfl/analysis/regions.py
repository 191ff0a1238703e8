"""Regions: named polygons, the maps that reach into each, and the part of each that lies on a grid of cells."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import rasterio
import shapely
from shapely.affinity import translate

from geocfl.analysis.alignment import map_outline
from geocfl.analysis.reproject import Polygons, longest_side, onto_map, polygonal, untorn
from geocfl.analysis.zones import read_zones
from geocfl.core.grid import CellGrid
from geocfl.errors import DataError
from geocfl.products.scene_map import SceneMap

WGS84 = rasterio.CRS.from_epsg(4326)
STEM_LENGTH = 60
"""Longest stem of a region's files, characters: file systems allow 255 bytes, and letters take up to 3."""
TURNS = (-360, 0, 360)
"""Degrees by which two longitudes of the same place may differ."""


@dataclass(frozen=True)
class Region:
    """A region that gets its own map.

    Attributes:
        name: Value of the field that names it.
        stem: Beginning of its files' names.
    """

    name: str
    stem: str


class Regions:
    """The regions of a file.

    Attributes:
        path: The file.
        all: The regions, in the order of the file.
    """

    def __init__(self, path: str | Path, by: str, layer: str | None = None) -> None:
        """Reads them.

        Args:
            path: Polygons, in any format that GDAL reads.
            by: Field that names them; polygons of the same name form one region.
            layer: Layer of the file; needed if it has several.

        Raises:
            DataError: The file holds no polygons, a region without a name, or two whose files would have the same name.
            UsageError: It has no such layer or field.
        """
        self.path = Path(path)
        found, self._outlines = read_zones(self.path, layer, by)
        names = ["" if name is None else str(name) for name in found]
        self.all = [Region(name, file_stem(name)) for name in names]
        taken: dict[str, Region] = {}
        for region in self.all:
            if not region.stem:
                raise DataError(f"{self.path}: holds a region whose {by} is {region.name!r}; give it a name")
            other = taken.setdefault(region.stem.casefold(), region)  # file systems may not tell A from a
            if other is not region:
                raise DataError(
                    f"{self.path}: the maps of {other.name!r} and {region.name!r} would both be called "
                    f"{region.stem}_lulc.tif; rename one of them"
                )

    def reached_by(self, maps: Sequence[SceneMap]) -> list[list[SceneMap]]:
        """Finds, for each region, the maps that reach into it, in their order.

        Raises:
            DataError: The regions cannot be reprojected.
        """
        footprints, numbers = map_footprints(maps)
        tree = shapely.STRtree(footprints)
        found = []
        for shape in self._in_degrees():
            near = tree.query(shape, predicate="intersects")
            reaches = (
                shapely.area(shapely.intersection(tree.geometries[near], shape)) > 0
            )  # a map beside it only touches
            found.append([maps[number] for number in sorted({numbers[index] for index in near[reaches]})])
        return found

    def _in_degrees(self) -> Polygons:
        """The regions in longitude and latitude; a region across 180 degrees continues beyond."""
        if pyproj.CRS(self._outlines.crs).is_geographic:  # straight sides stay straight
            straight: Polygons = self._outlines.to_crs(WGS84.to_wkt()).to_numpy()
            return straight
        return self.outlines(WGS84)

    def outlines(self, crs: rasterio.CRS) -> Polygons:
        """The regions in a coordinate reference system, whole; in degrees, one across 180 degrees continues beyond.

        Raises:
            DataError: They cannot be reprojected.
        """
        source, target = pyproj.CRS(self._outlines.crs), pyproj.CRS.from_wkt(crs.to_wkt())
        if source == target:
            same: Polygons = self._outlines.to_numpy()
            return same
        to = "longitude and latitude, EPSG:4326" if crs == WGS84 else target.name
        remedy = f"{self.path}: its {source.name} cannot be reprojected; reproject it to {to}"
        try:
            transformer = pyproj.Transformer.from_crs(source, target, always_xy=True)
        except pyproj.exceptions.ProjError as error:
            raise DataError(remedy) from error
        shapes = shapely.segmentize(self._outlines.to_numpy(), longest_side(source))
        shapes = shapely.transform(shapes, transformer.transform, interleaved=False)
        if not np.isfinite(shapely.get_coordinates(shapes)).all():
            raise DataError(remedy)
        whole: Polygons = shapely.make_valid(untorn(shapes) if target.is_geographic else shapes)
        return whole

    def on_grid(self, number: int, grid: CellGrid) -> Any:
        """The part of a region that lies on a grid, as a shape in cells: x is the column, y the row; may be empty.

        Args:
            number: Index of the region, from 0.
            grid: The cells, one pixel each.

        Raises:
            DataError: It cannot be reprojected.
        """
        shapes = onto_map(self.path, self._outlines.iloc[[number]].to_numpy(), pyproj.CRS(self._outlines.crs), grid)
        to_cell = ~grid.cell_transform
        shapes = shapely.make_valid(shapely.transform(shapes, lambda x, y: to_cell @ (x, y), interleaved=False))
        inside = polygonal(shapely.intersection(shapes, shapely.box(0, 0, grid.columns, grid.rows)))
        return shapely.union_all(inside)


def map_footprints(maps: Sequence[SceneMap]) -> tuple[list[Any], list[int]]:
    """Footprints of maps in longitude and latitude, each also a turn of the earth to the west and to the east.

    Returns:
        The polygons, and the index of the map of each; none for a map whose place is unknown.
    """
    footprints, numbers = [], []
    for number, m in enumerate(maps):
        points = map_outline(m, WGS84, None)
        points = map_outline(m, WGS84, points[0, 0])
        points = points[np.isfinite(points).all(axis=1)]
        if len(points) < 3:
            continue
        for turn in TURNS:
            footprints.append(shapely.make_valid(translate(shapely.Polygon(points), turn)))
            numbers.append(number)
    return footprints, numbers


def file_stem(name: str) -> str:
    """Makes a file name of a name: keeps letters of any script, digits, dots and hyphens; the rest becomes underscores.

    Args:
        name: Such as ``"Nord/Pas de Calais"``, which becomes ``"Nord_Pas_de_Calais"``.

    Returns:
        The stem; empty if no character is left.
    """
    safe = re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", name))
    return safe[:STEM_LENGTH].strip("._-")
