"""Writes all the products of a map from its cells."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
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
    valid_qml,
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
    write_valid,
)
from geocfl.products.formats.truecolor import stretch, thumbnail_step, write_truecolor
from geocfl.products.formats.vector import write_default_styles, write_polygons, write_windows
from geocfl.products.formats.vector_formats import POLYGONS, WINDOWS
from geocfl.products.generalize import merge_small
from geocfl.products.polygons import dissolve, simplify
from geocfl.products.selection import Selection
from geocfl.products.staging import Staging
from geocfl.products.summary import class_table
from geocfl.products.unlike import unlike_land, unlike_sentence
from geocfl.products.update import DETAILED


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
        counted: What is known of the cells already: a class table, and what the summary says of novelty and features.
        kept: Files that are in place already and are not written, each with its path.
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
    counted: Mapping[str, Any] = field(default_factory=dict)
    kept: Mapping[str, Path] = field(default_factory=dict)


def write_products(
    scene: ClassifiedScene, selection: Selection, staging: Staging, *, simplify_m: float = 0.0, min_area_ha: float = 0.0
) -> dict[str, Any]:
    """Writes every product of a selection except the summary and files that are kept.

    Args:
        scene: The scene and its cells.
        selection: What the map will hold.
        staging: Where to write it.
        simplify_m: Tolerance in meters that polygons are simplified by, see `geocfl.products.polygons.simplify`.
        min_area_ha: Polygons smaller than this are merged, see `geocfl.products.generalize.merge_small`.

    Returns:
        The summary, which the caller writes.
    """
    cells, grid, legend, tags = scene.cells, scene.grid, scene.legend, scene.tags
    path = {name: staging.path(suffix) for name, suffix in FILES.items()}
    files = selection.files - scene.kept.keys()
    summary = {**scene.facts, **(scene.counted or _counted(cells, grid, legend))}
    withheld = bool(summary["unclassified"]["cells"])

    _write_rasters(scene, files, path, withheld)
    if not files.isdisjoint({"lulc_sld", "polygons_sld"}):
        from geocfl.products.formats.sld import lulc_sld, polygons_sld

        write_style(path["lulc_sld"], lulc_sld(legend, unclassified=withheld))
        write_style(path["polygons_sld"], polygons_sld(legend, unclassified=withheld))

    if "zarr" in files:
        from geocfl.products.formats.cube import write_cube

        write_cube(cells, path["zarr"], grid, legend, tags, layers=selection.products, when=scene.when)
    if "features" in files and scene.space:
        summary["features"] = write_features(cells, path["features"], grid, scene.space, tags)

    _write_vectors(scene, selection, files, path, staging.folder / "merged", simplify_m, min_area_ha, withheld)

    detail = not DETAILED.isdisjoint(files)
    if detail:
        picture = stretch(scene.thumbnail)
    if "truecolor" in files:
        write_truecolor(path["truecolor"], picture, grid, tags)
    if "preview" in files:
        thinning = thumbnail_step(grid, detail=False) // thumbnail_step(grid, detail=detail)
        small = stretch(scene.thumbnail[::thinning, ::thinning])  # the same whether or not there is a larger picture
        # Its headline names the scene already.
        named = rf".*?{re.escape(summary['scene']['file'])}: "
        warnings = [re.sub(named, "", warning, count=1) for warning in summary["warnings"]]
        about = About.of(summary)
        note = unlike_sentence(summary)
        write_preview(path["preview"], small, cells, grid, legend, scene.stem, note, warnings, about)
    if "report" in files:
        from geocfl.products.formats.html import write_page

        write_page(path["report"], cells, grid, legend, picture, summary, scene.stem)
    if "project" in files:
        from geocfl.products.formats.qgis import write_project

        present = {FILES[name] for name in selection.files}
        if "gpkg" not in selection.vector:  # it may hold only the squares of the cells
            present.discard(FILES["gpkg"])
        write_project(
            path["project"], scene.stem, grid, legend, present, unclassified=withheld, about=About.of(summary)
        )
    if "stac" in files and scene.when:
        from geocfl.products.formats.stac import write_item

        assets = {name: staging.target(suffix).name for name, suffix in FILES.items() if name in selection.files}
        del assets["stac"]
        write_item(path["stac"], scene.stem, grid, legend, summary, assets, scene.when, scene.kept)
    return summary


def _counted(cells: Path, grid: CellGrid, legend: Legend) -> dict[str, Any]:
    """What the summary says of the cells."""
    unlike = unlike_land(cells, grid)
    return {**class_table(cells, grid, legend), **({"novelty": unlike} if unlike else {})}


def _write_rasters(scene: ClassifiedScene, files: Collection[str], path: Mapping[str, Path], withheld: bool) -> None:
    """Writes one pixel per cell, each raster with its style."""
    cells, grid, legend, tags = scene.cells, scene.grid, scene.legend, scene.tags
    if "lulc" in files or "attributes" in files:
        write_lulc(cells, path["lulc"], grid, legend, tags)
    if "confidence" in files:
        write_confidence(cells, path["confidence"], grid, tags)
    if "probabilities" in files:
        write_probabilities(cells, path["probabilities"], grid, legend, tags)
    if "entropy" in files:
        write_entropy(cells, path["entropy"], grid, tags)
    if "novelty" in files:
        write_novelty(cells, path["novelty"], grid, tags)
    if "valid" in files:
        write_valid(cells, path["valid"], grid, tags)
    if "sets" in files:
        write_sets(cells, path["sets"], grid, legend, tags)
    styles: dict[str, Callable[[], str]] = {
        "lulc_style": partial(lulc_qml, legend, unclassified=withheld),
        "confidence_style": confidence_qml,
        "entropy_style": entropy_qml,
        "novelty_style": novelty_qml,
        "valid_style": valid_qml,
        "sets_style": partial(sets_qml, len(legend)),
    }
    for name in styles.keys() & files:
        write_style(path[name], styles[name]())


def _write_vectors(
    scene: ClassifiedScene,
    selection: Selection,
    files: Collection[str],
    path: Mapping[str, Path],
    merged: Path,
    simplify_m: float,
    min_area_ha: float,
    withheld: bool,
) -> None:
    """Writes polygons in every format, and the squares of the cells; `merged` is a path for a work raster."""
    grid, legend = scene.grid, scene.legend
    styles = {}
    written = [format for format in selection.vector if format in files]
    if written:
        cells = scene.cells
        if min_area_ha:
            merge_small(cells, merged, grid, min_area_ha)
            cells = merged
        polygons = simplify(dissolve(cells, grid, legend), grid, simplify_m)
        for format in written:
            write_polygons(polygons, path[format], format)
        if "gpkg" in written:
            styles[POLYGONS] = polygons_qml(legend, unclassified=withheld)
    if "polygons_style" in files:
        write_style(path["polygons_style"], polygons_qml(legend, unclassified=withheld))
    if "windows" in selection.products and "gpkg" in files:
        write_windows(scene.cells, path["gpkg"], grid, legend)
        styles[WINDOWS] = windows_qml(legend, unclassified=withheld)
    if styles:
        write_default_styles(path["gpkg"], styles)
