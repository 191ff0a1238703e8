"""The work raster: class codes and confidences, one pixel per cell, as the mapping engine leaves them.

A plain two-band uint8 GeoTIFF: band 1 holds class codes (0 no data, 1..N, 255 unclassified), band 2 the confidence in
percent (255 no data).
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


@contextmanager
def create_cells(path: Path, rows: int, columns: int) -> Iterator[Any]:
    """Makes a work raster to be written in windows; it has no georeference, the grid places it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", driver="GTiff", dtype="uint8", count=2, height=rows, width=columns) as dataset:
            yield dataset


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
