"""The work raster: the results of classification, one pixel per cell.

Plain bytes, row by row and, within a row, band by band: class codes (0 no data, 1..N, 255 unclassified), confidences in
percent (255 no data) and, if needed, entropies and the probability of every class, also in percent. An ENVI header
beside them lets GDAL read them. Finished rows are appended; those of an interrupted run are kept.
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

CODE, CONFIDENCE, ENTROPY, FIRST_PROBABILITY = 1, 2, 3, 4
"""Bands of a work raster, from 1. It has the first two, or all and a band of probability for each class."""
NO_CONFIDENCE = 255
"""Confidence, entropy and probabilities of cells without data."""
STRIP_CELLS = 1_000_000
"""Cells in memory at a time: a few tens of megabytes with the integers made from them."""


def write_header(cells: Path, rows: int, columns: int, bands: int = CONFIDENCE) -> None:
    """Writes the ENVI header of a work raster, whose rows may then be appended as plain bytes.

    Args:
        cells: The work raster's path; the header is beside it, ``<cells>.hdr``.
        rows: Rows of cells in the finished raster.
        columns: Columns of cells.
        bands: Values per cell.
    """
    facts = {
        "samples": columns, "lines": rows, "bands": bands, "header offset": 0, "data type": 1, "interleave": "bil"
    }  # fmt: skip
    lines = ["ENVI", *(f"{name} = {value}" for name, value in facts.items())]
    cells.with_name(cells.name + ".hdr").write_text("".join(f"{line}\n" for line in lines))


@contextmanager
def open_cells(path: Path) -> Iterator[Any]:
    """Opens a work raster, which has no georeference: the grid places it."""
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
            window = Window(0, row, dataset.width, min(step, dataset.height - row))
            codes, confidence = dataset.read([CODE, CONFIDENCE], window=window)
            yield row, codes, confidence


def count_values(path: Path, band: int) -> NDArray[np.int64]:
    """(256,) number of cells with each value in a band of a work raster."""
    counts = np.zeros(256, np.int64)
    with open_cells(path) as dataset:
        rows = max(1, STRIP_CELLS // dataset.width)
        for row in range(0, dataset.height, rows):
            window = Window(0, row, dataset.width, min(rows, dataset.height - row))
            counts += np.bincount(dataset.read(band, window=window).ravel(), minlength=256)
    return counts
