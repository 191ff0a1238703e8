"""Which products a map is to have, and the files that they come in."""

from __future__ import annotations

from dataclasses import dataclass

from geocfl.errors import UsageError, unknown_name
from geocfl.products.formats.vector import VECTOR_FORMATS, check_vector_format

PRODUCTS: dict[str, tuple[str, ...]] = {
    "lulc": ("lulc", "attributes", "lulc_style"),
    "confidence": ("confidence", "confidence_style"),
    "vector": (),  # by format
    "windows": ("gpkg",),
    "probabilities": ("probabilities",),
    "entropy": ("entropy", "entropy_style"),
    "sld": ("lulc_sld", "polygons_sld"),
    "truecolor": ("truecolor",),
    "project": ("project", "truecolor"),
    "preview": ("preview",),
    "report": ("report",),
    "stac": ("stac",),
    "summary": ("summary",),
}
"""Product, as ``--products`` names it, to its files, as `geocfl.products.files.FILES` names them."""
DEFAULT = ("lulc", "confidence", "vector", "preview", "summary")
VECTOR_FILES = {
    "gpkg": ("gpkg",),
    "geoparquet": ("geoparquet",),
    "flatgeobuf": ("flatgeobuf", "polygons_style"),
    "geojson": ("geojson", "polygons_style"),
}


@dataclass(frozen=True)
class Selection:
    """What is to be written.

    Attributes:
        products: Names of `PRODUCTS`.
        vector: Formats of the polygons, of `geocfl.products.formats.vector.VECTOR_FORMATS`; none where ``vector`` is
            not among the products.
    """

    products: frozenset[str]
    vector: tuple[str, ...]

    @classmethod
    def of(cls, products: str, vector: str) -> Selection:
        """Reads the options ``--products`` and ``--vector``.

        Args:
            products: Names separated by commas; ``default`` and ``all`` stand for several. The summary is always among
                them: it is what tells a finished map.
            vector: Formats separated by commas, or ``none``.

        Raises:
            UsageError: A name is unknown, or a format cannot be written here.
        """
        chosen = {"summary"}
        for name in _names(products):
            if name not in (*PRODUCTS, "default", "all"):
                raise UsageError(unknown_name("product", name, (*PRODUCTS, "default", "all")), page="how-to/products/")
            chosen |= set(DEFAULT if name == "default" else PRODUCTS if name == "all" else [name])
        formats = _names(vector)
        if "none" in formats and len(formats) > 1:
            raise UsageError("--vector none stands alone; leave it out, or the formats beside it")
        wanted = [] if "none" in formats or "vector" not in chosen else formats
        for format in wanted:
            check_vector_format(format)
        return cls(frozenset(chosen), tuple(format for format in VECTOR_FORMATS if format in wanted))

    @property
    def detail(self) -> bool:
        """Whether entropies and probabilities of all classes are needed."""
        return not self.products.isdisjoint({"windows", "probabilities", "entropy"})

    @property
    def truecolor(self) -> bool:
        """Whether the scene's picture is wanted in detail."""
        return not self.products.isdisjoint({"truecolor", "project", "report"})

    @property
    def files(self) -> frozenset[str]:
        """Names of the files, of `geocfl.products.files.FILES`."""
        names = {file for product in self.products for file in PRODUCTS[product]}
        return frozenset(names.union(*(VECTOR_FILES[format] for format in self.vector)))


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
