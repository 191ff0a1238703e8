"""A mosaic for each tile of a grid, in parallel, with a STAC catalog of the tiles."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geocfl.analysis.alignment import AlignedMap, crop, place_maps
from geocfl.analysis.mosaic_raster import NoDataInRegionError, write_raster
from geocfl.analysis.mosaic_record import read_record, remove_mosaic
from geocfl.analysis.tile_grid import Tile
from geocfl.core.grid import CellGrid
from geocfl.core.progress import Progress, counted, silent
from geocfl.errors import DataError, OutputError
from geocfl.products.files import FILES, LULC, SUMMARY
from geocfl.products.formats.catalog import check_catalog, write_catalog
from geocfl.products.formats.collection import COLLECTION
from geocfl.products.scene_map import SceneMap
from geocfl.products.selection import Selection
from geocfl.products.summary import ClassTable

log = logging.getLogger("geocfl")

Made = tuple[list[Path], ClassTable] | None


@dataclass(frozen=True)
class How:
    """What the mosaics of all tiles have in common.

    Attributes:
        grid: Name of the grid.
        polygons: Formats of the polygons.
        overlap: What counts where maps overlap.
        update: Whether to update existing mosaics.
        overwrite: Whether to replace existing files.
    """

    grid: str
    polygons: Selection
    overlap: str
    update: bool
    overwrite: bool


@dataclass(frozen=True)
class Work:
    """A tile that is to be made.

    Attributes:
        grid: Its cells.
        maps: The maps on it.
        region: Shape in cells outside which they have no data; None for none.
        target: ``NAME_lulc.tif``.
        how: What all tiles have in common.
    """

    grid: CellGrid
    maps: list[AlignedMap]
    region: Any
    target: Path
    how: How

    def do(self) -> Made:
        """Writes the tile; returns None if no map has data in it."""
        how = self.how
        try:
            return write_raster(
                self.grid,
                self.maps,
                self.target,
                how.polygons,
                how.overwrite,
                silent,
                self.region,
                overlap=how.overlap,
                update=how.update,
                tile_of=how.grid,
            )
        except NoDataInRegionError:
            return None


def write_tiles(
    tiles: Sequence[Tile], maps: Sequence[SceneMap], folder: Path, how: How, workers: int, progress: Progress
) -> tuple[list[Path], dict[str, ClassTable]]:
    """Writes the mosaic of each tile, whole or not at all, and a catalog; the same call resumes with the next tile.

    Args:
        tiles: The tiles.
        maps: The maps, of one legend, in the order that decides between equal cells.
        folder: Where to write them; may be in an object store.
        how: What all tiles have in common.
        workers: Processes that make a tile each at the same time; the files do not depend on it.
        progress: Called with the tiles that are done.

    Returns:
        The files, and what each class covers by name of the tile.

    Raises:
        DataError: No map has data in any tile, or a map cannot be read.
        OutputError: A file exists already or cannot be written.
    """
    check_catalog(folder, overwrite=how.overwrite)
    works = dict(_works(tiles, maps, folder, how))
    paths: list[Path] = []
    classes: dict[str, ClassTable] = {}
    with _running(list(works.values()), workers) as made:
        for name, one in zip(counted(works, progress, folder.name, len(works), "tile"), made, strict=True):
            if one:
                paths += one[0]
                classes[name] = one[1]
    if not classes:
        raise DataError(f"{how.grid}: no map has data in any tile; pass tiles, or maps, of the same place")
    if how.update:
        _remove_others(folder, how.grid, {works[name].target for name in classes})
    without = [work.target.stem.removesuffix(LULC) for name, work in works.items() if name in classes]
    bare = [stem for stem in without if folder / f"{stem}{FILES['stac']}" not in paths]
    if bare:
        log.warning(
            "%s: %d tiles, such as %s, have no STAC Item, because their maps do not say when scenes were taken; map "
            "the scenes with `datetime`", folder, len(bare), bare[0],
        )  # fmt: skip
    if len(bare) < len(classes):
        catalog = write_catalog(folder, overwrite=how.overwrite, depth=0).path
        paths += [catalog, catalog.with_name(COLLECTION)]
    return paths, classes


def _works(tiles: Sequence[Tile], maps: Sequence[SceneMap], folder: Path, how: How) -> Iterator[tuple[str, Work]]:
    """The tiles on cells that all of a coordinate reference system share, with the maps that reach into each."""
    placed: dict[str, tuple[CellGrid, list[AlignedMap]]] = {}
    for crs in {tile.crs.to_wkt(): tile.crs for tile in tiles}.values():
        here = {m.path for tile in tiles if tile.crs == crs for m in tile.maps}
        placed[crs.to_wkt()] = place_maps([m for m in maps if m.path in here], crs)
    for tile in tiles:
        lattice, near = placed[tile.crs.to_wkt()]
        rows, columns, part = tile.on_grid(lattice)
        if rows.start >= rows.stop or columns.start >= columns.stop:
            continue
        grid, mine = crop(lattice, near, rows, columns)
        if mine:
            yield tile.name, Work(grid, mine, part, folder / f"{tile.stem}{LULC}.tif", how)


@contextmanager
def _running(works: Sequence[Work], workers: int) -> Iterator[Iterator[Made]]:
    """The results in the order of the tiles, made here or in processes; a failure or an interrupt stops the rest."""
    if workers == 1 or len(works) < 2:
        yield map(Work.do, works)
        return
    # Processes that are forked while threads run, as those of object stores do, may wait forever.
    with ProcessPoolExecutor(min(workers, len(works)), mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            yield pool.map(Work.do, works)
        except BrokenProcessPool as error:
            raise OutputError(
                "a process that made a tile was killed, perhaps for lack of memory; run the same command again to "
                "resume, with fewer `workers`",
                transient=True,
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _remove_others(folder: Path, grid: str, made: set[Path]) -> None:
    """Removes tiles of the same grid that maps no longer reach."""
    for summary in sorted(path for path in folder.iterdir() if path.name.endswith(SUMMARY)):
        stem = summary.name.removesuffix(SUMMARY)
        target = folder / f"{stem}{LULC}.tif"
        record = read_record(target)
        if record and record["settings"].get("grid") == grid and target not in made:
            remove_mosaic(target)
