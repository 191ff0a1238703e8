"""An open scene, which reads reflectance of named bands; NaN is no data."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from types import TracebackType
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import MaskFlags
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from geocfl.core.chunks import in_chunks
from geocfl.core.numbers import STORED
from geocfl.core.radiometry import Scaling
from geocfl.core.windows import spread
from geocfl.errors import SceneError
from geocfl.scenes.area import Extent
from geocfl.scenes.mask import Mask
from geocfl.scenes.placing import LOCAL
from geocfl.scenes.plausible import LOWEST
from geocfl.scenes.remote import insist, remote_settings
from geocfl.scenes.source import file_name
from geocfl.scenes.stack import reason
from geocfl.scenes.urls import is_remote
from geocfl.scenes.warp import ground

TILES, SIDE = 5, 256
"""Squares of a sample along each side of a scene, and their side in pixels."""
FAR_TILES = 3
"""The same squares of a scene on a server."""


@dataclass
class Scene:
    """An open scene; a context manager.

    Attributes:
        path: What the user passed.
        bands: Band name to its number in the dataset, from 1.
        scaling: Band name to the scaling of its digital numbers.
        scaling_source: Where the scaling came from, in words.
        level: ``"L1C"``, ``"L2A"`` or ``"unknown"``.
        taken: When it was taken, UTC; None if unknown.
        files: Paths of all rasters that are read, as GDAL opens them.
        notes: What was assumed, a sentence each.
        extent: The part that is read.
        crs: Coordinate reference system; None if it has none.
        transform: Pixel (column, row) of the part to coordinates.
        pixels: Band name to the side of its own pixels, before any resampling, in meters; empty without a CRS.
        mask: Masked pixels; None for no mask.
        block_rows: Pixel rows of the file's blocks, which are decoded whole.
        baseline: Its processing baseline, unless `scaling` accounts for it already; empty if unknown.
        offset_given: Whether the user chose the offset.
        nodata_given: Whether the user chose the nodata value, so that 0 is data.
        read_seconds: Seconds in which pixels were read so far, also those in which that failed.
        read_bytes: Bytes of pixel values read so far, uncompressed.
        read_failed: Whether pixels could not be read.
    """

    path: str
    bands: dict[str, int]
    scaling: dict[str, Scaling]
    scaling_source: str
    level: str
    taken: datetime | None
    files: tuple[str, ...]
    notes: tuple[str, ...]
    extent: Extent
    crs: CRS | None
    transform: Affine
    pixels: dict[str, float] = field(default_factory=dict)
    mask: Mask | None = None
    block_rows: int = 1
    baseline: str = ""
    offset_given: bool = False
    nodata_given: bool = False
    read_seconds: float = field(default=0.0, repr=False)
    read_bytes: int = field(default=0, repr=False)
    read_failed: bool = field(default=False, repr=False)
    _dataset: rasterio.DatasetReader = field(repr=False, default=None)
    _open_again: Callable[[], tuple[rasterio.DatasetReader, Any]] = field(repr=False, default=None)  # type: ignore[assignment]

    @property
    def name(self) -> str:
        """Its file's name."""
        return file_name(self.path)

    @property
    def height(self) -> int:
        """Rows, pixels."""
        return self.extent.height

    @property
    def width(self) -> int:
        """Columns, pixels."""
        return self.extent.width

    @property
    def dtype(self) -> str:
        """Data type of the digital numbers, such as ``"uint16"``."""
        return str(self._dataset.dtypes[0])

    @property
    def nodata(self) -> float | None:
        """Nodata value that the file declares for the first band; None if it declares none."""
        value = self._dataset.nodata
        return None if value is None else float(value)

    @property
    def gsd(self) -> float | None:
        """Ground sampling distance down the columns in meters, rounded to centimeters; None without a CRS."""
        return round(ground(self._dataset).down, 2) if self.crs is not None and self.crs != LOCAL else None

    def read(
        self, bands: tuple[str, ...], start: int, stop: int, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Full-width rows of reflectance.

        A pixel is no data, NaN in every band, if any of `bands` has its declared nodata value or is not finite, or if
        it is masked. Whatever the file declares, a pixel is no data if it is so far below 0 that it is no reflectance,
        or 0 in all of them, unless the user chose another nodata value.

        Args:
            bands: Names, in the order wanted.
            start: First pixel row.
            stop: One past the last, at most `height`.
            out: Array to write into, of the shape returned; None for a new one.

        Returns:
            (B, stop - start, width) float32.

        Raises:
            SceneError: The file cannot be decoded there.
        """
        reflectance = self._read(bands, self.extent.window(start, stop), out)
        if self.mask:
            reflectance[:, self.mask.read(self.extent, start, stop)] = np.nan
        return reflectance

    def stored_dtype(self, bands: tuple[str, ...]) -> np.dtype[Any] | None:
        """Type of the digital numbers of bands; None if `read_stored` does not give such."""
        types = {np.dtype(self._dataset.dtypes[self.bands[band] - 1]) for band in bands}
        return next(iter(types)) if len(types) == 1 and types <= set(map(np.dtype, STORED)) else None

    def read_stored(self, bands: tuple[str, ...], start: int, stop: int, out: NDArray[np.generic]) -> None:
        """Full-width rows of digital numbers as the file has them.

        Args:
            bands: Names, in the order wanted; they have a `stored_dtype`.
            start: First pixel row.
            stop: One past the last, at most `height`.
            out: (B + 1, stop - start, width) array to write into, as `geocfl.core.numbers.Numbers` has them: a pixel
                has data where `read` gives reflectance.

        Raises:
            SceneError: The file cannot be decoded there.
        """
        dn, hidden = self._decode(bands, self.extent.window(start, stop))

        def copy(rows: slice) -> None:
            part = dn[:, rows]
            out[:-1, rows] = part
            out[-1, rows] = self._missing(part, bands, None if hidden is None else hidden[rows])

        in_chunks(copy, *dn.shape[1:])
        if self.mask:
            out[-1, self.mask.read(self.extent, start, stop)] = 1

    def read_window(self, bands: tuple[str, ...], row: int, column: int, side: int) -> NDArray[np.float32]:
        """(B, side, side) float32 reflectance of a window that lies in the scene, as `read` gives it.

        Args:
            bands: Names, in the order wanted.
            row: First pixel row.
            column: First pixel column.
            side: Pixels along each side.

        Raises:
            SceneError: The file cannot be decoded there.
        """
        place = Window(self.extent.column + column, self.extent.row + row, side, side)
        reflectance = self._read(bands, place)
        reflectance[:, self.masked(row, column, side)] = np.nan
        return reflectance

    def masked(self, row: int, column: int, side: int) -> NDArray[np.bool_]:
        """(side, side) bool, which pixels of such a window are masked."""
        if self.mask is None:
            return np.zeros((side, side), bool)
        return self.mask.read(Extent(self.extent.row + row, self.extent.column + column, side, side), 0, side)

    def _read(
        self, bands: tuple[str, ...], window: Window, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        dn, hidden = self._decode(bands, window)
        reflectance = np.empty(dn.shape, np.float32) if out is None else out

        def convert(rows: slice) -> None:
            part, values = dn[:, rows], reflectance[:, rows]
            missing = self._missing(part, bands, None if hidden is None else hidden[rows])
            for band, numbers, converted in zip(bands, part, values, strict=True):
                self.scaling[band].to_reflectance(numbers, out=converted)
                np.copyto(converted, np.float32(np.nan), where=missing)

        in_chunks(convert, *dn.shape[1:])
        return reflectance

    def _decode(self, bands: tuple[str, ...], window: Window) -> tuple[NDArray[np.generic], NDArray[np.bool_] | None]:
        """Digital numbers of bands, and which pixels the file's mask hides; None if it has no mask."""
        started = time.perf_counter()
        try:
            dn, hidden = insist(self._far, lambda: self._attempt(bands, window), self.path)
            self.read_bytes += dn.nbytes
            return dn, hidden
        except Exception as error:
            self.read_failed = True
            if not isinstance(error, rasterio.RasterioIOError):
                raise
            raise SceneError(
                f"{self.path}: its pixels cannot be decoded ({reason(error)}); get the file again"
            ) from error
        finally:
            self.read_seconds += time.perf_counter() - started

    @property
    def _far(self) -> str:
        """One of its files that lies on a server; empty if there is none."""
        return next(filter(is_remote, self.files), "")

    def _attempt(self, bands: tuple[str, ...], window: Window) -> tuple[NDArray[np.generic], NDArray[np.bool_] | None]:
        """What `_decode` gives. Opens the dataset again after a failure."""
        # GDAL's options belong to a thread, and another thread opened the dataset.
        with remote_settings(*self.files):
            if self._dataset.closed:
                self._dataset, _ = self._open_again()
            try:
                dn = self._dataset.read([self.bands[band] for band in bands], window=window)
                flags = self._dataset.mask_flag_enums[self.bands[bands[0]] - 1]
                return dn, self._dataset.dataset_mask(window=window) == 0 if MaskFlags.per_dataset in flags else None
            except rasterio.RasterioIOError:
                if self._far:
                    self._dataset.close()
                raise

    def _missing(
        self, dn: NDArray[np.generic], bands: tuple[str, ...], hidden: NDArray[np.bool_] | None
    ) -> NDArray[np.bool_]:
        """(h, w) bool, which pixels of these digital numbers are no data."""
        missing = np.zeros(dn.shape[1:], bool) if hidden is None else hidden.copy()
        for numbers, index in zip(dn, (self.bands[band] for band in bands), strict=True):
            if (nodata := self._dataset.nodatavals[index - 1]) is not None:
                missing |= numbers == nodata
        scaling = [self.scaling[band] for band in bands]
        packed = any(each.offset > 0 for each in scaling)  # in such numbers, 0 may be data
        if not packed and not self.nodata_given:
            missing |= (dn == 0).all(axis=0)
        if dn.dtype.kind in "if":
            missing |= np.all([n < LOWEST * s.scale - s.offset for n, s in zip(dn, scaling, strict=True)], axis=0)
        if dn.dtype.kind == "f":
            missing |= ~np.isfinite(dn).all(axis=0)
        return missing

    def sample(self, bands: tuple[str, ...]) -> NDArray[np.float32]:
        """(B, n) reflectance of the pixels that `sample_numbers` takes."""
        sampled = self.sample_numbers(bands)
        for band, values in zip(bands, sampled, strict=True):
            self.scaling[band].to_reflectance(values, out=values)
        return sampled

    def sample_numbers(self, bands: tuple[str, ...]) -> NDArray[np.float32]:
        """(B, n) numbers as the file has them, of at most 5 x 5 squares spread over the scene; NaN is no data.

        Of a scene on a server, 3 x 3 squares are read, because each costs a block of the file or more.
        """
        tiles = FAR_TILES if self._far else TILES
        rows, columns = (spread(size, SIDE, min(tiles, -(-size // SIDE))) for size in (self.height, self.width))
        height, width = min(SIDE, self.height), min(SIDE, self.width)
        squares = []
        for y in rows:
            for x in columns:
                dn, hidden = self._decode(bands, Window(self.extent.column + x, self.extent.row + y, width, height))
                numbers = dn.astype(np.float32)
                numbers[:, self._missing(dn, bands, hidden)] = np.nan
                squares.append(numbers.reshape(len(bands), -1))
        return np.concatenate(squares, axis=1)

    def data_share(self) -> float:
        """Fraction of pixels with data, 0..1, estimated from a sample."""
        return float(np.isfinite(self.red).mean())

    def masked_share(self) -> float:
        """Fraction of masked pixels, 0..1, estimated from at most 5 strips of 256 rows spread over the scene."""
        if self.mask is None:
            return 0.0
        starts = spread(self.height, SIDE, TILES).tolist()
        strips = [self.mask.read(self.extent, start, min(start + SIDE, self.height)) for start in starts]
        return float(np.mean([strip.mean() for strip in strips]))

    @property
    def red(self) -> NDArray[np.float32]:
        """A sample of the reflectance of B04, or of the first band if there is no B04; NaN is no data."""
        red = self.scaling[self._red_band].to_reflectance(self.red_numbers)
        red[red < LOWEST] = np.nan  # the numbers may be older than the scaling
        return red

    @cached_property
    def red_numbers(self) -> NDArray[np.float32]:
        """The numbers of `red` as the file has them; read once, because a scene may be remote."""
        sampled: NDArray[np.float32] = self.sample_numbers((self._red_band,))[0]
        return sampled

    @property
    def _red_band(self) -> str:
        return "B04" if "B04" in self.bands else next(iter(self.bands))

    def close(self) -> None:
        """Closes its files."""
        self._dataset.close()
        if isinstance(self._dataset, WarpedVRT):
            self._dataset.src_dataset.close()
        if self.mask:
            self.mask.close()

    def __enter__(self) -> Scene:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
