"""Training parts thinned to a stated class imbalance, so that losses can be compared under one."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from geocfl.data.patches import Patches
from geocfl.data.splits import Split
from geocfl.errors import DataError, UsageError, unknown_name


def thin(patches: Patches, split: Split, imbalance: str, seed: int, order: str = "legend") -> Split:
    """Thins the training part until its classes stand in a stated imbalance.

    Class i = 0..C-1 of the order keeps ``n_i = n_max * R^(-i / (C - 1))`` patches with ``long-tail:R`` (Cui et al.
    2019); with ``step:R`` (Buda et al. 2018) the first ceil(C / 2) classes keep ``n_max`` and the others
    ``n_max / R``. ``n_max`` is the largest number for which no class has to keep more patches than it has, so that the
    ratio holds however unequal the classes are; the n_i are rounded to whole patches last. A ratio of 1 makes all
    classes as small as the smallest.

    What a class keeps is the head of a permutation of its own, which depends on `seed` alone: of any two imbalances or
    orders, one keeps a subset of the patches that the other keeps of a class.

    Args:
        patches: What `split` divides.
        split: Validation and test stay as they are.
        imbalance: ``none``, ``long-tail:R`` or ``step:R``; R >= 1 is the largest class to the smallest.
        seed: Of the patches that stay and of the ``random`` order.
        order: The classes from the largest to the smallest: ``legend``, ``reversed``, ``random``, or every class code
            once such as ``3,1,2``.

    Returns:
        The split with a sorted subset of its training indices.

    Raises:
        UsageError: `imbalance` or `order` cannot be meant.
        DataError: A class would keep less than one patch, or has none to start with.
    """
    form, ratio = parse_imbalance(imbalance)
    codes = _class_codes(order, len(patches.legend), seed)
    if form == "none":
        return split
    labels = patches.labels[split.train]
    members = [split.train[labels == code - 1] for code in codes]
    sizes = np.array([len(indices) for indices in members])
    if not sizes.all():
        folder = patches.legend[codes[int(sizes.argmin())]].folder
        raise DataError(f"{patches.source}: class '{folder}' has no training patch to thin; choose another split")
    rank = np.arange(len(codes))
    exponents = rank / max(1, rank[-1]) if form == "long-tail" else (rank >= math.ceil(len(rank) / 2)).astype(float)
    if ratio > (limit := _largest_ratio(sizes, exponents)):
        folder = patches.legend[codes[-1]].folder
        raise DataError(
            f"{patches.source}: {imbalance} leaves class '{folder}' no patch to train on; "
            f"the largest ratio that works is {math.floor(limit)}"
        )
    largest = (sizes * ratio**exponents).min()
    kept = np.rint(largest * ratio**-exponents).astype(int)
    parts = [
        np.random.default_rng([seed, code]).permutation(indices)[:count]
        for code, indices, count in zip(codes, members, kept, strict=True)
    ]
    return Split(np.sort(np.concatenate(parts)), split.validation, split.test)


def parse_imbalance(imbalance: str) -> tuple[str, float]:
    """Form and ratio of ``none`` (ratio 1), ``long-tail:R`` and ``step:R``.

    Raises:
        UsageError: `imbalance` is none of these, or R is below 1.
    """
    if imbalance == "none":
        return "none", 1.0
    form, _, value = imbalance.partition(":")
    try:
        ratio = float(value)
    except ValueError:
        ratio = math.nan
    if form not in {"long-tail", "step"} or not math.isfinite(ratio):
        raise UsageError(
            f"{unknown_name('imbalance', imbalance, ('none', 'long-tail:R', 'step:R'))}, such as step:50",
            page="how-to/imbalance/",
        )
    if ratio < 1:
        raise UsageError(f"imbalance {imbalance!r}: the largest class to the smallest is 1 or more; try {form}:50")
    return form, ratio


def parse_order(order: str) -> tuple[int, ...] | None:
    """Class codes that an order lists, the largest class first; None for ``legend``, ``reversed`` and ``random``.

    Whether the codes are as many as the legend's is for `thin` to say, which knows it.

    Raises:
        UsageError: `order` is none of these, or the codes are not 1..N, each once.
    """
    if order in {"legend", "reversed", "random"}:
        return None
    try:
        codes = tuple(int(code) for code in order.split(","))
    except ValueError:
        codes = ()
    if not codes or sorted(codes) != list(range(1, len(codes) + 1)):
        orders = ("legend", "reversed", "random", "every class code once")
        raise UsageError(f"{unknown_name('order of classes', order, orders)}, such as 3,1,2")
    return codes


def _class_codes(order: str, classes: int, seed: int) -> tuple[int, ...]:
    """The codes 1..`classes` in the order that `order` means."""
    codes = parse_order(order)
    if codes is None:
        legend = range(1, classes + 1)
        # No class has code 0, so that this draw and those of the patches are independent.
        shuffled = (np.random.default_rng([seed, 0]).permutation(classes) + 1).tolist()
        return tuple({"legend": legend, "reversed": reversed(legend), "random": shuffled}[order])
    if len(codes) != classes:
        raise UsageError(f"order of classes {order!r} names {len(codes)} of {classes} classes; name each code once")
    return codes


def _largest_ratio(sizes: NDArray[np.int64], exponents: NDArray[np.float64]) -> float:
    """The R at which the last class keeps one patch: min_j(sizes_j * R^(exponents_j - 1)) = 1."""
    above = exponents < 1
    # In logarithms, as sizes_j^(C - 1) overflows; the last factor lets a ratio of 27 pass where 26.999... comes out.
    return math.exp((np.log(sizes[above]) / (1 - exponents[above])).min()) * (1 + 1e-9)
