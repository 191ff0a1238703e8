"""How scenes are to be read."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

import numpy as np

from geocfl.core.keywords import check_type
from geocfl.errors import UsageError
from geocfl.scenes.area import Area
from geocfl.scenes.bands import BandNumbers, check_bands

LAST_BIT = 31
"""Highest bit of a mask's values."""


@dataclass(frozen=True)
class Reading:
    """How scenes are to be read.

    Attributes:
        bands: Which band of a raster is which: name to number, such as ``{"B04": 3}``, or the names in the raster's
            order. None takes what the scene states.
        scale: Digital numbers per unit of reflectance; None takes what the scene states.
        offset: Added to digital numbers first, as in ``reflectance = (DN + offset) / scale``; None if the scene says so
            itself.
        warp: Whether scenes on another grid than the model's are resampled to it.
        allow_no_crs: Whether to read scenes without a CRS, assuming pixels of the model's size.
        area: The ground to map; None for the whole scene.
        mask: ``"scl"`` for the scene's own classification or cloud mask, or the path of a raster of masked pixels.
        mask_classes: Values of the mask that count; by default clouds and their shadows in a classification layer, and
            everything but 0 in another raster.
        mask_bits: Bits of the mask's values, from 0, any of which masks a pixel; by default those of clouds and shadows
            in files named as those of HLS (Fmask), FORCE (QAI), MAJA (MG2) and Earth Engine (QA60).
        nodata: Digital number of pixels without data; None takes what the scene states.
    """

    bands: BandNumbers | None = None
    scale: float | None = None
    offset: float | None = None
    warp: bool = True
    allow_no_crs: bool = False
    area: Area | None = None
    mask: str | Path | None = None
    mask_classes: Collection[int] | None = None
    mask_bits: Collection[int] | None = None
    nodata: float | None = None

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            UsageError: A value is out of range or of the wrong type.
        """
        for name, value in (("scale", self.scale), ("offset", self.offset), ("nodata", self.nodata)):
            check_type(name, value, "float | None")
        if self.bands is not None:
            object.__setattr__(self, "bands", check_bands(self.bands))
        if self.scale is not None and not 0 < self.scale < math.inf:
            raise UsageError(
                f"`scale` is {self.scale:g} but must be above 0, such as 10000", page="how-to/reflectance/"
            )
        if self.offset is not None and not math.isfinite(self.offset):
            raise UsageError(
                f"`offset` is {self.offset:g} but must be finite, such as -1000", page="how-to/reflectance/"
            )
        if self.mask_classes is not None:
            object.__setattr__(self, "mask_classes", _checked_classes(self.mask_classes))
        if self.mask_bits is not None:
            object.__setattr__(self, "mask_bits", _checked_bits(self.mask_bits))
            if self.mask_classes is not None:
                raise UsageError("`mask_bits` and `mask_classes` exclude each other; use one of them")

    @property
    def mask_file(self) -> str | None:
        """Path of the mask, if it is a separate raster."""
        return None if self.mask in (None, "scl") else str(self.mask)


def _checked_classes(classes: Collection[int] | str) -> tuple[int, ...]:
    """Values of a mask in rising order.

    Raises:
        UsageError: They are not whole numbers, or there are none.
    """
    values = [] if isinstance(classes, str) or not isinstance(classes, Iterable) else list(classes)
    if not values or not all(isinstance(value, Integral) for value in values):
        raise UsageError(f"`mask_classes` is {classes!r} but must be numbers, such as `mask_classes=(3, 8, 9, 10)`")
    return tuple(sorted(map(int, values)))


def _checked_bits(bits: Collection[int] | str) -> tuple[int, ...]:
    """Bits of a mask in rising order.

    Raises:
        UsageError: They are not whole numbers from 0 to 31, or there are none.
    """
    values: list[object] = [] if isinstance(bits, str) or not isinstance(bits, Iterable) else list(bits)
    whole = [int(value) for value in values if isinstance(value, int | np.integer)]
    if not whole or len(whole) < len(values) or min(whole) < 0 or max(whole) > LAST_BIT:
        raise UsageError(
            f"`mask_bits` is {bits!r} but must be numbers from 0 to {LAST_BIT}, such as `mask_bits=(1, 3)`"
        )
    return tuple(sorted(whole))
