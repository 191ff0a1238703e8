"""Writes all the products of a map from its cells."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geocfl.core.grid import CellGrid
from geocfl.core.legend import Legend
from geocfl.products.about import About
from geocfl.products.files import FILES
from geocfl.products.formats.features import FeatureSpace, write_features
from geocfl.products.formats.preview import write_preview
from geocfl.products.formats.qml import (
    confidence_qml,
    entropy_qml,
    lulc_qml,
    novelty_qml,
    polygons_qml,
    sets_qml,
    windows_qml,
    write_style,
)
from geocfl.products.formats.raster import (
    write_confidence,
    write_entropy,
    write_lulc,
    write_novelty,
    write_probabilities,
    write_sets,
)
from geocfl.products.formats.truecolor import stretch, write_truecolor
from geocfl.products.formats.vector import write_default_styles, write_polygons, write_windows
from geocfl.products.formats.vector_formats import POLYGONS, WINDOWS
from geocfl.products.generalize import merge_small
from geocfl.products.polygons import dissolve, simplify
from geocfl.products.selection import Selection
from geocfl.products.staging import Staging
from geocfl.products.summary import class_table
from geocfl.products.unlike import unlike_land, unlike_sentence


@dataclass(frozen=True)
class ClassifiedScene:
    """A scene whose cells are all classified.

    Attributes:
        stem: Stem of the scene's file name; the products' names begin with it.
        cells: Work raster.
        grid: Where the cells lie.
        legend: Names and colors of the codes.
        thumbnail: (H, W, 3) reflectance of every n-th pixel of the scene in red, green and blue; NaN is no data.
        tags: Metadata of the rasters.
        facts: The summary without its class table.
        when: When the scene was taken; only a STAC Item needs it.
        space: What the features of the cells are the components of; only their file needs it.
    """

    stem: str
    cells: Path
    grid: CellGrid
    legend: Legend
    thumbnail: NDArray[np.floating]
    tags: Mapping[str, str]
    facts: Mapping[str, Any]
    when: datetime | None = None
    space: FeatureSpace | None = None


def write_products(
    scene: ClassifiedScene, selection: Selection, staging: Staging, *, simplify_m: float = 0.0, min_area_ha: float = 0.0
) -> dict[str, Any]:
    """Writes every product of a selection except the summary.

    Args:
        scene: The scene and its cells.
        selection: What to write.
        staging: Where to write it.
        simplify_m: Tolerance in meters that polygons are simplified by, see `geocfl.products.polygons.simplify`.
        min_area_ha: Polygons smaller than this are merged, see `geocfl.products.generalize.merge_small`.

    Returns:
        The summary, which the caller writes.
    """
    cells, grid, legend, tags = scene.cells, scene.grid, scene.legend, scene.tags
    path = {name: staging.path(suffix) for name, suffix in FILES.items()}
    table = class_table(cells, grid, legend)
    withheld = bool(table["unclassified"]["cells"])
    summary = {**scene.facts, **table}
    if unlike := unlike_land(cells, grid):
        summary["novelty"] = unlike

    _write_rasters(scene, selection, path, withheld)
    if "lulc_sld" in selection.files:
        from geocfl.products.formats.sld import lulc_sld, polygons_sld

        write_style(path["lulc_sld"], lulc_sld(legend, unclassified=withheld))
        write_style(path["polygons_sld"], polygons_sld(legend, unclassified=withheld))

    if "zarr" in selection.files:
        from geocfl.products.formats.cube import write_cube

        write_cube(cells, path["zarr"], grid, legend, tags, layers=selection.products, when=scene.when)
    if "features" in selection.files and scene.space:
        summary["features"] = write_features(cells, path["features"], grid, scene.space, tags)

    _write_vectors(scene, selection, path, staging.folder / "merged", simplify_m, min_area_ha, withheld)

    picture = stretch(scene.thumbnail)
    if "truecolor" in selection.files:
        write_truecolor(path["truecolor"], picture, grid, tags)
    if "preview" in selection.files:
        # Its headline names the scene already.
        named = rf".*?{re.escape(summary['scene']['file'])}: "
        warnings = [re.sub(named, "", warning, count=1) for warning in summary["warnings"]]
        about = About.of(summary)
        note = unlike_sentence(summary)
        write_preview(path["preview"], picture, cells, grid, legend, scene.stem, note, warnings, about)
    if "report" in selection.files:
        from geocfl.products.formats.html import write_page

        write_page(path["report"], cells, grid, legend, picture, summary, scene.stem)
    if "project" in selection.files:
        from geocfl.products.formats.qgis import write_project

        present = {FILES[name] for name in selection.files}
        if "gpkg" not in selection.vector:  # it may hold only the squares of the cells
            present.discard(FILES["gpkg"])
        write_project(
            path["project"], scene.stem, grid, legend, present, unclassified=withheld, about=About.of(summary)
        )
    if "stac" in selection.files and scene.when:
        from geocfl.products.formats.stac import write_item

        assets = {name: staging.target(suffix).name for name, suffix in FILES.items() if name in selection.files}
        del assets["stac"]
        write_item(path["stac"], scene.stem, grid, legend, summary, assets, scene.when)
    return summary


def _write_rasters(scene: ClassifiedScene, selection: Selection, path: Mapping[str, Path], withheld: bool) -> None:
    """Writes one pixel per cell, each raster with its style."""
    cells, grid, legend, tags = scene.cells, scene.grid, scene.legend, scene.tags
    if "lulc" in selection.files:
        write_lulc(cells, path["lulc"], grid, legend, tags)
        write_style(path["lulc_style"], lulc_qml(legend, unclassified=withheld))
    if "confidence" in selection.files:
        write_confidence(cells, path["confidence"], grid, tags)
        write_style(path["confidence_style"], confidence_qml())
    if "probabilities" in selection.files:
        write_probabilities(cells, path["probabilities"], grid, legend, tags)
    if "entropy" in selection.files:
        write_entropy(cells, path["entropy"], grid, tags)
        write_style(path["entropy_style"], entropy_qml())
    if "novelty" in selection.files:
        write_novelty(cells, path["novelty"], grid, tags)
        write_style(path["novelty_style"], novelty_qml())
    if "sets" in selection.files:
        write_sets(cells, path["sets"], grid, legend, tags)
        write_style(path["sets_style"], sets_qml(len(legend)))


def _write_vectors(
    scene: ClassifiedScene,
    selection: Selection,
    path: Mapping[str, Path],
    merged: Path,
    simplify_m: float,
    min_area_ha: float,
    withheld: bool,
) -> None:
    """Writes polygons in every format, and the squares of the cells; `merged` is a path for a work raster."""
    grid, legend = scene.grid, scene.legend
    styles = {}
    if selection.vector:
        cells = scene.cells
        if min_area_ha:
            merge_small(cells, merged, grid, min_area_ha)
            cells = merged
        polygons = simplify(dissolve(cells, grid, legend), grid, simplify_m)
        for format in selection.vector:
            write_polygons(polygons, path[format], format)
        qml = polygons_qml(legend, unclassified=withheld)
        if "gpkg" in selection.vector:
            styles[POLYGONS] = qml
        if "polygons_style" in selection.files:
            write_style(path["polygons_style"], qml)
    if "windows" in selection.products:
        write_windows(scene.cells, path["gpkg"], grid, legend)
        styles[WINDOWS] = windows_qml(legend, unclassified=withheld)
    if styles:
        write_default_styles(path["gpkg"], styles)
