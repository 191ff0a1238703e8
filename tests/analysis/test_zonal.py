"""Hectares by zone: against the summary, against polygons, across projections, and what is refused."""

import contextlib
import json
import logging
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
import tempfile
import zipfile
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pyproj
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from geocfl.analysis import coverage as module
from geocfl.analysis.zonal import ZonalStatistics, hectare_fields, stats
from geocfl.core.grid import CellGrid
from geocfl.core.legend import EUROSAT, Legend, LulcClass
from geocfl.errors import DataError, OutputError, UsageError
from geocfl.products.formats.raster import write_lulc
from geocfl.products.formats.vector import write_polygons
from geocfl.products.polygons import dissolve
from geocfl.products.scratch import write_header
from geocfl.products.summary import class_table

UTM33 = Affine(10, 0, 600_000, 0, -10, 5_100_000)
HERE = CRS.from_epsg(32633)


def write_map(
    folder: Path,
    codes: np.ndarray,
    *,
    stride: int = 64,
    cut: tuple[int, int] = (0, 0),
    pixel: Affine = UTM33,
    crs: CRS = HERE,
    legend: Legend = EUROSAT,
) -> tuple[Path, CellGrid]:
    """A finished class raster, and its grid; its cells stay beside it."""
    grid = CellGrid(codes.shape[0] * stride - cut[0], codes.shape[1] * stride - cut[1], stride, 64, pixel, crs)
    cells = folder / "cells"
    write_header(cells, *codes.shape)
    cells.write_bytes(np.stack([codes, np.where(codes == 0, 255, 50)], axis=1).astype(np.uint8).tobytes())
    tags = {"GEOCFL_STRIDE": str(stride), "GEOCFL_WIDTH": str(grid.width), "GEOCFL_HEIGHT": str(grid.height)}
    write_lulc(cells, folder / "S_lulc.tif", grid, legend, tags)
    return folder / "S_lulc.tif", grid


def write_zones(path: Path, shapes: list, crs: object, layer: str | None = None, **fields: list) -> Path:
    gpd.GeoDataFrame(fields, geometry=shapes, crs=crs).to_file(path, layer=layer, engine="pyogrio")
    return path


def scene_of(grid: CellGrid) -> shapely.Polygon:
    corners = [(0, 0), (grid.width, 0), (grid.width, grid.height), (0, grid.height)]
    return shapely.Polygon([grid.transform @ corner for corner in corners])


def box_of(grid: CellGrid, x0: float, y0: float, x1: float, y1: float) -> shapely.Polygon:
    """A rectangle in shares of the scene."""
    corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    return shapely.Polygon([grid.transform @ (x * grid.width, y * grid.height) for x, y in corners])


def summary(folder: Path, grid: CellGrid, legend: Legend = EUROSAT) -> list[float]:
    """Hectares of every class, unclassified and no data, counted from the cells."""
    table = class_table(folder / "cells", grid, legend)
    return [row["hectares"] for row in (*table["classes"], table["unclassified"], table["nodata"])]


def counted(table: ZonalStatistics, zone: int = 0) -> list[float]:
    return [*table.hectares[zone], table.unclassified[zone], table.nodata[zone]]


@pytest.fixture
def codes() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.choice([0, 255, *range(1, 11)], (9, 12)).astype(np.uint8)


PLACES = {
    "north": (UTM33, HERE),
    "south": (Affine(10, 0, 300_000, 0, -10, 6_000_000), CRS.from_epsg(32733)),
    "rotated": (Affine(8, 6, 600_000, 6, -8, 5_100_000), HERE),
    "feet": (Affine(30, 0, 600_000, 0, -30, 200_000), CRS.from_epsg(2263)),
    "geographic": (Affine(1e-4, 0, 13.1, 0, -1e-4, 46.2), CRS.from_epsg(4326)),
    "no EPSG": (Affine(10, 0, 0, 0, -10, 0), CRS.from_proj4("+proj=laea +lat_0=47 +lon_0=10 +ellps=GRS80")),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("stride", "cut"), [(64, (14, 24)), (16, (0, 0)), (5, (4, 1))])
def test_the_whole_scene_has_the_hectares_of_its_summary(tmp_path, codes, place, stride, cut):
    pixel, crs = PLACES[place]
    path, grid = write_map(tmp_path, codes, stride=stride, cut=cut, pixel=pixel, crs=crs)
    table = stats(path, write_zones(tmp_path / "zones.gpkg", [scene_of(grid)], crs.to_wkt()))
    assert counted(table) == pytest.approx(summary(tmp_path, grid), rel=1e-7, abs=1e-9)
    assert table.outside == pytest.approx([0], abs=1e-6)


cut_points = st.lists(st.floats(0.01, 0.99), max_size=3).map(lambda inner: [0.0, *sorted(inner), 1.0])


@given(
    xs=cut_points,
    ys=cut_points,
    stride=st.integers(1, 64),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    place=st.sampled_from([*PLACES]),
    data=st.data(),
)
@settings(max_examples=25)
def test_zones_that_part_the_scene_sum_to_it(xs, ys, stride, shape, place, data):
    codes = np.array(
        data.draw(st.lists(st.sampled_from([0, 1, 2, 10, 255]), min_size=(n := shape[0] * shape[1]), max_size=n))
    )
    cut = data.draw(st.tuples(st.integers(0, stride - 1), st.integers(0, stride - 1)))
    pixel, crs = PLACES[place]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path, grid = write_map(folder, codes.reshape(shape), stride=stride, cut=cut, pixel=pixel, crs=crs)
        parts = [box_of(grid, *p, *q) for p, q in _boxes(xs, ys)]
        table = stats(path, write_zones(folder / "zones.gpkg", parts, crs.to_wkt()))
        sums = [*table.hectares.sum(axis=0), table.unclassified.sum(), table.nodata.sum()]
        assert sums == pytest.approx(summary(folder, grid), rel=1e-6, abs=1e-6)


def _boxes(xs: list, ys: list) -> list:
    return [((x0, y0), (x1, y1)) for x0, x1 in pairwise(xs) for y0, y1 in pairwise(ys)]


@given(
    corners=st.lists(st.tuples(st.floats(-0.3, 1.3), st.floats(-0.3, 1.3)), min_size=3, max_size=7),
    stride=st.integers(1, 64),
    place=st.sampled_from(["north", "south", "rotated", "no EPSG"]),
    data=st.data(),
)
@settings(max_examples=25)
def test_classes_are_what_the_polygons_have_in_the_zone(corners, stride, place, data):
    codes = np.array(data.draw(st.lists(st.sampled_from([0, 1, 2, 10, 255]), min_size=30, max_size=30))).reshape(5, 6)
    cut = data.draw(st.tuples(st.integers(0, stride - 1), st.integers(0, stride - 1)))
    pixel, crs = PLACES[place]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path, grid = write_map(folder, codes, stride=stride, cut=cut, pixel=pixel, crs=crs)
        zone = shapely.convex_hull(
            shapely.MultiPoint([grid.transform @ (x * grid.width, y * grid.height) for x, y in corners])
        )
        if zone.intersection(scene_of(grid)).area < 1:  # square meter
            return
        table = stats(path, write_zones(folder / "zones.gpkg", [zone], crs.to_wkt()))
        polygons = dissolve(folder / "cells", grid, EUROSAT)
    hectares = polygons.geometry.intersection(zone).area.groupby(polygons.class_code).sum() / 10_000
    tolerance = {"rel": 1e-6, "abs": 1e-7 * zone.area / 10_000}
    assert table.hectares[0] == pytest.approx([hectares.get(c.code, 0.0) for c in EUROSAT], **tolerance)
    assert table.unclassified[0] == pytest.approx(hectares.get(255, 0.0), **tolerance)
    on_map = zone.intersection(scene_of(grid)).area / 10_000
    assert sum(counted(table)) == pytest.approx(on_map, **tolerance)


@pytest.mark.parametrize("to", [4326, 3857, 32634, 3035])
def test_zones_in_another_crs_are_reprojected_and_that_is_said(tmp_path, codes, caplog, to):
    path, grid = write_map(tmp_path, codes, cut=(14, 24))
    zones = [box_of(grid, 0, 0, 0.4, 1), box_of(grid, 0.4, 0, 1, 1), box_of(grid, 0.21, 0.33, 0.5, 0.77)]
    there = gpd.GeoSeries(shapely.segmentize(zones, 50), crs=grid.crs.to_wkt()).to_crs(to)
    with caplog.at_level(logging.INFO, "geocfl"):
        table = stats(path, write_zones(tmp_path / "zones.gpkg", list(there), to))
    assert f"zones.gpkg: reprojected from {pyproj.CRS(to).name} to the map's WGS 84 / UTM zone 33N" in caplog.text
    truth = stats(path, write_zones(tmp_path / "same.gpkg", zones, grid.crs.to_wkt()))
    for zone in range(3):
        assert counted(table, zone) == pytest.approx(counted(truth, zone), rel=1e-5, abs=1e-3)


def test_long_sides_keep_to_their_lines(tmp_path):
    """A parallel bends in UTM: drawn by its end points, the side of this zone would be a hundred meters off."""
    path, grid = write_map(tmp_path, np.ones((64, 160), np.uint8), pixel=Affine(10, 0, 700_000, 0, -10, 6_700_000))
    zone = shapely.box(18.8, 60.1, 20.3, 61)  # only its southern side crosses the scene
    table = stats(path, write_zones(tmp_path / "zones.geojson", [zone], 4326))
    bent, straight = (
        gpd.GeoSeries([shape], crs=4326).to_crs(32633).intersection(scene_of(grid))[0]
        for shape in (shapely.segmentize(zone, 1e-4), zone)
    )
    in_degrees = gpd.GeoSeries([shapely.segmentize(bent, 100)], crs=32633).to_crs(4326)[0]
    ground = abs(pyproj.Geod(ellps="WGS84").geometry_area_perimeter(in_degrees)[0])
    assert table.hectares[0, 0] == pytest.approx(ground / 10_000, rel=1e-6)  # so far from the zone's middle
    assert abs(straight.area - bent.area) / 10_000 > 100


@pytest.mark.parametrize(("zone", "easting"), [(60, 800_000), (1, 160_000)])
def test_zones_on_both_sides_of_the_antimeridian(tmp_path, zone, easting):
    """Written cut at 180 degrees, or going on beyond them: the same hectares."""
    codes = np.random.default_rng(0).integers(1, 11, (40, 60)).astype(np.uint8)
    crs = CRS.from_epsg(32600 + zone)
    path, grid = write_map(tmp_path, codes, pixel=Affine(10, 0, easting, 0, -10, 1_900_000), crs=crs)
    to_degrees = pyproj.Transformer.from_crs(crs.to_wkt(), 4326, always_xy=True)
    longitudes, latitudes = to_degrees.transform(*shapely.get_coordinates(shapely.segmentize(scene_of(grid), 500)).T)
    assert longitudes.min() < -179.9 < 179.9 < longitudes.max()
    beyond = shapely.Polygon(np.column_stack([longitudes % 360, latitudes]))
    west = beyond.intersection(shapely.box(0, -90, 180, 90))
    east = shapely.affinity.translate(beyond.intersection(shapely.box(180, -90, 360, 90)), -360)
    for shapes in ([beyond], [shapely.MultiPolygon([west, east])], [west, east]):
        table = stats(
            path, write_zones(tmp_path / "zones.gpkg", shapes, 4326, layer=f"l{len(shapes)}"), layer=f"l{len(shapes)}"
        )
        assert table.hectares.sum(axis=0) == pytest.approx(summary(tmp_path, grid)[:10], rel=1e-5)
        assert table.outside.sum() < 1e-4 * table.hectares.sum()
        (tmp_path / "zones.gpkg").unlink()


@pytest.mark.parametrize("west", [179.9, -180.1])
def test_zones_over_a_map_in_degrees_across_the_antimeridian(tmp_path, codes, west):
    """In meters, in degrees on both sides, or beyond 180: each has what the map has there, however it counts."""
    rows, columns = codes.shape
    pixel = Affine(0.2 / columns / 16, 0, west, 0, -0.1 / rows / 16, 17.1)
    path, _ = write_map(tmp_path, codes, stride=16, pixel=pixel, crs=CRS.from_epsg(4326))
    around = [(179.8, 16.9), (180.2, 16.9), (180.2, 17.2), (179.8, 17.2)]
    beyond = shapely.Polygon(around)
    sides = shapely.MultiPolygon([shapely.box(179.8, 16.9, 180, 17.2), shapely.box(-180, 16.9, -179.8, 17.2)])
    meters = gpd.GeoSeries([shapely.segmentize(beyond, 0.01)], crs=4326).to_crs(32660)[0]
    whole = stats(path, write_zones(tmp_path / "whole.gpkg", [shapely.box(west - 1, 16, west + 1, 18)], 4326))
    for name, shape, crs in [("beyond", beyond, 4326), ("sides", sides, 4326), ("meters", meters, 32660)]:
        table = stats(path, write_zones(tmp_path / f"{name}.gpkg", [shape], crs))
        np.testing.assert_allclose(table.hectares, whole.hectares, rtol=1e-9)
        np.testing.assert_allclose(table.nodata, whole.nodata, rtol=1e-9)
        beside = 0.4 * 0.3 / (0.2 * 0.1) - 1  # of the map's area, about
        assert table.outside[0] == pytest.approx(beside * np.sum(counted(whole)), rel=0.01)


def test_what_lies_beyond_the_map_is_geodesic(tmp_path, codes):
    path, grid = write_map(tmp_path, codes, pixel=Affine(10, 0, 500_000, 0, -10, 5_100_000))
    table = stats(path, write_zones(tmp_path / "zones.gpkg", [box_of(grid, -1, 0, 1, 1)], 32633))
    assert sum(counted(table)) == pytest.approx(grid.height * grid.width / 100)
    # On the central meridian the map is drawn at 0.9996.
    assert table.outside[0] == pytest.approx(grid.height * grid.width / 100 / 0.9996**2, rel=1e-5)


def test_the_whole_earth_is_a_zone(tmp_path, codes):
    path, grid = write_map(tmp_path, codes, cut=(14, 24))
    shapes = [shapely.box(0, -90, 90, 90), shapely.box(-180, -90, 180, 90), shapely.box(-150, 0, 150, 90)]
    table = stats(path, write_zones(tmp_path / "zones.gpkg", shapes, 4326))
    for zone in range(3):
        assert counted(table, zone) == pytest.approx(summary(tmp_path, grid), rel=1e-7)
    earth = 51_006_562_172.4  # hectares of WGS 84's ellipsoid
    assert table.outside == pytest.approx([earth / 4, earth, earth * 5 / 12], rel=1e-6)


def test_polygons_of_one_name_are_one_zone(tmp_path, codes):
    path, grid = write_map(tmp_path, codes)
    shapes = [
        box_of(grid, 0, 0, 0.5, 1),
        box_of(grid, 0.5, 0, 0.7, 1),
        box_of(grid, 0.4, 0, 0.6, 1),
        box_of(grid, 0.8, 0, 1, 1),
    ]
    names = ["Süd & <b>", "Nord", "Süd & <b>", None]
    zones = write_zones(tmp_path / "zones.gpkg", shapes, 32633, name=names, number=[3, 1, 3, 2])
    table = stats(path, zones, by="name")
    assert table.zones == ["Süd & <b>", "Nord", None]
    whole = grid.height * grid.width / 100
    assert [sum(counted(table, zone)) for zone in range(3)] == pytest.approx([0.6 * whole, 0.2 * whole, 0.2 * whole])
    assert stats(path, zones, by="number").zones == [3, 1, 2]
    assert stats(path, zones).zones == [1, 2, 3, 4]


@pytest.mark.parametrize("crs", [32633, 4326, 3035])
def test_the_part_of_a_zone_far_off_the_map_is_outside(tmp_path, codes, crs):
    path, grid = write_map(tmp_path, codes)
    inside = box_of(grid, 0.2, 0.2, 0.8, 0.8)
    x, y = grid.transform @ (0, 0)
    far = shapely.box(x - 150_000, y, x - 140_000, y + 10_000)
    shapes = gpd.GeoSeries(shapely.segmentize([inside, far], 200), crs=32633).to_crs(crs)
    zones = write_zones(tmp_path / "far.gpkg", list(shapes), crs, owner=["x", "x"])
    in_degrees = gpd.GeoSeries(shapely.segmentize([far], 200), crs=32633).to_crs(4326)[0]
    expected = abs(pyproj.Geod(ellps="WGS84").geometry_area_perimeter(in_degrees)[0]) / 10_000
    table = stats(path, zones, by="owner")
    assert table.outside == pytest.approx([expected], rel=1e-3)
    assert sum(counted(table)) == pytest.approx(inside.area / 10_000, rel=1e-5)


def test_a_map_in_web_mercator_has_the_hectares_of_the_ground(tmp_path, codes):
    """In summary, attribute table, polygons and zones alike: half of those of the projection at 45 degrees north."""
    pixel, crs = Affine(14.3, 0, 1_480_000, 0, -14.3, 5_740_000), CRS.from_epsg(3857)
    path, grid = write_map(tmp_path, codes, cut=(14, 24), pixel=pixel, crs=crs)
    corners = gpd.GeoSeries([shapely.segmentize(scene_of(grid), 500)], crs=3857).to_crs(4326)[0]
    ground = abs(pyproj.Geod(ellps="WGS84").geometry_area_perimeter(corners)[0]) / 10_000
    assert ground < 0.55 * scene_of(grid).area / 10_000
    table = summary(tmp_path, grid)
    assert sum(table) == pytest.approx(ground, rel=1e-6)
    zones = write_zones(
        tmp_path / "zones.gpkg", [box_of(grid, 0, 0, 0.37, 1), box_of(grid, 0.37, 0, 1, 1)], crs.to_wkt()
    )
    found = stats(path, zones)
    assert np.add(counted(found, 0), counted(found, 1)) == pytest.approx(table, rel=1e-7, abs=1e-9)
    polygons = dissolve(tmp_path / "cells", grid, EUROSAT)
    assert polygons.area_ha.groupby(polygons.class_code).sum()[2] == pytest.approx(table[1], rel=1e-9)
    shape = gpd.GeoSeries([shapely.segmentize(polygons.geometry[0], 500)], crs=3857).to_crs(4326)[0]
    by_geod = abs(pyproj.Geod(ellps="WGS84").geometry_area_perimeter(shape)[0]) / 10_000
    assert polygons.area_ha[0] == pytest.approx(by_geod, rel=1e-6)
    written = ET.parse(path.with_name(path.name + ".aux.xml")).findall(".//Row")
    assert [float(row.findall("F")[-1].text) for row in written] == pytest.approx(table[:11], abs=1e-6)


def test_long_numbers_stay_apart_beside_null(tmp_path, codes):
    path, grid = write_map(tmp_path, codes)
    shapes = [box_of(grid, i / 4, 0, (i + 1) / 4, 1) for i in range(4)]
    ids = pd.array([9007199254740993, 9007199254740992, None, 4], dtype="Int64")
    zones = write_zones(tmp_path / "ids.gpkg", shapes, 32633, parcel=ids)
    table = stats(path, zones, by="parcel", out=tmp_path / "ids.csv")
    assert table.zones == [9007199254740993, 9007199254740992, None, 4]
    text = pd.read_csv(tmp_path / "ids.csv", dtype={"zone": str}, keep_default_na=False).zone.unique()
    assert list(text) == ["9007199254740993", "9007199254740992", "NULL", "4"]
    stats(path, zones, by="parcel", out=tmp_path / "out.gpkg")
    read = stored_zones(tmp_path / "out.gpkg")
    assert read == [9007199254740993, 9007199254740992, None, 4]


def stored_zones(path: Path) -> list:
    """Values of ``zone`` in a GeoPackage, read by sqlite."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        return [value for (value,) in database.execute("SELECT zone FROM zones ORDER BY fid")]


def test_null_empty_names_and_absent_geometries_are_told_apart_and_counted(tmp_path, codes, caplog):
    path, grid = write_map(tmp_path, codes)
    shapes = [box_of(grid, i / 5, 0, (i + 1) / 5, 1) for i in range(4)]
    names = ["", None, None, "x", "x"]
    zones = write_zones(tmp_path / "zones.gpkg", [*shapes, None], 32633, name=names)
    table = stats(path, zones, by="name", out=tmp_path / "areas.csv")
    assert table.zones == ["", None, "x"]
    fifth = grid.height * grid.width / 100 / 5
    assert [sum(counted(table, zone)) for zone in range(3)] == pytest.approx([fifth, 2 * fifth, fifth])
    for said in (
        "1 feature has no geometry",
        "2 features come with no (NULL) name",
        "1 feature comes with an empty name",
    ):
        assert f"zones.gpkg: {said}" in caplog.text
    text = pd.read_csv(tmp_path / "areas.csv", keep_default_na=False).zone.unique()
    assert list(text) == ["", "NULL", "x"]


def test_formulas_in_names_are_quoted_in_csv(tmp_path, codes):
    path, grid = write_map(tmp_path, codes)
    names = ["=1+1", "+x", "@sum", "-x", "-5", "7"]
    shapes = [box_of(grid, i / 6, 0, (i + 1) / 6, 1) for i in range(6)]
    zones = write_zones(tmp_path / "zones.gpkg", shapes, 32633, name=names)
    stats(path, zones, by="name", out=tmp_path / "areas.csv")
    text = pd.read_csv(tmp_path / "areas.csv", dtype=str).zone.unique()
    assert list(text) == ["'=1+1", "'+x", "'@sum", "'-x", "-5", "7"]


@pytest.mark.extra("geoparquet")
def test_geoparquet_of_our_own_is_read(tmp_path, codes):
    path, grid = write_map(tmp_path, codes)
    polygons = dissolve(tmp_path / "cells", grid, EUROSAT)
    write_polygons(polygons, tmp_path / "own.parquet", "geoparquet")
    table = stats(path, tmp_path / "own.parquet", by="class_name")
    found = dict(zip(table.zones, table.hectares.sum(axis=1), strict=True))
    assert found["Forest"] == pytest.approx(summary(tmp_path, grid)[1])
    ids = pd.array([9007199254740993, None, 9007199254740992], dtype="Int64")
    boxes = [box_of(grid, i / 3, 0, (i + 1) / 3, 1) for i in range(3)]
    gpd.GeoDataFrame({"id": ids}, geometry=boxes, crs=32633).to_parquet(tmp_path / "ids.parquet")
    assert stats(path, tmp_path / "ids.parquet", by="id").zones == [9007199254740993, None, 9007199254740992]
    with pytest.raises(UsageError, match="has no field 'x' for `by`"):
        stats(path, tmp_path / "own.parquet", by="x")
    (tmp_path / "text.parquet").write_text("no polygons")
    with pytest.raises(DataError, match=r"text\.parquet: not a GeoParquet file"):
        stats(path, tmp_path / "text.parquet")


def test_collections_and_archives_are_read(tmp_path, codes):
    path, grid = write_map(tmp_path, codes)
    box = box_of(grid, 0, 0, 0.5, 1)
    write_zones(tmp_path / "mixed.gpkg", [shapely.GeometryCollection([box, box.centroid])], 32633)
    expected = stats(path, write_zones(tmp_path / "plain.gpkg", [box], 32633)).hectares
    assert stats(path, tmp_path / "mixed.gpkg").hectares == pytest.approx(expected)
    with zipfile.ZipFile(tmp_path / "zones.zip", "w") as archive:
        archive.write(tmp_path / "plain.gpkg", "inside/plain.gpkg")
    for name in (f"/vsizip/{tmp_path}/zones.zip/inside/plain.gpkg", f"/vsizip//{tmp_path}/zones.zip/inside/plain.gpkg"):
        assert stats(path, name).hectares == pytest.approx(expected)
    for name in ("/vsizip/absent.zip/plain.gpkg", "/vsizip//vsicurl/http://127.0.0.1:9/a.zip/b.gpkg"):
        with pytest.raises(DataError, match="no such file"):
            stats(path, name)


def test_broken_polygons_and_maps_are_one_sentence(tmp_path, codes):
    path, grid = write_map(tmp_path, codes)
    collection = {"type": "FeatureCollection", "features": []}
    for ring in ([[16.3, 45.9], [16.4, 46]], [[16.3, 45.9], [16.4, 46.1], [16.3, 46.1], [16.3, 45.9]]):
        shape = {"type": "Polygon", "coordinates": [ring]}
        collection["features"].append({"type": "Feature", "properties": {"": "x"}, "geometry": shape})
    (tmp_path / "two.geojson").write_text(json.dumps(collection))
    with pytest.raises(DataError, match=r"two\.geojson: holds a geometry that cannot be read, such as a ring"):
        stats(path, tmp_path / "two.geojson")
    del collection["features"][0]
    (tmp_path / "unnamed.geojson").write_text(json.dumps(collection))
    assert stats(path, tmp_path / "unnamed.geojson", by="").zones == ["x"]
    write_zones(tmp_path / "nan.gpkg", [scene_of(grid), shapely.Polygon([(0, 0), (1, np.nan), (1, 1), (0, 0)])], 32633)
    with pytest.raises(DataError, match=r"nan\.gpkg: feature 2 has coordinates that are not finite"):
        stats(path, tmp_path / "nan.gpkg")
    zones = write_zones(tmp_path / "zones.gpkg", [scene_of(grid)], 32633)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.raises(DataError, match=r"S_lulc\.tif: "):
        stats(path, zones)


def test_csv_is_long_and_geopackage_wide(tmp_path, codes):
    path, grid = write_map(tmp_path, codes)
    zones = write_zones(tmp_path / "zones.gpkg", [box_of(grid, 0, 0, 1, 1), box_of(grid, 0, 0, 2, 0.5)], 32633)
    table = stats(path, zones, out=tmp_path / "new" / "areas.csv")
    text = (tmp_path / "new" / "areas.csv").read_bytes().decode()
    assert text.startswith("zone,code,class,hectares,share\n1,1,Annual Crop,")
    assert "\r" not in text
    long = pd.read_csv(tmp_path / "new" / "areas.csv")
    assert len(long) == 2 * 13
    assert long[long.zone == 1].hectares[:12].tolist() == pytest.approx(summary(tmp_path, grid), abs=1e-6)
    assert long["class"][10:13].tolist() == ["Unclassified", "No data", "Outside the map"]
    assert long.code[:13].tolist() == pytest.approx([*range(1, 11), 255, 0, np.nan], nan_ok=True)
    assert long.share[:10].sum() == pytest.approx(1, abs=1e-5)
    assert long.share[10:13].isna().all()

    stats(path, zones, out=tmp_path / "areas.gpkg")
    assert pyogrio.list_layers(tmp_path / "areas.gpkg").tolist() == [["zones", "MultiPolygon"], ["layer_styles", None]]
    wide = gpd.read_file(tmp_path / "areas.gpkg", layer="zones")
    assert wide.crs.to_epsg() == 32633
    assert list(wide.columns) == [
        "zone",
        *hectare_fields(EUROSAT),
        "unclassified_ha",
        "nodata_ha",
        "outside_ha",
        "geometry",
    ]
    assert wide[hectare_fields(EUROSAT)].to_numpy() == pytest.approx(table.hectares)
    assert wide.outside_ha.tolist() == pytest.approx(table.outside)
    assert wide.geometry[1].equals(box_of(grid, 0, 0, 2, 0.5))


def test_outputs_repeat(tmp_path, codes):
    path, grid = write_map(tmp_path, codes)
    zones = write_zones(tmp_path / "zones.gpkg", [box_of(grid, 0, 0, 0.3, 1)], 32633)
    for name in ("areas.csv", "areas.gpkg"):
        stats(path, zones, out=tmp_path / name)
        before = (tmp_path / name).read_bytes()
        stats(path, zones, out=tmp_path / name, overwrite=True)
        assert (tmp_path / name).read_bytes() == before


def test_fields_differ_where_names_do_not(tmp_path):
    names = ["Unclassified", "Wald", "wald!", "<&>", "Zone"]
    legend = Legend(tuple(LulcClass(i + 1, name, "", "#000000") for i, name in enumerate(names)))
    assert hectare_fields(legend) == ["unclassified_1_ha", "wald_ha", "wald_3_ha", "class_ha", "zone_ha"]
    path, grid = write_map(tmp_path, np.arange(1, 6)[None].repeat(2, axis=0), legend=legend)
    zones = write_zones(tmp_path / "zones.gpkg", [scene_of(grid)], 32633)
    stats(path, zones, out=tmp_path / "areas.gpkg")
    assert len(gpd.read_file(tmp_path / "areas.gpkg", layer="zones").columns) == 1 + 5 + 3 + 1


def test_text_names_what_there_is(tmp_path):
    path, grid = write_map(tmp_path, np.array([[2, 2, 10, 0]]))
    zones = write_zones(
        tmp_path / "zones.gpkg", [scene_of(grid), box_of(grid, 0, 0, 0.25, 1)], 32633, name=["all", "west"]
    )
    assert stats(path, zones, by="name").table().splitlines() == [
        "zone  code  class     hectares   share",
        "----  ----  --------  --------  ------",
        "all      2  Forest       81.92   66.7%",
        "all     10  Sea Lake     40.96   33.3%",
        "all      0  No data      40.96",
        "west     2  Forest       40.96  100.0%",
    ]


def test_zones_elsewhere_are_said_or_refused(tmp_path, codes, caplog):
    path, grid = write_map(tmp_path, codes)
    far = box_of(grid, 5, 5, 6, 6)
    table = stats(path, write_zones(tmp_path / "some.gpkg", [far, scene_of(grid), None], 32633))
    assert "some.gpkg: 2 of 3 zones do not overlap" in caplog.text
    assert counted(table, 0) == [0] * 12
    assert table.outside[0] > 0
    assert counted(table, 2) == [0] * 12
    for name, crs in (("near.gpkg", 32633), ("far.gpkg", 4326)):
        shapes = [far] if crs == 32633 else [shapely.box(-60, -10, -59, -9)]
        with pytest.raises(DataError, match=rf"{name}: no zone overlaps .*S_lulc\.tif"):
            stats(path, write_zones(tmp_path / name, shapes, crs))


def test_invalid_polygons_are_repaired(tmp_path, codes, caplog):
    path, grid = write_map(tmp_path, codes)
    place = lambda points: [grid.transform @ (x * grid.width, y * grid.height) for x, y in points]  # noqa: E731
    bow = shapely.Polygon(place([(0, 0), (1, 1), (1, 0), (0, 1)]))  # two triangles that touch in the middle
    with caplog.at_level(logging.INFO, "geocfl"):
        table = stats(path, write_zones(tmp_path / "zones.gpkg", [bow], 32633))
    assert "zones.gpkg: 1 invalid polygon repaired" in caplog.text
    assert sum(counted(table)) == pytest.approx(grid.height * grid.width / 100 / 2)


def test_unusable_zones_are_refused_in_one_sentence(tmp_path, codes):
    path, grid = write_map(tmp_path, codes)
    scene = scene_of(grid)
    write_zones(tmp_path / "points.gpkg", [scene.centroid, scene], 32633)
    write_zones(tmp_path / "nowhere.gpkg", [scene], None)
    write_zones(tmp_path / "empty.gpkg", [], 32633)
    write_zones(tmp_path / "two.gpkg", [scene], 32633, layer="fields", owner=["x"])
    write_zones(tmp_path / "two.gpkg", [scene], 32633, layer="farms")
    (tmp_path / "text.gpkg").write_text("no polygons")
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    for name, options, kind, said in [
        ("absent.gpkg", {}, DataError, "no such file"),
        ("text.gpkg", {}, DataError, "not a vector file"),
        ("table.csv", {}, DataError, "has no geometries"),
        ("points.gpkg", {}, DataError, "holds Point features, but zones must be polygons"),
        ("nowhere.gpkg", {}, DataError, "no coordinate reference system; .*-a_srs"),
        ("empty.gpkg", {}, DataError, "holds no features"),
        ("two.gpkg", {}, UsageError, "`layer`: fields, farms"),
        ("two.gpkg", {"layer": "fern"}, UsageError, "no layer 'fern' .*: fields, farms"),
        ("two.gpkg", {"layer": "fields", "by": "name"}, UsageError, "no field 'name' for `by`; it has: owner"),
        ("two.gpkg", {"layer": "farms", "by": "name"}, UsageError, "it has none"),
    ]:
        with pytest.raises(kind, match=rf"{name}: .*{said}") as error:
            stats(path, tmp_path / name, **options)
        assert "\n" not in str(error.value)
    assert stats(path, tmp_path / "two.gpkg", layer="fields", by="owner").zones == ["x"]


def test_a_layer_of_styles_is_no_choice(tmp_path, codes):
    path, grid = write_map(tmp_path, codes)
    zones = write_zones(tmp_path / "zones.gpkg", [scene_of(grid)], 32633, layer="fields")
    pyogrio.write_dataframe(pd.DataFrame({"styleQML": ["x"]}), zones, layer="layer_styles", append=True)
    assert stats(path, zones).zones == [1]


def test_a_code_beyond_the_legend_is_refused(tmp_path):
    path, grid = write_map(tmp_path, np.array([[1, 2]]))
    table = path.with_name(path.name + ".aux.xml")
    start = table.read_text().index('<Row index="1">')
    table.write_text(table.read_text()[:start] + "</GDALRasterAttributeTable></PAMRasterBand></PAMDataset>")
    with pytest.raises(DataError, match="holds code 2, which its legend lacks"):
        stats(path, write_zones(tmp_path / "zones.gpkg", [scene_of(grid)], 32633))


def test_nothing_is_overwritten_unasked(tmp_path, codes):
    path, grid = write_map(tmp_path, codes)
    zones = write_zones(tmp_path / "zones.gpkg", [scene_of(grid)], 32633)
    with pytest.raises(UsageError, match=r"areas\.xlsx but must end in"):
        stats(path, zones, out=tmp_path / "areas.xlsx")
    out = tmp_path / "areas.csv"
    out.write_text("mine")
    with pytest.raises(OutputError, match=r"areas\.csv: already exists; use `overwrite=True`"):
        stats(path, zones, out=out)
    assert out.read_text() == "mine"
    stats(path, zones, out=out, overwrite=True)
    assert out.read_text() != "mine"
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        stats(path, zones, out=tmp_path / "folder.csv", overwrite=True)


@pytest.mark.integration
def test_a_full_disk_leaves_nothing(tmp_path, codes):
    """A limit on the size of files fails writes as a full disk does."""
    path, grid = write_map(tmp_path, codes)
    shapes = [box_of(grid, x / 50, y / 50, (x + 1) / 50, (y + 1) / 50) for x in range(50) for y in range(50)]
    zones = write_zones(tmp_path / "zones.gpkg", shapes, 32633)
    out = tmp_path / "out"
    out.mkdir()
    (out / "areas.csv").write_text("earlier")
    script = (
        "import resource, signal, sys\n"
        "from geocfl.errors import OutputError\n"
        "from geocfl.analysis.zonal import stats\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"
        "for out in sys.argv[3:]:\n"
        "    try:\n        stats(*sys.argv[1:3], out=out, overwrite=True)\n"
        "    except OutputError as error:\n        print(error)\n"
    )
    command = [sys.executable, "-c", script, path, zones, out / "areas.csv", out / "areas.gpkg"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    for name in ("areas.csv", "areas.gpkg"):
        assert f"{out / name}: cannot be written" in done.stdout
    assert (out / "areas.csv").read_text() == "earlier"
    assert os.listdir(out) == ["areas.csv"]


def test_a_read_only_folder_is_said(tmp_path, codes, monkeypatch):
    path, grid = write_map(tmp_path, codes)
    zones = write_zones(tmp_path / "zones.gpkg", [scene_of(grid)], 32633)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)  # as root, no folder is read-only
    with pytest.raises(OutputError, match=r"areas\.csv: cannot be written \(Permission denied\)"):
        stats(path, zones, out=tmp_path / "areas.csv")


def test_progress_is_told_of_zones(tmp_path, codes):
    lulc, grid = write_map(tmp_path, codes)
    zones = write_zones(tmp_path / "zones.gpkg", [box_of(grid, 0, 0, 0.5, 1), box_of(grid, 0.5, 0, 1, 1)], HERE)
    told = []
    stats(lulc, zones, progress=lambda *step: told.append(step))
    assert told[-1] == ("zones", 2, 2, "zone")


def test_memory_is_bounded(tmp_path, codes, monkeypatch):
    """Large zones are counted piece by piece, with the same result."""
    path, grid = write_map(tmp_path, codes, cut=(14, 24))
    zones = write_zones(tmp_path / "zones.gpkg", [scene_of(grid)], 32633)
    sizes = []
    read = module._Codes.read_window
    monkeypatch.setattr(module._Codes, "read_window", lambda self, *window: sizes.append(window) or read(self, *window))
    monkeypatch.setattr(module, "CELLS_AT_A_TIME", 10)
    assert counted(stats(path, zones)) == pytest.approx(summary(tmp_path, grid), rel=1e-7)
    assert max(nx * ny for _, _, nx, ny in sizes) <= 2 * 12


@pytest.mark.integration
def test_another_program_reads_the_geopackage(tmp_path, codes):
    if shutil.which("ogrinfo") is None:
        pytest.skip("ogrinfo is not on PATH")
    path, _ = write_map(tmp_path, codes)
    zones = write_zones(tmp_path / "zones.geojson", [shapely.box(16.3, 45.9, 16.4, 46.0)], 4326, name=["Feld"])
    stats(path, zones, by="name", out=tmp_path / "areas.gpkg")
    said = subprocess.run(
        ["ogrinfo", "-ro", "-al", "-so", tmp_path / "areas.gpkg"], check=True, capture_output=True, text=True
    )
    assert "Feature Count: 1" in said.stdout
    assert "forest_ha: Real" in said.stdout
    assert "arning" not in said.stdout + said.stderr


def test_zones_beyond_the_earth_are_refused(tmp_path: Path) -> None:
    path, _ = write_map(tmp_path, np.ones((4, 4), np.uint8))
    zones = tmp_path / "zones.geojson"
    ring = [[13, 46], [13.1, 46], [13.1, 46.1], [1e308, 46.1], [13, 46]]
    shape = {"type": "Polygon", "coordinates": [ring]}
    zones.write_text(
        json.dumps(
            {"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {}, "geometry": shape}]}
        )
    )
    with pytest.raises(
        DataError, match="feature 1 has coordinates that are not finite numbers, or lie beyond the earth"
    ):
        stats(path, zones)


def test_names_in_another_encoding_than_stated_are_refused(tmp_path: Path) -> None:
    path, grid = write_map(tmp_path, np.ones((4, 4), np.uint8))
    zones = tmp_path / "zones.shp"
    gpd.GeoDataFrame({"name": ["district"]}, geometry=[shapely.box(*grid.bounds())], crs=HERE).to_file(zones)
    table = zones.with_suffix(".dbf")
    table.write_bytes(table.read_bytes().replace(b"district", b"d\x9bstrict"))
    with pytest.raises(DataError, match=r"zones\.shp: its texts are not in the encoding that it states"):
        stats(path, zones, by="name")


def test_a_map_with_a_damaged_geotransform_is_refused(tmp_path: Path) -> None:
    path, grid = write_map(tmp_path, np.ones((4, 4), np.uint8))
    zones = tmp_path / "zones.gpkg"
    gpd.GeoDataFrame(geometry=[shapely.box(*grid.bounds())], crs=HERE).to_file(zones)
    scale = struct.pack("<3d", 640, 640, 0)
    path.write_bytes(path.read_bytes().replace(scale, struct.pack("<3d", 1e-200, 1e-200, 0)))
    with pytest.raises(DataError, match="its geotransform is damaged"):
        stats(path, zones)
