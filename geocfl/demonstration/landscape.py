"""A procedural landscape like a Sentinel-2 scene, with known land cover, for demonstrations and tests without data.

Colors and textures follow statistics of EuroSAT's patches (top-of-atmosphere reflectance, therefore a blue haze); no
pixel comes from a real image. A coast with a town and an industrial area lies in the west. A river flows to it through
pastures. Forest and scrub cover the hills in the north; fields and orchards cover the plain, which a highway crosses.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.random import Generator
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.windows import Window

from geocfl.core.legend import EUROSAT, NODATA
from geocfl.core.radiometry import SENTINEL2
from geocfl.demonstration.land_cover import Land
from geocfl.demonstration.surfaces import HIGHWAY, OPEN_WATER, PAINTERS, RIVER, SAND, SEA, SHALLOWS
from geocfl.demonstration.terrain import Array, Mask, Terrain
from geocfl.errors import UsageError

BANDS = ("B04", "B03", "B02", "B08")
CELL = 64
"""Width and height of a cell in pixels, those of a EuroSAT patch."""


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
    terrain = Terrain.draw(rng, height, width)
    land = Land.draw(rng, terrain)
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

    def count(pixels: Mask) -> NDArray[np.int64]:
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


def _render(rng: Generator, terrain: Terrain, land: Land) -> Array:
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


def _draw_details(image: Array, land: Land) -> None:
    """Draws shallow water, beaches, and the edges of rivers and roads."""
    sea = land.cover == SEA
    image[:, sea] += (SHALLOWS - OPEN_WATER)[:, None] * np.exp(-land.shore[sea] / 25)
    image[:, (land.shore < 0) & (land.shore > -1.2) & (land.cover != RIVER)] = SAND[:, None]
    for pixels, color in land.details:
        image[:, pixels] = color[:, None]


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
