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
        "class_names": ",".join(bundle.legend.names),
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
    require("onnx", "onnxscript")
    log.info("%s: exporting to ONNX, once", bundle.name)
    import onnx
    import torch

    from geocfl.models.network import BackendNetwork, Probabilities, example_tiles, example_windows

    tiles = bundle.feature_stride > 0 and not windows
    # The exporter needs minutes to reason about sides of any length, so tiles are exported for one size.
    shapes = None if tiles else ({0: torch.export.Dim("windows")},)
    network = Probabilities(bundle) if windows else BackendNetwork(bundle)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the exporter
        program = torch.onnx.export(
            network,
            (example_tiles(bundle) if tiles else example_windows(bundle),),
            input_names=[INPUT],
            output_names=[OUTPUT] if isinstance(network, Probabilities) else network.outputs,
            dynamic_shapes=shapes,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise ModelError(f"{bundle.name}: torch cannot export a {bundle.backbone}; use `backend=torch`")
    proto: onnx.ModelProto = program.model_proto
    if tiles:
        _free_sizes(proto)
    proto.producer_name, proto.producer_version = "geocfl", __version__
    onnx.checker.check_model(proto)
    return proto


def _free_sizes(proto: Any) -> None:
    """Declares that a dense model takes any number of tiles of any size: no operator of it depends on these."""
    axes = {INPUT: {0: "tiles", 2: "height", 3: "width"}, OUTPUT: {0: "tiles", 1: "rows", 2: "columns"}}
    axes[NOVELTY] = axes[FEATURES] = axes[OUTPUT]
    for value in (*proto.graph.input, *proto.graph.output):
        for axis, name in axes[value.name].items():
            value.type.tensor_type.shape.dim[axis].dim_param = name  # replaces the fixed size
    del proto.graph.value_info[:]  # the fixed sizes in between
