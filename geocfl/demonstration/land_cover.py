"""Land cover of a synthetic landscape: tracts of the classes, a river, a highway and a country road."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.random import Generator
from numpy.typing import NDArray
from rasterio.features import rasterize

from geocfl.demonstration.surfaces import (
    ASPHALT,
    CROP,
    FOREST,
    HEDGE,
    HERBACEOUS,
    HIGHWAY,
    INDUSTRIAL,
    ORCHARD,
    PASTURE,
    PATH,
    RESIDENTIAL,
    RIVER,
    SEA,
    VERGE,
)
from geocfl.demonstration.terrain import Array, Mask, Terrain

TRACTS = {
    SEA: ((-0.05, 0.10, 0.12), (-0.10, 0.50, 0.10), (-0.12, 0.90, 0.08), (0.60, 0.50, -0.03)),
    HERBACEOUS: ((0.33, 0.02, 0.05), (0.55, 0.08, 0.04)),
    FOREST: ((0.82, 0.06, 0.07), (1.12, 0.10, 0.09), (0.88, 0.80, 0.04)),
    RESIDENTIAL: ((0.22, 0.32, 0.03), (0.26, 0.52, 0.04), (1.02, 0.70, -0.01)),
    INDUSTRIAL: ((0.48, 0.62, 0.02),),
    PASTURE: ((0.44, 0.36, 0.02), (0.70, 0.37, 0.06), (0.98, 0.40, 0.06), (1.20, 0.42, 0.04)),
    ORCHARD: ((0.16, 0.80, 0.04), (0.36, 0.92, 0.06)),
    CROP: ((0.70, 0.68, 0.04), (0.62, 0.92, 0.04), (0.88, 0.90, 0.06), (1.16, 0.88, 0.08)),
}
"""Tracts of land of each class: center (x, y) and reach, in units of the scene's height from its north-west corner. A
place belongs to the tract with the smallest distance to the center minus reach."""
HIGHWAY_ENDS = (0.54, 1.02), (0.98, -0.02)
RIVER_ENDS = (1.30, 0.36), (0.05, 0.43)
ROAD_ENDS = (0.30, 0.56), (1.02, 0.74)
"""A country road between two towns, which meets the highway at a junction."""


@dataclass(frozen=True)
class Land:
    """The land cover of each pixel.

    Attributes:
        cover: (height, width) uint8 class codes.
        shore: (height, width) approximate distance to the shore in pixels, negative inland.
        details: (height, width) masks of details without a class, drawn over the cover, and their (4,) colors.
    """

    cover: NDArray[np.uint8]
    shore: Array
    details: tuple[tuple[Mask, Array], ...]

    @classmethod
    def draw(cls, rng: Generator, terrain: Terrain) -> Land:
        """Tracts with winding borders, then a river, a highway with a junction and a country road across them."""
        cover, shore = _tracts(rng, terrain)
        height = len(cover)
        river = _course(rng, *RIVER_ENDS, height, swing=0.03, bends=4.0)
        highway = _course(rng, *HIGHWAY_ENDS, height, swing=0.025, bends=1.0)
        junction = highway.interpolate(0.37, normalized=True)
        ring = junction.buffer(13).boundary
        road = shapely.LineString([np.multiply(ROAD_ENDS[0], height), junction, np.multiply(ROAD_ENDS[1], height)])
        inland = cover != SEA
        water = inland & _burn(river.buffer(9.5), cover)
        lanes = _burn(highway.buffer(2.5) | ring.buffer(1.0), cover)
        details = (
            (inland & _burn(river.buffer(13.5), cover) & ~water & ~lanes, PATH),
            (inland & _burn(river.buffer(12.5), cover) & ~water & ~lanes, HEDGE),
            (_burn(highway.buffer(4.5) | ring.buffer(2.5), cover) & ~water & ~lanes, VERGE),
            (_burn(highway.buffer(0.5), cover), VERGE),
            (inland & _burn(road.buffer(0.8), cover) & ~lanes, ASPHALT),
        )
        cover[water] = RIVER
        cover[lanes] = HIGHWAY
        return cls(cover, shore, details)


def _tracts(rng: Generator, terrain: Terrain) -> tuple[NDArray[np.uint8], Array]:
    """(height, width) class codes of the nearest tract, and the distance to the shore in pixels."""
    height, width = terrain.x.shape
    x = terrain.x / height + 0.035 * terrain.smooth
    y = terrain.y / height + 0.035 * terrain.smooth[::-1, ::-1]
    nearest_sea, nearest_land = np.full((2, height, width), np.inf, np.float32)
    cover = np.zeros((height, width), np.uint8)
    for code, tracts in TRACTS.items():
        for tract in tracts:
            east, south, reach = (tract + rng.normal(0, 0.012, 3)).astype(np.float32)
            distance = np.hypot(x - east, y - south) - reach
            nearest = nearest_sea if code == SEA else nearest_land
            cover[distance < np.minimum(nearest_sea, nearest_land)] = code
            np.minimum(nearest, distance, out=nearest)
    return cover, (nearest_land - nearest_sea) * np.float32(height / 2)


def _course(
    rng: Generator, start: tuple[float, float], end: tuple[float, float], height: int, swing: float, bends: float
) -> shapely.LineString:
    """A winding line in pixels between two points; the points and the swing are in units of `height`."""
    t = np.linspace(0, 1, 400)
    along = np.subtract(end, start)
    across = np.array([-along[1], along[0]]) / np.hypot(*along)
    phase = rng.random(2)
    offset = swing * (np.sin(2 * np.pi * (bends * t + phase[0])) + 0.4 * np.sin(5.2 * np.pi * (bends * t + phase[1])))
    return shapely.LineString((np.array(start) + t[:, None] * along + offset[:, None] * across) * height)


def _burn(shape: shapely.Geometry, cover: NDArray[np.uint8]) -> Mask:
    """(height, width) mask of the pixels whose centers lie in a shape in pixel coordinates."""
    return np.asarray(rasterize([shape], cover.shape, dtype=np.uint8), bool)
