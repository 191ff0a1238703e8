"""Shell completion of option values.

The names are repeated here because the modules that define them import torch, which takes seconds; a test compares
both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

BACKBONES = ("resnet18", "resnet34", "resnet50", "lite0")
BACKENDS = ("auto", "openvino", "onnx", "torch")
BANDS = ("rgb", "all")
CATALOGS = ("earth-search", "planetary-computer", "copernicus")
CLASS_ORDERS = ("legend", "reversed", "random")
ALLOCATIONS = ("proportional", "equal", "neyman", "rare:30")
DESIGNS = ("stratified", "simple", "systematic")
DEVICES = ("auto", "cpu", "cuda", "mps")
EXPORT_FORMATS = ("onnx", "torchscript", "openvino", "deepness", "stac-mlm")
IMBALANCES = ("none", "long-tail:50", "step:50")
OVERLAPS = ("refuse", "share")
LOSSES = ("ce", "weighted-ce", "focal", "class-focal", "cb-focal", "balanced-softmax", "logit-adjusted", "ldam")
CFL_FORMS = ("exponent", "factor")
SUBSETS = ("test", "validation", "train")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
PRODUCT_NAMES = (
    "default", "all", "lulc", "confidence", "vector", "windows", "probabilities", "entropy", "novelty", "valid", "sets",
    "features", "zarr", "sld", "truecolor", "project", "preview", "report", "stac", "summary",
)  # fmt: skip
RECIPES = ("default", "paper")
SPLITS = ("paper", "spatial", "manifest", "random:0.8")
VECTOR_FORMATS = ("gpkg", "geoparquet", "flatgeobuf", "geojson", "none")
WEIGHTS = ("imagenet", "none", "SENTINEL2_RGB_MOCO", "SENTINEL2_ALL_MOCO", "SENTINEL2_RGB_SECO")

Complete = Callable[[str], list[str]]


def one_of(names: Iterable[str]) -> Complete:
    """Completes a name."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return complete


def some_of(names: Iterable[str]) -> Complete:
    """Completes the last of several names separated by commas, without the names before it."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [before + comma + name for name in names if name.startswith(last) and name not in before.split(",")]

    return complete


def a_model(incomplete: str) -> list[str]:
    """Completes the name of a built-in model; if none matches, the shell completes a path."""
    from geocfl.models.bundle import bundled_models

    return [name for name in bundled_models() if name.startswith(incomplete)]
