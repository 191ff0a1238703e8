"""What the networks for prediction share: timm's methods, which pool the features of a trunk for a last layer."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn
from torch.nn import functional as F


class PooledNetwork(nn.Module, ABC):
    """A network with the attributes and methods of timm's.

    Args:
        first: Name of its first layer.
        last: Name of its last layer, from pooled features to logits.
    """

    drop_rate = 0.0

    def __init__(self, first: str, last: str) -> None:
        super().__init__()
        self.pretrained_cfg = {"first_conv": first, "classifier": last}

    @abstractmethod
    def forward_features(self, x: Tensor) -> Tensor:
        """(N, D, ceil(H / 32), ceil(W / 32)) features of (N, bands, H, W) normalized input."""

    def forward_head(self, spatial: Tensor, pre_logits: bool = False) -> Tensor:
        """(N, classes) logits, or with `pre_logits` (N, D) pooled features, of the output of `forward_features`."""
        pooled = F.adaptive_avg_pool2d(spatial, 1).flatten(1)
        result: Tensor = pooled if pre_logits else self.get_classifier()(pooled)
        return result

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.get_submodule(self.pretrained_cfg["classifier"])

    def forward(self, x: Tensor) -> Tensor:
        """(N, classes) logits of (N, bands, H, W) normalized input."""
        return self.forward_head(self.forward_features(x))
