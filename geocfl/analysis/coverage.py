"""How much of each class lies in each zone: cells count by the part that a zone covers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyproj
import shapely
from affine import Affine
from exactextract import Operation, exact_extract
from exactextract.feature import FeatureSource, JSONFeature
from exactextract.raster import RasterSource
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from geocfl.analysis.reproject import Polygons, far_off, longest_side, onto_map, polygonal
from geocfl.core.areas import SQUARE_METERS_PER_HECTARE
from geocfl.core.grid import CellGrid
from geocfl.core.legend import UNCLASSIFIED
from geocfl.core.progress import Progress
from geocfl.errors import DataError
from geocfl.products.change_map import ChangeMap
from geocfl.products.scene_map import SceneMap
from geocfl.products.storage import open_raster

log = logging.getLogger("geocfl")

CELLS_AT_A_TIME = 4_000_000


@dataclass(frozen=True)
class PlacedZones:
    """Zones in the cells of a map: x is the column, y the row counted upward from the map's lower edge.

    The grid's transform is affine, so fractions of cells are the same there as on the map, whatever its CRS and
    rotation, and the scene's rectangle, at which zones are cut, is exact.

    Attributes:
        shapes: (Z,) the part of each zone that lies on the map; empty if none does.
        cut: (Z,) whether a part of the zone lies outside the map.
    """

    shapes: Polygons
    cut: NDArray[np.bool_]


def place_zones(path: Path, outlines: gpd.GeoSeries, finished: SceneMap | ChangeMap) -> PlacedZones:
    """Places zones on a map: reprojects them if needed, and cuts them at the scene's rectangle.

    Args:
        path: Their file, for messages.
        outlines: (Z,) their polygons.
        finished: The map.

    Raises:
        DataError: They cannot be reprojected, or none overlaps the map.
    """
    grid = finished.grid
    crs = pyproj.CRS.from_wkt(grid.crs.to_wkt())
    if outlines.crs != crs:
        log.info("%s: reprojected from %s to the map's %s", path, outlines.crs.name, crs.name)
    shapes = onto_map(path, outlines.to_numpy(), outlines.crs, grid)
    to_cell = ~_from_cells(grid)
    shapes = shapely.transform(shapes, lambda x, y: to_cell @ (x, y), interleaved=False)
    if (invalid := ~shapely.is_valid(shapes)).any():
        shapes[invalid] = shapely.make_valid(shapes[invalid], method="structure", keep_collapsed=False)
    scene = shapely.box(0, grid.rows - grid.height / grid.stride, grid.width / grid.stride, grid.rows)
    cut = ~shapely.covered_by(shapes, scene)
    shapes[cut] = polygonal(shapely.intersection(shapes[cut], scene))
    if elsewhere := int(shapely.is_empty(shapes).sum()):
        if elsewhere == len(shapes):
            raise DataError(f"{path}: no zone overlaps {finished.path}; pass zones, or a map, of the same place")
        log.warning("%s: %d of %d zones do not overlap %s", path, elsewhere, len(shapes), finished.path)
    return PlacedZones(shapes, cut | far_off(outlines.to_numpy(), outlines.crs, grid))


def _from_cells(grid: CellGrid) -> Affine:
    """Transform from cells, with y upward, to coordinates."""
    return grid.cell_transform @ Affine(1, 0, 0, 0, -1, grid.rows)


class _Cells(RasterSource):  # type: ignore[misc]
    """A raster of a map's cells, read by window; it has a value everywhere."""

    def __init__(self, name: str, columns: int, rows: int) -> None:
        super().__init__()
        self.set_name(name)  # exactextract takes sources without a name for the same
        self._size = columns, rows

    def res(self) -> tuple[float, float]:
        return 1.0, 1.0

    def extent(self) -> tuple[float, float, float, float]:
        columns, rows = self._size
        return 0.0, 0.0, float(columns), float(rows)

    def nodata_value(self) -> None:
        return None

    def srs_wkt(self) -> None:
        return None


class _Hectares(_Cells):
    """Hectares of whole cells; of a cell that the scene's rectangle cuts, zones cover only the part inside."""

    def __init__(self, grid: CellGrid) -> None:
        super().__init__("weights", grid.columns, grid.rows)
        areas = grid.areas()
        self._rows = areas.rows * grid.stride**2 / grid.row_pixels()
        self._columns = areas.columns / grid.column_pixels()

    def read_window(self, x0: int, y0: int, nx: int, ny: int) -> NDArray[np.float64]:
        hectares: NDArray[np.float64] = self._rows[:, y0 : y0 + ny].T @ self._columns[:, x0 : x0 + nx]
        return hectares


class _Codes(_Cells):
    """A class raster; no data is a code like the others."""

    def __init__(self, dataset: Any) -> None:
        super().__init__("codes", dataset.width, dataset.height)
        self._dataset = dataset

    def read_window(self, x0: int, y0: int, nx: int, ny: int) -> NDArray[np.uint8]:
        codes: NDArray[np.uint8] = self._dataset.read(1, window=Window(x0, y0, nx, ny))
        return codes


class _Shape(JSONFeature):  # type: ignore[misc]
    """A polygon that is passed on as binary."""

    def __init__(self, shape: shapely.Geometry) -> None:
        super().__init__()
        self._wkb: bytes = shapely.to_wkb(shape)

    def geometry(self) -> bytes:
        return self._wkb


class _Shapes(FeatureSource):  # type: ignore[misc]
    """Polygons without attributes."""

    def __init__(self, shapes: Polygons) -> None:
        super().__init__()
        self._shapes = shapes

    def count(self) -> int:
        return len(self._shapes)

    def __iter__(self) -> Iterator[_Shape]:
        return map(_Shape, self._shapes)

    def srs_wkt(self) -> None:
        return None


def hectares_by_code(finished: SceneMap, shapes: Polygons, progress: Progress) -> NDArray[np.float64]:
    """Counts hectares of each code in each shape.

    Args:
        finished: The map.
        shapes: (Z,) shapes in its cells, as in `PlacedZones`.
        progress: Called with the zones that are done.

    Returns:
        (Z, 256) hectares.

    Raises:
        DataError: The map holds a code that its legend lacks, or cannot be decoded.
    """
    grid = finished.grid
    out = np.zeros((len(shapes), 256))
    with open_raster(finished.path) as dataset:
        codes = _Codes(dataset)
        weights = _Hectares(grid)
        operations = [
            Operation("sum", "hectares", weights),
            Operation("unique", "codes", codes, weights),
            Operation("weighted_frac", "shares", codes, weights),
        ]
        present = np.flatnonzero(~shapely.is_empty(shapes))

        def tell(share: float, _: str) -> None:
            progress("zones", round(share * len(present)), len(present), "zone")

        try:
            features = exact_extract(
                codes, _Shapes(shapes[present]), operations, max_cells_in_memory=CELLS_AT_A_TIME, progress=tell
            )
        except RasterioError as error:
            raise DataError(f"{finished.path}: its cells cannot be decoded; map its scene again") from error
    for zone, feature in zip(present, features, strict=True):
        found = feature["properties"]
        out[zone, found["codes"]] = found["shares"] * found["hectares"]
    strange = [code for code in np.flatnonzero(out.any(axis=0)) if len(finished.legend) < code < UNCLASSIFIED]
    if strange:
        raise DataError(f"{finished.path}: holds code {strange[0]}, which its legend lacks; pass an unchanged map")
    return out


def hectares_outside(outlines: gpd.GeoSeries, placed: PlacedZones, grid: CellGrid) -> NDArray[np.float64]:
    """(Z,) geodesic hectares of each zone outside the map: its whole area less the area on the map."""
    crs = pyproj.CRS.from_wkt(grid.crs.to_wkt())
    cell = _from_cells(grid)
    inside = shapely.transform(placed.shapes[placed.cut], lambda x, y: cell @ (x, y), interleaved=False)
    hectares = np.zeros(len(outlines))
    everything = _geodesic_hectares(outlines.to_numpy()[placed.cut], outlines.crs)
    hectares[placed.cut] = np.maximum(everything - _geodesic_hectares(inside, crs), 0)
    return hectares


def _geodesic_hectares(shapes: Polygons, crs: pyproj.CRS) -> NDArray[np.float64]:
    """(n,) hectares of shapes on the ellipsoid."""
    geographic: Any = crs.geodetic_crs  # every projected or geographic CRS has one
    to_degrees = pyproj.Transformer.from_crs(crs, geographic, always_xy=True)
    # Rings are oriented before longitudes may jump from 180 to -180.
    shapes = shapely.segmentize(shapely.orient_polygons(shapes), longest_side(crs))
    shapes = shapely.transform(shapes, to_degrees.transform, interleaved=False)
    geod = geographic.get_geod()

    def area(shape: Any) -> float:
        west, _, east, _ = shape.bounds
        if crs.is_geographic and east - west > 180:  # inside and outside are ambiguous around the earth
            quarters = [shapely.box(edge, -90, edge + 90, 90) for edge in range(-360, 540, 90)]
            parts = polygonal(shapely.intersection(shape, quarters))
            return float(sum(map(area, shapely.orient_polygons(parts))))
        return abs(float(geod.geometry_area_perimeter(shape)[0]))

    return np.array([area(shape) for shape in shapes]) / SQUARE_METERS_PER_HECTARE
