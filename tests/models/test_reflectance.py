from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from geocfl.models.backbones import build_network
from geocfl.models.bundle import Bundle
from geocfl.models.network import with_reflectance
from geocfl.models.reflectance import DenseReflectance, Reflectance, symmetries


def test_reflectance_is_clipped_normalized_and_scaled():
    module = Reflectance(torch.nn.Identity(), (0.0, 0.5), (0.1, 0.2), (0.05, 0.1), 4)
    x = torch.tensor([[[[float("nan"), -1.0], [0.1, 9.0]], [[0.2, 0.3], [float("nan"), 0.5]]]])
    normalized = torch.tensor([[[[0.0, -2.0], [0.0, 8.0]], [[0.0, 1.0], [0.0, 3.0]]]])
    expected = F.interpolate(normalized, (4, 4), mode="bilinear", align_corners=False)
    torch.testing.assert_close(module(x), expected)
    assert module(torch.zeros(1, 2, 8, 4)).shape == (1, 2, 4, 4)
    already = torch.full((1, 2, 4, 4), 0.2)
    torch.testing.assert_close(module(already)[0, :, 0, 0], torch.tensor([2.0, 0.0]))


def test_the_symmetries_of_a_square_are_eight():
    square = torch.arange(4.0).view(1, 1, 2, 2)
    found = [tuple(view.flatten().int().tolist()) for view in symmetries(square, 8)]
    assert len(set(found)) == 8
    assert found[:2] == [(0, 1, 2, 3), (1, 3, 0, 2)], "as it is, then turned"
    assert found[4] == (1, 0, 3, 2), "the fifth is mirrored"
    for view in symmetries(square, 8)[:, None]:
        again = {tuple(v.flatten().int().tolist()) for v in symmetries(view, 8)}
        assert again == set(found), "the symmetries of a symmetry are the same ones"


@pytest.mark.parametrize("tta", [1, 2, 4, 8])
def test_tta_averages_the_logits(tta):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(27, 4))
    x = torch.rand(5, 3, 3, 3)
    facts = (0.0, 1.0), (0.1,) * 3, (0.2,) * 3, 3
    plain, module = Reflectance(network, *facts), Reflectance(network, *facts, tta)
    sides = [plain(side) for side in (x, x.rot90(1, (2, 3)), x.rot90(2, (2, 3)), x.rot90(3, (2, 3)))]
    sides += [plain(x.flip(3).rot90(quarter, (2, 3))) for quarter in range(4)]
    torch.testing.assert_close(module(x), torch.stack(sides[:tta]).mean(0))
    turned = module(x.rot90(1, (2, 3)))
    if tta in (4, 8):
        torch.testing.assert_close(turned, module(x), msg="which way is up does not matter")
    else:
        assert not torch.allclose(turned, module(x))


@pytest.fixture(scope="module", params=["lite0", "resnet18"])
def dense(request, tiny_model) -> DenseReflectance:
    """A dense network of random weights that reads windows of 64 px scaled to 128, 4 x 4 features in each."""
    torch.manual_seed(0)
    bundle = replace(Bundle.load(tiny_model), backbone=request.param, input_size=128, feature_stride=16)
    module = with_reflectance(build_network(request.param, 3, 10), bundle).eval()
    assert isinstance(module, DenseReflectance)
    return module


@torch.inference_mode()
def test_a_window_without_context_is_that_of_a_windowed_model(dense, tiny_model):
    bundle = replace(Bundle.load(tiny_model), input_size=128)
    windowed = with_reflectance(dense.network, bundle).eval()
    assert not isinstance(windowed, DenseReflectance)
    x = 0.3 * torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    x[0, :, :5] = torch.nan
    torch.testing.assert_close(dense.patches_of(x), windowed(x), atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_a_window_by_itself_is_mirrored(dense):
    x = 0.3 * torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    around = torch.nn.functional.pad(x, [32] * 4, mode="reflect")
    torch.testing.assert_close(dense(x), dense.head(dense.window_features(around)[:, 2, 2]))
    torch.testing.assert_close(dense.features(x), dense.window_features(around)[:, 2, 2])


@torch.inference_mode()
def test_windows_are_means_of_the_features_in_them(dense):
    image = 0.3 * torch.rand(2, 3, 128, 192, generator=torch.Generator().manual_seed(0))
    spatial = dense.network.forward_features(dense.normalize(image))
    assert spatial.shape[2:] == (8, 12), "one every 16 px"
    features = dense.window_features(image)
    assert features.shape[:3] == (2, 5, 9)
    for i, j in ((0, 0), (2, 3), (4, 8)):
        torch.testing.assert_close(features[:, i, j], spatial[:, :, i : i + 4, j : j + 4].mean((2, 3)))
    torch.testing.assert_close(dense.window_features(image, 4), features[:, ::4, ::4])
    logits = dense.patches_of(image)
    torch.testing.assert_close(logits, dense.head(features[:, ::4, ::4].reshape(12, -1)))


def test_dropout_of_dense_features_acts_in_training_only(tiny_model):
    bundle = replace(Bundle.load(tiny_model), backbone="resnet18", input_size=64, feature_stride=32)
    module = with_reflectance(build_network("resnet18", 3, 10, dropout=0.5), bundle).eval()
    assert isinstance(module, DenseReflectance)
    image = torch.rand(1, 3, 64, 128) * 0.3
    with torch.inference_mode():
        assert torch.equal(module.patches_of(image), module.patches_of(image))
        module.train()
        for layer in module.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.eval()
        assert not torch.equal(module.patches_of(image), module.patches_of(image))
