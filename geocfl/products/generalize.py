"""Merges small pieces of a map into their neighbors, for readable polygons."""

from __future__ import annotations

import heapq
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label
from scipy.sparse import csr_array

from geocfl.core.grid import CellGrid
from geocfl.core.legend import NODATA
from geocfl.products.scratch import BANDS, CODE, CONFIDENCE, NOVELTY, band_numbers, open_cells, write_header

DIGITS = 6
"""Decimals of hectares in comparisons of areas, so that equal areas are equal whatever the order of their sums."""


def merge_small(cells: Path, merged: Path, grid: CellGrid, hectares: float) -> None:
    """Merges each piece of a map below a minimum area into the neighbor with the longest shared border.

    Pieces are connected by sides. The smallest is merged first; of equal ones, the one whose first cell is furthest
    up, then left. It takes the neighbor's class, and the merged piece can be merged again. Ties go to the larger
    neighbor, then to the lower code. A piece surrounded by cells without data is kept.

    Args:
        cells: Work raster; not modified.
        merged: Work raster to write: the new codes, the old confidences and, if there is one, the old novelty.
        grid: Where the cells lie.
        hectares: The minimum area.
    """
    novelty = band_numbers(cells, NOVELTY)
    with open_cells(cells) as dataset:
        codes, *kept = dataset.read([CODE, CONFIDENCE, *novelty])
    pieces, values = label_pieces(codes)
    areas = np.zeros(len(values))
    ground = grid.areas()
    for row_areas, column_areas in zip(ground.rows, ground.columns, strict=True):
        for row, ids in enumerate(pieces):
            areas += row_areas[row] * np.bincount(ids, column_areas, len(values))
    firsts = np.zeros(len(values), np.int64)
    found, index = np.unique(pieces, return_index=True)
    firsts[found] = index
    into = _merge(values, areas, firsts, _borders(pieces, values, grid), hectares)
    result = np.stack([values[into[pieces]].astype(np.uint8), *kept], axis=1)
    merged.write_bytes(result.tobytes())
    rows, columns = codes.shape
    write_header(merged, rows, columns, [*BANDS, *[NOVELTY] * len(novelty)])


def label_pieces(codes: NDArray[np.uint8]) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Numbers connected pieces of equal codes from 1, with 0 for no data; returns the numbers and the code of each.

    Pieces are connected by sides.

    Args:
        codes: (rows, columns) class codes.

    Returns:
        (rows, columns) int32 numbers, and the code of each number, uint8.
    """
    pieces = np.zeros(codes.shape, np.int32)
    values = [np.array([NODATA], np.uint8)]
    count = 0
    for code in np.unique(codes[codes != NODATA]):
        found, number = label(codes == code)
        pieces += np.where(found, found + count, 0)
        values.append(np.full(number, code, np.uint8))
        count += number
    return pieces, np.concatenate(values)


def _borders(pieces: NDArray[np.int32], values: NDArray[np.uint8], grid: CellGrid) -> list[dict[int, int]]:
    """For each piece, its neighbors and the pixels of border shared with each."""
    upright = np.broadcast_to(grid.row_pixels()[:, None], pieces[:, 1:].shape)
    level = np.broadcast_to(grid.column_pixels(), pieces[1:].shape)
    first = np.concatenate([pieces[:, :-1].ravel(), pieces[:-1].ravel()])
    second = np.concatenate([pieces[:, 1:].ravel(), pieces[1:].ravel()])
    pixels = np.concatenate([upright.ravel(), level.ravel()])
    apart = (first != second) & (first != 0) & (second != 0)
    first, second, pixels = first[apart], second[apart], pixels[apart]
    ends = np.concatenate([first, second]), np.concatenate([second, first])
    pairs = np.concatenate([pixels, pixels]), ends
    shared = csr_array(pairs, shape=(len(values), len(values)))
    shared.sum_duplicates()
    starts = shared.indptr
    return [
        dict(zip(shared.indices[a:b].tolist(), shared.data[a:b].tolist(), strict=True)) for a, b in pairwise(starts)
    ]


def _merge(
    values: NDArray[np.uint8],
    areas: NDArray[np.float64],
    firsts: NDArray[np.int64],
    borders: list[dict[int, int]],
    least: float,
) -> NDArray[np.int64]:
    """(pieces,) the piece that each one ends up in; `borders` is used up."""
    into = np.arange(len(values))
    size, first, code = areas.round(DIGITS).tolist(), firsts.tolist(), values.tolist()

    def absorb(taken: int, target: int) -> None:
        into[taken] = target
        size[target] = round(size[target] + size[taken], DIGITS)
        first[target] = min(first[target], first[taken])
        for other, pixels in borders[taken].items():
            del borders[other][taken]
            if other != target:
                borders[other][target] = borders[target][other] = borders[target].get(other, 0) + pixels
        borders[taken] = {}

    small = [(area, first[piece], piece) for piece, area in enumerate(size) if piece and area < least]
    heapq.heapify(small)
    while small:
        area, _, piece = heapq.heappop(small)
        if into[piece] != piece or area != size[piece] or not borders[piece]:
            continue
        target = max(borders[piece], key=lambda other: (borders[piece][other], size[other], -code[other]))
        alike = [other for other in borders[piece] if other != target and code[other] == code[target]]
        absorb(piece, target)
        for other in alike:  # now one with the target; the piece with more neighbors is kept, which moves less
            fewer, target = sorted((other, target), key=lambda one: len(borders[one]))
            absorb(fewer, target)
        if size[target] < least:
            heapq.heappush(small, (size[target], first[target], target))
    while (into != into[into]).any():
        into = into[into]
    return into
