"""The parts of a map's page as HTML: legend, class table, notes and provenance."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.warp import transform

from geocfl.core.grid import CellGrid
from geocfl.core.legend import NODATA, UNCLASSIFIED, WITHHELD, Legend, LulcClass
from geocfl.products.about import About
from geocfl.products.files import PRODUCT_SETTINGS

BINS = 20
"""Bars of the histograms of confidence, 5 percent each."""
FILTERED = 16
"""Legends longer than this get a field to search for a class."""


def subtitle(grid: CellGrid, summary: Mapping[str, Any]) -> str:
    """The line below the headline: date, area, cells, CRS and model."""
    total = summary["total"]
    return " · ".join(
        [
            *filter(None, [About.of(summary).taken]),
            f"{total['hectares']:,.0f} ha in {total['cells']:,} cells of {summary['cell_size_m']:g} m",
            grid.crs_name(),
            f"model {summary['model']['name']}",
        ]
    )


def warning_list(warnings: Sequence[str]) -> str:
    """The warnings about the scene; empty without any."""
    items = (re.sub("`([^`]+)`", r"<code>\1</code>", escaped(w)) for w in warnings)  # parameters
    return "<ul class='warnings'>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>" if warnings else ""


def present_classes(summary: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Rows of the class table that have cells, the largest first."""
    return sorted((row for row in summary["classes"] if row["cells"]), key=lambda row: -float(row["hectares"]))


def legend_switches(summary: Mapping[str, Any], legend: Legend) -> str:
    """A switch for each class on the map."""
    entries = [(legend[row["code"]], _percent(row["share"])) for row in present_classes(summary)]
    if summary["unclassified"]["cells"]:
        entries.append((WITHHELD, ""))
    return "\n".join(
        f"<li><button type='button' aria-pressed='true' data-code='{c.code}'>{swatch(c)}"
        f"<span class='name'>{escaped(c.name)}</span><span class='share'>{share}</span></button></li>"
        for c, share in entries
    )


def filter_field(summary: Mapping[str, Any]) -> str:
    """A field to search for a class; empty for short legends."""
    if len(present_classes(summary)) <= FILTERED:
        return ""
    return "<input type='search' id='filter' placeholder='Find a class' aria-label='Find a class' autocomplete='off'>"


def nodata_note(summary: Mapping[str, Any]) -> str:
    """The legend's entry for no data; empty without any."""
    if not summary["nodata"]["cells"]:
        return ""
    return "<p class='nodata'><span class='swatch hatched'></span>No data</p>"


def swatch(c: LulcClass) -> str:
    """A small box in the color of a class."""
    return f"<span class='swatch' style='background:{c.color}'></span>"


def class_table_html(summary: Mapping[str, Any], legend: Legend, bins: NDArray[np.int64]) -> str:
    """The class table by falling area, with the absent classes below."""
    rows = present_classes(summary)
    largest = max((row["share"] for row in rows), default=1)
    lines = [
        f"<tr><th scope='row'>{swatch(legend[row['code']])}{escaped(row['name'])}</th>"
        f"<td class='optional'>{row['code']}</td><td class='optional'>{row['cells']:,}</td>"
        f"<td class='hectares'>{row['hectares']:,.1f}</td><td>{_percent(row['share'])}</td>"
        f"<td class='bar'><div style='width:{100 * row['share'] / largest:.2f}%;"
        f"background:{legend[row['code']].color}'></div></td>"
        f"<td class='mean'>{row['confidence']:.2f}</td>"
        f"<td class='spread optional'>{_spread(bins[row['code']])}</td></tr>"
        for row in rows
    ]
    rest = [
        (WITHHELD.name, UNCLASSIFIED, summary["unclassified"]),
        ("No data", NODATA, summary["nodata"]),
        ("Total", "", summary["total"]),
    ]
    foot = [
        f"<tr><th scope='row'>{name}</th><td class='optional'>{code}</td><td class='optional'>{cover['cells']:,}</td>"
        f"<td class='hectares'>{cover['hectares']:,.1f}</td><td></td><td></td><td></td><td class='optional'></td></tr>"
        for name, code, cover in rest
        if cover["cells"]
    ]
    absent = [row["name"] for row in summary["classes"] if not row["cells"]]
    return (
        "<div class='scroll'><table>\n<thead><tr><th scope='col'>Class</th><th scope='col' class='optional'>Code</th>"
        "<th scope='col' class='optional'>Cells</th><th scope='col'>Hectares</th>"
        "<th scope='col' colspan='2' style='text-align:left'>Share</th>"
        "<th scope='col' colspan='2' style='text-align:left'>Confidence</th></tr></thead>\n<tbody>\n"
        + "\n".join(lines)
        + "\n</tbody>\n<tfoot>\n"
        + "\n".join(foot)
        + "\n</tfoot>\n</table></div>"
        + (f"\n<p class='note muted'>Not on this map: {escaped(', '.join(absent))}.</p>" if absent else "")
    )


def _spread(counts: NDArray[np.int64]) -> str:
    """A small histogram of a class's confidence."""
    heights = 100 * counts / max(counts.max(), 1)
    bars = "".join(f"M{k} 100v{-h:.4g}h.9V100z" for k, h in enumerate(heights) if h)
    return f"<svg viewBox='0 0 {BINS} 100' preserveAspectRatio='none' aria-hidden='true'><path d='{bars}'/></svg>"


def _percent(share: float) -> str:
    """A share as text."""
    return "&lt;0.1%" if 0 < share < 0.0005 else f"{share:.1%}"


def reading_note(grid: CellGrid, legend: Legend, summary: Mapping[str, Any]) -> str:
    """How to read classes of windows as areas."""
    side = f"{summary['cell_size_m'] / grid.stride * grid.window:g}"
    window = f"{side} \N{MULTIPLICATION SIGN} {side} m window"
    cell = f"A cell is a {window}" if grid.stride == grid.window else f"A cell has the class of the {window} around it"
    lines = [escaped(c.name) for c in legend if c.folder in ("Highway", "River")]
    thin = (
        f"A window labeled {' or '.join(lines)} <em>contains</em> one, so its hectares are hectares of windows, "
        f"not of {'road or water' if len(lines) == 2 else 'the thing itself'}."
        if lines
        else "The class is that of the window as a whole, so hectares are hectares of windows."
    )
    return f"{cell}. {thin} Cells at the scene's edge count with the part inside. Shares are of the classified area."


def accuracy_note(summary: Mapping[str, Any]) -> str:
    """How accurate the model is, and what that does not cover."""
    about = About.of(summary)
    return " ".join([about.model, about.limits])


def credit(about: About) -> str:
    """Whose data and which program."""
    return " ".join(filter(None, [about.credit, about.maker]))


def corners(grid: CellGrid) -> str:
    """Longitude and latitude of the scene's corners, clockwise from the first pixel; empty without a place on Earth."""
    if not (grid.crs.is_projected or grid.crs.is_geographic):
        return ""
    pixels = ((0, 0), (grid.width, 0), (grid.width, grid.height), (0, grid.height))
    xs, ys = zip(*(grid.transform @ pixel for pixel in pixels), strict=True)
    try:
        places = zip(*transform(grid.crs, CRS.from_epsg(4326), xs, ys), strict=True)
    except RasterioError:
        return ""
    return ", ".join(
        f"{abs(y):.4f}° {'N' if y >= 0 else 'S'} {abs(x):.4f}° {'E' if x >= 0 else 'W'}" for x, y in places
    )


def provenance(summary: Mapping[str, Any], grid: CellGrid) -> str:
    """Lists of facts about scene, settings, model and software."""
    model, scene = dict(summary["model"]), dict(summary["scene"])
    origin = model.pop("origin", {})
    groups = {
        "Scene": scene | {"corners": corners(grid), "scaling": _scaling(scene["scaling"])},
        "Settings": {name: value for name, value in summary["settings"].items() if name not in PRODUCT_SETTINGS},
        "Model": model | origin,
        "Software": {"geocfl": summary["geocfl"], "hash of scene, model and settings": summary["cells"]},
    }
    parts = [f"<section>\n<h3>{name}</h3>\n{facts_list(facts)}\n</section>" for name, facts in groups.items()]
    return "<div class='facts'>\n" + "\n".join(parts) + "\n</div>"


def _scaling(scaling: Mapping[str, Mapping[str, float]]) -> dict[str, str] | str:
    """The formula from digital numbers to reflectance; one per band if they differ."""
    formulas = {
        band: f"(DN {s['offset']:+g}) / {s['scale']:g}" if s["offset"] else f"DN / {s['scale']:g}"
        for band, s in scaling.items()
    }
    return formulas if len(set(formulas.values())) > 1 else next(iter(formulas.values()), "")


def facts_list(facts: Mapping[str, Any]) -> str:
    """Names and values as a list."""
    pairs = (
        f"<dt>{escaped(name.replace('_', ' '))}</dt><dd>{escaped(_value(value))}</dd>" for name, value in facts.items()
    )
    return "<dl>\n" + "\n".join(pairs) + "\n</dl>"


def _value(value: Any) -> str:
    """A fact as text."""
    if isinstance(value, Mapping):
        parts = (
            f"{name} ({_value(v)})" if isinstance(v, Mapping) else f"{name} {_value(v)}" for name, v in value.items()
        )
        return ", ".join(parts)
    if isinstance(value, list | tuple):  # floats are coordinates, and in full
        return ", ".join(f"{v:.12g}" if isinstance(v, float) else _value(v) for v in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.10g}" if value.is_integer() or abs(value) >= 1000 else f"{value:.4g}"
    return "not given" if value in (None, "") else str(value)


def escaped(value: object) -> str:
    """Text with HTML's special characters escaped."""
    return html.escape(str(value))
