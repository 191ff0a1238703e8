"""The preview: a picture of scene and map side by side."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from numpy.typing import NDArray
from rasterio.enums import Resampling

from geocfl.core.grid import CellGrid
from geocfl.core.legend import WITHHELD, Legend, palette
from geocfl.products.about import About
from geocfl.products.formats.graticule import Line, graticule
from geocfl.products.scratch import open_cells
from geocfl.products.summary import ClassTable, class_table

DPI = 150
PANEL_AREA, PANEL_WIDTH, PANEL_HEIGHT = 25.0, 9.0, 6.5
"""Area of a panel in square inches, and its largest sides in inches."""
STACKED = 1.6
"""Scenes wider than this many times their height are drawn above the map, others to its left."""
MARGIN, GAP, HEADER, HEADING, FOOTER, NOTE = 0.35, 0.3, 0.72, 0.27, 0.42, 0.25
CHARACTER = 0.075
"""Mean width of a character of the warnings, inches."""
LEGEND_LINE = 0.25
LEGEND_WIDTH, SWATCH, SHARE = (2.5, 4.5), 0.38, 0.72
"""Least and largest width of the legend, which grows with the names of classes, and room for swatches and shares."""
LEGEND_LINES = 24
"""Lines of the legend; smaller classes are summed up in the last one."""
EDGE = 0.08
"""Share of a panel's side near its ends where no coordinate is written."""
ABSENT = "\N{EN DASH}"
DRAWN_CELLS = 1200
"""Cells, and pixels of the scene, drawn along a side; larger maps are resampled by the mode."""
INK, FAINT, RULE, GROUND, ALARM = "#1f2933", "#66727f", "#c3c9d0", "#f1f3f5", "#9c4221"


def write_preview(
    path: Path,
    picture: NDArray[np.uint8],
    cells: Path,
    grid: CellGrid,
    legend: Legend,
    title: str,
    note: str = "",
    warnings: Sequence[str] = (),
    about: About | None = None,
) -> None:
    """Draws the scene in true color beside its map, with a legend, shares of the area and a scale bar.

    Args:
        path: PNG to write.
        picture: (h, w, 4) uint8 RGBA of the whole scene, at any resolution, see
            `geocfl.products.formats.truecolor.stretch`.
        cells: Work raster of the map.
        grid: Where the cells lie.
        legend: Names and colors of the codes.
        title: Headline, such as the scene's name.
        note: A sentence below the map.
        warnings: What was assumed of the scene or looks wrong with it, below that.
        about: What the map says of itself: the date below the headline, the rest at the foot.
    """
    about = about or About()
    entries = _legend_entries(class_table(cells, grid, legend), legend)
    ground = _Ground.of(grid)
    layout = _Layout.of(ground, entries)
    room = layout.width - 2 * MARGIN
    model = " ".join(filter(None, [about.model, about.limits, about.reading]))
    credit = " ".join(filter(None, [about.credit, about.maker]))
    foot = [
        *([(note, INK)] if note else []),
        *((line, ALARM) for text in warnings for line in _wrapped(f"Warning: {text.replace('`', '')}", room)),
        *((line, FAINT) for text in (model, credit) for line in _wrapped(text, room)),
    ]
    layout = replace(layout, height=layout.height + NOTE * len(foot))
    figure = Figure(figsize=(layout.width, layout.height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)

    _write_texts(figure, layout, title, _subtitle(grid, ground, about), foot)
    scene = _panel(figure, layout, layout.scene, grid, "Scene")
    thinning = -(-max(picture.shape) // DRAWN_CELLS)
    drawn = picture[::thinning, ::thinning]
    scene.imshow(drawn, extent=(0, grid.width, grid.height, 0), aspect="auto", zorder=1)
    cover = _panel(figure, layout, layout.map, grid, "Map")
    whole_cells = (0, grid.columns * grid.stride, grid.rows * grid.stride, 0)
    cover.imshow(_colors(cells, legend), extent=whole_cells, aspect="auto", interpolation="nearest", zorder=1)
    lines = graticule(grid)
    for axes in (scene, cover):  # imshow has set the limits to those of its image
        axes.set(xlim=(0, grid.width), ylim=(grid.height, 0))
        _draw_graticule(axes, lines, grid)
    _draw_legend(layout.axes(figure, layout.legend), entries, layout.legend[2])
    _draw_scale_bar(figure, layout, ground)
    # As small as with the default, 6, in two thirds of the time.
    figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None}, pil_kwargs={"compress_level": 4})


@dataclass(frozen=True)
class _Ground:
    """A scene's extent on the ground.

    Attributes:
        width: Meters across, in the middle if the CRS is geographic.
        height: Meters down.
        north_up: Whether rows run south along an axis of the CRS.
    """

    width: float
    height: float
    north_up: bool

    @classmethod
    def of(cls, grid: CellGrid) -> _Ground:
        """Measures a grid."""
        _, b, _, d, e, _ = grid.transform[:6]
        across, down = grid.meters_per_pixel()
        return cls(across * grid.width, down * grid.height, b == d == 0 and e < 0 < grid.transform.a)


_Inches = tuple[float, float, float, float]
"""Left, top, width and height in inches, from the figure's upper left corner."""


@dataclass(frozen=True)
class _Layout:
    """Layout of the figure, inches."""

    width: float
    height: float
    scene: _Inches
    map: _Inches
    legend: _Inches

    @classmethod
    def of(cls, ground: _Ground, entries: Sequence[_Entry]) -> _Layout:
        """Panels in the scene's proportions, side by side or stacked, and the legend to their right."""
        ratio = ground.width / ground.height
        width = min(PANEL_WIDTH, PANEL_HEIGHT * ratio, math.sqrt(PANEL_AREA * ratio))
        height = width / ratio
        top = HEADER + HEADING
        if ratio > STACKED:
            second = (MARGIN, top + height + GAP / 2 + HEADING)
            right, bottom = MARGIN + width, second[1] + height
        else:
            # A narrow panel leaves room for its heading.
            second = (MARGIN + max(width, 0.9) + GAP, top)
            right, bottom = second[0] + max(width, 0.9), top + height
        longest = max(len(entry.name) for entry in entries)
        across = float(np.clip(SWATCH + CHARACTER * longest + SHARE, *LEGEND_WIDTH))
        legend = (right + GAP, top, across, len(entries) * LEGEND_LINE)
        return cls(
            width=legend[0] + across + MARGIN,
            height=max(bottom, legend[1] + legend[3]) + FOOTER + MARGIN / 2,
            scene=(MARGIN, top, width, height),
            map=(*second, width, height),
            legend=legend,
        )

    def axes(self, figure: Figure, box: _Inches) -> Axes:
        """Axes that fill a box."""
        left, top, width, height = box
        return figure.add_axes(
            (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        )

    def text(self, figure: Figure, x: float, y: float, text: str, **style: Any) -> Text:
        """Text at a point, inches from the figure's upper left corner."""
        return figure.text(x / self.width, 1 - y / self.height, text, **style)


@dataclass(frozen=True)
class _Entry:
    """A line of the legend."""

    name: str
    color: str | None
    share: str

    @property
    def ink(self) -> str:
        """Color of the text; fainter for absent classes."""
        return FAINT if self.share == ABSENT else INK


def _legend_entries(table: ClassTable, legend: Legend) -> list[_Entry]:
    """Classes by falling share, then absent ones, then unclassified and no data if there are any."""
    rows = sorted(table["classes"], key=lambda row: -row["hectares"])
    entries = [_Entry(row["name"], legend[row["code"]].color, _percent(row["share"])) for row in rows[:LEGEND_LINES]]
    rest = sum(row["share"] or 0 for row in rows[LEGEND_LINES:])
    if len(rows) > LEGEND_LINES:
        entries.append(_Entry(f"{len(rows) - LEGEND_LINES} more classes", None, _percent(rest)))
    if table["unclassified"]["cells"]:
        entries.append(_Entry(WITHHELD.name, WITHHELD.color, ""))
    if table["nodata"]["cells"]:
        entries.append(_Entry("No data", "hatched", ""))
    return entries


def _percent(share: float | None) -> str:
    """A share as text; a dash for absent classes."""
    if not share:
        return ABSENT
    return "<0.1%" if share < 0.0005 else f"{share * 100:.1f}%"


def _subtitle(grid: CellGrid, ground: _Ground, about: About) -> str:
    """Date, CRS, extent and size of cells."""
    cell = ground.height / grid.height * grid.stride
    return " · ".join(
        [
            *filter(None, [about.taken]),
            grid.crs_name(),
            f"{_length(ground.width, 3)} \N{MULTIPLICATION SIGN} {_length(ground.height, 3)}",
            f"cells of {_length(cell, 3)}",
        ]
    )


def _length(meters: float, digits: int) -> str:
    """A length in meters, or in kilometers from 1,000 m."""
    value, unit = (meters / 1000, "km") if meters >= 1000 else (meters, "m")
    decimals = max(0, digits - 1 - math.floor(math.log10(value)))
    text = f"{value:,.{decimals}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} {unit}"


def _wrapped(text: str, width: float) -> list[str]:
    """Lines of a text that fit into a width in inches."""
    return textwrap.wrap(text, int(width / CHARACTER))


def _write_texts(figure: Figure, layout: _Layout, title: str, subtitle: str, foot: Sequence[tuple[str, str]]) -> None:
    """Writes the headline, the line below it, and lines with their colors at the foot, shrunk if they would not fit."""
    bottom = layout.height - MARGIN / 2
    lines = [(bottom - NOTE * after, text, 9, color, "normal") for after, (text, color) in enumerate(reversed(foot))]
    for y, text, size, color, weight in (
        (0.42, title, 13, INK, "bold"),
        (0.66, subtitle, 9, FAINT, "normal"),
        *lines,
    ):
        # No mathtext: names of files may hold dollar signs.
        drawn = layout.text(
            figure, MARGIN, y, text, fontsize=size, color=color, weight=weight, va="baseline", parse_math=False
        )
        needed = drawn.get_window_extent().width / DPI
        drawn.set_fontsize(size * min(1.0, (layout.width - 2 * MARGIN) / max(needed, 1e-6)))


def _draw_graticule(axes: Axes, lines: Sequence[Line], grid: CellGrid) -> None:
    """Draws thin lines, with labels inside the frame at the left and at the bottom."""
    ground = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "boxstyle": "square,pad=0.15"}
    for line in lines:
        axes.plot(line.columns, line.rows, color="white", linewidth=0.9, alpha=0.35, zorder=2)
        axes.plot(line.columns, line.rows, color=INK, linewidth=0.35, alpha=0.8, zorder=2)
        across, down = (line.columns, line.rows) if line.meridian else (line.rows, line.columns)
        order = np.argsort(down)
        at = float(np.interp(grid.height if line.meridian else 0, down[order], across[order]))
        share = at / (grid.width if line.meridian else grid.height)
        if not EDGE <= share <= 1 - EDGE:  # a corner has no room
            continue
        place, turn = ((at, grid.height), (0, 2.5)) if line.meridian else ((0, at), (3, 0))
        axes.annotate(
            line.label,
            place,
            turn,
            textcoords="offset points",
            fontsize=6.5,
            color=INK,
            ha="center" if line.meridian else "left",
            va="bottom" if line.meridian else "center",
            bbox=ground,
            zorder=3,
            parse_math=False,
        )


def _panel(figure: Figure, layout: _Layout, box: _Inches, grid: CellGrid, heading: str) -> Axes:
    """Axes in pixels of the scene, hatched as no data until something is drawn."""
    axes = layout.axes(figure, box)
    axes.set(xticks=[], yticks=[])
    axes.add_patch(_hatched((0, 0), grid.width, grid.height))
    for spine in axes.spines.values():
        spine.set(edgecolor=RULE, linewidth=0.6)
    layout.text(figure, box[0], box[1] - 0.08, heading, fontsize=9.5, color=FAINT)
    return axes


def _hatched(corner: tuple[float, float], width: float, height: float) -> Rectangle:
    """A hatched rectangle, for no data."""
    return Rectangle(corner, width, height, hatch="/////", facecolor=GROUND, edgecolor="#d3d8dd", linewidth=0, zorder=0)


def _colors(cells: Path, legend: Legend) -> NDArray[np.uint8]:
    """(rows, columns, 4) RGBA of the cells, at most `DRAWN_CELLS` along a side."""
    with open_cells(cells) as dataset:
        thinning = max(1.0, max(dataset.shape) / DRAWN_CELLS)
        shape = tuple(math.ceil(side / thinning) for side in dataset.shape)
        codes = dataset.read(1, out_shape=shape, resampling=Resampling.mode)
    colors: NDArray[np.uint8] = palette(legend)[codes]
    return colors


def _draw_legend(axes: Axes, entries: list[_Entry], width: float) -> None:
    """Draws a line with swatch, name and share for each entry; longer names than there is room for are cut."""
    room = int((width - SWATCH - SHARE) / CHARACTER)
    axes.set(xlim=(0, width), ylim=(len(entries) * LEGEND_LINE, 0))
    axes.axis("off")
    axes.text(width, -0.08, "share of area", fontsize=9.5, color=FAINT, ha="right")
    for index, entry in enumerate(entries):
        top = index * LEGEND_LINE + 0.04
        if entry.color == "hatched":
            axes.add_patch(_hatched((0.01, top), 0.26, 0.17))
        elif entry.color:
            axes.add_patch(
                Rectangle(
                    (0.01, top), 0.26, 0.17, facecolor=entry.color, linewidth=0, alpha=0.4 if entry.ink == FAINT else 1
                )
            )
        style: dict[str, Any] = {"fontsize": 9.5, "va": "center_baseline", "color": entry.ink}
        name = entry.name if len(entry.name) <= room else entry.name[: room - 1].rstrip() + "\N{HORIZONTAL ELLIPSIS}"
        axes.text(SWATCH, top + 0.09, name, parse_math=False, **style)
        axes.text(width, top + 0.09, entry.share, ha="right", **style)


def _draw_scale_bar(figure: Figure, layout: _Layout, ground: _Ground) -> None:
    """Draws a scale bar of 1, 2 or 5 times a power of ten meters, at most 2 inches or the panel's width."""
    left, top, width, height = layout.map
    most = ground.width / width * min(2.0, width)
    power = 10 ** math.floor(math.log10(most))
    meters = max(step * power for step in (1, 2, 5) if step * power <= most)
    axes = layout.axes(figure, (left, top + height + 0.12, width, 0.07))
    axes.set(xlim=(0, ground.width), ylim=(0, 1))
    axes.axis("off")
    for start, color in ((0, INK), (meters / 2, "white")):
        axes.add_patch(Rectangle((start, 0), meters / 2, 1, facecolor=color, edgecolor=INK, lw=0.8, clip_on=False))
    label = _length(meters, 1) + ("   north is up" if ground.north_up else "")
    bar = width * meters / ground.width
    layout.text(figure, left + bar + 0.08, top + height + 0.155, label, fontsize=8.5, color=INK, va="center")
