"""Many maps made into one map, or into one for each region."""

from __future__ import annotations

import glob
from collections.abc import Collection, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rasterio.crs import CRS

from geocfl.analysis.alignment import parse_crs, place_maps
from geocfl.analysis.overlap_rules import RULES
from geocfl.core.keywords import declared
from geocfl.core.progress import Progress, silent
from geocfl.errors import DataError, UsageError, unknown_name
from geocfl.products.files import LULC
from geocfl.products.scene_map import SceneMap, georeferenced
from geocfl.products.selection import Selection
from geocfl.products.storage import in_store, output_folder
from geocfl.products.summary import ClassTable, format_table


@dataclass(frozen=True)
class Mosaic:
    """The files of a mosaic, or of one mosaic per region. Iterates over the files.

    Attributes:
        paths: The files.
        classes: What each class covers, by name of the region; the name is "" where there are no regions. The classes
            of a virtual raster have no confidence.
    """

    paths: list[Path]
    classes: dict[str, ClassTable]

    def table(self) -> str:
        """Cells, hectares, share and mean confidence of every class, as plain text; one table per region."""
        return "\n\n".join(
            f"{region}\n{format_table(classes)}" if region else format_table(classes)
            for region, classes in self.classes.items()
        )

    def __iter__(self) -> Iterator[Path]:
        return iter(self.paths)


@declared
def mosaic(
    maps: SceneMap | str | Path | Sequence[SceneMap | str | Path],
    out: str | Path,
    *,
    overlap: str = "confidence",
    crs: str | int | CRS | None = None,
    vector: Sequence[str] = (),
    regions: str | Path | None = None,
    by: str | None = None,
    layer: str | None = None,
    grid: str | Path | None = None,
    workers: int = 1,
    update: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Mosaic:
    """Makes one map of many, or one for each region.

    If `out` is ``X_lulc.tif``, writes the class raster, its attribute table, its style, the raster of confidence and a
    summary, as `geocfl.map_scene` does; the same call again finds them done. Where maps overlap, `overlap` decides;
    cells without data never count. The mosaic has the cells of the map with the smallest cells in its CRS; if no map is
    in that CRS, squares about as large as the cells of the first map, with a side of two significant digits. Maps whose
    cells coincide with these are copied unchanged; from others, each cell takes its nearest neighbor. Cells that a
    scene's edge had cut become whole. One map is open at a time, and memory does not grow with the number of maps,
    except for polygons.

    If `out` is ``X_lulc.vrt``, writes a virtual raster that refers to the maps, which must share one CRS, and its
    style. Later maps lie on top, whatever their confidence.

    If `regions` is given, `out` is a folder. Each region gets a mosaic of the maps that reach into it,
    ``NAME_lulc.tif`` and its other files, where NAME is the region's name without characters that file systems or
    shells reject. Cells whose centers lie outside the region have no data. A region without any data gets no files,
    and the log names it.

    If `grid` is given, `out` is a folder, too, and gets a mosaic for each tile that maps have data in,
    ``NAME_lulc.tif`` and its other files, with a STAC Item ``NAME.stac.json``, and ``catalog.json`` over the tiles.
    Their sides lie on borders of cells, which all tiles of a coordinate reference system share, so neighbors have no
    cell in common and leave none out. The same call again keeps the tiles that are finished.

    Args:
        maps: One or several maps that geocfl has written, with the same legend: class rasters, or maps that
            `geocfl.map_scene` has returned. For ``X_lulc.tif`` their confidences must lie beside them. A folder stands
            for the ``*_lulc.tif`` in it, a pattern such as ``"maps/**/*_lulc.tif"`` for the files that it matches,
            both sorted by name and without the mosaic itself.
        out: ``X_lulc.tif`` or ``X_lulc.vrt``; with `regions` or `grid`, a folder. Rasters and tiles may go into an
            object store, such as ``"s3://bucket/tiles"``.
        overlap: What counts where maps overlap. ``"confidence"``: the cell of highest confidence, unclassified cells
            included; of equal ones, that of the map named first. ``"newest"``: the cell of the newest scene that has
            data. ``"mode"``: the class of most maps; of classes with as many, the surer one; its confidence is the sum
            of those for it by the number of classified maps. ``"fuse"``: the class of the highest geometric mean of
            the maps' probabilities, weighted by the valid share and by 1 less the novelty percentile, as far as the
            maps have them; its confidence grows with the number of maps, the less the more these err together; needs
            probabilities.
        crs: Coordinate reference system of the mosaic, such as ``"EPSG:32633"`` or 32633; by default that of the first
            map, or of the first map that reaches into a region.
        vector: Formats of polygons to write too: ``"gpkg"``, ``"geoparquet"``, ``"flatgeobuf"``, ``"geojson"``. All
            polygons are in memory at once.
        regions: Polygons, in any format that GDAL reads.
        by: Field that names the regions or tiles; polygons of the same name form one.
        layer: Layer of `regions` or `grid`; needed if the file has several.
        grid: ``"mgrs"``, the 100 km squares of the Military Grid Reference System in their UTM zones, cut at the zones'
            borders; or polygons, in any format that GDAL reads.
        workers: Processes that make tiles at the same time.
        update: Update a mosaic that exists: replace it, but paste again only where maps were added, changed or removed.
            The result is that of a new mosaic, byte for byte. Regions and tiles that maps no longer reach are removed;
            a virtual raster is written anew if it would change.
        overwrite: Replace existing files.
        progress: Called with the strips, the regions or the tiles that are done.

    Returns:
        The files, and what each class covers.

    Raises:
        UsageError: `maps` is empty, a package is missing, `out` is named differently or is one of the maps, arguments
            exclude each other, or `regions` or `grid` has no such layer or field.
        DataError: A map cannot be read, has another legend, lacks what `overlap` needs, or cannot be shown in the
            CRS; a folder or pattern holds no maps; `regions` cannot be read, two names would give the same file, or no
            map has data in any region.
        OutputError: A file exists already or cannot be written; nothing half-written is left.
    """
    maps, target = [maps] if isinstance(maps, SceneMap | str | Path) else maps, output_folder(out)
    if overlap not in RULES:
        raise UsageError(f"`overlap`: {unknown_name('rule', overlap, list(RULES))}")
    polygons = Selection.of(["vector"], vector)
    chosen = parse_crs(crs) if crs else None
    virtual = target.suffix == ".vrt"
    if in_store(target) and (regions is not None or virtual):
        raise UsageError(f"`out` is {out}, but only rasters and tiles go into object stores; choose a place on a disk")
    if workers < 1 or (workers > 1 and grid is None):
        raise UsageError(f"`workers` is {workers} but must be at least 1, and more only make tiles of a `grid`")
    if regions is not None and grid is not None:
        raise UsageError("`regions` and `grid` exclude each other; pass one of them")
    if (regions is not None or grid is not None) and target.suffix in (".tif", ".vrt"):
        what = "`regions`" if grid is None else "`grid`"
        raise UsageError(f"`out` is {target} but must be a folder with {what}, such as {target.with_suffix('')}")
    if regions is not None:
        from geocfl.analysis.mosaic_regions import write_regions  # imports pandas and exactextract
        from geocfl.analysis.regions import Regions

        if not by:
            raise UsageError(f"{regions}: pass the field that names its regions as `by`")
        named = Regions(regions, by, layer)
        targets = [target / f"{region.stem}{LULC}.tif" for region in named.all]
        opened = _open_maps(maps, {path.resolve() for path in targets})
        return Mosaic(*write_regions(opened, named, targets, chosen, polygons, overwrite, progress, overlap, update))
    if grid is not None:
        from geocfl.analysis.mosaic_tiles import How, write_tiles
        from geocfl.analysis.tile_grid import grid_name, tiles_of

        opened = _open_maps(maps, set())
        tiles = tiles_of(grid, opened, by, layer, chosen)
        taken = {target / f"{tile.stem}{LULC}.tif" for tile in tiles}.intersection(m.path for m in opened)
        if taken:
            raise UsageError(f"`out` is {out}, whose {min(taken).name} is one of the maps; choose another folder")
        how = How(grid_name(grid), polygons, overlap, update, overwrite)
        return Mosaic(*write_tiles(tiles, opened, target, how, workers, progress))
    if by or layer:
        raise UsageError("`by` and `layer` choose among polygons; pass the polygons as `regions` or `grid`")
    return _whole(maps, target, chosen, polygons, overlap, update, overwrite, progress)


def _whole(
    maps: Sequence[SceneMap | str | Path],
    target: Path,
    crs: CRS | None,
    polygons: Selection,
    overlap: str,
    update: bool,
    overwrite: bool,
    progress: Progress,
) -> Mosaic:
    """Makes one map of all; arguments and errors are those of `mosaic`."""
    if not target.name.endswith((f"{LULC}.tif", f"{LULC}.vrt")) or target.stem == LULC:
        right = target.with_name(f"{target.stem.removesuffix(LULC) or 'mosaic'}{LULC}.tif")
        raise UsageError(f"`out` is {target} but must end in {LULC}.tif or {LULC}.vrt, such as {right}")
    opened = _open_maps(maps, {target.resolve()})
    grid, placed = place_maps(opened, crs or opened[0].grid.crs)
    if target.suffix == ".vrt":
        from geocfl.analysis.mosaic_virtual import write_virtual

        if polygons.vector:
            raise UsageError(
                f"`vector` needs confidences, which a virtual raster has not; use {target.with_suffix('.tif')} as `out`"
            )
        if overlap != "confidence":
            raise UsageError(
                f"`overlap` needs the cells, which a virtual raster does not hold; use {target.with_suffix('.tif')} as "
                "`out`"
            )
        paths, table = write_virtual(grid, placed, target, overwrite, update)
    else:
        from geocfl.analysis.mosaic_raster import write_raster

        paths, table = write_raster(grid, placed, target, polygons, overwrite, progress, overlap=overlap, update=update)
    return Mosaic(paths, {"": table})


def _open_maps(maps: Sequence[SceneMap | str | Path], targets: Set[Path]) -> list[SceneMap]:
    """Opens the maps that paths, folders and patterns name, each once.

    Args:
        maps: As for `mosaic`.
        targets: Absolute paths of the class rasters to be written.

    Raises:
        UsageError: There are none, or one of them is a target.
        DataError: A folder or pattern holds none, a map cannot be read, or they differ in legend.
    """
    if not maps:
        raise UsageError("`maps` is empty; pass class rasters, such as A_lulc.tif and B_lulc.tif")
    entries: dict[Path, SceneMap | Path] = {}
    for entry in maps:
        if isinstance(entry, SceneMap):
            entries.setdefault(entry.path.resolve(), entry)
        else:
            place = output_folder(entry)
            for path in _in_store(place) if in_store(place) else _named(str(place), targets):
                entries.setdefault(path.resolve(), path)
    for path in targets & entries.keys():
        raise UsageError(f"`out` is {path}, which is one of the maps; choose another name")
    opened = [georeferenced(entry) for entry in entries.values()]
    for other in opened[1:]:
        if other.legend.names != opened[0].legend.names:
            raise DataError(
                f"{other.path}: has other classes than {opened[0].path}; combine maps that the same model has made",
                page="how-to/mosaic/",
            )
    return opened


def _in_store(place: Any) -> list[Path]:
    """The class rasters that an address in an object store stands for."""
    if place.name.endswith(".tif"):
        return [place]
    try:
        place.fs.invalidate_cache()  # others may have written since
        found = sorted((path for path in place.iterdir() if path.name.endswith(f"{LULC}.tif")), key=str)
    except Exception as error:  # of any type, as the store's package has it
        raise DataError(
            f"{place}: cannot be listed ({error}); check the address and the store's credentials"
        ) from error
    if not found:
        raise DataError(
            f"{place}: a folder without maps, whose names end in {LULC}.tif; pass what geocfl map has written"
        )
    return found


def _named(entry: str, targets: Collection[Path]) -> list[Path]:
    """The class rasters that a path, a folder or a pattern stands for."""
    path = Path(entry)
    if path.is_dir():
        paths, kind = sorted(path.iterdir()), "a folder"
    elif glob.has_magic(entry) and not path.exists():
        paths, kind = [*map(Path, sorted(glob.glob(entry, recursive=True)))], "a pattern"
    else:
        return [path]
    maps = [path for path in paths if path.name.endswith(f"{LULC}.tif") and not path.name.startswith(".")]
    found = [path for path in maps if path.resolve() not in targets]
    if not found:
        raise DataError(
            f"{entry}: {kind} without maps, whose names end in {LULC}.tif; pass what geocfl map has written"
        )
    return found
