"""Backbones: networks from timm or registered by users, with their first and last layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geocfl.core.keywords import declared
from geocfl.errors import UsageError, unknown_name
from geocfl.losses import COSINE_SCALE
from geocfl.models.bundle import HEADS
from geocfl.models.lite0 import Lite0
from geocfl.models.resnet import STAGES, ResNet

Make = TypeVar("Make", bound=Callable[..., nn.Module])


@dataclass(frozen=True)
class Backbone:
    """A network that geocfl can train.

    Attributes:
        make: Its name in timm, or a function of the number of bands, the number of classes and the dropout.
        input_size: Side in pixels that windows are resized to by default.
        weights: Initial weights by default.
    """

    make: str | Callable[[int, int, float], nn.Module]
    input_size: int
    weights: str


LITE0 = "tf_efficientnet_lite0"
BACKBONES = {
    "resnet18": Backbone("resnet18", 64, "SENTINEL2_RGB_MOCO"),
    "resnet34": Backbone("resnet34", 64, "imagenet"),  # torchgeo has no Sentinel-2 weights
    "resnet50": Backbone("resnet50", 64, "SENTINEL2_RGB_MOCO"),
    "lite0": Backbone(LITE0, 96, "imagenet"),
}
"""The backbones by name; `register_backbone` adds to them."""


FEATURE_METHODS = ("forward_features", "forward_head", "get_classifier")
"""Methods of timm's networks that give the features and the last layer."""


@overload
def register_backbone(
    name: str, make: None = None, *, input_size: int = 64, weights: str = "none"
) -> Callable[[Make], Make]: ...
@overload
def register_backbone(name: str, make: str, *, input_size: int = 64, weights: str = "none") -> str: ...
@overload
def register_backbone(name: str, make: Make, *, input_size: int = 64, weights: str = "none") -> Make: ...
@declared
def register_backbone(name: str, make: Any = None, *, input_size: int = 64, weights: str = "none") -> Any:
    """Adds a backbone, which `geocfl.train` and `geocfl.compare` then accept by its name.

    Any classification network of timm needs its name only:

    ```python
    geocfl.register_backbone("convnext", "convnext_atto", input_size=64, weights="imagenet")
    ```

    For any other network, decorate a function (or an `nn.Module` class) that makes it:

    ```python
    @geocfl.register_backbone("small")
    def small(bands: int, classes: int, dropout: float) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(bands, 16, 3, stride=2, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(16, classes),
        )
    ```

    Register a backbone again in every process that loads a model with it. A model's weights are stored under the names
    of the network's parameters, so do not rename them later.

    Args:
        name: Name of the backbone, which is stored in the model.
        make: Name of a network in timm, or a function. The function gets the number of bands, the number of classes and
            the probability of dropout before the last layer. It returns a module from (N, bands, input_size,
            input_size) float32 normalized reflectance to (N, classes) logits, with random weights. Omit it to use
            `register_backbone` as a decorator.
        input_size: Side in pixels that windows are resized to by default.
        weights: Initial weights by default: ``"none"``, the path of a weights file, or ``"imagenet"`` for a network
            of timm. Weights other than ``"none"``, frozen training, a teacher's features and the losses ``"ldam"`` and
            ``"logit-adjusted"`` need a timm network, or one with the same attributes: ``pretrained_cfg``,
            ``forward_features``, ``forward_head`` and ``get_classifier``. A model without the last three has no
            novelty. A dense model also needs ``drop_rate``, one feature for every 32 x 32 pixels of its input, and a
            last layer that reads the mean of the features.

    Returns:
        `make`, or the decorator.

    Raises:
        UsageError: The name is taken, or timm has no such network.
    """
    if name in BACKBONES:
        raise UsageError(f"a backbone named {name!r} is already registered; choose another `name`")
    if make is None:
        return lambda function: register_backbone(name, function, input_size=input_size, weights=weights)
    if isinstance(make, str):
        import timm

        if not timm.is_model(make):
            raise UsageError(f"timm has no network {make!r}; choose one of timm.list_models()")
    elif not callable(make):
        raise UsageError(f"`make` is {make!r} but must be a name in timm, or a class or function that makes a network")
    BACKBONES[name] = Backbone(make, input_size, weights)
    return make


def backbone_facts(name: str) -> Backbone:
    """The facts of a backbone.

    Raises:
        UsageError: There is no such backbone.
    """
    if name not in BACKBONES:
        raise UsageError(unknown_name("`backbone`", name, BACKBONES))
    return BACKBONES[name]


class CosineHead(nn.Module):
    """A last layer whose logits are scaled cosines between features and class vectors.

    Source: Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss", NeurIPS 2019. Margins
    need it, because they are only meaningful if the logits have a bounded scale.

    Args:
        features: D.
        classes: C.
        scale: Largest logit.
    """

    def __init__(self, features: int, classes: int, scale: float = COSINE_SCALE) -> None:
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(classes, features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws class vectors of random directions and length 1: longer ones would turn more slowly in training."""
        with torch.no_grad():
            self.weight.copy_(F.normalize(torch.randn_like(self.weight)))

    def forward(self, features: Tensor) -> Tensor:
        """(..., C) logits in -scale..scale of (..., D) features."""
        return self.scale * F.linear(F.normalize(features, dim=-1), F.normalize(self.weight))


def build_network(
    backbone: str,
    bands: int,
    classes: int,
    dropout: float = 0.0,
    stage_dropout: float = 0.0,
    head: str = "linear",
    *,
    predicts: bool = False,
) -> nn.Module:
    """A network with random weights.

    Args:
        backbone: One of `BACKBONES`.
        bands: Input channels.
        classes: Outputs.
        dropout: Probability of dropout before the head.
        stage_dropout: Probability of dropping a channel after each of a ResNet's four stages. timm's `drop_rate` acts
            only before the head, so the paper's dropout "per layer" is implemented here.
        head: One of `HEADS`.
        predicts: Whether the network will only predict: our own backbones then do without timm, whose import takes
            seconds.

    Returns:
        A module from (N, bands, S, S) normalized input to (N, classes) logits.

    Raises:
        UsageError: Unknown backbone or head, or a backbone without the layers that `head` or `stage_dropout` needs.
    """
    if head not in HEADS:
        raise UsageError(unknown_name("head", head, HEADS))
    make = backbone_facts(backbone).make
    network: nn.Module
    if predicts and make == LITE0:
        network = Lite0(bands, classes)
    elif predicts and make in STAGES:
        network = ResNet(str(make), bands, classes)
    elif isinstance(make, str):
        import timm

        network = timm.create_model(make, pretrained=False, in_chans=bands, num_classes=classes, drop_rate=dropout)
    else:
        network = make(bands, classes, dropout)
    if head == "cosine":
        last = layer_names(network, backbone)[1]
        parent, _, name = last.rpartition(".")
        features = feature_count(network.get_submodule(last))
        setattr(network.get_submodule(parent), name, CosineHead(features, classes))
    if stage_dropout:
        stages = [getattr(network, f"layer{i}", None) for i in range(1, 5)]
        if not all(isinstance(stage, nn.Module) for stage in stages):
            raise UsageError(f"dropout after each stage needs a ResNet, not {backbone}; use `recipe=default`")
        for stage in stages:
            # A hook keeps the names of the parameters, so weights still load.
            stage.register_forward_hook(  # type: ignore[union-attr]
                lambda module, _, output: F.dropout2d(output, stage_dropout, module.training)
            )
    return network


def feature_count(head: nn.Module) -> int:
    """Number of features that a last layer reads; a network's ``num_features`` may be that of an earlier layer."""
    return int(head.weight.shape[1])  # type: ignore[index]


def layer_names(network: nn.Module, backbone: str) -> tuple[str, str]:
    """Names of the first layer, which reads the bands, and of the last one, which gives the logits.

    Args:
        network: From timm, or another one that says so in its ``pretrained_cfg`` like timm's networks.
        backbone: Its name.

    Raises:
        UsageError: The network does not say so.
    """
    facts: Any = getattr(network, "pretrained_cfg", {})
    first, last = facts.get("first_conv"), facts.get("classifier")
    if not (isinstance(first, str) and isinstance(last, str)):
        raise UsageError(
            f"the backbone {backbone} does not name its first and last layer; set its pretrained_cfg to a dictionary "
            'with "first_conv" and "classifier"'
        )
    return first, last


def has_features(network: nn.Module) -> bool:
    """Whether the features and the last layer of a network can be reached, as in timm's networks."""
    return all(hasattr(network, name) for name in FEATURE_METHODS)


def check_features(network: nn.Module, backbone: str) -> None:
    """Checks that the features and the last layer of a network can be reached, as in timm's networks.

    Args:
        network: From `build_network`.
        backbone: Its name.

    Raises:
        UsageError: An attribute is missing.
    """
    if missing := [name for name in FEATURE_METHODS if not hasattr(network, name)]:
        raise UsageError(
            f"the backbone {backbone} has no {', '.join(missing)}, which a dense model, a teacher, a frozen backbone "
            "and the loss logit-adjusted need; add them as in timm's networks",
            page="how-to/extending/",
        )
