"""Cells and windows: DESIGN's definition, checked against its own words."""

import numpy as np
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
    total = np.outer(cells.row_hectares(), cells.column_pixels()).sum()
    assert total == pytest.approx(height * width * 100 / 10_000)


def test_feet_are_converted() -> None:
    cells = grid(64, 64, 64, crs=CRS.from_epsg(2263))  # US survey feet
    assert cells.row_hectares()[0] * 64 == pytest.approx(64 * 64 * 100 * (1200 / 3937) ** 2 / 10_000)


@pytest.mark.parametrize("north", [60.0, 0.5, -40.0])
def test_geographic_areas_are_geodesic(north: float) -> None:
    cells = grid(100, 130, 16, Affine(0.01, 0, 12, 0, -0.01, north), CRS.from_epsg(4326))
    west, south, east, top = cells.bounds()
    xs = list(np.linspace(west, east, 2000))  # parallels are no geodesics: many points follow them
    ring = xs + xs[::-1], [south] * len(xs) + [top] * len(xs)
    expected = abs(Geod(ellps="WGS84").polygon_area_perimeter(*ring)[0]) / 10_000
    assert cells.row_hectares().sum() * cells.width == pytest.approx(expected, rel=1e-7)


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
    assert across * down * 100 * 128 / 10_000 == pytest.approx((cells.row_hectares() * 100).sum(), rel=1e-4)


def test_crs_by_name() -> None:
    assert grid(64, 64, 64).crs_name() == "WGS 84 / UTM zone 33N (EPSG:32633)"
    assert "EPSG" not in grid(64, 64, 64, crs=CRS.from_string("+proj=laea +lat_0=47 +lon_0=13")).crs_name()


def test_cells_keep_the_origin_of_the_scene() -> None:
    cells = grid(100, 100, 16)
    assert cells.cell_transform == Affine(160, 0, 3e5, 0, -160, 5e6)
    assert cells.bounds() == (300_000, 4_999_000, 301_000, 5_000_000)
