"""A mosaic as new rasters."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from affine import Affine
from rasterio.errors import RasterioError
from rasterio.features import geometry_mask

from geocfl._version import __version__
from geocfl.analysis.alignment import AlignedMap
from geocfl.analysis.mosaic_record import Kept, facts_of, kept_cells, rasters_of, read_record, time_of
from geocfl.analysis.overlap_rules import RULES, Piece, Rule
from geocfl.core.files import check_readable
from geocfl.core.grid import CellGrid
from geocfl.core.legend import NODATA, Legend
from geocfl.core.progress import Progress, counted
from geocfl.errors import DataError, OutputError
from geocfl.products import scratch
from geocfl.products.files import FILES, LULC
from geocfl.products.formats.qml import confidence_qml, lulc_qml, polygons_qml, write_style
from geocfl.products.formats.raster import write_confidence, write_lulc
from geocfl.products.formats.stac import write_item
from geocfl.products.formats.vector import write_default_styles, write_polygons
from geocfl.products.formats.vector_formats import POLYGONS
from geocfl.products.polygons import dissolve
from geocfl.products.scene_map import SceneMap, open_map
from geocfl.products.selection import Selection
from geocfl.products.staging import Staging
from geocfl.products.storage import in_store, open_raster, reaching
from geocfl.products.summary import GDAL_CACHE, ClassTable, class_table, class_table_of_rasters

PASTED_CELLS = 8_000_000
"""Cells pasted at a time, some 60 MB: the higher a strip, the fewer times each map is opened."""
CELL_BYTES = 8
"""Memory for each of them; rules that weigh classes take more for each class, and get fewer cells."""
ENDS = ("start", "end")
VERSION_TAG = "GEOCFL_VERSION"
"""Metadata by which a file is recognized as geocfl's."""
NAMED = 100
"""Maps that a mosaic names in its metadata, which readers fetch before any cell."""


class NoDataInRegionError(DataError):
    """No map has data in a region."""


def write_raster(
    grid: CellGrid,
    maps: Sequence[AlignedMap],
    target: Path,
    polygons: Selection,
    overwrite: bool,
    progress: Progress,
    region: Any = None,
    *,
    overlap: str = "confidence",
    keep_mark: bool = False,
    update: bool = False,
    tile_of: str | None = None,
) -> tuple[list[Path], ClassTable]:
    """Writes class raster, confidence, styles and polygons, whole or not at all.

    Args:
        grid: The mosaic's cells.
        maps: The maps on it, of one legend.
        target: ``X_lulc.tif``.
        polygons: Their formats.
        overwrite: Replace existing files.
        progress: Called with the strips that are done.
        region: Shape in cells of the grid; cells outside have no data.
        overlap: What counts where maps overlap, a key of `geocfl.analysis.overlap_rules.RULES`.
        keep_mark: Whether to keep a mark by which a later call recognizes the mosaic as done.
        update: Replace a mosaic made by the same rule, and keep its cells where the maps are the same.
        tile_of: The grid that the mosaic is a tile of; it then gets a STAC Item, if it is known when scenes were taken.

    Returns:
        The files, and what each class covers.

    Raises:
        NoDataInRegionError: No map has data in the region or tile.
        DataError: A map lacks a raster or time that the rule needs, cannot be decoded, or holds codes that its
            legend lacks.
        OutputError: A file exists already or cannot be written.
    """
    rule = RULES[overlap]
    for part in maps:
        for product in (*rule.needs, *(name for name in rule.uses if name in part.map.paths)):
            _require(part.map, product)
    if rule.newest_first:
        maps = sorted(maps, key=lambda part: time_of(part.map), reverse=True)
    legend = maps[0].map.legend
    wanted = Selection.of(["lulc", "confidence"], ()).files | polygons.files
    outline = hashlib.sha256(shapely.to_wkt(region, -1).encode()).hexdigest() if region is not None else None
    stem = target.stem.removesuffix(LULC)
    settings = {"overlap": overlap, "vector": polygons.vector, "region": outline, "grid": tile_of}
    facts = facts_of(grid, maps, stem, settings)
    times = [datetime.fromisoformat(time) for time in (facts["scene"][f"{end}_datetime"] for end in ENDS) if time]
    if tile_of and times:
        wanted |= {"stac"}
    files = {name: suffix for name, suffix in FILES.items() if name in wanted}
    suffixes = list(files.values())
    with reaching(target.parent, "check the address and the store's credentials"):
        record = read_record(target) if update else None
    if record and record["settings"].get("overlap") != overlap and not overwrite:
        raise OutputError(
            f"{target}: was made with `overlap={record['settings'].get('overlap')}`; pass the same, or use "
            "`overwrite=True` to replace it"
        )
    replaces = overwrite or bool(record and record["hash"] != facts["hash"])
    known = [stem, facts["hash"]]
    with Staging(target.parent, *known, overwrite=replaces, suffixes=suffixes, keep_mark=keep_mark) as stage:
        paths = [stage.target(suffix) for suffix in suffixes]
        if stage.state == "done":  # by an earlier run, which may have had only to move the last files
            return paths, open_map(target).classes
        cells = stage.folder / "cells"
        kept = kept_cells(record, facts, grid, target) if record else None
        with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE):
            correlations = [source["correlation"] for source in facts["maps"]]
            _paste(grid, maps, correlations, rule, cells, region, progress, target.name, kept)
            table = class_table(cells, grid, legend)
            if (region is not None or tile_of) and table["nodata"]["cells"] == table["total"]["cells"]:
                raise NoDataInRegionError(f"{target}: no map has data there")
            tags = mosaic_tags(maps, grid)
            write_lulc(cells, stage.path(FILES["lulc"]), grid, legend, tags)
            write_confidence(cells, stage.path(FILES["confidence"]), grid, tags)
        unclassified = bool(table["unclassified"]["cells"])
        write_style(stage.path(FILES["lulc_style"]), lulc_qml(legend, unclassified=unclassified))
        write_style(stage.path(FILES["confidence_style"]), confidence_qml())
        if polygons.vector:
            _write_polygons(cells, grid, legend, polygons, stage, unclassified)
        made = rasters_of({name: stage.path(FILES[name]) for name in ("lulc", "confidence")})
        summary = {**facts, "rasters": made, **table}
        if "stac" in files:
            assets = {name: stage.target(suffix).name for name, suffix in files.items() if name != "stac"}
            write_item(stage.path(FILES["stac"]), stem, grid, legend, summary, assets, (times[0], times[1]))
        stage.path(FILES["summary"]).write_text(
            json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n"
        )
        stage.commit()
    return paths, table


def mosaic_tags(maps: Sequence[AlignedMap], grid: CellGrid) -> dict[str, str]:
    """Metadata of a mosaic's rasters."""
    names = [part.map.path.name for part in maps]
    rest = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return {
        VERSION_TAG: __version__,
        "GEOCFL_MODEL": ", ".join(sorted({part.map.model for part in maps} - {""})),
        "GEOCFL_SOURCE": ", ".join(names[:NAMED]) + rest,
        "GEOCFL_STRIDE": "1",
        "GEOCFL_WIDTH": str(grid.width),
        "GEOCFL_HEIGHT": str(grid.height),
    }


def count_classes(lulc: str | Path, confidence: Path | None, grid: CellGrid, legend: Legend) -> ClassTable:
    """What each class covers in the rasters of a mosaic; `lulc` may be the text of a virtual one.

    Raises:
        DataError: They cannot be decoded, or hold codes that the legend lacks.
    """
    try:
        return class_table_of_rasters(lulc, confidence, grid, legend)
    except RasterioError as error:
        raise DataError(f"a map's cells cannot be decoded ({error.__cause__ or error}); map its scene again") from error
    except ValueError as error:
        raise DataError(f"a map holds codes that its legend lacks ({error}); pass unchanged maps") from error


def _write_polygons(
    cells: Path, grid: CellGrid, legend: Legend, polygons: Selection, stage: Staging, unclassified: bool
) -> None:
    """Writes the polygons in every format, styled."""
    outlines = dissolve(cells, grid, legend)
    for format in polygons.vector:
        write_polygons(outlines, stage.path(FILES[format]), format)
    style = polygons_qml(legend, unclassified=unclassified)
    if "gpkg" in polygons.vector:
        write_default_styles(stage.path(FILES["gpkg"]), {POLYGONS: style})
    if "polygons_style" in polygons.files:
        write_style(stage.path(FILES["polygons_style"]), style)


def _paste(
    grid: CellGrid,
    maps: Sequence[AlignedMap],
    correlations: Sequence[float],
    rule: Rule,
    cells: Path,
    region: Any,
    progress: Progress,
    name: str,
    kept: Kept | None,
) -> None:
    """Writes the work raster, strip by strip with one map open at a time; takes from an earlier mosaic what it can."""
    scratch.write_header(cells, grid.rows, grid.columns)
    classes = len(maps[0].map.legend)
    step = max(1, PASTED_CELLS * CELL_BYTES // (CELL_BYTES + rule.planes * classes) // grid.columns)
    with cells.open("wb") as file:
        for first in counted(range(0, grid.rows, step), progress, name, -(-grid.rows // step), "strip"):
            last = min(first + step, grid.rows)
            pieces = [
                piece
                for part, correlation in zip(maps, correlations, strict=True)
                if (piece := _piece(part, grid, first, last, correlation))
            ]
            if kept:
                stale = kept.stale_cells(first, last, grid.columns)
                pieces = [piece for piece in pieces if stale[piece.there].any()]
            codes, confidence = rule.cells(pieces, (last - first, grid.columns), classes)
            if region is not None:
                outside = geometry_mask([region], codes.shape, Affine.translation(0, first))
                codes[outside], confidence[outside] = NODATA, scratch.NO_CONFIDENCE
            if kept:
                kept.fill(first, codes, confidence, stale)
            file.write(np.stack([codes, confidence], axis=1).tobytes())


def _piece(part: AlignedMap, grid: CellGrid, first: int, last: int, correlation: float) -> Piece | None:
    """The part of a map in the rows of a strip; None if there is none."""
    rows = slice(max(first, part.top), min(last, part.bottom))
    columns = slice(max(0, part.left), min(grid.columns, part.right))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return None
    return Piece(part, grid, rows, columns, (slice(rows.start - first, rows.stop - first), columns), correlation)


def _require(m: SceneMap, product: str) -> None:
    """Refuses a map one of whose rasters is absent, broken, or of other cells."""
    path = m.paths.get(product)
    if path is None:
        remedy = (
            f"put it there, map the scene with `products=default`, or use X{LULC}.vrt as `out`"
            if product == "confidence"
            else f"map the scene with `products=default,{product}`"
        )
        raise DataError(f"{m.path}: {m.name}{FILES[product]} is not beside it; {remedy}")
    try:
        with open_raster(path) as dataset:
            same = dataset.shape == (m.grid.rows, m.grid.columns)
            same &= dataset.transform.almost_equals(m.grid.cell_transform, 1e-6)
    except RasterioError as error:
        if not in_store(path):
            check_readable(path)
        raise DataError(f"{path}: not a raster that GDAL reads; map its scene again") from error
    if not same:
        raise DataError(f"{path}: has other cells than {m.path.name}; pass both as geocfl has written them")
