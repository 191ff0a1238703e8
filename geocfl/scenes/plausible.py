"""Whether the numbers of a scene can be reflectance, and which scale makes them so."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geocfl.errors import SceneError
from geocfl.scenes.source import file_name

BRIGHTEST = 2.0
"""Reflectance that at most 1 % of a scene exceeds. Snow and clouds reach 1.0 to 1.5."""
BRIGHT = 1.2
"""Reflectance that at least half of a scene stays below, also over snow and clouds."""
LOWEST = -0.5
"""Reflectance that no pixel with data is below. Atmospheric correction makes it negative by 0.1 at most; what is lower
is a nodata value, such as -9999 or, after a conversion to reflectance, -0.9999."""
DARKEST = 0.0255
"""Reflectance that 0.1 % of a scene exceeds in some band; clear water does in blue. 255 stays below it as a digital
number of `DEFAULT`, so that numbers of 8 bits and percent are found."""
SIXTEEN_BIT = 65_535
EIGHT_BIT = 255
"""Copernicus Browser writes reflectance 0..1 to the whole range of these types in its raw bands."""
DEFAULT = 10_000
"""Digital numbers per unit of reflectance in Sentinel-2's products."""
FEW = 12
"""Fewer distinct values say nothing of what they are."""
COMB_VALUES = 200
"""Distinct values needed to see that they are multiples of `SIXTEEN_BIT` / `DEFAULT`."""

_RAW = re.compile(r"SENTINEL-2.*[(_ -]RAW[)_ .-]", re.IGNORECASE)
_RAW_SCALES = {"uint8": EIGHT_BIT, "uint16": SIXTEEN_BIT, "float32": 1, "float64": 1}
_PAGE = "how-to/reflectance/#numbers-of-other-programs"


@dataclass(frozen=True)
class Found:
    """A scale that is certain, and why, in words that follow "its"."""

    scale: float
    why: str


def raw_scale(files: Iterable[str], dtype: str) -> Found | None:
    """The scale of the raw bands that Copernicus Browser writes, told by their names; None for other files."""
    scale = _RAW_SCALES.get(dtype)
    if scale is None or not all(_RAW.search(file_name(file)) for file in files):
        return None
    bits = {EIGHT_BIT: "8", SIXTEEN_BIT: "16", 1: "32"}[scale]
    return Found(scale, f"names are those of Copernicus Browser's raw bands in {bits} bit")


def find_scale(path: str, numbers: NDArray[np.float32], dtype: str, stated: float | None) -> Found | None:
    """The scale of numbers, according to themselves.

    Args:
        path: The scene, for messages.
        numbers: (B, n) sample of the numbers of some bands as the file has them; NaN is no data.
        dtype: Their type in the file.
        stated: Digital numbers per unit of reflectance that metadata states; None if nothing does.

    Returns:
        The scale; None if the stated one, or else Sentinel-2's, is plausible.

    Raises:
        SceneError: They cannot be reflectance with that scale, and no other one is certain.
    """
    known = _known(numbers)
    if not known:
        return None
    scale, high = stated or DEFAULT, _high(known, 99)
    values = f"values of up to {high:.4g}"
    if np.issubdtype(np.dtype(dtype), np.floating):
        whole = all(bool((band == np.round(band)).all()) for band in known)
        if high <= BRIGHTEST and _high(known, 50) <= BRIGHT and not whole:
            return None if scale == 1 else Found(1, f"{values} are reflectance itself")
    elif stated is None and _is_comb(np.concatenate(known)):
        return Found(SIXTEEN_BIT, f"values are multiples of {SIXTEEN_BIT}/{DEFAULT}")
    with_scale = f"the scale {scale:g} that its metadata states" if stated else f"the usual scale of {DEFAULT}"
    if is_dark(numbers, stated):
        raise SceneError(
            f"{path}: its {values} are reflectance below {high / scale:.2g} with {with_scale}, darker than land; use "
            f"`scale`: 100 if they are percent, {EIGHT_BIT} if they are reflectance x {EIGHT_BIT}, 1 if they are "
            f"reflectance itself, {scale:g} if all of it is dark water",
            page=_PAGE,
        )
    if high > BRIGHTEST * scale:
        raise SceneError(
            f"{path}: its {values} are reflectance {high / scale:.2g} with {with_scale}, brighter than any surface; "
            f"use `scale`, such as `scale={SIXTEEN_BIT}` if they are reflectance x {SIXTEEN_BIT}, or bands of "
            "reflectance",
            page=_PAGE,
        )
    return None


def is_dark(numbers: NDArray[np.float32], stated: float | None) -> bool:
    """Whether these bands, with the stated scale or Sentinel-2's, are darker than those of any land.

    Args:
        numbers: As for `find_scale`.
        stated: As for `find_scale`.
    """
    known = _known(numbers)
    if not known or _high(known, 99.9) > DARKEST * (stated or DEFAULT):
        return False
    return np.unique(np.concatenate(known)).size >= FEW  # sorting is slow, and few scenes are dark


def _known(numbers: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Numbers of each band that can be reflectance.

    Negative numbers, 0 and the largest one are often undeclared nodata values, and rarely anything else.
    """
    bands = [band[(band > 0) & (band != SIXTEEN_BIT)] for band in numbers]
    return [band for band in bands if band.size]


def _high(known: list[NDArray[np.float32]], share: float) -> float:
    """The highest percentile of all bands."""
    return max(float(np.percentile(band, share)) for band in known)


def _is_comb(numbers: NDArray[np.float32]) -> bool:
    """Whether whole numbers are multiples of 1/10000 of reflectance, stretched to 16 bits and rounded or cut off."""
    if numbers.max() > SIXTEEN_BIT:
        return False
    occurs = np.zeros(SIXTEEN_BIT + 1, bool)
    occurs[numbers.astype(np.intp)] = True  # much faster than sorting
    distinct = np.flatnonzero(occurs).astype(np.float64)
    if distinct.size < COMB_VALUES:
        return False
    step = SIXTEEN_BIT / DEFAULT
    below, near = np.floor(np.ceil(distinct / step) * step), np.round(np.round(distinct / step) * step)
    return bool(((below == distinct) | (near == distinct)).mean() > 0.999)
