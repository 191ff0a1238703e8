"""Small maps with known truth."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS

from geocfl.core.grid import CellGrid
from geocfl.products.scratch import BANDS, ENTROPY, PROBABILITY


def write_cells(
    path: Path,
    codes: np.ndarray,
    confidence: np.ndarray | None = None,
    *detail: np.ndarray,
    names: Sequence[str] | None = None,
) -> Path:
    """Writes a work raster as the mapping engine does; confidence is 50 % where it does not matter.

    `detail` are entropy and the probabilities, in percent, unless `names` says otherwise.
    """
    if confidence is None:
        confidence = np.where(codes == 0, 255, 50)
    bands = np.stack([codes, confidence, *detail]).astype(np.uint8)
    profile: dict[str, Any] = {"driver": "GTiff", "dtype": "uint8", "count": len(bands), "tiled": True}
    profile |= {"height": codes.shape[0], "width": codes.shape[1], "blockxsize": 256, "blockysize": 256}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no georeference
        with rasterio.open(path, "w", **profile) as dataset:
            dataset.write(bands)
            dataset.descriptions = [*BANDS, *(names or [ENTROPY, *[PROBABILITY] * len(detail)][: len(detail)])]
    return path


def make_grid(codes: np.ndarray, stride: int = 64, cut: tuple[int, int] = (0, 0), epsg: int = 32633) -> CellGrid:
    """A grid of these cells, whose last row and column reach `cut` pixels beyond the scene."""
    pixel = Affine(1e-4, 0, 13.1, 0, -1e-4, 46.2) if epsg == 4326 else Affine(10, 0, 600_000, 0, -10, 5_100_000)
    height, width = codes.shape[0] * stride - cut[0], codes.shape[1] * stride - cut[1]
    return CellGrid(height, width, stride, 64, pixel, CRS.from_epsg(epsg))


@pytest.fixture
def cells_of(tmp_path: Path) -> Callable[..., Path]:
    """Writes a work raster from arrays."""
    return lambda *bands, **named: write_cells(tmp_path / "cells.tif", *bands, **named)


@pytest.fixture
def grid_of() -> Callable[..., CellGrid]:
    """Makes a grid for arrays."""
    return make_grid


@pytest.fixture
def codes() -> np.ndarray:
    """(9, 12) all ten classes, no data on the left, some cells unclassified."""
    codes = np.array([[1 + (row // 2 + column // 3) % 10 for column in range(12)] for row in range(9)], np.uint8)
    codes[8, 2:12] = np.arange(1, 11)
    codes[:, 0] = 0
    codes[3, 7:9] = 255
    return codes


@pytest.fixture
def make_products(tmp_path: Path) -> Callable[..., Path]:
    """Writes all products of a map but the summary, with stem S, into a folder of their own."""

    def make(codes: np.ndarray, grid: CellGrid, name: str = "out") -> Path:
        from geocfl.core.legend import EUROSAT
        from geocfl.products import polygons
        from geocfl.products.formats import preview, raster, truecolor, vector
        from geocfl.products.formats import qml as style

        cells = write_cells(tmp_path / f"{name}-cells.tif", codes)
        out = tmp_path / name
        out.mkdir()
        raster.write_lulc(cells, out / "S_lulc.tif", grid, EUROSAT, {"model": "m"})
        raster.write_confidence(cells, out / "S_confidence.tif", grid, {"model": "m"})
        style.write_style(out / "S_lulc.qml", style.lulc_qml(EUROSAT))
        style.write_style(out / "S_confidence.qml", style.confidence_qml())
        vector.write_polygons(polygons.dissolve(cells, grid, EUROSAT), out / "S_lulc.gpkg", "gpkg")
        vector.write_default_styles(out / "S_lulc.gpkg", {"lulc": style.polygons_qml(EUROSAT)})
        picture = truecolor.stretch(np.random.default_rng(0).random((40, 50, 3)))
        preview.write_preview(out / "S_preview.png", picture, cells, grid, EUROSAT, "S")
        return out

    return make
