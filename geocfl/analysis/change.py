"""Change between two maps of the same place: transitions, their hectares, and the probability of change."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from geocfl._version import __version__
from geocfl.analysis.change_cells import Evidence, kind_of_evidence
from geocfl.analysis.change_files import write_change_files
from geocfl.analysis.change_probability import PERSISTENCE, forbidden_pairs, persistent_prior, read_prior, without
from geocfl.analysis.overlap import overlap
from geocfl.core.grid import CellGrid
from geocfl.core.keywords import declared
from geocfl.core.legend import Legend
from geocfl.core.progress import Progress, silent
from geocfl.errors import DataError, UsageError
from geocfl.products.change_map import ChangeMap, open_change
from geocfl.products.files import CHANGE, CHANGE_FILES
from geocfl.products.scene_map import SceneMap, georeferenced
from geocfl.products.staging import Staging
from geocfl.products.storage import in_store, output_folder
from geocfl.products.summary import GDAL_CACHE


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
                write_change_files(both, legend, evidence, summary, min_area, links, stage, target, progress)
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
