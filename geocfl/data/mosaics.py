"""Mosaics: patches side by side, as a dense model sees the land around each of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geocfl.data.augmentation import Augmentation
from geocfl.data.patches import Patches

SIDE = 4
"""Patches along each side of a mosaic."""
TILES = SIDE * SIDE
"""Patches in a mosaic."""


def assemble(patches: Tensor, side: int = SIDE) -> Tensor:
    """(M, B, side * H, side * W) mosaics of (M * side * side, B, H, W) patches, row by row."""
    n, b, h, w = patches.shape
    grid = patches.view(n // side**2, side, side, b, h, w).permute(0, 3, 1, 4, 2, 5)
    return grid.reshape(-1, b, side * h, side * w)


def arrange(
    labels: NDArray[np.int64], indices: NDArray[np.int64], batch_size: int, rng: torch.Generator, *, alike: bool = True
) -> Iterator[NDArray[np.int64]]:
    """The patches of an epoch's batches, in the order in which they lie in mosaics.

    Args:
        labels: (N,) classes of all patches.
        indices: (n,) which of them to use. If n is not a multiple of `batch_size`, some are used twice.
        batch_size: Patches per batch, a multiple of `TILES`.
        rng: Source of all random numbers.
        alike: Sort every other mosaic by class, so that neighbors are often alike, as on real land.

    Yields:
        (batch_size,) indices.
    """
    order = torch.randperm(len(indices), generator=rng).numpy()
    order = np.resize(order, -(-len(order) // batch_size) * batch_size)
    mosaics = indices[order].reshape(-1, TILES)
    if alike:
        odd = mosaics[1::2]
        mosaics[1::2] = np.take_along_axis(odd, labels[odd].argsort(axis=1, kind="stable"), axis=1)
    yield from mosaics.reshape(-1, batch_size)


def mosaic_batches(
    patches: Patches, indices: NDArray[np.int64], augmentation: Augmentation, batch_size: int, rng: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Augmented mosaics of one epoch.

    Every patch has its own geometry and contrast; sharpness and atmosphere are those of a mosaic, since a scene has one
    of each.

    Args:
        patches: The data set.
        indices: (n,) which of its patches to use.
        augmentation: Random changes.
        batch_size: Patches per batch, a multiple of `TILES`.
        rng: Source of all random numbers.

    Yields:
        (M, B, SIDE * H, SIDE * W) float32 reflectance of the mosaics, and (M * TILES,) int64 labels of their patches,
        row by row.
    """
    for chosen in arrange(patches.labels, indices, batch_size, rng):
        yield augmented_mosaics(patches, chosen, augmentation, rng), torch.from_numpy(patches.labels[chosen])


def augmented_mosaics(
    patches: Patches, indices: NDArray[np.int64], augmentation: Augmentation, rng: torch.Generator
) -> Tensor:
    """(M, B, SIDE * H, SIDE * W) augmented mosaics of the patches at (M * TILES,) indices; see `mosaic_batches`."""
    size = patches.pixels.shape[-1]
    x = augmentation.geometry(torch.from_numpy(patches.reflectance(indices)), size, rng, mode="bicubic")
    if augmentation.flatten:
        x = augmentation.flattened(x, rng)
    x = assemble(x)
    if augmentation.blur:
        x = augmentation.blurred(x, rng)
    return augmentation.radiometry(x, patches.bands, rng)
