"""Gives the cells of each polygon values that have the polygon's mean, where the cells' own values were not kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geocfl.products.generalize import label_pieces
from geocfl.products.polygons import first_cells
from geocfl.products.scratch import CODE, open_cells

CLOSE = 0.01
"""How far the mean times the number of cells may be from a whole number: values are whole, so their sum is."""


def spread_means(pieces: Path, cells: Path, band: int, codes: NDArray[np.integer], means: NDArray[np.floating]) -> bool:
    """Writes values into a band of a work raster, so that each piece has the sum that its polygon had.

    Polygons that are made from them, also of merged pieces, have the same means as those of the lost values, because
    these depend on nothing but the sums.

    Args:
        pieces: Work raster whose codes have the pieces.
        cells: Work raster to write into.
        band: Number of the band.
        codes: (polygons,) class of each polygon, in the order of `geocfl.products.polygons.dissolve`.
        means: (polygons,) mean of each, 0..255.

    Returns:
        Whether the polygons are those of the pieces; else the band is not written.
    """
    with open_cells(pieces) as dataset:
        labels, values = label_pieces(dataset.read(CODE))
    rows, columns = first_cells(pieces, CODE)
    ids = labels[rows, columns]
    if len(ids) != len(codes) or (values[ids] != codes).any() or not np.isfinite(means).all():
        return False
    counts = np.bincount(labels.ravel(), minlength=len(values))
    exact = means * counts[ids]
    sums = np.zeros(len(values), np.int64)
    sums[ids] = np.rint(exact)
    if (np.abs(exact - np.rint(exact)) > CLOSE).any() or (sums > 255 * counts).any() or (sums < 0).any():
        return False
    order = np.argsort(labels, axis=None, kind="stable")
    sorted_labels = labels.ravel()[order]
    starts = np.cumsum(counts) - counts
    rank = np.arange(labels.size) - starts[sorted_labels]
    low, rest = np.divmod(sums, np.maximum(counts, 1))
    result = np.empty(labels.size, np.uint8)
    result[order] = low[sorted_labels] + (rank < rest[sorted_labels])
    result[labels.ravel() == 0] = 255
    _write_band(cells, band, result.reshape(labels.shape))
    return True


def _write_band(cells: Path, band: int, values: NDArray[np.uint8]) -> None:
    """Replaces a band of a work raster: its rows lie band by band."""
    with open_cells(cells) as dataset:
        bands = dataset.count
    stored = np.memmap(cells, np.uint8, "r+", shape=(values.shape[0], bands, values.shape[1]))
    stored[:, band - 1] = values
    stored.flush()
