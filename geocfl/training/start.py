"""The start of a training: its model before the first step, with normalization and initial weights."""

from __future__ import annotations

import math
import platform
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from geocfl.core.progress import Progress, silent
from geocfl.data.load import load_patches, load_split
from geocfl.data.patches import Patches
from geocfl.data.splits import Split
from geocfl.errors import DataError, UsageError
from geocfl.losses import loss_facts
from geocfl.models.backbones import build_network, check_features
from geocfl.models.bundle import REDUCTION, Bundle
from geocfl.models.network import example_windows, with_reflectance
from geocfl.models.reflectance import DenseReflectance, Reflectance
from geocfl.models.weights import load_weights, weights_model
from geocfl.training.config import TrainSettings
from geocfl.training.unseen import check_unseen


def training_patches(settings: TrainSettings, progress: Progress = silent) -> Patches:
    """All patches of the data set in `settings`; see `geocfl.data.load.load_patches`."""
    return load_patches(
        settings.data,
        settings.bands,
        split=settings.split,
        scale=settings.scale,
        offset=settings.offset,
        skip_bad=settings.skip_bad,
        progress=progress,
        fewest_classes=1 if settings.add_classes else 2,
    )


def training_split(patches: Patches, settings: TrainSettings) -> Split:
    """The split of a training, with its training patches thinned; see `geocfl.data.load.load_split`."""
    return load_split(
        patches,
        settings.data,
        settings.split,
        settings.seed,
        validation=not settings.refit,
        imbalance=settings.imbalance,
        class_order=settings.class_order,
    )


def start(
    settings: TrainSettings, patches: Patches, split: Split, name: str, device: torch.device
) -> tuple[Bundle, Reflectance]:
    """The model and its network before the first step, with the initial weights.

    Raises:
        ModelError: The weights cannot be found or do not fit.
        UsageError: The network lacks something that the settings need, or the weights are from a model that may have
            seen the validation or test patches.
    """
    model = describe_model(settings, patches, split, name)
    source = weights_model(settings.weights)
    if source:
        check_unseen("weights", settings.weights, source, model)
    continued = source is not None and (source.legend.names, source.head) == (model.legend.names, model.head)
    torch.manual_seed(settings.seed)
    network = build_network(
        settings.backbone,
        len(settings.bands),
        len(patches.legend),
        settings.dropout,
        settings.stage_dropout,
        model.head,
    )
    check_network(network, settings)
    load_weights(network, settings.backbone, settings.weights, settings.bands, last_layer=continued)
    module: Reflectance = with_reflectance(network, model).to(device).to(memory_format=torch.channels_last)
    if isinstance(module, DenseReflectance):
        check_dense(module, model, device)
    return model, module


@torch.no_grad()
def check_dense(module: DenseReflectance, model: Bundle, device: torch.device) -> None:
    """Checks that the features of a window alone are those that a dense model averages in it.

    Raises:
        UsageError: The network has features of another kind, as user-registered ones may.
    """
    window = example_windows(model).to(device)
    module.eval()
    try:
        module.patches_of(window)
        read = module.window_features(window).flatten(0, 2)
        same = torch.allclose(module.pooled(module.normalize(window)), read, 1e-3, 1e-3)
    except (AttributeError, RuntimeError):
        same = False
    if not same:
        raise UsageError(
            f"the backbone {model.backbone} cannot be dense: between its features there must be {REDUCTION} px of its "
            "input, its last layer must read their mean, and it needs timm's drop_rate; leave out `dense`, or pass "
            "another `backbone`, such as lite0",
            page="how-to/training/",
        )


def check_network(network: nn.Module, settings: TrainSettings) -> None:
    """Checks that a network, which a user may have registered, has what a training needs.

    Raises:
        UsageError: The network lacks an attribute.
    """
    if settings.freeze or settings.dense or (settings.teacher and settings.hint) or loss_facts(settings.loss).posthoc:
        check_features(network, settings.backbone)


def describe_model(settings: TrainSettings, patches: Patches, split: Split, name: str) -> Bundle:
    """The model without weights: bands, normalization, legend and origin."""
    clip = reflectance_range(patches)
    # From all training patches, also if they are thinned: no labels are used, and all imbalances share their features.
    unthinned = training_split(patches, replace(settings, imbalance="none")).train
    mean, std = band_statistics(patches, unthinned, clip)
    return Bundle(
        name=name,
        backbone=settings.backbone,
        bands=settings.bands,
        gsd=10.0,
        window=patches.pixels.shape[-1],
        input_size=settings.input_size,
        clip=clip,
        mean=mean,
        std=std,
        legend=patches.legend,
        head=loss_facts(settings.loss).head,
        feature_stride=feature_stride(settings, patches) if settings.dense else 0,
        origin=run_facts(settings, patches, split),
    )


def run_facts(settings: TrainSettings, patches: Patches, split: Split) -> dict[str, Any]:
    """The origin of a model that is to be trained."""
    return {
        "data": patches.source,
        "split": settings.split,
        "patches": {"train": len(split.train), "validation": len(split.validation), "test": len(split.test)},
        "seed": settings.seed,
        "imbalance": settings.imbalance,
        "loss": settings.loss,
        "gamma": settings.gamma,
        "recipe": settings.recipe,
        "dense": settings.dense,
        "freeze": settings.freeze,
        "teacher": ",".join(settings.teacher),
        "epochs": settings.epochs,
        "weights": settings.weights,
        "versions": {
            "geocfl": version("geocfl"),
            "python": platform.python_version(),
            **{package: version(package) for package in ("torch", "torchgeo", "timm")},
        },
        "license": "MIT",
    }


def feature_stride(settings: TrainSettings, patches: Patches) -> int:
    """Pixels of a patch between the features of a dense model.

    Raises:
        UsageError: The patches do not hold a whole number of features.
    """
    window = int(patches.pixels.shape[-1])
    stride, rest = divmod(window * REDUCTION, settings.input_size)
    if rest or window % stride:
        sizes = [str(REDUCTION * n) for n in range(1, 9) if window % n == 0]
        raise UsageError(
            f"`input_size` is {settings.input_size}, but a dense model of patches of {window} px needs a size of "
            f"{', '.join(sizes)}, so that each patch holds a whole number of features"
        )
    return stride


def reflectance_range(patches: Patches) -> tuple[float, float]:
    """0 and the largest reflectance that the patches can hold, at most 1: EuroSAT's JPEGs saturate at 0.275."""
    if not np.issubdtype(patches.pixels.dtype, np.integer):
        return 0.0, 1.0
    largest = patches.scaling.to_reflectance(np.array(np.iinfo(patches.pixels.dtype.name).max))
    return 0.0, min(1.0, round(float(largest), 6))


def band_statistics(
    patches: Patches, indices: NDArray[np.int64], clip: tuple[float, float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each band's clipped reflectance over the patches at `indices`."""
    total = np.zeros((2, len(patches.bands)))
    for start in range(0, len(indices), 1024):
        x = patches.reflectance(indices[start : start + 1024]).clip(*clip).astype(np.float64)
        total += [x.sum((0, 2, 3)), (x**2).sum((0, 2, 3))]
    mean, square = total / (len(indices) * math.prod(patches.pixels.shape[2:]))
    if not np.isfinite(mean).all():
        raise DataError(f"{patches.source}: some pixels are not finite numbers; fill them or remove their patches")
    std = np.sqrt(np.maximum(square - mean**2, 1e-12))
    return tuple(mean.round(6).tolist()), tuple(std.round(6).tolist())
