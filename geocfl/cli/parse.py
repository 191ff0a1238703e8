"""Options that are written as text, such as ``--bbox 13.2,45.7,13.4,45.8``, as the values that the library takes."""

from __future__ import annotations

from geocfl.errors import UsageError


def names(text: str) -> tuple[str, ...]:
    """``"lulc, stac"`` as ``("lulc", "stac")``."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def vector_formats(text: str) -> tuple[str, ...]:
    """``"gpkg,geojson"`` as a tuple; ``"none"`` is the empty one.

    Raises:
        UsageError: There is a format beside ``none``.
    """
    formats = names(text)
    if "none" in formats and len(formats) > 1:
        raise UsageError("`vector` lists formats beside none; leave out none, or the formats")
    return () if formats == ("none",) else formats
