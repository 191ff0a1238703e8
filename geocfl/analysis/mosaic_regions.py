"""A mosaic for each region, cut at the region's border."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rasterio
from shapely.affinity import translate

from geocfl.analysis.alignment import AlignedMap, crop, place_maps
from geocfl.analysis.mosaic_raster import NoDataInRegionError, write_raster
from geocfl.analysis.mosaic_record import read_record, remove_mosaic
from geocfl.analysis.regions import Regions
from geocfl.core.files import refuse_existing
from geocfl.core.grid import CellGrid
from geocfl.core.progress import Progress, counted, silent
from geocfl.errors import DataError
from geocfl.products.files import LULC, SUFFIXES
from geocfl.products.scene_map import SceneMap
from geocfl.products.selection import Selection
from geocfl.products.staging import Staging
from geocfl.products.summary import ClassTable

log = logging.getLogger("geocfl")


def write_regions(
    maps: Sequence[SceneMap],
    regions: Regions,
    targets: Sequence[Path],
    crs: rasterio.CRS | None,
    polygons: Selection,
    overwrite: bool,
    progress: Progress,
    overlap: str,
    update: bool = False,
) -> tuple[list[Path], dict[str, ClassTable]]:
    """Writes a mosaic for each region that maps have data in.

    Until all are written, a mark stays of each that is, so that the same call finishes what an interrupted one began.

    Args:
        maps: The maps, of one legend.
        regions: The regions.
        targets: ``NAME_lulc.tif`` of each region.
        crs: Coordinate reference system of the mosaics; that of the first map in each region by default.
        polygons: Formats of the polygons.
        overwrite: Replace existing files.
        progress: Called with the regions that are done.
        overlap: What counts where maps overlap.
        update: Replace mosaics whose maps have changed, keep their cells where these have not, and remove those of
            regions that maps no longer reach. The result is that of new mosaics.

    Returns:
        The files, and what each class covers by name of the region.

    Raises:
        DataError: No map has data in any region, or a map cannot be read.
        OutputError: A file exists already or cannot be written.
    """
    reached = regions.reached_by(maps)
    marks = [Staging(target.parent, target.stem.removesuffix(LULC), "") for target in targets]
    wanted = [pair for pair, here in zip(zip(targets, marks, strict=True), reached, strict=True) if here]
    # Killed while it removed the marks, of which the first goes last: all mosaics are there, made by the same call.
    clearing = bool(wanted) and wanted[0][1].marked() and all(target.exists() for target, _ in wanted)
    for target, mark in wanted:
        for suffix in SUFFIXES if not (update or mark.marked() or clearing) else ():  # before any mosaic is made
            beside = target.with_name(f"{target.stem.removesuffix(LULC)}{suffix}")
            refuse_existing(beside, overwrite=overwrite)
    paths: list[Path] = []
    classes: dict[str, ClassTable] = {}
    for number in counted(range(len(targets)), progress, targets[0].parent.name, len(targets), "region"):
        part = _part(regions, number, reached[number], crs)
        if part is None:
            continue
        grid, placed, shape = part
        again = clearing and not marks[number].marked()
        try:
            made, table = write_raster(
                grid,
                placed,
                targets[number],
                polygons,
                overwrite or again,
                silent,
                shape,
                overlap=overlap,
                keep_mark=not update,
                update=update,
            )
        except NoDataInRegionError:
            continue
        paths += made
        classes[regions.all[number].name] = table
    for mark in reversed(marks):
        mark.forget()
    without = [region.name for region in regions.all if region.name not in classes]
    if not classes:
        raise DataError(f"{regions.path}: no map has data in any region; pass regions, or maps, of the same place")
    if update:
        for region, target in zip(regions.all, targets, strict=True):
            record = read_record(target) if region.name not in classes else None
            if record and record["settings"].get("region"):
                remove_mosaic(target)
    if without:
        log.warning("%s: no map has data in %s; no files are written for it", regions.path, ", ".join(without))
    return paths, classes


def _part(
    regions: Regions, number: int, maps: Sequence[SceneMap], crs: rasterio.CRS | None
) -> tuple[CellGrid, list[AlignedMap], Any] | None:
    """The cells around a region, the maps on them, and the region as a shape in cells; None where there are no maps."""
    if not maps:
        return None
    grid, placed = place_maps(maps, crs or maps[0].grid.crs)
    shape = regions.on_grid(number, grid)
    if shape.is_empty:
        return None
    left, top = (math.floor(edge) for edge in shape.bounds[:2])
    right, bottom = (math.ceil(edge) for edge in shape.bounds[2:])
    grid, placed = crop(grid, placed, slice(top, bottom), slice(left, right))
    if not placed:  # the region lies between the maps
        return None
    return grid, placed, translate(shape, -left, -top)
