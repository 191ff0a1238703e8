"""Meridians and parallels over a map: round lines of longitude and latitude in the scene's pixels, with labels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.warp import transform

from geocfl.core.grid import CellGrid

STEPS = (30, 20, 10, 5, 2, 1, 0.5, 0.25, 1 / 6, 1 / 12, 1 / 30, 1 / 60, 1 / 120, 1 / 360, 1 / 720, 1 / 1800, 1 / 3600)
"""Distances between lines, degrees: whole degrees, then minutes and seconds."""
LINES = 2.5
"""A step is fine enough if it divides the scene's longer side this many times."""
POINTS = 50
"""Points along a line, and along each side of the scene."""
WGS84 = CRS.from_epsg(4326)
POLE = 80.0
"""Latitude beyond which meridians run together, so that no lines are drawn."""


@dataclass(frozen=True)
class Line:
    """A meridian or a parallel.

    Attributes:
        label: Longitude or latitude, see `label`.
        meridian: Whether it is a meridian.
        columns: Pixel columns of its points; some lie outside the scene.
        rows: Their pixel rows.
    """

    label: str
    meridian: bool
    columns: NDArray[np.float64]
    rows: NDArray[np.float64]


def graticule(grid: CellGrid) -> list[Line]:
    """The lines that cross a scene; none near the poles, for a worldwide scene or one without a place on Earth."""
    if not (grid.crs.is_projected or grid.crs.is_geographic):
        return []
    try:
        return _lines(grid)
    except RasterioError:  # a CRS that has no way to longitude and latitude
        return []


def _lines(grid: CellGrid) -> list[Line]:
    along = np.linspace(0, 1, POINTS)
    edge = np.concatenate([np.stack([along, 0 * along]), np.stack([along, 0 * along + 1])], axis=1)
    columns, rows = np.concatenate([edge, edge[::-1]], axis=1) * [[grid.width], [grid.height]]
    xs, ys = grid.transform @ (columns, rows)
    longitudes, latitudes = (np.array(values) for values in transform(grid.crs, WGS84, xs, ys))
    if not np.isfinite([longitudes, latitudes]).all():
        return []
    start = float(longitudes[0])
    longitudes = start + (longitudes - start + 180) % 360 - 180  # one run also across the 180th meridian
    west, east, south, north = longitudes.min(), longitudes.max(), latitudes.min(), latitudes.max()
    if max(abs(south), abs(north)) > POLE or east - west > 90:
        return []
    step = next((step for step in STEPS if max(east - west, north - south) >= LINES * step), STEPS[-1])
    found = []
    for meridian, low, high in ((True, west, east), (False, south, north)):
        for number in range(math.ceil(low / step), math.floor(high / step) + 1):
            value = np.full(POINTS, number * step)
            other = np.linspace(*((south, north) if meridian else (west, east)), POINTS)
            place = (value, other) if meridian else (other, value)
            xs, ys = (np.array(values) for values in transform(WGS84, grid.crs, *place))
            found.append(Line(label(number * step, meridian=meridian), meridian, *(~grid.transform @ (xs, ys))))
    return found


def label(degrees: float, *, meridian: bool) -> str:
    """A longitude or latitude as text, with minutes and seconds where it has any."""
    degrees = (degrees + 180) % 360 - 180 if meridian else degrees
    seconds = round(abs(degrees) * 3600)
    whole, minutes, rest = seconds // 3600, seconds // 60 % 60, seconds % 60
    parts = [f"{whole}°"]
    if minutes or rest:
        parts.append(f"{minutes:02}\N{PRIME}")
    if rest:
        parts.append(f"{rest:02}\N{DOUBLE PRIME}")
    side = ("E" if degrees > 0 else "W") if meridian else ("N" if degrees > 0 else "S")
    return f"{''.join(parts)} {side}" if seconds else parts[0]
