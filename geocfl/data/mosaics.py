"""Mosaics: patches side by side, as a dense model sees the land around each of them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geocfl.data.augmentation import Augmentation
from geocfl.data.placed import PlacedPatches

SIDE = 4
"""Windows along each side of a mosaic."""
TILES = SIDE * SIDE
"""Windows in a mosaic."""
BLOCKS = (1, 2, 2, 4)
"""Windows along each side of a patch's block in the mosaics of a group.

A block of one window is a patch with an edge all around it, which no scene has. A network that is trained on such
blocks only does not know land that continues. A larger block is a cutout of the patch repeated in all directions, each
time mirrored: its windows have no edges.
"""
GROUP = TILES * len(BLOCKS)
"""Windows in a group of mosaics; a batch has whole groups."""
PATCHES = sum((SIDE // block) ** 2 for block in BLOCKS)
"""Patches in a group of mosaics."""


def assemble(blocks: Tensor, side: int = SIDE) -> Tensor:
    """(M, B, side * H, side * W) mosaics of (M * side * side, B, H, W) blocks, row by row."""
    n, b, h, w = blocks.shape
    grid = blocks.view(n // side**2, side, side, b, h, w).permute(0, 3, 1, 4, 2, 5)
    return grid.reshape(-1, b, side * h, side * w)


def arrange(
    labels: NDArray[np.int64], indices: NDArray[np.int64], rng: torch.Generator
) -> Iterator[list[NDArray[np.int64]]]:
    """The patches of an epoch's mosaics, group by group.

    Args:
        labels: (N,) classes of all patches.
        indices: (n,) which of them to use; some are used twice to fill the last group.
        rng: Source of all random numbers.

    Yields:
        For each mosaic of `BLOCKS`, the indices of its patches, row by row. Every other mosaic of small blocks is
        sorted by class, so that neighbors are often alike, as on real land.
    """
    order = torch.randperm(len(indices), generator=rng).numpy()
    order = np.resize(order, groups(len(indices)) * PATCHES)
    sizes = [(SIDE // block) ** 2 for block in BLOCKS]
    for number, group in enumerate(indices[order].reshape(-1, PATCHES)):
        mosaics = np.split(group, np.cumsum(sizes)[:-1])
        if number % 2:
            mosaics[0] = mosaics[0][labels[mosaics[0]].argsort(kind="stable")]
        yield mosaics


def groups(count: int) -> int:
    """Groups of mosaics in an epoch of `count` patches."""
    return -(-count // PATCHES)


def mosaic_batches(
    patches: PlacedPatches,
    indices: NDArray[np.int64],
    augmentation: Augmentation,
    batch_size: int,
    rng: torch.Generator,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Augmented mosaics of one epoch.

    Every patch has its own geometry and contrast; sharpness and atmosphere are those of a mosaic, since a scene has one
    of each.

    Args:
        patches: The data set.
        indices: (n,) which of its patches to use.
        augmentation: Random changes.
        batch_size: Windows per batch, a multiple of `GROUP`.
        rng: Source of all random numbers.

    Yields:
        (M, B, SIDE * H, SIDE * W) float32 reflectance of the mosaics, and (M * TILES,) int64 labels of their windows,
        row by row; both on the device of `patches`.
    """
    drawn = arrange(patches.patches.labels, indices, rng)
    while batch := list(islice(drawn, batch_size // GROUP)):
        yield patches.prepared(partial(_batch, patches, batch, augmentation, rng), rng)


def _batch(
    patches: PlacedPatches, drawn: list[list[NDArray[np.int64]]], augmentation: Augmentation, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A batch of `mosaic_batches` from the patches of its groups."""
    parts = [
        _mosaic(patches, chosen, block, augmentation, rng)
        for mosaics in drawn
        for block, chosen in zip(BLOCKS, mosaics, strict=True)
    ]
    x, y = (torch.cat(part) for part in zip(*parts, strict=True))
    if augmentation.blur:
        x = augmentation.blurred(x, rng)
    return augmentation.radiometry(x, patches.bands, rng), y


def _mosaic(
    patches: PlacedPatches, chosen: NDArray[np.int64], block: int, augmentation: Augmentation, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """(1, B, SIDE * H, SIDE * W) mosaic of blocks, and the (TILES,) labels of its windows."""
    side = SIDE // block
    x = patches.reflectance(chosen)
    if augmentation.flatten:
        x = augmentation.flattened(x, rng)
    x = augmentation.geometry(x, block * x.shape[-1], rng, mode="bicubic", extent=block)
    labels = patches.labels(chosen).view(-1, 1, 1, 1).expand(-1, 1, block, block)
    return assemble(x, side), assemble(labels, side).flatten()
