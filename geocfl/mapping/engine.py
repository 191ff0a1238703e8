"""The pipeline: strips of a scene through a classifier into a raster of cells, in memory that its width bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window
from tqdm import tqdm

from geocfl.grid import CellGrid
from geocfl.legend import NODATA
from geocfl.mapping.strips import Strip, read_strips
from geocfl.products.cells import NO_CONFIDENCE, create_cells
from geocfl.scene import Scene

THUMBNAIL_PIXELS = 1024
"""Longer side of the overview picture that is taken along, at most."""

Classify = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""(n, B, window, window) reflectance to (n, classes) probabilities."""


@dataclass(frozen=True)
class Classified:
    """What one pass over a scene gives.

    Attributes:
        cells: Work raster, one pixel a cell: band 1 class codes, band 2 confidence in percent.
        thumbnail: (B, h, w) float32 reflectance of every n-th pixel, NaN no data.
        windows: Windows that the classifier saw: those of cells with data.
    """

    cells: Path
    thumbnail: NDArray[np.float32]
    windows: int


def classify_scene(
    scene: Scene, bands: tuple[str, ...], grid: CellGrid, classify: Classify, batch_size: int, cells: Path
) -> Classified:
    """Classifies every cell of a scene.

    Args:
        scene: An open scene of at least one window's size.
        bands: The classifier's bands.
        grid: The scene's cells.
        classify: The classifier.
        batch_size: Windows it is given at a time.
        cells: Work raster to write.

    Raises:
        SceneError: The scene cannot be decoded.
    """
    step = -(-max(grid.height, grid.width) // THUMBNAIL_PIXELS)
    thumbnail = []
    windows = 0
    with (
        create_cells(cells, grid.rows, grid.columns) as target,
        tqdm(total=grid.rows * grid.columns, desc=scene.path.name, unit="window", unit_scale=True, disable=None) as bar,
    ):
        for strip in read_strips(scene, bands, grid):
            codes, confidence = classify_strip(strip, classify, batch_size, bar.update)
            target.write(np.stack([codes, confidence]), window=Window(0, strip.first, grid.columns, len(codes)))
            thumbnail.append(strip.inside[:, -strip.first * grid.stride % step :: step, ::step].copy())
            windows += int(strip.valid.sum())
    return Classified(cells, np.concatenate(thumbnail, axis=1), windows)


def classify_strip(
    strip: Strip, classify: Classify, batch_size: int, advance: Callable[[int], object] = lambda _: None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Classifies the cells of a strip that have data; the others never reach the classifier.

    Args:
        strip: From `read_strips`.
        classify: The classifier.
        batch_size: Windows it is given at a time.
        advance: Told how many cells each step finished.

    Returns:
        (k, columns) class codes and (k, columns) confidence in percent.
    """
    codes = np.full(strip.valid.shape, NODATA, np.uint8)
    confidence = np.full(strip.valid.shape, NO_CONFIDENCE, np.uint8)
    rows, columns = np.nonzero(strip.valid)
    advance(strip.valid.size - len(rows))
    for start in range(0, len(rows), batch_size):
        chosen = rows[start : start + batch_size], columns[start : start + batch_size]
        probability = classify(strip.windows[chosen])
        codes[chosen] = probability.argmax(axis=1) + 1
        confidence[chosen] = np.rint(100 * probability.max(axis=1))
        advance(len(probability))
    return codes, confidence
