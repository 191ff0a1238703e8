"""The work raster: class codes and confidences, one pixel per cell, as the mapping engine leaves them.

Plain bytes, row by row, codes (0 no data, 1..N, 255 unclassified) before confidences in percent (255 no data), with an
ENVI header beside them, so that GDAL reads them as two bands. Finished rows are appended; an interrupted run's stay.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

NO_CONFIDENCE = 255
"""Confidence of cells without data."""
STRIP_CELLS = 1_000_000
"""Cells held at a time: a few tens of megabytes with the integers made of them."""


def write_header(cells: Path, rows: int, columns: int) -> None:
    """Writes the ENVI header of a work raster, whose rows may then be appended as plain bytes.

    Args:
        cells: The work raster's path; the header is beside it, ``<cells>.hdr``.
        rows: Rows of cells when the work is done.
        columns: Columns of cells.
    """
    facts = {
        "samples": columns, "lines": rows, "bands": 2, "header offset": 0, "data type": 1, "interleave": "bil"
    }  # fmt: skip
    lines = ["ENVI", *(f"{name} = {value}" for name, value in facts.items())]
    cells.with_name(cells.name + ".hdr").write_text("".join(f"{line}\n" for line in lines))


@contextmanager
def open_cells(path: Path) -> Iterator[Any]:
    """Opens a work raster; that it has no georeference is no matter here, the grid places it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as dataset:
            yield dataset


def read_strips(path: Path) -> Iterator[tuple[int, NDArray[np.uint8], NDArray[np.uint8]]]:
    """Reads a work raster from top to bottom in strips of its full width.

    Args:
        path: The work raster.

    Yields:
        First row, then class codes and confidences in percent, each (rows, columns) uint8.
    """
    with open_cells(path) as dataset:
        block = dataset.block_shapes[0][0]
        step = max(1, STRIP_CELLS // dataset.width // block) * block
        for row in range(0, dataset.height, step):
            codes, confidence = dataset.read(window=Window(0, row, dataset.width, min(step, dataset.height - row)))
            yield row, codes, confidence
