"""The cells of a map by stratum: the classes of the map, the values of a raster, or polygons."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.features import rasterize
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from geocfl.analysis.coverage import place_zones
from geocfl.analysis.zones import read_zones
from geocfl.core.legend import LulcClass
from geocfl.core.progress import Progress
from geocfl.core.transitions import transition_classes
from geocfl.errors import DataError, UsageError
from geocfl.products.change_map import ChangeMap, open_change
from geocfl.products.files import CHANGE
from geocfl.products.formats.attribute_table import read_legend
from geocfl.products.scene_map import SceneMap, georeferenced
from geocfl.products.storage import open_raster

CELLS_AT_A_TIME = 1_000_000
MOST = 100
"""Strata that a raster or polygons may form."""
NONE = -1
"""Stratum of cells that are not sampled."""

Mapped = SceneMap | ChangeMap
"""Maps that can be sampled."""
Reader = Callable[[NDArray[Any], slice], NDArray[np.int64]]
"""Gives the strata of some rows of cells from their class codes."""


@dataclass(frozen=True)
class Strata:
    """How the cells of a map are divided.

    Attributes:
        source: ``"classes"``, ``"map"`` or the name of a file.
        names: Names of the strata.
        read: Gives the strata of cells, `NONE` for cells in none; called with class codes and rows.
    """

    source: str
    names: list[str]
    read: Reader


@dataclass(frozen=True)
class Strip:
    """Some rows of cells.

    Attributes:
        first: The first row.
        codes: (rows, columns) class codes.
        strata: (rows, columns) strata, `NONE` where a cell has no class or is in no stratum.
        hectares: (rows, columns) areas.
    """

    first: int
    codes: NDArray[Any]
    strata: NDArray[np.int64]
    hectares: NDArray[np.float64]


@dataclass(frozen=True)
class Count:
    """What the strata and classes of a map cover.

    Attributes:
        cells: (H, K) cells by stratum and class.
        hectares: (H, K) their areas.
        left_out: Hectares with data that are in no stratum or have no class.
        digest: SHA-256 of the cells and their place.
    """

    cells: NDArray[np.int64]
    hectares: NDArray[np.float64]
    left_out: float
    digest: str


def open_mapped(map: Mapped | str | Path) -> Mapped:
    """A map or change map, opened if only its path is known.

    Raises:
        DataError: It cannot be opened, or has no coordinate reference system of the earth.
    """
    if isinstance(map, ChangeMap):
        return map
    if not isinstance(map, SceneMap) and Path(map).stem.endswith(CHANGE):
        return open_change(map)
    return georeferenced(map)


def classes_of(finished: Mapped) -> tuple[LulcClass, ...]:
    """The classes that a cell may have: those of the legend; of a change map, its transitions and then all others."""
    if isinstance(finished, SceneMap):
        return tuple(finished.legend)
    codes = {c.code for c in finished.classes}
    numbers = range(1, len(finished.legend) + 1)
    pairs = transition_classes(finished.legend, [(before, after) for before in numbers for after in numbers])
    return (*finished.classes, *(c for c in pairs if c.code not in codes))


def one_stratum() -> Strata:
    """The whole map."""
    return Strata("map", ["map"], lambda codes, rows: np.zeros(codes.shape, np.int64))


def class_strata(classes: Sequence[LulcClass]) -> Strata:
    """The classes of the map."""
    return Strata("classes", [c.name for c in classes], lambda codes, rows: places_of(codes, classes))


def file_strata(path: Path, finished: Mapped, by: str | None, layer: str | None) -> Strata:
    """The values of a raster or the polygons of a vector file; a cell is in the stratum of its middle.

    Args:
        path: The file.
        finished: The map.
        by: Field that names polygons.
        layer: Layer of a vector file.

    Raises:
        DataError: The file cannot be read, lies elsewhere, or forms too many strata.
        UsageError: `by` or `layer` are of no use with it.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file; pass a raster or polygons as `strata`")
    try:
        with rasterio.open(path) as dataset:
            raster = dataset.count > 0
    except RasterioError:
        raster = False
    if not raster:
        return _polygon_strata(path, finished, by, layer)
    if by or layer:
        raise UsageError(f"{path}: is a raster, which has no fields or layers; leave out `by` and `layer`")
    return _raster_strata(path, finished)


def places_of(codes: NDArray[Any], classes: Sequence[LulcClass]) -> NDArray[np.int64]:
    """Places of codes among classes; `NONE` for others."""
    known = np.array([c.code for c in classes])
    order = np.argsort(known)
    found = np.clip(np.searchsorted(known, codes, sorter=order), 0, len(known) - 1)
    places: NDArray[np.int64] = np.where(known[order][found] == codes, order[found], NONE)
    return places


def read_strips(finished: Mapped, strata: Strata) -> Iterator[Strip]:
    """Yields a map's rows of cells, some at a time.

    Raises:
        DataError: The map cannot be decoded.
    """
    grid, classes = finished.grid, classes_of(finished)
    areas = grid.areas()
    step = max(1, CELLS_AT_A_TIME // grid.columns)
    try:
        with open_raster(finished.path) as dataset:
            for first in range(0, grid.rows, step):
                rows = slice(first, min(first + step, grid.rows))
                codes = dataset.read(1, window=Window(0, first, grid.columns, rows.stop - first))
                members = np.where(places_of(codes, classes) == NONE, NONE, strata.read(codes, rows))
                yield Strip(first, codes, members, areas.rows[:, rows].T @ areas.columns)
    except RasterioError as error:
        raise DataError(f"{finished.path}: its cells cannot be decoded; map its scene again") from error


def count_cells(finished: Mapped, strata: Strata, progress: Progress) -> Count:
    """Counts a map's cells and hectares by stratum and class, and computes the digest.

    Args:
        finished: The map.
        strata: Its strata.
        progress: Called with the rows that are done.
    """
    classes, rows = classes_of(finished), finished.grid.rows
    shape = len(strata.names), len(classes)
    cells, hectares, left_out = np.zeros(shape, np.int64), np.zeros(shape), 0.0
    digest = _digest_start(finished)
    for strip in read_strips(finished, strata):
        digest.update(np.ascontiguousarray(strip.codes).tobytes())
        inside = strip.strata != NONE
        pairs = strip.strata[inside] * shape[1] + places_of(strip.codes[inside], classes)
        cells += np.bincount(pairs, minlength=cells.size).reshape(shape)
        hectares += np.bincount(pairs, strip.hectares[inside], cells.size).reshape(shape)
        left_out += float(strip.hectares[~inside & (strip.codes != 0)].sum())
        progress("cells", strip.first + len(strip.codes), rows, "row")
    return Count(cells, hectares, left_out, str(digest.hexdigest()))


def digest_of(finished: Mapped) -> str:
    """SHA-256 of a map's cells and their place, as in a sample's design."""
    digest = _digest_start(finished)
    for strip in read_strips(finished, one_stratum()):
        digest.update(np.ascontiguousarray(strip.codes).tobytes())
    return str(digest.hexdigest())


def _digest_start(finished: Mapped) -> Any:
    grid = finished.grid
    place = [float(f"{value:.9g}") for value in tuple(grid.cell_transform)[:6]]
    return hashlib.sha256(repr((grid.rows, grid.columns, place)).encode())


def _raster_strata(path: Path, finished: Mapped) -> Strata:
    grid = finished.grid

    def read(rows: slice) -> Any:
        """Values at the middles of cells, masked where there are none."""
        shift = Affine.translation(0, rows.start)
        with rasterio.open(path) as dataset:
            if not dataset.crs:
                raise DataError(
                    f"{path}: has no coordinate reference system; assign one, such as by gdal_edit.py -a_srs"
                )
            if not np.issubdtype(np.dtype(dataset.dtypes[0]), np.integer):
                raise DataError(f"{path}: holds {dataset.dtypes[0]}, but strata are whole numbers; classify it first")
            with WarpedVRT(
                dataset,
                crs=grid.crs,
                transform=grid.cell_transform @ shift,
                width=grid.columns,
                height=rows.stop - rows.start,
                resampling=Resampling.nearest,
                add_alpha=dataset.nodata is None and dataset.count == 1,
            ) as warped:
                return np.ma.masked_array(warped.read(1), warped.read_masks(1) == 0)

    step = max(1, CELLS_AT_A_TIME // grid.columns)
    found: set[int] = set()
    try:
        for first in range(0, grid.rows, step):
            found |= set(np.unique(read(slice(first, min(first + step, grid.rows))).compressed()).tolist())
            if len(found) > MOST:
                raise DataError(f"{path}: forms more than {MOST} strata; reclassify it to a few values")
    except RasterioError as error:
        raise DataError(f"{path}: not a raster that GDAL reads; pass another as `strata`") from error
    if not found:
        raise DataError(f"{path}: has no data on {finished.path}; pass strata of the same place")
    values = np.array(sorted(found))
    try:
        named = {c.code: c.name for c in read_legend(path)}
    except DataError:
        named = {}

    def strata(codes: NDArray[Any], rows: slice) -> NDArray[np.int64]:
        here = read(rows)
        places = np.searchsorted(values, here.filled(values[0]))
        return np.where(np.ma.getmaskarray(here), NONE, places).astype(np.int64)

    return Strata(path.name, [named.get(value, str(value)) for value in values.tolist()], strata)


def _polygon_strata(path: Path, finished: Mapped, by: str | None, layer: str | None) -> Strata:
    names, outlines = read_zones(path, layer, by)
    if len(names) > MOST:
        raise DataError(f"{path}: forms {len(names)} strata, but {MOST} are the most; dissolve its polygons by a field")
    placed = place_zones(path, outlines, finished)
    grid = finished.grid
    shapes = [(shape, number) for number, shape in enumerate(placed.shapes) if not shape.is_empty]

    def strata(codes: NDArray[Any], rows: slice) -> NDArray[np.int64]:
        # The shapes are in cells, with y upward from the lower edge of the map.
        transform = Affine(1, 0, 0, 0, -1, grid.rows - rows.start)
        drawn: NDArray[np.int32] = rasterize(shapes, codes.shape, fill=NONE, transform=transform, dtype="int32")
        return drawn.astype(np.int64)

    return Strata(path.name, ["NULL" if name is None else str(name) for name in names], strata)
