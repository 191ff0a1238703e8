"""Many maps into one: on a common grid, the most confident cell on top; or a virtual raster that refers to them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import CRSError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window
from tqdm import tqdm

from geocfl import __version__
from geocfl.errors import DataError, UsageError
from geocfl.grid import CellGrid
from geocfl.legend import NODATA, UNCLASSIFIED
from geocfl.products import cells as work
from geocfl.products.finished import LULC, FinishedMap, open_map
from geocfl.products.placing import put_into_place, refuse_what_is_in_the_way
from geocfl.products.raster import write_confidence, write_lulc
from geocfl.products.staging import FILES, Staging
from geocfl.products.style import confidence_qml, lulc_qml, write_style
from geocfl.products.virtual import Source, virtual_raster

PRODUCTS = ("lulc", "attributes", "lulc_style", "confidence", "confidence_style")
"""What a mosaic consists of, out of `geocfl.products.staging.FILES`."""
ALIGNED = 1e-3
"""Cells by which a map's may lie beside the mosaic's and still be copied as they are."""
SIDE_POINTS = 101
"""Points along each side of a map that are reprojected to see where it comes to lie."""
TORN = 20
"""Times as far apart as on the ground: a projection that puts maps so has torn them apart."""
DEGREE = 111_320.0
"""Metres of a degree of latitude, about."""
TOLERANCE = 1e-3
"""Cells by which GDAL may be wrong where it reprojects; rasterio fails at 0."""
GDAL_CACHE = 64
"""Megabytes that GDAL may keep of decoded blocks."""


def mosaic(
    maps: Sequence[str | Path], out: str | Path, *, crs: str | None = None, overwrite: bool = False
) -> list[Path]:
    """Makes one map of many.

    With an `out` of ``X_lulc.tif``, the class raster, its attribute table, its style and the raster of confidence, as
    `geocfl.map_scene` writes them. Where maps overlap, the cell of the highest confidence wins, unclassified ones like
    the others; of equal ones that of the map named first. No data never wins. The cells are those of the map with the
    smallest ones in the mosaic's CRS, or where none is in it, squares about as large as the first map's, their side in
    two figures. Maps whose cells fall on them are copied as they are; of others each cell of the mosaic takes the
    nearest one. Cells are whole ones, also where a scene had cut them.

    With an `out` of ``X_lulc.vrt``, a virtual raster that refers to the maps in the same CRS, later ones on top,
    whatever their confidence, and its style.

    Args:
        maps: Class rasters that geocfl has written, of one legend; for ``X_lulc.tif`` with confidences beside them.
        out: ``X_lulc.tif`` or ``X_lulc.vrt``.
        crs: Coordinate reference system of the mosaic, such as ``"EPSG:32633"``; the first map's by default.
        overwrite: Replace files in the way.

    Returns:
        The files.

    Raises:
        UsageError: `maps` is empty, `out` has another name or is one of them, or `crs` is none.
        DataError: A map cannot be read, differs in legend, lacks its confidence, or cannot be shown in the CRS.
        OutputError: Something is in the way, or cannot be written; nothing half-written is left.
    """
    target = Path(out)
    if not maps:
        raise UsageError("no maps to make one of; pass class rasters, such as A_lulc.tif B_lulc.tif")
    if not target.name.endswith((f"{LULC}.tif", f"{LULC}.vrt")) or target.stem == LULC:
        stem = target.stem.removesuffix(LULC) or "mosaic"
        raise UsageError(f"--out {target}: call it {target.with_name(f'{stem}{LULC}.tif')}, or .vrt for a virtual one")
    if any(Path(path).resolve() == target.resolve() for path in maps):
        raise UsageError(f"--out {target}: is one of the maps; choose another name")
    opened = [open_map(path) for path in maps]
    for other in opened[1:]:
        if other.legend != opened[0].legend:
            raise DataError(f"{other.path}: has other classes than {opened[0].path}; make one map of one model's maps")
    grid, placed = _place(opened, _parse_crs(crs) if crs else opened[0].grid.crs)
    if target.suffix == ".vrt":
        return _write_virtual(placed, grid, target, overwrite)
    return _write_raster(placed, grid, target, overwrite)


@dataclass(frozen=True)
class _Placed:
    """A map on the grid of a mosaic.

    Attributes:
        map: The map.
        top: First row of the mosaic that it reaches into.
        bottom: Row after the last.
        left: First column.
        right: Column after the last.
        place: Its cells to the mosaic's; None where it is in another CRS.
    """

    map: FinishedMap
    top: int
    bottom: int
    left: int
    right: int
    place: Affine | None

    @property
    def copied(self) -> bool:
        """Whether its cells are cells of the mosaic."""
        if self.place is None:
            return False
        a, b, c, d, e, f = self.place[:6]
        size = max(self.map.grid.rows, self.map.grid.columns)
        off = (size * (a - 1), size * b, c - self.left, size * d, size * (e - 1), f - self.top)
        return bool(max(map(abs, off)) < ALIGNED)

    def read(self, path: Path, grid: CellGrid, first: int, last: int) -> NDArray[np.uint8]:
        """(last - first, right - left) cells of one of its rasters in rows of the mosaic; no data where it has none."""
        with rasterio.open(path) as dataset:
            window = Window(0, first - self.top, self.right - self.left, last - first)
            if self.copied:
                values: NDArray[np.uint8] = dataset.read(1, window=window)
                return values
            transform = grid.cell_transform @ Affine.translation(self.left, self.top)
            with WarpedVRT(
                dataset,
                crs=grid.crs,
                transform=transform,
                width=self.right - self.left,
                height=self.bottom - self.top,
                resampling=Resampling.nearest,
                tolerance=TOLERANCE,
            ) as warped:
                values = warped.read(1, window=window)
                return values


def _place(maps: Sequence[FinishedMap], crs: rasterio.CRS) -> tuple[CellGrid, list[_Placed]]:
    """The grid of a mosaic, one pixel a cell, and where each map lies on it."""
    inside = [m for m in maps if m.grid.crs == crs]
    # No map loses detail to coarser ones.
    finest = min(inside, key=lambda m: abs(m.grid.cell_transform.determinant), default=None)
    lattice = finest.grid.cell_transform if finest else _squares(maps[0], crs)
    nearby = _outline(finest or maps[0], crs, None)[0, 0]
    bounds, places = [], []
    for m in maps:
        place = ~lattice @ m.grid.cell_transform if m.grid.crs == crs else None
        if place is not None:
            corners = np.array([place @ (x, y) for x in (0, m.grid.columns) for y in (0, m.grid.rows)])
        else:
            corners = np.column_stack(~lattice @ tuple(_outline(m, crs, nearby).T))
        if not np.isfinite(corners).all():
            raise DataError(f"{m.path}: lies where {_name(crs)} is not defined; choose another CRS with --crs")
        bounds.append([*np.floor(corners.min(axis=0) + ALIGNED), *np.ceil(corners.max(axis=0) - ALIGNED)])
        places.append(place)
    left, top = np.min(bounds, axis=0)[:2]
    right, bottom = np.max(bounds, axis=0)[2:]
    grid = CellGrid(int(bottom - top), int(right - left), 1, 1, lattice @ Affine.translation(left, top), crs)
    _refuse_torn(maps, grid)
    shift = Affine.translation(-left, -top)
    return grid, [
        _Placed(m, int(y0 - top), int(y1 - top), int(x0 - left), int(x1 - left), shift @ place if place else None)
        for m, (x0, y0, x1, y1), place in zip(maps, bounds, places, strict=True)
    ]


def _squares(example: FinishedMap, crs: rasterio.CRS) -> Affine:
    """North-up squares of a CRS about as large as a map's cells: side in two figures, corners at multiples of it."""
    grid = example.grid
    column, row = grid.columns / 2, grid.rows / 2
    x, y = _project(grid, crs, np.array([(column, row), (column + 1, row), (column, row + 1)]))
    across, down = np.array([x[1] - x[0], y[1] - y[0]]), np.array([x[2] - x[0], y[2] - y[0]])
    if crs.is_geographic:
        across[0], down[0] = (across[0] + 180) % 360 - 180, (down[0] + 180) % 360 - 180
    area = abs(across[0] * down[1] - across[1] * down[0])
    if not np.isfinite(area):
        raise DataError(f"{example.path}: lies where {_name(crs)} is not defined; choose another CRS with --crs")
    side = float(f"{math.sqrt(area):.1e}")
    return Affine(side, 0, 0, 0, -side, 0)


def _outline(m: FinishedMap, crs: rasterio.CRS, nearby: float | None) -> NDArray[np.float64]:
    """(n, 2) points around a map in a CRS; longitudes within half a turn of `nearby`, so that none is cut at 180."""
    rows, columns = m.grid.rows, m.grid.columns
    along = np.linspace(0, 1, SIDE_POINTS)
    edge = np.concatenate([np.zeros(SIDE_POINTS), along, np.ones(SIDE_POINTS), 1 - along])
    points = np.column_stack([columns * np.roll(edge, -SIDE_POINTS), rows * edge])
    x, y = _project(m.grid, crs, points)
    if crs.is_geographic and nearby is not None:
        x = nearby + (x - nearby + 180) % 360 - 180
    return np.column_stack([x, y])


def _project(grid: CellGrid, crs: rasterio.CRS, cells: NDArray[np.float64]) -> tuple[Any, Any]:
    """Coordinates in a CRS of (n, 2) columns and rows of cells; infinite where it is not defined."""
    x, y = grid.cell_transform @ tuple(cells.T)
    if grid.crs == crs:
        return x, y
    projected: tuple[Any, Any] = _transformer(grid.crs.to_wkt(), crs.to_wkt()).transform(x, y)
    return projected


@cache
def _transformer(source: str, target: str) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(source, target, always_xy=True)


def _refuse_torn(maps: Sequence[FinishedMap], grid: CellGrid) -> None:
    """Refuses a mosaic many times as wide as the ground is, such as one around the world for both sides of 180 degrees.

    Raises:
        DataError: Likewise.
    """
    degrees = np.concatenate([_degrees(m.grid) for m in maps])
    degrees[:, 0] = (degrees[:, 0] - degrees[0, 0] + 180) % 360 - 180
    width, height = np.ptp(degrees, axis=0) * DEGREE
    on_ground = math.hypot(width * np.cos(np.radians(degrees[:, 1].mean())), height)
    unit = DEGREE if grid.crs.is_geographic else grid.metres_per_unit
    west, south, east, north = grid.bounds()
    if math.hypot(east - west, north - south) * unit > TORN * on_ground:
        raise DataError(
            f"{maps[0].path}: {_name(grid.crs)} tears it, or it and the others, apart, as at the antimeridian; "
            "choose another CRS with --crs, such as the UTM zone of one"
        )


def _degrees(grid: CellGrid) -> NDArray[np.float64]:
    """(4, 2) longitudes and latitudes of a map's corners."""
    geographic: Any = pyproj.CRS.from_wkt(grid.crs.to_wkt()).geodetic_crs
    corners = np.array([(x, y) for x in (0.0, grid.columns) for y in (0.0, grid.rows)])
    x, y = grid.cell_transform @ tuple(corners.T)
    return np.column_stack(_transformer(grid.crs.to_wkt(), geographic.to_wkt()).transform(x, y))


def _write_raster(placed: Sequence[_Placed], grid: CellGrid, target: Path, overwrite: bool) -> list[Path]:
    """The mosaic's cells, and the products of them, whole or not at all."""
    for part in placed:
        _require_confidence(part.map)
    legend = placed[0].map.legend
    suffixes = [FILES[name] for name in PRODUCTS]
    stem = target.stem.removesuffix(LULC)
    with Staging(target.parent, stem, _digest(placed, grid), overwrite=overwrite, products=suffixes) as staging:
        if staging.state != "done":
            cells = staging.folder / "cells"
            with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE):
                unclassified = _paste(placed, grid, cells)
                tags = _tags(placed, grid)
                write_lulc(cells, staging.path(FILES["lulc"]), grid, legend, tags)
                write_confidence(cells, staging.path(FILES["confidence"]), grid, tags)
            write_style(staging.path(FILES["lulc_style"]), lulc_qml(legend, unclassified=unclassified))
            write_style(staging.path(FILES["confidence_style"]), confidence_qml())
            staging.commit()
        return [staging.target(suffix) for suffix in suffixes]


def _paste(placed: Sequence[_Placed], grid: CellGrid, cells: Path) -> bool:
    """Writes the work raster, strip by strip with one map open at a time; whether it has unclassified cells."""
    work.write_header(cells, grid.rows, grid.columns)
    step = max(1, work.STRIP_CELLS // grid.columns)
    unclassified = False
    with cells.open("wb") as file:
        for first in tqdm(range(0, grid.rows, step), desc="mosaic", unit="strip", disable=None):
            last = min(first + step, grid.rows)
            codes = np.full((last - first, grid.columns), NODATA, np.uint8)
            score = np.full(codes.shape, -1, np.int16)
            for part in placed:
                begin, end = max(first, part.top), min(last, part.bottom)
                if begin < end:
                    there = np.s_[begin - first : end - first, part.left : part.right]
                    _overlay(part, grid, begin, end, codes[there], score[there])
            unclassified |= bool((codes == UNCLASSIFIED).any())
            confidence = np.where(score < 0, work.NO_CONFIDENCE, score).astype(np.uint8)
            file.write(np.stack([codes, confidence], axis=1).tobytes())
    return unclassified


def _overlay(
    part: _Placed, grid: CellGrid, begin: int, end: int, codes: NDArray[np.uint8], score: NDArray[np.int16]
) -> None:
    """Puts a map's cells over `codes` and `score`, in place, where it is surer of them; no data has a score of -1."""
    m = part.map
    mine = part.read(m.path, grid, begin, end)
    if ((mine > len(m.legend)) & (mine != UNCLASSIFIED)).any():
        raise DataError(f"{m.path}: holds codes that its legend lacks; pass an unchanged map")
    sure = part.read(m.confidence or m.path, grid, begin, end).astype(np.int16)
    sure[sure == work.NO_CONFIDENCE] = 0
    sure[mine == NODATA] = -1
    wins = sure > score
    codes[wins], score[wins] = mine[wins], sure[wins]


def _require_confidence(m: FinishedMap) -> None:
    """Refuses a map whose confidence is absent, or of other cells."""
    if m.confidence is None:
        name = f"{m.path.stem.removesuffix(LULC)}_confidence.tif"
        raise DataError(f"{m.path}: {name} is not beside it; put it there, or choose an --out X{LULC}.vrt")
    with rasterio.open(m.confidence) as dataset:
        same = dataset.shape == (m.grid.rows, m.grid.columns)
        if not same or not dataset.transform.almost_equals(m.grid.cell_transform, 1e-6):
            raise DataError(f"{m.confidence}: has other cells than {m.path.name}; pass both as geocfl has written them")


def _tags(placed: Sequence[_Placed], grid: CellGrid) -> dict[str, str]:
    """What a mosaic says about itself."""
    return {
        "GEOCFL_VERSION": __version__,
        "GEOCFL_MODEL": ", ".join(sorted({p.map.model for p in placed} - {""})),
        "GEOCFL_SOURCE": ", ".join(p.map.path.name for p in placed),
        "GEOCFL_STRIDE": "1",
        "GEOCFL_WIDTH": str(grid.width),
        "GEOCFL_HEIGHT": str(grid.height),
    }


def _digest(placed: Sequence[_Placed], grid: CellGrid) -> str:
    """What a mosaic depends on: the maps' bytes, their order, its grid and this version."""
    facts: list[Any] = [__version__, grid.crs.to_wkt(), *grid.transform]
    for part in placed:
        for path in (part.map.path, part.map.confidence or part.map.path):
            with path.open("rb") as file:
                facts.append([path.name, hashlib.file_digest(file, "sha256").hexdigest()])
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _write_virtual(placed: Sequence[_Placed], grid: CellGrid, target: Path, overwrite: bool) -> list[Path]:
    """A virtual raster and its style."""
    sources = []
    for part in placed:
        m, place = part.map, part.place
        if place is None:
            raise DataError(
                f"{m.path}: is not in {_name(grid.crs)}, and a virtual raster reprojects nothing; "
                f"choose --out {target.with_suffix('.tif')}"
            )
        a, b, c, d, e, f = place[:6]
        if min(a, e) <= 0 or max(abs(b) * m.grid.rows, abs(d) * m.grid.columns) > ALIGNED:
            raise DataError(
                f"{m.path}: is rotated against the others, and a virtual raster turns nothing; "
                f"choose --out {target.with_suffix('.tif')}"
            )
        if part.copied:
            c, f, a, e = part.left, part.top, 1, 1
        sources.append(Source(m.path, m.grid.columns, m.grid.rows, c, f, a * m.grid.columns, e * m.grid.rows))
    style = target.with_suffix(".qml")
    for path in (target, style):
        refuse_what_is_in_the_way(path, overwrite=overwrite)
    legend = placed[0].map.legend
    text = virtual_raster(target.parent, grid, legend, sources, _tags(placed, grid))
    with put_into_place(style) as styled, put_into_place(target) as partial:
        write_style(styled, lulc_qml(legend, unclassified=True))
        partial.write_text(text, encoding="utf-8", newline="\n")
    return [target, style]


def _parse_crs(text: str) -> rasterio.CRS:
    try:
        crs = rasterio.CRS.from_user_input(text)
    except (CRSError, ValueError) as error:
        raise UsageError(f"--crs {text}: not a coordinate reference system; give one such as EPSG:32633") from error
    if not (crs.is_projected or crs.is_geographic):
        raise UsageError(f"--crs {text}: neither projected nor geographic; give one such as EPSG:32633")
    return crs


def _name(crs: rasterio.CRS) -> str:
    """What people call a CRS."""
    return crs.to_string() if crs.to_epsg() else str(pyproj.CRS.from_wkt(crs.to_wkt()).name)
