"""The processing baseline of a scene, according to its name, tags and metadata."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePath

OFFSETS_SINCE = "04.00"
"""The first processing baseline whose digital numbers are 1000 higher."""
USERS_OWN = "99"
"""Baselines from this on are of products that users made themselves with Sen2Cor, such as 99.99; they mean nothing."""

_NAMED = re.compile(r"(?<![A-Z0-9])N(0\d)\.?(\d\d)(?![A-Z0-9])", re.ASCII)
_PRODUCT = re.compile(r"(?<![A-Z0-9])N(0\d)(\d\d)_R\d{3}(?![A-Z0-9])", re.ASCII)
_STATED = re.compile(r"N?(?:(\d\d?)(?:\.(\d\d?))?|(\d\d)(\d\d))", re.ASCII)


def find_baseline(path: str, tags: Mapping[str, str]) -> str:
    """The processing baseline that tags or, failing that, names state.

    Args:
        path: The scene's file or folder; the folders above it count too, the nearest first.
        tags: The dataset's tags, such as those of GDAL's Sentinel-2 driver or of Earth Engine's exports.

    Returns:
        Such as ``"04.00"``; empty if nothing states it.
    """
    names = (".".join(found) for part in reversed(PurePath(path).parts) for found in _NAMED.findall(part.upper()))
    return stated_baseline(tags) or next(names, "")


def stated_baseline(tags: Mapping[str, str]) -> str:
    """The processing baseline that a dataset's tags state, or the name of a product in them; empty if none does."""
    stated = (parse_baseline(value) for key, value in tags.items() if key.upper().endswith("PROCESSING_BASELINE"))
    products = (".".join(found) for value in tags.values() for found in _PRODUCT.findall(str(value).upper()))
    return next(filter(None, (*stated, *products)), "")


def named_in(texts: Iterable[str]) -> str:
    """The latest baseline that texts such as product names and metadata contain, as in ``_N0400_``; empty without."""
    return max((".".join(found) for text in texts for found in _NAMED.findall(text.upper())), default="")


def parse_baseline(value: object) -> str:
    """A stated baseline in ESA's form: ``"04.00"`` of ``"04.00"``, ``"4.0"``, ``4``, ``"N0400"`` or ``"0400"``."""
    found = _STATED.fullmatch(str(value).strip().upper())
    if not found:
        return ""
    major, minor = found[1] or found[3], found[2] or found[4] or ""
    return f"{major.zfill(2)}.{minor.ljust(2, '0')}"


def has_offset(baseline: str) -> bool:
    """Whether products of this baseline are delivered with digital numbers that are 1000 higher."""
    return OFFSETS_SINCE <= baseline < USERS_OWN
