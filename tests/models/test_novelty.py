from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from geocfl.errors import ModelError
from geocfl.models.backbones import build_network
from geocfl.models.bundle import NOVELTY, Bundle
from geocfl.models.network import Probabilities, load_network, read_weights
from geocfl.models.novelty import Residual, without_residual
from geocfl.models.predict import load_model
from geocfl.models.reflectance import DenseReflectance
from geocfl.models.stac_mlm import _parameters
from geocfl.models.weights import load_weights

QUANTILES = tuple(float(value) for value in range(101))


def orthonormal(components: int, features: int) -> Tensor:
    drawn = torch.randn(features, components, generator=torch.Generator().manual_seed(0))
    return torch.linalg.qr(drawn)[0].T


def test_the_residual_is_the_distance_from_the_plane_of_the_components():
    components, mean = orthonormal(3, 8), torch.arange(8.0)
    inside = mean + torch.tensor([2.0, -1.0, 0.5]) @ components
    off = torch.randn(8, generator=torch.Generator().manual_seed(1))
    off -= components.T @ (components @ off)
    residual = Residual(mean, components)
    torch.testing.assert_close(residual(inside), torch.tensor(0.0), atol=2e-3, rtol=0)
    torch.testing.assert_close(residual(torch.stack([inside + off, mean - 2 * off])), off.norm() * torch.tensor([1, 2]))


def test_the_residual_is_computed_in_float32_under_autocast():
    residual, features = Residual(torch.full((64,), 100.0), orthonormal(8, 64)), 100 + torch.rand(5, 64)
    with torch.autocast("cpu", torch.bfloat16):
        found = residual(features)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, residual(features))


@pytest.fixture(scope="module")
def bundle(tiny_model, tmp_path_factory) -> Bundle:
    """A dense model with novelty."""
    torch.manual_seed(0)
    network = build_network("lite0", 3, 10)
    model = replace(Bundle.load(tiny_model), input_size=128, feature_stride=16, novelty=QUANTILES)
    tensors = {f"{NOVELTY}mean": torch.zeros(1280), f"{NOVELTY}components": orthonormal(4, 1280)}
    return model.save(tmp_path_factory.mktemp("novelty"), {**network.state_dict(), **tensors})


def image(height: int, width: int) -> Tensor:
    return 0.3 * torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("tta", [1, 4])
def test_scores_are_logits_and_residuals_of_the_features(bundle, tta):
    module, windows = load_network(bundle.with_tta(tta)), image(64, 128).view(2, 3, 64, 64)
    with torch.inference_mode():
        logits, residuals = module.scores(windows)
        torch.testing.assert_close(logits, module(windows))
        turned = [module.residual(module.features(torch.rot90(windows, n, (2, 3)))) for n in range(tta)]
    torch.testing.assert_close(residuals, torch.stack(turned).mean(0))


def test_window_scores_of_a_scene_are_those_of_its_features(bundle):
    module = load_network(bundle)
    assert isinstance(module, DenseReflectance)
    with torch.inference_mode():
        logits, residuals = module.window_scores(image(96, 160), 2)
        features = module.window_features(image(96, 160), 2)
        assert (logits.shape, residuals.shape) == ((1, 2, 4, 10), (1, 2, 4))
        torch.testing.assert_close(logits, module.head(features))
        torch.testing.assert_close(residuals, module.residual(features))


def test_window_scores_average_the_symmetries_of_a_scene(bundle):
    """Turning the scene turns the scores, although a step of 3 leaves pixels over at one side only."""
    module, scene = load_network(bundle.with_tta(8)), image(128, 192)
    with torch.inference_mode():
        logits, residuals = module.window_scores(scene, 1)
        thinned, _ = module.window_scores(scene, 3)
        turned, turned_residuals = module.window_scores(torch.rot90(scene.flip(3), 1, (2, 3)), 1)
    torch.testing.assert_close(torch.rot90(logits.flip(2), 1, (1, 2)), turned, atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.rot90(residuals.flip(2), 1, (1, 2)), turned_residuals, atol=1e-4, rtol=0)
    torch.testing.assert_close(thinned, logits[:, ::3, ::3], atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["windowed", "dense"])
def test_logits_are_damped_where_land_is_new(bundle, kind):
    """The median is so small here that all windows lie beyond it."""
    bundle = bundle if kind == "dense" else replace(bundle, feature_stride=0)
    damped = replace(bundle, novelty=tuple(value / 1000 for value in QUANTILES), damping=0.5)
    plain, module, windows = load_network(bundle), load_network(damped), image(64, 128).view(2, 3, 64, 64)
    with torch.inference_mode():
        logits, residuals = plain.scores(windows)
        assert float(residuals.min()) > 0.05
        expected = logits / (residuals / 0.05).sqrt()[:, None]
        torch.testing.assert_close(module.scores(windows)[0], expected)
        torch.testing.assert_close(module(windows), expected)
        torch.testing.assert_close(Probabilities(damped)(windows), (expected / bundle.temperature).softmax(1))
        if isinstance(module, DenseReflectance) and isinstance(plain, DenseReflectance):
            logits, residuals = plain.window_scores(image(128, 192), 2)
            expected = logits / (residuals / 0.05).sqrt()[..., None]
            torch.testing.assert_close(module.window_scores(image(128, 192), 2)[0], expected)
            logits, residuals = plain.scores_of(plain.patch_features(image(128, 192)))
            expected = logits / (residuals / 0.05).sqrt()[:, None]
            torch.testing.assert_close(module.patches_of(image(128, 192)), expected)


def test_logits_up_to_the_median_are_not_damped():
    residual = Residual(torch.zeros(2), torch.zeros(0, 2), median=2.0, damping=1.0)
    logits = torch.tensor([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]])
    damped = residual.damp(logits, torch.tensor([0.0, 2.0, 8.0]))
    torch.testing.assert_close(damped, logits / torch.tensor([1.0, 1.0, 4.0])[:, None])


def test_models_without_novelty_have_no_residuals(tiny_model):
    module = load_network(Bundle.load(tiny_model))
    with torch.inference_mode():
        logits, residuals = module.scores(image(64, 64))
        torch.testing.assert_close(logits, module(image(64, 64)))
    assert residuals is None


def test_weights_of_a_bundle_with_novelty_start_a_training(bundle):
    network = build_network("lite0", 3, 4)
    load_weights(network, "lite0", str(bundle.folder / "model.safetensors"), bundle.bands)
    theirs = read_weights(bundle.folder / "model.safetensors")["conv_stem.weight"]
    torch.testing.assert_close(network.conv_stem.weight, theirs.float())


def test_novelty_does_not_count_as_parameters(bundle):
    assert _parameters(bundle) == sum(p.numel() for p in build_network("lite0", 3, 10).parameters())


@pytest.mark.parametrize(
    "change",
    [
        {"components": None},
        {"mean": torch.zeros(7)},
        {"mean": torch.full((1280,), torch.nan)},
        {"mean": torch.zeros(8), "components": orthonormal(4, 8)},
        {"mean": None, "components": None},
    ],
)
def test_broken_tensors_are_refused(bundle, tmp_path, change: dict[str, Any]):
    tensors = {"mean": torch.zeros(1280), "components": orthonormal(4, 1280), **change}
    stored = {f"{NOVELTY}{name}": value for name, value in tensors.items() if value is not None}
    bundle.save(tmp_path / "broken", {**load_network(bundle).network.state_dict(), **stored})
    with pytest.raises(ModelError, match=r"model\.safetensors: not the weights"):
        load_model(tmp_path / "broken").network()


def test_tensors_without_quantiles_are_refused(bundle, tmp_path):
    stored = {f"{NOVELTY}mean": torch.zeros(1280), f"{NOVELTY}components": orthonormal(4, 1280)}
    replace(bundle, novelty=()).save(tmp_path / "odd", {**load_network(bundle).network.state_dict(), **stored})
    with pytest.raises(ModelError, match=r"model\.safetensors: not the weights"):
        load_model(tmp_path / "odd").network()


def test_the_tensors_of_other_networks_are_left_alone(tiny_model):
    tensors = {"a.weight": torch.zeros(1)}
    assert without_residual(tensors, Bundle.load(tiny_model)) == (tensors, None)
