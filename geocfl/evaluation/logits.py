"""The logits of labeled patches."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geocfl.core.progress import Progress, silent
from geocfl.data.patches import Patches
from geocfl.models.network import Reflectance, autocast, fast_batch_size


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
        precision: One of `geocfl.models.network.PRECISIONS`. The default, float32, gives metrics that do not depend on
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
