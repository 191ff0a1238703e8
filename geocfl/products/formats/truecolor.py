"""The scene in true color, stretched: as a picture, and as a raster beside the map."""

from __future__ import annotations

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


def stretch(rgb: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Makes a picture of reflectance: stretches each band between its 2nd and 98th percentile, and brightens shadows.

    A band of little contrast, such as blue over woods, is stretched less, so that it does not tint the picture.

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
    low, high = np.percentile(sample, (2, 98), axis=0)
    span = np.maximum(high - low, max(0.5 * float((high - low).max()), 1e-6))
    for start in range(0, len(rgb), ROWS):  # the float pixels of a large scene are never all in memory
        rows = np.asarray(rgb[start : start + ROWS])
        valid = np.isfinite(rows).all(axis=2)
        part = rgba[start : start + ROWS]
        part[valid, :3] = np.rint(255 * np.clip((rows[valid] - low) / span, 0, 1) ** 0.7)
        part[valid, 3] = 255
    return rgba


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
