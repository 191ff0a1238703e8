"""A change map as one self-contained web page: both maps with a swipe, flows between classes, and tables."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import Resampling

from geocfl.core.grid import CellGrid
from geocfl.core.legend import NODATA, Legend, palette, shown_classes
from geocfl.products.about import About
from geocfl.products.formats.html import asset, encoded, policy
from geocfl.products.formats.page_parts import credit, escaped, facts_list, swatch, warning_list
from geocfl.products.formats.sankey import sankey
from geocfl.products.scratch import open_cells

SHOWN_CELLS = 1600
"""Cells along a side of the page's maps; larger maps are resampled by the mode."""
ROWS = 60
"""Transitions in the page's table; the CSV file has all."""


def write_change_page(
    path: Path,
    cells: Path,
    bands: tuple[int, int],
    grid: CellGrid,
    legend: Legend,
    summary: Mapping[str, Any],
    title: str,
) -> None:
    """Writes the page.

    Args:
        path: HTML file to write.
        cells: Work raster with the class codes of both maps.
        bands: Numbers of their bands, the earlier map first.
        grid: Where the cells lie.
        legend: Names and colors of the class codes.
        summary: Content of ``X_change_summary.json``.
        title: Headline, such as the change map's name.
    """
    before, after = _thin(cells, bands)
    across, down = grid.meters_per_pixel()
    script = asset("change.js")
    changes = sorted((row for row in summary["classes"] if row["before"] != row["after"]), key=lambda r: -r["hectares"])
    page = Template(asset("change.html")).substitute(
        policy=policy(script),
        title=escaped(title),
        subtitle=escaped(_subtitle(grid, summary)),
        warnings=warning_list(summary["warnings"]),
        earlier=escaped(_label(summary["before"])),
        later=escaped(_label(summary["after"])),
        before=_png(before, legend),
        after=_png(after, legend),
        veil=_veil(before, after),
        ratio=f"{grid.columns * across:.6g} / {grid.rows * down:.6g}",
        width=f"{grid.columns * across / (grid.rows * down):.6g}",
        legend=_legend(legend, before, after),
        classes=_class_rows(legend, summary["by_class"]),
        sankey=sankey(summary["classes"], legend),
        changes=_change_rows(legend, changes[:ROWS]),
        more=f"{len(changes) - ROWS} smaller ones are in the CSV file." if len(changes) > ROWS else "",
        probability=escaped(_probability_note(summary["probability_from"])),
        provenance=_provenance(summary),
        credit=escaped(credit(About.of_change(summary))),
        page_css=asset("page.css"),
        change_css=asset("change.css"),
        script=script,
    )
    # Names of files may hold bytes that are not characters; the browser shows those as question marks.
    path.write_text(page, encoding="utf-8", errors="xmlcharrefreplace", newline="\n")


def _thin(cells: Path, bands: Sequence[int]) -> NDArray[np.uint8]:
    """(2, rows, columns) class codes of both maps, resampled by the mode to at most `SHOWN_CELLS` along a side."""
    with open_cells(cells) as dataset:
        block = max(1.0, max(dataset.shape) / SHOWN_CELLS)
        shape = tuple(math.ceil(side / block) for side in dataset.shape)
        values = dataset.read(list(bands), out_shape=(len(bands), *shape), resampling=Resampling.mode)
    return np.asarray(values, np.uint8)


def _png(codes: NDArray[np.uint8], legend: Legend) -> str:
    """A map as the address of a picture, with no data transparent."""
    image = Image.fromarray(codes, "P")
    image.putpalette(palette(legend)[:, :3].tobytes())
    return _address(image, transparency=NODATA)


def _veil(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> str:
    """A white picture that is transparent where the class changed."""
    same = (before == after).astype(np.uint8)
    image = Image.fromarray(same, "P")
    image.putpalette(bytes([255] * 6))
    return _address(image, transparency=0)


def _address(image: Image.Image, transparency: int) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "png", optimize=True, transparency=transparency)
    return f"data:image/png;base64,{encoded(buffer.getvalue())}"


def _subtitle(grid: CellGrid, summary: Mapping[str, Any]) -> str:
    changed, total = summary["changed"], summary["total"]
    return " · ".join(
        [
            *filter(None, [About.of_change(summary).taken]),
            f"{changed['hectares']:,.0f} ha changed ({changed['share']:.1%})",
            f"{total['hectares']:,.0f} ha in {total['cells']:,} cells of {summary['cell_size_m']:g} m",
            grid.crs_name(),
        ]
    )


def _label(facts: Mapping[str, Any]) -> str:
    """A map's date, or its name if it has none."""
    return str(facts["datetime"] or "")[:10] or str(facts["name"])


def _legend(legend: Legend, *maps: NDArray[np.uint8]) -> str:
    present = set(np.unique(np.stack(maps)).tolist())
    shown = [c for c in shown_classes(legend, unclassified=True) if c.code in present]
    return "\n".join(f"<li>{swatch(c)} {escaped(c.name)}</li>" for c in shown)


def _class_rows(legend: Legend, rows: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join(
        f"<tr><th scope='row'>{swatch(legend[row['code']])}{escaped(row['name'])}</th>"
        + "".join(f"<td>{row[key]:,.1f}</td>" for key in ("before_ha", "after_ha"))
        + f"<td>{row['after_ha'] - row['before_ha']:+,.1f}</td>"
        + "".join(f"<td>{row[key]:,.1f}</td>" for key in ("stayed_ha", "lost_ha", "gained_ha"))
        + "</tr>"
        for row in rows
        if row["before_ha"] or row["after_ha"]
    )


def _change_rows(legend: Legend, rows: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join(
        f"<tr><th scope='row'>{swatch(legend[row['before']])}{escaped(legend[row['before']].name)}</th>"
        f"<td style='text-align:left'>{swatch(legend[row['after']])} {escaped(legend[row['after']].name)}</td>"
        f"<td>{row['cells']:,}</td><td>{row['hectares']:,.1f}</td>"
        f"<td>{'' if row['probability'] is None else format(row['probability'], '.2f')}</td></tr>"
        for row in rows
    )


def _probability_note(kind: str) -> str:
    """How to read the last column."""
    if not kind:
        return "There is no probability of change, because the maps have neither probabilities nor confidences."
    source = "the probabilities of all classes" if kind == "probabilities" else "the confidences"
    return f"Probability is the mean probability of change of the cells, computed from {source} on both maps."


def _provenance(summary: Mapping[str, Any]) -> str:
    groups = {
        "Earlier map": summary["before"],
        "Later map": summary["after"],
        "Settings": summary["settings"],
        "Software": {"geocfl": summary["geocfl"], "hash of maps and settings": summary["hash"]},
    }
    parts = [f"<section>\n<h3>{name}</h3>\n{facts_list(facts)}\n</section>" for name, facts in groups.items()]
    return "<div class='facts'>\n" + "\n".join(parts) + "\n</div>"
