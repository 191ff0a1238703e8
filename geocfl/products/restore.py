"""Reads the cells of a finished map back from its files, so that other products can be made of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from geocfl.core.grid import CellGrid
from geocfl.products.files import FILES
from geocfl.products.formats.vector_formats import POLYGONS
from geocfl.products.scratch import (
    BANDS,
    CODE,
    CONFIDENCE,
    NO_CONFIDENCE,
    NOVELTY,
    STRIP_CELLS,
    open_cells,
    write_header,
)
from geocfl.products.storage import in_store, open_raster
from geocfl.products.update import Order, Update

GDAL_CACHE = 64
"""Megabytes that GDAL may keep of decoded blocks."""
POLYGON_FILES = ("gpkg", "geoparquet")
"""Files of polygons in the order in which GDAL finds them, with their means in full."""


class MapCells:
    """The cells of a finished map, as far as its files hold them.

    Args:
        update: What the map is to hold, and which of its files stay.
        place: Where the file of a suffix lies.
        bands: Names of the work raster's bands after classification.
    """

    def __init__(self, update: Update, place: Callable[[str], Path], bands: Sequence[str]) -> None:
        self._update, self._place = update, place
        self._sources = {band: file for band, file in update.stored.items() if band in bands}
        self._needed = update.needed(bands)
        self._bands = [band for band in bands if band in BANDS or band in self._needed]
        self._polygons = self._means() if self.missing == {NOVELTY} else None

    @property
    def missing(self) -> set[str]:
        """Names of the bands that are needed but not stored as they were."""
        return self._needed - self._sources.keys()

    @property
    def suffice(self) -> bool:
        """Whether the files to write can be made without classification."""
        return self._update.summary is not None and (not self.missing or self._polygons is not None)

    def write(self, cells: Path, grid: CellGrid) -> bool:
        """Writes a work raster with the bands that are needed; others are filled.

        Args:
            cells: The work raster.
            grid: Where the cells lie.

        Returns:
            Whether it could be written; False if the map's files are damaged or contradict each other.
        """
        try:
            with cells.open("wb") as file:
                for _, values in self.strips(grid):
                    file.write(values.transpose(1, 0, 2).tobytes())
            write_header(cells, grid.rows, grid.columns, self._bands)
            return self._polygons is None or self._spread(cells, grid, *self._polygons)
        except (RasterioError, OSError, ValueError):
            return False

    def strips(self, grid: CellGrid, bands: Sequence[str] = ()) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Reads the cells from top to bottom.

        Args:
            grid: Where the cells lie.
            bands: Names of the bands; those that are needed by default.

        Yields:
            First row, then the values, (bands, rows, columns) uint8; those of bands that no file holds are 255.

        Raises:
            ValueError: A raster has another size than the grid.
            RasterioError: A raster cannot be read.
        """
        bands = bands or self._bands
        with ExitStack() as stack:
            stack.enter_context(rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE))
            opened = {}
            for band in dict.fromkeys(bands):
                if band in self._sources:
                    opened[band] = stack.enter_context(open_raster(self._place(FILES[self._sources[band]])))
            if any(dataset.shape != (grid.rows, grid.columns) for dataset in opened.values()):
                raise ValueError("a raster has another size than the map")
            step = max(1, STRIP_CELLS // grid.columns)
            for first in range(0, grid.rows, step):
                shape = (min(step, grid.rows - first), grid.columns)
                window = Window(0, first, grid.columns, shape[0])
                held = {band: iter(dataset.read(window=window)) for band, dataset in opened.items()}
                filled = np.full(shape, NO_CONFIDENCE, np.uint8)
                yield first, np.stack([next(held[band]) if band in held else filled for band in bands])

    def agree(self, cells: Path, grid: CellGrid) -> bool:
        """Whether the classes and confidences that the map holds are those of a work raster.

        Raises:
            RasterioError: A raster cannot be read.
            ValueError: A raster has another size than the grid.
        """
        held = [band in self._sources for band in BANDS]
        with open_cells(cells) as dataset:
            for first, kept in self.strips(grid, BANDS):
                fresh = dataset.read([CODE, CONFIDENCE], window=Window(0, first, grid.columns, kept.shape[1]))
                if (kept[held] != fresh[held]).any():
                    return False
        return True

    def _means(self) -> tuple[NDArray[np.int64], NDArray[np.float64], float] | None:
        """Class and mean novelty of each polygon of the map, and their minimum area; None where they do not help."""
        update = self._update
        earlier, order = Order.of_summary(update.summary), update.order
        if earlier is None or "novelty" in update.made:
            return None
        if "gpkg" in update.made and "windows" in order.selection.products:
            return None
        if earlier.min_area not in (0.0, order.min_area):
            return None
        for name in POLYGON_FILES:
            if name in earlier.selection.vector and name in update.kept | update.there:
                table = _attributes(self._place(FILES[name]), POLYGONS if name == "gpkg" else None)
                if table is not None:
                    return *table, earlier.min_area
        return None

    def _spread(
        self, cells: Path, grid: CellGrid, codes: NDArray[np.int64], means: NDArray[np.float64], min_area: float
    ) -> bool:
        """Adds a band of novelty in which each polygon has its mean; False if the polygons are not those of the map."""
        from geocfl.products.generalize import merge_small  # with scipy and geopandas: only where they are needed
        from geocfl.products.piece_means import spread_means

        pieces = cells
        if min_area:
            pieces = cells.with_name("pieces")
            merge_small(cells, pieces, grid, min_area)
        return spread_means(pieces, cells, self._bands.index(NOVELTY) + 1, codes, means)


def _attributes(path: Path, layer: str | None) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
    """Class and mean novelty of the polygons in a file; None if it cannot be read."""
    with tempfile.TemporaryDirectory() as folder:
        if in_store(path):
            copy = Path(folder) / path.name
            path.fs.get_file(path.path, str(copy))
            path = copy
        try:
            if path.suffix == ".parquet":
                import pyarrow.parquet

                table = pyarrow.parquet.read_table(path, columns=["class_code", NOVELTY])
                return table["class_code"].to_numpy().astype(np.int64), table[NOVELTY].to_numpy().astype(np.float64)
            import pyogrio

            frame = pyogrio.read_dataframe(path, layer=layer, columns=["class_code", NOVELTY], read_geometry=False)
            return frame["class_code"].to_numpy(np.int64), frame[NOVELTY].to_numpy(np.float64)
        except (ImportError, OSError, KeyError, ValueError, RuntimeError):
            return None
