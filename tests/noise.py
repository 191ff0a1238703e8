"""Scenes of noise, for tests that care for a scene's form more than for what it shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine


def write_pixels(path: Path, dn: np.ndarray, bands: Sequence[str] = ("B04", "B03", "B02"), **options: Any) -> Path:
    """Digital numbers as a scene of 10 m in UTM zone 33N; `options` change its profile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = dn.shape
    profile = {"driver": "GTiff", "height": height, "width": width, "count": count, "dtype": dn.dtype}
    place = {"crs": "EPSG:32633", "transform": Affine(10, 0, 3e5, 0, -10, 5e6)}
    with rasterio.open(path, "w", **(profile | place | options)) as dataset:
        dataset.write(dn)
        if bands:
            dataset.descriptions = tuple(bands)
    return path


def write_noise(path: Path, height: int, width: int, seed: int = 0) -> Path:
    """Noise of red, green and blue, all of it data, as a plain GeoTIFF."""
    return write_pixels(path, np.random.default_rng(seed).integers(200, 2000, (3, height, width), dtype=np.uint16))


def write_scene(path: Path, height: int = 200, width: int = 260, **options: Any) -> Path:
    """Noise, compressed so that its bytes are not those of its pixels; the last fifth of the columns has no data."""
    dn = np.random.default_rng(height).integers(200, 1000, (4, height, width), dtype=np.uint16)
    dn[:, :, width * 4 // 5 :] = 0
    form = {"nodata": 0, "compress": "deflate", "tiled": True, "blockxsize": 64, "blockysize": 64}
    return write_pixels(path, dn, ("B04", "B03", "B02", "B08"), **(form | options))
