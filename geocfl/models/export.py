"""Models for other programs: a bundle as one file that takes reflectance and gives probabilities."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geocfl._version import __version__
from geocfl.core.files import cache_folder
from geocfl.errors import ModelError, OutputError, UsageError, unknown_name
from geocfl.models.bundle import Model, load_model

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger("geocfl")

FORMATS = {"onnx": ".onnx", "torchscript": ".pt", "openvino": ".xml", "stac-mlm": ".stac.json"}
INPUT, OUTPUT = "reflectance", "probabilities"
OPSET = 18
"""The oldest that torch's exporter writes without converting, and so the one most programs read."""


def export(
    model: str | Path, out: str | Path | None = None, *, format: str = "onnx", overwrite: bool = False
) -> list[Path]:
    """Writes a model for other programs.

    Clipping, scaling to the input size, normalization and temperature are inside: the input ``reflectance`` is
    (N, B, window, window) float32 of the bundle's bands, 0..1 nominal, NaN no data; the output ``probabilities`` is
    (N, classes) float32, calibrated, in the legend's order. N is free. The content of ``model.json`` goes along under
    ``geocfl``: as ONNX metadata, an extra file of the TorchScript archive, or OpenVINO's runtime information.

    ``stac-mlm`` is no network but a catalogue entry: a STAC Item that names the bundle's files, or copies beside it.

    Args:
        model: A bundle's folder or the name of a bundled model.
        out: File to write; the model's name with the format's ending, in the working folder, by default.
        format: Key of `FORMATS`. OpenVINO's weights lie in a second file, of the ending ``.bin``; for
            ``stac-mlm``, a bundle that does not lie in or below the Item's folder is copied into one of its stem.
        overwrite: Replace files that are in the way.

    Returns:
        The files.

    Raises:
        UsageError: Unknown format, or its packages are not installed.
        ModelError: The model cannot be read.
        OutputError: Something is in the way, or cannot be written.
    """
    if format not in FORMATS:
        raise UsageError(unknown_name("format", format, FORMATS))
    _require(format)
    loaded = load_model(model)
    path = Path(out) if out else Path(f"{loaded.name}{FORMATS[format]}")
    if format == "openvino" and path.suffix != ".xml":
        raise UsageError(f"{path}: OpenVINO's files end in .xml and .bin; pass --out {path.with_suffix('.xml')}")
    if format == "stac-mlm" and not path.name.endswith(".stac.json"):
        raise UsageError(f"{path}: a catalogue entry ends in .stac.json; pass --out {path.with_suffix('.stac.json')}")
    files = _files(format, loaded, path)
    for file in files:
        if file.is_dir() or (file.exists() and not overwrite):
            raise OutputError(f"{file}: in the way; give --overwrite to replace it, or choose another --out")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export") as folder:
            partial = Path(folder) / path.name
            _WRITERS[format](loaded, partial)
            for file in files[::-1]:
                file.parent.mkdir(exist_ok=True)
                (partial.parent / file.relative_to(path.parent)).replace(file)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another --out") from error
    return files


def _files(format: str, model: Model, path: Path) -> list[Path]:
    """The files that an export consists of, the one at `path` first."""
    if format == "openvino":
        return [path, path.with_suffix(".bin")]
    if format == "stac-mlm":
        from geocfl.models.stac_mlm import item_files

        return item_files(model, path)
    return [path]


def cached_onnx(model: Model) -> Path:
    """The model as ONNX, from the user's cache where it was exported before; only the first time needs torch.

    Raises:
        ModelError: The weights cannot be read.
        UsageError: It is not in the cache, and the packages to export it are not installed.
    """
    folder = model.path or Path()  # load_model always sets it
    try:
        digest = hashlib.sha256(b"".join((folder / name).read_bytes() for name in ("model.json", "model.safetensors")))
    except OSError as error:
        raise ModelError(f"{folder}: cannot be read ({error.strerror}); pass another --model") from error
    file = cache_folder() / "onnx" / f"{digest.hexdigest()[:32]}-{model.tta}-{__version__}.onnx"
    if file.exists():
        return file
    _require("onnx")
    log.info("%s: exporting it to ONNX, once", model.name)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError:  # a home that cannot be written to costs the export every time
        file = Path(tempfile.mkdtemp()) / file.name
    partial = file.with_suffix(f".{os.getpid()}.partial")
    try:
        _write_onnx(model, partial)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    return file


def _require(format: str) -> None:
    needed = {
        "onnx": ("onnx", "onnxscript"),
        "openvino": ("onnx", "onnxscript", "openvino"),
        "torchscript": (),
        "stac-mlm": (),
    }
    if missing := [name for name in needed[format] if not find_spec(name)]:
        extra = "openvino" if "openvino" in missing else "onnx"
        raise UsageError(f"{', '.join(missing)} not installed; pip install 'geocfl[{extra}]'", page="how-to/export/")


def _module(model: Model) -> nn.Module:
    """Reflectance in, calibrated probabilities out."""
    import torch

    class Probabilities(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = model.network()

        def forward(self, reflectance: torch.Tensor) -> torch.Tensor:
            return torch.softmax(self.network(reflectance) / model.temperature, dim=1)

    return Probabilities().eval()


def _facts(model: Model) -> str:
    return json.dumps(model.to_json())


def _example(model: Model) -> Any:
    import torch

    return torch.full((2, len(model.bands), model.window, model.window), 0.1)


def _write_onnx(model: Model, path: Path) -> None:
    import onnx
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own deprecations
        program = torch.onnx.export(
            _module(model),
            (_example(model),),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("windows")},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise ModelError(f"{model.name}: torch cannot export a {model.backbone}; choose --backend torch")
    proto = program.model_proto
    facts = {"geocfl": _facts(model), "bands": ",".join(model.bands), "class_names": ",".join(model.legend.names)}
    onnx.helper.set_model_props(proto, facts)
    proto.producer_name, proto.producer_version = "geocfl", __version__
    onnx.checker.check_model(proto)
    path.write_bytes(proto.SerializeToString())


def _write_torchscript(model: Model, path: Path) -> None:
    import torch

    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and still what many programs load
        traced = torch.jit.freeze(torch.jit.trace(_module(model), _example(model)))  # type: ignore[no-untyped-call]
        torch.jit.save(traced, str(path), _extra_files={"geocfl": _facts(model).encode()})


def _copy_onnx(model: Model, path: Path) -> None:
    path.write_bytes(cached_onnx(model).read_bytes())


def _write_openvino(model: Model, path: Path) -> None:
    import openvino as ov

    network = ov.Core().read_model(cached_onnx(model))
    network.set_rt_info(_facts(model), "geocfl")
    ov.save_model(network, path, compress_to_fp16=False)  # as accurate as the others


def _write_stac(model: Model, path: Path) -> None:
    from geocfl.models.stac_mlm import write_model_item

    write_model_item(model, path, path.parents[1])  # into which it is moved


_WRITERS = {
    "onnx": _copy_onnx,
    "torchscript": _write_torchscript,
    "openvino": _write_openvino,
    "stac-mlm": _write_stac,
}
