"""Parts of scenes."""

import re
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyproj import CRS, Transformer

from geocfl.errors import SceneError, UsageError
from geocfl.scenes.area import Area, Extent

TRANSFORM = Affine(10, 0, 300_000, 0, -10, 5_000_000)


@pytest.fixture(scope="module")
def raster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("raster") / "s.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=700, width=900, count=1, dtype="uint8", crs="EPSG:32633", transform=TRANSFORM
    ):
        pass
    return path


def area_file(path: Path, *polygons: shapely.Geometry, crs: int | None = 32633) -> Path:
    gpd.GeoDataFrame(geometry=list(polygons), crs=crs).to_file(path)
    return path


def pixels(column: float, row: float, width: float, height: float) -> shapely.Geometry:
    return shapely.box(3e5 + 10 * column, 5e6 - 10 * (row + height), 3e5 + 10 * (column + width), 5e6 - 10 * row)


@given(
    column=st.integers(-100, 899), row=st.integers(-100, 699), width=st.integers(1, 1000), height=st.integers(1, 1000),
    stride=st.sampled_from([1, 7, 16, 64]),
)  # fmt: skip
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_part_is_what_its_windows_need(raster, column, row, width, height, stride) -> None:
    area = Area("it", (pixels(column, row, width, height),), CRS.from_epsg(32633))
    with rasterio.open(raster) as dataset:
        if column + width <= 0 or row + height <= 0:
            with pytest.raises(SceneError, match="outside the scene"):
                Extent.around(area, dataset, stride, 64)
            return
        part = Extent.around(area, dataset, stride, 64)
    assert part.row % stride == part.column % stride == 0
    assert part.height >= 64
    assert part.width >= 64
    left, right = max(0, column), min(900, column + width)
    top, bottom = max(0, row), min(700, row + height)
    # Half a window beyond the area, where the scene goes on.
    assert part.column <= max(0, left - 32)
    assert part.row <= max(0, top - 32)
    assert part.column + part.width >= min(900, right + 32)
    assert part.row + part.height >= min(700, bottom + 32)
    inside = np.concatenate([part.inside(r, min(r + 100, part.height)) for r in range(0, part.height, 100)])
    expected = np.zeros((700, 900), bool)
    expected[top:bottom, left:right] = True
    shown = expected[part.row : part.row + part.height, part.column : part.column + part.width]
    np.testing.assert_array_equal(inside, shown)
    assert inside.sum() == expected.sum()


def test_all_of_a_scene_needs_no_mask(raster) -> None:
    with rasterio.open(raster) as dataset:
        whole = Extent.whole(dataset)
    assert (whole.row, whole.column, whole.height, whole.width) == (0, 0, 700, 900)
    assert whole.inside(0, 10) is None


def test_a_box_in_degrees_and_polygons_in_another_crs_are_the_same_place(raster, tmp_path) -> None:
    to_degrees = Transformer.from_crs(32633, 4326, always_xy=True)
    corner = shapely.box(*to_degrees.transform(303_000, 4_995_000), *to_degrees.transform(305_000, 4_997_000))
    west, south, east, north = corner.bounds
    box = Area.of_box((west, south, east, north))
    degrees = Area.of_file(area_file(tmp_path / "a.gpkg", corner, crs=4326))
    laea = gpd.GeoSeries([shapely.segmentize(corner, 0.001)], crs=4326).to_crs(3035)
    meters = Area.of_file(area_file(tmp_path / "b.gpkg", *laea, crs=3035))
    with rasterio.open(raster) as dataset:
        parts = [Extent.around(area, dataset, 16, 64) for area in (box, degrees, meters)]
    masks = [part.inside(0, part.height) for part in parts]
    for mask in masks:
        assert 35_000 < mask.sum() < 42_000
        assert (mask != masks[0]).mean() < 0.001


def test_over_the_antimeridian(tmp_path) -> None:
    path = tmp_path / "s.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=400, width=800, count=1, dtype="uint8", crs="EPSG:32760",
        transform=Affine(10, 0, 815_500, 0, -10, 8_100_000),
    ) as dataset:  # fmt: skip
        pass
    with rasterio.open(path) as dataset:
        part = Extent.around(Area.of_box((179.99, -17.19, -179.99, -17.17)), dataset, 64, 64)
    inside = part.inside(0, part.height)
    columns = np.flatnonzero(inside.any(axis=0))
    assert np.ptp(columns) * 10 == pytest.approx(0.02 * 111_320 * np.cos(np.radians(17.18)), rel=0.03)


def test_an_area_as_large_as_a_continent(raster) -> None:
    with rasterio.open(raster) as dataset:
        part = Extent.around(Area.of_box((-30, 30, 60, 75)), dataset, 64, 64)
    assert (part.height, part.width) == (700, 900)
    assert part.inside(0, 700).all()


@pytest.mark.parametrize(
    "box",
    [(1, 2, 3), "a,b,c,d", ("a", "b", "c", "d"), (10, 50, 11, 40), (10, -91, 11, 40), (), (1, 2, 3, 4, 5), None,
     (float("nan"), 1, 2, 3)],
)  # fmt: skip
def test_what_is_not_a_box(box) -> None:
    with pytest.raises(UsageError, match=r"`bbox` .* is not west,south,east,north in degrees"):
        Area.of_box(box)


def test_swapped_latitude_and_longitude(raster) -> None:
    with pytest.raises(UsageError, match=r"look swapped, so use `bbox=\(100, 48, 101, 49\)`"):
        Area.of_box((48, 100, 49, 101))
    with pytest.raises(UsageError, match=r"south comes before north, so use `bbox=\(13, 45, 13.5, 46\)`"):
        Area.of_box((13, 46, 13.5, 45))
    to_degrees = Transformer.from_crs(32633, 4326, always_xy=True)
    (west, south), (east, north) = to_degrees.transform(303_000, 4_995_000), to_degrees.transform(305_000, 4_997_000)
    with rasterio.open(raster) as dataset:
        with pytest.raises(SceneError, match=r"outside the scene .* look swapped, so use `bbox=\(12"):
            Extent.around(Area.of_box((south, west, north, east)), dataset, 64, 64)
        with pytest.raises(SceneError, match=r"outside the scene .* within the scene, 12\.\d{4},45\."):
            Extent.around(Area.of_box((50, 10, 51, 11)), dataset, 64, 64)


@pytest.mark.parametrize("east", [3e5, 1e12])
def test_an_area_outside_a_small_scene_is_told_where_it_lies(tmp_path, east) -> None:
    place = {"crs": "EPSG:32633", "transform": Affine(10, 0, east, 0, -10, 5e6)}
    with rasterio.open(tmp_path / "s.tif", "w", driver="GTiff", count=1, dtype="uint8", width=20, height=20, **place):
        pass
    with rasterio.open(tmp_path / "s.tif") as dataset, pytest.raises(SceneError, match="outside the scene") as refused:
        Extent.around(Area.of_box((100, 10, 101, 11)), dataset, 64, 64)
    where = re.search(r"choose an area within the scene, ([\d.,]+)", str(refused.value))
    if east == 1e12:  # nowhere on Earth
        assert where is None
        return
    assert where
    box = Area.of_box(tuple(map(float, where[1].split(","))))
    with rasterio.open(tmp_path / "s.tif") as dataset:
        assert Extent.around(box, dataset, 64, 64).width == 20


def test_files_that_are_no_area(tmp_path) -> None:
    with pytest.raises(SceneError, match=r"nothing\.gpkg: cannot be read as polygons"):
        Area.of_file(tmp_path / "nothing.gpkg")
    points = area_file(tmp_path / "points.gpkg", shapely.Point(0, 0))
    with pytest.raises(SceneError, match=r"points\.gpkg: holds no polygons"):
        Area.of_file(points)
    nowhere = area_file(tmp_path / "nowhere.gpkg", shapely.box(0, 0, 1, 1), crs=None)
    with pytest.raises(SceneError, match=r"nowhere\.gpkg: has no coordinate reference system"):
        Area.of_file(nowhere)


def test_coordinates_that_are_no_numbers_are_named(tmp_path) -> None:
    ring = [(0, 0), (1, 0), (1, float("inf")), (0, 0)]
    with pytest.raises(SceneError, match=r"area\.gpkg: has coordinates that are not finite numbers"):
        Area.of_file(area_file(tmp_path / "area.gpkg", shapely.Polygon(ring)))


def test_polygons_of_another_celestial_body(raster, tmp_path) -> None:
    file = tmp_path / "moon.gpkg"
    gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs="+proj=longlat +R=1737400").to_file(file)
    with rasterio.open(raster) as dataset, pytest.raises(SceneError, match=r"moon\.gpkg: its .* cannot be reprojected"):
        Extent.around(Area.of_file(file), dataset, 64, 64)
