"""Blocks and folds of labeled patches: land that is tested together, so that no patch is tested by its neighbors."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile
from rasterio.warp import transform

from geocfl.data.manifest import read_blocks
from geocfl.data.patches import UNREADABLE, Patches, patch_files

MOST_FOLDS = 10
"""Folds of a cross-validation at most."""
RANDOM_FOLDS = 5
"""Folds of patches whose place is not known."""
SMALLEST = 1.0
"""Smallest side of a block in kilometers; it is doubled until there are no more blocks than folds."""
DEGREE = 111.2
"""Kilometers of a degree along a meridian."""


@dataclass(frozen=True)
class Folds:
    """A division of patches for cross-validation: each fold is tested by a model trained on the others.

    Attributes:
        of: (N,) int64 fold of each patch.
        words: What the folds are, such as "leave-one-block-out over 7 blocks".
        confined: Codes of the classes whose patches all lie in one block; their patches are divided at random.
    """

    of: NDArray[np.int64]
    words: str
    confined: tuple[int, ...] = ()


def make_folds(patches: Patches, indices: NDArray[np.int64], blocks: NDArray[np.int64] | None, seed: int) -> Folds:
    """Divides patches by block, or at random within each class if their blocks are not known.

    Args:
        patches: The data set.
        indices: (n,) which of its patches.
        blocks: (N,) block of each patch of the data set; None if they are not known, or all the same.
        seed: Random seed.

    Returns:
        The folds of the n patches.
    """
    labels = patches.labels[indices]
    rng = np.random.default_rng(seed)
    known = None if blocks is None else np.unique(blocks[indices], return_inverse=True)[1]
    if known is None or known.max(initial=0) == 0:
        folds = _spread(labels, np.unique(labels), RANDOM_FOLDS, rng, np.zeros(len(labels), np.int64))
        reason = "the place of the patches is not known" if known is None else "all patches lie in one block"
        return Folds(folds, f"{len(np.unique(folds))} random folds, since {reason}")
    count = int(known.max()) + 1
    folds = _merged(known, MOST_FOLDS)
    confined = [c for c in np.unique(labels) if len(np.unique(folds[labels == c])) == 1]
    folds = _spread(labels, np.array(confined, np.int64), int(folds.max()) + 1, rng, folds)
    words = (
        f"leave-one-block-out over {count} blocks" if count <= MOST_FOLDS else f"{MOST_FOLDS} folds of {count} blocks"
    )
    return Folds(folds, words, tuple(int(c) + 1 for c in confined))


def _spread(
    labels: NDArray[np.int64],
    classes: NDArray[np.int64],
    count: int,
    rng: np.random.Generator,
    folds: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Folds in which the patches of some classes are dealt out at random."""
    folds = folds.copy()
    for c in classes:
        members = rng.permutation(np.flatnonzero(labels == c))
        folds[members] = (np.arange(len(members)) + rng.integers(count)) % count
    return folds


def _merged(blocks: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Blocks 0..B-1 merged into at most `most` folds of similar size: the largest first, each to the smallest fold."""
    counts = np.bincount(blocks)
    if len(counts) <= most:
        return blocks
    fold_of, sizes = np.zeros(len(counts), np.int64), np.zeros(most, np.int64)
    for block in np.argsort(-counts, kind="stable"):
        fold_of[block] = sizes.argmin()
        sizes[fold_of[block]] += counts[block]
    return fold_of[blocks]


def patch_blocks(path: Path, patches: Patches) -> NDArray[np.int64] | None:
    """The blocks of patches: those of their manifest, else squares of land.

    Args:
        path: The folder or zip archive that the patches were read from.
        patches: The data set.

    Returns:
        (N,) number of each patch's block; None if the place of a patch is not known.

    Raises:
        DataError: The manifest cannot be used.
    """
    stated = read_blocks(path)
    if all(name in stated for name in patches.names):
        numbers: NDArray[np.int64] = np.unique([stated[name] for name in patches.names], return_inverse=True)[1]
        return numbers.astype(np.int64)
    return georeferenced_blocks(path, patches)


def georeferenced_blocks(path: Path, patches: Patches) -> NDArray[np.int64] | None:
    """Squares of land in which the patches lie, at most `MOST_FOLDS` of them.

    Args:
        path: The folder or zip archive that the patches were read from.
        patches: The data set.

    Returns:
        (N,) number of each patch's square; None if the place of a patch is not known.
    """
    places = _places(path, patches)
    if places is None:
        return None
    longitude, latitude = places.T
    x, y = longitude * DEGREE * math.cos(math.radians(float(latitude.mean()))), latitude * DEGREE
    side = SMALLEST
    while True:
        squares = np.stack([np.floor((x - x.min()) / side), np.floor((y - y.min()) / side)], axis=1)
        numbers: NDArray[np.int64] = np.unique(squares, axis=0, return_inverse=True)[1].astype(np.int64)
        if numbers.max() < MOST_FOLDS:
            return numbers
        side *= 2


def _places(path: Path, patches: Patches) -> NDArray[np.float64] | None:
    """(N, 2) longitude and latitude of the patches' centers in degrees; None if one is not georeferenced."""
    wanted = {name: index for index, name in enumerate(patches.names)}
    places = np.full((len(patches), 2), np.nan)
    try:
        for folder, file, read in patch_files(path):
            index = wanted.get(f"{folder}/{file}")
            if index is None:
                continue
            if not file.lower().endswith((".tif", ".tiff")) or (place := _center(read())) is None:
                return None
            places[index] = place
    except UNREADABLE:
        return None
    return places if np.isfinite(places).all() else None


def _center(content: bytes) -> tuple[float, float] | None:
    try:
        with warnings.catch_warnings(), MemoryFile(content) as memory:
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with memory.open() as dataset:
                if dataset.crs is None:
                    return None
                x, y = dataset.transform @ (dataset.width / 2, dataset.height / 2)
                (longitude,), (latitude,) = transform(dataset.crs, "EPSG:4326", [x], [y])[:2]
                return longitude, latitude
    except RasterioError:
        return None
