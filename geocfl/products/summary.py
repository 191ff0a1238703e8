"""How much of a scene each class covers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypedDict

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from geocfl.core.grid import CellGrid
from geocfl.core.legend import NODATA, UNCLASSIFIED, WITHHELD, Legend
from geocfl.core.table import align
from geocfl.products.scratch import STRIP_CELLS, read_strips
from geocfl.products.storage import open_raster

READ_AT_ONCE = 8
"""Strips of a finished map that are read at a time."""
GDAL_CACHE = 64
"""Megabytes that GDAL may keep of decoded blocks."""

_Rows = tuple[int, NDArray[np.uint8]]
"""First row, then class codes and confidences in percent, (2, rows, columns)."""


class Cover(TypedDict):
    """What cells of one raster code cover.

    Attributes:
        cells: Number of cells.
        pixels: Pixels of the scene in them: cells are cut at the scene's rectangle.
        hectares: Area of these pixels.
    """

    cells: int
    pixels: int
    hectares: float


class ClassCover(Cover):
    """What one class covers.

    Attributes:
        code: Raster code.
        name: Class name.
        share: Share of the area of all classes, 0..1; None if no cell has a class.
        confidence: Mean over the class's cells, 0..1; None if it has no cells.
    """

    code: int
    name: str
    share: float | None
    confidence: float | None


class ClassTable(TypedDict):
    """What each class of a map covers, as in ``S_summary.json``.

    Attributes:
        classes: Every class of the legend in the order of codes, absent ones with zeros.
        unclassified: Cells with data but without a class.
        nodata: Cells without data.
        total: All cells: the scene's rectangle.
    """

    classes: list[ClassCover]
    unclassified: Cover
    nodata: Cover
    total: Cover


def class_table(cells: Path, grid: CellGrid, legend: Legend) -> ClassTable:
    """Counts cells, pixels and hectares of each class in a work raster.

    Args:
        cells: Work raster of `grid.rows` x `grid.columns` cells.
        grid: Where the cells lie.
        legend: Names of the codes.

    Returns:
        The table, ready for JSON.

    Raises:
        ValueError: The raster holds a code that the legend lacks.
    """
    return _tabulate(read_strips(cells), grid, legend)


def class_table_of_rasters(lulc: str | Path, confidence: Path | None, grid: CellGrid, legend: Legend) -> ClassTable:
    """Counts cells, pixels and hectares of each class in the rasters of a finished map.

    Args:
        lulc: Class raster of `grid.rows` x `grid.columns` cells, or the text of a virtual one.
        confidence: Raster of the confidences in percent; without it the classes have none.
        grid: Where the cells lie.
        legend: Names of the codes.

    Raises:
        RasterioError: A raster cannot be decoded.
        ValueError: The class raster holds a code that the legend lacks.
    """
    table = _tabulate(_read_rasters(lulc, confidence, grid), grid, legend)
    if confidence is None:
        for row in table["classes"]:
            row["confidence"] = None
    return table


def _read_rasters(lulc: str | Path, confidence: Path | None, grid: CellGrid) -> Iterator[_Rows]:
    """Yields strips of a map's rasters; reads several at a time, because a virtual raster opens many files."""
    step = max(1, STRIP_CELLS // grid.columns)
    with ExitStack() as stack:
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE))
        datasets = [stack.enter_context(open_raster(path)) for path in (lulc, confidence) if path]
        for top in range(0, grid.rows, READ_AT_ONCE * step):
            window = Window(0, top, grid.columns, min(READ_AT_ONCE * step, grid.rows - top))
            bands = [dataset.read(1, window=window) for dataset in datasets]
            for first in range(0, len(bands[0]), step):
                rows = slice(first, first + step)
                yield top + first, np.stack([bands[0][rows], bands[-1][rows]])


def _tabulate(strips: Iterable[_Rows], grid: CellGrid, legend: Legend) -> ClassTable:
    areas, row_pixels = grid.areas(), grid.row_pixels()
    joint = np.zeros((256, 256), np.int64)  # cells by (code, percent)
    pixels, hectares = np.zeros(256, np.int64), np.zeros(256)
    for first, (codes, confidence) in strips:
        rows = slice(first, first + len(codes))
        joint += np.bincount(codes.ravel() * np.int32(256) + confidence.ravel(), minlength=1 << 16).reshape(256, 256)
        bins = codes + 256 * np.arange(len(codes), dtype=np.int32)[:, None]
        for term, (row_areas, column_areas) in enumerate(zip(areas.rows, areas.columns, strict=True)):
            wide = np.bincount(bins.ravel(), np.broadcast_to(column_areas, codes.shape).ravel(), 256 * len(codes))
            wide = wide.reshape(-1, 256)
            if term == 0:  # sums of whole pixels, so exact in float64
                pixels += (row_pixels[rows] @ wide).astype(np.int64)
            hectares += row_areas[rows] @ wide

    counts = joint.sum(axis=1)
    strange = [code for code in np.flatnonzero(counts) if len(legend) < code < UNCLASSIFIED]
    if strange:
        raise ValueError(f"codes {strange} are not in the legend of {len(legend)} classes")

    def cover(codes: int | slice) -> Cover:
        return Cover(
            cells=int(counts[codes].sum()), pixels=int(pixels[codes].sum()), hectares=float(hectares[codes].sum())
        )

    classified = hectares[1 : len(legend) + 1].sum()
    percent_sums = joint[:, :101] @ np.arange(101)
    classes = [
        ClassCover(
            code=c.code,
            name=c.name,
            **cover(c.code),
            share=float(hectares[c.code] / classified) if classified else None,
            confidence=float(percent_sums[c.code] / counts[c.code] / 100) if counts[c.code] else None,
        )
        for c in legend
    ]
    return ClassTable(classes=classes, unclassified=cover(UNCLASSIFIED), nodata=cover(NODATA), total=cover(slice(None)))


def format_table(table: ClassTable) -> str:
    """A class table as aligned plain text, without a newline at the end.

    Cells that are unclassified or without data follow the classes, if there are any; shares do not include them.
    """
    lines = [("code", "class", "cells", "hectares", "share", "confidence")]
    for row in table["classes"]:
        share = "-" if not row["share"] else f"{row['share']:.1%}"
        confidence = "-" if row["confidence"] is None else f"{row['confidence']:.2f}"
        lines.append((str(row["code"]), row["name"], f"{row['cells']:,}", f"{row['hectares']:,.1f}", share, confidence))
    rest = [(str(UNCLASSIFIED), WITHHELD.name, table["unclassified"]), (str(NODATA), "No data", table["nodata"])]
    for code, name, cover in [*rest, ("", "Total", table["total"])]:
        if cover["cells"]:
            lines.append((code, name, f"{cover['cells']:,}", f"{cover['hectares']:,.1f}", "", ""))
    return align(lines, text_columns=[1])
