"""Models for other programs: a bundle as one file that takes reflectance and gives probabilities."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from geocfl.core.files import refuse_existing, unwritable, working_folder
from geocfl.core.keywords import declared
from geocfl.errors import UsageError, unknown_name
from geocfl.models.bundle import Bundle
from geocfl.models.onnx_file import cached_onnx, require

FORMATS = {
    "onnx": ".onnx",
    "torchscript": ".pt",
    "openvino": ".xml",
    "deepness": ".deepness.onnx",
    "stac-mlm": ".stac.json",
}
"""Formats, and the endings of their files."""
_PACKAGES = {
    "onnx": ("onnx", "onnxscript"),
    "deepness": ("onnx", "onnxscript"),
    "openvino": ("onnx", "onnxscript", "openvino"),
}


@declared
def export(
    model: str | Path,
    out: str | Path | None = None,
    *,
    format: Literal["onnx", "torchscript", "openvino", "deepness", "stac-mlm"] = "onnx",
    scale: float | None = None,
    offset: float | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Writes a model for other programs.

    The file includes clipping, resizing, normalization and temperature. Its input ``reflectance`` is (N, B, window,
    window) float32 of the bundle's bands, 0..1 nominal, NaN for no data. Its output ``probabilities`` is (N, classes)
    float32, calibrated, in the order of the legend. N is free. The facts of the bundle are stored under ``geocfl``: in
    the ONNX metadata, as an extra file of the TorchScript archive, or in OpenVINO's runtime information.

    ``deepness`` writes an ONNX file for the QGIS plugin Deepness, with the plugin's settings. It takes tiles (N, B,
    side, side) and gives probabilities (N, classes, side, side) of their pixels.

    ``stac-mlm`` writes no network but a catalog entry: a STAC Item that links to the bundle's files or to copies of
    them beside it.

    Args:
        model: A bundle's folder or the name of a built-in model.
        out: File to write; by default the model's name with the format's ending, in the current folder.
        format: ``"onnx"``, ``"torchscript"``, ``"openvino"``, ``"deepness"`` or ``"stac-mlm"``. OpenVINO's weights
            go to a second file that ends in ``.bin``. ``"stac-mlm"`` copies the bundle into a folder beside the Item,
            unless the bundle lies in or below the Item's folder already.
        scale: For Deepness: reflectance = (pixel value + offset) / scale; by default 10000, as in Sentinel-2 products.
        offset: For Deepness: see `scale`; by default 0. It is -1000 for Sentinel-2 products since baseline 04.00.
        overwrite: Replace existing files.

    Returns:
        The files.

    Raises:
        UsageError: The format is unknown, or its packages are not installed; `scale` is not positive, or it or
            `offset` are given for another format than Deepness.
        ModelError: The model cannot be read.
        OutputError: A file exists already, or cannot be written.
    """
    if format not in FORMATS:
        raise UsageError(unknown_name("`format`", format, FORMATS))
    scaling = {name: value for name, value in (("scale", scale), ("offset", offset)) if value is not None}
    if scaling and format != "deepness":
        raise UsageError(f"`{next(iter(scaling))}` is only for `format=deepness`; other formats take reflectance")
    if not (0 < scaling.get("scale", 1) < math.inf and math.isfinite(scaling.get("offset", 0))):
        raise UsageError(
            "`scale` must be positive, and `offset` a number; Sentinel-2 products have 10000 and 0 or -1000"
        )
    require(*_PACKAGES.get(format, ()))
    bundle = Bundle.load(model)
    path = Path(out) if out else Path(f"{bundle.name}{FORMATS[format]}")
    if format == "openvino" and path.suffix != ".xml":
        raise UsageError(f"{path}: an OpenVINO model ends in .xml; use `out={path.with_suffix('.xml')}`")
    if format == "stac-mlm" and not path.name.endswith(".stac.json"):
        raise UsageError(f"{path}: a catalog entry ends in .stac.json; use `out={path.with_suffix('.stac.json')}`")
    files = _files(format, bundle, path)
    for file in files:
        refuse_existing(file, overwrite=overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with working_folder(path.parent, path.name) as folder:
            partial = folder / path.name
            _WRITERS[format](bundle, partial, **scaling)
            for file in files[::-1]:
                file.parent.mkdir(exist_ok=True)
                (partial.parent / file.relative_to(path.parent)).replace(file)
    except OSError as error:
        raise unwritable(path, error) from error
    return files


def _files(format: str, bundle: Bundle, path: Path) -> list[Path]:
    """The files of an export; the first one is `path`."""
    if format == "openvino":
        return [path, path.with_suffix(".bin")]
    if format == "stac-mlm":
        from geocfl.models.stac_mlm import item_files

        return item_files(bundle, path)
    return [path]


def _copy_onnx(bundle: Bundle, path: Path) -> None:
    path.write_bytes(cached_onnx(bundle, windows=True).read_bytes())


def _write_torchscript(bundle: Bundle, path: Path) -> None:
    import torch

    from geocfl.models.network import Probabilities, example_windows

    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, but many programs still load it
        traced = torch.jit.trace(Probabilities(bundle), example_windows(bundle))
        facts = json.dumps(bundle.to_json()).encode()
        buffer = io.BytesIO()  # torch aborts the process if it cannot write to a file
        torch.jit.save(torch.jit.freeze(traced), buffer, _extra_files={"geocfl": facts})
    path.write_bytes(buffer.getvalue())


def _write_openvino(bundle: Bundle, path: Path) -> None:
    from geocfl.models.quiet_openvino import ov

    source = cached_onnx(bundle, windows=True)
    if shutil.disk_usage(path.parent).free < source.stat().st_size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # OpenVINO does not notice, or aborts the process
    network = ov.Core().read_model(source)
    network.set_rt_info(json.dumps(bundle.to_json()), "geocfl")
    try:
        ov.save_model(network, path, compress_to_fp16=False)  # as accurate as the others
        ov.Core().read_model(path)
    except RuntimeError as error:
        raise OSError(str(error).strip().splitlines()[-1]) from error


def _write_deepness(bundle: Bundle, path: Path, **scaling: float) -> None:
    from geocfl.models.deepness import write_deepness

    write_deepness(bundle, path, **scaling)


def _write_stac(bundle: Bundle, path: Path) -> None:
    from geocfl.models.stac_mlm import write_model_item

    write_model_item(bundle, path, path.parents[1])  # it is moved there


_WRITERS: dict[str, Callable[..., None]] = {
    "onnx": _copy_onnx,
    "torchscript": _write_torchscript,
    "openvino": _write_openvino,
    "deepness": _write_deepness,
    "stac-mlm": _write_stac,
}
