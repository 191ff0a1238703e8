"""A model for a catalog: a bundle as a STAC Item with the machine learning model (MLM) extension."""

from __future__ import annotations

import hashlib
import math
import re
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pystac
import shapely
from pystac.extensions.classification import Classification, ClassificationExtension
from pystac.extensions.file import FileExtension
from safetensors import SafetensorError, safe_open

from geocfl.core.legend import Legend
from geocfl.errors import ModelError
from geocfl.models.bundle import FACTS, GRAPH, NOVELTY, WEIGHTS, Bundle
from geocfl.products.formats.stac import class_names, relative_href, to_text
from geocfl.scenes.acquisition import LAUNCH

MLM = "https://stac-extensions.github.io/mlm/v1.4.0/schema.json"
"""pystac's class for it, as of 1.15, writes a scaling that the schema rejects."""
WEIGHTS_MEDIA = "application/octet-stream; framework=pytorch"
GRAPH_MEDIA = "application/octet-stream; framework=onnx"
TASK = "scene-classification"
ARCHITECTURES = {
    "resnet18": "ResNet-18",
    "resnet34": "ResNet-34",
    "resnet50": "ResNet-50",
    "lite0": "EfficientNet-Lite0",
}
SOURCES = {"imagenet": "ImageNet"}
TRAINING = ("split", "seed", "imbalance", "loss", "gamma", "recipe", "freeze", "epochs")
"""Keys of a bundle's origin that are hyperparameters."""
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
"""Tensors of batch normalization that are statistics, not parameters."""
EUROSAT_BOX = (-10.0, 34.0, 34.0, 64.0)
"""Approximate extent of EuroSAT's patches: west, south, east and north in degrees. A sample of 200 lies
between 8.5 west and 32.8 east, 35.1 and 63.1 north."""
EUROSAT_END = datetime(2017, 8, 31, tzinfo=UTC)
"""Publication of EuroSAT's paper: Helber et al., arXiv:1709.00029."""
OPEN_END = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
_VERSION = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}(\+[0-9A-Za-z]+)?")


def item_files(bundle: Bundle, item: Path) -> list[Path]:
    """The files of a model's Item. Together they can be moved or published.

    Args:
        bundle: The model.
        item: Path of the Item, which ends in ``.stac.json``.

    Returns:
        The Item, and copies of the bundle's files in a folder beside it. There are no copies if the bundle lies in or
        below the Item's folder already.
    """
    folder = item.parent / _place(bundle, item)
    own = folder.exists() and folder.samefile(bundle.folder)
    if own:
        return [item]
    graph = [folder / GRAPH] if (bundle.folder / GRAPH).is_file() else []
    return [item, folder / FACTS, folder / WEIGHTS, *graph]


def write_model_item(bundle: Bundle, path: Path, folder: Path) -> None:
    """Writes a STAC Item that describes a model, its input and its output, and copies of the bundle's files.

    Geometry and times are those of the training data, as the extension defines: EuroSAT's if the bundle names it, else
    no geometry and the whole Sentinel-2 era. The parameters are counted from the header of the weights file.

    Args:
        bundle: The model.
        path: JSON file to write.
        folder: Folder to which the Item and the copies will be moved; see `item_files`.

    Raises:
        ModelError: The weights cannot be read.

    Source: the MLM extension 1.4, https://github.com/stac-extensions/mlm.
    """
    place = _place(bundle, folder / path.name)
    eurosat = "eurosat" in str(bundle.origin.get("data", "")).lower()
    box = shapely.box(*EUROSAT_BOX) if eurosat else None
    item = pystac.Item(
        id=bundle.name,
        geometry=shapely.geometry.mapping(box) if box else None,
        bbox=list(EUROSAT_BOX) if box else None,
        datetime=None,
        start_datetime=LAUNCH,
        end_datetime=EUROSAT_END if eurosat else OPEN_END,
        properties={
            "title": f"{bundle.name}: land use / land cover of Sentinel-2 windows",
            "constellation": "sentinel-2",
            "instruments": ["msi"],
            "gsd": bundle.gsd,
            "bands": [{"name": band, "description": f"Reflectance of {band}, 0 to 1"} for band in bundle.bands],
            **_license(bundle),
            **_mlm_fields(bundle),
        },
        stac_extensions=[MLM, ClassificationExtension.get_schema_uri()],
    )
    _add_file(item, "model", bundle, WEIGHTS, place, WEIGHTS_MEDIA, ["mlm:model", "mlm:weights"])
    item.assets["model"].extra_fields |= {
        "mlm:artifact_type": "safetensors.torch.save",
        "bands": [{"name": band} for band in bundle.bands],  # required by those in the properties
    }
    _add_file(item, "description", bundle, FACTS, place, pystac.MediaType.JSON, ["metadata"])
    if (bundle.folder / GRAPH).is_file():
        _add_file(item, "graph", bundle, GRAPH, place, GRAPH_MEDIA, ["mlm:compiled"])
        item.assets["graph"].description = f"From reflectance to calibrated probabilities; reads {WEIGHTS} beside it."
    path.write_text(to_text(item), encoding="utf-8", newline="\n")
    for copy in item_files(bundle, folder / path.name)[1:]:
        (path.parent / place).mkdir(exist_ok=True)
        shutil.copyfile(bundle.folder / copy.name, path.parent / place / copy.name)


def _place(bundle: Bundle, item: Path) -> Path:
    """The folder of the bundle's files or of their copies, relative to the Item's."""
    files, folder = bundle.folder.resolve(), item.parent.resolve()
    if files.is_relative_to(folder):
        return files.relative_to(folder)
    return Path(item.name.removesuffix(".stac.json"))


def _add_file(
    item: pystac.Item, key: str, bundle: Bundle, name: str, place: Path, media_type: str, roles: list[str]
) -> None:
    """Adds a file of the bundle with its size and checksum."""
    content = (bundle.folder / name).read_bytes()
    asset = pystac.Asset(relative_href((place / name).as_posix()), name, media_type=media_type, roles=roles)
    item.add_asset(key, asset)
    checksum = "1220" + hashlib.sha256(content).hexdigest()  # a multihash: SHA-256, 32 bytes
    FileExtension.ext(asset, add_if_missing=True).apply(checksum=checksum, size=len(content))


def _mlm_fields(bundle: Bundle) -> dict[str, Any]:
    weights = str(bundle.origin.get("weights") or "none")
    fields = {
        "mlm:name": _name(bundle.name),
        "mlm:architecture": ARCHITECTURES.get(bundle.backbone, bundle.backbone),
        "mlm:tasks": [TASK],
        "mlm:framework": "PyTorch",
        "mlm:total_parameters": _parameters(bundle),
        "mlm:pretrained": weights != "none",
        "mlm:pretrained_source": None if weights == "none" else SOURCES.get(weights, Path(weights).name),
        "mlm:accelerator": None,
        "mlm:input": [_input(bundle)],
        "mlm:output": [_output(bundle)],
        "mlm:hyperparameters": _hyperparameters(bundle),
    }
    versions = bundle.origin.get("versions")
    version = str(versions.get("torch", "")) if isinstance(versions, Mapping) else ""
    return fields | ({"mlm:framework_version": version} if _VERSION.fullmatch(version) else {})


def _input(bundle: Bundle) -> dict[str, Any]:
    """From reflectance to the network's input. Clipping is a step of each band, since only one scaling is allowed."""
    low, high = bundle.clip
    side = bundle.input_size * bundle.footprint // bundle.window
    resized = bundle.input_size != bundle.window
    around = f", with {bundle.context} pixels around them that mirror them," if bundle.context else ","
    return {
        "name": "reflectance",
        "description": (
            f"Windows of {bundle.window} x {bundle.window} pixels of {bundle.gsd:g} m{around} in reflectance, 0 to 1: "
            "(DN + offset) / scale. Pixels without data get the band's mean; then values are clipped, standardized"
            + (f" and scaled to {side} x {side}, bilinearly." if resized else ".")
        ),
        "bands": [
            {"name": b, "format": "gdal-calc", "expression": f"clip(A, {low!r}, {high!r})"} for b in bundle.bands
        ],
        "input": {
            "shape": [-1, len(bundle.bands), side, side],
            "dim_order": ["batch", "channel", "height", "width"],
            "data_type": "float32",
        },
        "value_scaling": [
            {"type": "z-score", "mean": mean, "stddev": std} for mean, std in zip(bundle.mean, bundle.std, strict=True)
        ],
        "resize_type": "interpolation-linear" if resized else None,
        "pre_processing_function": None,
    }


def _output(bundle: Bundle) -> dict[str, Any]:
    return {
        "name": "logits",
        "description": (
            f"Logits; softmax(logits / {bundle.temperature!r}) is calibrated probability. A class's value is its "
            "index; its raster code in maps is one more."
        ),
        "tasks": [TASK],
        "result": {"shape": [-1, len(bundle.legend)], "dim_order": ["batch", "class"], "data_type": "float32"},
        "classification:classes": [c.to_dict() for c in _output_classes(bundle.legend)],
        "post_processing_function": None,
    }


def _output_classes(legend: Legend) -> list[Classification]:
    return [
        # No title: the MLM extension is older than the titles of the classification extension.
        Classification.create(c.code - 1, c.name, name, color_hint=c.color[1:].upper())
        for c, name in zip(legend, class_names(legend), strict=True)
    ]


def _hyperparameters(bundle: Bundle) -> dict[str, Any]:
    trained = {key: bundle.origin[key] for key in TRAINING if bundle.origin.get(key) is not None}
    return trained | {"window": bundle.window, "clip": list(bundle.clip), "temperature": bundle.temperature}


def _license(bundle: Bundle) -> dict[str, str]:
    """The license, if it looks like an SPDX identifier."""
    name = bundle.origin.get("license")
    return {"license": name} if isinstance(name, str) and re.fullmatch(r"[\w.+-]+", name) else {}


def _name(name: str) -> str:
    """A name that the extension allows: letters, digits, ``_``, ``.`` and ``-``, starting with a letter."""
    name = re.sub(r"[^a-zA-Z0-9_.-]+", "-", name).strip("_.-")
    return name if re.fullmatch(r"[a-zA-Z].{2,}", name) else f"geocfl-{name or 'model'}"


def _parameters(bundle: Bundle) -> int:
    """Number of parameters, from the header of the weights file."""
    file = bundle.folder / WEIGHTS
    try:
        with safe_open(file, "numpy") as tensors:
            names = [name for name in tensors.keys() if not name.endswith(BUFFERS)]  # noqa: SIM118, no dict
            learned = [name for name in names if not name.startswith(NOVELTY)]
            return sum(math.prod(tensors.get_slice(name).get_shape()) for name in learned)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file}: not readable weights; restore the file") from error
