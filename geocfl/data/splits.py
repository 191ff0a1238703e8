"""Which patches train, which validate, which test."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from geocfl.data.patches import Patches
from geocfl.errors import DataError, UsageError, unknown_name

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
        how: ``paper`` (half of each class trains, half tests), ``random:FRACTION`` (that fraction of each class trains)
            or ``spatial`` (torchgeo's lists by longitude).
        seed: Of the random splits; the same seed gives the same split.
        lists: Folder of ``eurosat-spatial-{train,val,test}.txt``, used by ``spatial`` alone.

    Returns:
        Indices; validation is a tenth of each class's training part, or the spatial split's own list.

    Raises:
        UsageError: `how` is none of these.
        DataError: A class has too few patches, or a list is missing, lacks a class or names patches that are not there.
    """
    return _spatial(patches, lists) if how == "spatial" else _stratified(patches, train_share(how), seed)


def listed(patches: Patches, path: Path) -> NDArray[np.int64]:
    """Sorted indices of the patches that a text file names.

    Args:
        patches: Where to look. Its skipped patches may be listed, and are left out.
        path: One patch a line, as ``Class/name.ext`` or ``name.ext``. Extensions do not count, as EuroSAT's lists name
            .jpg files whichever version of it they split; nor do folders above the class, nor empty lines.

    Raises:
        DataError: The file cannot be read or is empty, a name is unknown, ambiguous or there twice, or all
            that it names were skipped.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = "no UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise DataError(f"{path}: cannot be read ({reason}); pass a text file that names one patch a line") from error
    if not lines:
        raise DataError(f"{path}: the list is empty; name one patch a line")
    names = (*patches.names, *patches.skipped)
    known: dict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(names):
        key = _without_extension(name)
        for spelling in {key, key.rpartition("/")[2]}:
            known[spelling].append(index)
    keys = [_without_extension(line) for line in lines]
    absent = [line for line, key in zip(lines, keys, strict=True) if key not in known]
    if absent:
        raise DataError(
            f"{path}: {len(absent)} of its {len(lines)} patches are not in {patches.source}, '{absent[0]}' for one; "
            "pass the whole data set, or a list or split that fits it"
        )
    found: dict[int, str] = {}
    for line, key in zip(lines, keys, strict=True):
        index, *others = known[key]
        if others:
            remedy = "rename one of them" if "/" in key else "write Class/name in the list"
            raise DataError(f"{path}: '{line}' may be '{names[index]}' or '{names[others[0]]}'; {remedy}")
        if index in found:
            raise DataError(f"{path}: names '{names[index]}' twice, as '{found[index]}' and '{line}'; remove one")
        found[index] = line
    indices = np.array(sorted(index for index in found if index < len(patches)), dtype=np.int64)
    if not len(indices):
        raise DataError(f"{path}: all of its {len(lines)} patches were skipped as bad; replace them or list others")
    return indices


def train_share(how: str) -> float:
    """Training share of ``paper`` and ``random:FRACTION``.

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
        raise UsageError(
            f"{unknown_name('split', how, ('paper', 'spatial', 'random:FRACTION'))}, such as random:0.8",
            page="how-to/training/",
        )
    return share


def _stratified(patches: Patches, share: float, seed: int) -> Split:
    rng = np.random.default_rng(seed)
    parts: tuple[list[NDArray[np.int64]], ...] = ([], [], [])
    # By name, so that a split is the same in whatever order and format a layout holds the patches.
    order = np.argsort([_without_extension(name) for name in patches.names], kind="stable")
    for lulc in patches.legend:
        members = rng.permutation(order[patches.labels[order] == lulc.code - 1])
        training = round(share * len(members))
        validation = max(1, round(VALIDATION_SHARE * training))
        if training - validation < 1 or len(members) - training < 1:
            patch = "patch" if len(members) == 1 else "patches"
            raise DataError(
                f"{patches.source}: class '{lulc.folder}' has {len(members)} {patch}, "
                "too few to train, validate and test; add patches or remove the class"
            )
        cut = np.split(members, [training - validation, training])
        for part, indices in zip(parts, cut, strict=True):
            part.append(indices)
    return Split(*(np.sort(np.concatenate(part)) for part in parts))


def spatial_lists(folder: Path) -> list[Path]:
    """The files of the spatial split: training, validation, test.

    Raises:
        DataError: One is missing.
    """
    paths = [folder / f"eurosat-spatial-{part}.txt" for part in ("train", "val", "test")]
    for path in paths:
        if not path.is_file():
            raise DataError(
                f"{path}: the spatial split's list is missing; put torchgeo's three "
                "eurosat-spatial-*.txt beside the data or choose --split paper"
            )
    return paths


def _spatial(patches: Patches, lists: Path) -> Split:
    paths = spatial_lists(lists)
    split = Split(*(listed(patches, path) for path in paths))
    if np.bincount(np.concatenate([split.train, split.validation, split.test])).max(initial=0) > 1:
        raise DataError(f"{lists}: the spatial split's lists share a patch; download them again")
    for lulc, count in zip(patches.legend, patches.counts(split.train), strict=True):
        if not count:
            raise DataError(
                f"{paths[0]}: names no patch of class '{lulc.folder}' of {patches.source}; "
                "remove the class or choose --split paper"
            )
    return split


def _without_extension(name: str) -> str:
    """``Class/name`` of ``.../Class/name.ext``, ``name`` of ``name.ext``."""
    path = PurePosixPath(name)
    return "/".join((*path.parts[-2:-1], path.stem))
