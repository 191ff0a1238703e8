"""A mosaic as a virtual raster, which refers to the maps."""

from __future__ import annotations

import filecmp
from collections.abc import Sequence
from pathlib import Path

from geocfl.analysis.alignment import ALIGNED, AlignedMap, crs_name
from geocfl.analysis.mosaic_raster import VERSION_TAG, count_classes, mosaic_tags
from geocfl.core.files import refuse_existing, replacing
from geocfl.core.grid import CellGrid
from geocfl.errors import DataError
from geocfl.products.formats.qml import lulc_qml, write_style
from geocfl.products.formats.vrt import Tile, virtual_raster
from geocfl.products.storage import in_store
from geocfl.products.summary import ClassTable


def write_virtual(
    grid: CellGrid, maps: Sequence[AlignedMap], target: Path, overwrite: bool, update: bool = False
) -> tuple[list[Path], ClassTable]:
    """Writes a virtual raster and its style.

    Args:
        grid: Its cells.
        maps: The maps on it, of one legend; later ones lie on top.
        target: ``X_lulc.vrt``.
        overwrite: Replace existing files.
        update: Replace a virtual raster that geocfl has made, but leave it alone if nothing would change.

    Returns:
        The files, and what each class covers, without confidences.

    Raises:
        DataError: A map is in another CRS, rotated or in an object store, or cannot be decoded.
        OutputError: A file exists already or cannot be written.
    """
    tiles = [_tile(part, grid, target) for part in maps]
    style = target.with_suffix(".qml")
    there = _text(target)
    overwrite |= update and VERSION_TAG in there
    refuse_existing(target, overwrite=overwrite)
    legend = maps[0].map.legend
    text = virtual_raster(target.parent, grid, legend, tiles, mosaic_tags(maps, grid))
    # Read once from here, so that a broken map is found before the file is there.
    seen = virtual_raster(Path.cwd(), grid, legend, tiles, {})
    if update and there == text and style.is_file():
        table = count_classes(seen, None, grid, legend)
        if _text(style) == lulc_qml(legend, unclassified=bool(table["unclassified"]["cells"])):
            return [target, style], table
    with replacing(target) as partial:
        table = count_classes(seen, None, grid, legend)
        partial.write_text(text, encoding="utf-8", newline="\n")
        with replacing(style) as styled:
            write_style(styled, lulc_qml(legend, unclassified=bool(table["unclassified"]["cells"])))
            if not (style.is_file() and filecmp.cmp(style, styled, shallow=False)):  # of a run that was killed here
                refuse_existing(style, overwrite=overwrite)
    return [target, style], table


def _text(file: Path) -> str:
    """What a file holds; nothing if there is none, or no text."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _tile(part: AlignedMap, grid: CellGrid, target: Path) -> Tile:
    """A map as a tile of the virtual raster.

    Raises:
        DataError: It is in another CRS, rotated, or in an object store.
    """
    m, place = part.map, part.place
    remedy = f"use {target.with_suffix('.tif')} as `out`"
    if in_store(m.path):
        raise DataError(f"{m.path}: is in an object store, and a virtual raster refers only to files; {remedy}")
    if place is None:
        raise DataError(f"{m.path}: is not in {crs_name(grid.crs)}, and a virtual raster reprojects nothing; {remedy}")
    a, b, c, d, e, f = place[:6]
    if min(a, e) <= 0 or max(abs(b) * m.grid.rows, abs(d) * m.grid.columns) > ALIGNED:
        raise DataError(f"{m.path}: is rotated against the others, and a virtual raster rotates nothing; {remedy}")
    if part.copied:
        c, f, a, e = part.left, part.top, 1, 1
    return Tile(m.path, m.grid.columns, m.grid.rows, c, f, a * m.grid.columns, e * m.grid.rows)
