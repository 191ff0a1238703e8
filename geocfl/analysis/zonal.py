"""Hectares of each class in each zone: polygons over a finished map, cells counted by the part that a zone covers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pyproj
import shapely
from affine import Affine
from exactextract import Operation, exact_extract
from exactextract.feature import FeatureSource, JSONFeature
from exactextract.raster import NumPyRasterSource, RasterSource
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.windows import Window

from geocfl.analysis.reproject import Polygons, longest_side, onto_map, polygonal
from geocfl.core.files import put_into_place, refuse_what_is_in_the_way
from geocfl.core.grid import SQUARE_METRES_PER_HECTARE, CellGrid
from geocfl.core.legend import NODATA, UNCLASSIFIED, WITHHELD, Legend
from geocfl.core.progress import Progress, silent
from geocfl.core.table import align
from geocfl.errors import DataError, UsageError, did_you_mean
from geocfl.products.formats.vector import fixed_date
from geocfl.products.polygons import GEOMETRY
from geocfl.products.scene_map import SceneMap, georeferenced
from geocfl.products.storage import open_raster

log = logging.getLogger("geocfl")

LAYER = "zones"
"""Layer of the GeoPackage that is written."""
ENDINGS = (".csv", ".gpkg")
CELLS_AT_A_TIME = 4_000_000
SHOWN = 0.005
"""Hectares from which a line of the text table is not all zeros."""


@dataclass(frozen=True, eq=False, repr=False)
class ZoneTable:
    """Hectares by zone and class.

    Attributes:
        legend: The map's.
        zones: (Z,) zones as ``--by`` names them, in the order of the file; numbers from 1 without it.
        hectares: (Z, N) of each class.
        unclassified: (Z,) hectares with data whose class was withheld.
        nodata: (Z,) hectares on the map without data.
        outside: (Z,) hectares of the zone beyond the map, geodesic: the map's projection does not reach everywhere.
        outlines: (Z,) the zones' polygons, in the coordinate reference system of their file.
    """

    legend: Legend
    zones: list[int] | list[str]
    hectares: NDArray[np.float64]
    unclassified: NDArray[np.float64]
    nodata: NDArray[np.float64]
    outside: NDArray[np.float64]
    outlines: gpd.GeoSeries

    def frame(self) -> pd.DataFrame:
        """The long form, one row a zone and class; zones and classes in order, what has no class after the classes.

        Its columns are zone, code (missing for what is outside the map), class, hectares and share, 0..1, of the
        zone's hectares that have a class (missing for the others, and where none has).
        """
        names = [*self.legend.names, WITHHELD.name, "No data", "Outside the map"]
        codes = [*(c.code for c in self.legend), UNCLASSIFIED, NODATA, None]
        hectares = np.column_stack([self.hectares, self.unclassified, self.nodata, self.outside])
        classified = self.hectares.sum(axis=1, keepdims=True)
        share = np.full(hectares.shape, np.nan)
        np.divide(self.hectares, classified, out=share[:, : len(self.legend)], where=classified > 0)
        return pd.DataFrame(
            {
                "zone": [zone for zone in self.zones for _ in names],
                "code": pd.array(codes * len(self.zones), "Int64"),
                "class": names * len(self.zones),
                "hectares": hectares.ravel(),
                "share": share.ravel(),
            }
        )

    def wide(self) -> gpd.GeoDataFrame:
        """The wide form, one row a zone with its polygon: a field of hectares for each class and for what has none."""
        columns = dict(zip(hectare_fields(self.legend), self.hectares.T, strict=True))
        rest = {"unclassified_ha": self.unclassified, "nodata_ha": self.nodata, "outside_ha": self.outside}
        return gpd.GeoDataFrame({"zone": self.zones, **columns, **rest}, geometry=self.outlines).rename_geometry(
            GEOMETRY
        )

    def table(self) -> str:
        """What there is in each zone as aligned plain text, without a newline at its end."""
        lines = [("zone", "code", "class", "hectares", "share")]
        frame = self.frame()
        for zone, code, name, hectares, share in frame[frame.hectares >= SHOWN].itertuples(index=False):
            number = "" if pd.isna(code) else str(code)
            lines.append((str(zone), number, name, f"{hectares:,.2f}", "" if pd.isna(share) else f"{share:.1%}"))
        return align(lines, text_columns=[0, 2])

    def __repr__(self) -> str:
        """One line: how many zones, how much of them is mapped."""
        hectares = f"{self.hectares.sum():,.0f} ha of {len(self.legend)} classes"
        outside = f", {self.outside.sum():,.0f} ha beyond the map" if self.outside.sum() >= SHOWN else ""
        return f"<ZoneTable: {len(self.zones):,} zone{'' if len(self.zones) == 1 else 's'}, {hectares}{outside}>"

    def _repr_html_(self) -> str:
        frame = self.frame()
        return str(
            frame[frame.hectares >= SHOWN].to_html(index=False, na_rep="", max_rows=60, float_format="{:,.3f}".format)
        )


def stats(
    map: SceneMap | str | Path,
    zones: str | Path,
    *,
    by: str | None = None,
    layer: str | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> ZoneTable:
    """Counts hectares of each class in each zone, cells in part where a zone covers them in part.

    Areas are those of the map's cells, cut at the scene's rectangle: planar in a projected coordinate reference system,
    geodesic in a geographic one, so that a zone around the whole scene has the hectares of its summary. Zones in
    another system are reprojected.

    Args:
        map: A finished map or mosaic, or what `geocfl.open_map` opens one from.
        zones: Polygons, in any format that GDAL reads.
        by: Field that names the zones: polygons of the same value are one zone. Each polygon is a zone by default.
        layer: Layer of `zones`; needed where there are several.
        out: Also write ``.csv`` (the long form) or ``.gpkg`` (the wide form, layer ``zones``).
        overwrite: Replace `out`.
        progress: Told how many zones are counted.

    Raises:
        DataError: `map` is no map, or `zones` holds no polygons, has no coordinate reference system, or lies elsewhere.
        UsageError: `out` has another ending, or `zones` has no such layer or field.
        OutputError: `out` is in the way, or cannot be written.
    """
    target = Path(out) if out else None
    if target and target.suffix.lower() not in ENDINGS:
        raise UsageError(f"--out {target}: ends in neither .csv nor .gpkg; choose one of them")
    if target:
        refuse_what_is_in_the_way(target, overwrite=overwrite)
    finished, source = georeferenced(map), Path(zones)
    names, outlines = read_zones(source, layer, by)
    placed = _place(source, outlines, finished)
    by_code = _hectares(finished, placed.shapes, progress)
    legend = finished.legend
    table = ZoneTable(
        legend=legend,
        zones=names,
        hectares=by_code[:, 1 : len(legend) + 1],
        unclassified=by_code[:, UNCLASSIFIED],
        nodata=by_code[:, NODATA],
        outside=_outside(outlines, placed, finished.grid),
        outlines=outlines,
    )
    if target:
        _write(table, target)
    return table


def hectare_fields(legend: Legend) -> list[str]:
    """Names of the fields of hectares, such as ``"annual_crop_ha"``; different ones even where class names are not."""
    taken = ["zone", "unclassified_ha", "nodata_ha", "outside_ha"]
    for c in legend:
        name = "_".join("".join(s if s.isalnum() else " " for s in c.name.lower()).split())
        field = f"{name or 'class'}_ha"
        taken.append(field if field not in taken else f"{name or 'class'}_{c.code}_ha")
    return taken[4:]


def read_zones(path: Path, layer: str | None, by: str | None) -> tuple[list[int] | list[str], gpd.GeoSeries]:
    """Reads zones or regions.

    Args:
        path: Polygons, in any format that GDAL reads.
        layer: Layer of the file; needed where several have geometries.
        by: Field that names them, polygons of the same value are one; numbered from 1 without it.

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
            raise UsageError(f"{path}: has no field {by!r} to name zones --by; {did_you_mean(by, fields)}{has}")
        frame = pyogrio.read_dataframe(path, layer=layer, columns=[by] if by else [], force_2d=True)
    except (DataSourceError, DataLayerError) as error:
        raise DataError(f"{path}: not a vector file that GDAL reads; pass polygons, such as a GeoPackage") from error
    polygons = frame.geometry
    if not len(polygons):
        raise DataError(f"{path}: holds no features; pass polygons")
    if polygons.crs is None:
        raise DataError(
            f"{path}: has no coordinate reference system; "
            "add its own, such as ogr2ogr -a_srs EPSG:4326 zones.gpkg, and pass that"
        )
    others = sorted(set(polygons.geom_type.dropna()) - {"Polygon", "MultiPolygon"})
    if others:
        raise DataError(f"{path}: holds {' and '.join(others)} features, but zones are polygons; pass a layer of those")
    polygons = _repaired(path, polygons)
    if by is None:
        return list(range(1, len(polygons) + 1)), polygons.reset_index(drop=True)
    one = gpd.GeoDataFrame({"zone": _labels(frame[by])}, geometry=polygons).dissolve("zone", sort=False)
    return list(one.index), one.geometry.reset_index(drop=True)


def _choose_layer(path: Path, layer: str | None) -> str:
    """The layer asked for, or the only one that has geometries."""
    spatial = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
    if not spatial:
        raise DataError(f"{path}: has no geometries; pass polygons")
    if layer is None and len(spatial) > 1:
        raise UsageError(f"{path}: has several layers; choose one with --layer: {', '.join(spatial)}")
    if layer is not None and layer not in spatial:
        remedy = f"{did_you_mean(layer, spatial)}choose from: {', '.join(spatial)}"
        raise UsageError(f"{path}: has no layer {layer!r} of geometries; {remedy}")
    return layer or spatial[0]


def _repaired(path: Path, polygons: gpd.GeoSeries) -> gpd.GeoSeries:
    """Valid polygons, an empty one where a feature has none."""
    shapes: Polygons = polygons.to_numpy(copy=True)
    shapes[shapely.is_missing(shapes)] = shapely.Polygon()
    if count := int((invalid := ~shapely.is_valid(shapes)).sum()):
        log.info("%s: %d invalid polygon%s repaired, as by ST_MakeValid", path, count, "" if count == 1 else "s")
        shapes[invalid] = shapely.make_valid(shapes[invalid], method="structure", keep_collapsed=False)
    return gpd.GeoSeries(shapes, crs=polygons.crs)


def _labels(values: pd.Series) -> list[int] | list[str]:
    """Values of a field as names of zones: whole numbers stay numbers, missing ones are empty."""
    if pd.api.types.is_integer_dtype(values):
        return [int(value) for value in values]
    return ["" if pd.isna(value) else str(value) for value in values.convert_dtypes()]


@dataclass(frozen=True)
class _Placed:
    """Zones in the cells of a map: x is the column, y counts rows from the lower edge of the lowest.

    The grid's affine transform is a straight one, so parts of cells are as large there as on the map, whatever its CRS
    and rotation; and the scene's rectangle, at which zones are cut, is an exact one.

    Attributes:
        shapes: (Z,) what of each zone lies on the map; empty where nothing does.
        cut: (Z,) whether a part of the zone does not.
    """

    shapes: Polygons
    cut: NDArray[np.bool_]


def _place(path: Path, outlines: gpd.GeoSeries, finished: SceneMap) -> _Placed:
    """Reprojects zones where that is needed, and cuts them at the scene's rectangle."""
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
    return _Placed(shapes, cut)


def _from_cells(grid: CellGrid) -> Affine:
    """Cells, y upward, to coordinates."""
    return grid.cell_transform @ Affine(1, 0, 0, 0, -1, grid.rows)


class _Codes(RasterSource):  # type: ignore[misc]
    """A class raster in its cells, window by window; no data is a code like the others."""

    def __init__(self, dataset: Any) -> None:
        super().__init__()
        self.set_name("codes")  # sources without a name of their own are taken for one
        self._dataset = dataset

    def res(self) -> tuple[float, float]:
        return 1.0, 1.0

    def extent(self) -> tuple[float, float, float, float]:
        return 0.0, 0.0, float(self._dataset.width), float(self._dataset.height)

    def nodata_value(self) -> None:
        return None

    def srs_wkt(self) -> None:
        return None

    def read_window(self, x0: int, y0: int, nx: int, ny: int) -> NDArray[np.uint8]:
        codes: NDArray[np.uint8] = self._dataset.read(1, window=Window(x0, y0, nx, ny))
        return codes


class _Shape(JSONFeature):  # type: ignore[misc]
    """A polygon that goes over as binary."""

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


def _hectares(finished: SceneMap, shapes: Polygons, progress: Progress) -> NDArray[np.float64]:
    """(Z, 256) hectares of each code in each shape, placed in cells."""
    grid = finished.grid
    # Of a whole cell: in one that is cut, the shapes cover the part inside alone.
    whole = grid.row_hectares() * grid.stride**2 / grid.row_pixels()
    out = np.zeros((len(shapes), 256))
    with open_raster(finished.path) as dataset:
        codes = _Codes(dataset)
        weights = NumPyRasterSource(np.broadcast_to(whole[:, None], (grid.rows, grid.columns)), name="weights")
        operations = [
            Operation("sum", "hectares", weights),
            Operation("unique", "codes", codes, weights),
            Operation("weighted_frac", "shares", codes, weights),
        ]
        present = np.flatnonzero(~shapely.is_empty(shapes))

        def tell(share: float, _: str) -> None:
            progress("zones", round(share * len(present)), len(present), "zone")

        features = exact_extract(
            codes, _Shapes(shapes[present]), operations, max_cells_in_memory=CELLS_AT_A_TIME, progress=tell
        )
    for zone, feature in zip(present, features, strict=True):
        found = feature["properties"]
        out[zone, found["codes"]] = found["shares"] * found["hectares"]
    strange = [code for code in np.flatnonzero(out.any(axis=0)) if len(finished.legend) < code < UNCLASSIFIED]
    if strange:
        raise DataError(f"{finished.path}: holds code {strange[0]}, which its legend lacks; pass an unchanged map")
    return out


def _outside(outlines: gpd.GeoSeries, placed: _Placed, grid: CellGrid) -> NDArray[np.float64]:
    """(Z,) geodesic hectares of each zone that are not on the map: all of it without what is there."""
    crs = pyproj.CRS.from_wkt(grid.crs.to_wkt())
    cell = _from_cells(grid)
    inside = shapely.transform(placed.shapes[placed.cut], lambda x, y: cell @ (x, y), interleaved=False)
    hectares = np.zeros(len(outlines))
    everything = _geodesic_hectares(outlines.to_numpy()[placed.cut], outlines.crs)
    hectares[placed.cut] = np.maximum(everything - _geodesic_hectares(inside, crs), 0)
    return hectares


def _geodesic_hectares(shapes: Polygons, crs: pyproj.CRS) -> NDArray[np.float64]:
    """(n,) hectares of shapes on the ellipsoid."""
    geographic: Any = crs.geodetic_crs  # projected and geographic ones have one
    to_degrees = pyproj.Transformer.from_crs(crs, geographic, always_xy=True)
    # Rings are oriented before longitudes may jump from 180 to -180.
    shapes = shapely.segmentize(shapely.orient_polygons(shapes), longest_side(crs))
    shapes = shapely.transform(shapes, to_degrees.transform, interleaved=False)
    geod = geographic.get_geod()

    def area(shape: Any) -> float:
        west, _, east, _ = shape.bounds
        if crs.is_geographic and east - west > 180:  # around the earth, inside and outside cannot be told apart
            quarters = [shapely.box(edge, -90, edge + 90, 90) for edge in range(-360, 540, 90)]
            parts = polygonal(shapely.intersection(shape, quarters))
            return float(sum(map(area, shapely.orient_polygons(parts))))
        return abs(float(geod.geometry_area_perimeter(shape)[0]))

    return np.array([area(shape) for shape in shapes]) / SQUARE_METRES_PER_HECTARE


def _write(table: ZoneTable, path: Path) -> None:
    """Writes the long form as CSV, the wide one as GeoPackage."""
    with put_into_place(path) as partial:
        if path.suffix.lower() == ".csv":
            table.frame().to_csv(partial, index=False, float_format="%.6f", lineterminator="\n", encoding="utf-8")
            return
        with fixed_date():
            pyogrio.write_dataframe(
                table.wide(),
                partial,
                layer=LAYER,
                driver="GPKG",
                geometry_type="MultiPolygon",
                promote_to_multi=True,
                GEOMETRY_NAME=GEOMETRY,
                VERSION="1.2",  # GDAL before 3.7, and so QGIS 3.22, warns of newer ones
            )
