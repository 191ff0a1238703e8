"""The components of features: of the model alone, the same in every back end and from every run."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import geocfl
from geocfl.core.windows import cut, fill
from geocfl.errors import UsageError
from geocfl.models import projection
from geocfl.models.backends import load_backend
from geocfl.models.bundle import Bundle
from geocfl.models.projection import COMPONENTS, projection_of, textures

INSTALLED = ["openvino", "onnx", "torch"]


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).gamma(4, 0.03, (3, 128, 192)).astype(np.float32)


def of_backend(model: Bundle, name: str, pixels: np.ndarray, places: list[tuple[int, int]]) -> np.ndarray:
    """(n, COMPONENTS + 1) numbers of the windows at multiples of 32 pixels."""
    backend = load_backend(model, name, device="cpu", precision="float32", batch_size=2, features=True)
    rows, columns = np.array(places).T
    result = np.full((len(rows), COMPONENTS + 1), np.nan, np.float32)
    for part in backend.classify(backend.place(pixels), rows, columns, 32):
        result[part.windows] = projection_of(model).of(part.features)
    return result


def by_hand(model: Bundle, features: np.ndarray) -> np.ndarray:
    found = projection_of(model)
    centered = features - found.mean
    inside = centered @ found.components.T
    rest = np.linalg.norm(centered - inside @ found.components, axis=1, keepdims=True)
    return np.concatenate([inside, rest], axis=1)


@pytest.mark.parametrize(("name", "tta"), [("torch", 4), ("onnx", 1), ("openvino", 1)])
def test_windows_get_the_components_of_their_features(
    tiny_model: Path, pixels: np.ndarray, name: str, tta: int
) -> None:
    model = geocfl.load_model(tiny_model).with_tta(tta)
    places = [(0, 0), (1, 3), (2, 4)]
    windows = fill(cut(pixels, 64, *(32 * np.array(places).T)))
    with torch.inference_mode():
        turned = [np.rot90(windows, turns, (2, 3)).copy() for turns in range(tta)]
        features = np.mean([model.network().features(torch.from_numpy(each)).numpy() for each in turned], axis=0)
    got = of_backend(model, name, pixels, places)
    np.testing.assert_allclose(got, by_hand(model, features), atol=2e-3)


@pytest.mark.integration
@pytest.mark.parametrize("name", INSTALLED)
def test_windows_of_a_dense_model_get_those_of_its_bundle(tiny_dense: Path, pixels: np.ndarray, name: str) -> None:
    model = geocfl.load_model(tiny_dense)
    with torch.inference_mode():
        every = model.network().window_features(torch.from_numpy(pixels[None]), 2)[0].numpy()
    places = [(0, 0), (0, 1)]  # of footprints, which begin 32 px before the windows
    got = of_backend(model, name, pixels, places)
    expected = by_hand(model, every[1, 1:3])
    np.testing.assert_allclose(got, expected, atol=2e-3)
    np.testing.assert_allclose(got[:, :4], every[1, 1:3, :4], atol=2e-3, err_msg="the bundle's first four axes")
    assert not got[:, 4:COMPONENTS].any(), "it has no more"


@pytest.mark.integration
def test_components_of_a_model_without_novelty_are_its_own_and_kept(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GEOCFL_CACHE", str(tmp_path))
    model = geocfl.load_model(tiny_model)
    first = projection_of(model)
    assert first.source == "synthetic textures"
    np.testing.assert_allclose(first.components @ first.components.T, np.eye(COMPONENTS), atol=2e-3)
    monkeypatch.setattr(projection, "textures", None)  # nothing is computed again
    np.testing.assert_array_equal(projection_of(model).components, first.components)
    next((tmp_path / "projection").iterdir()).write_bytes(b"damaged")
    monkeypatch.undo()
    monkeypatch.setenv("GEOCFL_CACHE", str(tmp_path))
    np.testing.assert_array_equal(projection_of(model).components, first.components)


def test_textures_have_the_statistics_of_the_bands(tiny_model: Path) -> None:
    model = geocfl.load_model(tiny_model)
    windows = textures(model, 256)
    assert windows.shape == (256, 3, 64, 64)
    assert windows.min() >= 0
    np.testing.assert_allclose(windows.mean(axis=(0, 2, 3)), model.mean, atol=0.01)
    np.testing.assert_array_equal(windows, textures(model, 256))
    assert (windows != textures(model, 256, seed=1)).any()


def test_networks_without_features_are_refused(tiny_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    class Plain:
        network, head = nn.Identity(), None

    monkeypatch.setenv("GEOCFL_CACHE", str(tmp_path))
    monkeypatch.setattr("geocfl.models.network.load_network", lambda _: Plain())
    with pytest.raises(UsageError, match=r"`products` asks for features, but the network of the model tiny gives none"):
        projection_of(geocfl.load_model(tiny_model))
