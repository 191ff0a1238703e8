"""A model for a catalogue: a bundle as a STAC Item with the machine learning model (MLM) extension."""

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
from geocfl.models.bundle import Model
from geocfl.products.formats.stac import class_names, relative_href, to_text
from geocfl.scenes.acquisition import LAUNCH

MLM = "https://stac-extensions.github.io/mlm/v1.4.0/schema.json"
"""pystac's class for it, as of 1.15, writes a scaling that the schema refuses."""
WEIGHTS, FACTS = "model.safetensors", "model.json"
WEIGHTS_MEDIA = "application/octet-stream; framework=pytorch"
TASK = "scene-classification"
ARCHITECTURES = {
    "resnet18": "ResNet-18",
    "resnet34": "ResNet-34",
    "resnet50": "ResNet-50",
    "lite0": "EfficientNet-Lite0",
}
SOURCES = {"imagenet": "ImageNet"}
TRAINING = ("split", "seed", "imbalance", "loss", "gamma", "recipe", "freeze", "epochs")
"""What of a model's origin are hyperparameters."""
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
"""Tensors of batch normalization that are statistics, not parameters."""
EUROSAT_BOX = (-10.0, 34.0, 34.0, 64.0)
"""About where EuroSAT's patches lie: west, south, east and north in degrees. Those of a sample of 200 lie between -8.5
and 32.8 east, 35.1 and 63.1 north."""
EUROSAT_END = datetime(2017, 8, 31, tzinfo=UTC)
"""EuroSAT's paper came out: Helber et al., arXiv:1709.00029."""
OPEN_END = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
_VERSION = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}(\+[0-9A-Za-z]+)?")


def item_files(model: Model, item: Path) -> list[Path]:
    """The files that a model's Item consists of: with what it names, it can be moved or published as it is.

    Args:
        model: From `geocfl.load_model`.
        item: Where the Item will lie, ending in ``.stac.json``.

    Returns:
        The Item, and copies of the bundle's files in a folder beside it, of its stem; no copies where the bundle lies
        in or below the Item's folder anyway.
    """
    folder = item.parent / _place(model, item)
    own = folder.exists() and folder.samefile(_bundle(model))
    return [item] if own else [item, folder / FACTS, folder / WEIGHTS]


def write_model_item(model: Model, path: Path, folder: Path) -> None:
    """Writes what a model is, reads and gives as a STAC Item, and the copies that go with it.

    Geometry and times are those of the training data, as the extension has it: EuroSAT's where the bundle names it,
    else no geometry and all of Sentinel-2's time. Parameters are counted by the weights' header.

    Args:
        model: From `geocfl.load_model`.
        path: JSON file to write.
        folder: Where it and the copies, see `item_files`, will be moved to.

    Raises:
        ModelError: The weights cannot be read.

    Source: the MLM extension 1.4, https://github.com/stac-extensions/mlm.
    """
    place = _place(model, folder / path.name)
    eurosat = "eurosat" in str(model.origin.get("data", "")).lower()
    box = shapely.box(*EUROSAT_BOX) if eurosat else None
    item = pystac.Item(
        id=model.name,
        geometry=shapely.geometry.mapping(box) if box else None,
        bbox=list(EUROSAT_BOX) if box else None,
        datetime=None,
        start_datetime=LAUNCH,
        end_datetime=EUROSAT_END if eurosat else OPEN_END,
        properties={
            "title": f"{model.name}: land use / land cover of Sentinel-2 windows",
            "constellation": "sentinel-2",
            "instruments": ["msi"],
            "gsd": model.gsd,
            "bands": [{"name": band, "description": f"Reflectance of {band}, 0 to 1"} for band in model.bands],
            **_licence(model),
            **_mlm_fields(model),
        },
        stac_extensions=[MLM, ClassificationExtension.get_schema_uri()],
    )
    _add_file(item, "model", model, WEIGHTS, place, WEIGHTS_MEDIA, ["mlm:model", "mlm:weights"])
    item.assets["model"].extra_fields |= {
        "mlm:artifact_type": "safetensors.torch.save",
        "bands": [{"name": band} for band in model.bands],  # without which those in the properties are not allowed
    }
    _add_file(item, "description", model, FACTS, place, pystac.MediaType.JSON, ["metadata"])
    path.write_text(to_text(item), encoding="utf-8", newline="\n")
    for copy in item_files(model, folder / path.name)[1:]:
        (path.parent / place).mkdir(exist_ok=True)
        shutil.copyfile(_bundle(model) / copy.name, path.parent / place / copy.name)


def _place(model: Model, item: Path) -> Path:
    """The folder of the bundle's files, or of their copies, as seen from an Item's."""
    bundle, folder = _bundle(model).resolve(), item.parent.resolve()
    if bundle.is_relative_to(folder):
        return bundle.relative_to(folder)
    return Path(item.name.removesuffix(".stac.json"))


def _add_file(
    item: pystac.Item, key: str, model: Model, name: str, place: Path, media_type: str, roles: list[str]
) -> None:
    """Adds a file of the bundle with its size and checksum."""
    content = (_bundle(model) / name).read_bytes()
    asset = pystac.Asset(relative_href((place / name).as_posix()), name, media_type=media_type, roles=roles)
    item.add_asset(key, asset)
    checksum = "1220" + hashlib.sha256(content).hexdigest()  # a multihash: SHA-256, 32 bytes
    FileExtension.ext(asset, add_if_missing=True).apply(checksum=checksum, size=len(content))


def _mlm_fields(model: Model) -> dict[str, Any]:
    weights = str(model.origin.get("weights") or "none")
    fields = {
        "mlm:name": _name(model.name),
        "mlm:architecture": ARCHITECTURES.get(model.backbone, model.backbone),
        "mlm:tasks": [TASK],
        "mlm:framework": "PyTorch",
        "mlm:total_parameters": _parameters(model),
        "mlm:pretrained": weights != "none",
        "mlm:pretrained_source": None if weights == "none" else SOURCES.get(weights, Path(weights).name),
        "mlm:accelerator": None,
        "mlm:input": [_input(model)],
        "mlm:output": [_output(model)],
        "mlm:hyperparameters": _hyperparameters(model),
    }
    versions = model.origin.get("versions")
    version = str(versions.get("torch", "")) if isinstance(versions, Mapping) else ""
    return fields | ({"mlm:framework_version": version} if _VERSION.fullmatch(version) else {})


def _input(model: Model) -> dict[str, Any]:
    """From reflectance to what the weights take; clipping is each band's own step, as a scaling can only be one."""
    low, high = model.clip
    resized = model.input_size != model.window
    return {
        "name": "reflectance",
        "description": (
            f"Windows of {model.window} x {model.window} pixels of {model.gsd:g} m, in reflectance, 0 to 1: "
            "(DN + offset) / scale. No data takes the band's mean; then values are clipped, standardised"
            + (f" and scaled to {model.input_size} x {model.input_size}, bilinearly." if resized else ".")
        ),
        "bands": [{"name": b, "format": "gdal-calc", "expression": f"clip(A, {low!r}, {high!r})"} for b in model.bands],
        "input": {
            "shape": [-1, len(model.bands), model.input_size, model.input_size],
            "dim_order": ["batch", "channel", "height", "width"],
            "data_type": "float32",
        },
        "value_scaling": [
            {"type": "z-score", "mean": mean, "stddev": std} for mean, std in zip(model.mean, model.std, strict=True)
        ],
        "resize_type": "interpolation-linear" if resized else None,
        "pre_processing_function": None,
    }


def _output(model: Model) -> dict[str, Any]:
    return {
        "name": "logits",
        "description": (
            f"Logits; softmax(logits / {model.temperature!r}) is calibrated probability. A class's value is its "
            "index; its raster code in maps is one more."
        ),
        "tasks": [TASK],
        "result": {"shape": [-1, len(model.legend)], "dim_order": ["batch", "class"], "data_type": "float32"},
        "classification:classes": [c.to_dict() for c in _output_classes(model.legend)],
        "post_processing_function": None,
    }


def _output_classes(legend: Legend) -> list[Classification]:
    return [
        # No title: the MLM extension is of a time when the classification extension had only descriptions.
        Classification.create(c.code - 1, c.name, name, color_hint=c.color[1:].upper())
        for c, name in zip(legend, class_names(legend), strict=True)
    ]


def _hyperparameters(model: Model) -> dict[str, Any]:
    trained = {key: model.origin[key] for key in TRAINING if model.origin.get(key) is not None}
    return trained | {"window": model.window, "clip": list(model.clip), "temperature": model.temperature}


def _licence(model: Model) -> dict[str, str]:
    """The licence, where it reads like an SPDX identifier."""
    licence = model.origin.get("licence")
    return {"license": licence} if isinstance(licence, str) and re.fullmatch(r"[\w.+-]+", licence) else {}


def _name(name: str) -> str:
    """A name of the form that the extension asks for: of letters, digits, ``_``, ``.`` and ``-`` from a letter on."""
    name = re.sub(r"[^a-zA-Z0-9_.-]+", "-", name).strip("_.-")
    return name if re.fullmatch(r"[a-zA-Z].{2,}", name) else f"geocfl-{name or 'model'}"


def _parameters(model: Model) -> int:
    """Number of parameters, by the header of the weights alone."""
    file = _bundle(model) / WEIGHTS
    try:
        with safe_open(file, "numpy") as tensors:
            names = [name for name in tensors.keys() if not name.endswith(BUFFERS)]  # noqa: SIM118, no dict
            return sum(math.prod(tensors.get_slice(name).get_shape()) for name in names)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file}: not readable weights; restore the file") from error


def _bundle(model: Model) -> Path:
    return model.path or Path()  # load_model always sets it
