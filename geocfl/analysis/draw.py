"""Draws cells of a map at random: in strata, from the whole map, or on a grid with a random start."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geocfl.analysis.strata import NONE, Mapped, Strata, read_strips
from geocfl.errors import DataError

log = logging.getLogger("geocfl")

SPARE = 50
"""Candidates for each point where points must keep a distance."""


@dataclass(frozen=True)
class Drawn:
    """Drawn cells, in random order.

    Attributes:
        cells: (n, 4) row, column, class code and stratum.
        hectares: (n,) their areas.
    """

    cells: NDArray[np.int64]
    hectares: NDArray[np.float64]


def draw_from_strata(
    finished: Mapped,
    strata: Strata,
    cells: NDArray[np.int64],
    points: NDArray[np.int64],
    seed: int,
    min_distance: float = 0.0,
) -> Drawn:
    """Draws cells without replacement, each cell of a stratum with the same probability.

    Args:
        finished: The map.
        strata: Its strata.
        cells: (H,) cells of each stratum.
        points: (H,) cells to draw from each.
        seed: Random seed.
        min_distance: Smallest distance between the middles of two cells, meters on the ground.

    Raises:
        DataError: A stratum has no cell that far from all others.
    """
    rng = np.random.default_rng(seed)
    wanted = points if not min_distance else np.minimum(cells, SPARE * points + 10 * SPARE)
    ranks = [rng.choice(int(n), int(k), replace=False) for n, k in zip(cells, wanted, strict=True)]
    located = _locate(finished, strata, ranks)
    if min_distance:
        located = _keep_apart(finished, strata, located, points, min_distance)
    table = np.concatenate([drawn.cells for drawn in located])
    order = rng.permutation(len(table))
    return Drawn(table[order], np.concatenate([drawn.hectares for drawn in located])[order])


def draw_on_grid(finished: Mapped, strata: Strata, size: int, cells: int, seed: int) -> Drawn:
    """Draws the cells of a square grid with a random start: about `size` of the map's `cells`.

    Raises:
        DataError: No cell of the grid has a class.
    """
    rng = np.random.default_rng(seed)
    step = max(np.sqrt(cells / size), 1.0)
    starts = rng.uniform(0, step, 2)
    rows, columns = (
        np.floor(np.arange(start, end, step)).astype(np.int64)
        for start, end in zip(starts, (finished.grid.rows, finished.grid.columns), strict=True)
    )
    found, hectares = [], []
    for strip in read_strips(finished, strata):
        here = rows[(rows >= strip.first) & (rows < strip.first + len(strip.codes))]
        row, column = (part.ravel() for part in np.meshgrid(here, columns, indexing="ij"))
        inside = strip.strata[row - strip.first, column] != NONE
        row, column = row[inside], column[inside]
        local = row - strip.first
        found.append(np.stack([row, column, strip.codes[local, column], strip.strata[local, column]], axis=1))
        hectares.append(strip.hectares[local, column])
    table = np.concatenate(found).astype(np.int64)
    if not len(table):
        raise DataError(f"{finished.path}: no cell of the grid has a class; use a larger `size`, or another `seed`")
    order = rng.permutation(len(table))
    return Drawn(table[order], np.concatenate(hectares)[order])


def _locate(finished: Mapped, strata: Strata, ranks: Sequence[NDArray[np.int64]]) -> list[Drawn]:
    """Finds the cells with these ranks in each stratum, counted row by row; keeps the order of the ranks."""
    sorters = [np.argsort(of) for of in ranks]
    tables = [np.zeros((len(of), 4), np.int64) for of in ranks]
    hectares = [np.zeros(len(of)) for of in ranks]
    before = np.zeros(len(ranks), np.int64)
    for strip in read_strips(finished, strata):
        flat = strip.strata.ravel()
        order = np.argsort(flat, kind="stable")
        starts = np.searchsorted(flat[order], np.arange(len(ranks) + 1))
        for number, of in enumerate(ranks):
            here = order[starts[number] : starts[number + 1]]
            low, high = np.searchsorted(of, [before[number], before[number] + len(here)], sorter=sorters[number])
            mine = sorters[number][low:high]
            row, column = np.divmod(here[of[mine] - before[number]], strip.codes.shape[1])
            tables[number][mine] = np.stack(
                [row + strip.first, column, strip.codes[row, column], np.full(len(row), number)], axis=1
            )
            hectares[number][mine] = strip.hectares[row, column]
            before[number] += len(here)
    return [Drawn(*pair) for pair in zip(tables, hectares, strict=True)]


def _keep_apart(
    finished: Mapped, strata: Strata, located: list[Drawn], points: NDArray[np.int64], min_distance: float
) -> list[Drawn]:
    """Takes candidates in their random order if they are far enough from all that were taken; small strata first."""
    across, down = finished.grid.meters_per_pixel()
    meters = np.array([down, across]) * finished.grid.stride
    taken = np.zeros((0, 2))
    kept = list(located)
    for number in np.argsort([len(drawn.cells) for drawn in located], kind="stable"):
        chosen: list[int] = []
        for index, cell in enumerate(located[number].cells):
            if len(chosen) == points[number]:
                break
            place = cell[:2] * meters
            if not len(taken) or ((taken - place) ** 2).sum(axis=1).min() >= min_distance**2:
                taken = np.concatenate([taken, place[None]])
                chosen.append(index)
        found = (
            f"{len(chosen)} of {points[number]} points of {strata.names[number]} are {min_distance:g} m from all others"
        )
        if not chosen and points[number]:
            raise DataError(f"{finished.path}: {found}; use a smaller `min_distance`")
        if len(chosen) < points[number]:
            log.warning("only %s; use a smaller `min_distance` for more", found)
        kept[number] = Drawn(located[number].cells[chosen], located[number].hectares[chosen])
    return kept
