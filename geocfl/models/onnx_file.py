"""A bundle as an ONNX file, which is exported once and kept in the user's cache."""

from __future__ import annotations

import atexit
import hashlib
import json
import logging
import os
import shutil
import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from geocfl._version import __version__
from geocfl.core.files import cache_folder, write_whole
from geocfl.errors import ModelError, OutputError, UsageError
from geocfl.models.bundle import Bundle

log = logging.getLogger("geocfl")

INPUT, OUTPUT, NOVELTY = "reflectance", "probabilities", "residuals"
_NUMBER, _BYTES = 0, 2
"""Kinds of fields in a protocol buffer."""
_FIELDS = {7, 8, 14}
"""The graph, its operators and the metadata of an ONNX model."""
OPSET = 18
"""The oldest that torch's exporter writes without conversion, so most programs can read it."""


def cached_onnx(bundle: Bundle, *, windows: bool = False) -> Path:
    """The ONNX file of a bundle, from the user's cache; only the first call needs torch.

    Args:
        bundle: The model.
        windows: Whether the file takes windows and gives their probabilities only, as other programs expect. For the
            back ends, that of a dense model takes tiles, and that of a model with novelty gives residuals too.

    Raises:
        ModelError: The weights cannot be read, or torch cannot export the network.
        UsageError: The file is not in the cache, and the packages that export it are not installed.
        OutputError: Neither the cache nor the folder for temporary files can be written.
    """
    digest = hashlib.sha256(bundle.digest().encode()).hexdigest()[:32]
    windows = windows and bool(bundle.feature_stride or bundle.novelty)  # the same file otherwise
    kind = "-windows" if windows else ""
    file = cache_folder() / "onnx" / f"{digest}-{bundle.tta}{kind}-{__version__}.onnx"
    if _is_whole(file):
        return file
    require("onnx", "onnxscript")
    log.info("%s: exporting to ONNX, once", bundle.name)
    content = _content(bundle, windows=windows)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, content)
        return file
    except OSError as error:
        reason = error.strerror or error
        log.warning(
            "%s: cannot be written (%s), so the model is exported again next time; set GEOCFL_CACHE to a folder that "
            "can be written",
            file,
            reason,
        )
    try:
        folder = Path(tempfile.mkdtemp(prefix="geocfl-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        (folder / file.name).write_bytes(content)
        return folder / file.name
    except OSError as error:
        raise OutputError(
            f"{file}: cannot be written ({reason}), nor can {tempfile.gettempdir()}; free some space, or set "
            "GEOCFL_CACHE to another folder"
        ) from error


def _is_whole(file: Path) -> bool:
    """Whether a file is an ONNX model with its end, from the lengths of its fields.

    Source: https://protobuf.dev/programming-guides/encoding/.
    """

    def number() -> int:
        value = shift = 0
        while byte := opened.read(1):
            value |= (byte[0] & 127) << shift
            if byte[0] < 128:
                return value
            shift += 7
        raise ValueError("the end is missing")

    try:
        with file.open("rb") as opened:
            size, fields = os.fstat(opened.fileno()).st_size, set()
            while opened.tell() < size:
                tag = number()
                length = number()  # of the field, or its value if the field is a number
                if tag & 7 == _BYTES:
                    opened.seek(length, os.SEEK_CUR)
                elif tag & 7 != _NUMBER:
                    return False
                fields.add(tag >> 3)
            return opened.tell() == size and fields >= _FIELDS
    except (OSError, ValueError, OverflowError):
        return False


def require(*packages: str) -> None:
    """Checks that packages are installed.

    Raises:
        UsageError: Some are not.
    """
    if missing := [name for name in packages if not find_spec(name)]:
        raise UsageError(
            f"{' and '.join(missing)} not installed; run: pip install {' '.join(missing)}", page="how-to/export/"
        )


def _content(bundle: Bundle, *, windows: bool) -> bytes:
    import onnx
    import torch

    from geocfl.models.network import BackendNetwork, Probabilities, example_tiles, example_windows

    tiles = bundle.feature_stride > 0 and not windows
    # The exporter needs minutes to reason about sides of any length, so tiles are exported for one size.
    shapes = None if tiles else ({0: torch.export.Dim("windows")},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the exporter
        program = torch.onnx.export(
            Probabilities(bundle) if windows else BackendNetwork(bundle),
            (example_tiles(bundle) if tiles else example_windows(bundle),),
            input_names=[INPUT],
            output_names=[OUTPUT, NOVELTY] if bundle.novelty and not windows else [OUTPUT],
            dynamic_shapes=shapes,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise ModelError(f"{bundle.name}: torch cannot export a {bundle.backbone}; use `backend=torch`")
    proto = program.model_proto
    if tiles:
        _free_sizes(proto)
    facts = {
        "geocfl": json.dumps(bundle.to_json()),
        "bands": ",".join(bundle.bands),
        "class_names": ",".join(bundle.legend.names),
    }
    onnx.helper.set_model_props(proto, facts)
    proto.producer_name, proto.producer_version = "geocfl", __version__
    onnx.checker.check_model(proto)
    content: bytes = proto.SerializeToString()
    return content


def _free_sizes(proto: Any) -> None:
    """Declares that a dense model takes any number of tiles of any size: no operator of it depends on these."""
    axes = {INPUT: {0: "tiles", 2: "height", 3: "width"}, OUTPUT: {0: "tiles", 1: "rows", 2: "columns"}}
    axes[NOVELTY] = axes[OUTPUT]
    for value in (*proto.graph.input, *proto.graph.output):
        for axis, name in axes[value.name].items():
            value.type.tensor_type.shape.dim[axis].dim_param = name  # replaces the fixed size
    del proto.graph.value_info[:]  # the fixed sizes in between
