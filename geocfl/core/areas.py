"""Ground areas: those of the projection where it is true to scale, else those on the ellipsoid."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

if TYPE_CHECKING:
    from geocfl.core.grid import CellGrid

log = logging.getLogger("geocfl")

SQUARE_METERS_PER_HECTARE = 10_000.0
METERS_PER_DEGREE = 111_320.0
"""Along a meridian and the equator, about."""
TRUE_TO_SCALE = 0.001
"""A projection whose areas differ by at most this fraction from those on the ground is taken as it is."""
LOOKED_AT = 9
"""Points along each side of a scene at which its scale is looked at."""
STEP = 500.0
"""Meters, about, on both sides of a point, from which scales are computed."""
DEGREES = (8, 16, 32, 64)
"""Numbers of Chebyshev polynomials that are tried along each side of a scene."""
PRECISION, NEGLIGIBLE = 1e-7, 1e-12
"""Relative errors: of the polynomials, and of terms that are left out."""


@dataclass(frozen=True)
class CellAreas:
    """Hectares of cells, cut at the scene's rectangle: cell (i, j) has the sum over k of rows[k, i] * columns[k, j].

    Area is a smooth function of the place, so a few terms suffice, and sums over any cells need no area of each cell.
    One term is enough where area depends on the row only.

    Attributes:
        rows: (K, rows) float64.
        columns: (K, columns) float64; the first term is the pixels of each column.
    """

    rows: NDArray[np.float64]
    columns: NDArray[np.float64]

    def cells(self, first: int, last: int) -> NDArray[np.float64]:
        """(n, columns) hectares of each cell in the rows from `first` to before `last`."""
        hectares: NDArray[np.float64] = np.einsum("ki,kj->ij", self.rows[:, first:last], self.columns)
        return hectares

    def total(self, first: int, chosen: NDArray[np.bool_]) -> float:
        """Hectares of the chosen cells, (n, columns), of n rows from `first`."""
        rows = self.rows[:, first : first + len(chosen)]
        return float(sum(row @ (chosen @ column) for row, column in zip(rows, self.columns, strict=True)))


def ground_areas(grid: CellGrid) -> CellAreas | None:
    """Areas of a grid's cells on the ellipsoid.

    Scales at Chebyshev nodes give a polynomial, which is integrated over each cell.

    Args:
        grid: Cells in any CRS of the earth.

    Returns:
        The areas; None if the areas of the projection itself are within `TRUE_TO_SCALE` of them.
    """
    if _is_true_to_scale(grid):
        return None
    for count in DEGREES:
        nodes = (chebyshev.chebpts1(count) + 1) / 2
        density = _pixel_hectares(grid, nodes[:, None] * grid.height, nodes * grid.width)
        if not np.isfinite(density).all():
            break
        fit = 2 / count * chebyshev.chebvander(2 * nodes - 1, count - 1).T
        fit[0] /= 2
        terms = fit @ density @ fit.T  # rows, columns
        along = np.linspace(0, 1, 2 * count + 1)
        truth = _pixel_hectares(grid, along[:, None] * grid.height, along * grid.width)
        error = np.abs(chebyshev.chebgrid2d(2 * along - 1, 2 * along - 1, terms) - truth).max()
        if error <= PRECISION * density.max():
            break
    if not (np.isfinite(density).all() and np.isfinite(error)):
        log.warning("%s is undefined in a part of the map: hectares are those of the projection", grid.crs_name())
        return None
    size = np.abs(terms).max(axis=0)
    terms = terms[:, : np.flatnonzero(size > NEGLIGIBLE * size.max())[-1] + 1]
    across = _integrals(np.minimum(np.arange(grid.columns + 1) * grid.stride, grid.width), terms.shape[1])
    down = _integrals(np.minimum(np.arange(grid.rows + 1) * grid.stride, grid.height), terms.shape[0])
    return CellAreas(np.ascontiguousarray(terms.T @ down), across)


def ground_sides(grid: CellGrid) -> tuple[float, float] | None:
    """Meters per pixel on the ground along rows and columns, in the middle of a scene; None as in `ground_areas`."""
    if _is_true_to_scale(grid):
        return None
    across, down = _sides(grid, np.array(grid.height / 2), np.array(grid.width / 2))
    lengths = float(np.linalg.norm(across)), float(np.linalg.norm(down))
    return lengths if np.isfinite(lengths).all() else None


def _integrals(edges: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """(count, n) integrals of Chebyshev polynomials over n intervals of pixels, 0 to the last edge mapped to -1..1."""
    places = 2 * edges / edges[-1] - 1
    half = edges[-1] / 2
    rows = [half * np.diff(chebyshev.chebval(places, chebyshev.chebint(row))) for row in np.eye(count)]
    rows[0] = np.diff(edges).astype(np.float64)
    return np.array(rows)


def _is_true_to_scale(grid: CellGrid) -> bool:
    """Whether areas in a grid's projection are those on the ground; also where that is unknown."""
    if not grid.crs.is_projected:
        return not grid.crs.is_geographic
    along = np.linspace(0, 1, LOOKED_AT)
    ground = _pixel_hectares(grid, along[:, None] * grid.height, along * grid.width)
    projected = abs(grid.transform.determinant) * grid.meters_per_unit**2 / SQUARE_METERS_PER_HECTARE
    known = ground[np.isfinite(ground)]
    return bool((np.abs(projected - known) <= TRUE_TO_SCALE * known).all())


def _pixel_hectares(grid: CellGrid, rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[np.float64]:
    """Hectares on the ground per pixel at places in pixels; not finite where the projection is undefined."""
    across, down = _sides(grid, *np.broadcast_arrays(rows, columns))
    areas: NDArray[np.float64] = np.linalg.norm(np.cross(across, down), axis=-1) / SQUARE_METERS_PER_HECTARE
    return areas


def _sides(
    grid: CellGrid, rows: NDArray[Any], columns: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(..., 3) meters on the ground from a pixel to the next along a row, and along a column, as vectors in space."""
    a, b, _, d, e, _ = grid.transform[:6]
    unit = np.pi / 180 * 6.4e6 if grid.crs.is_geographic else grid.meters_per_unit
    step = STEP / (np.sqrt(abs(a * e - b * d)) * unit)
    across = _in_space(grid, columns + step, rows) - _in_space(grid, columns - step, rows)
    down = _in_space(grid, columns, rows + step) - _in_space(grid, columns, rows - step)
    return across / (2 * step), down / (2 * step)


def _in_space(grid: CellGrid, columns: NDArray[Any], rows: NDArray[Any]) -> NDArray[np.float64]:
    """(..., 3) geocentric coordinates in meters, which neither jump at 180 degrees nor end at a pole."""
    to_degrees, major, eccentricity = _ellipsoid(grid.crs.to_wkt())
    a, b, c, d, e, f = grid.transform[:6]
    degrees = to_degrees.transform(a * columns + b * rows + c, d * columns + e * rows + f)
    longitude, latitude = np.radians(degrees)
    normal = major / np.sqrt(1 - eccentricity * np.sin(latitude) ** 2)
    return np.stack(
        [
            normal * np.cos(latitude) * np.cos(longitude),
            normal * np.cos(latitude) * np.sin(longitude),
            normal * (1 - eccentricity) * np.sin(latitude),
        ],
        axis=-1,
    )


@lru_cache(maxsize=16)
def _ellipsoid(wkt: str) -> tuple[Any, float, float]:
    """Transformer from a CRS to its degrees; semi-major axis in meters, and squared eccentricity."""
    import pyproj

    crs = pyproj.CRS.from_wkt(wkt)
    geographic: Any = crs.geodetic_crs  # every projected or geographic CRS has one
    geod = geographic.get_geod()
    return pyproj.Transformer.from_crs(crs, geographic, always_xy=True), geod.a, geod.es
