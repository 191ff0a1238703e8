"""Many maps into one, or into one a region: the most confident cell on top; or a virtual raster that refers to them."""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import math
from collections.abc import Collection, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.features import geometry_mask
from shapely.affinity import translate

from geocfl._version import __version__
from geocfl.analysis.alignment import ALIGNED, Placed, crop, crs_name, parse_crs, place_maps
from geocfl.core.files import put_into_place, refuse_what_is_in_the_way
from geocfl.core.grid import CellGrid
from geocfl.core.legend import NODATA, UNCLASSIFIED, Legend
from geocfl.core.progress import Progress, counted, silent
from geocfl.errors import DataError, UsageError
from geocfl.products import scratch as work
from geocfl.products.files import FILES, LULC, SUFFIXES
from geocfl.products.formats.qml import confidence_qml, lulc_qml, polygons_qml, write_style
from geocfl.products.formats.raster import write_confidence, write_lulc
from geocfl.products.formats.vector import POLYGONS, write_default_styles, write_polygons
from geocfl.products.formats.vrt import Source, virtual_raster
from geocfl.products.polygons import dissolve
from geocfl.products.scene_map import SceneMap, georeferenced
from geocfl.products.selection import Selection
from geocfl.products.staging import Staging
from geocfl.products.storage import open_raster
from geocfl.products.summary import ClassTable, class_table, class_table_of_rasters, format_table

if TYPE_CHECKING:
    from geocfl.analysis.regions import Regions

log = logging.getLogger("geocfl")

STRIP_CELLS = 8_000_000
"""Cells pasted at a time, some 60 MB: the higher a strip, the fewer times each map is opened."""
GDAL_CACHE = 64
"""Megabytes that GDAL may keep of decoded blocks."""
NAMED = 100
"""Maps that a mosaic names in its metadata, which readers fetch before any cell."""


@dataclass(frozen=True)
class Mosaic:
    """Many maps made one, or one for each region. Iterates over the files.

    Attributes:
        paths: The files.
        classes: What each class covers, by the region's name; by "" where there are no regions. A virtual raster's has
            no confidence.
    """

    paths: list[Path]
    classes: dict[str, ClassTable]

    def table(self) -> str:
        """Cells, hectares, share and mean confidence of every class, as plain text; a table a region."""
        return "\n\n".join(
            f"{region}\n{format_table(classes)}" if region else format_table(classes)
            for region, classes in self.classes.items()
        )

    def __iter__(self) -> Iterator[Path]:
        return iter(self.paths)


def mosaic(
    maps: SceneMap | str | Path | Sequence[SceneMap | str | Path],
    out: str | Path,
    *,
    crs: str | None = None,
    vector: str = "none",
    regions: str | Path | None = None,
    by: str | None = None,
    layer: str | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Mosaic:
    """Makes one map of many, or one for each region.

    With an `out` of ``X_lulc.tif``, the class raster, its attribute table, its style and the raster of confidence, as
    `geocfl.map_scene` writes them. Where maps overlap, the cell of the highest confidence wins, unclassified ones like
    the others; of equal ones that of the map named first. No data never wins. The cells are those of the map with the
    smallest ones in the mosaic's CRS, or where none is in it, squares about as large as the first map's, their side in
    two figures. Maps whose cells fall on them are copied as they are; of others each cell of the mosaic takes the
    nearest one. Cells are whole ones, also where a scene had cut them. One map is open at a time, and but for polygons
    memory does not grow with their number.

    With an `out` of ``X_lulc.vrt``, a virtual raster that refers to the maps in the same CRS, later ones on top,
    whatever their confidence, and its style.

    With `regions`, `out` is a folder: for each region the mosaic of the maps that reach into it, ``NAME_lulc.tif`` and
    what belongs to it, NAME being the region's without what file systems or shells object to. Cells whose centres lie
    outside the region are no data. A region in which no map has data is told of in the log, and has no files.

    Args:
        maps: Class rasters that geocfl has written, one or several, of one legend; for ``X_lulc.tif`` with confidences
            beside them.
            A folder stands for the ``*_lulc.tif`` in it, a pattern such as ``"maps/**/*_lulc.tif"`` for those that it
            matches, in order of name, without what is about to be written.
        out: ``X_lulc.tif`` or ``X_lulc.vrt``, or a folder.
        crs: Coordinate reference system of the mosaic, such as ``"EPSG:32633"``; by default that of the first map, or
            of the first that reaches into a region.
        vector: Formats of the polygons to write as well, of
            `geocfl.products.formats.vector.VECTOR_FORMATS`, separated by commas, or ``none``. A mosaic's
            polygons are all in memory.
        regions: Polygons, in any format that GDAL reads.
        by: Field that names the regions; polygons of the same value are one region.
        layer: Layer of `regions`; needed where there are several.
        overwrite: Replace files in the way.
        progress: Told of strips, or of regions.

    Raises:
        UsageError: `maps` is empty, `out` has another name or is one of them, options do not go together, or `regions`
            has no such layer or field.
        DataError: A map cannot be read, differs in legend, lacks its confidence, or cannot be shown in the CRS; a
            folder or pattern holds none; `regions` cannot be read, or has names that make no different files, or no
            map reaches into any.
        OutputError: Something is in the way, or cannot be written; nothing half-written is left.
    """
    maps, target = [maps] if isinstance(maps, SceneMap | str | Path) else maps, Path(out)
    formats = Selection.of("vector", vector)
    chosen = parse_crs(crs) if crs else None
    if regions is not None:
        return _write_regions(maps, target, chosen, formats, regions, by, layer, overwrite, progress)
    if by or layer:
        raise UsageError("--by and --layer choose among regions; pass their polygons as --regions")
    if not target.name.endswith((f"{LULC}.tif", f"{LULC}.vrt")) or target.stem == LULC:
        stem = target.stem.removesuffix(LULC) or "mosaic"
        raise UsageError(f"--out {target}: call it {target.with_name(f'{stem}{LULC}.tif')}, or .vrt for a virtual one")
    opened = _open_maps(maps, {target.resolve()})
    grid, placed = place_maps(opened, chosen or opened[0].grid.crs)
    if target.suffix == ".vrt":
        if formats.vector:
            raise UsageError(
                f"--vector {vector}: a virtual raster has no confidence to give polygons; choose --out "
                f"{target.with_suffix('.tif')}"
            )
        return _write_virtual(grid, placed, target, overwrite)
    return _write_raster(grid, placed, target, formats, overwrite, progress)


def _write_regions(
    maps: Sequence[SceneMap | str | Path],
    folder: Path,
    crs: rasterio.CRS | None,
    formats: Selection,
    path: str | Path,
    by: str | None,
    layer: str | None,
    overwrite: bool,
    progress: Progress,
) -> Mosaic:
    """A mosaic for each region that maps have data in."""
    from geocfl.analysis.regions import Regions  # with exactextract and pandas

    if not by:
        raise UsageError(f"--regions {path}: name the field that holds their names with --by")
    if folder.suffix in (".tif", ".vrt"):
        raise UsageError(f"--out {folder}: is a folder where there are --regions; choose such as {folder.parent}")
    regions = Regions(path, by, layer)
    targets = [folder / f"{region.stem}{LULC}.tif" for region in regions.all]
    opened = _open_maps(maps, {target.resolve() for target in targets})
    reached = regions.reached_by(opened)
    for target, here in zip(targets, reached, strict=True):
        for suffix in SUFFIXES if here else ():  # before any of them is made
            beside = target.with_name(f"{target.stem.removesuffix(LULC)}{suffix}")
            refuse_what_is_in_the_way(beside, overwrite=overwrite)
    paths: list[Path] = []
    classes: dict[str, ClassTable] = {}
    numbers = counted(range(len(targets)), progress, folder.name, len(targets), "region")
    for number in numbers:
        part = _part(regions, number, reached[number], crs)
        try:
            if part:
                made = _write_raster(*part[:2], targets[number], formats, overwrite, silent, part[2])
                paths += made.paths
                classes[regions.all[number].name] = made.classes[""]
        except _NoDataError:
            pass
    without = [region.name for region in regions.all if region.name not in classes]
    if not classes:
        raise DataError(f"{path}: no map has data in any region; pass regions, or maps, of the same place")
    if without:
        log.warning("%s: no map has data in %s; nothing is written for it", path, ", ".join(without))
    return Mosaic(paths, classes)


class _NoDataError(DataError):
    """A region in which no map has data."""


def _part(
    regions: Regions, number: int, maps: Sequence[SceneMap], crs: rasterio.CRS | None
) -> tuple[CellGrid, list[Placed], Any] | None:
    """The cells around a region, the maps on them, and the region on them as a shape; None where there are no maps."""
    if not maps:
        return None
    grid, placed = place_maps(maps, crs or maps[0].grid.crs)
    shape = regions.on_grid(number, grid)
    if shape.is_empty:
        return None
    left, top = (math.floor(edge) for edge in shape.bounds[:2])
    right, bottom = (math.ceil(edge) for edge in shape.bounds[2:])
    grid, placed = crop(grid, placed, slice(top, bottom), slice(left, right))
    if not placed:  # it lies between them
        return None
    return grid, placed, translate(shape, -left, -top)


def _open_maps(maps: Sequence[SceneMap | str | Path], targets: Set[Path]) -> list[SceneMap]:
    """The maps that paths, folders and patterns name, each once.

    Args:
        maps: Likewise.
        targets: Absolute paths of what is about to be written.

    Raises:
        UsageError: There are none, or one that is named is a target.
        DataError: A folder or pattern holds none, a map cannot be read, or they differ in legend.
    """
    if not maps:
        raise UsageError("no maps to make one of; pass class rasters, such as A_lulc.tif B_lulc.tif")
    entries: dict[Path, SceneMap | Path] = {}
    for entry in maps:
        if isinstance(entry, SceneMap):
            entries.setdefault(entry.path.resolve(), entry)
        else:
            for path in _named(str(entry), targets):
                entries.setdefault(path.resolve(), path)
    for path in targets & entries.keys():
        raise UsageError(f"--out {path}: is one of the maps; choose another name")
    opened = [georeferenced(entry) for entry in entries.values()]
    for other in opened[1:]:
        if other.legend != opened[0].legend:
            raise DataError(
                f"{other.path}: has other classes than {opened[0].path}; make one map of one model's maps",
                page="how-to/mosaic/",
            )
    return opened


def _named(entry: str, targets: Collection[Path]) -> list[Path]:
    """The class rasters that a path, a folder or a pattern stands for."""
    path = Path(entry)
    if path.is_dir():
        pattern, kind = str(Path(glob.escape(entry), f"*{LULC}.tif")), "a folder"
    elif glob.has_magic(entry) and not path.exists():
        pattern, kind = entry, "a pattern"
    else:
        return [path]
    names = (name for name in sorted(glob.glob(pattern, recursive=True)) if name.endswith(f"{LULC}.tif"))
    found = [path for path in map(Path, names) if path.resolve() not in targets]
    if not found:
        raise DataError(
            f"{entry}: {kind} without maps, whose names end in {LULC}.tif; pass what geocfl map has written"
        )
    return found


def _write_raster(
    grid: CellGrid,
    placed: Sequence[Placed],
    target: Path,
    formats: Selection,
    overwrite: bool,
    progress: Progress,
    region: Any = None,
) -> Mosaic:
    """The mosaic's cells, those outside a region without data, and the products of them, whole or not at all.

    Raises:
        _NoDataError: No map has data in the region.
    """
    for part in placed:
        _require_confidence(part.map)
    legend = placed[0].map.legend
    wanted = [name for name in FILES if name in Selection.of("lulc,confidence", "none").files | formats.files]
    suffixes = [FILES[name] for name in wanted if name != "summary"]
    stem = target.stem.removesuffix(LULC)
    digest = _digest(grid, placed, [*formats.vector, shapely.to_wkt(region, -1) if region is not None else ""])
    with Staging(target.parent, stem, digest, overwrite=overwrite, products=suffixes) as staging:
        paths = [staging.target(suffix) for suffix in suffixes]
        if staging.state == "done":  # but for moving the last files
            table = _count(target, staging.target(FILES["confidence"]), grid, legend)
            return Mosaic(paths, {"": table})
        cells = staging.folder / "cells"
        with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE):
            _paste(grid, placed, cells, region, progress, target.name)
            table = class_table(cells, grid, legend)
            if region is not None and table["nodata"]["cells"] == table["total"]["cells"]:
                raise _NoDataError(f"{target}: no map has data there")
            tags = _tags(placed, grid)
            write_lulc(cells, staging.path(FILES["lulc"]), grid, legend, tags)
            write_confidence(cells, staging.path(FILES["confidence"]), grid, tags)
        unclassified = bool(table["unclassified"]["cells"])
        write_style(staging.path(FILES["lulc_style"]), lulc_qml(legend, unclassified=unclassified))
        write_style(staging.path(FILES["confidence_style"]), confidence_qml())
        if formats.vector:
            _write_polygons(cells, grid, legend, formats, staging, unclassified)
        staging.commit()
    return Mosaic(paths, {"": table})


def _write_polygons(
    cells: Path, grid: CellGrid, legend: Legend, formats: Selection, staging: Staging, unclassified: bool
) -> None:
    """The polygons of a mosaic in every format, styled."""
    polygons = dissolve(cells, grid, legend)
    for format in formats.vector:
        write_polygons(polygons, staging.path(FILES[format]), format)
    style = polygons_qml(legend, unclassified=unclassified)
    if "gpkg" in formats.vector:
        write_default_styles(staging.path(FILES["gpkg"]), {POLYGONS: style})
    if "polygons_style" in formats.files:
        write_style(staging.path(FILES["polygons_style"]), style)


def _paste(grid: CellGrid, placed: Sequence[Placed], cells: Path, region: Any, progress: Progress, name: str) -> None:
    """Writes the work raster, strip by strip with one map open at a time."""
    work.write_header(cells, grid.rows, grid.columns)
    step = max(1, STRIP_CELLS // grid.columns)
    with cells.open("wb") as file:
        for first in counted(range(0, grid.rows, step), progress, name, -(-grid.rows // step), "strip"):
            last = min(first + step, grid.rows)
            codes = np.full((last - first, grid.columns), NODATA, np.uint8)
            score = np.full(codes.shape, -1, np.int16)
            for part in placed:
                rows = slice(max(first, part.top), min(last, part.bottom))
                columns = slice(max(0, part.left), min(grid.columns, part.right))
                if rows.start < rows.stop and columns.start < columns.stop:
                    there = slice(rows.start - first, rows.stop - first), columns
                    _overlay(part, grid, rows, columns, codes[there], score[there])
            if region is not None:
                outside = geometry_mask([region], codes.shape, Affine.translation(0, first))
                codes[outside], score[outside] = NODATA, -1
            confidence = np.where(score < 0, work.NO_CONFIDENCE, score).astype(np.uint8)
            file.write(np.stack([codes, confidence], axis=1).tobytes())


def _overlay(
    part: Placed, grid: CellGrid, rows: slice, columns: slice, codes: NDArray[np.uint8], score: NDArray[np.int16]
) -> None:
    """Puts a map's cells over `codes` and `score`, in place, where it is surer of them; no data has a score of -1."""
    m = part.map
    mine = part.read(m.path, grid, rows, columns)
    if ((mine > len(m.legend)) & (mine != UNCLASSIFIED)).any():
        raise DataError(f"{m.path}: holds codes that its legend lacks; pass an unchanged map")
    sure = part.read(m.paths.get("confidence", m.path), grid, rows, columns).astype(np.int16)
    sure[sure == work.NO_CONFIDENCE] = 0
    sure[mine == NODATA] = -1
    wins = sure > score
    codes[wins], score[wins] = mine[wins], sure[wins]


def _require_confidence(m: SceneMap) -> None:
    """Refuses a map whose confidence is absent, broken, or of other cells."""
    confidence = m.paths.get("confidence")
    if confidence is None:
        name = f"{m.path.stem.removesuffix(LULC)}_confidence.tif"
        raise DataError(f"{m.path}: {name} is not beside it; put it there, or choose an --out X{LULC}.vrt")
    try:
        with open_raster(confidence) as dataset:
            same = dataset.shape == (m.grid.rows, m.grid.columns)
            same &= dataset.transform.almost_equals(m.grid.cell_transform, 1e-6)
    except RasterioError as error:
        raise DataError(f"{confidence}: not a raster that GDAL reads; map its scene again") from error
    if not same:
        raise DataError(f"{confidence}: has other cells than {m.path.name}; pass both as geocfl has written them")


def _tags(placed: Sequence[Placed], grid: CellGrid) -> dict[str, str]:
    """What a mosaic says about itself."""
    names = [part.map.path.name for part in placed]
    rest = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return {
        "GEOCFL_VERSION": __version__,
        "GEOCFL_MODEL": ", ".join(sorted({part.map.model for part in placed} - {""})),
        "GEOCFL_SOURCE": ", ".join(names[:NAMED]) + rest,
        "GEOCFL_STRIDE": "1",
        "GEOCFL_WIDTH": str(grid.width),
        "GEOCFL_HEIGHT": str(grid.height),
    }


def _digest(grid: CellGrid, placed: Sequence[Placed], options: Sequence[str]) -> str:
    """What a mosaic depends on: the maps, by place, size and time; their order, its grid, options and this version."""
    facts: list[Any] = [__version__, grid.crs.to_wkt(), *grid.transform, *options]
    for part in placed:
        for path in (part.map.path, part.map.paths.get("confidence", part.map.path)):
            status = path.stat()
            facts.append([str(path.resolve()), status.st_size, status.st_mtime_ns])
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _write_virtual(grid: CellGrid, placed: Sequence[Placed], target: Path, overwrite: bool) -> Mosaic:
    """A virtual raster and its style."""
    sources = []
    for part in placed:
        m, place = part.map, part.place
        if place is None:
            raise DataError(
                f"{m.path}: is not in {crs_name(grid.crs)}, and a virtual raster reprojects nothing; "
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
    # Read once from here, so that a broken map is found before the file is there.
    seen = virtual_raster(Path.cwd(), grid, legend, sources, {})
    with put_into_place(style) as styled, put_into_place(target) as partial:
        table = _count(seen, None, grid, legend)
        write_style(styled, lulc_qml(legend, unclassified=bool(table["unclassified"]["cells"])))
        partial.write_text(text, encoding="utf-8", newline="\n")
    return Mosaic([target, style], {"": table})


def _count(lulc: str | Path, confidence: Path | None, grid: CellGrid, legend: Legend) -> ClassTable:
    """What each class covers in the rasters of a mosaic; `lulc` may be the text of a virtual one.

    Raises:
        DataError: They cannot be decoded, or hold codes that the legend lacks.
    """
    try:
        return class_table_of_rasters(lulc, confidence, grid, legend)
    except RasterioError as error:
        raise DataError(f"a map's cells cannot be decoded ({error.__cause__ or error}); map its scene again") from error
    except ValueError as error:
        raise DataError(f"a map holds codes that its legend lacks ({error}); pass unchanged maps") from error
