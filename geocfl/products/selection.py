"""Which products a map has, and which files each product consists of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from types import MappingProxyType

from geocfl.errors import UsageError, unknown_name
from geocfl.products.formats.vector_formats import VECTOR_FORMATS, check_vector_format

PRODUCTS: dict[str, tuple[str, ...]] = {
    "lulc": ("lulc", "attributes", "lulc_style"),
    "confidence": ("confidence", "confidence_style"),
    "vector": (),  # by format
    "windows": ("gpkg",),
    "probabilities": ("probabilities",),
    "entropy": ("entropy", "entropy_style"),
    "novelty": ("novelty", "novelty_style"),
    "valid": ("valid", "valid_style"),
    "sets": ("sets", "sets_style"),
    "features": ("features",),
    "zarr": ("zarr",),
    "sld": ("lulc_sld", "polygons_sld"),
    "truecolor": ("truecolor",),
    "project": ("project", "truecolor"),
    "preview": ("preview",),
    "report": ("report",),
    "stac": ("stac",),
    "summary": ("summary",),
}
"""Name of a product to its files, as `geocfl.products.files.FILES` names them."""
OTHER_NAMES = {
    "qgis": "project",
    "qgz": "project",
    "html": "report",
    "polygons": "vector",
    "gpkg": "vector",
    "png": "preview",
    "cube": "zarr",
    "xarray": "zarr",
}
"""What users may call a product, to what it is called here."""
ON_REQUEST = {"features", "zarr"}
"""Products that ``"all"`` leaves out: features are large, and a cube repeats other products."""
DEFAULT = ("lulc", "confidence", "vector", "preview", "summary")
VECTOR_FILES = {
    "gpkg": ("gpkg",),
    "geoparquet": ("geoparquet",),
    "flatgeobuf": ("flatgeobuf", "polygons_style"),
    "geojson": ("geojson", "polygons_style"),
}


@dataclass(frozen=True)
class Selection:
    """What to write.

    Attributes:
        products: Names of `PRODUCTS`.
        vector: Formats of the polygons, of `geocfl.products.formats.vector_formats.VECTOR_FORMATS`; none if ``vector``
            is not among the products.
    """

    products: frozenset[str]
    vector: tuple[str, ...]

    @classmethod
    def of(
        cls,
        products: Sequence[str] = ("default",),
        vector: Sequence[str] = (),
        missing: Mapping[str, str] = MappingProxyType({}),
    ) -> Selection:
        """Checks the names of products and formats.

        Args:
            products: Names of `PRODUCTS`; ``"default"`` and ``"all"``, which leaves out `ON_REQUEST`, stand for
                several. The summary is always among them, because it marks a map as finished.
            vector: Formats of the polygons; empty for none.
            missing: Products that cannot be made, each with the reason; ``"all"`` leaves them out.

        Raises:
            UsageError: A name is unknown, a product cannot be made, or a format cannot be written here.
        """
        products, vector = check_names("products", products), check_names("vector", vector)
        chosen, known = {"summary"}, (*PRODUCTS, "default", "all")
        for name in products:
            if name not in known:
                raise UsageError(_unknown(name, known), page="how-to/products/")
            if name in missing:
                raise UsageError(f"`products` asks for {name}, but {missing[name]}", page="how-to/products/")
            every = set(PRODUCTS).difference(missing, ON_REQUEST)
            chosen |= set(DEFAULT if name == "default" else every if name == "all" else [name])
        if "features" in chosen and not find_spec("pyarrow"):
            raise UsageError(
                "features in `products` need pyarrow; run: pip install pyarrow, or leave them out",
                page="how-to/features/",
            )
        if "zarr" in chosen and not find_spec("zarr"):
            raise UsageError(
                "`products` asks for zarr, which needs the package zarr; run: pip install zarr, or leave it out",
                page="how-to/xarray/",
            )
        wanted = vector if "vector" in chosen else ()
        for format in wanted:
            check_vector_format(format)
        return cls(frozenset(chosen), tuple(format for format in VECTOR_FORMATS if format in wanted))

    @property
    def detail(self) -> bool:
        """Whether the entropy and the probabilities of all classes are needed."""
        return not self.products.isdisjoint({"windows", "probabilities", "entropy"})

    @property
    def features(self) -> bool:
        """Whether the features of the cells are needed."""
        return "features" in self.products

    @property
    def truecolor(self) -> bool:
        """Whether the scene's picture is needed in detail."""
        return not self.products.isdisjoint({"truecolor", "project", "report"})

    @property
    def files(self) -> frozenset[str]:
        """Names of the files, of `geocfl.products.files.FILES`."""
        names = {file for product in self.products for file in PRODUCTS[product]}
        return frozenset(names.union(*(VECTOR_FILES[format] for format in self.vector)))


def check_names(parameter: str, names: Sequence[str]) -> tuple[str, ...]:
    """The names in a sequence.

    Args:
        parameter: The parameter, for messages.
        names: Its value.

    Raises:
        UsageError: It is not a sequence of texts.
    """
    if isinstance(names, str):
        raise UsageError(f"`{parameter}` is the text {names!r} but must be a sequence, such as ({names!r},)")
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise UsageError(f"`{parameter}` is {names!r} but must be a sequence of names")
    return tuple(names)


def _unknown(name: str, known: Sequence[str]) -> str:
    if meant := OTHER_NAMES.get(name.lower()):
        return f"`products`: unknown product {name!r}; did you mean {meant!r}? choose from: {', '.join(known)}"
    return f"`products`: {unknown_name('product', name, known)}"
