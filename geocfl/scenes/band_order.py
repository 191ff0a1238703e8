"""Tells the order of bands without names from their pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from geocfl.core.windows import spread
from geocfl.scenes.bands import COLORS, Orders

SQUARES, SIDE = 4, 96
"""Squares along each side of the sample, and their side in pixels."""
CLEAR = 0.3
"""Sum of the logarithms that tells blue from red; it was 0.5 and more in mosaics of 16 EuroSAT patches."""
SURE = 0.6
"""The same, to overrule the color interpretation."""
CONTRARY = 0.1
"""How far one of the two logarithms may contradict the other."""
APART = 0.1
"""How much less than the others the near infrared correlates with them."""
CLIPPED = 0.1
"""A larger share of pixels at the maximum is saturated, and says nothing about colors."""
LEAST = 500
"""Pixels with data that are needed to tell anything."""


def likely_orders(dataset: rasterio.DatasetReader, orders: Orders, colors: Sequence[str]) -> Orders:
    """Those orders that the pixels of a raster allow.

    Blue is brighter than red where it is darkest, because of haze and shadows, and varies less; the near infrared
    correlates least with the others; a mask has few values; B8A is nearly equal to B08.

    Args:
        dataset: The raster.
        orders: Possible orders, see `geocfl.scenes.bands.ORDERS`.
        colors: Its color interpretation. It decides if the pixels do not.
    """
    if not orders:
        return orders
    try:
        values = _sample(dataset).astype(np.float64)
    except rasterio.RasterioIOError:  # which whoever reads the scene reports
        return orders[:1]
    pixels: NDArray[np.float64] = values[:, _valid(dataset, values)]
    flat = [len(np.unique(band)) <= 2 for band in pixels]
    if pixels.shape[1] < LEAST or all(flat):
        kept = list(orders)
    else:
        infrared = _infrared(pixels, flat)
        kept = [order for order in orders if _allowed(order, flat, infrared)]
    picture = [COLORS.get(color) for color in colors][:3] == ["B04", "B03", "B02"]
    picture = picture and not any("B08" in order for order in kept)  # GDAL calls any four bytes red, green, blue, alpha
    if len(kept) > 1 and len(orders[0]) > 4:
        return _with_twin(pixels, kept)
    least = SURE if picture else CLEAR
    signs = [_blue_before_red(pixels, order, least) for order in kept]
    clear = [order for order, sign in zip(kept, signs, strict=True) if sign > 0]
    kept = clear or [order for order, sign in zip(kept, signs, strict=True) if sign == 0]
    if len(kept) > 1 and picture:
        kept = [order for order in kept if order[:3] == ("B04", "B03", "B02")]
    return kept


def _sample(dataset: rasterio.DatasetReader) -> NDArray[np.generic]:
    """(B, n) digital numbers of the pixels of squares spread over a raster, with those at its edges."""
    rows, columns = (spread(size, SIDE, SQUARES) for size in (dataset.height, dataset.width))
    height, width = min(SIDE, dataset.height), min(SIDE, dataset.width)
    windows = [Window(x, y, width, height) for y in rows for x in columns]
    read = [dataset.read(dataset.indexes, window=window).reshape(dataset.count, -1) for window in windows]
    return np.concatenate(read, axis=1)


def _valid(dataset: rasterio.DatasetReader, values: NDArray[np.float64]) -> NDArray[np.bool_]:
    valid = np.isfinite(values).all(axis=0) & ~(values[:3] == 0).all(axis=0)
    same = (values == values[:1]).all(axis=0) & (values[0] < 0)  # nodata that is not declared
    for value, band in zip(dataset.nodatavals, values, strict=True):
        if value is not None:
            valid &= band != value
    checked: NDArray[np.bool_] = valid & ~same
    return checked


def _allowed(order: Sequence[str | None], flat: Sequence[bool], infrared: int | None) -> bool:
    if any(is_flat != (name is None) for name, is_flat in zip(order, flat, strict=True)):
        return False
    if "B08" not in order:
        return infrared is None
    unusual = order[0] == "B08" and infrared != 0
    return not unusual and (len(order) > 4 or infrared in (None, order.index("B08")))


def _infrared(pixels: NDArray[np.float64], flat: Sequence[bool]) -> int | None:
    """Which band of three or four is the near infrared, from 0; None if none stands out."""
    bands = [index for index, is_flat in enumerate(flat) if not is_flat]
    if not 3 <= len(bands) == len(pixels) <= 4:
        return None
    correlation: NDArray[np.float64] = np.asarray(np.corrcoef(pixels))
    mean = (correlation.sum(axis=0) - 1) / (len(pixels) - 1)
    least = int(np.argmin(mean))
    others = np.delete(np.delete(correlation, least, 0), least, 1)
    apart = others.min() - np.delete(correlation[least], least).max()
    return least if apart > APART and others.min() > 0.5 else None


def _blue_before_red(pixels: NDArray[np.float64], order: Sequence[str | None], least: float) -> int:
    """1 if what an order takes for blue and red looks so, -1 if it looks exchanged, 0 if it cannot be told."""
    if not {"B02", "B04"} <= set(order) or pixels.shape[1] < LEAST:
        return 0
    blue, red = pixels[order.index("B02")], pixels[order.index("B04")]
    if any((band >= band.max()).mean() > CLIPPED for band in (blue, red)) or min(blue.std(), red.std()) == 0:
        return 0
    dark_blue, dark_red = np.percentile(blue, 2), np.percentile(red, 2)
    dark = np.log(dark_blue / dark_red) if min(dark_blue, dark_red) > 0 else 0.0
    varies = np.log(red.std() / blue.std())
    for sign in (1, -1):
        if sign * (dark + varies) > least and min(sign * dark, sign * varies) > -CONTRARY:
            return sign
    return 0


def _with_twin(pixels: NDArray[np.float64], orders: Orders) -> Orders:
    """Those orders in which B08 and B8A are most alike."""
    if pixels.shape[1] < LEAST:
        return orders
    alike = [np.corrcoef(pixels[order.index("B08")], pixels[order.index("B8A")])[0, 1] for order in orders]
    return [order for order, value in zip(orders, alike, strict=True) if value > max(alike) - 0.01]
