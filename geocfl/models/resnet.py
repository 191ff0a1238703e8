"""ResNet for prediction: the networks that timm defines, without the seconds that importing timm takes."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn
from torch.nn import functional as F

from geocfl.models.pooled import PooledNetwork

STAGES = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}
"""Number of blocks in each stage of a network."""
DEEP = ("resnet50",)
"""Networks whose blocks have three convolutions and give four times the channels."""
STEM = 64
"""Channels after the first layer."""


class ResNet(PooledNetwork):
    """A ResNet with the attributes and parameter names of timm's, for prediction.

    Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.

    Args:
        name: One of `STAGES`.
        bands: Input channels.
        classes: Outputs.
    """

    def __init__(self, name: str, bands: int, classes: int) -> None:
        super().__init__(first="conv1", last="fc")
        self.conv1 = nn.Conv2d(bands, STEM, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        kind, channels = _Deep if name in DEEP else _Block, STEM
        for number, count in enumerate(STAGES[name]):
            width, blocks = STEM << number, list[nn.Module]()
            for index in range(count):
                blocks.append(kind(channels, width, 2 if number and not index else 1))
                channels = width * kind.expansion
            self.add_module(f"layer{number + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, D, ceil(H / 32), ceil(W / 32)) features of (N, bands, H, W) normalized input."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, padding=1)
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
        return x


class _Residual(nn.Module, ABC):
    """Adds a block's input to its output, through a convolution where the shapes differ."""

    expansion = 1
    downsample: nn.Module | None

    def _shortcut(self, before: int, after: int, stride: int) -> nn.Module | None:
        if stride == 1 and before == after:
            return None
        return nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    @abstractmethod
    def residual(self, x: Tensor) -> Tensor:
        """What is added to the input."""

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu_(self.residual(x).add_(shortcut))


class _Block(_Residual):
    """Two convolutions of 3 x 3."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = self._shortcut(before, width, stride)

    def residual(self, x: Tensor) -> Tensor:
        result: Tensor = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return result


class _Deep(_Residual):
    """Convolutions of 1 x 1, 3 x 3 and 1 x 1."""

    expansion = 4

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        after = width * self.expansion
        self.conv1 = nn.Conv2d(before, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, after, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(after)
        self.downsample = self._shortcut(before, after, stride)

    def residual(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        result: Tensor = self.bn3(self.conv3(x))
        return result
