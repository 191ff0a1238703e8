"""A map as one page to show: it opens in any browser, by mail or from a stick, and asks no network for anything."""

from __future__ import annotations

import html
import io
import json
import math
import zlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import Resampling

from geocfl.core.grid import CellGrid
from geocfl.core.legend import NODATA, UNCLASSIFIED, WITHHELD, Legend, LulcClass, shown_classes
from geocfl.products.scratch import CODE, CONFIDENCE, NO_CONFIDENCE, open_cells, read_strips

SHOWN_CELLS = 2048
"""Cells along a side that the page holds; larger maps are thinned by the mode."""
PICTURE_SIDE = 1600
"""Pixels along a side of the scene's picture."""
PICTURE_QUALITY = 80
"""Of WebP, which keeps transparency where JPEG cannot: half a megabyte for a picture full of detail."""
BINS = 20
"""Bars of the histograms of confidence, 5 percent each."""
FILTERED = 16
"""Legends longer than this get a field to find a class with."""


def write_page(
    path: Path,
    cells: Path,
    grid: CellGrid,
    legend: Legend,
    picture: NDArray[np.uint8],
    summary: Mapping[str, Any],
    title: str,
) -> None:
    """Writes a self-contained page: interactive map, class table, confidence, settings and provenance.

    The map lies in the scene's own pixels, so that any CRS and rotated grids fit; coordinates are the CRS's.

    Args:
        path: HTML file to write.
        cells: Work raster of `grid.rows` x `grid.columns` cells; its first two bands are read.
        grid: Where the cells lie.
        legend: Names and colours of the codes.
        picture: (h, w, 4) uint8 RGBA of the scene's rectangle, at any resolution; no data is transparent.
        summary: Content of ``S_summary.json`` without ``timing``: the page depends on the clock as little as the map.
            The class table is taken from it.
        title: Headline, such as the scene's name.
    """
    bins = _confidence_bins(cells)
    thinned = _thin(cells)
    north = _north(grid)
    data = _data(thinned, grid, legend, bins, picture, summary)
    leaflet_js, page_js = _leaflet_js(), _asset("page.js")
    page = Template(_asset("page.html")).substitute(
        policy=_policy(leaflet_js, page_js),
        title=_text(title),
        subtitle=_text(_subtitle(grid, summary)),
        warnings=_warnings(summary["warnings"]),
        north=round(north, 2),
        north_label="North is up" if not round(north) else "The arrow points north",
        filter=_filter(summary),
        legend=_legend(summary, legend),
        nodata=_nodata(summary),
        thinned=thinned.sentence(),
        table=_class_table(summary, legend, bins),
        reading=_reading(grid, legend, summary),
        provenance=_provenance(summary),
        version=_text(summary["geocfl"]),
        # No name may end the element that holds the data.
        data=json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
        leaflet_css=_asset("leaflet/leaflet.css"),
        page_css=_asset("page.css"),
        leaflet_js=leaflet_js,
        page_js=page_js,
    )
    # Names of files may hold bytes that are no characters; those become question marks in the browser.
    path.write_text(page, encoding="utf-8", errors="xmlcharrefreplace", newline="\n")


@dataclass(frozen=True)
class _Cells:
    """Cells as the page holds them.

    Attributes:
        codes: (rows, columns) raster codes.
        confidence: Likewise, percent.
        block: Cells of the map along a side that one stands for.
    """

    codes: NDArray[np.uint8]
    confidence: NDArray[np.uint8]
    block: float

    def sentence(self) -> str:
        """What the reader should know about thinning; empty where there is none."""
        if self.block <= 1:
            return ""
        side = f"{self.block:.3g}"
        return (
            f"This map is too fine for a page: a square above stands for about {side} \N{MULTIPLICATION SIGN} {side} "
            "cells and shows their most frequent class and mean confidence. The table and the histogram below count "
            "every cell."
        )


def _data(
    thinned: _Cells,
    grid: CellGrid,
    legend: Legend,
    bins: NDArray[np.int64],
    picture: NDArray[np.uint8],
    summary: Mapping[str, Any],
) -> dict[str, Any]:
    """What the page's script works on."""
    counted = {row["code"] for row in _present(summary)} | {UNCLASSIFIED}
    return {
        "height": grid.height,
        "width": grid.width,
        "rows": thinned.codes.shape[0],
        "columns": thinned.codes.shape[1],
        "extent": [grid.columns * grid.stride, grid.rows * grid.stride],
        "transform": list(grid.transform[:6]),
        "metres": grid.metres_per_pixel(),
        "crs": grid.crs_name(),
        "decimals": 5 if grid.crs.is_geographic else 0,
        "classes": [
            {"code": c.code, "name": c.name, "color": c.color, "bins": bins[c.code].tolist()}
            for c in shown_classes(legend, unclassified=bool(summary["unclassified"]["cells"]))
            if c.code in counted
        ],
        "cells": _base64(zlib.compress(thinned.codes.tobytes() + thinned.confidence.tobytes(), 9)),
        "picture": f"data:image/webp;base64,{_base64(_webp(picture))}",
    }


def _thin(cells: Path) -> _Cells:
    """Codes by the mode and the mean of the confidences, at most `SHOWN_CELLS` along a side."""
    with open_cells(cells) as dataset:
        if max(dataset.shape) <= SHOWN_CELLS:
            codes, confidence = dataset.read([CODE, CONFIDENCE])
            return _Cells(codes, confidence, block=1)
        block = max(dataset.shape) / SHOWN_CELLS
        shape = tuple(math.ceil(side / block) for side in dataset.shape)
        codes = dataset.read(CODE, out_shape=shape, resampling=Resampling.mode)
        columns = np.arange(dataset.width) * shape[1] // dataset.width
        height = dataset.height
    # GDAL's average would count the 255 of cells without data.
    sums, counts = np.zeros(shape[0] * shape[1]), np.zeros(shape[0] * shape[1], np.int64)
    for first, _, confidence in read_strips(cells):
        rows = np.arange(first, first + len(confidence)) * shape[0] // height
        known = confidence != NO_CONFIDENCE
        target = (rows[:, None] * shape[1] + columns)[known]
        start = rows[0] * shape[1]
        length = (rows[-1] + 1) * shape[1] - start
        sums[start : start + length] += np.bincount(target - start, confidence[known], length)
        counts[start : start + length] += np.bincount(target - start, minlength=length)
    mean = np.full(len(sums), NO_CONFIDENCE, np.uint8)
    np.rint(sums / np.maximum(counts, 1), out=mean, where=counts > 0, casting="unsafe")
    return _Cells(codes, np.where(codes == NODATA, NO_CONFIDENCE, mean.reshape(shape)).astype(np.uint8), block)


def _confidence_bins(cells: Path) -> NDArray[np.int64]:
    """(256, `BINS`) cells by code and confidence; 100 percent is in the last bin, no data in none."""
    joint = np.zeros((256, BINS), np.int64)
    for _, codes, confidence in read_strips(cells):
        known = confidence != NO_CONFIDENCE
        bins = np.minimum(confidence[known] // (100 // BINS), BINS - 1)
        joint += np.bincount(codes[known] * np.int32(BINS) + bins, minlength=joint.size).reshape(joint.shape)
    joint[NODATA] = 0
    return joint


def _webp(picture: NDArray[np.uint8]) -> bytes:
    """The scene's picture, thinned and compressed."""
    image = Image.fromarray(picture)
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "webp", quality=PICTURE_QUALITY)
    return buffer.getvalue()


def _north(grid: CellGrid) -> float:
    """Degrees clockwise from up, on the scene's pixels, to where the CRS's second axis points."""
    column, row = ~grid.transform @ (0, 1)
    column_0, row_0 = ~grid.transform @ (0, 0)
    return math.degrees(math.atan2(column - column_0, row_0 - row))


def _subtitle(grid: CellGrid, summary: Mapping[str, Any]) -> str:
    total = summary["total"]
    return " · ".join(
        [
            f"{total['hectares']:,.0f} ha in {total['cells']:,} cells of {summary['cell_size_m']:g} m",
            grid.crs_name(),
            f"model {summary['model']['name']}",
        ]
    )


def _warnings(warnings: Sequence[str]) -> str:
    return "<ul class='warnings'>" + "".join(f"<li>{_text(w)}</li>" for w in warnings) + "</ul>" if warnings else ""


def _present(summary: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Rows of the classes that the map has, the largest first."""
    return sorted((row for row in summary["classes"] if row["cells"]), key=lambda row: -float(row["hectares"]))


def _legend(summary: Mapping[str, Any], legend: Legend) -> str:
    """A switch for each class that the map has."""
    entries = [(legend[row["code"]], _percent(row["share"])) for row in _present(summary)]
    if summary["unclassified"]["cells"]:
        entries.append((WITHHELD, ""))
    return "\n".join(
        f"<li><button type='button' aria-pressed='true' data-code='{c.code}'>{_swatch(c)}"
        f"<span class='name'>{_text(c.name)}</span><span class='share'>{share}</span></button></li>"
        for c, share in entries
    )


def _filter(summary: Mapping[str, Any]) -> str:
    if len(_present(summary)) <= FILTERED:
        return ""
    return "<input type='search' id='filter' placeholder='Find a class' aria-label='Find a class' autocomplete='off'>"


def _nodata(summary: Mapping[str, Any]) -> str:
    if not summary["nodata"]["cells"]:
        return ""
    return "<p class='nodata'><span class='swatch hatched'></span>No data</p>"


def _swatch(c: LulcClass) -> str:
    return f"<span class='swatch' style='background:{c.color}'></span>"


def _class_table(summary: Mapping[str, Any], legend: Legend, bins: NDArray[np.int64]) -> str:
    """Classes by falling area; those that the map lacks are named below."""
    rows = _present(summary)
    largest = max((row["share"] for row in rows), default=1)
    lines = [
        f"<tr><th scope='row'>{_swatch(legend[row['code']])}{_text(row['name'])}</th>"
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
        + (f"\n<p class='note muted'>Not on this map: {_text(', '.join(absent))}.</p>" if absent else "")
    )


def _spread(counts: NDArray[np.int64]) -> str:
    """A small histogram of one class's confidence."""
    heights = 100 * counts / max(counts.max(), 1)
    bars = "".join(f"M{k} 100v{-h:.4g}h.9V100z" for k, h in enumerate(heights) if h)
    return f"<svg viewBox='0 0 {BINS} 100' preserveAspectRatio='none' aria-hidden='true'><path d='{bars}'/></svg>"


def _percent(share: float) -> str:
    """A share as people read it."""
    return "&lt;0.1 %" if 0 < share < 0.0005 else f"{share:.1%}".replace("%", " %")


def _reading(grid: CellGrid, legend: Legend, summary: Mapping[str, Any]) -> str:
    """What classes of windows mean for areas, as HTML."""
    side = f"{summary['cell_size_m'] / grid.stride * grid.window:g}"
    window = f"{side} \N{MULTIPLICATION SIGN} {side} m window"
    cell = f"A cell is a {window}" if grid.stride == grid.window else f"A cell has the class of the {window} around it"
    lines = [_text(c.name) for c in legend if c.folder in ("Highway", "River")]
    thin = (
        f"A window labelled {' or '.join(lines)} <em>contains</em> one, so its hectares are hectares of windows, "
        f"not of {'road or water' if len(lines) == 2 else 'the thing itself'}."
        if lines
        else "The class is that of the window as a whole, so hectares are hectares of windows."
    )
    return f"{cell}. {thin} Cells at the scene's edge count with the part inside. Shares are of the classified area."


def _provenance(summary: Mapping[str, Any]) -> str:
    model, scene = dict(summary["model"]), dict(summary["scene"])
    origin = model.pop("origin", {})
    groups = {
        "Scene": scene | {"scaling": _scaling(scene["scaling"])},
        "Settings": summary["settings"],
        "Model": model | origin,
        "Software": {"geocfl": summary["geocfl"], "hash of scene, model and settings": summary["hash"]},
    }
    parts = [f"<section>\n<h3>{name}</h3>\n{_facts(facts)}\n</section>" for name, facts in groups.items()]
    return "<div class='facts'>\n" + "\n".join(parts) + "\n</div>"


def _scaling(scaling: Mapping[str, Mapping[str, float]]) -> dict[str, str] | str:
    """How digital numbers become reflectance: one formula, or one a band where they differ."""
    formulas = {band: f"(DN {s['offset']:+g}) / {s['scale']:g}" for band, s in scaling.items()}
    return formulas if len(set(formulas.values())) > 1 else next(iter(formulas.values()), "")


def _facts(facts: Mapping[str, Any]) -> str:
    pairs = (
        f"<dt>{_text(name.replace('_', ' '))}</dt><dd>{_text(_value(value))}</dd>" for name, value in facts.items()
    )
    return "<dl>\n" + "\n".join(pairs) + "\n</dl>"


def _value(value: Any) -> str:
    """A fact in words."""
    if isinstance(value, Mapping):
        parts = (
            f"{name} ({_value(v)})" if isinstance(v, Mapping) else f"{name} {_value(v)}" for name, v in value.items()
        )
        return ", ".join(parts)
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.10g}" if value.is_integer() else f"{value:.4g}"
    return "by default" if value in (None, "") else str(value)


def _leaflet_js() -> str:
    """Leaflet with its licence, which a copy must carry, and without the mention of a file beside it."""
    code, _, _ = _asset("leaflet/leaflet.js").partition("//# sourceMappingURL")
    return f"/*\n{_asset('leaflet/LICENSE')}*/\n{code}"


def _policy(*scripts: str) -> str:
    """Content security policy: no network at all, and no script but these, whatever a name may hold."""
    hashes = " ".join(f"'sha256-{_base64(sha256(script.encode()).digest())}'" for script in scripts)
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {hashes}"


def _asset(name: str) -> str:
    return files("geocfl.products.formats").joinpath("page_assets", *name.split("/")).read_text("utf-8")


def _base64(data: bytes) -> str:
    return b64encode(data).decode()


def _text(value: object) -> str:
    return html.escape(str(value))
