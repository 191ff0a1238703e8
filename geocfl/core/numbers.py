"""Digital numbers as a scene stores them, for devices that compute reflectance themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geocfl.core.radiometry import Scaling

STORED = (np.uint8, np.uint16)
"""Types of digital numbers that devices take."""


@dataclass(frozen=True)
class Numbers:
    """Digital numbers of B bands, which pixels have data, and the scaling to reflectance.

    Attributes:
        planes: (B + 1, h, w), one of `STORED`: the bands; the last plane is 0 where a pixel has data, else 1.
        scaling: That of each band.
    """

    planes: NDArray[np.unsignedinteger]
    scaling: tuple[Scaling, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """B, h and w, as of the reflectance."""
        return len(self.scaling), *self.planes.shape[1:]

    @property
    def known(self) -> NDArray[np.bool_]:
        """(h, w) bool, which pixels have data."""
        has_data: NDArray[np.bool_] = self.planes[-1] == 0
        return has_data

    def part(self, rows: slice, columns: slice) -> Numbers:
        """Those of some rows and columns; a view."""
        return Numbers(self.planes[:, rows, columns], self.scaling)

    def reflectance(self, bands: Sequence[int] | None = None) -> NDArray[np.float32]:
        """(n, h, w) float32 reflectance of the bands with these indices, by default of all; NaN is no data."""
        chosen = range(len(self.scaling)) if bands is None else bands
        result = np.stack([self.scaling[band].to_reflectance(self.planes[band]) for band in chosen])
        result[:, ~self.known] = np.nan
        return result

    def at_least(self, band: int, limit: float) -> NDArray[np.bool_]:
        """(h, w) bool, where a band's reflectance is at least `limit`; nowhere without data."""
        numbers = np.arange(np.iinfo(self.planes.dtype).max + 1, dtype=self.planes.dtype)
        first = int(np.searchsorted(self.scaling[band].to_reflectance(numbers), np.float32(limit)))
        if first == len(numbers):
            return np.zeros(self.planes.shape[1:], bool)
        reached: NDArray[np.bool_] = self.planes[band] >= first
        return reached & self.known if reached.any() else reached


Pixels = NDArray[np.float32] | Numbers
"""Pixels of a scene: (B, h, w) reflectance, NaN is no data; or its digital numbers."""


def known(pixels: Pixels) -> NDArray[np.bool_]:
    """(h, w) bool, which pixels have data."""
    return pixels.known if isinstance(pixels, Numbers) else ~np.isnan(pixels[0])


def at_least(pixels: Pixels, band: int, limit: float) -> NDArray[np.bool_]:
    """(h, w) bool, where a band's reflectance is at least `limit`; nowhere without data."""
    return pixels.at_least(band, limit) if isinstance(pixels, Numbers) else pixels[band] >= limit


def thinned(pixels: Pixels, bands: Sequence[int], rows: slice, columns: slice) -> NDArray[np.float32]:
    """(n, h, w) float32 reflectance of some bands, rows and columns; NaN is no data."""
    if isinstance(pixels, Numbers):
        return pixels.part(rows, columns).reflectance(bands)
    part: NDArray[np.float32] = pixels[list(bands), rows, columns]
    return part


def reflectance(pixels: Pixels) -> NDArray[np.float32]:
    """(B, h, w) float32 reflectance, NaN is no data."""
    return pixels.reflectance() if isinstance(pixels, Numbers) else pixels
