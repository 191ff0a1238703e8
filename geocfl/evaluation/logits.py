"""The logits of labeled patches, alone or side by side."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geocfl.core.progress import Progress, silent
from geocfl.data.mosaics import TILES, assemble
from geocfl.data.patches import Patches
from geocfl.models.devices import autocast, fast_batch_size
from geocfl.models.reflectance import DenseReflectance, Reflectance


@torch.inference_mode()
def patch_logits(
    module: Reflectance,
    patches: Patches,
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
    module.eval()
    batch_size = batch_size or fast_batch_size(device) // module.tta
    rows = []
    for start in range(0, len(indices), batch_size):
        x = torch.from_numpy(patches.reflectance(indices[start : start + batch_size]))
        with autocast(device, precision):
            rows.append(module(x.to(device, memory_format=torch.channels_last)).float().cpu())
        progress("classifying", min(start + batch_size, len(indices)), len(indices), "img")
    return torch.cat(rows)


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
    """The logits of `mosaic_scores`."""
    return mosaic_scores(
        module, patches, indices, alike=alike, change=change, seed=seed, progress=progress, precision=precision
    )[0]


@torch.inference_mode()
def mosaic_scores(
    module: DenseReflectance,
    patches: Patches,
    indices: NDArray[np.int64],
    *,
    alike: bool = False,
    change: Callable[[Tensor], Tensor] = lambda mosaics: mosaics,
    seed: int = 0,
    progress: Progress = silent,
    precision: str = "float32",
) -> tuple[Tensor, Tensor | None]:
    """Classifies patches inside random mosaics, as a dense model meets them in a scene.

    Args:
        module: The network, on the device where it computes; it is left in evaluation mode.
        patches: The data set.
        indices: (n,) which of its patches to classify.
        alike: Sort every mosaic by class, so that neighbors are often alike.
        change: Applied to (1, B, H, W) reflectance of each mosaic, such as a blur.
        seed: Decides which patches share a mosaic.
        progress: As for `patch_logits`.
        precision: As for `patch_logits`.

    Returns:
        (n, C) float32 logits and (n,) float32 residuals on the CPU, in the order of `indices`; see
        `geocfl.models.reflectance.DenseReflectance.patch_scores`.
    """
    device = next(module.parameters()).device
    module.eval()
    rng = np.random.default_rng(seed)
    order = np.resize(rng.permutation(len(indices)), -(-len(indices) // TILES) * TILES)
    if alike:  # patches of a class lie together, in groups of ten mosaics
        groups = (order[start : start + 10 * TILES] for start in range(0, len(order), 10 * TILES))
        order = np.concatenate([group[patches.labels[indices[group]].argsort(kind="stable")] for group in groups])
    rows, unlike = [], []
    for start in range(0, len(order), TILES):
        mosaic = change(assemble(torch.from_numpy(patches.reflectance(indices[order[start : start + TILES]]))))
        with autocast(device, precision):
            logits, residuals = module.patch_scores(mosaic.to(device, memory_format=torch.channels_last))
        rows.append(logits.float().cpu())
        unlike += [] if residuals is None else [residuals.float().cpu()]
        progress("classifying", min(start + TILES, len(indices)), len(indices), "img")
    place = torch.from_numpy(np.unique(order, return_index=True)[1])
    return torch.cat(rows)[place], torch.cat(unlike)[place] if unlike else None
