"""EfficientNet-Lite0 for prediction: the network that timm defines, without the seconds that importing timm takes."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from geocfl.models.pooled import PooledNetwork

STEM, FEATURES = 32, 1280
"""Channels after the first layer and before the last one."""
STAGES = ((1, 16, 3, 1, 1), (6, 24, 3, 2, 2), (6, 40, 5, 2, 2), (6, 80, 3, 2, 3), (6, 112, 5, 1, 3), (6, 192, 5, 2, 4),
          (6, 320, 3, 1, 1))  # fmt: skip
"""Expansion, channels, kernel size, stride and number of the blocks of each stage."""
EPSILON = 1e-3
"""Added to the variance in batch normalization, as in TensorFlow."""


class SameConv2d(nn.Conv2d):
    """A convolution of stride 2 that pads like TensorFlow: by one pixel less than others if a side is even."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, D, ceil(H / stride), ceil(W / stride)) outputs of (N, B, H, W) inputs."""
        sides = []
        for length, size, step in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            missing = max((-(-length // step) - 1) * step + size - length, 0)
            sides += [missing // 2, missing - missing // 2]
        return F.conv2d(F.pad(x, sides), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class Lite0(PooledNetwork):
    """EfficientNet-Lite0 with the attributes and parameter names of timm's ``tf_efficientnet_lite0``, for prediction.

    Source: https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite; Tan and Le, "EfficientNet:
    Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019.

    Args:
        bands: Input channels.
        classes: Outputs.
    """

    def __init__(self, bands: int, classes: int) -> None:
        super().__init__(first="conv_stem", last="classifier")
        self.conv_stem = _convolution(bands, STEM, 3, 2)
        self.bn1 = _Norm(STEM)
        stages, channels = [], STEM
        for expansion, width, size, stride, count in STAGES:
            blocks: list[nn.Module] = []
            for number in range(count):
                step = stride if number == 0 else 1
                blocks.append(_Block(channels, width, size, step, expansion))
                channels = width
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.conv_head = _convolution(channels, FEATURES, 1, 1)
        self.bn2 = _Norm(FEATURES)
        self.classifier = nn.Linear(FEATURES, classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 1280, ceil(H / 32), ceil(W / 32)) features of (N, bands, H, W) normalized input."""
        spatial: Tensor = self.bn2(self.conv_head(self.blocks(self.bn1(self.conv_stem(x)))))
        return spatial


class _Norm(nn.BatchNorm2d):
    """Batch normalization, and ReLU6 unless it is `linear`."""

    def __init__(self, channels: int, *, linear: bool = False) -> None:
        super().__init__(channels, EPSILON)
        self._linear = linear

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return x if self._linear else F.relu6(x)


class _Block(nn.Module):
    """An inverted residual; without expansion, a depthwise separable convolution."""

    def __init__(self, before: int, after: int, size: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = before * expansion
        self._adds = stride == 1 and before == after
        if expansion == 1:
            self.conv_dw = _convolution(inner, inner, size, stride, groups=inner)
            self.bn1 = _Norm(inner)
            self.conv_pw = _convolution(inner, after, 1, 1)
            self.bn2 = _Norm(after, linear=True)
            self._order: tuple[str, ...] = ("conv_dw", "bn1", "conv_pw", "bn2")
        else:
            self.conv_pw = _convolution(before, inner, 1, 1)
            self.bn1 = _Norm(inner)
            self.conv_dw = _convolution(inner, inner, size, stride, groups=inner)
            self.bn2 = _Norm(inner)
            self.conv_pwl = _convolution(inner, after, 1, 1)
            self.bn3 = _Norm(after, linear=True)
            self._order = ("conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3")

    def forward(self, x: Tensor) -> Tensor:
        result = x
        for name in self._order:
            result = getattr(self, name)(result)
        return result + x if self._adds else result


def _convolution(before: int, after: int, size: int, stride: int, groups: int = 1) -> nn.Conv2d:
    if stride == 1:
        return nn.Conv2d(before, after, size, padding=size // 2, groups=groups, bias=False)
    return SameConv2d(before, after, size, stride, groups=groups, bias=False)
