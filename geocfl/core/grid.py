"""The cells of a map: their pixels in the scene, the window that decides each, and the area that each covers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from geocfl.core.areas import SQUARE_METERS_PER_HECTARE, CellAreas, ground_areas, ground_sides


@dataclass(frozen=True)
class CellGrid:
    """Cells of `stride` x `stride` pixels over a scene; the last row and column may reach beyond it.

    Cell (i, j) covers pixels [i*s, (i+1)*s) x [j*s, (j+1)*s) at stride s. Its class is that of the window of `window`
    pixels starting at (i*s + (s - window) // 2, j*s + (s - window) // 2): the same square at s = window, half a pixel
    up and left of the cell's center if s - window is odd.

    Attributes:
        height: Rows of the scene, pixels.
        width: Columns of the scene, pixels.
        stride: Side of a cell, pixels, 1..window.
        window: Side of a window, pixels.
        transform: Pixel (column, row) to coordinates of `crs`.
        crs: The scene's coordinate reference system.
        context: Pixels around a window that a dense model sees as well.
    """

    height: int
    width: int
    stride: int
    window: int
    transform: Affine
    crs: CRS
    context: int = 0

    @property
    def rows(self) -> int:
        """Rows of cells; the last one may reach beyond the scene."""
        return -(-self.height // self.stride)

    @property
    def columns(self) -> int:
        """Columns of cells; the last one may reach beyond the scene."""
        return -(-self.width // self.stride)

    @property
    def footprint(self) -> int:
        """Side in pixels of a window with the context around it."""
        return self.window + 2 * self.context

    @property
    def margin(self) -> int:
        """Pixels by which a footprint starts above and left of its cell; 0 at stride = window without context."""
        return self.context - (self.stride - self.window) // 2

    @property
    def cell_transform(self) -> Affine:
        """Cell (column, row) to coordinates, with the scene's origin."""
        return self.transform @ Affine.scale(self.stride)

    @property
    def meters_per_unit(self) -> float:
        """Meters per unit of the CRS, if it is not geographic."""
        return float(self.crs.linear_units_factor[1]) if self.crs.is_projected else 1.0

    def row_pixels(self) -> NDArray[np.int64]:
        """(rows,) pixel rows of each cell row inside the scene."""
        return np.minimum(self.stride, self.height - self.stride * np.arange(self.rows))

    def column_pixels(self) -> NDArray[np.int64]:
        """(columns,) pixel columns of each cell column inside the scene."""
        return np.minimum(self.stride, self.width - self.stride * np.arange(self.columns))

    def areas(self) -> CellAreas:
        """Hectares of the cells on the ground, cut at the scene's rectangle.

        They are those of the projection if they are within 0.1% of those on the ellipsoid everywhere in the scene, as
        in a UTM zone, and else those on the ellipsoid.
        """
        along_parallels = self.crs.is_geographic and self.transform.b == self.transform.d == 0
        if not along_parallels and (areas := ground_areas(self)):
            return areas
        if along_parallels:
            pixel_rows = self._geodesic_pixel_hectares()
        else:
            area = abs(self.transform.determinant) * self.meters_per_unit**2 / SQUARE_METERS_PER_HECTARE
            pixel_rows = np.full(self.height, area)
        rows = np.add.reduceat(pixel_rows, self.stride * np.arange(self.rows))
        return CellAreas(rows[None], self.column_pixels()[None].astype(np.float64))

    def _geodesic_pixel_hectares(self) -> NDArray[np.float64]:
        """(height,) hectares of one pixel in each pixel row, by the area between parallels on the ellipsoid."""
        import pyproj

        ellipsoid = pyproj.CRS.from_wkt(self.crs.to_wkt()).ellipsoid
        a, b = 6378137.0, 6356752.314245
        if ellipsoid:
            a, b = ellipsoid.semi_major_metre, ellipsoid.semi_minor_metre  # codespell:ignore metre
        e = np.sqrt(1 - (b / a) ** 2)
        edges = np.radians(self.transform.f + self.transform.e * np.arange(self.height + 1))
        x = np.sin(edges)
        # Area between the equator and a parallel, per radian of longitude (Snyder 1987, eq. 3-12 times a^2 / 2).
        zone = a**2 * (1 - e**2) / 2 * (x / (1 - (e * x) ** 2) + (np.arctanh(e * x) / e if e else x))
        radians = np.radians(abs(self.transform.a))
        hectares: NDArray[np.float64] = np.abs(np.diff(zone)) * radians / SQUARE_METERS_PER_HECTARE
        return hectares

    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north of the scene's rectangle, or of its envelope if the grid is rotated."""
        corners = [self.transform @ (x, y) for x in (0, self.width) for y in (0, self.height)]
        xs, ys = zip(*corners, strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    def meters_per_pixel(self) -> tuple[float, float]:
        """Meters per pixel along rows and along columns, on the ground in the middle of the scene.

        They are those of the projection where `areas` are.
        """
        a, b, _, d, e, _ = self.transform[:6]
        if not self.crs.is_geographic:
            if sides := ground_sides(self):
                return sides
            meters = self.meters_per_unit
            return float(np.hypot(a, d) * meters), float(np.hypot(b, e) * meters)
        import pyproj

        geod = pyproj.CRS.from_wkt(self.crs.to_wkt()).get_geod() or pyproj.Geod(ellps="WGS84")
        # One pixel from the middle, since a whole scene may wrap the globe.
        x, y = self.transform @ (self.width / 2, self.height / 2)
        return geod.inv(x, y, x + a, y + d)[2], geod.inv(x, y, x + b, y + e)[2]

    def ground_meters_per_unit(self) -> float:
        """Meters on the ground per unit of a CRS that is not geographic, down the middle of the scene."""
        return self.meters_per_pixel()[1] / float(np.hypot(self.transform.b, self.transform.e))

    def crs_name(self) -> str:
        """Name and code of the CRS, such as ``"WGS 84 / UTM zone 33N (EPSG:32633)"``."""
        import pyproj

        name, epsg = pyproj.CRS.from_wkt(self.crs.to_wkt()).name, self.crs.to_epsg()
        return f"{name} (EPSG:{epsg})" if epsg else name
