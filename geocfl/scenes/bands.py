"""Names of Sentinel-2 bands, as files spell them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from numbers import Integral

from geocfl.errors import SceneError, UsageError, unknown_name

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
BandNumbers = Mapping[str, int] | Sequence[str]
"""Which band of a raster is which: name to number from 1, or the names in the raster's order."""
FINE_BANDS = ("B02", "B03", "B04", "B08")
"""Those that Sentinel-2 takes in pixels of 10 m."""
COLORS = {"red": "B04", "green": "B03", "blue": "B02", "nir": "B08"}
ORDERS = {
    3: ("B04", "B03", "B02"),
    4: ("B02", "B03", "B04", "B08"),
    10: ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"),
    12: ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"),
    13: ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12"),
}
"""What a raster without names usually holds, by its number of bands: true color; the 10 m bands; those of 10 and 20 m;
L2A; L1C in ESA's order."""
_NAME = re.compile(r"\bB(?:AND[ _-]?)?(8A|0?[1-9]|1[0-2])(?=\b|_)")


def band_name(description: str | None) -> str | None:
    """The band that a description names, such as ``"B4"``, ``"B04 (665 nm)"``, ``"Band 4"`` or ``"red"``; else None."""
    if not description:
        return None
    found = _NAME.findall(description.upper().replace("_", " "))
    if found:
        return f"B{found[0].zfill(2)}"
    return COLORS.get(description.strip().lower())


def find_bands(
    path: str, descriptions: Sequence[str | None], colors: Sequence[str], chosen: BandNumbers | None = None
) -> tuple[dict[str, int], str]:
    """Which band of a file holds which Sentinel-2 band.

    The user's choice comes first, then the bands' descriptions, then their color interpretation, then the common order
    of that number of bands.

    Args:
        path: The file, for messages.
        descriptions: GDAL's description of each band.
        colors: GDAL's color interpretation of each band, such as ``"red"``.
        chosen: The user's choice.

    Returns:
        Band name to number in the file, from 1, and a sentence about what was assumed, which may be empty. No band is
        found if nothing names one.

    Raises:
        UsageError: `chosen` is invalid.
        SceneError: `chosen` names a number that the file does not have, or two bands have the same name.
    """
    if chosen:
        return _chosen(path, chosen, len(descriptions)), ""
    for labels in (descriptions, colors):
        names = [band_name(label) for label in labels]
        found = {name: index for index, name in enumerate(names, start=1) if name}
        if len(found) < sum(name is not None for name in names):
            twice = next(name for name in found if names.count(name) > 1)
            raise SceneError(f"{path}: two of its bands are named {twice}; choose one of them with `bands`")
        if found:
            return found, ""
    order = ORDERS.get(len(descriptions), ())
    note = (
        f"{path}: its {len(order)} bands have no names and are assumed to be {', '.join(order)}; `bands` overrides it"
    )
    return {name: index for index, name in enumerate(order, start=1)}, note if order else ""


def check_bands(chosen: BandNumbers) -> BandNumbers:
    """The user's choice with plain numbers, as JSON takes it.

    Raises:
        UsageError: It is neither names in order nor a mapping of names to numbers.
    """
    names = list(chosen) if isinstance(chosen, Sequence | Mapping) and not isinstance(chosen, str) else [None]
    numbers = list(chosen.values()) if isinstance(chosen, Mapping) else []
    if not all(isinstance(name, str) for name in names) or not all(isinstance(n, Integral) for n in numbers):
        raise UsageError(
            f"`bands` is {chosen!r} but must be names in the raster's order, such as ('B04', 'B03', 'B02'), or map "
            "names to numbers, such as {'B04': 3}"
        )
    return dict(zip(chosen, map(int, numbers), strict=True)) if isinstance(chosen, Mapping) else tuple(chosen)


def _chosen(path: str, chosen: BandNumbers, count: int) -> dict[str, int]:
    chosen = check_bands(chosen)
    numbers = chosen if isinstance(chosen, Mapping) else {name: index for index, name in enumerate(chosen, start=1)}
    found = {}
    for name, number in numbers.items():
        band = band_name(name)
        if band is None:
            raise UsageError(f"`bands`: {unknown_name('band', name, BANDS)}")
        if not 1 <= number <= count:
            raise SceneError(f"{path}: has no band {number} for {band}, only {count}; correct `bands`")
        if band in found:
            raise UsageError(f"`bands` names {band} twice; leave one of them out")
        found[band] = number
    return found
