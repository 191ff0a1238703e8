"""The work raster: the results of classification, one pixel per cell.

Plain bytes, row by row and, within a row, band by band: class codes (0 no data, 1..N, 255 unclassified), confidences in
percent (255 no data) and, if needed, other values, such as entropies and the probability of every class, also in
percent. An ENVI header beside them names the bands and lets GDAL read them. Finished rows are appended; those of an
interrupted run are kept.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

CODE, CONFIDENCE = 1, 2
"""Numbers of the two bands that every work raster has."""
BANDS = ("code", "confidence")
"""Their names."""
NOVELTY, VALID, MEMBERS, ENTROPY, PROBABILITY = "novelty", "valid", "members", "entropy", "probability"
"""Names of bands that it may have, too; there is one of members for each byte of `geocfl.products.prediction_sets`, and
one of probability for each class."""
FEATURES = "features"
"""Name of the bands of features: two for each component, the bytes of a number in half precision, and two for the
length of what the components leave out."""
LOGITS = "logits"
"""Name of the last bands while a map is to be refined: two for each class, the bytes of a number in half precision."""
NO_CONFIDENCE = 255
"""Value of cells without data in every band but that of the codes."""
_ENVI_TYPES = {"uint8": 1, "uint16": 12, "uint32": 13}
STRIP_CELLS = 1_000_000
"""Cells in memory at a time: a few tens of megabytes with the integers made from them."""


def write_header(cells: Path, rows: int, columns: int, bands: Sequence[str] = BANDS, dtype: str = "uint8") -> None:
    """Writes the ENVI header of a work raster, whose rows may then be appended as plain bytes.

    Args:
        cells: The work raster's path; the header is beside it, ``<cells>.hdr``.
        rows: Rows of cells in the finished raster.
        columns: Columns of cells.
        bands: Names of the values of a cell, in order.
        dtype: Their type, ``"uint8"``, ``"uint16"`` or ``"uint32"``; the lowest byte comes first.
    """
    facts = {
        "samples": columns, "lines": rows, "bands": len(bands), "header offset": 0, "byte order": 0,
        "data type": _ENVI_TYPES[dtype], "interleave": "bil", "band names": f"{{{', '.join(bands)}}}",
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


def band_numbers(path: Path, name: str) -> list[int]:
    """Numbers of the bands of a work raster that have a name, in order; none if it has no such band."""
    with open_cells(path) as dataset:
        return [number for number, found in enumerate(dataset.descriptions, start=1) if found == name]


def read_strips(
    path: Path, bands: Sequence[int] = (CODE, CONFIDENCE), *, at_a_time: int = STRIP_CELLS
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Reads a work raster from top to bottom in strips of its full width.

    Args:
        path: The work raster.
        bands: Numbers of the bands to read.
        at_a_time: Cells in a strip, roughly.

    Yields:
        First row, then the values, (bands, rows, columns) uint8.
    """
    with open_cells(path) as dataset:
        block = dataset.block_shapes[0][0]
        step = max(1, at_a_time // dataset.width // block) * block
        for row in range(0, dataset.height, step):
            window = Window(0, row, dataset.width, min(step, dataset.height - row))
            yield row, dataset.read(list(bands), window=window)


def count_values(path: Path, band: int) -> NDArray[np.int64]:
    """(256,) number of cells with each value in a band of a work raster."""
    counts = np.zeros(256, np.int64)
    with open_cells(path) as dataset:
        rows = max(1, STRIP_CELLS // dataset.width)
        for row in range(0, dataset.height, rows):
            window = Window(0, row, dataset.width, min(rows, dataset.height - row))
            counts += np.bincount(dataset.read(band, window=window).ravel(), minlength=256)
    return counts
