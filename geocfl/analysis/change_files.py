"""The files of a change map: rasters, polygons, table, project, page and summary."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from geocfl._version import __version__
from geocfl.analysis.change_cells import AFTER, BEFORE, CHANGED, PROBABILITY, Evidence, write_cells
from geocfl.analysis.change_tables import change_tables, resolved_rows
from geocfl.analysis.overlap import Overlap
from geocfl.core.grid import CellGrid
from geocfl.core.legend import Legend
from geocfl.core.progress import Progress
from geocfl.core.table import spreadsheet_text
from geocfl.core.transitions import INCOMPLETE, transition_classes
from geocfl.errors import DataError
from geocfl.products.about import About
from geocfl.products.change_map import LAYER
from geocfl.products.files import CHANGE_FILES
from geocfl.products.formats.attribute_table import write_attribute_table
from geocfl.products.formats.change_page import write_change_page
from geocfl.products.formats.qgis import write_change_project
from geocfl.products.formats.qml import change_polygons_qml, lulc_qml, probability_qml, write_style
from geocfl.products.formats.raster import write_change, write_change_probability
from geocfl.products.formats.vector import write_default_styles, write_polygons
from geocfl.products.polygons import outline
from geocfl.products.staging import Staging

log = logging.getLogger("geocfl")

SAME_PLACE = 0.999
"""Share of a map that the other one covers from which nothing is said."""


def write_change_files(
    both: Overlap,
    legend: Legend,
    evidence: Evidence,
    summary: dict[str, Any],
    min_area: float,
    links: tuple[str, ...],
    stage: Staging,
    target: Path,
    progress: Progress,
) -> None:
    """Writes every file of a change map into its partial folder, and completes the summary.

    Args:
        both: The maps on their common grid.
        legend: That of both maps.
        evidence: What the probability of change is computed from, and which transitions cannot be.
        summary: What is known before the cells are compared; completed here.
        min_area: Smaller polygons are left out, hectares.
        links: Class rasters of both maps, as the project names them.
        stage: Where to write.
        target: The raster of transitions after the commit, for messages and names.
        progress: Called with the strips that are done.

    Raises:
        DataError: No cell has data on both maps.
    """
    grid, cells, probable = both.grid, stage.folder / "cells", bool(evidence.kind)
    path = {name: stage.path(suffix) for name, suffix in CHANGE_FILES.items()}
    counts = write_cells(both, cells, legend, evidence, progress, target.name)
    tables = change_tables(counts, legend, probable=probable)
    if tables["nodata"]["cells"] == tables["total"]["cells"]:
        raise DataError(f"{both.second.map.path}: has no data where {both.first.map.path} has; pass overlapping maps")
    summary |= tables | {"forbidden": resolved_rows(counts.resolved, legend)}
    summary["outside"] = {side: _outside(m, grid) for side, m in (("before", both.first), ("after", both.second))}
    summary["warnings"] = _warnings(both, summary)
    for warning in summary["warnings"]:
        log.warning("%s", warning)
    if not probable:
        log.info("%s: no probability of change, since a map has no confidences beside it", target)

    classes = transition_classes(legend, [(row["before"], row["after"]) for row in summary["classes"]])
    moved = [c for c, row in zip(classes, summary["classes"], strict=True) if row["before"] != row["after"]]
    stayed = [c for c in classes if c not in moved]
    incomplete = [INCOMPLETE] if summary["unclassified"]["cells"] else []
    tags = _tags(both, grid)
    write_change(cells, path["change"], grid, tags)
    covers = [*summary["classes"], *([summary["unclassified"]] if incomplete else [])]
    write_attribute_table(path["change"], [*classes, *incomplete], covers)
    write_style(path["change_style"], lulc_qml([*moved, *stayed, *incomplete]))
    if probable:
        write_change_probability(cells, path["probability"], grid, tags)
        write_style(path["probability_style"], probability_qml())
    summary["polygons"] = _write_polygons(cells, path["gpkg"], grid, legend, summary, min_area, moved)
    _write_table(path["table"], summary["transitions"])
    write_change_project(
        path["project"],
        target.stem,
        grid,
        legend,
        moved,
        [*stayed, *incomplete],
        (links[0], links[1]),
        probability=probable,
        about=About.of_change(summary),
    )
    write_change_page(path["report"], cells, (BEFORE, AFTER), grid, legend, summary, target.stem)
    path["summary"].write_text(
        json.dumps(summary, indent=2, ensure_ascii=False) + "\n",
        encoding="utf-8",
        errors="backslashreplace",
        newline="\n",
    )


def _outside(part: Any, grid: CellGrid) -> float:
    """Hectares of a map's rectangle outside the change map, about: those of its own cells less those of the grid."""
    own = part.map.grid.areas()
    total = float(sum(rows.sum() * columns.sum() for rows, columns in zip(own.rows, own.columns, strict=True)))
    shared = grid.areas()
    common = float(sum(rows.sum() * columns.sum() for rows, columns in zip(shared.rows, shared.columns, strict=True)))
    return max(0.0, total - common)


def _warnings(both: Overlap, summary: Mapping[str, Any]) -> list[str]:
    """What makes change look larger than it is, or smaller."""
    one, two = both.first, both.second
    warnings = []
    for side, part in (("before", one), ("after", two)):
        inside = summary["total"]["hectares"]
        share = inside / (inside + summary["outside"][side])
        if share < SAME_PLACE:
            warnings.append(
                f"{part.map.path.name}: only {share:.1%} of the map lies on the other one; the rest is left out"
            )
    if not (one.copied and two.copied):
        warnings.append("the cells of both maps do not coincide, so each cell is compared with the nearest one")
    if one.map.model != two.map.model:
        warnings.append(
            f"the maps come from different models ({one.map.model or 'unknown'} and {two.map.model or 'unknown'}), "
            "whose differences count as change"
        )
    dates = [summary[side]["datetime"] for side in ("before", "after")]
    if all(dates) and dates[0] > dates[1]:
        warnings.append(f"{one.map.path.name} was taken after {two.map.path.name}; swap them to map change in time")
    if found := sum(row["hectares"] for row in summary["forbidden"]):
        warnings.append(
            f"{found:,.1f} ha had a forbidden transition and got the most probable pair of classes that is possible"
        )
    return warnings


def _tags(both: Overlap, grid: CellGrid) -> dict[str, str]:
    maps = (both.first.map, both.second.map)
    return {
        "GEOCFL_VERSION": __version__,
        "GEOCFL_KIND": "change",
        "GEOCFL_MODEL": ", ".join(sorted({m.model for m in maps} - {""})),
        "GEOCFL_SOURCE": " > ".join(m.path.name for m in maps),
        "GEOCFL_STRIDE": str(grid.stride),
        "GEOCFL_WIDTH": str(grid.width),
        "GEOCFL_HEIGHT": str(grid.height),
    }


def _write_polygons(
    cells: Path,
    path: Path,
    grid: CellGrid,
    legend: Legend,
    summary: Mapping[str, Any],
    min_area: float,
    moved: Sequence[Any],
) -> dict[str, Any]:
    """Writes the polygons of change, and returns how many there are and how many were left out."""
    probable = bool(summary["probability_from"])
    means = {"probability": (PROBABILITY, 100)} if probable else {}
    polygons = outline(cells, grid, moved, CHANGED, means)
    names = {row["code"]: (legend[row["before"]].name, legend[row["after"]].name) for row in summary["classes"]}
    ends = [names[code] for code in polygons["class_code"].tolist()]
    polygons.insert(2, "from_class", [before for before, _ in ends])
    polygons.insert(3, "to_class", [after for _, after in ends])
    large = polygons["area_ha"].round(9) >= min_area
    kept = polygons[large].reset_index(drop=True)
    write_polygons(kept, path, "gpkg", LAYER)
    write_default_styles(path, {LAYER: change_polygons_qml(moved, probability=probable)})
    return {
        "count": len(kept),
        "hectares": float(kept["area_ha"].sum()),
        "left_out": int((~large).sum()),
        "left_out_hectares": float(polygons.loc[~large, "area_ha"].sum()),
    }


def _write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes the long table of transitions as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(rows[0])
        for row in rows:
            values = (f"{value:.6f}" if isinstance(value, float) else spreadsheet_text(value) for value in row.values())
            writer.writerow(["" if value is None else value for value in values])
