"""Converts digital numbers to reflectance, the common unit of patches, scenes and models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Scaling:
    """``reflectance = (DN + offset) / scale``, the form of Sentinel-2's own metadata.

    Attributes:
        scale: Digital numbers per unit of reflectance (Sentinel-2's quantification value), > 0.
        offset: Added to every digital number first (Sentinel-2's ``BOA_ADD_OFFSET``), in digital numbers.
    """

    scale: float
    offset: float = 0.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.scale) and np.isfinite(self.offset) and self.scale > 0):
            raise ValueError(f"scale must be finite and above 0 and offset finite, got {self.scale} and {self.offset}")

    def to_reflectance(self, dn: NDArray[np.generic], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Reflectance (float32, nominally 0..1) of digital numbers of any shape and dtype, into `out` if given."""
        result: NDArray[np.float32] = np.add(dn, np.float32(self.offset), out=out, dtype=np.float32, casting="unsafe")
        result *= np.float32(1 / self.scale)
        return result

    @classmethod
    def from_gdal(cls, scale: float, offset: float) -> Scaling:
        """Scaling from GDAL's band metadata, where ``reflectance = DN * scale + offset``."""
        return cls(scale=1 / scale, offset=offset / scale)


SENTINEL2 = Scaling(scale=10_000)
"""Sentinel-2 L1C and L2A before processing baseline 04.00, or after its offset was removed."""

EUROSAT_RGB = Scaling(scale=254 / 0.275, offset=-1)
"""EuroSAT's 8-bit JPEGs: DN 0..2750 was stretched to 1..255 and clipped."""
