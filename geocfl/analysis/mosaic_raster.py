"""A mosaic as new rasters: the most confident cell wins."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.features import geometry_mask

from geocfl._version import __version__
from geocfl.analysis.alignment import AlignedMap
from geocfl.core.files import check_readable
from geocfl.core.grid import CellGrid
from geocfl.core.legend import NODATA, UNCLASSIFIED, Legend
from geocfl.core.progress import Progress, counted
from geocfl.errors import DataError
from geocfl.products import scratch
from geocfl.products.files import FILES, LULC
from geocfl.products.formats.qml import confidence_qml, lulc_qml, polygons_qml, write_style
from geocfl.products.formats.raster import write_confidence, write_lulc
from geocfl.products.formats.vector import write_default_styles, write_polygons
from geocfl.products.formats.vector_formats import POLYGONS
from geocfl.products.polygons import dissolve
from geocfl.products.scene_map import SceneMap
from geocfl.products.selection import Selection
from geocfl.products.staging import Staging
from geocfl.products.storage import in_store, open_raster
from geocfl.products.summary import GDAL_CACHE, ClassTable, class_table, class_table_of_rasters

PASTED_CELLS = 8_000_000
"""Cells pasted at a time, some 60 MB: the higher a strip, the fewer times each map is opened."""
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
    keep_mark: bool = False,
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
        keep_mark: Whether to keep a mark by which a later call recognizes the mosaic as done.

    Returns:
        The files, and what each class covers.

    Raises:
        NoDataInRegionError: No map has data in the region.
        DataError: A map lacks its confidence, cannot be decoded, or holds codes that its legend lacks.
        OutputError: A file exists already or cannot be written.
    """
    for part in maps:
        _require_confidence(part.map)
    legend = maps[0].map.legend
    wanted = Selection.of(["lulc", "confidence"], ()).files | polygons.files
    suffixes = [suffix for name, suffix in FILES.items() if name in wanted and name != "summary"]
    digest = _digest(grid, maps, [*polygons.vector, shapely.to_wkt(region, -1) if region is not None else ""])
    stem = target.stem.removesuffix(LULC)
    with Staging(target.parent, stem, digest, overwrite=overwrite, suffixes=suffixes, keep_mark=keep_mark) as stage:
        paths = [stage.target(suffix) for suffix in suffixes]
        if stage.state == "done":  # by an earlier run, which may have had only to move the last files
            return paths, count_classes(target, stage.target(FILES["confidence"]), grid, legend)
        cells = stage.folder / "cells"
        with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE):
            _paste(grid, maps, cells, region, progress, target.name)
            table = class_table(cells, grid, legend)
            if region is not None and table["nodata"]["cells"] == table["total"]["cells"]:
                raise NoDataInRegionError(f"{target}: no map has data there")
            tags = mosaic_tags(maps, grid)
            write_lulc(cells, stage.path(FILES["lulc"]), grid, legend, tags)
            write_confidence(cells, stage.path(FILES["confidence"]), grid, tags)
        unclassified = bool(table["unclassified"]["cells"])
        write_style(stage.path(FILES["lulc_style"]), lulc_qml(legend, unclassified=unclassified))
        write_style(stage.path(FILES["confidence_style"]), confidence_qml())
        if polygons.vector:
            _write_polygons(cells, grid, legend, polygons, stage, unclassified)
        stage.commit()
    return paths, table


def mosaic_tags(maps: Sequence[AlignedMap], grid: CellGrid) -> dict[str, str]:
    """Metadata of a mosaic's rasters."""
    names = [part.map.path.name for part in maps]
    rest = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return {
        "GEOCFL_VERSION": __version__,
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


def _paste(grid: CellGrid, maps: Sequence[AlignedMap], cells: Path, region: Any, progress: Progress, name: str) -> None:
    """Writes the work raster, strip by strip with one map open at a time."""
    scratch.write_header(cells, grid.rows, grid.columns)
    step = max(1, PASTED_CELLS // grid.columns)
    with cells.open("wb") as file:
        for first in counted(range(0, grid.rows, step), progress, name, -(-grid.rows // step), "strip"):
            last = min(first + step, grid.rows)
            codes = np.full((last - first, grid.columns), NODATA, np.uint8)
            score = np.full(codes.shape, -1, np.int16)
            for part in maps:
                rows = slice(max(first, part.top), min(last, part.bottom))
                columns = slice(max(0, part.left), min(grid.columns, part.right))
                if rows.start < rows.stop and columns.start < columns.stop:
                    there = slice(rows.start - first, rows.stop - first), columns
                    _overlay(part, grid, rows, columns, codes[there], score[there])
            if region is not None:
                outside = geometry_mask([region], codes.shape, Affine.translation(0, first))
                codes[outside], score[outside] = NODATA, -1
            confidence = np.where(score < 0, scratch.NO_CONFIDENCE, score).astype(np.uint8)
            file.write(np.stack([codes, confidence], axis=1).tobytes())


def _overlay(
    part: AlignedMap, grid: CellGrid, rows: slice, columns: slice, codes: NDArray[np.uint8], score: NDArray[np.int16]
) -> None:
    """Replaces `codes` and `score`, in place, where a map is more confident; cells without data have a score of -1."""
    m = part.map
    mine = part.read(m.path, grid, rows, columns)
    if ((mine > len(m.legend)) & (mine != UNCLASSIFIED)).any():
        raise DataError(f"{m.path}: holds codes that its legend lacks; pass an unchanged map")
    sure = part.read(m.paths["confidence"], grid, rows, columns).astype(np.int16)
    sure[sure == scratch.NO_CONFIDENCE] = 0
    sure[mine == NODATA] = -1
    wins = sure > score
    codes[wins], score[wins] = mine[wins], sure[wins]


def _require_confidence(m: SceneMap) -> None:
    """Refuses a map whose confidence is absent, broken, or of other cells."""
    confidence = m.paths.get("confidence")
    if confidence is None:
        raise DataError(
            f"{m.path}: {m.name}{FILES['confidence']} is not beside it; put it there, or use X{LULC}.vrt as `out`"
        )
    try:
        with open_raster(confidence) as dataset:
            same = dataset.shape == (m.grid.rows, m.grid.columns)
            same &= dataset.transform.almost_equals(m.grid.cell_transform, 1e-6)
    except RasterioError as error:
        if not in_store(confidence):
            check_readable(confidence)
        raise DataError(f"{confidence}: not a raster that GDAL reads; map its scene again") from error
    if not same:
        raise DataError(f"{confidence}: has other cells than {m.path.name}; pass both as geocfl has written them")


def _digest(grid: CellGrid, maps: Sequence[AlignedMap], options: Sequence[str]) -> str:
    """Hash of the grid, the options, this version, and the maps by path, size, time and order."""
    facts: list[Any] = [__version__, grid.crs.to_wkt(), *grid.transform, *options]
    for part in maps:
        for path in (part.map.path, part.map.paths["confidence"]):
            status = path.stat()
            facts.append([str(path.resolve()), status.st_size, status.st_mtime_ns])
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
