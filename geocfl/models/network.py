"""The network of a model: loads its weights, and gives logits or calibrated probabilities of reflectance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from geocfl.errors import ModelError, did_you_mean
from geocfl.models.backbones import BACKBONES, build_network, check_features, feature_count, has_features
from geocfl.models.bundle import FACTS, WEIGHTS, Bundle
from geocfl.models.doubling import fold_doubling
from geocfl.models.graph import FEATURES, NOVELTY, OUTPUT
from geocfl.models.novelty import Residual, without_residual
from geocfl.models.reflectance import DenseReflectance, Reflectance


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
            from safetensors.torch import load

            return load(path.read_bytes())
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
        if not all(isinstance(value, Tensor) for value in state.values()):
            raise ValueError("more than tensors")
        return dict(state)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error}); pass a readable file") from error
    except Exception as error:  # safetensors, pickle, zipfile and torch each raise their own
        raise ModelError(f"{path}: not a readable weights file ({type(error).__name__}); pass another one") from error


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
    network = build_network(bundle.backbone, len(bundle.bands), len(bundle.legend), head=bundle.head, predicts=True)
    try:
        weights, residual = without_residual(state, bundle)
        network.load_state_dict(weights)
        module = with_reflectance(network, bundle, residual)
        if residual is not None and feature_count(module.head) != len(residual.mean):
            raise ValueError("the components of novelty are not those of the network's features")
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"{file}: not the weights of the {bundle.backbone} in {FACTS}; restore the file") from error
    if broken := [name for name, value in state.items() if not bool(value.isfinite().all())]:
        raise ModelError(f"{file}: damaged weights ({broken[0]} has numbers that are not finite); restore the file")
    if isinstance(module, DenseReflectance):
        fold_doubling(module, bundle.backbone)
    return module.eval()


class BackendNetwork(nn.Module):
    """What the back ends run: calibrated probabilities, residuals if the model has novelty, and pooled features.

    From (N, B, window, window) reflectance to (N, C), (N,) and (N, D). A dense model takes tiles (N, B, H, W), whose
    sides are multiples of its `feature_stride`, and gives (N, rows, columns, ...). With test-time augmentation, the
    features are the mean over rotations and flips.

    Args:
        bundle: The model.

    Attributes:
        outputs: Names of the outputs. There are no features if the network hides them.
    """

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self.network = network = load_network(bundle)
        self.views: Callable[[Tensor], Sequence[Tensor]] = network.views
        self.scores: Callable[[Tensor], tuple[Tensor, Tensor | None]] = network.scores
        if isinstance(network, DenseReflectance):
            self.views, self.scores = network.window_views, network.window_scores
        self.temperature = bundle.temperature
        self.outputs = [OUTPUT, *([NOVELTY] if bundle.novelty else [])]
        self.has_features = has_features(network.network)
        if self.has_features:
            self.outputs.append(FEATURES)
        self.eval()

    def forward(self, reflectance: Tensor) -> tuple[Tensor, ...]:
        """Runs the network."""
        logits, residuals, features = self.read(reflectance, features=self.has_features)
        given = (torch.softmax(logits / self.temperature, dim=-1), residuals, features)
        return tuple(output for output in given if output is not None)

    def read(self, reflectance: Tensor, *, features: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Logits, residuals if the model has novelty, and features if they are asked for, from one pass."""
        if not features:
            return *self.scores(reflectance), None
        views = self.views(reflectance)
        return *self.network.read(views), torch.stack(list(views)).mean(0) if len(views) > 1 else views[0]


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


def example_windows(bundle: Bundle) -> Tensor:
    """Two windows of reflectance to trace a network with."""
    return torch.full((2, len(bundle.bands), bundle.window, bundle.window), 0.1)


def example_tiles(bundle: Bundle) -> Tensor:
    """Two tiles of reflectance to trace a dense network with; sides of one length would be taken for the same."""
    sides = (bundle.footprint, bundle.footprint + bundle.feature_stride)
    return torch.full((2, len(bundle.bands), *sides), 0.1)
