"""The choice among scenes of a search, and the areas of what they cover."""

from __future__ import annotations

import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from geocfl.planning.choose import Candidate, choose, square_km
from tests.planning.stac_api import item

TILE = (13.0, 45.0, 14.0, 46.0)
AREA = shapely.box(*TILE)


def scene(name: str, box=TILE, day: str = "2022-06-15", cloud: float | None = 5, **more) -> Candidate:
    return Candidate.of(item(name, box, day, cloud, **more))


def names(chosen: list[Candidate]) -> list[str]:
    return [each.id for each in chosen]


@pytest.mark.parametrize(
    ("name", "properties", "tile"),
    [
        ("x", {"grid:code": "MGRS-33TUL"}, "33TUL"),
        ("x", {"s2:mgrs_tile": "1CCV"}, "01CCV"),
        ("x", {"mgrs:utm_zone": 4, "mgrs:latitude_band": "Q", "mgrs:grid_square": "FJ"}, "04QFJ"),
        ("S2B_33UXP_20250302_0_L2A", {}, "33UXP"),
        ("S2A_MSIL2A_20220601T100031_N0400_R122_T33TUL_20220601T160000", {}, "33TUL"),
        ("a_scene_of_20220601", {}, ""),
    ],
)
def test_tiles(name: str, properties: dict, tile: str) -> None:
    assert scene(name, **properties).tile == tile


@pytest.mark.parametrize(("sort", "first"), [("cloud", "S2_33TUL_b"), ("newest", "S2_33TUL_c")])
def test_orders(sort: str, first: str) -> None:
    found = [
        scene("S2_33TUL_a", day="2022-06-01", cloud=30),
        scene("S2_33TUL_b", day="2022-06-02", cloud=1),
        scene("S2_33TUL_c", day="2022-06-03", cloud=None),
    ]
    assert names(choose(found, AREA, 1, sort)) == [first]
    assert len(choose(found, AREA, 2, sort)) == 2


def test_gaps_of_a_tile_are_filled_by_the_next_scenes_that_cover_them() -> None:
    west, east = (13.0, 45.0, 13.6, 46.0), (13.5, 45.0, 14.0, 46.0)
    found = [
        scene("S2_33TUL_west", west, "2022-06-01", 0),
        scene("S2_33TUL_west2", west, "2022-06-02", 1),
        scene("S2_33TUL_sliver", (13.599, 45.0, 13.605, 46.0), "2022-06-03", 2),
        scene("S2_33TUL_east", east, "2022-06-04", 90),
    ]
    assert names(choose(found, AREA, 1, "cloud")) == ["S2_33TUL_west", "S2_33TUL_east"]
    inside = shapely.box(13.1, 45.1, 13.3, 45.3)
    assert names(choose(found, inside, 1, "cloud")) == ["S2_33TUL_west"], "no gap in what is wanted"


def test_of_an_acquisition_the_latest_version_counts() -> None:
    found = [
        scene("S2A_T33TUL_N0500", **{"s2:processing_baseline": "05.00"}),
        scene("S2A_T33TUL_N0301", **{"s2:processing_baseline": "03.01"}),
        scene("S2A_T33TUM_N0301", **{"s2:processing_baseline": "03.01"}),
    ]
    assert names(choose(found, AREA, 2, "cloud")) == ["S2A_T33TUL_N0500", "S2A_T33TUM_N0301"]
    halves = [scene(f"S2A_33TUL_{i}", (13 + i / 2, 45, 13.5 + i / 2, 46)) for i in range(2)]
    assert names(choose(halves, AREA, 1, "cloud")) == ["S2A_33TUL_0", "S2A_33TUL_1"], "two data strips of one moment"


@given(
    st.lists(
        st.tuples(
            st.floats(13, 14), st.floats(45, 46), st.floats(0.1, 1), st.floats(0.1, 1), st.integers(0, 100),
            st.sampled_from(["33TUL", "33TUM"]), st.integers(1, 28),
        ),
        min_size=1, max_size=12,
    ),
    st.integers(1, 3),
)  # fmt: skip
def test_a_choice_leaves_less_than_a_sliver_of_each_tile_uncovered(scenes, per_tile: int) -> None:
    found = [
        scene(f"S2_{tile}_{i}", (x, y, x + w, y + h), f"2022-06-{day:02}", cloud)
        for i, (x, y, w, h, cloud, tile, day) in enumerate(scenes)
    ]
    chosen = choose(found, AREA, per_tile, "cloud")
    latest = {(each.tile, each.taken) for each in found}
    for tile in {each.tile for each in found}:
        mine = [each for each in chosen if each.tile == tile]
        assert len(mine) >= min(per_tile, sum(t == tile for t, _ in latest))
    if len(latest) == len(found):  # else an earlier version may have had more ground
        for tile in {each.tile for each in found}:
            wanted = shapely.union_all([e.footprint for e in found if e.tile == tile]).intersection(AREA)
            covered = shapely.union_all([e.footprint for e in chosen if e.tile == tile])
            rest = len([e for e in found if e.tile == tile])
            assert square_km(wanted.difference(covered)) <= 0.01 * rest * square_km(wanted) + 1e-6


def test_areas_are_those_of_the_ellipsoid() -> None:
    assert square_km(shapely.box(0, 0, 1, 1)) == pytest.approx(12308.8, rel=1e-4)  # Karney's GeographicLib
    holed = shapely.box(0, 0, 1, 1).difference(shapely.box(0.25, 0.25, 0.75, 0.75))
    assert square_km(holed) == pytest.approx(12308.8 * 0.75, rel=1e-3)
    assert square_km(shapely.LineString([(0, 0), (1, 1)])) == 0
