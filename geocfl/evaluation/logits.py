"""The logits of labeled patches, alone or side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geocfl.core.progress import Progress, silent
from geocfl.data.mosaics import TILES, assemble
from geocfl.data.patches import Patches
from geocfl.data.placed import PlacedPatches
from geocfl.models.devices import autocast, fast_batch_size
from geocfl.models.parts import InParts
from geocfl.models.reflectance import DenseReflectance, Reflectance


@torch.inference_mode()
def patch_logits(
    module: Reflectance,
    patches: Patches | PlacedPatches,
    indices: NDArray[np.int64],
    batch_size: int | None = None,
    progress: Progress = silent,
    precision: str = "float32",
) -> Tensor:
    """Classifies patches without augmentation.

    Args:
        module: The network, on the device where it computes; it is left in evaluation mode.
        patches: The data set.
        indices: (n,) which of its patches to classify.
        batch_size: Patches per batch; None takes a fast number for the device.
        progress: Called with the number of patches classified so far.
        precision: One of `geocfl.models.devices.PRECISIONS`. The default, float32, gives metrics that do not depend on
            the processor.

    Returns:
        (n, C) float32 logits on the CPU.
    """
    device = next(module.parameters()).device
    placed = PlacedPatches(patches, device) if isinstance(patches, Patches) else patches
    module.eval()
    batch_size = batch_size or fast_batch_size(device) // module.tta
    rows: list[Any] = []
    in_parts = InParts(device)
    for start in range(0, len(indices), batch_size):
        chosen = indices[start : start + batch_size]

        def logits(part: slice, chosen: NDArray[np.int64] = chosen) -> tuple[Tensor]:
            x = placed.reflectance(chosen[part])
            with autocast(device, precision):
                return (module(x.to(device, memory_format=torch.channels_last)).float().cpu(),)

        rows += in_parts(len(chosen), logits)
        progress("classifying", min(start + batch_size, len(indices)), len(indices), "img")
    return torch.cat(rows)


@torch.inference_mode()
def mosaic_logits(
    module: DenseReflectance,
    patches: Patches,
    indices: NDArray[np.int64],
    *,
    alike: bool = False,
    change: Callable[[Tensor], Tensor] = lambda mosaics: mosaics,
    seed: int = 0,
    progress: Progress = silent,
    precision: str = "float32",
) -> Tensor:
    """(n, C) float32 logits on the CPU of the patches of `mosaic_features`, which describes the parameters."""
    features = mosaic_features(
        module, patches, indices, alike=alike, change=change, seed=seed, progress=progress, precision=precision
    )
    return module.scores_of(features.to(next(module.parameters()).device))[0].cpu()


@torch.inference_mode()
def mosaic_features(
    module: DenseReflectance,
    patches: Patches,
    indices: NDArray[np.int64],
    *,
    alike: bool = False,
    change: Callable[[Tensor], Tensor] = lambda mosaics: mosaics,
    seed: int = 0,
    progress: Progress = silent,
    precision: str = "float32",
) -> Tensor:
    """Features of patches inside random mosaics, as a dense model meets them in a scene.

    Args:
        module: The network, on the device where it computes; it is left in evaluation mode.
        patches: The data set.
        indices: (n,) which of its patches.
        alike: Sort every mosaic by class, so that neighbors are often alike.
        change: Applied to (1, B, H, W) reflectance of each mosaic, such as a blur.
        seed: Decides which patches share a mosaic.
        progress: As for `patch_logits`.
        precision: As for `patch_logits`.

    Returns:
        (n, D) float32 features on the CPU, in the order of `indices`.
    """
    device = next(module.parameters()).device
    module.eval()
    rng = np.random.default_rng(seed)
    order = np.resize(rng.permutation(len(indices)), -(-len(indices) // TILES) * TILES)
    if alike:  # patches of a class lie together, in groups of ten mosaics
        groups = (order[start : start + 10 * TILES] for start in range(0, len(order), 10 * TILES))
        order = np.concatenate([group[patches.labels[indices[group]].argsort(kind="stable")] for group in groups])
    rows: list[Any] = []
    in_parts = InParts(device)
    for start in range(0, len(order), TILES):
        mosaic = change(assemble(torch.from_numpy(patches.reflectance(indices[order[start : start + TILES]]))))

        def features(_: slice, mosaic: Tensor = mosaic) -> tuple[Tensor]:
            with autocast(device, precision):
                return (module.patch_features(mosaic.to(device, memory_format=torch.channels_last)).float().cpu(),)

        rows += in_parts(1, features)
        progress("classifying", min(start + TILES, len(indices)), len(indices), "img")
    # Patches that fill up the last mosaic occur twice.
    joined = torch.cat(rows)
    return joined[torch.from_numpy(np.unique(order, return_index=True)[1])]
