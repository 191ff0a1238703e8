"""The scene in true color, stretched: as a picture, and as a raster beside the map."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.io import MemoryFile

from geocfl.core.grid import CellGrid

PICTURE_PIXELS = 4096
"""Longest side of the raster, pixels: a full tile of 10,980 pixels is reduced to every third."""
PREVIEW_PIXELS = 1024
"""Longest side of a picture that is only for the preview, pixels."""
ROWS = 256
"""Rows stretched at a time."""
SAMPLED = 1000
"""Largest number of rows and columns from which the stretch is computed."""
RANGE = (0.5, 99.5)
"""Percentiles of a band that the stretch spans."""
MIDDLE, GAMMA = 0.45, (0.4, 0.9)
"""Brightness that the exponent of the stretch gives to the middle of a scene, and bounds of that exponent."""
SHOULDER = 0.93
"""Brightness of the upper percentile; what is brighter approaches white, so that clouds and roofs keep detail."""


def thumbnail_step(grid: CellGrid, *, detail: bool) -> int:
    """Every n-th pixel of a scene is in its picture.

    Args:
        grid: The scene's size.
        detail: Whether for the raster, or only for the preview, whose n is a multiple of the other.
    """
    longest = max(grid.height, grid.width)
    step = -(-longest // PICTURE_PIXELS)
    return step if detail else step * -(-longest // (step * PREVIEW_PIXELS))


def stretch(rgb: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Makes a picture of reflectance: stretches each band between two percentiles, to a medium brightness.

    Above the upper percentile the brightness approaches white smoothly, as on film. A band of little contrast, such as
    blue over woods, is stretched less, so that it does not tint the picture.

    Args:
        rgb: (H, W, 3) red, green and blue in any unit; NaN is no data.

    Returns:
        (H, W, 4) uint8 RGBA; no data is transparent black.
    """
    rgba = np.zeros((*rgb.shape[:2], 4), np.uint8)
    thinning = -(-max(rgb.shape[:2]) // SAMPLED)
    sample = np.asarray(rgb[::thinning, ::thinning]).reshape(-1, 3)
    sample = sample[np.isfinite(sample).all(axis=1)]
    if not sample.size:
        return rgba
    low, high = np.percentile(sample, RANGE, axis=0)
    span = np.maximum(high - low, max(0.5 * float((high - low).max()), 1e-6))
    middle = float(np.median(np.clip((sample - low) / span, 1e-3, 1).mean(axis=1)))
    gamma = float(np.clip(math.log(MIDDLE) / math.log(min(middle, 0.99)), *GAMMA))
    for start in range(0, len(rgb), ROWS):  # the float pixels of a large scene are never all in memory
        rows = np.asarray(rgb[start : start + ROWS])
        valid = np.isfinite(rows).all(axis=2)
        part = rgba[start : start + ROWS]
        part[valid, :3] = np.rint(255 * _tone((rows[valid] - low) / span, gamma))
        part[valid, 3] = 255
    return rgba


def _tone(value: NDArray[np.floating], gamma: float) -> NDArray[np.floating]:
    """Brightness 0..1 of stretched values; its slope is continuous at the upper percentile, 1."""
    body = SHOULDER * np.clip(value, 0, 1) ** gamma
    rest = 1 - SHOULDER
    beyond = np.clip(value - 1, 0, None) * SHOULDER * gamma / rest
    above = rest * beyond / (1 + beyond)
    bright: NDArray[np.floating] = body + above
    return bright


def write_truecolor(path: Path, picture: NDArray[np.uint8], grid: CellGrid, tags: Mapping[str, str]) -> None:
    """Writes a picture of the scene as a cloud-optimized GeoTIFF: 8-bit red, green and blue with a mask.

    Args:
        path: GeoTIFF to write, JPEG-compressed.
        picture: (h, w, 4) uint8 RGBA of every n-th pixel of the scene, from `stretch`.
        grid: The scene's extent and CRS.
        tags: GeoTIFF metadata.
    """
    height, width = picture.shape[:2]
    # Every n-th pixel stands for n x n pixels, in the last row and column perhaps for fewer.
    step = max(-(-grid.height // height), -(-grid.width // width))
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 4, "height": height, "width": width, "crs": grid.crs}
    with MemoryFile() as memory:
        with memory.open(**profile, transform=grid.transform @ Affine.scale(step)) as dataset:
            dataset.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
            dataset.write(picture.transpose(2, 0, 1))
            dataset.update_tags(**tags)
        with rasterio.Env(GDAL_PAM_ENABLED="NO"), memory.open() as dataset:
            rasterio.shutil.copy(dataset, path, driver="COG", COMPRESS="JPEG", QUALITY="90", BLOCKSIZE="512")
