"""Surfaces of a synthetic landscape: paints each class in the colors and textures of its patches in EuroSAT."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from geocfl.core.legend import EUROSAT
from geocfl.core.radiometry import SENTINEL2
from geocfl.demonstration.parcels import blocks, lot, parcels
from geocfl.demonstration.terrain import Array, Terrain

CROP, FOREST, HERBACEOUS, HIGHWAY, INDUSTRIAL, PASTURE, ORCHARD, RESIDENTIAL, RIVER, SEA = (c.code for c in EUROSAT)


def _palette(*colors: tuple[int, int, int, int]) -> Array:
    """(colors, 4) reflectance of red, green, blue and near infrared from digital numbers."""
    return np.array(colors, np.float32) / np.float32(SENTINEL2.scale)


SOILS = _palette((1681, 1371, 1330, 2250), (2094, 1647, 1545, 2700), (1299, 1199, 1195, 2100), (1500, 1250, 1200, 2100))
CROPS = _palette((453, 738, 811, 3600), (560, 900, 930, 3900), (926, 1092, 1109, 2800), (653, 944, 983, 3300))
VINES = _palette((1220, 1150, 1146, 2500), (921, 1001, 1041, 2600), (1513, 1333, 1280, 2500), (700, 880, 940, 3000))
MEADOWS = _palette((502, 869, 866, 4000), (580, 915, 905, 3900), (460, 850, 850, 4100), (820, 990, 1000, 3300))
SCRUB = _palette((700, 830, 900, 2400), (1072, 1058, 1099, 2300), (1384, 1265, 1270, 2400))
TREES = _palette((330, 590, 735, 2500), (395, 670, 810, 3000), (460, 750, 845, 3400))
ROOFS = _palette((1300, 1130, 1190, 1800), (1600, 1270, 1290, 2000), (1127, 1110, 1200, 1700), (1800, 1600, 1590, 2300))
HALLS = _palette((2700, 2600, 2580, 3200), (2100, 1980, 1950, 2500), (1500, 1440, 1480, 2000), (1000, 1060, 1170, 1500))
ASPHALT, PATH, SAND = _palette((1080, 1130, 1230, 1500), (1850, 1600, 1520, 2500), (2100, 1850, 1700, 2600))
GARDEN, VERGE, HEDGE = _palette((600, 830, 890, 3000), (560, 820, 890, 3000), (390, 670, 770, 2900))
OPEN_WATER, SHALLOWS, RIVER_WATER = _palette((320, 575, 830, 200), (450, 790, 950, 250), (560, 830, 980, 350))


def _mix(a: Array, b: Array, share: Array) -> Array:
    """(N, 4) colors between `a` (share 0) and `b` (share 1), each (N, 4) or (4,); `share` (N,) is clipped to 0..1."""
    return a + (b - a) * np.clip(share, 0, 1)[:, None]


def _pick(palette: Array, drawn: Array) -> Array:
    """(N, 4) colors of a palette for random numbers in 0..1."""
    return np.take(palette, (drawn * len(palette)).astype(np.int64), axis=0, mode="clip")


def _gain(color: Array, gain: Array) -> Array:
    """(N, 4) colors, brightened by a relative gain (N,)."""
    return color * (1 + gain)[:, None]


Painter = Callable[[Generator, Terrain], Array]
"""Paints a class: takes a random generator and the N pixels of the class, returns (N, 4) reflectance."""


def _annual_crop(rng: Generator, t: Terrain) -> Array:
    p = parcels(rng, t, block=180, length=68, width=26)
    color = _pick(np.concatenate([SOILS, CROPS]), lot(rng, p.ident))
    rows = np.sin(p.across * lot(rng, p.ident, 1.2, 2.2)) * lot(rng, p.ident, 0, 0.03)
    color = _gain(color, lot(rng, p.ident, -0.12, 0.12) + rows + 0.025 * t.smooth + 0.015 * t.rough)
    color[p.edge < 0.5] *= 0.85
    return np.where((p.block_edge < 0.6)[:, None], PATH, color)


def _permanent_crop(rng: Generator, t: Terrain) -> Array:
    p = parcels(rng, t, block=75, length=17, width=10)
    color = _gain(_pick(VINES, lot(rng, p.ident)), lot(rng, p.ident, -0.1, 0.1) + 0.05 * t.smooth)
    rows = np.sin(p.across * 2.3) + t.fine
    color = _gain(color, lot(rng, p.ident, 0.02, 0.07) * rows + 0.03 * t.rough)
    color = _mix(PATH, color, np.where(p.block_edge < 0.6, 0.2, np.where(p.edge < 0.5, 0.6, 1.0)).astype(np.float32))
    return np.where((t.rough > 2.3)[:, None], HEDGE, color)


def _pasture(rng: Generator, t: Terrain) -> Array:
    p = parcels(rng, t, block=110, length=42, width=28)
    color = _gain(_pick(MEADOWS, lot(rng, p.ident)), lot(rng, p.ident, -0.06, 0.06) + 0.025 * t.rough)
    hedged = (p.edge < 0.9) & (lot(rng, p.ident) < 0.7) | (t.rough > 2.6)
    return np.where(hedged[:, None], HEDGE, color)


def _herbaceous(rng: Generator, t: Terrain) -> Array:
    cover = 0.5 + 0.2 * t.rough + 0.2 * t.smooth
    color = _mix(_mix(SCRUB[0], SCRUB[1], 2 * cover), SCRUB[2], 2 * cover - 1)
    color = _mix(color, HEDGE, 0.6 * (t.rough < -1.5).astype(np.float32))
    return _gain(color, 0.06 * t.shade + 0.025 * t.fine)


def _forest(rng: Generator, t: Terrain) -> Array:
    stand = 0.5 + 0.15 * t.smooth
    color = _mix(_mix(TREES[0], TREES[1], 2 * stand), TREES[2], 2 * stand - 1)
    color = _gain(color, 0.03 * t.shade + 0.02 * t.rough + 0.07 * t.fine)
    _, to_track = blocks(rng, t.x + 12 * t.smooth, t.y - 12 * t.smooth, 190)
    return _mix(color, PATH, 0.25 * (to_track < 0.6).astype(np.float32))


def _residential(rng: Generator, t: Terrain) -> Array:
    p = parcels(rng, t, block=110, length=24, width=9)
    house = p.ident * 31 + np.floor(p.along / 2.3).astype(np.int64) * 17 + (p.edge > 2.8)
    built = (p.edge < 4) & (lot(rng, house) < lot(rng, p.ident, 0.2, 1.0))
    roof = _gain(_pick(ROOFS, lot(rng, house)), lot(rng, house, -0.15, 0.15))
    garden = _gain(_mix(GARDEN, HEDGE, 0.5 * lot(rng, p.ident)), 0.2 * t.fine)
    color = np.where(built[:, None], roof, garden)
    return np.where((p.edge < 0.6)[:, None], ASPHALT, color)


def _industrial(rng: Generator, t: Terrain) -> Array:
    p = parcels(rng, t, block=110, length=20, width=13)
    yard = _gain(_mix(ASPHALT, PATH, 0.3 * lot(rng, p.ident)), 0.1 * t.fine)
    part = p.ident * 13 + np.floor(p.along / 7).astype(np.int64)
    hall = _gain(_pick(HALLS, lot(rng, part)), 0.04 * np.sin(p.across) + 0.02 * t.fine)
    built = (p.edge > lot(rng, part, 1, 4)) & (lot(rng, part) < 0.8)
    color = np.where(built[:, None], hall, yard)
    return np.where(((p.edge < 1) & (lot(rng, p.ident) < 0.5))[:, None], GARDEN, color)


def _even(color: Array, rolling: float, grain: float) -> Painter:
    """Paints one color that varies slightly over hundreds of meters and from pixel to pixel."""
    return lambda rng, t: _gain(np.tile(color, (t.x.size, 1)), rolling * t.smooth + grain * t.fine)


PAINTERS: dict[int, Painter] = {
    CROP: _annual_crop,
    FOREST: _forest,
    HERBACEOUS: _herbaceous,
    HIGHWAY: _even(ASPHALT, rolling=0, grain=0.03),
    INDUSTRIAL: _industrial,
    PASTURE: _pasture,
    ORCHARD: _permanent_crop,
    RESIDENTIAL: _residential,
    RIVER: _even(RIVER_WATER, rolling=0.02, grain=0.01),
    SEA: _even(OPEN_WATER, rolling=0.04, grain=0.008),
}
