"""A bundle as an ONNX file, which is exported once and kept in the user's cache."""

from __future__ import annotations

import atexit
import hashlib
import json
import logging
import shutil
import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geocfl._version import __version__
from geocfl.core.files import cache_folder, write_whole
from geocfl.errors import ModelError, OutputError, UsageError
from geocfl.models.bundle import Bundle
from geocfl.models.graph import FEATURES, INPUT, NOVELTY, OUTPUT, bundle_graph
from geocfl.models.onnx_fields import GRAPH, METADATA, fields

if TYPE_CHECKING:
    import onnx
    from torch import Tensor, nn

log = logging.getLogger("geocfl")

OPSET = 18
"""The oldest that torch's exporter writes without conversion, so most programs can read it."""
_FIELDS = {GRAPH, 8, METADATA}
"""The graph, its operators and the metadata of an ONNX model."""


def backend_onnx(bundle: Bundle) -> Path:
    """The ONNX file that a back end runs: the graph of the bundle if it has one, else `cached_onnx`."""
    return bundle_graph(bundle) or cached_onnx(bundle)


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
    """Whether a file is an ONNX model with its end, from the lengths of its fields."""
    try:
        return {number for number, _ in fields(file.read_bytes())} >= _FIELDS
    except (OSError, ValueError):
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

    proto = exported_network(bundle, windows=windows)
    facts = {
        "geocfl": json.dumps(bundle.to_json()),
        "bands": ",".join(bundle.bands),
        "class_names": class_names(bundle),
    }
    onnx.helper.set_model_props(proto, facts)
    content: bytes = proto.SerializeToString()
    return content


def exported_network(bundle: Bundle, *, windows: bool = False) -> onnx.ModelProto:
    """The network of a bundle, exported by torch.

    Args:
        bundle: The model.
        windows: As for `cached_onnx`.

    Raises:
        ModelError: The weights cannot be read, or torch cannot export the network.
        UsageError: The packages that export it are not installed.
    """
    from geocfl.models.network import BackendNetwork, Probabilities, example_tiles, example_windows

    require("onnx", "onnxscript")
    log.info("%s: exporting to ONNX, once", bundle.name)
    if windows:
        return to_onnx(bundle, Probabilities(bundle), example_windows(bundle), [OUTPUT])
    network = BackendNetwork(bundle)
    if not bundle.feature_stride:
        return to_onnx(bundle, network, example_windows(bundle), network.outputs)
    # The exporter needs minutes to reason about sides of any length, so tiles are exported for one size.
    proto = to_onnx(bundle, network, example_tiles(bundle), network.outputs, any_number=False)
    _free_sizes(proto)
    return proto


def to_onnx(
    bundle: Bundle, network: nn.Module, example: Tensor, outputs: list[str], *, any_number: bool = True
) -> onnx.ModelProto:
    """A network with one input as ONNX.

    Args:
        bundle: The model that it belongs to.
        network: What to export.
        example: Two of its inputs.
        outputs: Names of its outputs.
        any_number: Whether the first axis may have any length.

    Raises:
        ModelError: torch cannot export the network.
        UsageError: The packages that export it are not installed.
    """
    require("onnx", "onnxscript")
    import onnx
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the exporter
        program = torch.onnx.export(
            network,
            (example,),
            input_names=[INPUT],
            output_names=outputs,
            dynamic_shapes=({0: torch.export.Dim("windows")},) if any_number else None,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise ModelError(f"{bundle.name}: torch cannot export a {bundle.backbone}; use `backend=torch`")
    proto: onnx.ModelProto = program.model_proto
    proto.producer_name, proto.producer_version = "geocfl", __version__
    onnx.checker.check_model(proto)
    return proto


def class_names(bundle: Bundle) -> str:
    """Names by the index of the output as JSON, such as ``{"0": "Annual Crop"}``, which Deepness reads."""
    return json.dumps({str(index): name for index, name in enumerate(bundle.legend.names)})


def _free_sizes(proto: Any) -> None:
    """Declares that a dense model takes any number of tiles of any size: no operator of it depends on these."""
    axes = {INPUT: {0: "tiles", 2: "height", 3: "width"}, OUTPUT: {0: "tiles", 1: "rows", 2: "columns"}}
    axes[NOVELTY] = axes[FEATURES] = axes[OUTPUT]
    for value in (*proto.graph.input, *proto.graph.output):
        for axis, name in axes[value.name].items():
            value.type.tensor_type.shape.dim[axis].dim_param = name  # replaces the fixed size
    del proto.graph.value_info[:]  # the fixed sizes in between
