"""Change between two maps of the same place: transitions, their hectares, and the probability of change."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from geocfl._version import __version__
from geocfl.analysis.change_cells import (
    AFTER,
    BEFORE,
    CHANGED,
    PROBABILITY,
    Evidence,
    kind_of_evidence,
    write_cells,
)
from geocfl.analysis.change_probability import PERSISTENCE, forbidden_pairs, persistent_prior, read_prior, without
from geocfl.analysis.change_tables import change_tables, resolved_rows
from geocfl.analysis.overlap import Overlap, overlap
from geocfl.core.grid import CellGrid
from geocfl.core.keywords import declared
from geocfl.core.legend import Legend
from geocfl.core.progress import Progress, silent
from geocfl.core.table import spreadsheet_text
from geocfl.core.transitions import INCOMPLETE, transition_classes
from geocfl.errors import DataError, UsageError
from geocfl.products.about import About
from geocfl.products.change_map import LAYER, ChangeMap, open_change
from geocfl.products.files import CHANGE, CHANGE_FILES
from geocfl.products.formats.attribute_table import write_attribute_table
from geocfl.products.formats.change_page import write_change_page
from geocfl.products.formats.qgis import write_change_project
from geocfl.products.formats.qml import change_polygons_qml, lulc_qml, probability_qml, write_style
from geocfl.products.formats.raster import write_change, write_change_probability
from geocfl.products.formats.vector import write_default_styles, write_polygons
from geocfl.products.polygons import outline
from geocfl.products.scene_map import SceneMap, georeferenced
from geocfl.products.staging import Staging
from geocfl.products.storage import in_store, output_folder
from geocfl.products.summary import GDAL_CACHE

log = logging.getLogger("geocfl")

SAME_PLACE = 0.999
"""Share of a map that the other one covers from which nothing is said."""


@declared
def change(
    before: SceneMap | str | Path,
    after: SceneMap | str | Path,
    out: str | Path,
    *,
    forbid: Sequence[tuple[str, str]] = (),
    persistence: float | None = None,
    prior: str | Path | None = None,
    min_area: float = 0.0,
    overwrite: bool = False,
    progress: Progress = silent,
) -> ChangeMap:
    """Maps the change between two maps of the same place and legend.

    Writes ``X_change.tif`` (uint16: 100 times the class code before, plus the class code after; 0 no data, 65535
    unclassified on one map) with its attribute table and style, ``X_change_probability.tif`` with its style,
    ``X_change.gpkg`` (polygons of change, layer ``change``), ``X_change.csv`` (hectares of each transition),
    ``X_change.qgz`` (QGIS project), ``X_change.html`` (page with a swipe) and ``X_change_summary.json``, whole or not
    at all. Legends of 100 classes and more have 256 instead of 100.

    The map covers the cells that both maps cover. Where their cells coincide, the hectares of each class are those of
    both maps; else each cell takes the nearest one of the other map.

    The probability of change is 1 - sum_i a_i b_i T_ii / sum_ij a_i b_j T_ij, where a and b are the probabilities of
    the classes on both maps and T is a prior of transitions whose rows have a sum of 1. If a map has no raster of
    probabilities, they are made from the confidences; without these there is no probability of change.

    Args:
        before: The earlier map, as `geocfl.open_map` takes it, or a map that `geocfl.map_scene` has returned.
        after: The later map.
        out: ``X_change.tif``; its folder is created if needed.
        forbid: Transitions that cannot be, as pairs of class names, such as ``[("Residential", "Forest")]``. Their
            cells get the most probable pair of classes that is possible. Needs confidences beside both maps.
        persistence: Probability in the prior that a cell keeps its class, 0..1; all other classes are equally likely.
            The default is 0.9.
        prior: Use the shares in this CSV file as prior instead: the table of another change map.
        min_area: Leave out smaller polygons, hectares. Raster and tables keep their cells.
        overwrite: Replace another change map.
        progress: Called with the strips that are done.

    Returns:
        The change map.

    Raises:
        UsageError: `out` has another ending, a class in `forbid` is unknown, or an argument is out of range.
        DataError: A map cannot be read; the maps do not overlap, have other classes, or are the same map; or `prior`
            cannot be used.
        OutputError: Another change map exists already, or a file cannot be written.
    """
    target = _checked_target(out)
    if not 0 <= min_area < float("inf"):
        raise UsageError(f"`min_area` is {min_area} but must be 0 or more hectares")
    if persistence is not None and prior is not None:
        raise UsageError("`persistence` and `prior` exclude each other; use one of them")
    if persistence is not None and not 0 < persistence < 1:
        raise UsageError(f"`persistence` is {persistence} but must be between 0 and 1")
    maps = (georeferenced(before), georeferenced(after))
    legend = _common_legend(*maps)
    pairs = forbidden_pairs(_pairs_of_names(forbid), legend)
    matrix = read_prior(Path(prior), legend) if prior else persistent_prior(len(legend), persistence or PERSISTENCE)
    kind = kind_of_evidence(maps)
    if pairs and not kind:
        lacking = next(m for m in maps if "confidence" not in m.paths)
        raise DataError(f"{lacking.path}: has no confidence beside it, which `forbid` needs; map its scene again")
    forbidden = np.zeros((256, 256), bool)
    for pair in pairs:
        forbidden[pair] = True
    evidence = Evidence(kind, without(matrix, pairs, legend) if pairs else matrix, forbidden)
    facts = [_facts(m) for m in maps]
    if facts[0]["sha256"] == facts[1]["sha256"]:
        raise DataError(f"{maps[1].path}: is the same map as {maps[0].path}; pass maps of two dates")
    settings = {
        "forbid": [f"{legend[i].name} > {legend[j].name}" for i, j in pairs],
        "persistence": None if prior else persistence or PERSISTENCE,
        "prior": Path(prior).name if prior else None,
        "min_area": float(min_area),
    }
    links = tuple(_relative(m.path, target.parent) for m in maps)
    digest = _digest([facts, settings, matrix.tolist(), links, [_evidence_hash(m, kind) for m in maps]])
    suffixes = [s for name, s in CHANGE_FILES.items() if kind or not name.startswith("probability")]
    with Staging(
        target.parent, target.stem, digest, overwrite=overwrite, suffixes=suffixes, known=CHANGE_FILES.values()
    ) as stage:
        if stage.state != "done":
            both = overlap(*maps)
            summary = {
                "geocfl": __version__,
                "hash": digest,
                "kind": "change",
                "before": facts[0],
                "after": facts[1],
                "settings": settings,
                "probability_from": kind,
                "grid": _grid_facts(both.grid),
                "cell_size_m": round(both.grid.stride * both.grid.meters_per_pixel()[1], 6),
                "legend": [{**entry, "folder": ""} for entry in legend.to_json()],
            }
            with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE):
                _write(both, legend, evidence, summary, min_area, links, stage, target, progress)
            stage.commit()
        already = stage.state == "done"
    made = open_change(target)
    return ChangeMap(made.paths, made.summary, already_done=already)


def _checked_target(out: str | Path) -> Path:
    target = output_folder(out)
    if in_store(target):
        raise UsageError(f"`out` is {out}, but change maps are written only to disks; choose a file there")
    if not target.name.endswith(f"{CHANGE}.tif") or target.stem == CHANGE:
        right = target.with_name(f"{target.stem.removesuffix(CHANGE) or 'valley'}{CHANGE}.tif")
        raise UsageError(f"`out` is {target} but must end in {CHANGE}.tif, such as {right}")
    return target


def _common_legend(before: SceneMap, after: SceneMap) -> Legend:
    """The legend of both maps.

    Raises:
        DataError: They differ.
    """
    if before.legend.names != after.legend.names:
        odd = sorted({*before.legend.names} ^ {*after.legend.names})
        differ = f"only one of them has {odd[0]}" if odd else "their order differs"
        raise DataError(
            f"{after.path}: has other classes than {before.path} ({differ}); pass maps that the same model has made, "
            "or use geocfl compare-maps",
            page="how-to/two-dates/",
        )
    return after.legend


def _pairs_of_names(forbid: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    pairs = []
    for entry in forbid:
        if isinstance(entry, str) or len(entry) != 2 or not all(isinstance(name, str) for name in entry):
            raise UsageError(f"`forbid` has {entry!r} but must have pairs of class names, such as ('River', 'Forest')")
        pairs.append((entry[0], entry[1]))
    return pairs


def _facts(m: SceneMap) -> dict[str, Any]:
    """What the summary says of a map."""
    known = m.summary if "summary" in m.paths or "summary" in vars(m) else {}
    return {
        "name": m.name,
        "file": m.path.name,
        "sha256": _hash(m.path),
        "hash": known.get("cells") or known.get("hash"),
        "datetime": known.get("scene", {}).get("datetime"),
        "mission": known.get("scene", {}).get("mission"),
        "model": m.model,
    }


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _evidence_hash(m: SceneMap, kind: str) -> str:
    return _hash(m.paths[kind]) if kind else ""


def _digest(facts: Any) -> str:
    return hashlib.sha256(json.dumps([__version__, facts]).encode()).hexdigest()


def _relative(path: Path, folder: Path) -> str:
    """A path for a project in a folder; absolute where no relative one exists, as on another drive or in a store."""
    if in_store(path):
        return str(path)
    try:
        return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:
        return path.resolve().as_posix()


def _grid_facts(grid: CellGrid) -> dict[str, Any]:
    return {
        "height": grid.height,
        "width": grid.width,
        "stride": grid.stride,
        "transform": list(grid.transform[:6]),
        "crs": grid.crs.to_wkt(),
        "bounds": list(grid.bounds()),
    }


def _write(
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
    """Writes every file of a change map into its partial folder, and completes the summary."""
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
