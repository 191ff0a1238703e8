from __future__ import annotations

import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

import geocfl
from geocfl.errors import ModelError, UsageError
from geocfl.models import backends
from geocfl.models.predict import Model, load_model

EXACT: Any = {"backend": "torch", "device": "cpu", "precision": "float32"}


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Model:
    return load_model(tiny_model)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """(3, 150, 200) of patches of different gray, a corner without data."""
    rng = np.random.default_rng(0)
    pixels = np.kron(rng.uniform(0.02, 0.25, (3, 5, 7)), np.ones((32, 32)))[:, :150, :200]
    pixels = np.rint(10_000 * (pixels + rng.normal(0, 0.01, pixels.shape))).clip(1) / 10_000
    pixels[:, :100, :90] = np.nan
    return pixels.astype(np.float32)


@pytest.mark.parametrize("stride", [64, 48, 17])
def test_an_image_is_classified_as_map_scene_does(tmp_path, tiny_model, model, image, stride):
    with rasterio.open(
        tmp_path / "s.tif",
        "w",
        driver="GTiff",
        width=200,
        height=150,
        count=3,
        dtype="uint16",
        nodata=0,
        crs="EPSG:32633",
        transform=Affine(10, 0, 6e5, 0, -10, 5.1e6),
    ) as dataset:
        dataset.write(np.nan_to_num(image * 10_000).round().astype(np.uint16))
        dataset.descriptions = ("B04", "B03", "B02")
    options: Any = {"model": tiny_model, "stride": stride, "scale": 10_000, **EXACT}
    mapped = geocfl.map_scene(tmp_path / "s.tif", tmp_path / "out", products=["lulc", "confidence"], **options)
    ours = model.predict(image, stride=stride, **EXACT)
    with rasterio.open(mapped.paths["lulc"]) as lulc, rasterio.open(mapped.paths["confidence"]) as confidence:
        theirs, percent = lulc.read(1), confidence.read(1)
    np.testing.assert_array_equal(ours.codes, theirs)
    assert {0} < set(theirs.flat), "with and without data"
    np.testing.assert_allclose(ours.confidence[theirs > 0], percent[theirs > 0] / 100, atol=0.006)
    assert np.isnan(ours.confidence[theirs == 0]).all()


def test_an_image_of_windows_is_a_stack_of_them(model, image):
    windows = np.stack([image[:, y : y + 64, x : x + 64] for y in (0, 64) for x in (0, 64, 128)])
    stack = model.predict(windows, **EXACT)
    grid = model.predict(image[:, :128, :192], **EXACT)
    assert stack.codes.shape == (6,)
    assert grid.codes.shape == (2, 3)
    np.testing.assert_array_equal(stack.codes, grid.codes.ravel())
    np.testing.assert_allclose(stack.probabilities, grid.probabilities.reshape(6, -1), atol=1e-5)
    np.testing.assert_array_equal(model.predict(image[:, :64, 128:192], **EXACT).names.item(), grid.names[0, 2])


def test_long_stacks_are_copied_in_parts(model, image, monkeypatch):
    windows = np.stack([image[:, 80:144, x : x + 64] for x in range(0, 130, 10)])
    windows[4] = np.nan
    whole = model.predict(windows, **EXACT)
    monkeypatch.setattr("geocfl.models.predict.WINDOWS_AT_A_TIME", 5)
    told: list[tuple[int, int]] = []

    def progress(what: str, done: int, total: int, unit: str) -> None:
        told.append((done, total))

    parts = model.predict(windows, **EXACT, batch_size=3, progress=progress)
    np.testing.assert_allclose(parts.probabilities, whole.probabilities, atol=1e-5)
    assert np.flatnonzero(parts.codes == 0).tolist() == [4]
    assert told[-1] == (12, 12)
    assert model.predict(windows[:0], **EXACT).probabilities.shape == (0, 10)


def test_codes_names_and_confidence_are_those_of_the_most_probable_class(model, image):
    found = model.predict(image, stride=32, **EXACT)
    known = found.codes > 0
    assert (found.codes.dtype, found.confidence.dtype, found.probabilities.dtype) == (np.uint8, np.float32, np.float32)
    np.testing.assert_array_equal(found.codes[known], found.probabilities[known].argmax(-1) + 1)
    np.testing.assert_array_equal(found.confidence[known], found.probabilities[known].max(-1))
    np.testing.assert_allclose(found.probabilities[known].sum(-1), 1, rtol=1e-5)
    assert (found.names[~known] == "No data").all()
    assert found.names[-1, -1] == model.legend[found.codes[-1, -1]].name


def test_pixels_nan_infinite_or_masked_in_any_band_are_no_data(model, image):
    whole = image[:, 80:144, 100:164].copy()
    expected = whole.copy()
    expected[:, :20] = np.nan
    one_band, infinite = whole.copy(), whole.copy()
    one_band[1, :20] = np.nan
    infinite[2, :20] = np.inf
    masked = np.ma.masked_array(whole, np.zeros(whole.shape, bool))
    masked[0, :20] = np.ma.masked
    rows = [model.predict(x[None], **EXACT).probabilities for x in (expected, one_band, infinite, masked)]
    for row in rows[1:]:
        np.testing.assert_array_equal(row, rows[0])
    assert not np.array_equal(rows[0], model.predict(whole[None], **EXACT).probabilities)
    whole[:, :32] = np.nan
    assert model.predict(whole[None], **EXACT).codes.item() > 0, "half is enough"
    whole[:, 32, 0] = np.nan
    assert model.predict(whole[None], **EXACT).codes.item() == 0


@pytest.mark.parametrize(
    ("array", "options", "problem"),
    [
        (np.full((1, 3, 64, 64), 1043.0), {}, r"values of 1,043 .* digital numbers; pass \(array \+ offset\) / 10000"),
        (np.zeros((1, 3, 64, 64), np.uint8), {}, "uint8 holds digital numbers"),
        ("scene.tif", {}, "must hold reflectance; to map a file, use geocfl.map_scene"),
        (np.zeros((64, 64)), {}, r"shape \(64, 64\) is neither .* B04, B03, B02"),
        (np.zeros((1, 4, 64, 64)), {}, "is neither"),
        (np.zeros((1, 3, 64, 32)), {}, "64 x 64 px, not 64 x 32; pass an image"),
        (np.zeros((3, 64, 63)), {}, "64 x 63 px is smaller than the window of 64 px"),
        (np.zeros((3, 64, 64)), {"stride": 65}, "`stride` is 65 but must be between 1 and"),
        (np.zeros((1, 3, 64, 64)), {"stride": 8}, "leave it out for windows"),
        (np.zeros((3, 64, 64)), {"batch_size": 0}, "`batch_size` is 0 but must be at least 1"),
        (np.zeros((3, 64, 64)), {"backend": "abacus"}, "unknown `backend` 'abacus'"),
        (np.zeros((3, 64, 64)), {"strid": 32}, "predict.*unknown parameter 'strid'; did you mean 'stride'"),
    ],
)
def test_invalid_input_is_refused_in_one_sentence(model, array, options, problem):
    with pytest.raises(UsageError, match=problem) as caught:
        model.predict(array, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("hole", [np.nan, np.inf])
def test_digital_numbers_are_refused_where_one_band_has_gaps(model, hole):
    numbers = np.full((3, 64, 64), 1043.0)
    numbers[1, :5] = hole
    with pytest.raises(UsageError, match=r"values of 1,043 .* digital numbers"):
        model.predict(numbers)


def test_bright_snow_is_no_digital_number(model):
    assert model.predict(np.full((3, 64, 64), 1.3), **EXACT).codes.item() > 0


def test_an_unsaved_model_cannot_predict(model):
    with pytest.raises(ModelError, match="save it first"):
        replace(model, path=None).predict(np.zeros((3, 64, 64)))


def test_a_back_end_is_loaded_once_and_not_pickled(tiny_model, image, monkeypatch):
    loaded: list[tuple[Any, ...]] = []
    whole = backends.load_backend
    monkeypatch.setattr(backends, "load_backend", lambda *args: loaded.append(args) or whole(*args))
    model = load_model(tiny_model)
    first = model.predict(image, **EXACT)
    with ThreadPoolExecutor(4) as pool:
        others = list(pool.map(lambda _: model.predict(image, **EXACT), range(4)))
    assert len(loaded) == 1
    for other in others:
        np.testing.assert_array_equal(other.probabilities, first.probabilities)
    model.predict(image, **EXACT, batch_size=2)
    assert len(loaded) == 2
    travelled = pickle.loads(pickle.dumps(model))
    assert travelled == model
    assert len(pickle.dumps(model)) < 10_000
    np.testing.assert_array_equal(travelled.predict(image, **EXACT).probabilities, first.probabilities)
    assert json.dumps(model.to_json()), "facts only"


def test_a_frame_has_one_row_per_cell(model, image):
    found = model.predict(image, stride=50, **EXACT)
    frame = found.frame()
    assert frame.columns.tolist() == ["code", "class", "confidence", *model.legend.names]
    assert frame.index.names == ["row", "column"]
    assert frame.loc[(2, 3), "code"] == found.codes[2, 3]
    assert frame.loc[(2, 3), "River"] == found.probabilities[2, 3, 8]
    assert frame.loc[(0, 0), "class"] == "No data"
    assert model.predict(image[None, :, -64:, -64:], **EXACT).frame().index.tolist() == [0]


def test_repr_and_html_of_a_prediction(model, image):
    grid = model.predict(image, stride=50, **EXACT)
    assert repr(grid).startswith("<Prediction of 3 x 4 cells by tiny: ")
    assert "\n" not in repr(grid)
    page = grid._repr_html_()
    assert "No data" in page
    assert all(c.color in page for c in model.legend if c.code in grid.codes)
    empty = model.predict(np.full((1, 3, 64, 64), np.nan), **EXACT)
    assert repr(empty) == "<Prediction of 1 window by tiny: no data>"
    assert model.predict(np.zeros((0, 3, 64, 64)), **EXACT)._repr_html_()
