"""How a finished map looks: a plot, and its table and picture in a notebook."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geocfl.core.display import html_table, paragraph
from geocfl.core.legend import WITHHELD, palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from geocfl.products.scene_map import SceneMap

DRAWN_CELLS = 2000
"""Cells along the longer side of a plot; of a larger map every n-th is drawn."""
SHOWN_PIXELS = 900
"""Width of the picture that a notebook shows."""


def draw(map: SceneMap, ax: Axes | None, *, legend: bool) -> Axes:
    """Draws a map in the colors of its legend, see `SceneMap.plot`."""
    from matplotlib.patches import Patch

    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(figsize=(9, 6), layout="compressed")
    step = -(-max(map.lulc.shape) // DRAWN_CELLS)
    codes = map.lulc[::step, ::step]
    left, top = map.transform @ (0, 0)
    right, bottom = map.transform @ (step * codes.shape[1], step * codes.shape[0])
    ax.imshow(palette(map.legend)[codes], extent=(left, right, bottom, top), interpolation="nearest")
    west, south, east, north = map.bounds
    aspect = 1 / math.cos(math.radians((south + north) / 2)) if map.crs and map.crs.is_geographic else 1
    ax.set(xlim=(west, east), ylim=(south, north), aspect=aspect, title=map.name)
    ax.ticklabel_format(useOffset=False, style="plain")
    if legend:
        shown = [Patch(facecolor=color, label=name) for color, name, row in _lines(map) if row["cells"] and color]
        ax.legend(handles=shown, loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, frameon=False)
    return ax


def notebook_html(map: SceneMap, title: str) -> str:
    """A title, the preview and the class table as HTML."""
    lines = []
    for color, name, row in _lines(map):
        share, sure = (
            "" if row.get(key) is None else form(row[key])
            for key, form in (("share", "{:.1%}".format), ("confidence", "{:.2f}".format))
        )
        if row["cells"]:
            lines.append((color, [name, f"{row['cells']:,}", f"{row['hectares']:,.1f}", share, sure]))
    table = html_table(["class", "cells", "hectares", "share", "confidence"], lines)
    return paragraph(title) + _picture(map.paths.get("preview")) + table


def _picture(preview: Path | None) -> str:
    """The preview, made small enough to be kept in a notebook; empty if it is missing or cannot be read."""
    from PIL import Image

    if preview is None:
        return ""
    try:
        with Image.open(io.BytesIO(preview.read_bytes())) as image:
            small = image.convert("RGB")
    except OSError:
        return ""
    small.thumbnail((SHOWN_PIXELS, SHOWN_PIXELS), Image.Resampling.LANCZOS)
    small.save(content := io.BytesIO(), "JPEG", quality=85)
    source = f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
    return f'<img alt="Scene and map" style="max-width:100%" src="{source}">'


def _lines(map: SceneMap) -> list[tuple[str | None, str, Mapping[str, Any]]]:
    """Color, name and row of the class table, by falling area, then of the cells without a class."""
    colors = {c.code: c.color for c in map.legend} if "lulc" in map.paths else {}
    by_area = sorted(map.classes["classes"], key=lambda row: -row["hectares"])
    return [
        *((colors.get(row["code"]), row["name"], row) for row in by_area),
        (WITHHELD.color, WITHHELD.name, map.classes["unclassified"]),
        (None, "No data", map.classes["nodata"]),
    ]
