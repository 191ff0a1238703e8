"""Class imbalance on demand: training patches thinned to a given ratio, so that losses can be compared."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geocfl.data.patches import Patches
from geocfl.data.splits import Split
from geocfl.errors import DataError, UsageError, unknown_name

ORDERS = ("legend", "reversed", "random")
"""Named orders of the classes, from largest to smallest."""


def thin(patches: Patches, split: Split, imbalance: str, seed: int, order: str | Sequence[int] = "legend") -> Split:
    """Thins the training patches until their classes have a given imbalance.

    Class i = 0..C-1 of the order keeps ``n_i = n_max * R^(-i / (C - 1))`` patches with ``long-tail:R`` (Cui et al.
    2019); with ``step:R`` (Buda et al. 2018) the first ceil(C / 2) classes keep ``n_max`` and the others
    ``n_max / R``. ``n_max`` is the largest number for which no class needs more patches than it has, so the ratio is
    exact for any class sizes; the n_i are rounded to whole patches last. A ratio of 1 makes all classes as small as the
    smallest.

    Each class keeps the head of one permutation of its patches, which depends only on `seed`. Of any two imbalances or
    orders, one therefore keeps a subset of the patches of a class that the other keeps.

    Args:
        patches: The data set of `split`.
        split: Its validation and test patches do not change.
        imbalance: ``none``, ``long-tail:R`` or ``step:R``, where R >= 1 is the ratio of the largest class to the
            smallest.
        seed: Random seed of the patches that are kept and of the ``random`` order.
        order: The classes from largest to smallest: one of `ORDERS`, or every class code once, such as ``(3, 1, 2)``.

    Returns:
        The split with a sorted subset of its training indices.

    Raises:
        UsageError: `imbalance` or `order` is not valid.
        DataError: A class has no training patches or would keep less than one.
    """
    kind, ratio = parse_imbalance(imbalance)
    codes = _class_codes(order, len(patches.legend), seed)
    if kind == "none":
        return split
    labels = patches.labels[split.train]
    members = [split.train[labels == code - 1] for code in codes]
    sizes = np.array([len(indices) for indices in members])
    if not sizes.all():
        folder = patches.legend[codes[int(sizes.argmin())]].folder
        raise DataError(f"{patches.source}: class '{folder}' has no training patches; choose another split")
    rank = np.arange(len(codes))
    exponents = rank / max(1, rank[-1]) if kind == "long-tail" else (rank >= math.ceil(len(rank) / 2)).astype(float)
    if ratio > (limit := _largest_ratio(sizes, exponents)):
        folder = patches.legend[codes[-1]].folder
        raise DataError(
            f"{patches.source}: {imbalance} leaves no patch of class '{folder}' for training; "
            f"the largest possible ratio is {math.floor(limit)}"
        )
    largest = (sizes * ratio**exponents).min()
    kept = np.rint(largest * ratio**-exponents).astype(int)
    parts = [
        np.random.default_rng([seed, code]).permutation(indices)[:count]
        for code, indices, count in zip(codes, members, kept, strict=True)
    ]
    return Split(np.sort(np.concatenate(parts)), split.validation, split.test)


def parse_imbalance(imbalance: str) -> tuple[str, float]:
    """Kind and ratio of ``none`` (ratio 1), ``long-tail:R`` and ``step:R``.

    Raises:
        UsageError: `imbalance` is none of these, or R is below 1.
    """
    if imbalance == "none":
        return "none", 1.0
    kind, _, value = imbalance.partition(":")
    try:
        ratio = float(value)
    except ValueError:
        ratio = math.nan
    if kind not in {"long-tail", "step"} or not math.isfinite(ratio):
        raise UsageError(
            f"{unknown_name('`imbalance`', imbalance, ('none', 'long-tail:R', 'step:R'))}, such as step:50",
            page="how-to/imbalance/",
        )
    if ratio < 1:
        raise UsageError(
            f"`imbalance` is {imbalance!r} but its ratio, of the largest to the smallest class, must be at least 1"
        )
    return kind, ratio


def check_order(order: str | Sequence[int]) -> str | tuple[int, ...]:
    """An order of classes, codes as a tuple. Whether there are as many codes as classes is checked by `thin`.

    Raises:
        UsageError: `order` is neither one of `ORDERS` nor the codes 1..N, each once.
    """
    if isinstance(order, str):
        if order not in ORDERS:
            known = (*ORDERS, "every class code once")
            raise UsageError(f"{unknown_name('`class_order`', order, known)}, such as 3,1,2")
        return order
    codes = tuple(order) if np.iterable(order) else ()
    if not codes or set(codes) != set(range(1, len(codes) + 1)):
        raise UsageError(f"`class_order` is {order!r} but must name every class code once, such as 3,1,2")
    return codes


def _class_codes(order: str | Sequence[int], classes: int, seed: int) -> tuple[int, ...]:
    """The codes 1..`classes` in the given order."""
    order = check_order(order)
    if isinstance(order, str):
        legend = range(1, classes + 1)
        # No class has code 0, so this draw is independent of those of the patches.
        shuffled = (np.random.default_rng([seed, 0]).permutation(classes) + 1).tolist()
        return tuple({"legend": legend, "reversed": reversed(legend), "random": shuffled}[order])
    if len(order) != classes:
        raise UsageError(f"`class_order` names {len(order)} of {classes} classes; name every class code once")
    return order


def _largest_ratio(sizes: NDArray[np.int64], exponents: NDArray[np.float64]) -> float:
    """The R at which the last class keeps one patch: min_j(sizes_j * R^(exponents_j - 1)) = 1."""
    above = exponents < 1
    # In logarithms because sizes_j^(C - 1) overflows; the last factor accepts a ratio of 27 if the result is 26.999...
    return math.exp((np.log(sizes[above]) / (1 - exponents[above])).min()) * (1 + 1e-9)
