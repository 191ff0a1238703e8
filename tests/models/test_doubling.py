from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional as F

from geocfl.models.backbones import build_network
from geocfl.models.bundle import Bundle
from geocfl.models.doubling import DoublingConvolution, can_fold, fold_doubling
from geocfl.models.network import with_reflectance
from geocfl.models.reflectance import DenseReflectance


def image(height: int, width: int) -> Tensor:
    return 0.3 * torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [1, 3, 5, 7])
@pytest.mark.parametrize("kind", [nn.Conv2d, Conv2dSame])
@pytest.mark.parametrize("bias", [False, True])
@torch.inference_mode()
def test_it_is_the_convolution_of_the_doubled_image(size, kind, bias):
    torch.manual_seed(1)
    first = kind(3, 4, size, stride=2, bias=bias, **({} if kind is Conv2dSame else {"padding": size // 2}))
    assert can_fold(first)
    x = image(12, 16)
    doubled = first(F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False))
    found = DoublingConvolution(first)(x)
    assert found.shape == doubled.shape == (2, 4, 12, 16)
    inside = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(found[inside], doubled[inside])


@pytest.mark.parametrize(
    "first",
    [
        nn.Conv2d(3, 4, 3, stride=1, padding=1),
        nn.Conv2d(3, 4, 3, stride=2),
        nn.Conv2d(3, 4, 4, stride=2, padding=2),
        nn.Conv2d(3, 4, (3, 5), stride=2, padding=1),
        nn.Conv2d(3, 4, 3, stride=2, padding=1, padding_mode="reflect"),
        nn.Conv2d(3, 3, 3, stride=2, padding=1, groups=3),
        nn.Conv2d(3, 4, 3, stride=2, padding=2, dilation=2),
        nn.Linear(3, 4),
    ],
)
def test_other_first_layers_are_left_alone(first):
    assert not can_fold(first)


@pytest.mark.integration
@pytest.mark.parametrize("backbone", ["lite0", "resnet18"])
@torch.inference_mode()
def test_a_folded_network_gives_the_same_features(tiny_model, backbone):
    model = replace(Bundle.load(tiny_model), backbone=backbone, input_size=128, feature_stride=16)
    torch.manual_seed(0)
    network = build_network(backbone, 3, len(model.legend))
    module = with_reflectance(network, model).eval()
    assert isinstance(module, DenseReflectance)
    before = module.window_features(image(512, 512))
    fold_doubling(module, backbone)
    assert module.scale == 1
    after = module.window_features(image(512, 512))
    middle = (slice(None), slice(13, 16), slice(13, 16))  # a random network sees the edge from far away
    torch.testing.assert_close(after[middle], before[middle], rtol=0.01, atol=0.01 * float(before.std()))


@pytest.mark.parametrize("input_size", [64, 256])
def test_only_a_doubling_is_folded(tiny_model, input_size):
    model = replace(Bundle.load(tiny_model), backbone="lite0", input_size=input_size, feature_stride=2048 // input_size)
    module = with_reflectance(build_network("lite0", 3, len(model.legend)), model).eval()
    assert isinstance(module, DenseReflectance)
    fold_doubling(module, "lite0")
    assert module.scale == input_size / 64
    assert not any(isinstance(layer, DoublingConvolution) for layer in module.modules())
