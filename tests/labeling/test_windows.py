"""Which windows of a scene labels give."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyproj
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS

from geocfl.core.grid import CellGrid
from geocfl.core.legend import Legend
from geocfl.errors import DataError
from geocfl.labeling.labels import Labels
from geocfl.labeling.windows import EDGE, SHARED, SMALL, TWICE, Found, find_windows
from tests.labeling.scene_data import CRS as EPSG
from tests.labeling.scene_data import NORTH, WEST, box, point

SIDE = 64
GRID = CellGrid(640, 640, SIDE, SIDE, Affine(10, 0, WEST, 0, -10, NORTH), CRS.from_epsg(EPSG))


def find(
    *shapes: tuple[str, shapely.Geometry], min_share: float = 0.7, spacing: int = SIDE, overlap: str = "refuse"
) -> Found:
    legend = Legend.from_folders(["A", "B"])
    codes = np.array([1 + "AB".index(name) for name, _ in shapes], np.int64)
    parts = np.array([shape for _, shape in shapes], object)
    labels = Labels(Path("l.gpkg"), pyproj.CRS.from_epsg(EPSG), legend, parts, codes, np.arange(1, len(parts) + 1))
    return find_windows(labels, GRID, min_share=min_share, spacing=spacing, overlap=overlap)


def places(found: Found) -> set[tuple[int, int]]:
    return set(zip(found.windows.rows.tolist(), found.windows.columns.tolist(), strict=True))


def test_a_point_is_in_the_middle_of_its_window() -> None:
    found = find(("A", point(100.5, 200.5)))
    assert places(found) == {(68, 168)}
    assert np.isnan(found.windows.shares).all(), "no polygon covers it"


def test_a_polygon_of_one_window_gives_that_window() -> None:
    found = find(("A", box(37, 411, SIDE, SIDE)))
    assert places(found) == {(37, 411)}
    assert found.windows.shares.tolist() == [1.0]


def test_a_polygon_gives_the_grid_with_the_most_windows() -> None:
    """Of 2 x 3 windows and 10 px, only grids that begin in the 10 px have six whole ones."""
    found = find(("A", box(100, 100, 2 * SIDE + 10, 3 * SIDE + 10)), min_share=1.0)
    assert len(found.windows) == 6
    assert min(places(found)) == (105, 105), "in the middle of the polygon"


def test_a_window_that_its_class_covers_too_little_is_left_out() -> None:
    small = ("A", box(100, 100, 40, SIDE))  # 0.625 of a window
    assert find(small).left_out[SMALL] == 1
    found = find(small, min_share=0.6)
    assert found.windows.shares == pytest.approx([0.625])


def test_adjacent_polygons_of_a_class_count_together() -> None:
    found = find(("A", box(100, 100, SIDE, 32)), ("A", box(100, 132, SIDE, 32)), min_share=1.0)
    assert places(found) == {(100, 100)}


def test_half_the_spacing_gives_about_four_times_the_windows() -> None:
    field = ("A", box(100, 100, 4 * SIDE, 4 * SIDE))
    assert len(find(field, min_share=1.0).windows) == 16
    assert len(find(field, min_share=1.0, spacing=SIDE // 2).windows) == 49


def test_a_point_at_the_edge_of_the_scene_is_left_out() -> None:
    found = find(("A", point(31, 300)), ("A", point(32, 300)), ("A", point(608, 608)), ("A", point(609, 300)))
    assert places(found) == {(0, 268), (576, 576)}
    assert found.left_out[EDGE] == 2


def test_labels_outside_the_scene_are_known() -> None:
    found = find(("A", box(700, 0, 99, 99)), ("A", box(600, 0, 99, 99)), ("B", point(-1, 5)), ("B", point(50, 50)))
    assert found.inside.tolist() == [False, True, False, True]


def test_overlapping_labels_of_two_classes_are_refused_with_their_place() -> None:
    with pytest.raises(DataError, match=r"A and B overlap, most around x=30\d{4}, y=499\d{4} \(81\.9 ha\).*share"):
        find(("A", box(100, 100, 128, 128)), ("B", box(100, 164, 128, 128)), ("B", box(90, 90, 12, 12)))


def test_borders_drawn_twice_do_not_count_as_overlap() -> None:
    found = find(("A", box(100, 100, 128, 64.4)), ("B", box(100, 164, 128, 128)))
    assert Counter(found.windows.classes.tolist()) == {1: 2, 2: 4}


def test_a_shared_window_belongs_to_the_class_that_covers_more() -> None:
    """A covers four windows in a row, B the last and half of the one before."""
    found = find(("A", box(64, 0, 64, 256)), ("B", box(64, 160, 64, 96)), overlap="share")
    of_a = {place for place, code in zip(sorted(places(found)), found.windows.classes, strict=True) if code == 1}
    assert of_a == {(64, 0), (64, 64), (64, 128)}
    assert found.left_out[SHARED] >= 1, "both cover the last one"


def test_a_point_in_a_polygon_of_another_class_is_refused_or_left_out() -> None:
    labels = (("A", box(100, 100, 200, 200)), ("B", point(200, 200)))
    with pytest.raises(DataError, match=r"the point of feature 2 lies in or beside a label of another class"):
        find(*labels)
    assert set(find(*labels, overlap="share").windows.classes) == {1}


def test_points_of_two_classes_side_by_side_are_refused_or_left_out() -> None:
    near, far = (("A", point(200, 200)), ("B", point(200, 210))), (("A", point(200, 200)), ("B", point(200, 240)))
    with pytest.raises(DataError, match="of feature 1"):
        find(*near)
    assert len(find(*near, overlap="share").windows) == 0
    assert len(find(*far).windows) == 2


def test_a_point_whose_window_another_class_covers_is_left_out() -> None:
    found = find(("A", point(200, 90)), ("B", box(100, 100, 200, 200)))
    assert found.left_out[SHARED] == 1, "B covers a third"
    assert len(find(("A", point(200, 90)), ("B", box(100, 100, 200, 200)), min_share=0.6).windows) == 10


def test_a_point_twice_gives_one_window() -> None:
    found = find(("A", point(200.2, 200.2)), ("A", point(200.8, 200.8)))
    assert len(found.windows) == 1
    assert found.left_out[TWICE] == 1


rectangles = st.builds(box, st.floats(-50, 600), st.floats(-50, 600), st.floats(5, 300), st.floats(5, 300))


@given(
    ours=st.lists(rectangles, max_size=4),
    theirs=st.lists(rectangles, max_size=4),
    min_share=st.floats(0.3, 1),
    spacing=st.integers(16, 128),
)
def test_windows_keep_their_promises(ours, theirs, min_share, spacing) -> None:
    """They lie in the scene, are covered as they say and more than by the other class, and keep their distance."""
    found = find(
        *(("A", shape) for shape in ours), *(("B", shape) for shape in theirs),
        min_share=min_share, spacing=spacing, overlap="share",
    )  # fmt: skip
    windows = found.windows
    assert ((windows.rows >= 0) & (windows.rows + SIDE <= GRID.height)).all()
    assert ((windows.columns >= 0) & (windows.columns + SIDE <= GRID.width)).all()
    covers = {1: shapely.union_all(ours), 2: shapely.union_all(theirs)}
    for row, column, code, share in zip(windows.rows, windows.columns, windows.classes, windows.shares, strict=True):
        square = box(row, column, SIDE, SIDE)
        own, other = (covers[each].intersection(square).area / square.area for each in (code, 3 - code))
        assert share == pytest.approx(own, abs=0.04), "by the middles of pixels"
        assert share >= min_share
        assert own > other - 0.04
    for code in (1, 2):
        rows, columns = windows.rows[windows.classes == code], windows.columns[windows.classes == code]
        apart = np.maximum(np.abs(rows[:, None] - rows), np.abs(columns[:, None] - columns))
        assert (apart[~np.eye(len(rows), dtype=bool)] >= spacing).all()


def test_large_polygons_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    field = ("A", box(0, 0, 640, 640))
    whole = find(field)
    monkeypatch.setattr("geocfl.labeling.windows.TILE", 200)
    divided = find(field)
    assert len(whole.windows) == 100
    assert len(divided.windows) >= 64
    assert divided.left_out[SMALL] == 0
