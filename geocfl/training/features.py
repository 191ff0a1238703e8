"""Features of patches from a frozen backbone: computed once and kept in the user's cache."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from geocfl.core.files import cache_folder, write_whole
from geocfl.core.progress import Progress, silent
from geocfl.data.patches import Patches
from geocfl.evaluation.logits import mosaic_features
from geocfl.models.devices import autocast, fast_batch_size, has_fast_bfloat16
from geocfl.models.parts import InParts
from geocfl.models.reflectance import DenseReflectance, Reflectance

logger = logging.getLogger("geocfl")


@dataclass(frozen=True)
class View:
    """One way to look at a patch.

    Attributes:
        turns: Quarter turns of the patch.
        mirrored: Whether it is mirrored before it is turned.
        inside: Whether a dense model sees it inside a random mosaic of patches, as in a scene; else it sees it alone.
    """

    turns: int = 0
    mirrored: bool = False
    inside: bool = False


ALONE = View()
"""A patch as it is. Every model sees it like this first."""


def views_of(module: Reflectance) -> tuple[View, ...]:
    """The views that a last layer learns from: alone, then turned; a dense model's are turned inside mosaics."""
    inside = isinstance(module, DenseReflectance)
    return ALONE, View(1, inside=inside), View(2, mirrored=True, inside=inside)


def turned_patches(patches: Patches, view: View) -> Patches:
    """The patches as a view turns and mirrors them; their pixels are not copied."""
    pixels = patches.pixels[..., ::-1] if view.mirrored else patches.pixels
    return replace(patches, pixels=np.rot90(pixels, view.turns, (2, 3)))


def read_features(
    module: Reflectance,
    patches: Patches,
    batch_size: int | None = None,
    progress: Progress = silent,
    view: View = ALONE,
) -> Tensor:
    """Pooled features of every patch without augmentation, from the cache if they have been computed before.

    The name of the cache file is a hash of everything that decides its content: pixels, radiometry, weights, input,
    view, kind of device, and the versions of torch and timm.

    Args:
        module: The network; it is set to evaluation mode.
        patches: N patches.
        batch_size: Patches per batch; None takes a fast number for the device.
        progress: Called with the number of patches computed so far.
        view: How the network sees the patches.

    Returns:
        (N, D) float32 on the CPU, rounded to half precision, in which they are stored.
    """
    file = cache_folder() / "features" / f"{_fingerprint(module, patches, view)}.safetensors"
    if (kept := _read(file)) is not None and len(kept) == len(patches):
        return kept.float()
    seen = turned_patches(patches, view)
    features = _computed(module, seen, view, batch_size, progress).half()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, save({"features": features}))
    except OSError as error:
        logger.warning("%s cannot be written (%s); other runs will compute the features again", file, error.strerror)
    return features.float()


def _computed(module: Reflectance, seen: Patches, view: View, batch_size: int | None, progress: Progress) -> Tensor:
    """(N, D) features of patches that have been turned already."""

    def report(what: str, done: int, total: int, unit: str) -> None:
        progress("features", done, total, unit)

    if not isinstance(module, DenseReflectance):
        return _alone(module, seen, batch_size, "float32", report)
    precision = "bfloat16" if has_fast_bfloat16(next(module.parameters()).device) else "float32"
    if not view.inside:
        return _alone(module, seen, batch_size, precision, report)
    everything = np.arange(len(seen))
    return mosaic_features(module, seen, everything, seed=view.turns, progress=report, precision=precision)


@torch.inference_mode()
def _alone(module: Reflectance, patches: Patches, batch_size: int | None, precision: str, progress: Progress) -> Tensor:
    """(N, D) features of patches, each by itself, on the CPU."""
    device = next(module.parameters()).device
    module.eval()
    batch_size = batch_size or fast_batch_size(device)
    rows: list[Any] = []
    in_parts = InParts(device)
    for start in range(0, len(patches), batch_size):
        stop = min(start + batch_size, len(patches))
        x = torch.from_numpy(patches.reflectance(np.arange(start, stop)))

        def features(part: slice, x: Tensor = x) -> tuple[Tensor]:
            with autocast(device, precision):
                return (module.features(x[part].to(device, memory_format=torch.channels_last)).half().cpu(),)

        rows += in_parts(len(x), features)
        progress("features", stop, len(patches), "img")
    return torch.cat(rows)


def _read(file: Path) -> Tensor | None:
    """The features in a cache file; None if it is missing or broken, so that they are computed again."""
    try:
        return load_file(file)["features"]
    except (OSError, SafetensorError, KeyError):
        return None


def _fingerprint(module: Reflectance, patches: Patches, view: View) -> str:
    digest = hashlib.sha256()
    facts = (patches.pixels.shape, patches.pixels.dtype.str, patches.scaling, module.clip, module.input_size)
    maker = type(module.network).__name__, module.mean.device.type, version("torch"), version("timm")
    seen = () if view == ALONE else (view,)
    digest.update(repr((*maker, *facts, *seen)).encode())
    head = {id(parameter) for parameter in module.head.parameters()}
    for tensor in (
        *(t for t in module.state_dict(keep_vars=True).values() if id(t) not in head),
        module.mean,
        module.std,
    ):
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    digest.update(np.ascontiguousarray(patches.pixels).tobytes())
    return digest.hexdigest()[:32]
