"""Scenes of noise, for tests that care for a scene's form more than for what it shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine


def write_scene(path: Path, height: int = 200, width: int = 260, **options: Any) -> Path:
    """Noise, compressed so that its bytes are not those of its pixels; the last fifth of the columns has no data."""
    dn = np.random.default_rng(height).integers(200, 1000, (4, height, width), dtype=np.uint16)
    dn[:, :, width * 4 // 5 :] = 0
    profile = {"driver": "GTiff", "height": height, "width": width, "count": 4, "dtype": "uint16", "nodata": 0}
    place = {"crs": "EPSG:32633", "transform": Affine(10, 0, 3e5, 0, -10, 5e6)}
    form = {"compress": "deflate", "tiled": True, "blockxsize": 64, "blockysize": 64}
    with rasterio.open(path, "w", **(profile | place | form | options)) as dataset:
        dataset.write(dn)
        dataset.descriptions = ("B04", "B03", "B02", "B08")
    return path
