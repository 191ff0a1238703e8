"""Splits by place: whole blocks of land for training, validation and test."""

from __future__ import annotations

import logging
import math

import numpy as np
from numpy.typing import NDArray
from shapely import STRtree

from geocfl.analysis.reproject import Polygons
from geocfl.data.manifest import SUBSETS
from geocfl.errors import DataError, UsageError

log = logging.getLogger("geocfl")

SHARES = np.array([0.6, 0.2, 0.2])
"""Of each class in training, validation and test, as in torchgeo's spatial split of EuroSAT."""
DEGREE = 111.195
"""Kilometers along a degree of a meridian, on a sphere of the earth's mean radius."""
TRIES = 200
"""Orders in which blocks are tried for the best split."""
WORK = 20_000
"""Blocks over all tries; of many blocks, fewer orders suffice."""


def parse_blocks(split: str) -> float:
    """Kilometers of ``blocks:KM``.

    Raises:
        UsageError: It is something else.
    """
    name, _, text = split.partition(":")
    try:
        side = float(text)
    except ValueError:
        side = math.nan
    if name != "blocks" or not 0.1 <= side <= 1000:
        raise UsageError(f"`split` is {split!r} but must be blocks:KM with 0.1 to 1000 km, such as blocks:5")
    return side


def name_blocks(longitudes: NDArray[np.float64], latitudes: NDArray[np.float64], side: float) -> NDArray[np.object_]:
    """Names of the blocks in which places lie.

    Blocks are rows along parallels, divided along meridians so that each is about as wide as it is high. They depend
    on nothing but `side`, so that labels that are added later fall into the same blocks.

    Args:
        longitudes: (n,) degrees.
        latitudes: (n,) degrees.
        side: Side of a block, kilometers.

    Returns:
        (n,) row and column such as ``"3021-1187"``.
    """
    height = side / DEGREE
    rows = np.floor((latitudes + 90) / height).astype(np.int64)
    middles = np.radians(np.clip((rows + 0.5) * height - 90, -90, 90))
    around = np.maximum(1, np.floor(360 * DEGREE * np.cos(middles) / side))
    columns = np.floor((longitudes + 180) % 360 * around / 360).astype(np.int64)
    return np.array([f"{row}-{column}" for row, column in zip(rows, columns, strict=True)], object)


def split_blocks(
    blocks: NDArray[np.object_], classes: NDArray[np.int64], seed: int, side: float
) -> NDArray[np.object_]:
    """Gives every block to training, validation or test, so that each has its share of each class.

    The best of many tries is taken. In each, blocks in a random order go where they are missed most, in every second
    try with some chance. The only block of a class is for training.

    Args:
        blocks: (n,) names.
        classes: (n,) codes.
        seed: Random seed; the same seed gives the same split.
        side: Side of the blocks in kilometers, for messages.

    Returns:
        (n,) names of `SUBSETS`.

    Raises:
        UsageError: There are too few blocks.
    """
    names, numbers = np.unique(blocks.astype(str), return_inverse=True)
    _, codes = np.unique(classes, return_inverse=True)
    counts = np.zeros((len(names), codes.max(initial=0) + 1))
    np.add.at(counts, (numbers, codes), 1)
    sole = np.asarray(counts[:, (counts > 0).sum(0) == 1].any(axis=1))
    if len(names) - sole.sum() < 2 or len(names) < len(SUBSETS):
        lone = f", {sole.sum()} with the only patches of a class" if len(names) >= len(SUBSETS) else ""
        raise UsageError(
            f"`split`: the labels lie in only {len(names)} block{'s' if len(names) > 1 else ''} of {side:g} km{lone}, "
            f"too few for training, validation and test; use smaller blocks, such as blocks:{side / 2:g}, or label "
            "more places"
        )
    given = _best(counts / counts.sum(0), sole, np.random.default_rng(seed))
    return np.array(SUBSETS, object)[given[numbers]]


def _best(parts: NDArray[np.float64], sole: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int64]:
    """(B,) subset of each block, from (B, C) its part of each class, and whether it is the only one of a class."""
    best: NDArray[np.int64] = np.zeros(len(parts), np.int64)
    least: tuple[float, ...] = (math.inf,)
    sizes = parts.sum(1)
    for number in range(max(2, min(TRIES, WORK // len(parts)))):
        given, held = np.zeros(len(parts), np.int64), np.zeros((len(SUBSETS), parts.shape[1]))
        held[0] = parts[sole].sum(0)
        for block in np.argsort(-sizes * rng.uniform(0.5, 1, len(parts))):
            if not sole[block]:
                # What the squared distance from the shares grows by.
                growth = (parts[block] * (parts[block] + 2 * (held - SHARES[:, None]))).sum(1)
                if number % 2:  # of few blocks, the nearest choice may leave a subset empty
                    growth += np.ptp(growth) * rng.uniform(0, 2, len(SUBSETS))
                given[block] = growth.argmin()
                held[given[block]] += parts[block]
        absent = (held == 0).sum(1)
        empty = int((held.sum(1) == 0).sum())
        cost = (empty, int(absent[0]), int(absent[2]), int(absent[1]), float(((held - SHARES[:, None]) ** 2).sum()))
        if cost < least:
            best, least = given, cost
    return best


def overlapping(squares: Polygons, split: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Which windows to leave out so that none overlaps or touches one of another subset.

    Training gives way to validation, and both to test.

    Args:
        squares: (n,) the windows in one coordinate reference system.
        split: (n,) their subsets.
    """
    rank = np.array([SUBSETS.index(subset) for subset in split], np.int64)
    one, other = STRtree(squares).query(squares, predicate="intersects")
    gone = np.zeros(len(squares), bool)
    gone[one[rank[one] < rank[other]]] = True
    return gone


def check_subsets(split: NDArray[np.object_], labels: NDArray[np.object_], side: float) -> None:
    """Warns of classes without patches for validation or test.

    Raises:
        DataError: A subset has no patches, or a class has none to train on.
    """
    for subset in SUBSETS:
        there = set(labels[split == subset])
        absent = sorted(set(labels) - there)
        if not there or (subset == SUBSETS[0] and absent):
            what = f"patch of {absent[0]}" if there else "patch"
            raise DataError(
                f"no {what} is left for {subset} in blocks of {side:g} km; use a smaller `split`, such as "
                f"blocks:{side / 2:g}, or label more places"
            )
        if absent:
            log.warning("no patch of %s is for %s, as its places are too few", ", ".join(absent), subset)
