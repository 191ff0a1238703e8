"""Features of patches from a frozen backbone: computed once and kept in the user's cache."""

from __future__ import annotations

import hashlib
import logging
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from geocfl.core.files import cache_folder, write_whole
from geocfl.core.progress import Progress, silent
from geocfl.data.patches import Patches
from geocfl.models.devices import fast_batch_size
from geocfl.models.reflectance import Reflectance

logger = logging.getLogger("geocfl")


@torch.inference_mode()
def read_features(
    module: Reflectance, patches: Patches, batch_size: int | None = None, progress: Progress = silent
) -> Tensor:
    """Pooled features of every patch without augmentation, from the cache if they have been computed before.

    The name of the cache file is a hash of everything that decides its content: pixels, radiometry, weights, input,
    kind of device, and the versions of torch and timm.

    Args:
        module: The network; it is set to evaluation mode.
        patches: N patches.
        batch_size: Patches per batch; None takes a fast number for the device.
        progress: Called with the number of patches computed so far.

    Returns:
        (N, D) float32 on the CPU, rounded to half precision, in which they are stored.
    """
    file = cache_folder() / "features" / f"{_fingerprint(module, patches)}.safetensors"
    if (kept := _read(file)) is not None and len(kept) == len(patches):
        return kept.float()
    device = next(module.parameters()).device
    module.eval()
    batch_size = batch_size or fast_batch_size(device)
    rows = []
    for start in range(0, len(patches), batch_size):
        stop = min(start + batch_size, len(patches))
        x = torch.from_numpy(patches.reflectance(np.arange(start, stop)))
        rows.append(module.features(x.to(device, memory_format=torch.channels_last)).half().cpu())
        progress("features", stop, len(patches), "img")
    features = torch.cat(rows)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, save({"features": features}))
    except OSError as error:
        logger.warning("%s cannot be written (%s); other runs will compute the features again", file, error.strerror)
    return features.float()


def _read(file: Path) -> Tensor | None:
    """The features in a cache file; None if it is missing or broken, so that they are computed again."""
    try:
        return load_file(file)["features"]
    except (OSError, SafetensorError, KeyError):
        return None


def _fingerprint(module: Reflectance, patches: Patches) -> str:
    digest = hashlib.sha256()
    facts = (patches.pixels.shape, patches.pixels.dtype.str, patches.scaling, module.clip, module.input_size)
    maker = type(module.network).__name__, module.mean.device.type, version("torch"), version("timm")
    digest.update(repr((*maker, *facts)).encode())
    head = {id(parameter) for parameter in module.head.parameters()}
    for tensor in (
        *(t for t in module.state_dict(keep_vars=True).values() if id(t) not in head),
        module.mean,
        module.std,
    ):
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    digest.update(np.ascontiguousarray(patches.pixels).tobytes())
    return digest.hexdigest()[:32]
