"""A Sankey figure of transitions as SVG: the classes before on the left, those after on the right."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from geocfl.core.legend import Legend

WIDTH, LABELS, BAR = 920, 250, 16
"""Width of the figure, of the labels on each side, and of the bars, in pixels."""
FLOW, LINE, GAP = 420, 17, 5
"""Height of all the area, least height of a class with its label, and space between classes."""
SHOWN = 0.0005
"""Smallest share of the area that is drawn."""


def sankey(rows: Sequence[Mapping[str, Any]], legend: Legend) -> str:
    """Draws hectares as bands between classes; those that stay are pale.

    Args:
        rows: Transitions between classes, with ``before``, ``after`` (codes) and ``hectares``.
        legend: Names and colors of the classes.

    Returns:
        An SVG element; empty without any area.
    """
    total = sum(row["hectares"] for row in rows)
    if not total:
        return ""
    scale = FLOW / total
    sides, heights = [], []
    for side in ("before", "after"):
        top, places = 0.0, {}
        for c in legend:
            hectares = sum(row["hectares"] for row in rows if row[side] == c.code)
            if hectares:
                places[c.code] = (top, scale * hectares, hectares)
                top += max(scale * hectares, LINE) + GAP
        sides.append(places)
        heights.append(top)
    left, right = LABELS, WIDTH - LABELS
    parts = []
    tops = [{code: place[0] for code, place in places.items()} for places in sides]
    for row in sorted(rows, key=lambda row: (row["before"], row["after"])):
        before, after, thick = row["before"], row["after"], scale * row["hectares"]
        y0, y1 = tops[0][before], tops[1][after]
        tops[0][before] += thick
        tops[1][after] += thick
        if row["hectares"] >= SHOWN * total:
            opacity = 0.15 if before == after else 0.6
            name = legend[before].name if before == after else f"{legend[before].name} > {legend[after].name}"
            parts.append(
                f"<path d='{_band(left + BAR, y0, right - BAR, y1, thick)}' fill='{legend[before].color}' "
                f"fill-opacity='{opacity}'><title>{html.escape(name)}: {row['hectares']:,.1f} ha</title></path>"
            )
    for places, x, text, anchor in (
        (sides[0], left, left - 8, "end"),
        (sides[1], right - BAR, right + 8, "start"),
    ):
        for code, (top, height, hectares) in places.items():
            label = f"{html.escape(legend[code].name)} {hectares:,.0f} ha"
            parts.append(
                f"<rect x='{x}' y='{top:.1f}' width='{BAR}' height='{height:.1f}' fill='{legend[code].color}'/>"
            )
            parts.append(
                f"<text x='{text}' y='{top + max(height, LINE) / 2 + 4:.1f}' text-anchor='{anchor}'>{label}</text>"
            )
    return (
        f"<svg class='sankey' viewBox='0 0 {WIDTH} {max(heights):.0f}' role='img' "
        f"aria-label='Hectares of each class before and after'>{''.join(parts)}</svg>"
    )


def _band(x0: float, y0: float, x1: float, y1: float, thick: float) -> str:
    """A band between two heights, with horizontal ends."""
    middle = (x0 + x1) / 2
    return (
        f"M{x0} {y0:.1f}C{middle} {y0:.1f} {middle} {y1:.1f} {x1} {y1:.1f}v{thick:.2f}"
        f"C{middle} {y1 + thick:.1f} {middle} {y0 + thick:.1f} {x0} {y0 + thick:.1f}z"
    )
