"""Features of cells: the same in any strip, after an interruption and beside other products."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from affine import Affine

import geocfl
from geocfl.errors import DataError, UsageError
from geocfl.mapping import classifier
from geocfl.models.backends import jobs
from geocfl.models.projection import COMPONENTS, projection_of

pytestmark = pytest.mark.extra("geoparquet")
HOW = {"backend": "torch", "device": "cpu", "precision": "float32", "vector": (), "datetime": "2019-04-16"}


@pytest.fixture(scope="module", autouse=True)
def small_tiles() -> Iterator[None]:
    """A window depends a little on what else its tile shows, so all maps here have the same tiles."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "TILE", 64)
        yield


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene of 300 x 230 px: 5 x 4 cells of 64 px, of which one has no data."""
    dn = np.random.default_rng(0).integers(200, 2000, (3, 300, 230), dtype=np.uint16)
    dn[:, 64:128, 64:128] = 0
    path = tmp_path_factory.mktemp("scene") / "s.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=300, width=230, count=3, dtype="uint16", nodata=0, crs="EPSG:32633",
        transform=Affine(10, 0, 3e5, 0, -10, 5e6), tiled=True, blockxsize=64, blockysize=64,
    ) as dataset:  # fmt: skip
        dataset.write(dn)
        dataset.descriptions = ("B04", "B03", "B02")
    return path


@pytest.fixture(scope="module", params=["tiny_model", "tiny_dense"])
def model(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def whole(scene: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> geocfl.SceneMap:
    out = tmp_path_factory.mktemp("out")
    return geocfl.map_scene(scene, out, model=model, products=("default", "features", "stac"), **HOW)


def test_the_file_says_where_the_cells_lie_and_what_the_numbers_are(whole: geocfl.SceneMap, model: Path) -> None:
    frame = gpd.read_parquet(whole.paths["features"])
    assert len(frame) == 19
    assert frame.crs.to_epsg() == 32633
    assert frame.total_bounds.tolist() == list(whole.bounds)
    assert frame.geometry[0].bounds == (300000, 4999360, 300640, 5000000)
    inside = frame.cx[300000:300600, 4999400:5000000]
    assert inside[["row", "column"]].to_numpy().tolist() == [[0, 0]]
    np.testing.assert_array_equal(frame["class_code"], whole.lulc[frame["row"], frame["column"]])
    values = np.stack(frame["features"])
    assert (values.shape, values.dtype) == ((19, COMPONENTS), np.float16)
    features = whole.features
    np.testing.assert_array_equal(features[frame["row"], frame["column"]], values)
    assert np.isnan(features[1, 1]).all()

    facts, metadata = whole.feature_facts, pq.read_metadata(whole.paths["features"]).metadata
    bundle = geocfl.load_model(model)
    expected = projection_of(bundle)
    assert facts["window_px"] == facts["stride_px"] == 64
    assert (facts["model"], facts["model_hash"], facts["of"]) == (bundle.name, bundle.digest(), expected.source)
    assert sum(facts["explained_by_each"]) == pytest.approx(facts["explained"], abs=1e-3)
    assert 0 < facts["explained"] <= 1
    assert whole.summary["features"] == {key: facts[key] for key in ("components", "of", "explained")}
    stored = np.load(io.BytesIO(base64.b64decode(metadata[b"geocfl_pca"])))
    np.testing.assert_array_equal(stored["components"], expected.components.astype(np.float16))
    assert json.loads(metadata[b"geo"])["version"] == "1.1.0"


def test_the_item_lists_them(whole: geocfl.SceneMap) -> None:
    asset = json.loads(whole.paths["stac"].read_text())["assets"]["features"]
    assert asset["href"] == "./s_features.parquet"
    assert asset["type"] == "application/vnd.apache.parquet"


def test_nothing_else_changes(scene: Path, model: Path, whole: geocfl.SceneMap, tmp_path: Path) -> None:
    plain = geocfl.map_scene(scene, tmp_path, model=model, **HOW)
    assert "features" not in plain.paths
    np.testing.assert_array_equal(plain.lulc, whole.lulc)
    np.testing.assert_array_equal(plain.confidence, whole.confidence)
    with pytest.raises(DataError, match="the map of s has no features; map the scene again with features in"):
        _ = plain.features


def test_strips_and_an_interruption_change_nothing(
    scene: Path, model: Path, whole: geocfl.SceneMap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier, "choose_cell_rows", lambda *_: 1)
    how = {"model": model, "products": ("default", "features"), **HOW}
    calls = []

    def stop(name: str, done: int, total: int, unit: str) -> None:
        calls.append(done)
        if done >= 2 * 4 and len(calls) < 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        geocfl.map_scene(scene, tmp_path, progress=stop, **how)
    assert list(tmp_path.glob(".s.partial/cells")), "something is left to resume from"
    resumed = geocfl.map_scene(scene, tmp_path, **how)
    assert resumed.summary["timing"]["windows"] < 19
    np.testing.assert_allclose(resumed.features, whole.features, atol=0.02)


def test_smoothed_maps_keep_the_features_of_their_windows(scene: Path, tiny_model: Path, tmp_path: Path) -> None:
    how = {"model": tiny_model, "stride": 32, "products": ("default", "features"), **HOW}
    plain, smoothed = (geocfl.map_scene(scene, tmp_path / str(on), smooth=on, **how) for on in (False, True))
    assert (plain.confidence != smoothed.confidence).any()
    np.testing.assert_array_equal(plain.features, smoothed.features)


def test_interpolated_cells_have_none(scene: Path, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="`interpolate` gives no features"):
        geocfl.map_scene(
            scene, tmp_path, model=tiny_model, stride=32, interpolate=True, products=("default", "features"), **HOW
        )
