"""What a network sees in labeled patches: their features, and their logits and novelty under random changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geocfl.data.augmentation import Augmentation
from geocfl.data.patches import Patches
from geocfl.models.devices import autocast, fast_batch_size
from geocfl.models.parts import InParts
from geocfl.models.reflectance import Reflectance


@torch.inference_mode()
def patch_features(
    module: Reflectance, patches: Patches, indices: NDArray[np.int64], precision: str = "float32"
) -> Tensor:
    """Features of patches without augmentation.

    Args:
        module: The network, on the device where it computes; it is left in evaluation mode.
        patches: The data set.
        indices: (n,) which of its patches.
        precision: One of `geocfl.models.devices.PRECISIONS`.

    Returns:
        (n, D) float32 features on the CPU.
    """
    device = next(module.parameters()).device
    module.eval()
    batch_size = fast_batch_size(device)
    rows: list[Any] = []
    in_parts = InParts(device)
    for start in range(0, len(indices), batch_size):
        x = torch.from_numpy(patches.reflectance(indices[start : start + batch_size]))

        def features(part: slice, x: Tensor = x) -> tuple[Tensor]:
            with autocast(device, precision):
                return (module.features(x[part].to(device, memory_format=torch.channels_last)).float().cpu(),)

        rows += in_parts(len(x), features)
    return torch.cat(rows)


@torch.inference_mode()
def augmented_scores(
    module: Reflectance,
    patches: Patches,
    indices: NDArray[np.int64],
    augmentation: Augmentation,
    seed: int,
    precision: str = "float32",
) -> tuple[Tensor, Tensor | None]:
    """Classifies patches once each under random changes.

    Args:
        module: The network, on the device where it computes; it is left in evaluation mode.
        patches: The data set.
        indices: (n,) which of its patches to classify, n >= 1.
        augmentation: The changes.
        seed: Decides them.
        precision: One of `geocfl.models.devices.PRECISIONS`.

    Returns:
        (n, C) float32 logits and (n,) float32 residuals on the CPU, in the order of `indices`; see
        `geocfl.models.reflectance.Reflectance.scores`.
    """
    device = next(module.parameters()).device
    module.eval()
    rng = torch.Generator().manual_seed(seed)
    size, batch_size = module.patch_size(patches.pixels.shape[-1]), fast_batch_size(device) // module.tta
    rows, unlike, in_parts = [], [], InParts(device)
    for start in range(0, len(indices), batch_size):
        x = torch.from_numpy(patches.reflectance(indices[start : start + batch_size]))
        x = augmentation(x, patches.bands, size, rng)

        def scores(part: slice, x: Tensor = x) -> tuple[Tensor, Tensor | None]:
            with autocast(device, precision):
                logits, residuals = module.scores(x[part].to(device, memory_format=torch.channels_last))
            return logits.float().cpu(), None if residuals is None else residuals.float().cpu()

        logits, residuals = in_parts(len(x), scores)
        rows.append(logits)
        unlike += [] if residuals is None else [residuals]
    return torch.cat(rows), torch.cat(unlike) if unlike else None  # type: ignore[arg-type]
