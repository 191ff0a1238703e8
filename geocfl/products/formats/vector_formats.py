"""Names of the vector formats and their layers, and whether a format can be written here."""

from __future__ import annotations

from importlib.util import find_spec

from geocfl.errors import UsageError, unknown_name

VECTOR_FORMATS = ("gpkg", "geoparquet", "flatgeobuf", "geojson")
POLYGONS, WINDOWS = "lulc", "windows"
"""Layers of a GeoPackage."""
GEOMETRY = "geom"
"""Name of the geometry column."""


def check_vector_format(name: str) -> None:
    """Refuses a format that is unknown, or that cannot be written here.

    Raises:
        UsageError: The format is unknown, or needs a package that is not installed.
    """
    if name not in VECTOR_FORMATS:
        raise UsageError(f"`vector`: {unknown_name('vector format', name, VECTOR_FORMATS)}", page="how-to/products/")
    if name == "geoparquet" and not find_spec("pyarrow"):
        raise UsageError(
            "geoparquet in `vector` needs pyarrow; run: pip install pyarrow, or choose another format",
            page="how-to/products/",
        )
