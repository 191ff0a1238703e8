"""Labeled patches and their split, from any of the layouts that geocfl reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from geocfl.core.progress import Progress, silent
from geocfl.core.radiometry import SENTINEL2, Scaling
from geocfl.data.eurosat import DEFAULT_ROOT, is_torchgeo_root, read_torchgeo
from geocfl.data.imbalance import thin
from geocfl.data.patches import RGB, Patches, read_patches
from geocfl.data.splits import Split, make_split, spatial_lists
from geocfl.errors import UsageError

DOWNLOAD = "eurosat"
"""In place of a path: download EuroSAT through torchgeo."""


def load_patches(
    data: str | Path,
    bands: tuple[str, ...] = RGB,
    *,
    split: str = "paper",
    scale: float | None = None,
    offset: float | None = None,
    skip_bad: bool = False,
    progress: Progress = silent,
    fewest_classes: int = 2,
) -> Patches:
    """Reads all patches of a data set.

    Args:
        data: ``EuroSAT.zip`` or its folder, torchgeo's EuroSAT root, ``eurosat`` (downloads it through torchgeo), or a
            folder (or zip) of class-named folders of patches.
        bands: Bands to read, in this order.
        split: The split that will be made; ``spatial`` needs its lists, which are looked for before the patches are
            read.
        scale: In reflectance = (DN + offset) / scale; None takes the layout's own.
        offset: In the same formula; None takes the layout's own.
        skip_bad: Leave out patches that cannot be read or differ from the others in size, type or bands.
        progress: Called with the number of patches read so far.
        fewest_classes: Number of classes that are enough.

    Raises:
        DataError: The patches or the lists of the spatial split are missing or broken.
        UsageError: `scale` or `offset` is not valid, or `skip_bad` is set for torchgeo's EuroSAT.
    """
    path, spatial = Path(data), split == "spatial"
    scaling = _chosen_scaling(scale, offset)
    if skip_bad and (str(data) == DOWNLOAD or is_torchgeo_root(path)):
        raise UsageError(
            f"{path}: `skip_bad=True` does not apply to torchgeo's EuroSAT; if a patch is broken, download it again"
        )
    if str(data) == DOWNLOAD:
        patches = read_torchgeo(DEFAULT_ROOT, bands, spatial, download=True, progress=progress)
    elif is_torchgeo_root(path):
        patches = read_torchgeo(path, bands, spatial, progress=progress)
    else:
        if spatial and path.exists():
            spatial_lists(_lists(data))
        patches = read_patches(path, bands, skip_bad=skip_bad, progress=progress, fewest_classes=fewest_classes)
    return patches if scaling is None else replace(patches, scaling=scaling)


def _chosen_scaling(scale: float | None, offset: float | None) -> Scaling | None:
    """The scaling that the caller chose; None takes the layout's own."""
    if scale is None and offset is None:
        return None
    try:
        return Scaling(SENTINEL2.scale if scale is None else scale, offset or 0.0)
    except ValueError as error:
        raise UsageError(
            f"`scale` must be a number above 0 and `offset` a number, but they are {scale!r} and {offset!r}"
        ) from error


def load_split(
    patches: Patches,
    data: str | Path,
    split: str,
    seed: int,
    *,
    validation: bool = True,
    imbalance: str = "none",
    class_order: str | Sequence[int] = "legend",
) -> Split:
    """Splits patches into training, validation and test.

    Args:
        patches: From `load_patches`.
        data: What they were loaded from; the lists of the spatial split and the manifest are in the same folder.
        split: ``paper``, ``spatial``, ``manifest`` or ``random:FRACTION``, see `geocfl.data.splits.make_split`.
        seed: Random seed of the split and of the thinning.
        validation: Keep validation patches apart; if False, they are training patches.
        imbalance: ``none``, ``long-tail:R`` or ``step:R``, see `geocfl.data.imbalance.thin`.
        class_order: Order of the classes from largest to smallest.

    Raises:
        UsageError: A value is not valid.
        DataError: A class has too few patches, or a list is missing or does not fit.
    """
    made = make_split(patches, split, seed, _lists(data))
    return thin(patches, made if validation else made.without_validation(), imbalance, seed, class_order)


def _lists(data: str | Path) -> Path:
    """The folder of the files that state a split."""
    path = Path(data)
    return DEFAULT_ROOT if str(data) == DOWNLOAD else path if path.is_dir() else path.parent
