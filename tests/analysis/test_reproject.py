from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine

from geocfl.analysis.reproject import longest_side, onto_map, polygonal, untorn
from geocfl.core.grid import CellGrid
from geocfl.errors import DataError


def grid(crs: str, transform: Affine) -> CellGrid:
    return CellGrid(640, 640, 64, 64, transform, rasterio.CRS.from_user_input(crs))


def test_sides_bend() -> None:
    """A parallel of 10 degrees is no straight line in UTM: its middle is where the projection says."""
    there = grid("EPSG:32633", Affine(10, 0, 497_000, 0, -10, 5_004_000))  # on the middle of the parallel at 45.16 N
    band = np.array([shapely.box(10, 45, 20, 45.17)])
    (found,) = onto_map(Path("zones.gpkg"), band, pyproj.CRS(4326), there)
    _, edge = pyproj.Transformer.from_crs(4326, 32633, always_xy=True).transform(15, 45.17)
    above, below = shapely.points(500_000, [edge + 0.5, edge - 0.5])
    assert shapely.covers(found, below)
    assert not shapely.covers(found, above)


def test_what_lies_a_turn_further_on_counts() -> None:
    there = grid("EPSG:4326", Affine(1e-4, 0, 179.99, 0, -1e-4, -17))
    (found,) = onto_map(Path("zones.gpkg"), np.array([shapely.box(-180, -18, -179.97, -16)]), pyproj.CRS(4326), there)
    assert shapely.covers(found, shapely.box(180, -17.06, 180.02, -17.01))


@pytest.mark.parametrize("latitude", [80.0, -80.0])
def test_around_a_pole(latitude: float) -> None:
    ring = [(longitude, latitude) for longitude in range(-180, 180, 5)]
    (found,) = untorn(np.array([shapely.Polygon([*ring, ring[0]])]))
    assert shapely.covers(found, shapely.Point(33, np.sign(latitude) * 89.9))
    assert not shapely.covers(found, shapely.Point(33, 0))


def test_across_the_180th_degree_polygons_stay_whole() -> None:
    torn = np.array([shapely.Polygon([(179, -17), (-179, -17), (-179, -16), (179, -16)]), shapely.box(0, 0, 1, 1)])
    whole, other = untorn(torn)
    assert whole.area == pytest.approx(2)
    assert other.equals(torn[1])


def test_only_areas_are_left() -> None:
    mixed = shapely.GeometryCollection([shapely.box(0, 0, 1, 1), shapely.LineString([(1, 0), (2, 0)])])
    area, nothing = polygonal(np.array([mixed, shapely.Point(0, 0)]))
    assert area.equals(shapely.box(0, 0, 1, 1))
    assert nothing.is_empty


def test_sides_are_as_long_in_feet() -> None:
    assert longest_side(pyproj.CRS(32633)) == 1000
    assert longest_side(pyproj.CRS(2263)) == pytest.approx(1000 / 0.3048, rel=1e-5)
    assert longest_side(pyproj.CRS(4326)) == 0.01


def test_what_cannot_be_reprojected(tmp_path) -> None:
    local = pyproj.CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]')  # codespell:ignore metre
    there = grid("EPSG:32633", Affine(10, 0, 5e5, 0, -10, 5e6))
    with pytest.raises(DataError, match=r"zones\.gpkg: .*reproject"):
        onto_map(tmp_path / "zones.gpkg", np.array([shapely.box(0, 0, 1, 1)]), local, there)
