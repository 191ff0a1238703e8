"""The probability that the class of a cell changed, from its class probabilities on two maps and a transition prior."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geocfl.core.legend import Legend
from geocfl.core.table import read_csv
from geocfl.errors import DataError, UsageError, unknown_name

PERSISTENCE = 0.9
"""Probability that a cell keeps its class, where users give no other."""
LEAST = 0.001
"""Least probability of a class: one that is stored as 0 percent is below half a percent, not impossible."""
COLUMNS = ("from_class", "to_class", "share_of_from")
"""Columns of a prior, which are among those of a change map's table."""


def persistent_prior(classes: int, persistence: float) -> NDArray[np.float64]:
    """(classes, classes) prior of transitions: a class stays with this probability, the others are equally likely."""
    if classes == 1:
        return np.ones((1, 1))
    prior = np.full((classes, classes), (1 - persistence) / (classes - 1))
    np.fill_diagonal(prior, persistence)
    return prior


def read_prior(path: Path, legend: Legend) -> NDArray[np.float64]:
    """Reads a prior of transitions: a CSV file with the columns `COLUMNS`, such as the table of a change map.

    Pairs that it lacks are impossible. Rows of unclassified cells and of cells without data are left out, and each
    class's shares are scaled to a sum of 1.

    Raises:
        DataError: It cannot be read, or lacks a column or a class.
    """
    codes = {c.name: c.code - 1 for c in legend}
    prior = np.zeros((len(legend), len(legend)))
    for row in read_csv(path, COLUMNS, "pass the table of a change map, NAME_change.csv"):
        before, after, share = row.values()
        if share and before in codes and after in codes:
            prior[codes[before], codes[after]] = _share(path, share)
    for c, total in zip(legend, prior.sum(axis=1), strict=True):
        if not total:
            raise DataError(f"{path}: has no shares from {c.name}; add a row for each class that it may become")
    return np.asarray(prior / prior.sum(axis=1, keepdims=True))


def _share(path: Path, text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise DataError(f"{path}: share_of_from is {text} but must be a number from 0 to 1; correct it")
    return share


def forbidden_pairs(forbid: Iterable[tuple[str, str]], legend: Legend) -> list[tuple[int, int]]:
    """Class codes of transitions that users name.

    Raises:
        UsageError: A class is unknown, or a transition has the same class twice.
    """
    codes = {c.name.casefold(): c.code for c in legend}
    pairs = []
    for names in forbid:
        for name in names:
            if name.casefold() not in codes:
                raise UsageError(f"`forbid`: {unknown_name('class', name, legend.names)}")
        before, after = (codes[name.casefold()] for name in names)
        if before == after:
            raise UsageError(f"`forbid` has {names[0]} twice, but a class can always stay; name two classes")
        pairs.append((before, after))
    return pairs


def without(prior: NDArray[np.float64], pairs: Iterable[tuple[int, int]], legend: Legend) -> NDArray[np.float64]:
    """A prior in which these pairs of codes are impossible; each row still has a sum of 1.

    Raises:
        UsageError: No class is left for a class to become.
    """
    prior = prior.copy()
    for before, after in pairs:
        prior[before - 1, after - 1] = 0
    for c, total in zip(legend, prior.sum(axis=1), strict=True):
        if not total:
            raise UsageError(f"`forbid` and the prior leave nothing that {c.name} can become; allow one transition")
    return np.asarray(prior / prior.sum(axis=1, keepdims=True))


def from_percent(percent: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities as whole percent as numbers from `LEAST` to 1."""
    return np.maximum(percent / np.float32(100), np.float32(LEAST))


def from_confidence(codes: NDArray[np.uint8], percent: NDArray[np.uint8], classes: int) -> NDArray[np.float32]:
    """(classes, ...) probabilities where only that of the cell's class is known: the others share the rest equally."""
    sure = from_percent(percent)
    rest = np.maximum((1 - sure) / max(classes - 1, 1), np.float32(LEAST))
    numbers = np.arange(1, classes + 1).reshape(-1, *[1] * codes.ndim)
    return np.where(codes == numbers, sure, rest).astype(np.float32)


def change_probability(
    before: NDArray[np.float32], after: NDArray[np.float32], prior: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Probability of change, 1 - sum_i a_i b_i T_ii / sum_ij a_i b_j T_ij.

    It is Bayes' rule for the pair of classes if both maps err independently of each other, and their probabilities
    come from a prior with equally likely classes.

    Args:
        before: (classes, n) probabilities on the earlier map, of any scale.
        after: (classes, n) probabilities on the later map.
        prior: (classes, classes) transition prior T; rows have a sum of 1.

    Returns:
        (n,) probabilities.
    """
    prior = prior.astype(np.float32)
    stays = np.einsum("in,in,i->n", before, after, np.diag(prior))
    total = np.einsum("in,in->n", prior.T @ before, after)
    return np.asarray(1 - stays / total, np.float32).clip(0, 1)


def most_probable(
    before: NDArray[np.float32], after: NDArray[np.float32], prior: NDArray[np.float64]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Class codes of the most probable pair of classes of each cell; arguments as for `change_probability`."""
    cells = np.arange(before.shape[1])
    highest = np.full(len(cells), -1.0, np.float32)
    codes = np.zeros((2, len(cells)), np.uint8)
    for number, (own, transitions) in enumerate(zip(before, prior.astype(np.float32), strict=True)):
        joint = after * transitions[:, None]
        best = joint.argmax(axis=0)
        value = own * joint[best, cells]
        better = value > highest
        highest[better] = value[better]
        codes[:, better] = np.stack([np.full(len(cells), number + 1), best + 1])[:, better]
    return codes[0], codes[1]
