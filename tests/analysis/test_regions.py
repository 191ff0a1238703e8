"""Regions: which maps reach into each, in whatever system it is drawn, and what its files are called."""

from pathlib import Path

import geopandas as gpd
import pyproj
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS
from shapely.geometry.base import BaseGeometry

from geocfl.analysis.regions import Regions, file_stem
from geocfl.core.grid import CellGrid
from geocfl.errors import DataError
from geocfl.products.scene_map import SceneMap


def a_map(name: str, x: float, y: float, crs: int, cells: int = 20) -> SceneMap:
    """A map of 100 m cells to the right of and below a corner; its raster is not needed."""
    grid = CellGrid(cells, cells, 1, 1, Affine(100, 0, x, 0, -100, y), CRS.from_epsg(crs))
    made = SceneMap({"lulc": Path(f"{name}_lulc.tif")})
    made.grid = grid
    return made


def a_map_at(name: str, longitude: float, latitude: float) -> SceneMap:
    """A map of 2 km in the UTM zone of a place."""
    crs = int(32601 + (longitude + 180) % 360 // 6 + (100 if latitude < 0 else 0))
    x, y = pyproj.Transformer.from_crs(4326, crs, always_xy=True).transform(longitude, latitude)
    return a_map(name, x - 1000, y + 1000, crs)


def regions_of(folder: Path, shape: BaseGeometry, crs: int | str) -> Regions:
    gpd.GeoDataFrame({"name": ["one"]}, geometry=[shape], crs=crs).to_file(folder / "regions.gpkg")
    return Regions(folder / "regions.gpkg", "name")


def test_long_sides_bend_in_degrees(tmp_path):
    """A box of 1000 km in Lambert's system: the straight lines in degrees between its corners miss it by kilometers."""
    west, south, east, north = 4_000_000, 2_600_000, 5_000_000, 3_600_000
    regions = regions_of(tmp_path, shapely.box(west, south, east, north), 3035)
    middle = (west + east) / 2
    inside = [a_map("N", middle, north - 100, 3035), a_map("S", middle, south + 2_100, 3035)]
    outside = [a_map("O", middle, north + 2_100, 3035), a_map("P", middle, south - 100, 3035)]
    assert regions.reached_by([*inside, *outside]) == [inside]


@pytest.mark.parametrize("crs", [3460, 32660])
def test_a_region_in_meters_across_the_antimeridian_stays_whole(tmp_path, crs):
    """One of its holes lies beyond."""
    outer = [(813_000, 1_890_000), (869_000, 1_891_000), (868_000, 1_945_000), (812_000, 1_943_000)]
    hole = [(850_000, 1_900_000), (860_000, 1_900_000), (860_000, 1_910_000), (850_000, 1_910_000)]
    shape = gpd.GeoSeries([shapely.segmentize(shapely.Polygon(outer, [hole]), 500)], crs=32660).to_crs(crs)[0]
    regions = regions_of(tmp_path, shape, crs)
    within = [
        a_map("before", 815_000, 1_900_000, 32660),
        a_map("across", 819_500, 1_910_000, 32660),
        a_map("beyond", 840_000, 1_930_000, 32660),
        a_map_at("next", -179.9, 17.3),
    ]
    outside = [a_map("hole", 854_000, 1_906_000, 32660), a_map_at("far", 0, 17.3), a_map_at("east", -179, 17.3)]
    assert regions.reached_by([*within, *outside]) == [within]


@pytest.mark.parametrize(("crs", "sign"), [(3031, -1), (3995, 1)])
def test_a_region_around_a_pole(tmp_path, crs, sign):
    regions = regions_of(tmp_path, shapely.Point(0, 0).buffer(1_500_000), crs)
    within = [a_map_at(f"M{east}", east, 80 * sign) for east in (-179.9, -60, 3, 135)]
    outside = [a_map_at(f"N{east}", east, 70 * sign) for east in (-60, 3)]
    assert regions.reached_by([*within, *outside]) == [within]


def test_parts_all_around_the_earth_are_each_where_they_lie(tmp_path):
    """From each to the next is less than half a turn, all in one direction: that makes no turns."""
    east = [-170, -10, 150, -50, 110, -90, 70, -130]
    project = pyproj.Transformer.from_crs(4326, 3857, always_xy=True).transform
    parts = [shapely.Point(*project(longitude, 10)).buffer(50_000) for longitude in east]
    regions = regions_of(tmp_path, shapely.MultiPolygon(parts), 3857)
    maps = [a_map_at(f"M{longitude}", longitude, 10) for longitude in east]
    assert regions.reached_by([*maps, a_map_at("other", 40, 10)]) == [maps]


def test_a_region_beyond_its_projection_is_refused_in_one_sentence(tmp_path):
    regions = regions_of(tmp_path, shapely.box(0, 0, 1e8, 1000), 32633)
    with pytest.raises(DataError, match=r"regions\.gpkg: its WGS 84 / UTM zone 33N cannot be reprojected") as error:
        regions.reached_by([a_map_at("M", 15, 45)])
    assert "\n" not in str(error.value)


def test_touching_is_not_reaching(tmp_path):
    regions = regions_of(tmp_path, shapely.box(600_000, 5_000_000, 602_000, 5_002_000), 32633)
    assert regions.reached_by([a_map("M", 700_000, 5_002_000, 32633)]) == [[]]


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("Nord/Pas de Calais", "Nord_Pas_de_Calais"),
        ("Österreich", "Österreich"),
        ("../../etc", "etc"),
        ("長野県", "長野県"),
        ("-rf *", "rf"),
        ("x" * 300, "x" * 60),
        (" . ", ""),
    ],
)
def test_names_of_regions_are_safe_as_names_of_files(name, stem):
    assert file_stem(name) == stem
