"""The graph of a bundle: its network as an ONNX file that refers to the weights beside it and needs no torch."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import NamedTuple

from geocfl.errors import ModelError
from geocfl.models.bundle import GRAPH, WEIGHTS, Bundle
from geocfl.models.onnx_fields import METADATA, Outline, Stored, outline

log = logging.getLogger("geocfl")

INPUT, OUTPUT, NOVELTY, FEATURES = "reflectance", "probabilities", "residuals", "features"
"""Names of the input and the outputs of a graph. It has residuals if the model has novelty, and pooled features unless
the network hides them."""
DECIDING = (
    *("backbone", "head", "bands", "window", "input_size", "feature_stride", "tta"),
    *("clip", "mean", "std", "temperature", "novelty", "damping"),
)
"""The facts of a bundle that its graph depends on."""
TYPES = {"F32": 1, "F16": 10}
"""Numbers in ONNX of the types of weights that a graph may refer to."""
_SEAL = b"geocfl_seal"


def outputs(*, features: bool) -> tuple[str, ...]:
    """Names of the outputs that a back end reads."""
    return (OUTPUT, NOVELTY, FEATURES) if features else (OUTPUT, NOVELTY)


class Place(NamedTuple):
    """Where a tensor lies in a weights file.

    Attributes:
        shape: Its shape.
        type: Its type as safetensors calls it, such as ``F16``.
        offset: Its first byte in the file.
        length: Its number of bytes.
    """

    shape: tuple[int, ...]
    type: str
    offset: int
    length: int


def bundle_graph(bundle: Bundle) -> Path | None:
    """The graph of a bundle; None if it has none, or one that was made from other weights or facts.

    Raises:
        ModelError: The graph has more than standard operators, or refers to anything but the bundle's weights.
    """
    file = bundle.folder / GRAPH
    if not file.is_file():
        return None
    try:
        content, weights = file.read_bytes(), (bundle.folder / WEIGHTS).read_bytes()
    except OSError as error:
        raise ModelError(f"{file}: cannot be read ({error.strerror}); pass another `model`") from error
    body = content[: -len(seal(bundle, b"", b""))]
    if content != body + seal(bundle, body, weights):
        log.info("%s: is not the graph of this model's weights and facts, so it is not used", file)
        return None
    try:
        _check(outline(body), places(weights), bundle)
    except (ValueError, UnicodeDecodeError) as error:
        raise ModelError(f"{file}: not a plain network ({error}); delete it, or pass another `model`") from error
    return file


def seal(bundle: Bundle, body: bytes, weights: bytes) -> bytes:
    """What is appended to a graph to tell whether it is whole, and made from these weights and facts.

    Args:
        bundle: The model.
        body: The graph without its seal.
        weights: Content of the weights file.

    Returns:
        An entry of the metadata of an ONNX model: a hash under the key ``geocfl_seal``, always of the same length.
    """
    facts = bundle.to_json()
    parts = (body, weights, json.dumps({name: facts[name] for name in DECIDING}).encode())
    value = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest().encode()
    entry = b"\x0a" + bytes([len(_SEAL)]) + _SEAL + b"\x12" + bytes([len(value)]) + value
    return bytes([METADATA << 3 | 2, len(entry)]) + entry


def places(weights: bytes) -> dict[str, Place]:
    """Where each tensor lies in a weights file.

    Args:
        weights: Content of the file.

    Raises:
        ValueError: It is not a safetensors file.
    """
    start = 8 + int.from_bytes(weights[:8], "little")
    try:
        header = json.loads(weights[8:start])
        header.pop("__metadata__", None)
        found = {}
        for name, facts in header.items():
            first, stop = facts["data_offsets"]
            found[name] = Place(tuple(facts["shape"]), facts["dtype"], start + first, stop - first)
    except (AttributeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError("the weights are not a safetensors file") from error
    return found


def _check(graph: Outline, known: dict[str, Place], bundle: Bundle) -> None:
    """Checks that a graph takes and gives what a back end expects, and refers to tensors of the weights only.

    Raises:
        ValueError: It does not.
    """
    if graph.inputs != [INPUT] or graph.outputs[:1] != [OUTPUT]:
        raise ValueError(f"it must take {INPUT} and give {OUTPUT}")
    if bundle.novelty and NOVELTY not in graph.outputs:
        raise ValueError(f"it does not give {NOVELTY}")
    for name, stored in graph.external.items():
        place = known.get(name)
        if place is None or stored != Stored(
            TYPES.get(place.type, 0), place.shape, WEIGHTS, place.offset, place.length
        ):
            raise ValueError(f"{name!r} does not lie in {WEIGHTS}")
