"""When a scene was taken and by what, according to its file's tags or name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

LAUNCH = datetime(2015, 6, 23, tzinfo=UTC)
"""Launch of Sentinel-2A, the first satellite; no scene is older."""
ABSURD = datetime(2100, 1, 1, tzinfo=UTC)
"""A number that would be a later date is something else."""
TAGS = ("SENSING_TIME", "DATATAKE_1_DATATAKE_SENSING_START", "PRODUCT_START_TIME", "ACQUISITIONDATETIME", "DATETIME")
"""Tags that hold the acquisition time, the most exact first: those of GDAL's Sentinel-2 driver and of its IMAGERY
domain, then a plain one. GENERATION_TIME is when a product was made, TIFFTAG_DATETIME when a file was made."""

_STAMP = r"(20\d\d)([-_.]?)(\d\d)\2(\d\d)(?:T?(\d\d)[-_:.]?(\d\d)[-_:.]?(\d\d))?(?!\d)"
_STAMPS = re.compile(r"(?<!\d)" + _STAMP, re.ASCII)
_NAMES = tuple(
    re.compile(before + _STAMP, re.ASCII)
    for before in (
        r"MSIL[12][ABC]_",  # S2A_MSIL2A_20190416T100031_N0211_R122_T33TUL_20190416T113410
        r"_V",  # S2A_OPER_PRD_MSIL1C_PDMC_20160605T113933_R065_V20160605T100031_20160605T100031, until 2016
        r"(?<![A-Z0-9])T\d\d[A-Z]{3}_(?:A\d{6}_)?",  # T33TUL_20190416T100031_B04, L1C_T33TUL_A019924_20190416T100031
        r"S2[A-D]_\d\d?[A-Z]{3}_",  # S2B_33TUL_20220601_0_L2A
    )
)
_SENTINEL2 = re.compile(r"SENTINEL[-_ ]?2|(?<![A-Z0-9])S2[A-D]?[-_ .]|(?<![A-Z0-9])T\d\d[A-Z]{3}_20\d{6}T", re.ASCII)
_MADE = re.compile(r"S2[A-D]_(?:OPER|USER)_")
"""Names of products from before 2016, whose plain dates are dates of processing."""


def find_datetime(name: str, tags: Mapping[str, str]) -> datetime | None:
    """When a scene was taken.

    Tags take precedence over the name. If a name holds several dates, the acquisition is the one that Sentinel-2's
    naming scheme says, else the earliest: a scene is taken before it is processed. A date without a time is midnight.

    Args:
        name: The scene's file name, such as ``"T33TUL_20190416T100031_B04_10m.jp2"``.
        tags: The dataset's tags.

    Returns:
        The time in UTC; None if neither says so. Dates before Sentinel-2A's launch or from 2100 on are ignored.
    """
    given = {key.upper(): value for key, value in tags.items()}
    said = (_parse(given[key]) for key in TAGS if key in given)
    named = (_stamp(found) for pattern in _NAMES for found in pattern.finditer(name.upper()))
    return next((when for times in (said, named) for when in times if when), None) or _earliest(name.upper())


def find_mission(name: str, level: str) -> str | None:
    """``"Sentinel-2"`` if a scene is said to be from there; None if it may be from elsewhere.

    Args:
        name: The scene's file name.
        level: ``"L1C"`` or ``"L2A"``, which are levels of Sentinel-2, or ``"unknown"``.
    """
    return "Sentinel-2" if level != "unknown" or _SENTINEL2.search(name.upper()) else None


def _earliest(name: str) -> datetime | None:
    """The earliest date of a name; on the same day, one with a time is preferred."""
    found = [] if _MADE.search(name) else list(_plausible(name))
    return min(found, key=lambda when: (when.date(), when.time() == datetime.min.time(), when), default=None)


def _plausible(name: str) -> Iterator[datetime]:
    for found in _STAMPS.finditer(name):
        if when := _stamp(found):
            yield when


def _stamp(found: re.Match[str]) -> datetime | None:
    year, _, month, day, *time = found.groups(default="0")
    hour, minute, second = map(int, time)
    try:
        return _checked(datetime(int(year), int(month), int(day), hour, minute, second, tzinfo=UTC))
    except ValueError:  # the 45th of a month, 25 o'clock
        return None


def _parse(text: str) -> datetime | None:
    """A tag's ISO 8601 date, assumed to be UTC if it has no time zone."""
    try:
        when = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return _checked(when if when.tzinfo else when.replace(tzinfo=UTC))


def _checked(when: datetime) -> datetime | None:
    return when.astimezone(UTC) if LAUNCH <= when < ABSURD else None
