"""A map as one self-contained web page, which opens in any browser offline."""

from __future__ import annotations

import io
import json
import math
import zlib
from base64 import b64encode
from collections.abc import Mapping
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
from geocfl.core.legend import NODATA, UNCLASSIFIED, Legend, shown_classes
from geocfl.products.about import About
from geocfl.products.formats.page_parts import (
    BINS,
    accuracy_note,
    class_table_html,
    credit,
    escaped,
    filter_field,
    legend_switches,
    nodata_note,
    present_classes,
    provenance,
    reading_note,
    subtitle,
    warning_list,
)
from geocfl.products.scratch import CODE, CONFIDENCE, NO_CONFIDENCE, open_cells, read_strips
from geocfl.products.unlike import unlike_sentence

SHOWN_CELLS = 2048
"""Cells along a side of the page's map; larger maps are resampled by the mode."""
PICTURE_SIDE = 1600
"""Pixels along a side of the scene's picture."""
PICTURE_QUALITY = 80
"""Quality of WebP, which unlike JPEG keeps transparency: half a megabyte for a detailed picture."""


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

    The map is drawn in the scene's pixels, so that any CRS and any rotation works; coordinates are those of the CRS.

    Args:
        path: HTML file to write.
        cells: Work raster of `grid.rows` x `grid.columns` cells; its first two bands are read.
        grid: Where the cells lie.
        legend: Names and colors of the codes.
        picture: (h, w, 4) uint8 RGBA of the scene's rectangle, at any resolution; no data is transparent.
        summary: Content of ``S_summary.json``, with the class table; without ``timing``, so that the page does not
            depend on the clock.
        title: Headline, such as the scene's name.
    """
    bins = _confidence_bins(cells)
    thinned = _thin(cells)
    north = _north(grid)
    data = _data(thinned, grid, legend, bins, picture, summary)
    leaflet_js, page_js = _leaflet_js(), asset("page.js")
    page = Template(asset("page.html")).substitute(
        policy=policy(leaflet_js, page_js),
        title=escaped(title),
        subtitle=escaped(subtitle(grid, summary)),
        warnings=warning_list(summary["warnings"]),
        north=round(north, 2),
        north_label="North is up" if not round(north) else "The arrow points north",
        filter=filter_field(summary),
        legend=legend_switches(summary, legend),
        nodata=nodata_note(summary),
        thinned=thinned.sentence(),
        table=class_table_html(summary, legend, bins),
        unlike=escaped(unlike_sentence(summary)),
        reading=reading_note(grid, legend, summary),
        accuracy=escaped(accuracy_note(summary)),
        provenance=provenance(summary, grid),
        credit=escaped(credit(About.of(summary))),
        # A name must not end the element that holds the data.
        data=json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
        leaflet_css=asset("leaflet/leaflet.css"),
        page_css=asset("page.css"),
        leaflet_js=leaflet_js,
        page_js=page_js,
    )
    # Names of files may hold bytes that are not characters; the browser shows those as question marks.
    path.write_text(page, encoding="utf-8", errors="xmlcharrefreplace", newline="\n")


@dataclass(frozen=True)
class _Cells:
    """Cells of the page's map.

    Attributes:
        codes: (rows, columns) raster codes.
        confidence: (rows, columns) percent.
        block: Cells of the map along a side of each of them.
    """

    codes: NDArray[np.uint8]
    confidence: NDArray[np.uint8]
    block: float

    def sentence(self) -> str:
        """Note on resampling for the reader; empty if there is none."""
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
    """Data for the page's script."""
    counted = {row["code"] for row in present_classes(summary)} | {UNCLASSIFIED}
    return {
        "height": grid.height,
        "width": grid.width,
        "rows": thinned.codes.shape[0],
        "columns": thinned.codes.shape[1],
        "extent": [grid.columns * grid.stride, grid.rows * grid.stride],
        "transform": list(grid.transform[:6]),
        "meters": grid.meters_per_pixel(),
        "crs": grid.crs_name(),
        "decimals": 5 if grid.crs.is_geographic else 0,
        "classes": [
            {"code": c.code, "name": c.name, "color": c.color, "bins": bins[c.code].tolist()}
            for c in shown_classes(legend, unclassified=bool(summary["unclassified"]["cells"]))
            if c.code in counted
        ],
        "cells": encoded(zlib.compress(thinned.codes.tobytes() + thinned.confidence.tobytes(), 9)),
        "picture": f"data:image/webp;base64,{encoded(_webp(picture))}",
    }


def _thin(cells: Path) -> _Cells:
    """Resamples codes by the mode and confidences by the mean, to at most `SHOWN_CELLS` along a side."""
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
    for first, (confidence,) in read_strips(cells, [CONFIDENCE]):
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
    """(256, `BINS`) cells by code and confidence; 100 percent is in the last bin, no data is not counted."""
    joint = np.zeros((256, BINS), np.int64)
    for _, (codes, confidence) in read_strips(cells):
        known = confidence != NO_CONFIDENCE
        bins = np.minimum(confidence[known] // (100 // BINS), BINS - 1)
        joint += np.bincount(codes[known] * np.int32(BINS) + bins, minlength=joint.size).reshape(joint.shape)
    joint[NODATA] = 0
    return joint


def _webp(picture: NDArray[np.uint8]) -> bytes:
    """The scene's picture, reduced and compressed."""
    image = Image.fromarray(picture)
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "webp", quality=PICTURE_QUALITY)
    return buffer.getvalue()


def _north(grid: CellGrid) -> float:
    """Direction of the CRS's second axis on the scene's pixels, degrees clockwise from up."""
    column, row = ~grid.transform @ (0, 1)
    column_0, row_0 = ~grid.transform @ (0, 0)
    return math.degrees(math.atan2(column - column_0, row_0 - row))


def _leaflet_js() -> str:
    """Leaflet with its license, which copies must include, and without the link to its source map."""
    code, _, _ = asset("leaflet/leaflet.js").partition("//# sourceMappingURL")
    return f"/*\n{asset('leaflet/LICENSE')}*/\n{code}"


def policy(*scripts: str) -> str:
    """Content security policy: no network and no other script, whatever a name contains."""
    hashes = " ".join(f"'sha256-{encoded(sha256(script.encode()).digest())}'" for script in scripts)
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {hashes}"


def asset(name: str) -> str:
    """Text of a file of the pages, such as ``"page.css"``."""
    return files("geocfl.products.formats").joinpath("page_assets", *name.split("/")).read_text("utf-8")


def encoded(data: bytes) -> str:
    """Bytes in base 64."""
    return b64encode(data).decode()
