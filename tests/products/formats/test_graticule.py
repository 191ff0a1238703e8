from dataclasses import replace

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio.crs import CRS

from geocfl.core.grid import CellGrid
from geocfl.products.formats.graticule import graticule, label


def grid_at(epsg: int, x: float, y: float, pixel: float = 10.0, height: int = 1000, width: int = 1500) -> CellGrid:
    return CellGrid(height, width, 64, 64, Affine(pixel, 0, x, 0, -pixel, y), CRS.from_epsg(epsg))


@pytest.mark.parametrize(
    ("degrees", "meridian", "text"),
    [
        (13 + 1 / 3, True, "13°20\N{PRIME} E"),
        (-0.5, True, "0°30\N{PRIME} W"),
        (0, False, "0°"),
        (-33, False, "33° S"),
        (45 + 1 / 3600, False, "45°00\N{PRIME}01\N{DOUBLE PRIME} N"),
        (181, True, "179° W"),
    ],
)
def test_labels_are_degrees_minutes_and_seconds(degrees: float, meridian: bool, text: str) -> None:
    assert label(degrees, meridian=meridian) == text


def test_lines_lie_where_their_labels_say() -> None:
    grid = grid_at(32633, 367_000, 5_072_000)
    lines = graticule(grid)
    assert {line.meridian for line in lines} == {True, False}
    there = Transformer.from_crs(32633, 4326, always_xy=True)
    for line in lines:
        longitude, latitude = there.transform(*(grid.transform @ (line.columns, line.rows)))
        fixed = longitude if line.meridian else latitude
        assert np.ptp(fixed) < 1e-6
        assert label(float(fixed[0]), meridian=line.meridian) == line.label


@given(
    longitude=st.floats(-179, 179), latitude=st.floats(-70, 70), side=st.integers(1, 20_000), pixel=st.floats(0.5, 100)
)
def test_a_scene_anywhere_has_a_few_lines(longitude: float, latitude: float, side: int, pixel: float) -> None:
    step = pixel / 111_320
    grid = CellGrid(side, side, 64, 64, Affine(step, 0, longitude, 0, -step, latitude), CRS.from_epsg(4326))
    lines = graticule(grid)
    assert len(lines) <= 20
    assert all(np.isfinite(line.columns).all() and np.isfinite(line.rows).all() for line in lines)
    if side * step > 5 / 3600:
        assert len(lines) >= 4


def test_lines_cross_the_180th_meridian() -> None:
    grid = CellGrid(1000, 1000, 64, 64, Affine(1e-4, 0, 179.95, 0, -1e-4, -17), CRS.from_epsg(4326))
    labels = [line.label for line in graticule(grid) if line.meridian]
    assert any(text.endswith("W") for text in labels)
    assert "180° W" in labels or "180° E" in labels


NOWHERE = CRS.from_wkt('LOCAL_CS["somewhere",UNIT["metre",1]]')  # codespell:ignore metre


@pytest.mark.parametrize(
    "grid",
    [
        grid_at(3031, 100_000, 100_000),  # beside the South Pole
        grid_at(4326, -180, 90, pixel=0.2, height=900, width=1800),  # the world
        replace(grid_at(32633, 0, 0), crs=NOWHERE),
    ],
    ids=["pole", "world", "nowhere"],
)
def test_no_lines_where_they_cannot_be_read(grid: CellGrid) -> None:
    assert graticule(grid) == []
