"""A procedural landscape like a Sentinel-2 scene, with known land cover, for demonstrations and tests without data.

Colors and textures follow statistics of EuroSAT's patches (top-of-atmosphere reflectance, therefore a blue haze); no
pixel comes from a real image. A coast with a town and an industrial area lies in the west. A river flows to it through
pastures. Forest and scrub cover the hills in the north; fields and orchards cover the plain, which a highway crosses.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import shapely
from numpy.random import Generator
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.transform import Affine
from rasterio.windows import Window

from geocfl.core.legend import EUROSAT, NODATA
from geocfl.core.radiometry import SENTINEL2
from geocfl.errors import UsageError

Array = NDArray[np.float32]
Labels = NDArray[np.int64]
Mask = NDArray[np.bool_]

BANDS = ("B04", "B03", "B02", "B08")
CELL = 64
"""Width and height of a cell in pixels, those of a EuroSAT patch."""
PRIME = 4093
"""Length of the tables of random numbers for parcels."""

CROP, FOREST, HERBACEOUS, HIGHWAY, INDUSTRIAL, PASTURE, ORCHARD, RESIDENTIAL, RIVER, SEA = (c.code for c in EUROSAT)

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
class SyntheticScene:
    """A synthetic scene with the true class of each 64 x 64 px cell.

    Attributes:
        path: Path of the scene, uint16, with the bands `BANDS`.
        truth_path: Path of the class codes of its pixels, uint8.
        truth: (rows, columns) uint8 codes of `EUROSAT`, 0 where no data; see `cell_truth` for the rule.
        clear: (rows, columns) bool, cells that clearly belong to one class.
    """

    path: Path
    truth_path: Path
    truth: NDArray[np.uint8]
    clear: Mask


def write_synthetic_scene(path: Path, truth_path: Path, size: int = 1024, seed: int = 0) -> SyntheticScene:
    """Writes a scene with 10 m pixels in UTM zone 32N, and the classes of its pixels.

    The same seed gives the same bytes with the same numpy, GDAL and processor.

    Args:
        path: GeoTIFF of uint16 digital numbers, reflectance times 10,000; 0 is no data, east of a slanted edge.
        truth_path: GeoTIFF of uint8 class codes of `EUROSAT` with its colors; 0 is no data.
        size: Height in pixels; the width is 5/4 of it. Scenes below 768 may lack a class.
        seed: Random seed of the landscape.

    Raises:
        UsageError: `size` is below one cell.
    """
    if size < CELL:
        raise UsageError(f"`size` is {size} but must be at least {CELL} pixels")
    rng = np.random.default_rng(seed)
    height, width = size, size * 5 // 4
    terrain = _Terrain.draw(rng, height, width)
    land = _Land.draw(rng, terrain)
    reflectance = _render(rng, terrain, land)
    cover = land.cover
    cover[terrain.x > width * 0.97 - 0.12 * terrain.y] = NODATA
    dn = np.rint(reflectance * SENTINEL2.scale).clip(1, 65535).astype(np.uint16)
    _write(path, np.where(cover == NODATA, 0, dn).astype(np.uint16), BANDS)
    _write(truth_path, cover[None], ("class",))
    return SyntheticScene(path, truth_path, *cell_truth(cover))


def write_synthetic_patches(
    folder: str | Path, *, scenes: int = 1, seed: int = 0, names: Mapping[str, str] | None = None
) -> int:
    """Writes labeled patches cut from synthetic scenes, in one folder per class, as `geocfl.train` reads them.

    The patches are the 64 x 64 px cells that clearly belong to one class, as georeferenced GeoTIFFs with the scene's
    bands. A scene has about 200 of them, between 5 and 40 of each of the ten classes.

    Args:
        folder: Folder for the class folders; it may contain others.
        scenes: Number of scenes, with the seeds `seed`, `seed` + 1, and so on.
        seed: Random seed of the first scene.
        names: Class folder for each folder of `EUROSAT`, such as ``{"River": "Water", "SeaLake": "Water"}``; other
            classes are left out. None keeps all classes under their own names.

    Returns:
        Number of patches written.
    """
    names = {c.folder: c.folder for c in EUROSAT} if names is None else names
    written = 0
    for number in range(seed, seed + scenes):
        with tempfile.TemporaryDirectory() as aside:
            drawn = write_synthetic_scene(Path(aside, "scene.tif"), Path(aside, "truth.tif"), seed=number)
            with rasterio.open(drawn.path) as scene:
                for row, column in np.argwhere(drawn.clear).tolist():
                    name = names.get(EUROSAT[int(drawn.truth[row, column])].folder)
                    square = Window(column * CELL, row * CELL, CELL, CELL)
                    if name is None or (row + 1) * CELL > scene.height or (column + 1) * CELL > scene.width:
                        continue
                    path = Path(folder, name, f"{name}_{number}_{row:02}_{column:02}.tif")
                    path.parent.mkdir(parents=True, exist_ok=True)
                    place = scene.transform @ Affine.translation(square.col_off, square.row_off)
                    _write(path, scene.read(window=square), BANDS, place)
                    written += 1
    return written


def cell_truth(land: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], Mask]:
    """The class of each 64 x 64 px cell as a EuroSAT annotator would choose it, and whether that class is clear.

    The first rule that applies decides:

    1. No data if more than half of the cell's pixels inside the scene have no data.
    2. Highway if highway covers at least 5 % of the pixels with data (a straight crossing covers 8 %).
    3. River if river covers at least 15 % of them (a straight crossing covers 30 %).
    4. Otherwise the most frequent class other than highway and river; the lowest code in a tie.

    A cell is clear if all its pixels have data and, depending on the rule that decided:

    2. highway covers at least 6.5 % and river less than 5 %;
    3. river covers at least 20 % and highway less than 1 %;
    4. the class covers at least 70 %, and highway and river less than 1 % each.

    Args:
        land: (height, width) class codes of pixels.

    Returns:
        (rows, columns) codes and (rows, columns) flags, where each side is ``ceil(size / 64)``.
    """
    tops, lefts = np.arange(0, land.shape[0], CELL), np.arange(0, land.shape[1], CELL)

    def count(pixels: Mask) -> Labels:
        return np.add.reduceat(np.add.reduceat(pixels, tops, axis=0, dtype=np.int64), lefts, axis=1)

    counts = np.stack([count(land == code) for code in range(len(EUROSAT) + 1)])
    pixels, nodata = counts.sum(axis=0), counts[NODATA]
    share = counts / np.maximum(pixels - nodata, 1)
    highway, river = share[HIGHWAY].copy(), share[RIVER].copy()
    share[[NODATA, HIGHWAY, RIVER]] = 0
    rules = [2 * nodata > pixels, highway >= 0.05, river >= 0.15]
    truth = np.select(rules, [NODATA, HIGHWAY, RIVER], share.argmax(axis=0)).astype(np.uint8)
    clear = np.select(
        rules,
        [False, (highway >= 0.065) & (river < 0.05), (river >= 0.20) & (highway < 0.01)],
        (share.max(axis=0) >= 0.7) & (highway < 0.01) & (river < 0.01),
    )
    return truth, clear & (nodata == 0)


def _write(
    path: Path,
    bands: NDArray[np.generic],
    names: tuple[str, ...],
    transform: Affine = Affine(10, 0, 600_000, 0, -10, 5_300_000),  # noqa: B008, immutable
) -> None:
    profile = {
        "driver": "GTiff",
        "dtype": bands.dtype,
        "count": bands.shape[0],
        "height": bands.shape[1],
        "width": bands.shape[2],
        "crs": CRS.from_epsg(32632),
        "transform": transform,
        "nodata": 0,
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "compress": "deflate",
        "predictor": 2,
    }
    with rasterio.open(path, "w", **profile) as file:
        file.write(bands)
        file.descriptions = names
        if bands.dtype == np.uint8:
            file.write_colormap(1, {c.code: (*c.rgb, 255) for c in EUROSAT})


# --- Terrain and land cover ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Terrain:
    """Coordinates and random fields of the pixels of a scene or of one class, as arrays of the same shape.

    Attributes:
        x: Pixels from the west.
        y: Pixels from the north.
        smooth: Hills of hundreds of meters, unit variance.
        rough: Clumps of a few pixels, unit variance.
        fine: White noise, unit variance.
        shade: Illumination of slopes by a sun in the south-east, about -1..1.
    """

    x: Array
    y: Array
    smooth: Array
    rough: Array
    fine: Array
    shade: Array

    @classmethod
    def draw(cls, rng: Generator, height: int, width: int) -> _Terrain:
        y, x = np.mgrid[:height, :width].astype(np.float32)
        smooth = _random_field(rng, height, width, slope=1.7)
        rough = _random_field(rng, height, width, slope=0.9)
        relief = _random_field(rng, height, width, slope=1.9)
        slope = np.gradient(relief, axis=0) + np.gradient(relief, axis=1)
        return cls(x, y, smooth, rough, rng.standard_normal(x.shape, np.float32), slope / slope.std())

    def __getitem__(self, pixels: Mask) -> _Terrain:
        return _Terrain(*(field[pixels] for field in vars(self).values()))


def _random_field(rng: Generator, height: int, width: int, slope: float) -> Array:
    """(height, width) Gaussian field of unit variance whose amplitude falls with frequency to the power of `slope`."""
    spectrum = np.fft.rfft2(rng.standard_normal((height, width), np.float32))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    field = np.fft.irfft2(spectrum / np.maximum(frequency, 1 / max(height, width)) ** slope, (height, width))
    return np.asarray((field - field.mean()) / field.std(), np.float32)


@dataclass(frozen=True)
class _Land:
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
    def draw(cls, rng: Generator, terrain: _Terrain) -> _Land:
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


def _tracts(rng: Generator, terrain: _Terrain) -> tuple[NDArray[np.uint8], Array]:
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


@dataclass(frozen=True)
class _Parcels:
    """The parcel of each of N pixels.

    Attributes:
        ident: (N,) int64 number of the parcel.
        along: (N,) pixels along the rows.
        across: (N,) pixels across the rows.
        edge: (N,) pixels to the nearest edge of the parcel.
        block_edge: (N,) pixels to the nearest block of parcels with another orientation.
    """

    ident: Labels
    along: Array
    across: Array
    edge: Array
    block_edge: Array


def _parcels(rng: Generator, terrain: _Terrain, block: float, length: float, width: float) -> _Parcels:
    """Divides land into blocks of about `block` pixels, and each into strips of parcels of `length` by `width`."""
    x, y = terrain.x + 3 * terrain.smooth, terrain.y - 3 * terrain.smooth
    number, block_edge = _blocks(rng, x, y, block)
    angle = _lot(rng, number, 0, np.pi)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    strip, to_strip = _divide(across, _lot(rng, number, 0.7, 1.4) * np.float32(width))
    row = number * 7919 + strip
    plot, to_plot = _divide(along + _lot(rng, row, 0, length), _lot(rng, row, 0.6, 1.6) * np.float32(length))
    edge = np.minimum(np.minimum(to_strip, to_plot), block_edge)
    return _Parcels(row * 6101 + plot, along, across, edge, block_edge)


def _divide(position: Array, step: Array) -> tuple[Labels, Array]:
    """The interval that contains each position on a line, and the distance to its nearer end."""
    number = np.floor(position / step)
    start = position - number * step
    return number.astype(np.int64), np.minimum(start, step - start)


def _blocks(rng: Generator, x: Array, y: Array, side: float) -> tuple[Labels, Array]:
    """Voronoi cells of one random point per square of `side` pixels, and the distance to the nearest border, pixels."""
    column, row = np.floor(x / side), np.floor(y / side)
    jitter = rng.random((2, PRIME), np.float32)
    first, second = np.full((2, 3, x.size), np.inf, np.float32)  # squared distance, x and y of the two nearest points
    number = np.zeros(x.size, np.int64)
    for i, j in itertools.product((-1, 0, 1), repeat=2):
        ident = ((row + i) * 613 + column + j).astype(np.int64)
        east, south = (column + j + jitter[0, ident % PRIME]) * side, (row + i + jitter[1, ident % PRIME]) * side
        point = np.stack([(x - east) ** 2 + (y - south) ** 2, east, south])
        nearest = point[0] < first[0]
        second = np.where(nearest, first, np.where(point[0] < second[0], point, second))
        first = np.where(nearest, point, first)
        number[nearest] = ident[nearest]
    between = np.hypot(second[1] - first[1], second[2] - first[2])
    return number, (second[0] - first[0]) / (2 * between)


def _lot(rng: Generator, ident: Labels, low: float = 0.0, high: float = 1.0) -> Array:
    """A uniform random number for each parcel, the same at all of its pixels."""
    lots: Array = rng.uniform(low, high, PRIME).astype(np.float32)
    return lots[ident % PRIME]


# --- Appearance ----------------------------------------------------------------------------------------------------


def _palette(*colors: tuple[int, int, int, int]) -> Array:
    """(colors, 4) reflectance of `BANDS` from digital numbers."""
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


def _render(rng: Generator, terrain: _Terrain, land: _Land) -> Array:
    """(4, height, width) reflectance as the sensor sees it, with some blur and noise."""
    image = np.empty((len(BANDS), *land.cover.shape), np.float32)
    for painter_rng, (code, paint) in zip(rng.spawn(len(PAINTERS)), PAINTERS.items(), strict=True):
        pixels = land.cover == code
        image[:, pixels] = paint(painter_rng, terrain[pixels]).T
    _draw_details(image, land)
    image = _blurred(image)
    image += 0.0006 * rng.standard_normal(image.shape, np.float32)
    return image


def _blurred(image: Array) -> Array:
    """The image blurred by the optics: each neighbor along rows and columns contributes 17 %."""
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = 0.66 * padded[:, 1:-1] + 0.17 * (padded[:, :-2] + padded[:, 2:])
    blurred = 0.66 * rows[..., 1:-1] + 0.17 * (rows[..., :-2] + rows[..., 2:])
    return blurred.astype(np.float32, copy=False)


def _draw_details(image: Array, land: _Land) -> None:
    """Draws shallow water, beaches, and the edges of rivers and roads."""
    sea = land.cover == SEA
    image[:, sea] += (SHALLOWS - OPEN_WATER)[:, None] * np.exp(-land.shore[sea] / 25)
    image[:, (land.shore < 0) & (land.shore > -1.2) & (land.cover != RIVER)] = SAND[:, None]
    for pixels, color in land.details:
        image[:, pixels] = color[:, None]


def _mix(a: Array, b: Array, share: Array) -> Array:
    """(N, 4) colors between `a` (share 0) and `b` (share 1), each (N, 4) or (4,); `share` (N,) is clipped to 0..1."""
    return a + (b - a) * np.clip(share, 0, 1)[:, None]


def _pick(palette: Array, lot: Array) -> Array:
    """(N, 4) colors of a palette for random numbers in 0..1."""
    return np.take(palette, (lot * len(palette)).astype(np.int64), axis=0, mode="clip")


def _gain(color: Array, gain: Array) -> Array:
    """(N, 4) colors, brightened by a relative gain (N,)."""
    return color * (1 + gain)[:, None]


Painter = Callable[[Generator, _Terrain], Array]
"""Paints a class: takes a random generator and the N pixels of the class, returns (N, 4) reflectance of `BANDS`."""


def _annual_crop(rng: Generator, t: _Terrain) -> Array:
    p = _parcels(rng, t, block=180, length=68, width=26)
    color = _pick(np.concatenate([SOILS, CROPS]), _lot(rng, p.ident))
    rows = np.sin(p.across * _lot(rng, p.ident, 1.2, 2.2)) * _lot(rng, p.ident, 0, 0.03)
    color = _gain(color, _lot(rng, p.ident, -0.12, 0.12) + rows + 0.025 * t.smooth + 0.015 * t.rough)
    color[p.edge < 0.5] *= 0.85
    return np.where((p.block_edge < 0.6)[:, None], PATH, color)


def _permanent_crop(rng: Generator, t: _Terrain) -> Array:
    p = _parcels(rng, t, block=75, length=17, width=10)
    color = _gain(_pick(VINES, _lot(rng, p.ident)), _lot(rng, p.ident, -0.1, 0.1) + 0.05 * t.smooth)
    rows = np.sin(p.across * 2.3) + t.fine
    color = _gain(color, _lot(rng, p.ident, 0.02, 0.07) * rows + 0.03 * t.rough)
    color = _mix(PATH, color, np.where(p.block_edge < 0.6, 0.2, np.where(p.edge < 0.5, 0.6, 1.0)).astype(np.float32))
    return np.where((t.rough > 2.3)[:, None], HEDGE, color)


def _pasture(rng: Generator, t: _Terrain) -> Array:
    p = _parcels(rng, t, block=110, length=42, width=28)
    color = _gain(_pick(MEADOWS, _lot(rng, p.ident)), _lot(rng, p.ident, -0.06, 0.06) + 0.025 * t.rough)
    hedged = (p.edge < 0.9) & (_lot(rng, p.ident) < 0.7) | (t.rough > 2.6)
    return np.where(hedged[:, None], HEDGE, color)


def _herbaceous(rng: Generator, t: _Terrain) -> Array:
    cover = 0.5 + 0.2 * t.rough + 0.2 * t.smooth
    color = _mix(_mix(SCRUB[0], SCRUB[1], 2 * cover), SCRUB[2], 2 * cover - 1)
    color = _mix(color, HEDGE, 0.6 * (t.rough < -1.5).astype(np.float32))
    return _gain(color, 0.06 * t.shade + 0.025 * t.fine)


def _forest(rng: Generator, t: _Terrain) -> Array:
    stand = 0.5 + 0.15 * t.smooth
    color = _mix(_mix(TREES[0], TREES[1], 2 * stand), TREES[2], 2 * stand - 1)
    color = _gain(color, 0.03 * t.shade + 0.02 * t.rough + 0.07 * t.fine)
    _, to_track = _blocks(rng, t.x + 12 * t.smooth, t.y - 12 * t.smooth, 190)
    return _mix(color, PATH, 0.25 * (to_track < 0.6).astype(np.float32))


def _residential(rng: Generator, t: _Terrain) -> Array:
    p = _parcels(rng, t, block=110, length=24, width=9)
    house = p.ident * 31 + np.floor(p.along / 2.3).astype(np.int64) * 17 + (p.edge > 2.8)
    built = (p.edge < 4) & (_lot(rng, house) < _lot(rng, p.ident, 0.2, 1.0))
    roof = _gain(_pick(ROOFS, _lot(rng, house)), _lot(rng, house, -0.15, 0.15))
    garden = _gain(_mix(GARDEN, HEDGE, 0.5 * _lot(rng, p.ident)), 0.2 * t.fine)
    color = np.where(built[:, None], roof, garden)
    return np.where((p.edge < 0.6)[:, None], ASPHALT, color)


def _industrial(rng: Generator, t: _Terrain) -> Array:
    p = _parcels(rng, t, block=110, length=20, width=13)
    yard = _gain(_mix(ASPHALT, PATH, 0.3 * _lot(rng, p.ident)), 0.1 * t.fine)
    part = p.ident * 13 + np.floor(p.along / 7).astype(np.int64)
    hall = _gain(_pick(HALLS, _lot(rng, part)), 0.04 * np.sin(p.across) + 0.02 * t.fine)
    built = (p.edge > _lot(rng, part, 1, 4)) & (_lot(rng, part) < 0.8)
    color = np.where(built[:, None], hall, yard)
    return np.where(((p.edge < 1) & (_lot(rng, p.ident) < 0.5))[:, None], GARDEN, color)


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
