"""The tables of a change map from its counts, as they stand in its summary."""

from __future__ import annotations

from typing import Any

import numpy as np

from geocfl.analysis.change_cells import ChangeTables
from geocfl.analysis.overlap import PairTable
from geocfl.core.legend import NODATA, UNCLASSIFIED, Legend
from geocfl.core.transitions import transition_classes
from geocfl.products.summary import Cover


def change_tables(counts: ChangeTables, legend: Legend, *, probable: bool) -> dict[str, Any]:
    """The tables of a change map, ready for JSON.

    Args:
        counts: What was counted.
        legend: The legend of both maps.
        probable: Whether cells have a probability of change.

    Returns:
        ``classes``: the transitions between classes that occur, those of classes that stay included, each with
        ``code``, ``name``, ``color``, ``before`` and ``after`` (class codes), ``cells``, ``pixels``, ``hectares``,
        ``share`` (of the hectares with classes on both maps) and ``probability`` (mean over the cells);
        ``unclassified``, ``nodata``, ``total`` and ``changed`` cells; ``transitions``: the long table, with
        unclassified cells and no data, whose sums are those of both maps; and ``by_class``.
    """
    table, codes = counts.pairs, [c.code for c in legend]
    classified = table.hectares[np.ix_(codes, codes)]
    total = float(classified.sum())
    occurring = [(i, j) for i in codes for j in codes if table.cells[i, j]]
    transitions = transition_classes(legend, occurring)
    moved = np.zeros((256, 256), bool)
    moved[np.ix_(codes, codes)] = ~np.eye(len(codes), dtype=bool)
    empty = np.zeros((256, 256), bool)
    empty[NODATA], empty[:, NODATA] = True, True
    unknown = np.zeros((256, 256), bool)
    unknown[UNCLASSIFIED], unknown[:, UNCLASSIFIED] = True, True

    def probability(i: int, j: int) -> float | None:
        return float(counts.percent[i, j] / table.cells[i, j] / 100) if probable else None

    changed = _cover(table, moved)
    return {
        "classes": [
            {
                "code": c.code,
                "name": c.name,
                "color": c.color,
                "before": i,
                "after": j,
                **_cover_of(table, i, j),
                "share": float(table.hectares[i, j] / total),
                "probability": probability(i, j),
            }
            for c, (i, j) in zip(transitions, occurring, strict=True)
        ],
        "unclassified": _cover(table, unknown & ~empty),
        "nodata": _cover(table, empty),
        "total": _cover(table, np.ones((256, 256), bool)),
        "changed": {**changed, "share": changed["hectares"] / total if total else 0.0},
        "by_class": [
            {
                "code": c.code,
                "name": c.name,
                "before_ha": float(table.hectares[c.code].sum()),
                "after_ha": float(table.hectares[:, c.code].sum()),
                "stayed_ha": float(table.hectares[c.code, c.code]),
                "lost_ha": float(classified[c.code - 1].sum() - table.hectares[c.code, c.code]),
                "gained_ha": float(classified[:, c.code - 1].sum() - table.hectares[c.code, c.code]),
            }
            for c in legend
        ],
        "transitions": [
            {
                "from_code": i,
                "from_class": before,
                "to_code": j,
                "to_class": after,
                "cells": int(table.cells[i, j]),
                "hectares": float(table.hectares[i, j]),
                "share_of_from": float(table.hectares[i, j] / classified[i - 1].sum()) if both else None,
                "probability": probability(i, j) if both else None,
            }
            for i, before in _names(legend)
            for j, after in _names(legend)
            if table.cells[i, j]
            for both in [i in codes and j in codes]
        ],
    }


def resolved_rows(table: PairTable, legend: Legend) -> list[dict[str, Any]]:
    """What was found of each forbidden transition, ready for JSON."""
    return [
        {"from_class": legend[i].name, "to_class": legend[j].name, **_cover_of(table, i, j)}
        for i, j in np.argwhere(table.cells).tolist()
    ]


def _names(legend: Legend) -> list[tuple[int, str]]:
    return [*((c.code, c.name) for c in legend), (UNCLASSIFIED, "Unclassified"), (NODATA, "No data")]


def _cover(table: PairTable, chosen: np.ndarray[Any, np.dtype[np.bool_]]) -> Cover:
    return Cover(
        cells=int(table.cells[chosen].sum()),
        pixels=int(table.pixels[chosen].sum()),
        hectares=float(table.hectares[chosen].sum()),
    )


def _cover_of(table: PairTable, i: int, j: int) -> Cover:
    return Cover(cells=int(table.cells[i, j]), pixels=int(table.pixels[i, j]), hectares=float(table.hectares[i, j]))
