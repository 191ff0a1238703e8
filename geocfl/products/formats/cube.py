"""Cells as a Zarr cube in one ZIP file, which xarray, rioxarray and GDAL read, with coordinates and legend by CF."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyproj
from numpy.typing import NDArray

from geocfl.core.grid import CellGrid
from geocfl.core.legend import NODATA, Legend, shown_classes
from geocfl.products.formats.stac import class_names
from geocfl.products.scratch import (
    CODE,
    CONFIDENCE,
    ENTROPY,
    NO_CONFIDENCE,
    NOVELTY,
    PROBABILITY,
    VALID,
    band_numbers,
    read_strips,
)

CHUNK = 512
"""Rows and columns of a chunk, which is compressed on its own."""
PACKED = (1980, 1, 1, 0, 0, 0)
"""Time of every entry of the archive, the earliest that ZIP has, so that equal cubes are equal files."""
GRID_MAPPING = "spatial_ref"
"""Variable with the coordinate reference system, of the name that rioxarray looks for."""


def write_cube(
    cells: Path,
    path: Path,
    grid: CellGrid,
    legend: Legend,
    tags: Mapping[str, str],
    *,
    layers: frozenset[str] = frozenset(),
    when: datetime | None = None,
) -> None:
    """Writes a group of Zarr format 2 with consolidated metadata, chunk by chunk.

    Variables, (y, x) uint8 with fill values: ``lulc``, class codes with `flag_values` and `flag_meanings`;
    ``confidence``, 0..1 in percent; of `layers`, ``entropy`` (0..1), ``novelty`` (0..100), ``valid`` (0..1) and
    ``probability`` (class, y, x), 0..1. Coordinates: centers of the cells ``x`` and ``y``, unless the grid is rotated;
    ``time``, if it is known; ``class`` and ``class_name`` of probabilities.

    Args:
        cells: Work raster.
        path: ZIP file to write; its entries are not compressed again.
        grid: Where the cells lie.
        legend: Names and colors of the codes.
        tags: Attributes of the group.
        layers: Products that are to be in it, too: ``"entropy"``, ``"novelty"``, ``"valid"``, ``"probabilities"``.
        when: When the scene was taken, with a time zone.

    Source: the CF conventions 1.11, https://cfconventions.org, and https://zarr-specs.readthedocs.io (version 2).
    """
    import zarr
    from zarr.storage import LocalStore

    with TemporaryDirectory(dir=path.parent) as folder:
        group = zarr.open_group(LocalStore(folder), mode="w", zarr_format=2)
        names = _write_coordinates(group, grid, when)
        cell = {"coordinates": " ".join(names), "grid_mapping": GRID_MAPPING}
        percent = {**cell, "scale_factor": 0.01, "units": "1"}
        lulc = {**cell, "long_name": "land use / land cover", **_flags(legend)}
        _write_bands(group, "lulc", cells, [CODE], grid, NODATA, lulc)
        confidence = {**percent, "long_name": "probability of the class"}
        _write_bands(group, "confidence", cells, [CONFIDENCE], grid, NO_CONFIDENCE, confidence)
        if "entropy" in layers:
            entropy = {**percent, "long_name": "entropy of the probabilities by its maximum"}
            _write_bands(group, "entropy", cells, band_numbers(cells, ENTROPY), grid, NO_CONFIDENCE, entropy)
        if "novelty" in layers:
            novelty = {**cell, "long_name": "unlikeness to the training data, percentile of validation patches"}
            _write_bands(group, "novelty", cells, band_numbers(cells, NOVELTY), grid, NO_CONFIDENCE, novelty)
        if "valid" in layers:
            valid = {**percent, "long_name": "share of a cell's window that holds pixels of the scene"}
            _write_bands(group, "valid", cells, band_numbers(cells, VALID), grid, NO_CONFIDENCE, valid)
        if "probabilities" in layers:
            _write(
                group, "class", np.arange(1, len(legend) + 1, dtype=np.uint8), ["class"], {"long_name": "class code"}
            )
            longest = max(map(len, legend.names))
            _write(group, "class_name", np.array(legend.names, f"<U{longest}"), ["class"], {"long_name": "class"})
            probability = {**percent, "long_name": "probability of each class"}
            probability["coordinates"] = " ".join([*names, "class_name"])
            bands = band_numbers(cells, PROBABILITY)
            _write_bands(group, "probability", cells, bands, grid, NO_CONFIDENCE, probability, ["class"])
        group.attrs.update({"Conventions": "CF-1.11", "title": "Land use / land cover", **dict(sorted(tags.items()))})
        zarr.consolidate_metadata(group.store)
        _pack(Path(folder), path)


def _write_coordinates(group: Any, grid: CellGrid, when: datetime | None) -> list[str]:
    """Writes place and time of the cells; returns the names of those that are no dimensions."""
    located = grid.crs.is_projected or grid.crs.is_geographic
    crs = pyproj.CRS.from_wkt(grid.crs.to_wkt()) if located else None
    place = grid.cell_transform
    facts = {**crs.to_cf(), "spatial_ref": crs.to_wkt()} if crs else {}
    facts["GeoTransform"] = " ".join(map(repr, place.to_gdal()))
    _write(group, GRID_MAPPING, np.array(0, np.int32), [], facts)
    axes = {axis["axis"].lower(): axis for axis in crs.cs_to_cf()} if crs else {}
    if place.b == place.d == 0:
        _write(group, "x", place.c + place.a * (np.arange(grid.columns) + 0.5), ["x"], axes.get("x", {}))
        _write(group, "y", place.f + place.e * (np.arange(grid.rows) + 0.5), ["y"], axes.get("y", {}))
    if not when:
        return [GRID_MAPPING]
    calendar = {"standard_name": "time", "units": "seconds since 1970-01-01", "calendar": "proleptic_gregorian"}
    _write(group, "time", np.array(round(when.timestamp()), np.int64), [], calendar)
    return [GRID_MAPPING, "time"]


def _flags(legend: Legend) -> dict[str, Any]:
    """The legend as CF has it, with the colors as well."""
    shown = list(shown_classes(legend, unclassified=True))
    return {
        "flag_values": [c.code for c in shown],
        "flag_meanings": " ".join([*class_names(legend), "unclassified"]),
        "flag_colors": " ".join(c.color for c in shown),
    }


def _write_bands(
    group: Any,
    name: str,
    cells: Path,
    bands: Sequence[int],
    grid: CellGrid,
    nodata: int,
    attributes: Mapping[str, Any],
    more: Sequence[str] = (),
) -> None:
    """Writes bands of the work raster as one variable, with a dimension for the bands if `more` names it."""
    depth = [len(bands)] if more else []
    shape = (*depth, grid.rows, grid.columns)
    chunks = (*depth, min(CHUNK, grid.rows), min(CHUNK, grid.columns))
    array = _create(group, name, shape, chunks, np.dtype(np.uint8), [*more, "y", "x"], attributes, nodata)
    for first, values in read_strips(cells, bands, at_a_time=CHUNK * grid.columns):
        rows = slice(first, first + values.shape[1])
        array[(..., rows, slice(None))] = values if more else values[0]


def _write(group: Any, name: str, values: NDArray[Any], axes: Sequence[str], attributes: Mapping[str, Any]) -> None:
    """Writes a small variable without a fill value."""
    _create(group, name, values.shape, values.shape, values.dtype, axes, attributes, None)[...] = values


def _create(
    group: Any,
    name: str,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    kind: np.dtype[Any],
    axes: Sequence[str],
    attributes: Mapping[str, Any],
    nodata: int | None,
) -> Any:
    """Creates a variable whose dimensions xarray finds in its attributes."""
    from numcodecs import Zlib  # which every reader of Zarr has

    return group.create_array(
        name,
        shape=shape,
        chunks=chunks,
        dtype=kind,
        fill_value=nodata,
        compressors=Zlib(level=6),
        attributes={"_ARRAY_DIMENSIONS": list(axes), **attributes},
    )


def _pack(folder: Path, path: Path) -> None:
    """Packs the files of a folder, sorted by name."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in _files(folder):
            entry = zipfile.ZipInfo(file.relative_to(folder).as_posix(), PACKED)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, file.read_bytes())


def _files(folder: Path) -> Iterator[Path]:
    yield from sorted(path for path in folder.rglob("*") if path.is_file())
