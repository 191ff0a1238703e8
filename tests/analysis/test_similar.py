"""Cells like a given one, on maps whose features are known."""

from pathlib import Path

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import rasterio

import geocfl
from geocfl.errors import DataError, OutputError, UsageError
from tests.analysis.featured import featured_map

pytestmark = pytest.mark.extra("geoparquet")


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    """6 x 8 cells in two directions, turned a little with the distance from the upper left corner."""
    angle = np.hypot(*np.indices((6, 8))) / 20
    angle[3:] += 2.0
    lengths = np.random.default_rng(0).uniform(1, 5, angle.shape)
    return lengths[..., None] * np.stack([np.cos(angle), np.sin(angle), np.zeros_like(angle)], axis=-1)


@pytest.fixture(scope="module")
def codes() -> np.ndarray:
    codes = np.repeat([[1], [2]], 3, axis=0) * np.ones((1, 8), int)
    codes[5, 7] = 0
    return codes


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, codes: np.ndarray, features: np.ndarray) -> Path:
    return featured_map(tmp_path_factory.mktemp("map"), codes, features)[0]


def middle(path: Path, row: int, column: int) -> tuple[float, float]:
    return geocfl.open_map(path).transform @ (column + 0.5, row + 0.5)


def test_the_nearest_directions_come_first(finished: Path, features: np.ndarray) -> None:
    found = geocfl.similar(finished, middle(finished, 0, 0), n=46)
    angle = np.arctan2(features[..., 1], features[..., 0])
    expected = np.cos(angle)
    np.testing.assert_allclose(found.similarity[:5], expected[:5], atol=1e-3)
    assert np.isnan(found.similarity[5, 7])
    assert found.cells[:2].tolist() in ([[0, 1], [1, 0]], [[1, 0], [0, 1]]), "not the cell itself"
    ranked = found.similarity[tuple(found.cells.T)]
    assert (np.diff(ranked) <= 0).all()
    assert len({tuple(cell) for cell in found.cells.tolist()}) == 46
    frame = found.frame()
    assert frame["class_name"].tolist()[:3] == ["Annual Crop"] * 3
    assert frame["rank"].tolist() == list(range(1, 47))


def test_a_point_is_in_degrees_or_in_the_maps_coordinates(finished: Path) -> None:
    x, y = middle(finished, 4, 2)
    degrees = pyproj.Transformer.from_crs(32633, 4326, always_xy=True).transform(x, y)
    one, other = (geocfl.similar(finished, point) for point in ((x, y), degrees))
    np.testing.assert_array_equal(one.cells, other.cells)
    places = one.places()
    assert list(places) == ["rank", "similarity", "class", "longitude", "latitude"]
    assert abs(places["latitude"] - degrees[1]).max() < 0.05


def test_overlapping_windows_are_listed_once(tmp_path: Path, codes: np.ndarray, features: np.ndarray) -> None:
    path, _ = featured_map(tmp_path, codes, features, stride=16)
    found = geocfl.similar(path, middle(path, 0, 0), n=40)
    assert 0 < len(found.cells) < 40
    places = np.concatenate([[[0, 0]], found.cells])
    apart = np.abs(places[:, None] - places[None]).max(axis=-1)
    assert (apart[~np.eye(len(places), dtype=bool)] >= 4).all(), "windows of 64 px overlap at less than 4 cells of 16"


def test_another_map_of_the_model_is_searched(
    finished: Path, tmp_path: Path, codes: np.ndarray, features: np.ndarray
) -> None:
    same, _ = featured_map(tmp_path / "same", codes, features)
    found = geocfl.similar(finished, middle(finished, 3, 3), search=same, n=1)
    assert found.cells.tolist() == [[3, 3]]
    assert found.similarity[3, 3] == pytest.approx(1, abs=1e-3)
    other, _ = featured_map(tmp_path / "other", codes, features, digest="1" * 128)
    with pytest.raises(DataError, match="features are of another model, known, than those of"):
        geocfl.similar(finished, middle(finished, 3, 3), search=other)


def test_cells_and_similarities_are_written(finished: Path, tmp_path: Path) -> None:
    files = {"out": tmp_path / "s.gpkg", "raster": tmp_path / "s.tif"}
    found = geocfl.similar(finished, middle(finished, 0, 0), n=5, **files)
    assert found.paths == tuple(files.values())
    frame = gpd.read_file(files["out"], layer="similar")
    assert frame.crs.to_epsg() == 32633
    assert frame.geometry.geom_equals(found.frame().geometry).all()
    with rasterio.open(files["raster"]) as dataset:
        np.testing.assert_array_equal(dataset.read(1), found.similarity)
        assert dataset.transform.almost_equals(geocfl.open_map(finished).transform)
        assert np.isnan(dataset.nodata)
    with pytest.raises(OutputError, match="already exists; use `overwrite=True`"):
        geocfl.similar(finished, middle(finished, 0, 0), **files)
    geocfl.similar(finished, middle(finished, 0, 0), overwrite=True, **files)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"point": (100.0, 80.0)}, r"`point` 100,80 is outside the map S_lulc.tif, which reaches from"),
        ({"point": (1e300, 1e300)}, "is outside the map"),
        ({"point": (float("nan"), 0.0)}, "must be two numbers"),
        ({"n": 0}, "`n` is 0 but must be from 1 to the 47 cells with data of S_lulc.tif"),
        ({"n": 48}, "`n` is 48 but must be"),
        ({"out": "s.shp"}, r"`out` is s.shp but must end in .gpkg"),
        ({"raster": "s.png"}, r"`raster` is s.png but must end in .tif"),
    ],
)
def test_wrong_usage_is_refused_in_a_sentence(finished: Path, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        geocfl.similar(finished, **({"point": middle(finished, 0, 0)} | options))


def test_places_and_maps_without_features_are_refused(finished: Path, tmp_path: Path, codes: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"is on a cell without data of the map S_lulc.tif; give another point"):
        geocfl.similar(finished, middle(finished, 5, 7))
    bare, _ = featured_map(tmp_path, codes, np.ones((6, 8, 2)))
    (tmp_path / "S_features.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"S_features.parquet: its features cannot be read"):
        geocfl.similar(bare, middle(bare, 0, 0))
    (tmp_path / "S_features.parquet").unlink()
    with pytest.raises(DataError, match="has no features; map the scene again with features in `products`"):
        geocfl.similar(bare, middle(bare, 0, 0))
