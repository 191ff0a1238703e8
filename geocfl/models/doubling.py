"""Folds the doubling of an image's size into the first convolution that reads it."""

from __future__ import annotations

import sys
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geocfl.models.backbones import layer_names
from geocfl.models.lite0 import SameConv2d
from geocfl.models.reflectance import DenseReflectance

NEAR, FAR = 0.75, 0.25
"""Weights of the two pixels between which bilinear interpolation to twice the size places a new one."""


class DoublingConvolution(nn.Module):
    """A convolution of stride 2 that reads an image as if it were twice its size.

    Bilinear interpolation and convolution are both linear, so the two are one convolution of stride 1 with the image at
    its own size. Only the outermost outputs differ: they see the image's edge continued instead of zeros.

    Args:
        first: The convolution, one that `can_fold` accepts.
    """

    def __init__(self, first: nn.Conv2d) -> None:
        super().__init__()
        size = first.kernel_size[0]
        # TensorFlow pads an image of even size by one pixel less than others, and has the smaller half in front.
        before = max(size - 2, 0) // 2 if _pads_like_tensorflow(first) else size // 2
        self.before, self.after, taps = doubled_taps(size, before)
        self.weight = nn.Parameter(torch.einsum("oihw,ha,wb->oiab", first.weight.detach(), taps, taps))
        self.bias = first.bias

    def forward(self, x: Tensor) -> Tensor:
        """(N, D, H, W) outputs of (N, B, H, W) images."""
        padded = F.pad(x, [self.before, self.after, self.before, self.after], mode="replicate")
        return F.conv2d(padded, self.weight, self.bias)


def doubled_taps(size: int, before: int) -> tuple[int, int, Tensor]:
    """How the pixels of an image add up to what a kernel of stride 2 reads of it at twice its size, along one axis.

    Args:
        size: Of the kernel.
        before: Pixels of padding before the first one.

    Returns:
        Pixels before and after the one at an output's own position that it depends on, and the (size, before + 1 +
        after) weight of each of them in each pixel that the kernel reads.
    """
    weights: list[dict[int, float]] = []
    for offset in range(-before, size - before):
        here, odd = divmod(offset, 2)
        weights.append({here: NEAR, here + 1: FAR} if odd else {here - 1: FAR, here: NEAR})
    low, high = min(map(min, weights)), max(map(max, weights))
    taps = torch.tensor([[row.get(place, 0.0) for place in range(low, high + 1)] for row in weights])
    return -low, high, taps


def can_fold(first: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether a first layer is a plain convolution of stride 2 with a square kernel of odd size, padded by zeros."""
    return (
        isinstance(first, nn.Conv2d)
        and (type(first) is nn.Conv2d or _pads_like_tensorflow(first))
        and (first.stride, first.dilation, first.groups, first.padding_mode) == ((2, 2), (1, 1), 1, "zeros")
        and first.kernel_size[0] == first.kernel_size[1]
        and first.kernel_size[0] % 2 == 1
        and (_pads_like_tensorflow(first) or first.padding == (first.kernel_size[0] // 2,) * 2)
    )


def _pads_like_tensorflow(layer: nn.Module) -> bool:
    timm = sys.modules.get("timm.layers.conv2d_same")  # the layer is not timm's if timm has not been imported
    return type(layer) is SameConv2d or bool(timm and type(layer) is timm.Conv2dSame)


def fold_doubling(module: DenseReflectance, backbone: str) -> None:
    """Lets a network that sees images at twice their size read them as they are, where its first layer allows it.

    It gives the same features in less time, apart from the image's edge.

    Args:
        module: The network; it is changed.
        backbone: Its name.
    """
    network = module.network
    if module.scale != 2 or not isinstance(getattr(network, "pretrained_cfg", {}).get("first_conv"), str):
        return
    parent, _, name = layer_names(network, backbone)[0].rpartition(".")
    first = network.get_submodule(parent).get_submodule(name)
    if can_fold(first):
        setattr(network.get_submodule(parent), name, DoublingConvolution(first))
        module.scale = 1
