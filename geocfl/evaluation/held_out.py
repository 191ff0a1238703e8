"""What a network sees in labeled patches: their features, and their logits under random changes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geocfl.data.augmentation import Augmentation
from geocfl.data.mosaics import TILES, arrange, assemble, augmented_mosaics
from geocfl.data.patches import Patches
from geocfl.models.network import DenseReflectance, Reflectance, autocast, fast_batch_size


@torch.inference_mode()
def patch_features(
    module: Reflectance, patches: Patches, indices: NDArray[np.int64], *, seed: int = 0, precision: str = "float32"
) -> Tensor:
    """Features of patches without augmentation: of a dense model inside random mosaics, of others each alone.

    Args:
        module: The network, on the device where it computes; it is left in evaluation mode.
        patches: The data set.
        indices: (n,) which of its patches.
        seed: Decides which patches share a mosaic.
        precision: One of `geocfl.models.network.PRECISIONS`.

    Returns:
        (n, D) float32 features on the CPU, in the order of `indices`.
    """
    device = next(module.parameters()).device
    module.eval()
    dense = isinstance(module, DenseReflectance)
    batch_size = TILES if dense else fast_batch_size(device)
    places = np.random.default_rng(seed).permutation(len(indices)) if dense else np.arange(len(indices))
    if dense:
        places = np.resize(places, -(-len(places) // TILES) * TILES)
    rows = []
    for start in range(0, len(places), batch_size):
        x = torch.from_numpy(patches.reflectance(indices[places[start : start + batch_size]]))
        with autocast(device, precision):
            if isinstance(module, DenseReflectance):
                found = module.window_features(assemble(x).to(device), module.cells).flatten(0, 2)
            else:
                found = module.features(x.to(device))
        rows.append(found.float().cpu())
    return in_order(torch.cat(rows), places)


@torch.inference_mode()
def augmented_scores(
    module: Reflectance, patches: Patches, indices: NDArray[np.int64], augmentation: Augmentation, seed: int
) -> tuple[Tensor, Tensor | None]:
    """Classifies patches once each under random changes: those of a dense model inside random mosaics.

    Args:
        module: The network, on the device where it computes; it is left in evaluation mode.
        patches: The data set.
        indices: (n,) which of its patches to classify, n >= 1.
        augmentation: The changes.
        seed: Decides them.

    Returns:
        (n, C) float32 logits and (n,) float32 residuals on the CPU, in the order of `indices`; see
        `geocfl.models.network.Reflectance.scores`.
    """
    device = next(module.parameters()).device
    module.eval()
    rng = torch.Generator().manual_seed(seed)
    rows, unlike, places = [], [], []
    for chosen in _batches(module, patches.labels[indices], rng):
        if isinstance(module, DenseReflectance):
            x = augmented_mosaics(patches, indices[chosen], augmentation, rng)
            logits, residuals = module.patch_scores(x.to(device, memory_format=torch.channels_last))
        else:
            x = torch.from_numpy(patches.reflectance(indices[chosen]))
            x = augmentation(x, patches.bands, module.input_size, rng)
            logits, residuals = module.scores(x.to(device, memory_format=torch.channels_last))
        rows.append(logits.float().cpu())
        unlike += [] if residuals is None else [residuals.cpu()]
        places.append(chosen)
    order = np.concatenate(places)
    return in_order(torch.cat(rows), order), in_order(torch.cat(unlike), order) if unlike else None


def in_order(rows: Tensor, places: NDArray[np.int64]) -> Tensor:
    """Rows sorted by their places; of a patch that fills up the last mosaic too, the first counts."""
    _, first = np.unique(places, return_index=True)
    return rows[torch.from_numpy(first)]


def _batches(module: Reflectance, labels: NDArray[np.int64], rng: torch.Generator) -> Iterator[NDArray[np.int64]]:
    """Positions of the n patches of a mosaic, or of a batch of patches, until each has had its turn."""
    places = np.arange(len(labels))
    if isinstance(module, DenseReflectance):
        yield from arrange(labels, places, TILES, rng)
        return
    batch_size = fast_batch_size(next(module.parameters()).device) // module.tta
    for start in range(0, len(places), batch_size):
        yield places[start : start + batch_size]
