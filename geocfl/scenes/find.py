"""Finds where the bands of a scene lie, whatever form it comes in."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

import rasterio

from geocfl.errors import SceneError
from geocfl.scenes.acquisition import find_datetime
from geocfl.scenes.band_order import likely_orders
from geocfl.scenes.bands import BandNumbers, find_bands
from geocfl.scenes.baseline import find_baseline
from geocfl.scenes.formats.archive import is_archive
from geocfl.scenes.formats.folder import find_beam, find_folder
from geocfl.scenes.formats.nested import find_nested, sole_raster
from geocfl.scenes.formats.safe import find_safe
from geocfl.scenes.formats.stac import find_item
from geocfl.scenes.formats.variables import find_variables
from geocfl.scenes.formats.zarr_store import find_zarr
from geocfl.scenes.labels import other_labels
from geocfl.scenes.remote import remote_settings
from geocfl.scenes.separate import masked_files
from geocfl.scenes.source import Band, Source, file_name
from geocfl.scenes.stack import open_dataset, reason
from geocfl.scenes.urls import gdal_path, is_remote, shown, without_query

_PRODUCT = re.compile(r".+\.(?:SAFE|zip|tar|tgz|tar\.\w+)|MTD_MSIL(?:1C|2A)\.xml|manifest\.safe", re.IGNORECASE)
"""Names of products, of their metadata, and of archives."""
RASTERS = (".tif", ".tiff", ".jp2", ".j2k", ".img")
"""Endings of rasters that are scenes of their own, in lower case; a virtual raster may stand for other files."""


def find_source(scene: str | Path | Source, bands: BandNumbers | None = None) -> Source:
    """Finds a scene's bands, whatever form it comes in.

    Args:
        scene: Path or URL of a raster, a folder with one file per band, a SAFE product, an archive or folder with
            one of these in it, or a STAC Item; or what `named_source` gave.
        bands: Which band of a raster is which, as in `Reading`; overrides what the raster says.

    Raises:
        SceneError: It is missing, broken, or none of these.
        UsageError: `bands` is invalid.
    """
    if isinstance(scene, Source):
        return _opened(scene, bands) if scene.raster else scene
    path = str(scene)
    _refuse_remote_products(path)
    for find in (find_zarr, find_safe, find_folder, find_beam, find_item, find_nested):
        if source := find(path):
            return source
    if member := sole_raster(path):
        return replace(_find_raster(member, bands, shown(member)), path=path)
    return _find_raster(path, bands, shown(path))


def named_source(path: str) -> Source | None:
    """A raster as a scene that is known by the name of its file, without opening it.

    Args:
        path: What the user passed as a scene.

    Returns:
        The scene, without bands; None if there is no such file, or its name does not tell what `find_source` finds.
    """
    name = file_name(shown(path))
    stem, ending = PurePosixPath(name).stem, PurePosixPath(name).suffix
    if ending.lower() not in RASTERS or not (is_remote(path) or os.path.isfile(path)):
        return None
    try:
        path.encode()
    except UnicodeEncodeError:
        return None
    return Source(shown(path), stem, {}, taken=find_datetime(name, {}), raster=path)


def _opened(named: Source, bands: BandNumbers | None) -> Source:
    """A scene from `named_source` with its bands, under the same name."""
    if is_archive(Path(named.raster)):  # whatever its name says
        return replace(find_source(named.raster, bands), path=named.path, stem=named.stem)
    return _find_raster(named.raster, bands, named.path)


def _refuse_remote_products(path: str) -> None:
    name = PurePosixPath(without_query(path).rstrip("/")).name
    if is_remote(path) and _PRODUCT.fullmatch(name):
        raise SceneError(
            f"{shown(path)}: products and archives are not read from servers; download it and use the copy, or use the "
            "addresses of its bands or its STAC Item",
            page="how-to/servers/",
        )


def _find_raster(path: str, chosen: BandNumbers | None, name: str) -> Source:
    """One raster with all the bands; `name` stands for it in messages."""
    remedy = "use a GeoTIFF, a SAFE product, a folder of bands or another raster that GDAL reads"
    opened = gdal_path(path)
    try:
        with remote_settings(opened), open_dataset(opened) as dataset:
            return _describe(name, opened, dataset, chosen)
    except rasterio.RasterioIOError as error:
        if not path.startswith("/vsi") and not Path(path).exists():
            raise SceneError(f"{name}: no such file; {remedy}") from error
        if Path(path).is_dir():
            if any(Path(path).glob("*.tif")):
                remedy = f"use '{path.rstrip('/')}/*.tif', in quotes, if each of its files is a scene"
            raise SceneError(
                f"{name}: has no files of Sentinel-2 bands, with names such as B04.tif; {remedy}",
                page="how-to/formats/",
            ) from error
        raise SceneError(
            f"{name}: not a readable raster ({reason(error)}); {remedy}", page="how-to/formats/"
        ) from error


def _describe(path: str, opened: str, dataset: rasterio.DatasetReader, chosen: BandNumbers | None) -> Source:
    if dataset.count == 0:
        return find_variables(path, dataset.subdatasets, chosen)
    name = file_name(path)
    found, note = find_bands(
        path,
        dataset.descriptions,
        [color.name for color in dataset.colorinterp],
        chosen,
        others=other_labels(dataset),
        likely=partial(likely_orders, dataset),
    )
    tags = {**dataset.tags(ns="IMAGERY"), **dataset.tags()}
    return Source(
        path=path,
        stem=PurePosixPath(name).stem,
        bands=masked_files(dataset, found) or {band: Band(opened, index) for band, index in found.items()},
        level=_level(name, tags.values()),
        taken=find_datetime(name, tags),
        notes=(note,) if note else (),
        raster_bands=dataset.count,
        baseline=find_baseline(path if "://" in path else str(Path(path).absolute()), tags),
    )


def _level(name: str, tags: Iterable[str]) -> str:
    found = set(re.findall(r"L1C|L2A", " ".join([name, *tags]).upper()))
    return found.pop() if len(found) == 1 else "unknown"


def chosen_bands(source: Source, needed: Sequence[str]) -> Source:
    """A source with only these bands, in their order.

    Raises:
        SceneError: It lacks one of them.
    """
    if any(band not in source.bands for band in needed):
        has = f"has only {', '.join(source.bands)}" if source.bands else _unnamed(source.raster_bands)
        remedy = "use a scene that has them, or a model that needs other bands"
        if source.raster_bands >= len(needed):
            notes = [note.removeprefix(f"{source.path}: ") for note in source.notes]
            remedy = "; ".join([*notes, "use `bands` to say which band is which"])
        raise SceneError(
            f"{source.path}: {', '.join(needed)} are needed, but the scene {has}; {remedy}",
            page="how-to/formats/#which-band-is-which",
        )
    return replace(source, bands={band: source.bands[band] for band in needed})


def _unnamed(count: int) -> str:
    return f"has {count} band{'s' if count > 1 else ''} without {'names' if count > 1 else 'a name'}"
