"""Nodata values that a raster does not declare, recognized from its pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.windows import Window

from geocfl.core.windows import spread

NEGATIVE = (-10000, -9999, -32768, -32767, -99999, -3.4028234663852886e38, -1.7976931348623157e308)
"""Values that programs write where there is no data, and that are no reflectance: of MAJA, many programs, and the
lowest of a data type."""
LARGE = (65535, 32767, 9.969209968386869e36, 1e20)
"""Others: the highest of a data type, which may be saturated pixels too, and netCDF's fill values."""
Squares = list[tuple[Window, NDArray[np.generic]]]
SQUARES, SIDE = 3, 128
"""Squares along each side of the sample, and their side in pixels."""
LEAST = 10
"""Pixels of the sample that must have the value."""
MANY = 0.01
"""A larger share of the highest value away from the border is worth a word."""


def undeclared_nodata(
    dataset: rasterio.DatasetReader, indexes: Sequence[int], *, far: bool = False
) -> tuple[float | None, str]:
    """The nodata value that a raster without a mask does not declare, and a sentence about it without its subject.

    A raster that declares another value than 0 and NaN is believed, and one on a server that declares any.

    A value below 0 that no reflectance has counts wherever all bands have it. One that may be reflectance counts if it
    forms a part of the border; elsewhere it is only mentioned.

    Args:
        dataset: The raster.
        indexes: Numbers of the bands that are needed, from 1.
        far: Whether the raster lies on a server. Then its smallest overview is the sample or, without overviews, small
            squares in its corners.

    Returns:
        The value and a sentence; None and an empty sentence if there is none.
    """
    kind = np.dtype(dataset.dtypes[0])
    declared = {dataset.nodatavals[index - 1] for index in indexes} - {None}
    others = {value for value in declared if value and not math.isnan(value)}  # 0 and NaN never are data
    masked = any(MaskFlags.per_dataset in dataset.mask_flag_enums[index - 1] for index in indexes)
    if others or (far and declared) or masked or kind == np.uint8 or not indexes:
        return None, ""
    squares = _overview(dataset, indexes) or _squares(dataset, indexes, 2, 16) if far else _squares(dataset, indexes)
    pixels = sum(values[0].size for _, values in squares)
    for value in (*NEGATIVE, *LARGE):
        if kind.kind in "iu" and not np.iinfo(kind).min <= value <= np.iinfo(kind).max:
            continue
        if kind.kind == "f" and abs(value) > float(np.finfo(kind).max):
            continue
        inside, border = _count(dataset, squares, kind.type(value))
        if border >= LEAST or (value in NEGATIVE and inside + border >= LEAST):
            said = "declares another nodata value, but" if declared else "declares no nodata value, and"
            return float(kind.type(value)), f"{said} {value:g} is assumed to be it; `nodata` overrides it"
        if inside > MANY * pixels:
            return (
                None,
                f"has the value {value:g} in all bands of many pixels; if it means no data, use `nodata={value:g}`",
            )
    return None, ""


def _count(dataset: rasterio.DatasetReader, squares: Squares, value: np.generic) -> tuple[int, int]:
    """Pixels of the sample that have a value in all bands: in regions away from the border, and in others."""
    inside = border = 0
    for window, values in squares:
        found = (values == value).all(axis=0)
        edges = (
            found[0].sum() * (window.row_off == 0)
            + found[-1].sum() * (window.row_off + window.height == dataset.height)
            + found[:, 0].sum() * (window.col_off == 0)
            + found[:, -1].sum() * (window.col_off + window.width == dataset.width)
        )
        if edges:
            border += int(found.sum())
        else:
            inside += int(found.sum())
    return inside, border


def _squares(
    dataset: rasterio.DatasetReader, indexes: Sequence[int], number: int = SQUARES, side: int = SIDE
) -> Squares:
    rows, columns = (spread(size, side, number) for size in (dataset.height, dataset.width))
    windows = [
        Window(int(x), int(y), min(side, dataset.width), min(side, dataset.height)) for y in rows for x in columns
    ]
    return [(window, dataset.read(list(indexes), window=window)) for window in windows]


def _overview(dataset: rasterio.DatasetReader, indexes: Sequence[int]) -> Squares:
    """The smallest overview of the whole raster; empty if there is none."""
    factors = [dataset.overviews(index) for index in indexes]
    if not all(factors):
        return []
    coarsest = min(map(max, factors))
    shape = (len(indexes), -(-dataset.height // coarsest), -(-dataset.width // coarsest))
    return [(Window(0, 0, dataset.width, dataset.height), dataset.read(list(indexes), out_shape=shape))]
