from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from geocfl.core.legend import Legend
from geocfl.core.radiometry import EUROSAT_RGB
from geocfl.data.patches import RGB, Patches
from geocfl.data.splits import Split
from geocfl.models.bundle import Bundle
from geocfl.models.network import load_network, with_reflectance
from geocfl.models.reflectance import Reflectance
from geocfl.training.novelty import COMPONENTS, fit_residual, with_novelty


def test_the_components_are_the_directions_of_the_largest_variance():
    rng = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(20, 20, generator=rng))[0]
    spread = torch.tensor([10.0, 8, 7, 6, 5, 4, 4, 4, 4, 4, *[0.1] * 10])
    features = 3 + torch.randn(500, 20, generator=rng) * spread @ axes.T
    residual = fit_residual(features)
    assert residual.components.shape == (10, 20), "half as many as features"
    torch.testing.assert_close(residual.components @ residual.components.T, torch.eye(10), atol=2e-3, rtol=0)
    assert float(residual(features).median()) == pytest.approx(0.1 * 10**0.5, rel=0.15)
    off = features.mean(0) + 50 * axes[:, 15]
    assert float(residual(off)) == pytest.approx(50, rel=0.01)


def test_few_patches_leave_something_over():
    features = torch.randn(7, 2 * COMPONENTS + 100)
    residual = fit_residual(features)
    assert len(residual.components) == 3
    assert float(residual(features).min()) > 0.1
    assert len(fit_residual(features[:1]).components) == 0


class Colors(nn.Module):
    """A network of timm's kind whose features are eight color statistics, and whose logits are four of them."""

    drop_rate = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(8, 2, bias=False)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x.mean((2, 3)), x.std((2, 3)), x[:, :2, 0, 0]], 1)

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        return x if pre_logits else self.last(x)

    def get_classifier(self) -> nn.Module:
        return self.last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(x))


class Twisted(Colors):
    """Its last layer does not give its logits."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).flip(1)


@pytest.fixture(scope="module")
def patches() -> Patches:
    pixels = np.random.default_rng(0).integers(60, 90, (120, 3, 16, 16), dtype=np.uint8)
    names = tuple(f"patch{i}" for i in range(120))
    legend = Legend.from_folders(["Forest", "River"])
    return Patches(pixels, np.arange(120) % 2, names, RGB, EUROSAT_RGB, legend, "test")


SPLIT = Split(np.arange(60), np.arange(60, 110), np.arange(110, 120))


@pytest.fixture
def model(patches) -> Bundle:
    return Bundle("t", "colors", RGB, 10.0, 16, 16, (0.0, 0.275), (0.08,) * 3, (0.01,) * 3, patches.legend)


def wrap(network: nn.Module, model: Bundle) -> Reflectance:
    return with_reflectance(network, model).eval()


def test_quantiles_are_those_of_the_validation_patches(patches, model):
    module = wrap(Colors(), model)
    found, tensors = with_novelty(model, module, patches, SPLIT)
    assert {name: tuple(value.shape) for name, value in tensors.items()} == {
        "novelty.mean": (8,),
        "novelty.components": (4, 8),
    }
    assert len(found.novelty) == 101
    residual = fit_residual(module.features(torch.from_numpy(patches.reflectance(SPLIT.train))).detach())
    residuals = residual(module.features(torch.from_numpy(patches.reflectance(SPLIT.validation)))).detach()
    assert found.novelty[0] == pytest.approx(float(residuals.min()), rel=1e-3)
    assert found.novelty[50] == pytest.approx(float(residuals.quantile(0.5)), rel=1e-3)
    assert found.novelty[100] == pytest.approx(float(residuals.max()), rel=1e-3)


@pytest.mark.parametrize("network", [nn.Sequential(nn.Flatten(), nn.Linear(768, 2)), Twisted()])
def test_networks_without_features_have_no_novelty(patches, model, network):
    assert with_novelty(model, wrap(network, model), patches, SPLIT) == (model, {})


def test_a_refit_scales_the_quantiles_of_the_validated_run(tiny_model, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 3, 64, 64), dtype=np.uint8)
    bundle = Bundle.load(tiny_model)
    names = tuple(f"patch{i}" for i in range(30))
    patches = Patches(pixels, np.arange(30) % 10, names, RGB, EUROSAT_RGB, bundle.legend, "test")
    split, options = Split(np.arange(20), np.arange(20, 30), np.arange(0)), dict[str, Any](seed=3)
    module = load_network(bundle)
    first, tensors = with_novelty(bundle, module, patches, split, **options)
    validated = first.save(tmp_path / "first", {**module.network.state_dict(), **tensors})
    same, _ = with_novelty(bundle, module, patches, split, validated=validated, **options)
    np.testing.assert_allclose(same.novelty, first.novelty, rtol=1e-3)
    larger = load_network(bundle)
    last = [m for m in larger.network.modules() if isinstance(m, nn.BatchNorm2d)][-1]
    with torch.no_grad():  # features twice as large
        last.weight *= 2
        last.bias *= 2
    twice, _ = with_novelty(bundle, larger, patches, split, validated=validated, **options)
    ratio = np.array(twice.novelty) / np.array(first.novelty)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)
    assert ratio[0] > 1.5
    none, tensors = with_novelty(bundle, module, patches, split, validated=replace(validated, novelty=()), **options)
    assert (none.novelty, tensors) == ((), {})
