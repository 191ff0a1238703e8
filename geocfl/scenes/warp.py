"""Resamples scenes on another grid to the model's grid while they are read."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pyproj
import rasterio
from affine import Affine
from numpy.typing import NDArray
from pyproj.aoi import AreaOfInterest
from pyproj.database import query_utm_crs_info
from rasterio.crs import CRS
from rasterio.enums import MaskFlags, Resampling
from rasterio.errors import WarpedVRTError
from rasterio.vrt import WarpedVRT

from geocfl.core.machine import cores

GSD_TOLERANCE = 0.05
"""Relative difference in ground sampling distance that does not need resampling."""
TOLERANCE = 1e-3
"""Error in pixels that GDAL may make by interpolating between projected points; rasterio fails at 0."""
POLAR_GRIDS = {True: 5041, False: 5042}
"""Universal Polar Stereographic in the north, and in the south, where UTM has no zones; EPSG codes, east first."""
MOST_PIXELS = 2**31 - 1
"""Along one side of a raster of GDAL."""
SIDE_POINTS = 51
"""Points along each side of a scene that determine where its edges lie in another CRS."""


@dataclass(frozen=True)
class Ground:
    """The size of a pixel on the ground, in the middle of the scene.

    Attributes:
        across: Meters to the next pixel in the row, along the ellipsoid.
        down: Meters to the next pixel in the column.
        skew: Angle between rows and the axes of the CRS, 0..45 degrees.
    """

    across: float
    down: float
    skew: float

    def fits(self, gsd: float) -> bool:
        """Whether a model with this ground sampling distance can read such pixels without resampling."""
        near = all(abs(side / gsd - 1) <= GSD_TOLERANCE for side in (self.across, self.down))
        return near and not self.turned

    @property
    def turned(self) -> bool:
        """Whether rows are rotated against the axes by more than rounding."""
        return self.skew > 1e-3


def ground(dataset: rasterio.DatasetReader) -> Ground:
    """Measures the pixels of a dataset that has a CRS.

    It uses geodesics, not the unit of the CRS: a meter of Web Mercator is 0.7 m at 46 degrees north.
    """
    crs = pyproj.CRS.from_wkt(dataset.crs.to_wkt())
    geodetic = crs.geodetic_crs
    geod = crs.get_geod() or pyproj.Geod(ellps="WGS84")
    to_degrees = pyproj.Transformer.from_crs(crs, geodetic, always_xy=True)
    x, y = dataset.width / 2, dataset.height / 2
    corners = [dataset.transform @ point for point in ((x, y), (x + 1, y), (x, y + 1))]
    (lon, lat), *others = (to_degrees.transform(*corner) for corner in corners)
    across, down = (geod.inv(lon, lat, *other)[2] for other in others)
    a, b, _, d, e, _ = dataset.transform[:6]
    turns = [math.degrees(math.atan2(*side)) % 90 for side in ((d, a), (b, e))]
    return Ground(across, down, max(min(turn, 90 - turn) for turn in turns))


def to_model_grid(dataset: rasterio.DatasetReader, gsd: float) -> WarpedVRT:
    """A view of a dataset in its UTM zone, north up, with pixels of a model's size.

    Args:
        dataset: Open, with a CRS.
        gsd: Meters per pixel.

    Returns:
        The view, resampled with cubic convolution, or averaged from pixels less than half as large. Cubic values may
        lie slightly outside the range of their neighbors; a valid value never becomes the nodata value. Pixels without
        data in all bands stay so, and no value of a pixel without data enters its neighbors.

    Raises:
        WarpedVRTError: It reaches to where that zone is undefined, or GDAL cannot warp it.
    """
    crs = _utm_zone(dataset)
    xs, ys = outline(dataset, pyproj.CRS.from_wkt(crs.to_wkt()))
    if not (np.isfinite(xs).all() and np.isfinite(ys).all()):
        raise WarpedVRTError("it reaches to where its projection, or its UTM zone, is undefined")
    found = ground(dataset)
    # Origin: the scene's own corner if it is in that CRS, else a multiple of the pixel size.
    x, y = (min(xs), max(ys)) if crs == dataset.crs and not found.turned else (0.0, 0.0)
    west, east = x + gsd * np.floor(round((min(xs) - x) / gsd, 3)), x + gsd * np.ceil(round((max(xs) - x) / gsd, 3))
    south, north = y + gsd * np.floor(round((min(ys) - y) / gsd, 3)), y + gsd * np.ceil(round((max(ys) - y) / gsd, 3))
    finer = gsd / max(found.across, found.down) > 2
    masked = MaskFlags.per_dataset in dataset.mask_flag_enums[0]
    declared = dataset.nodata is not None
    nodata = dataset.nodata if declared else 0
    width, height = round((east - west) / gsd), round((north - south) / gsd)
    if not (0 < width <= MOST_PIXELS and 0 < height <= MOST_PIXELS):
        raise WarpedVRTError(f"it would have {width} x {height} pixels of {gsd:g} m")
    return WarpedVRT(
        dataset,
        crs=crs,
        transform=Affine(gsd, 0, west, 0, -gsd, north),
        width=width,
        height=height,
        resampling=Resampling.average if finer else Resampling.cubic,
        add_alpha=masked,
        src_nodata=None if masked else nodata,
        nodata=None if masked else nodata,
        # A pixel that lacks one band: the others keep it, unless 0 is only assumed to be nodata and may be dark land.
        UNIFIED_SRC_NODATA="PARTIAL" if declared else "YES",
        # GDAL's own estimate takes the bounding box of rotated pixels for their size, and blurs them.
        XSCALE=found.across / gsd,
        YSCALE=found.down / gsd,
        tolerance=TOLERANCE,
        NUM_THREADS=str(cores()),
    )


def _utm_zone(dataset: rasterio.DatasetReader) -> CRS:
    """The UTM zone that a dataset is in; otherwise the WGS 84 zone of its middle, or near a pole its polar grid."""
    crs = pyproj.CRS.from_wkt(dataset.crs.to_wkt())
    if crs.utm_zone:
        return dataset.crs
    x, y = dataset.transform @ (dataset.width / 2, dataset.height / 2)
    lon, lat = pyproj.Transformer.from_crs(crs, 4326, always_xy=True).transform(x, y)
    lon = (lon + 180) % 360 - 180
    zones = query_utm_crs_info(datum_name="WGS 84", area_of_interest=AreaOfInterest(lon, lat, lon, lat))
    if not zones:
        return CRS.from_epsg(POLAR_GRIDS[lat > 0])
    return CRS.from_epsg(int(zones[0].code))


def outline(dataset: rasterio.DatasetReader, crs: pyproj.CRS) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coordinates of points around a dataset in another CRS; not finite where that is undefined."""
    along = np.linspace(0, 1, SIDE_POINTS)
    columns = np.concatenate([along, along, 0 * along, 0 * along + 1]) * dataset.width
    rows = np.concatenate([0 * along, 0 * along + 1, along, along]) * dataset.height
    transformer = pyproj.Transformer.from_crs(pyproj.CRS.from_wkt(dataset.crs.to_wkt()), crs, always_xy=True)
    x, y = transformer.transform(*(dataset.transform @ (columns, rows)))
    return np.asarray(x), np.asarray(y)
