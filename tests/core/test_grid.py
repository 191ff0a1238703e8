"""Cells and windows: DESIGN's definition, checked against its own words."""

import numpy as np
import pyproj
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Geod
from rasterio.crs import CRS

from geocfl.core.grid import CellGrid

UTM = CRS.from_epsg(32633)


def grid(height: int, width: int, stride: int, transform=Affine(10, 0, 3e5, 0, -10, 5e6), crs=UTM) -> CellGrid:  # noqa: B008
    return CellGrid(height, width, stride, 64, transform, crs)


def hectares(cells: CellGrid) -> np.ndarray:
    """(rows, columns) hectares of the cells."""
    areas = cells.areas()
    return areas.rows.T @ areas.columns


def by_geod(cells: CellGrid) -> np.ndarray:
    """(rows, columns) hectares of the cells by pyproj's geodesics, along their sides in short steps."""
    crs = pyproj.CRS.from_wkt(cells.crs.to_wkt())
    to_degrees = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    geod = crs.geodetic_crs.get_geod()
    out = np.zeros((cells.rows, cells.columns))
    corners, along = np.arange(5), np.linspace(0, 4, 201)
    for (i, j), _ in np.ndenumerate(out):
        top, bottom = i * cells.stride, min((i + 1) * cells.stride, cells.height)
        left, right = j * cells.stride, min((j + 1) * cells.stride, cells.width)
        xs = np.interp(along, corners, [left, right, right, left, left])
        ys = np.interp(along, corners, [top, top, bottom, bottom, top])
        out[i, j] = abs(geod.polygon_area_perimeter(*to_degrees.transform(*(cells.transform @ (xs, ys))))[0]) / 10_000
    return out


TORONTO = CRS.from_epsg(3347)  # conformal conic
ELSEWHERE = {
    "web mercator": (Affine(14.34, 0, 1_480_000, 0, -14.34, 5_740_000), CRS.from_epsg(3857)),
    "turned web mercator": (Affine(10, 7, 1_480_000, 7, -10, 5_740_000), CRS.from_epsg(3857)),
    "south-up web mercator": (Affine(-14.34, 0, 1_480_000, 0, 14.34, -5_740_000), CRS.from_epsg(3857)),
    "web mercator at 180 degrees": (Affine(20, 0, 20_036_508, 0, -20, 1_000_000), CRS.from_epsg(3857)),
    "conformal conic": (Affine(30, 0, 7_200_000, 0, -30, 900_000), TORONTO),
    "conic of Europe": (Affine(10, 0, 6_000_000, 0, -10, 5_000_000), CRS.from_epsg(3034)),
    "around a pole": (Affine(1000, 0, -64_000, 0, -1000, 64_000), CRS.from_epsg(3995)),
    "UTM far off its zone": (Affine(10, 0, -200_000, 0, -10, 5_000_000), UTM),
    "UTM at the rim of its zone": (Affine(10, 0, 835_000, 0, -10, 10_000), UTM),
    "plate carree": (Affine(10, 0, 1_000_000, 0, -10, 5_500_000), CRS.from_epsg(32662)),
    "feet off scale": (Affine(30, 0, 984_250, 0, -30, 2_500_000), CRS.from_epsg(2263)),
    "turned degrees": (Affine(1e-3, 5e-4, 12, 5e-4, -1e-3, 47), CRS.from_epsg(4326)),
    "grads": (Affine(1e-3, 0, 2, 0, -1e-3, 52), CRS.from_epsg(4807)),
}


@pytest.mark.parametrize("place", ELSEWHERE)
def test_hectares_are_those_on_the_ground(place: str) -> None:
    cells = grid(100, 130, 48, *ELSEWHERE[place])
    np.testing.assert_allclose(hectares(cells), by_geod(cells), rtol=1e-7, atol=1e-6)
    across, down = cells.meters_per_pixel()
    if place not in ("turned web mercator", "turned degrees"):  # whose sides are at right angles nowhere else
        assert across * down * 100 * 130 / 10_000 == pytest.approx(by_geod(cells).sum(), rel=2e-3)


def test_one_map_of_the_world_has_its_ground() -> None:
    """From 85 degrees south to north, cells of one map differ by a factor of a hundred."""
    side = 20_037_508.34
    cells = grid(500, 500, 20, Affine(side / 250, 0, -side, 0, -side / 250, side), CRS.from_epsg(3857))
    east, middle = (
        hectares(cells)[:, -1],
        by_geod(grid(500, 20, 20, Affine(side / 250, 0, 0, 0, -side / 250, side), CRS.from_epsg(3857))),
    )
    np.testing.assert_allclose(east, middle[:, 0], rtol=1e-3)


@given(st.floats(-0.9, 0.9), st.floats(-60, 80))
def test_the_projection_is_left_only_where_it_is_not_true(off: float, latitude: float) -> None:
    """Within 0.1% of the ground, hectares stay those of the projection, as in a UTM zone."""
    x, y = pyproj.Transformer.from_crs(4326, 32633, always_xy=True).transform(15 + 3 * off, latitude)
    cells = grid(10, 10, 10, Affine(10, 0, x, 0, -10, y))
    planar, ground = 1.0, by_geod(cells)[0, 0]
    assert hectares(cells)[0, 0] == pytest.approx(planar if abs(planar / ground - 1) <= 1e-3 else ground, rel=1e-6)


@given(st.integers(64, 400), st.integers(64, 400), st.integers(1, 64))
def test_every_pixel_lies_in_exactly_one_cell(height: int, width: int, stride: int) -> None:
    cells = grid(height, width, stride)
    assert cells.rows == -(-height // stride)
    assert cells.row_pixels().sum() == height
    assert cells.column_pixels().sum() == width
    assert cells.row_pixels().min() >= 1


@given(st.integers(1, 64), st.integers(0, 20))
def test_windows_start_where_the_definition_says(stride: int, i: int) -> None:
    cells = grid(1300, 1300, stride)
    assert i * stride - cells.margin == i * stride + (stride - 64) // 2


def test_at_full_stride_window_and_cell_are_the_same_square() -> None:
    assert grid(640, 640, 64).margin == 0


@given(st.integers(64, 300), st.integers(64, 300), st.integers(1, 64))
def test_projected_areas_add_up_to_the_scene(height: int, width: int, stride: int) -> None:
    cells = grid(height, width, stride)
    assert hectares(cells).sum() == pytest.approx(height * width * 100 / 10_000)


def test_feet_are_converted() -> None:
    cells = grid(64, 64, 64, Affine(10, 0, 3e5, 0, -10, 2e5), CRS.from_epsg(2263))  # US survey feet, near New York
    assert hectares(cells)[0, 0] == pytest.approx(64 * 64 * 100 * (1200 / 3937) ** 2 / 10_000)


@pytest.mark.parametrize("north", [60.0, 0.5, -40.0])
def test_geographic_areas_are_geodesic(north: float) -> None:
    cells = grid(100, 130, 16, Affine(0.01, 0, 12, 0, -0.01, north), CRS.from_epsg(4326))
    west, south, east, top = cells.bounds()
    xs = list(np.linspace(west, east, 2000))  # parallels are no geodesics: many points follow them
    ring = xs + xs[::-1], [south] * len(xs) + [top] * len(xs)
    expected = abs(Geod(ellps="WGS84").polygon_area_perimeter(*ring)[0]) / 10_000
    assert hectares(cells).sum() == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize(
    ("transform", "crs"),
    [
        (Affine(10, 0, 3e5, 0, -10, 5e6), UTM),
        (Affine(8, 6, 3e5, 6, -8, 5e6), UTM),  # rotated
        (Affine(10, 0, 0, 0, -10, 0), CRS.from_epsg(2263)),  # feet
        (Affine(1e-4, 0, 12, 0, -1e-4, 47), CRS.from_epsg(4326)),
    ],
)
def test_a_pixels_sides_span_its_area(transform: Affine, crs: CRS) -> None:
    cells = grid(128, 100, 64, transform, crs)
    across, down = cells.meters_per_pixel()
    assert across * down * 100 * 128 / 10_000 == pytest.approx(hectares(cells).sum(), rel=1e-4)


def test_crs_by_name() -> None:
    assert grid(64, 64, 64).crs_name() == "WGS 84 / UTM zone 33N (EPSG:32633)"
    assert "EPSG" not in grid(64, 64, 64, crs=CRS.from_string("+proj=laea +lat_0=47 +lon_0=13")).crs_name()


def test_cells_keep_the_origin_of_the_scene() -> None:
    cells = grid(100, 100, 16)
    assert cells.cell_transform == Affine(160, 0, 3e5, 0, -160, 5e6)
    assert cells.bounds() == (300_000, 4_999_000, 301_000, 5_000_000)
