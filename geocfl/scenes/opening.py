"""Opens a scene: its raster on the model's grid, the part to map, its scaling and its mask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

from geocfl.core.radiometry import Scaling
from geocfl.errors import SceneError
from geocfl.scenes.area import Extent
from geocfl.scenes.find import chosen_bands, find_source
from geocfl.scenes.mask import open_mask
from geocfl.scenes.placing import LOCAL, Placing, place
from geocfl.scenes.plausible import Found, find_scale, is_dark, raw_scale
from geocfl.scenes.reader import Scene
from geocfl.scenes.reading import Reading
from geocfl.scenes.remote import insist, remote_settings
from geocfl.scenes.scaling import DEFAULT, EIGHT_BIT, OPTIONS, TAGS, find_scaling
from geocfl.scenes.signing import signed
from geocfl.scenes.source import Source
from geocfl.scenes.stack import assemble, open_dataset, open_virtual, reason
from geocfl.scenes.undeclared import undeclared_nodata
from geocfl.scenes.urls import gdal_path, is_remote


def open_scene(
    scene: str | Path | Source,
    reading: Reading | None = None,
    *,
    needed: Sequence[str] = (),
    gsd: float | None = None,
    stride: int = 64,
    window: int = 64,
) -> Scene:
    """Opens a Sentinel-2 scene, whatever form it comes in.

    Args:
        scene: As for `geocfl.scenes.find.find_source`.
        reading: How to read it.
        needed: Bands to read; by default all that it has.
        gsd: Ground sampling distance to resample to, meters; None to read pixels as they are.
        stride: Cell size in pixels; a part of the scene starts at a cell.
        window: Window size in pixels; a part extends half a window beyond the area to map.

    Raises:
        SceneError: It is missing or broken, lacks a band or a CRS, or would need resampling that `reading` forbids.
        UsageError: A value is invalid.
    """
    how = reading or Reading()
    source = signed(find_source(scene, how.bands))
    if needed:
        source = chosen_bands(source, needed)
    paths = tuple(dict.fromkeys(band.path for band in source.bands.values())) or (gdal_path(source.path),)
    with remote_settings(*paths):
        nodata, noted = _nodata(source, how, paths)

    def open_again() -> tuple[rasterio.DatasetReader, Placing]:
        return place(source, how, gsd, _open(source, paths, nodata))

    with remote_settings(*paths):
        dataset, placing = open_again()
        try:
            extent = Extent.whole(dataset)
            if how.area:
                if placing.crs is None or placing.crs == LOCAL:
                    raise SceneError(
                        f"{source.path}: has no coordinate reference system, so `bbox` and `aoi` cannot be used"
                    )
                extent = Extent.around(how.area, dataset, stride, window)
            scaling, said, baseline = find_scaling(source, how)
            mask = open_mask(source, how, dataset)
        except BaseException:
            dataset.close()
            raise
    one = len(paths) == 1 and nodata is None
    numbers = {name: band.index if one else number for number, (name, band) in enumerate(source.bands.items(), start=1)}
    opened = Scene(
        path=source.path,
        bands=numbers,
        scaling=scaling,
        scaling_source=said if how.scale is None and how.offset is None else OPTIONS,
        level=source.level,
        taken=source.taken,
        files=(*paths, *([mask.path] if mask else [])),
        notes=(*source.notes, *noted, *placing.notes),
        extent=extent,
        crs=placing.crs,
        transform=placing.transform @ Affine.translation(extent.column, extent.row),
        pixels={name: placing.pixels[number - 1] for name, number in numbers.items()} if placing.pixels else {},
        mask=mask,
        block_rows=placing.block_rows,
        baseline=baseline,
        offset_given=how.offset is not None,
        nodata_given=how.nodata is not None,
        _dataset=dataset,
        _open_again=open_again,
    )
    try:
        _settle_scale(opened, how, paths, said)
    except BaseException:
        opened.close()
        raise
    return opened


def _settle_scale(scene: Scene, how: Reading, paths: Sequence[str], said: str) -> None:
    """Changes the scaling of a scene if its numbers, or its files' names, show that it is another one.

    Args:
        scene: The scene, which is changed.
        how: The user's values, which take precedence.
        paths: The rasters of its bands.
        said: Where the scaling comes from so far, apart from the user's values.

    Raises:
        SceneError: Its numbers cannot be reflectance.
    """
    if how.scale is not None or not scene.bands:
        return
    unstated, floats = said in (DEFAULT, EIGHT_BIT), scene.dtype.startswith("float")
    found = raw_scale(paths, scene.dtype) if unstated else None
    if found is None and scene.dtype == "uint8":
        if said == EIGHT_BIT and how.offset is None and len(paths) == len(scene.bands) > 1:
            raise SceneError(
                f"{scene.path}: its bands of 8 bits may be reflectance x 255 or parts of a picture; use `scale=255` if "
                "they are reflectance x 255, or `scale=924` and `offset=-1` for EuroSAT's stretch",
                page="how-to/reflectance/#numbers-of-other-programs",
            )
    elif found is None and (floats or unstated):
        found = _look(scene, floats, None if unstated else max(s.scale for s in scene.scaling.values()))
    elif said == TAGS and how.offset is None:
        _refuse_implausible(scene)
    if found:
        offset = 0.0 if how.offset is None else float(how.offset)
        scene.scaling = dict.fromkeys(scene.bands, Scaling(found.scale, offset))
        scene.scaling_source = f"its {found.why}"
        scene.notes = (*scene.notes, f"{scene.path}: its {found.why}, so `scale={found.scale:g}` is used")


def _refuse_implausible(scene: Scene) -> None:
    """Raises SceneError if whole numbers cannot be reflectance with the scale and offset that the file states."""
    stated = max(scaling.scale for scaling in scene.scaling.values())
    find_scale(scene.path, scene.sample(_three(scene)) * np.float32(stated), scene.dtype, stated)


def _three(scene: Scene) -> tuple[str, ...]:
    """Up to three bands to look at, those of visible light first."""
    return tuple(dict.fromkeys(band for band in ("B02", "B03", "B04", *scene.bands) if band in scene.bands))[:3]


def _look(scene: Scene, floats: bool, stated: float | None) -> Found | None:
    """The scale that the numbers of a scene show; of B04 first, and of other bands where it leaves a doubt."""
    red = scene.red_numbers[None]
    if floats or is_dark(red, stated):
        return find_scale(scene.path, scene.sample_numbers(_three(scene)), scene.dtype, stated)
    return find_scale(scene.path, red, scene.dtype, stated)


def _nodata(source: Source, how: Reading, paths: Sequence[str]) -> tuple[float | None, tuple[str, ...]]:
    """The nodata value that overrides what the rasters of a scene declare, if there is one, and a sentence about it."""
    if how.nodata is not None or source.nodata is not None or not source.bands:
        return how.nodata, ()
    one = len(paths) == 1
    indexes = [band.index if one else number for number, band in enumerate(source.bands.values(), start=1)]
    far = next(filter(is_remote, paths), "")

    def look() -> tuple[float | None, str]:
        with _open(source, paths) as dataset:
            return undeclared_nodata(dataset, indexes, far=bool(far))

    try:
        nodata, said = insist(far, look, source.path)
    except rasterio.RasterioIOError:  # reading says so
        return None, ()
    return nodata, (f"{source.path}: {said}",) if said else ()


def _open(source: Source, paths: Sequence[str], nodata: float | None = None) -> rasterio.DatasetReader:
    """The raster with all bands; a virtual one if they lie in several files or have another nodata value."""
    try:
        if len(paths) == 1 and nodata is None:
            return open_dataset(paths[0])
        virtual = assemble(source.path, source.bands, source.nodata, nodata)
        return open_virtual(virtual, paths)
    except rasterio.RasterioIOError as error:
        raise SceneError(f"{source.path}: cannot be opened ({reason(error)}); get the file again") from error
