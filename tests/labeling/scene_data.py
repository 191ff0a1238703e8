"""A small scene, and labels in it whose windows are known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from affine import Affine

WEST, NORTH, CRS = 300_000, 5_000_000, 32633


def write_scene(path: Path, height: int = 640, width: int = 640, bands: Sequence[str] = ("B04", "B03", "B02")) -> Path:
    """A scene of 10 m whose digital numbers are 100 + row, so that the place of a patch shows in its pixels."""
    numbers = np.broadcast_to(100 + np.arange(height)[:, None], (len(bands), height, width)).astype(np.uint16)
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=len(bands), dtype="uint16", nodata=0,
        crs=f"EPSG:{CRS}", transform=Affine(10, 0, WEST, 0, -10, NORTH),
    ) as dataset:  # fmt: skip
        dataset.write(numbers)
        dataset.descriptions = tuple(bands)
    return path


def box(row: float, column: float, height: float, width: float) -> shapely.Polygon:
    """A rectangle of pixels of the scene in its CRS."""
    return shapely.box(WEST + 10 * column, NORTH - 10 * (row + height), WEST + 10 * (column + width), NORTH - 10 * row)


def point(row: float, column: float) -> shapely.Point:
    return shapely.Point(WEST + 10 * column, NORTH - 10 * row)


def write_labels(path: Path, labels: dict[str, list[shapely.Geometry]], crs: int | None = CRS) -> Path:
    """Labels with the field ``class``, written in a CRS, or without one."""
    pairs = [(name, shape) for name, shapes in labels.items() for shape in shapes]
    frame = gpd.GeoDataFrame({"class": [name for name, _ in pairs]}, geometry=[shape for _, shape in pairs], crs=CRS)
    frame = frame.to_crs(crs) if crs else frame.set_crs(None, allow_override=True)
    frame.to_file(path)
    return path
