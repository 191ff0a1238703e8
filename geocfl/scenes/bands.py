"""Names of Sentinel-2 bands, as files spell them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from geocfl.errors import SceneError, UsageError

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
COLORS = {"red": "B04", "green": "B03", "blue": "B02", "nir": "B08"}
ORDERS = {
    3: ("B04", "B03", "B02"),
    4: ("B02", "B03", "B04", "B08"),
    10: ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"),
    12: ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"),
    13: ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12"),
}
"""Number of bands to what they usually are: true colour; the 10 m bands; those of 10 and 20 m; L2A; L1C in ESA's order.
"""
_NAME = re.compile(r"\bB(?:AND[ _-]?)?(8A|0?[1-9]|1[0-2])(?=\b|_)")


def band_name(description: str | None) -> str | None:
    """The band that a description such as ``"B4"``, ``"B04 (665 nm)"``, ``"Band 4"`` or ``"red"`` names, if one."""
    if not description:
        return None
    found = _NAME.findall(description.upper().replace("_", " "))
    if found:
        return f"B{found[0].zfill(2)}"
    return COLORS.get(description.strip().lower())


def find_bands(
    path: str, descriptions: Sequence[str | None], colors: Sequence[str], chosen: str = ""
) -> tuple[dict[str, int], str]:
    """Which band of a file holds which Sentinel-2 band.

    Args:
        path: The file, for messages.
        descriptions: GDAL's description of each band.
        colors: GDAL's colour interpretation of each band, such as ``"red"``.
        chosen: ``"B04=3,B03=2,B02=1"``; counts before everything else. Empty for none.

    Returns:
        Band name to index in the file, from 1, and a sentence on what was assumed, empty where nothing was.
        Descriptions count before colour interpretation, and that before the common order of so many bands; no band is
        found where none of them says anything.

    Raises:
        UsageError: `chosen` is not of that form.
        SceneError: `chosen` names an index that the file does not have, or two bands have the same name.
    """
    if chosen:
        return _chosen(path, chosen, len(descriptions)), ""
    for labels in (descriptions, colors):
        names = [band_name(label) for label in labels]
        found = {name: index for index, name in enumerate(names, start=1) if name}
        if len(found) < sum(name is not None for name in names):
            twice = next(name for name in found if names.count(name) > 1)
            raise SceneError(f"{path}: has {twice} twice; say which to take, such as --bands {twice}={found[twice]}")
        if found:
            return found, ""
    order = ORDERS.get(len(descriptions), ())
    note = f"{path}: its {len(order)} bands have no names and are taken for {', '.join(order)}; --bands says otherwise"
    return {name: index for index, name in enumerate(order, start=1)}, note if order else ""


def _chosen(path: str, chosen: str, count: int) -> dict[str, int]:
    found = {}
    for part in chosen.split(","):
        name, _, index = part.strip().partition("=")
        band = band_name(name)
        if band is None or not index.strip().isdigit():
            raise UsageError(f"--bands {chosen!r} is not of the form B04=3,B03=2,B02=1")
        if not 1 <= int(index) <= count:
            raise SceneError(
                f"{path}: has {count} bands, so --bands {part.strip()} names none of them; correct the number"
            )
        found[band] = int(index)
    return found
