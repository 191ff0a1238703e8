"""Suggested windows: on maps whose features and probabilities are known, and what they are refused for."""

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

import geocfl
from geocfl.analysis.suggest import farthest_cells
from geocfl.core.legend import EUROSAT
from geocfl.errors import DataError, OutputError, UsageError
from tests.analysis.featured import finish
from tests.analysis.sample_data import change

pytestmark = pytest.mark.extra("geoparquet")
NONE = np.empty((0, 2), np.int64)


def add_probabilities(path: Path, probabilities: np.ndarray) -> None:
    """Writes ``S_probabilities.tif`` beside a map."""
    percent = np.rint(100 * probabilities).astype(np.uint8).transpose(2, 0, 1)
    with rasterio.open(path) as lulc:
        profile = {"height": lulc.height, "width": lulc.width, "crs": lulc.crs, "transform": lulc.transform}
    with rasterio.open(
        path.with_name("S_probabilities.tif"), "w", driver="GTiff", count=len(percent), dtype="uint8", nodata=255,
        **profile,
    ) as dataset:  # fmt: skip
        dataset.write(percent)


def answer(path: Path, names: dict[int, str]) -> None:
    change(path, *(f"UPDATE suggest SET reference = '{name}' WHERE id = {number}" for number, name in names.items()))


@pytest.fixture
def groups() -> tuple[np.ndarray, np.ndarray]:
    """8 x 10 cells of four kinds of land, with their features: three of one cell each, and one everywhere else."""
    features = np.random.default_rng(0).normal(0, 0.1, (8, 10, 3))
    features[1, 1], features[4, 8], features[6, 2] = (9, 0, 0), (0, 7, 0), (0, 0, 5)
    features[0, 9] = features.mean(axis=(0, 1))  # the most common, away from the others
    return np.full((8, 10), 2), features


def test_the_first_round_meets_every_kind_of_land(tmp_path: Path, groups: tuple[np.ndarray, np.ndarray]) -> None:
    path = finish(tmp_path / "map", *groups)
    made = geocfl.suggest(path, tmp_path / "out" / "s.gpkg", n=4)
    assert made.cells.tolist() == [[0, 9], [1, 1], [4, 8], [6, 2]], "a common one first, then the farthest"
    assert made.reason == "spread"
    again = geocfl.suggest(path, tmp_path / "again.gpkg", n=4)
    np.testing.assert_array_equal(again.cells, made.cells)


def test_the_file_is_a_form_and_says_that_it_is_no_sample(
    tmp_path: Path, groups: tuple[np.ndarray, np.ndarray]
) -> None:
    path = finish(tmp_path / "map", *groups)
    out = tmp_path / "s.gpkg"
    made = geocfl.suggest(path, out, n=4, classes=("Snow", "Forest"))
    assert made.paths == (out, tmp_path / "s.qgz")
    assert pyogrio.list_layers(out)[:, 0].tolist() == ["suggest", "layer_styles"]
    frame = gpd.read_file(out, layer="suggest")
    assert list(frame.columns[:6]) == ["id", "reference", "confidence", "comment", "map_class", "stratum"]
    assert frame["id"].tolist() == [1, 2, 3, 4]
    assert frame["reference"].isna().all()
    assert frame["map_class"].tolist() == ["Forest"] * 4
    grid = geocfl.open_map(path).grid
    west, south, east, north = frame.geometry[1].bounds
    assert (east - west, north - south) == (640, 640)
    assert ~grid.cell_transform @ (west, north) == pytest.approx((1, 1)), "the window, not more"
    style = pyogrio.read_dataframe(out, layer="layer_styles")["styleQML"][0]
    assert style.count('value="Forest"') == 1
    # QGIS 3.22 draws no category whose value is a number in the style and a number in the layer.
    assert '<category value="open"' in style
    assert 'type="string"' in style
    assert 'value="Snow"' in style
    facts = json.loads(pyogrio.read_info(out, layer="suggest")["dataset_metadata"]["GEOCFL_SUGGESTION"])
    assert "not at random: no accuracy or area follows" in facts["note"]
    answer(out, dict.fromkeys(range(1, 5), "Forest"))
    assert made.points()["reference"].tolist() == ["Forest"] * 4
    with pytest.raises(DataError, match=r"s\.gpkg: holds suggestions of geocfl suggest.*draw a sample with geocfl sam"):
        geocfl.assess(path, out)


def test_labels_move_it_to_where_the_map_is_unsure(tmp_path: Path, groups: tuple[np.ndarray, np.ndarray]) -> None:
    codes, features = groups
    path = finish(tmp_path / "map", codes, features)
    first = geocfl.suggest(path, tmp_path / "1.gpkg", n=4)
    answer(first.paths[0], dict.fromkeys(range(1, 4), "Forest"))  # all but the last
    probabilities = np.zeros((8, 10, len(EUROSAT)))
    probabilities[..., 1] = 1
    probabilities[7, 7, :2] = 0.52, 0.48
    add_probabilities(path, probabilities)
    made = geocfl.suggest(path, tmp_path / "2.gpkg", n=2, labeled=[first.paths[0]])
    assert made.reason == "uncertain"
    assert sorted(made.cells.tolist()) == [[6, 2], [7, 7]], "what has no answer yet, and what is unsure"
    taken = {tuple(cell) for cell in first.cells[:3].tolist()}
    assert not taken & {tuple(cell) for cell in made.cells.tolist()}


def test_windows_lie_in_the_scene_have_data_and_do_not_touch(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(1, 5, (40, 44))
    codes[20:24, 20:30] = 0
    path = finish(tmp_path / "map", codes, rng.normal(size=(40, 44, 4)), stride=16)
    made = geocfl.suggest(path, tmp_path / "s.gpkg", n=12)
    grid = geocfl.open_map(path).grid
    shapes = gpd.read_file(made.paths[0], layer="suggest").geometry
    west, south, east, north = grid.bounds()
    for index, shape in enumerate(shapes):
        assert shape.area == 640**2
        assert shape.bounds[0] >= west
        assert shape.bounds[1] >= south
        assert shape.bounds[2] <= east
        assert shape.bounds[3] <= north
        assert not shapes.drop(index).intersects(shape).any()
    for row, column in made.cells.tolist():
        assert (codes[row - 1 : row + 2, column - 1 : column + 2] != 0).all()


def test_probabilities_do_where_there_are_no_features(tmp_path: Path) -> None:
    path = finish(tmp_path / "map", np.full((6, 6), 1))
    probabilities = np.zeros((6, 6, len(EUROSAT)))
    probabilities[..., 0] = 1
    probabilities[0, 5, [0, 6]] = 0.2, 0.8
    add_probabilities(path, probabilities)
    assert [0, 5] in geocfl.suggest(path, tmp_path / "s.gpkg", n=3).cells.tolist()


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(0, 2))
def test_each_is_the_farthest_of_those_left(seed: int, n: int, reach: int) -> None:
    rng = np.random.default_rng(seed)
    space, valid = rng.normal(size=(5, 6, 3)), rng.random((5, 6)) < 0.8
    weight = rng.uniform(0.1, 1, (5, 6))
    known = np.array([[2, 2]])
    taken = farthest_cells(space, weight, valid, known, n, reach)
    before = known.tolist()
    for row, column in taken.tolist():
        distance = np.min([np.linalg.norm(space - space[r, c], axis=-1) for r, c in before], axis=0)
        free = valid & np.all(
            [np.maximum(*np.abs(np.indices((5, 6)) - np.array([[[r]], [[c]]]))) > reach for r, c in before], axis=0
        )
        assert free[row, column]
        assert (weight * distance)[row, column] == pytest.approx((weight * distance)[free].max(), rel=1e-4)
        before.append([row, column])
    assert len(taken) <= n


def test_every_class_of_the_map_gets_three(tmp_path: Path) -> None:
    codes = np.full((9, 12), 1)
    codes[:4, :5], codes[5:, 7:] = 5, 9
    features = np.random.default_rng(1).normal(size=(9, 12, 4))
    features[codes != 1] *= 0.01  # near each other
    path = finish(tmp_path / "map", codes, features)
    made = geocfl.suggest(path, tmp_path / "s.gpkg", n=14)
    found = dict(zip(*np.unique(codes[tuple(made.cells.T)], return_counts=True), strict=True))
    assert min(found[1], found[5], found[9]) >= 3


def test_answers_are_never_replaced(tmp_path: Path, groups: tuple[np.ndarray, np.ndarray]) -> None:
    path, out = finish(tmp_path / "map", *groups), tmp_path / "s.gpkg"
    geocfl.suggest(path, out, n=3)
    with pytest.raises(OutputError, match="already exists; use `overwrite=True`"):
        geocfl.suggest(path, out, n=3)
    geocfl.suggest(path, out, n=4, overwrite=True)
    answer(out, {2: "River"})
    content = out.read_bytes()
    with pytest.raises(OutputError, match=r"s\.gpkg: holds 1 answer, which are not replaced; choose another `out`"):
        geocfl.suggest(path, out, n=3, overwrite=True)
    assert out.read_bytes() == content


def test_what_is_missing_or_wrong_is_said_in_a_sentence(tmp_path: Path, groups: tuple[np.ndarray, np.ndarray]) -> None:
    path, bare = finish(tmp_path / "map", *groups), finish(tmp_path / "bare", groups[0])
    out = tmp_path / "s.gpkg"
    with pytest.raises(DataError, match="has neither features nor probabilities, by which windows are chosen; map the"):
        geocfl.suggest(bare, out)
    with pytest.raises(UsageError, match=r"`n` is 81, but S_lulc\.tif has only \d+ windows left that do not touch"):
        geocfl.suggest(path, out, n=81)
    with pytest.raises(UsageError, match="`n` is 0 but must be 1 or more"):
        geocfl.suggest(path, out, n=0)
    with pytest.raises(UsageError, match=r"must end in \.gpkg"):
        geocfl.suggest(path, tmp_path / "s.shp")
    first = geocfl.suggest(path, out, n=3)
    answer(out, {1: "Forest"})
    with pytest.raises(DataError, match="has neither probabilities nor confidence, which say where it is unsure"):
        geocfl.suggest(path, tmp_path / "2.gpkg", n=3, labeled=[first.paths[0]])
    with pytest.raises(DataError, match="no such file"):
        geocfl.suggest(path, tmp_path / "2.gpkg", n=3, labeled=[tmp_path / "none.gpkg"])
    (tmp_path / "map" / "S_summary.json").unlink()
    with pytest.raises(DataError, match=r"S_summary\.json is not beside it"):
        geocfl.suggest(path, tmp_path / "2.gpkg", n=3)
