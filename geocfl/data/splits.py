"""Splits into training, validation and test patches."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from geocfl.data.manifest import MANIFEST, SUBSETS, read_subsets
from geocfl.data.patches import Patches
from geocfl.errors import DataError, UsageError, unknown_name

log = logging.getLogger("geocfl")

STATED = ("spatial", "manifest")
"""Splits that files beside the patches state, whatever the seed."""
VALIDATION_SHARE = 0.1
"""Fraction of the training patches used for validation, if a split has no validation list."""
EVERY = "all"
"""The split in which every patch is for training."""


@dataclass(frozen=True)
class Split:
    """Disjoint int64 indices into a `Patches`."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]

    def without_validation(self) -> Split:
        """The split with its validation patches among the training patches."""
        train = np.sort(np.concatenate([self.train, self.validation]))
        return Split(train, self.validation[:0], self.test)


def make_split(patches: Patches, how: str, seed: int, lists: Path) -> Split:
    """Splits patches.

    Args:
        patches: The data set.
        how: ``paper`` (half of each class trains, half tests), ``random:FRACTION`` (that fraction of each class
            trains), ``spatial`` (torchgeo's lists by longitude), ``manifest`` (that of `geocfl.patches`) or ``all``
            (every patch trains).
        seed: Of the random splits; the same seed gives the same split.
        lists: Folder of ``eurosat-spatial-{train,val,test}.txt``, used only by ``spatial``, or of ``manifest.gpkg``,
            used only by ``manifest``.

    Returns:
        Indices; the validation patches are a tenth of each class's training patches, or those that the files state.

    Raises:
        UsageError: `how` is none of these.
        DataError: A class has too few patches, or a file is missing, lacks a class or names unknown patches.
    """
    if how == EVERY:
        none = np.empty(0, np.int64)
        return Split(np.arange(len(patches)), none, none)
    if how == "manifest":
        return _of_manifest(patches, lists)
    return _spatial(patches, lists) if how == "spatial" else _stratified(patches, train_share(how), seed)


def listed(patches: Patches, path: Path) -> NDArray[np.int64]:
    """Sorted indices of the patches that a text file names.

    Args:
        patches: The data set. Its skipped patches may be listed; they are left out.
        path: Text file with one patch per line, as ``Class/name.ext`` or ``name.ext``. Extensions are ignored because
            EuroSAT's lists name .jpg files for every version of it; so are folders above the class and empty lines.

    Raises:
        DataError: The file cannot be read or is empty, a name is unknown, ambiguous or repeated, or all named patches
            were skipped.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise DataError(f"{path}: cannot be read ({reason}); pass a text file with one patch per line") from error
    if not lines:
        raise DataError(f"{path}: the list is empty; write one patch per line")
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
            f"{path}: {len(absent)} of its {len(lines)} patches are not in {patches.source}, for example "
            f"'{absent[0]}'; pass the whole data set, or another list or split"
        )
    found: dict[int, str] = {}
    for line, key in zip(lines, keys, strict=True):
        index, *others = known[key]
        if others:
            remedy = "rename one of them" if "/" in key else "write Class/name in the list"
            raise DataError(f"{path}: '{line}' matches both '{names[index]}' and '{names[others[0]]}'; {remedy}")
        if index in found:
            raise DataError(f"{path}: names '{names[index]}' twice, as '{found[index]}' and '{line}'; remove one")
        found[index] = line
    indices = np.array(sorted(index for index in found if index < len(patches)), dtype=np.int64)
    if not len(indices):
        raise DataError(
            f"{path}: all of its {len(lines)} patches are bad and were skipped; replace them or list others"
        )
    return indices


def train_share(how: str) -> float:
    """Training fraction of ``paper`` and ``random:FRACTION``.

    Raises:
        UsageError: `how` is neither, or the fraction is not between 0 and 1.
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
            f"{unknown_name('`split`', how, ('paper', *STATED, 'random:FRACTION'))}, such as random:0.8",
            page="how-to/training/",
        )
    return share


def _stratified(patches: Patches, share: float, seed: int) -> Split:
    rng = np.random.default_rng(seed)
    parts: tuple[list[NDArray[np.int64]], ...] = ([], [], [])
    # By name, so that the split does not depend on the order and format of the files.
    order = np.argsort([_without_extension(name) for name in patches.names], kind="stable")
    for lulc in patches.legend:
        members = rng.permutation(order[patches.labels[order] == lulc.code - 1])
        training = round(share * len(members))
        validation = max(1, round(VALIDATION_SHARE * training))
        if training - validation < 1 or len(members) - training < 1:
            patch = "patch" if len(members) == 1 else "patches"
            raise DataError(
                f"{patches.source}: class '{lulc.folder}' has {len(members)} {patch}, "
                "too few for training, validation and test; add patches or remove the class"
            )
        cut = np.split(members, [training - validation, training])
        for part, indices in zip(parts, cut, strict=True):
            part.append(indices)
    return Split(*(np.sort(np.concatenate(part)) for part in parts))


def spatial_lists(folder: Path) -> list[Path]:
    """The lists of the spatial split: training, validation, test.

    Raises:
        DataError: One is missing.
    """
    paths = [folder / f"eurosat-spatial-{part}.txt" for part in ("train", "val", "test")]
    for path in paths:
        if not path.is_file():
            raise DataError(
                f"{path}: the list of the spatial split is missing; put torchgeo's three "
                "eurosat-spatial-*.txt beside the data, or use `split='paper'`"
            )
    return paths


def _spatial(patches: Patches, lists: Path) -> Split:
    paths = spatial_lists(lists)
    split = Split(*(listed(patches, path) for path in paths))
    if np.bincount(np.concatenate([split.train, split.validation, split.test])).max(initial=0) > 1:
        raise DataError(f"{lists}: the lists of the spatial split have a patch in common; download them again")
    for lulc, count in zip(patches.legend, patches.counts(split.train), strict=True):
        if not count:
            raise DataError(
                f"{paths[0]}: names no patch of class '{lulc.folder}' of {patches.source}; "
                "remove the class, or use `split='paper'`"
            )
    return split


def _of_manifest(patches: Patches, folder: Path) -> Split:
    """The split of a manifest. Patches that it does not name are left out, and so are names without a patch.

    Users delete bad patches, or the rows of patches that they do not want.
    """
    path, subsets = folder / MANIFEST, read_subsets(folder)
    given = np.array([subsets.get(name, "") for name in patches.names])
    split = Split(*(np.flatnonzero(given == subset) for subset in SUBSETS))
    if left := int((given == "").sum()):
        log.warning("%s: gives %d of %d patches no subset; they are left out", path, left, len(patches))
    if absent := len(subsets) - len(patches) + left:
        log.warning("%s: names %d patch%s that the folder lacks", path, absent, "es" if absent > 1 else "")
    for subset, members in zip(SUBSETS, (split.train, split.validation, split.test), strict=True):
        if not len(members):
            raise DataError(f"{path}: has no {subset} patches in {patches.source}; write its patches again")
    for lulc, count in zip(patches.legend, patches.counts(split.train), strict=True):
        if not count:
            raise DataError(
                f"{path}: has no train patch of class '{lulc.folder}'; change the split of some, or remove the class"
            )
    return split


def _without_extension(name: str) -> str:
    """``Class/name`` of ``.../Class/name.ext``, ``name`` of ``name.ext``."""
    path = PurePosixPath(name)
    return "/".join((*path.parts[-2:-1], path.stem))
