"""Networks: backbones from timm or registered by users, and the layers between reflectance and logits."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geocfl.core.keywords import declared
from geocfl.errors import ModelError, UsageError, did_you_mean, unknown_name
from geocfl.losses import COSINE_SCALE
from geocfl.models.bundle import FACTS, WEIGHTS, Bundle
from geocfl.models.novelty import Residual, without_residual

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Precisions that a network can compute in; its weights are float32."""

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


BACKBONES = {
    "resnet18": Backbone("resnet18", 64, "SENTINEL2_RGB_MOCO"),
    "resnet34": Backbone("resnet34", 64, "imagenet"),  # torchgeo has no Sentinel-2 weights
    "resnet50": Backbone("resnet50", 64, "SENTINEL2_RGB_MOCO"),
    "lite0": Backbone("tf_efficientnet_lite0", 96, "imagenet"),
}
"""The backbones by name; `register_backbone` adds to them."""

HEADS = ("linear", "cosine")
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
            ``forward_features``, ``forward_head`` and ``get_classifier``. A dense model also needs ``drop_rate``, one
            feature for every 32 x 32 pixels of its input, and a last layer that reads the mean of the features.

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

    Returns:
        A module from (N, bands, S, S) normalized input to (N, classes) logits.

    Raises:
        UsageError: Unknown backbone or head, or a backbone without the layers that `head` or `stage_dropout` needs.
    """
    if head not in HEADS:
        raise UsageError(unknown_name("head", head, HEADS))
    make = backbone_facts(backbone).make
    if isinstance(make, str):
        import timm

        network: nn.Module = timm.create_model(
            make, pretrained=False, in_chans=bands, num_classes=classes, drop_rate=dropout
        )
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


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a weights file. No code in the file runs.

    Args:
        path: ``.safetensors``, or a pickle of tensors only (`torch.load(weights_only=True)`), bare or under a
            ``state_dict`` key.

    Raises:
        ModelError: The file is missing, corrupt or holds more than tensors.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such weights file; pass an existing .safetensors or .pth file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
        if not all(isinstance(value, Tensor) for value in state.values()):
            raise ValueError("more than tensors")
        return dict(state)
    except Exception as error:  # safetensors, pickle, zipfile and torch each raise their own
        raise ModelError(f"{path}: not a readable weights file ({type(error).__name__}); pass another one") from error


class Reflectance(nn.Module):
    """A network that takes reflectance: it clips, resizes and normalizes its input.

    Args:
        network: From normalized (N, B, S, S) to (N, C) logits.
        clip: Lowest and highest reflectance.
        mean: B band means, reflectance.
        std: B band standard deviations, reflectance.
        input_size: S.
        tta: Number of rotations and flips whose logits are averaged, one of `geocfl.models.bundle.TTA`.
        residual: The novelty of features; None for a model without it.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        clip: tuple[float, float],
        mean: tuple[float, ...],
        std: tuple[float, ...],
        input_size: int,
        tta: int = 1,
        residual: Residual | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.residual = residual
        self.clip = clip
        self.input_size = input_size
        self.tta = tta
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def patch_size(self, _: int) -> int:
        """Side in pixels in which augmented patches are handed over."""
        return self.input_size

    def normalize(self, reflectance: Tensor) -> Tensor:
        """(N, B, S, S) input of the network from (N, B, H, W) reflectance; NaN (no data) becomes the band's mean."""
        x = torch.where(torch.isnan(reflectance), self.mean, reflectance)
        x = (x.clamp(*self.clip) - self.mean) / self.std
        if x.shape[-2:] != (self.input_size, self.input_size):
            x = F.interpolate(x, (self.input_size, self.input_size), mode="bilinear", align_corners=False)
        return x

    def forward(self, reflectance: Tensor) -> Tensor:
        """(N, C) logits of (N, B, H, W) reflectance, as those of `scores`."""
        if self.residual is not None and self.residual.damping:
            return self.scores(reflectance)[0]
        x = self.normalize(reflectance)
        logits: Tensor = self.network(x if self.tta == 1 else symmetries(x, self.tta))
        return logits if self.tta == 1 else logits.view(self.tta, -1, logits.shape[1]).mean(0)

    def scores(self, reflectance: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits and novelty of windows from one pass of the network.

        Args:
            reflectance: (N, B, H, W).

        Returns:
            (N, C) logits and (N,) float32 residuals, averaged over rotations and flips; no residuals without novelty.
            The logits are damped where the residuals are large, if the model says so.
        """
        if self.residual is None:
            return self(reflectance), None
        x = self.normalize(reflectance)
        features = self.pooled(x if self.tta == 1 else symmetries(x, self.tta))
        logits, residuals = self.head(features), self.residual(features)
        logits, residuals = logits.view(self.tta, -1, logits.shape[1]).mean(0), residuals.view(self.tta, -1).mean(0)
        return self.residual.damp(logits, residuals), residuals

    def features(self, reflectance: Tensor) -> Tensor:
        """(N, D) pooled features, the input of the network's last layer, of (N, B, H, W) reflectance."""
        return self.pooled(self.normalize(reflectance))

    def pooled(self, x: Tensor) -> Tensor:
        """(N, D) pooled features of the network's input."""
        spatial = self.network.forward_features(x)  # type: ignore[operator]
        pooled: Tensor = self.network.forward_head(spatial, pre_logits=True)  # type: ignore[operator]
        return pooled

    @property
    def head(self) -> nn.Module:
        """The network's last layer, from features to logits."""
        head: nn.Module = self.network.get_classifier()  # type: ignore[operator]
        return head


class DenseReflectance(Reflectance):
    """A network whose trunk runs over images of any size; a window's features are those that lie in it.

    Windows by themselves get the context that they need by mirroring their pixels.

    Args:
        network: As for `Reflectance`, with timm's ``forward_features`` and ``get_classifier``.
        bundle: The model; its `feature_stride` is that of the network.
        residual: As for `Reflectance`.
    """

    def __init__(self, network: nn.Module, bundle: Bundle, residual: Residual | None = None) -> None:
        super().__init__(network, bundle.clip, bundle.mean, bundle.std, bundle.input_size, bundle.tta, residual)
        self.scale = bundle.input_size / bundle.window
        self.cells = bundle.window // bundle.feature_stride
        self.context = bundle.context
        self.center = bundle.context // bundle.feature_stride

    def forward(self, reflectance: Tensor) -> Tensor:
        """(N, C) logits of (N, B, window, window) reflectance, averaged over its rotations and flips."""
        return self.scores(reflectance)[0]

    def scores(self, reflectance: Tensor) -> tuple[Tensor, Tensor | None]:
        """As for `Reflectance`; the windows are (N, B, window, window)."""
        logits, residuals = self.window_scores(self._with_context(reflectance))
        here = self.center
        return logits[:, here, here], None if residuals is None else residuals[:, here, here]

    def features(self, reflectance: Tensor) -> Tensor:
        """(N, D) pooled features of (N, B, window, window) reflectance."""
        return self.window_features(self._with_context(reflectance))[:, self.center, self.center]

    def _with_context(self, windows: Tensor) -> Tensor:
        return F.pad(windows, [self.context] * 4, mode="reflect")

    def patch_size(self, side: int) -> int:
        """Side in pixels in which augmented patches of `side` pixels are handed over."""
        return side

    def normalize(self, reflectance: Tensor) -> Tensor:
        """(N, B, scale * H, scale * W) input of the network from (N, B, H, W) reflectance; NaN becomes the mean."""
        x = torch.where(torch.isnan(reflectance), self.mean, reflectance)
        x = (x.clamp(*self.clip) - self.mean) / self.std
        return F.interpolate(x, scale_factor=self.scale, mode="bilinear", align_corners=False)

    def window_features(self, image: Tensor, step: int = 1) -> Tensor:
        """Pooled features of the windows of images.

        Args:
            image: (N, B, H, W) reflectance, both sides multiples of the model's `feature_stride` s.
            step: Distance between windows in multiples of s.

        Returns:
            (N, rows, columns, D); the window (i, j) starts at pixel (i * step * s, j * step * s).
        """
        return self._windows(self.normalize(image), step)

    def window_scores(self, image: Tensor, step: int = 1) -> tuple[Tensor, Tensor | None]:
        """Logits and novelty of the windows of images from one pass of the network, or one for each rotation and flip.

        Args:
            image: As for `window_features`.
            step: As for `window_features`.

        Returns:
            (N, rows, columns, C) logits and (N, rows, columns) float32 residuals, as those of `scores`.
        """
        x = self.normalize(image)
        views = [self._windows(x, step, view) for view in range(self.tta)]  # they differ in shape: not one batch
        logits = torch.stack([self.head(features) for features in views]).mean(0)
        if self.residual is None:
            return logits, None
        residuals = torch.stack([self.residual(features) for features in views]).mean(0)
        return self.residual.damp(logits, residuals), residuals

    def _windows(self, x: Tensor, step: int, view: int = 0) -> Tensor:
        """(N, rows, columns, D) features of the windows of the network's input, seen in one of its symmetries."""
        spatial = unturned(self.network.forward_features(turned(x, view)), view)  # type: ignore[operator]
        pooled: Tensor = F.avg_pool2d(spatial, self.cells, step).movedim(1, -1)
        return pooled

    def patches_of(self, mosaics: Tensor) -> Tensor:
        """(M * n, C) logits of the n windows that tile each of M mosaics (M, B, H, W), row by row."""
        return self.patch_scores(mosaics)[0]

    def patch_scores(self, mosaics: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits and novelty of the n windows that tile each of M mosaics, row by row; with dropout in training.

        Args:
            mosaics: (M, B, H, W) reflectance.

        Returns:
            (M * n, C) logits and (M * n,) float32 residuals, as those of `scores` without rotations and flips.
        """
        features = self.window_features(mosaics, self.cells).flatten(0, 2)
        rate = float(self.network.drop_rate)  # type: ignore[arg-type]
        logits: Tensor = self.head(F.dropout(features, rate, self.training))
        if self.residual is None:
            return logits, None
        residuals = self.residual(features)
        return self.residual.damp(logits, residuals), residuals


class BackendNetwork(nn.Module):
    """What the back ends run: calibrated probabilities, and residuals if the model has novelty.

    From (N, B, window, window) reflectance to (N, C) and (N,). A dense model takes tiles (N, B, H, W), whose sides are
    multiples of its `feature_stride`, and gives (N, rows, columns, C) and (N, rows, columns).

    Args:
        bundle: The model.
    """

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        network = load_network(bundle)
        self.scores = network.window_scores if isinstance(network, DenseReflectance) else network.scores
        self.network = network
        self.temperature = bundle.temperature
        self.eval()

    def forward(self, reflectance: Tensor) -> tuple[Tensor, ...]:
        """Runs the network."""
        logits, residuals = self.scores(reflectance)
        probabilities = torch.softmax(logits / self.temperature, dim=-1)
        return (probabilities,) if residuals is None else (probabilities, residuals)


class Probabilities(nn.Module):
    """(N, C) calibrated probabilities of windows (N, B, window, window) of reflectance, for export.

    Args:
        bundle: The model.
    """

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self.network = load_network(bundle)
        self.temperature = bundle.temperature
        self.eval()

    def forward(self, reflectance: Tensor) -> Tensor:
        """Runs the network."""
        return torch.softmax(self.network(reflectance) / self.temperature, dim=1)


def with_reflectance(network: nn.Module, bundle: Bundle, residual: Residual | None = None) -> Reflectance:
    """A network from `build_network` behind the clipping, resizing and normalization of a model."""
    if bundle.feature_stride:
        check_features(network, bundle.backbone)
        return DenseReflectance(network, bundle, residual)
    return Reflectance(network, bundle.clip, bundle.mean, bundle.std, bundle.input_size, bundle.tta, residual)


def load_network(bundle: Bundle) -> Reflectance:
    """The network of a model in float32 on the CPU, in evaluation mode: reflectance in, logits out.

    Raises:
        ModelError: The weights are missing, corrupt or not of this backbone, or the backbone is unknown.
    """
    file = bundle.folder / WEIGHTS
    if bundle.backbone not in BACKBONES:
        raise ModelError(
            f"{bundle.folder / FACTS}: unknown backbone {bundle.backbone!r}; "
            f"{did_you_mean(bundle.backbone, BACKBONES)}add it with geocfl.register_backbone first",
            page="reference/model-bundle/",
        )
    state = {name: value.float() if value.is_floating_point() else value for name, value in read_weights(file).items()}
    network = build_network(bundle.backbone, len(bundle.bands), len(bundle.legend), head=bundle.head)
    try:
        weights, residual = without_residual(state, bundle)
        network.load_state_dict(weights)
        module = with_reflectance(network, bundle, residual)
        if residual is not None and feature_count(module.head) != len(residual.mean):
            raise ValueError("the components of novelty are not those of the network's features")
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"{file}: not the weights of the {bundle.backbone} in {FACTS}; restore the file") from error
    return module.eval()


def example_windows(bundle: Bundle) -> Tensor:
    """Two windows of reflectance to trace a network with."""
    return torch.full((2, len(bundle.bands), bundle.window, bundle.window), 0.1)


def example_tiles(bundle: Bundle) -> Tensor:
    """Two tiles of reflectance to trace a dense network with; sides of one length would be taken for the same."""
    sides = (bundle.footprint, bundle.footprint + bundle.feature_stride)
    return torch.full((2, len(bundle.bands), *sides), 0.1)


def symmetries(x: Tensor, count: int) -> Tensor:
    """(count * N, B, S, S) from (N, B, S, S): as it is, rotated by 90, 180 and 270 degrees, then all four mirrored."""
    return torch.cat([turned(x, n) for n in range(count)])


def turned(x: Tensor, n: int) -> Tensor:
    """(N, B, H, W) images in symmetry n of a square's eight: n quarter turns, of the mirrored images from n = 4 on."""
    return torch.rot90(x if n < 4 else x.flip(3), n % 4, (2, 3))


def unturned(x: Tensor, n: int) -> Tensor:
    """The inverse of `turned`."""
    x = torch.rot90(x, -(n % 4), (2, 3))
    return x if n < 4 else x.flip(3)


def choose_device(name: str) -> torch.device:
    """The torch device of a name; ``auto`` is a GPU if there is one.

    Raises:
        UsageError: The name is unknown, or the device is not available.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?|mps", name):
        known = ("auto", "cpu", "cuda", "cuda:N", "mps")
        suggestion = "did you mean 'cuda'? " if name.lower() == "gpu" else did_you_mean(name, known)
        raise UsageError(f"unknown `device` {name!r}; {suggestion}choose from: {', '.join(known)}", page="how-to/gpu/")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"`device` {name!r} is not available here; use `device=auto` or `device=cpu`", page="how-to/gpu/"
        ) from error
    return device


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which a network computes in one of `PRECISIONS`.

    Raises:
        UsageError: The precision is unknown, or the device does not support it.
    """
    if precision not in PRECISIONS:
        raise UsageError(unknown_name("`precision`", precision, PRECISIONS))
    if precision == "float16" and device.type == "cpu":
        raise UsageError("torch has no float16 convolutions on a CPU; use `precision=float32` or `precision=bfloat16`")
    return torch.autocast(device.type, PRECISIONS[precision], enabled=precision != "float32")


def fast_batch_size(device: torch.device) -> int:
    """Default number of patches per batch.

    On a CPU, the activations of larger batches outgrow the memory that the C library keeps for reuse. Fetching new
    pages for every layer would then take up to half of the time.
    """
    return 32 if device.type == "cpu" else 256


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 autocast is faster than float32; it is not on processors that only emulate it.

    ``GEOCFL_BFLOAT16=on`` or ``off`` overrides the detection, to reproduce a training of another machine.

    Raises:
        UsageError: The variable has another value.
    """
    forced = os.environ.get("GEOCFL_BFLOAT16", "")
    if forced not in ("", "on", "off"):
        raise UsageError(f"GEOCFL_BFLOAT16={forced} is neither on nor off; unset it to let geocfl choose")
    if forced:
        return forced == "on"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        # Processors with AVX2 only run bfloat16 convolutions about fifteen times slower than float32.
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(probe() for name in probes if (probe := getattr(torch.cpu, name, None)))
    return False
