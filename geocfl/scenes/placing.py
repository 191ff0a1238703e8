"""Where the pixels of a scene lie, and the resampling of scenes on another grid."""

from __future__ import annotations

from dataclasses import dataclass

import rasterio
from affine import Affine
from rasterio.crs import CRS

from geocfl.errors import SceneError
from geocfl.scenes.georeference import REFUSALS, georeferenced, is_north_up, north_up, why_unplaced
from geocfl.scenes.reading import Reading
from geocfl.scenes.source import Source
from geocfl.scenes.stack import coarseness, reason
from geocfl.scenes.warp import ground, to_model_grid

LOCAL = CRS.from_wkt('LOCAL_CS["pixels in metres",UNIT["metre",1]]')  # codespell:ignore metre,metres
"""The CRS of a scene without one, if `allow_no_crs` permits such scenes."""
COARSEST = 64
"""Side of the largest pixels that are resampled, in pixels of the model, whose whole window would lie within one."""


@dataclass(frozen=True)
class Placing:
    """Where the pixels of a scene lie.

    Attributes:
        crs: Coordinate reference system; None if the scene has none and none is needed.
        transform: Pixel (column, row) to coordinates.
        block_rows: Pixel rows of the file's blocks, which are decoded whole.
        notes: A sentence about resampling, if there was any.
        pixels: For each band, the side of its own pixels before any resampling, in meters on the ground; empty if
            unknown.
    """

    crs: CRS | None
    transform: Affine
    block_rows: int
    notes: tuple[str, ...] = ()
    pixels: tuple[float, ...] = ()


def place(
    source: Source, how: Reading, gsd: float | None, dataset: rasterio.DatasetReader
) -> tuple[rasterio.DatasetReader, Placing]:
    """A dataset on the grid that is needed: the dataset itself, or a resampled view of it.

    Args:
        source: The scene, for messages.
        how: How to read it.
        gsd: Ground sampling distance needed, meters; None for pixels as they are.
        dataset: The open dataset; closed on an error.

    Returns:
        The dataset, north up if a size of pixels is needed, and its place.

    Raises:
        SceneError: Its place is unknown or it has another grid, and `how` does not allow that.
    """
    try:
        dataset = georeferenced(dataset, source.crs)
        block_rows = int(max(shape[0] for shape in dataset.block_shapes))
        if lost := why_unplaced(dataset):
            if gsd is None:
                return dataset, Placing(None, dataset.transform, block_rows)
            if not how.allow_no_crs:
                raise SceneError(
                    f"{source.path}: {lost}, or use `allow_no_crs=True` for a map without a location",
                    page="how-to/grids/",
                )
            return dataset, Placing(LOCAL, Affine.scale(gsd, -gsd), block_rows)
        sides = _pixels(dataset)
        if gsd is None:
            return dataset, Placing(dataset.crs, dataset.transform, block_rows, pixels=sides)
        found = ground(dataset)
        if found.fits(gsd):
            view = dataset if is_north_up(dataset) else north_up(dataset)
            return view, Placing(view.crs, view.transform, block_rows, pixels=sides)
        pixels = f"pixels of {found.across:.3g} x {found.down:.3g} m"
        turned = f", turned by {found.skew:.3g} degrees" if found.turned else ""
        if not how.warp:
            raise SceneError(
                f"{source.path}: has {pixels} in {_crs_name(dataset.crs)}{turned}, but the model needs {gsd:g} m; "
                "remove `warp=False` to resample it, or resample it first with gdalwarp",
                page="how-to/grids/",
            )
        if max(found.across, found.down) > COARSEST * gsd:
            raise SceneError(
                f"{source.path}: its {pixels} are too coarse for a model of {gsd:g} m; use bands of {gsd:g} m, or "
                "correct its geotransform with gdal_edit.py -a_ullr WEST NORTH EAST SOUTH",
                page="how-to/grids/",
            )
        view = to_model_grid(dataset, gsd)
    except REFUSALS as error:
        dataset.close()
        raise SceneError(
            f"{source.path}: cannot be placed on the ground ({reason(error)}); correct its place with gdal_edit.py "
            "-a_ullr WEST NORTH EAST SOUTH or -a_srs, or use gdalwarp first",
            page="how-to/grids/",
        ) from error
    except BaseException:
        dataset.close()
        raise
    note = (
        f"{source.path}: warped from {pixels} in {_crs_name(dataset.crs)}{turned} to {gsd:g} m in {_crs_name(view.crs)}"
    )
    return view, Placing(view.crs, view.transform, block_rows, (note,), sides)


def _pixels(dataset: rasterio.DatasetReader) -> tuple[float, ...]:
    found = ground(dataset)
    return tuple(max(found.across, found.down) * coarser for coarser in coarseness(dataset))


def _crs_name(crs: CRS) -> str:
    epsg = crs.to_epsg()
    return f"EPSG:{epsg}" if epsg else "a CRS without EPSG code"
