"""Which patches train, which validate, which test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from geocfl.data.patches import Patches
from geocfl.errors import DataError, UsageError

VALIDATION_SHARE = 0.1
"""Part of the training half that validates where a split has no validation list of its own."""


@dataclass(frozen=True)
class Split:
    """Disjoint int64 indices into a `Patches`."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]

    def without_validation(self) -> Split:
        """The split whose validation patches train as well."""
        train = np.sort(np.concatenate([self.train, self.validation]))
        return Split(train, self.validation[:0], self.test)


def make_split(patches: Patches, how: str, seed: int, lists: Path) -> Split:
    """Splits patches.

    Args:
        patches: What to split.
        how: ``paper`` (half of each class trains, half tests), ``random:SHARE`` (that share of each class trains)
            or ``spatial`` (torchgeo's lists by longitude).
        seed: Of the random splits; the same seed gives the same split.
        lists: Folder of ``eurosat-spatial-{train,val,test}.txt``, used by ``spatial`` alone.

    Returns:
        Indices; validation is a tenth of each class's training part, or the spatial split's own list.

    Raises:
        UsageError: `how` is none of these.
        DataError: A class has too few patches, or a list is missing or names patches that are not there.
    """
    if how == "spatial":
        parts = [_listed(patches, lists / f"eurosat-spatial-{part}.txt") for part in ("train", "val", "test")]
        if len(np.unique(np.concatenate(parts))) < sum(map(len, parts)):
            raise DataError(f"{lists}: the spatial split's lists name a patch twice; download them again")
        return Split(*parts)
    return _stratified(patches, train_share(how), seed)


def train_share(how: str) -> float:
    """Training share of ``paper`` and ``random:SHARE``.

    Raises:
        UsageError: `how` is neither, or the share is not between 0 and 1.
    """
    if how == "paper":
        return 0.5
    name, _, value = how.partition(":")
    try:
        share = float(value)
    except ValueError:
        share = -1.0
    if name != "random" or not 0 < share < 1:
        raise UsageError(f"unknown split {how!r}; choose paper, spatial or random:SHARE such as random:0.8")
    return share


def _stratified(patches: Patches, share: float, seed: int) -> Split:
    rng = np.random.default_rng(seed)
    parts: tuple[list[NDArray[np.int64]], ...] = ([], [], [])
    for lulc in patches.legend:
        members = rng.permutation(np.flatnonzero(patches.labels == lulc.code - 1))
        training = round(share * len(members))
        validation = max(1, round(VALIDATION_SHARE * training))
        if training - validation < 1 or len(members) - training < 1:
            raise DataError(
                f"{patches.source}: class '{lulc.folder}' has {len(members)} patches, "
                "too few to train, validate and test; add patches or remove the class"
            )
        cut = np.split(members, [training - validation, training])
        for part, indices in zip(parts, cut, strict=True):
            part.append(indices)
    return Split(*(np.sort(np.concatenate(part)) for part in parts))


def _listed(patches: Patches, path: Path) -> NDArray[np.int64]:
    # The lists name .jpg files whichever version of EuroSAT they split.
    known = {PurePath(name).stem: index for index, name in enumerate(patches.names)}
    if len(known) < len(patches):
        raise DataError(
            f"{patches.source}: the spatial split knows patches by file name, but some have the same name; "
            "rename them or choose --split paper"
        )
    try:
        stems = [PurePath(line.strip()).stem for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: the spatial split's list is missing or unreadable; put torchgeo's three "
            "eurosat-spatial-*.txt beside the data or choose --split paper"
        ) from error
    absent = [stem for stem in stems if stem not in known]
    if absent or not stems:
        raise DataError(
            f"{path}: {len(absent)} of its {len(stems)} patches are not in {patches.source}, '{absent[0]}' for one; "
            "pass the whole data set or choose --split paper"
            if absent
            else f"{path}: the list is empty; download it again"
        )
    return np.array(sorted(known[stem] for stem in stems), dtype=np.int64)
