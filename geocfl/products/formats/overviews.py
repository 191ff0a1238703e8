"""Overviews in which no data keeps its share: GDAL's own shrink holes, since any neighbor with data fills them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

from geocfl.products.scratch import STRIP_CELLS, write_header


def keep_holes(raster: Path, folder: Path) -> Iterator[Path]:
    """Writes the overviews of a raster again, each with no data where its nearest pixel of the raster has none.

    Args:
        raster: A GeoTIFF of unsigned integers with a value of no data, and with overviews that GDAL has made.
        folder: Where to write.

    Yields:
        An ENVI raster for each overview, from the finest; none if the raster has data everywhere.
    """
    with rasterio.open(raster) as base:
        if not any(_has_holes(base, band) for band in base.indexes):
            return
        for level, factor in enumerate(base.overviews(1)):
            path = folder / f"overview{level}"
            with rasterio.open(raster, overview_level=level) as overview, path.open("wb") as file:
                # Where the size of a raster is odd, its overview has half a pixel less.
                nearest_row = np.arange(overview.height) * base.height // overview.height
                nearest_column = np.arange(overview.width) * base.width // overview.width
                rows = max(1, STRIP_CELLS // (base.width * factor))
                for top in range(0, overview.height, rows):
                    those = nearest_row[top : top + rows]
                    values = overview.read(window=Window(0, top, overview.width, len(those)))
                    strip = base.read(window=Window(0, those[0], base.width, those[-1] + 1 - those[0]))
                    nearest = strip[:, those - those[0]][:, :, nearest_column]
                    holes = nearest == np.reshape(base.nodatavals, (-1, 1, 1))
                    values = np.where(holes, nearest, values)
                    file.write(values.astype(values.dtype.newbyteorder("<")).transpose(1, 0, 2).tobytes())
                size = overview.height, overview.width
            write_header(path, *size, [str(band) for band in base.indexes], base.dtypes[0])
            yield path


def _has_holes(base: rasterio.DatasetReader, band: int) -> bool:
    """Whether a band has pixels without data."""
    windows = (window for _, window in base.block_windows(band))
    return any((base.read(band, window=window) == base.nodatavals[band - 1]).any() for window in windows)
