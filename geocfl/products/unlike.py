"""How much of a map lies on land unlike the training data of its model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from geocfl.core.grid import CellGrid
from geocfl.core.legend import NODATA
from geocfl.products.scratch import CODE, NOVELTY, band_numbers, read_strips

UNLIKE = 95
"""Percentile of the novelty of validation patches; land beyond it counts as unlike the training data."""


class Unlike(TypedDict):
    """Land unlike the training data, as in ``S_summary.json``.

    Attributes:
        percentile: `UNLIKE`.
        cells: Number of cells beyond it.
        hectares: Their area.
        share: Their share of the area with data, 0..1.
    """

    percentile: int
    cells: int
    hectares: float
    share: float


def unlike_land(cells: Path, grid: CellGrid) -> Unlike | None:
    """Measures the land whose novelty is beyond `UNLIKE`; None if the model knows no novelty.

    Args:
        cells: Work raster of `grid.rows` x `grid.columns` cells.
        grid: Where the cells lie.
    """
    numbers = band_numbers(cells, NOVELTY)
    if not numbers:
        return None
    areas, count = grid.areas(), 0
    hectares = known_hectares = 0.0
    for first, (codes, novelty) in read_strips(cells, [CODE, *numbers]):
        known = codes != NODATA
        beyond = known & (novelty > UNLIKE)
        count += int(beyond.sum())
        hectares += areas.total(first, beyond)
        known_hectares += areas.total(first, known)
    share = hectares / known_hectares if known_hectares else 0.0
    return Unlike(percentile=UNLIKE, cells=count, hectares=hectares, share=share)


def unlike_sentence(summary: Mapping[str, Any]) -> str:
    """What a summary says of land unlike the training data, as a sentence; empty if the model knows no novelty."""
    found = summary.get("novelty")
    if found is None:
        return ""
    share = "<0.1%" if 0 < found["share"] < 0.0005 else f"{100 * found['share']:.1f}%"
    return (
        f"{share} of this map lies on land unlike anything the model was trained on "
        f"(beyond percentile {found['percentile']} of its validation patches)."
    )
