"""Writes the graph of a bundle: the exported network without its weights, which are read from the file beside it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from geocfl.core.files import write_whole
from geocfl.errors import GeocflError
from geocfl.models.bundle import GRAPH, WEIGHTS, Bundle, bundled_models
from geocfl.models.graph import TYPES, Place, bundle_graph, places, seal
from geocfl.models.onnx_file import exported_network

if TYPE_CHECKING:
    import onnx

log = logging.getLogger("geocfl")

INLINE = 16_384
"""Bytes up to which a tensor is kept in the graph."""
_ULPS = 3
"""Steps between neighboring numbers in which a quotient may miss the factor that was multiplied with."""

_Array = NDArray[np.float32]


class _Recipe(NamedTuple):
    """How a tensor of the exported network follows from a stored one.

    Attributes:
        name: Of the stored tensor.
        factors: Its factor for each index of the first axis; None if it is not multiplied.
        transposed: Whether it is transposed then.
    """

    name: str
    factors: _Array | None
    transposed: bool


def write_graph(bundle: Bundle) -> Path | None:
    """Writes the graph of a bundle into its folder, so that no map has to export the network first.

    Args:
        bundle: A saved model.

    Returns:
        The file; None, with a message in the log, if this network cannot be exported here.

    Raises:
        OSError: The file cannot be written.
    """
    file = bundle.folder / GRAPH
    file.unlink(missing_ok=True)
    try:
        proto = exported_network(bundle)
    except GeocflError as error:
        log.info("no %s is written, so the first map exports the model: %s", GRAPH, error)
        return None
    weights = (bundle.folder / WEIGHTS).read_bytes()
    refer_to_weights(proto, weights)
    body = proto.SerializeToString(deterministic=True)
    write_whole(file, body + seal(bundle, body, weights))
    try:
        return bundle_graph(bundle)
    except GeocflError as error:  # operators of another library, as a registered backbone may have
        file.unlink()
        log.info("no %s is written, so the first map exports the model: %s", GRAPH, error)
        return None


def refer_to_weights(proto: onnx.ModelProto, weights: bytes) -> None:
    """Replaces the large tensors of an exported network by operators that compute them from the stored weights.

    The exporter converts weights to float32, folds batch normalization into them and transposes some. Operators for
    that, with a factor for each output channel, give the same numbers to the bit. Tensors that come about in other
    ways are kept.

    Args:
        proto: The network; it is changed.
        weights: Content of the weights file.
    """
    from onnx import numpy_helper

    known = {name: place for name, place in places(weights).items() if place.type in TYPES}
    kept: list[Any] = []
    referred: list[Any] = []
    operators: list[Any] = []
    for tensor in proto.graph.initializer:
        recipe = _recipe(tensor.name, numpy_helper.to_array(tensor), known, weights)
        if recipe is None:
            kept.append(tensor)
            continue
        place = known.pop(recipe.name)  # a tensor that is used twice is kept the second time
        referred.append(_reference(recipe.name, place))
        if recipe.factors is not None:
            shape = (-1, *(1 for _ in place.shape[1:]))
            kept.append(numpy_helper.from_array(recipe.factors.reshape(shape), f"{recipe.name}.factors"))
        operators += _operators(recipe, tensor.name)
    operators += proto.graph.node
    for part, content in (("initializer", [*kept, *referred]), ("node", operators)):
        copies = [type(message).FromString(message.SerializeToString()) for message in content]
        proto.graph.ClearField(part)
        getattr(proto.graph, part).extend(copies)
    for message in (proto, proto.graph, *proto.graph.node, *proto.graph.input, *proto.graph.output):
        message.ClearField("doc_string")
        message.ClearField("metadata_props")  # where in the source of torch and timm each operator comes from
    proto.graph.ClearField("value_info")


def _recipe(name: str, values: _Array, known: Mapping[str, Place], weights: bytes) -> _Recipe | None:
    """How a tensor follows from one of the stored ones; None if it is small, or follows from none."""
    if values.nbytes <= INLINE or values.dtype != np.float32:
        return None
    alike = [key for key, place in known.items() if sorted(place.shape) == sorted(values.shape)]
    for key in sorted(alike, key=lambda key: not name.endswith(key)):
        stored = _tensor(weights, known[key])
        if stored.shape == values.shape and np.array_equal(stored, values):
            return _Recipe(key, None, transposed=False)
        if stored.ndim == 2 and np.array_equal(stored.T, values):
            return _Recipe(key, None, transposed=True)
        if stored.shape == values.shape and (factors := _factors(stored, values)) is not None:
            return _Recipe(key, factors, transposed=False)
    return None


def _tensor(weights: bytes, place: Place) -> _Array:
    type_ = np.float16 if place.type == "F16" else np.float32
    stored = np.frombuffer(weights, type_, place.length // np.dtype(type_).itemsize, place.offset)
    return stored.reshape(place.shape).astype(np.float32)


def _factors(stored: _Array, values: _Array) -> _Array | None:
    """The factor of each row that turns the stored tensor into the other one to the bit; None if there is none."""
    before, after = stored.reshape(len(stored), -1), values.reshape(len(values), -1)
    largest = np.arange(len(before)), np.abs(before).argmax(axis=1)
    divisors = before[largest]
    factors = np.divide(after[largest], divisors, out=np.zeros_like(divisors), where=divisors != 0)
    found, wrong = np.zeros_like(factors), np.ones(len(factors), bool)
    for step in sorted(range(-_ULPS, _ULPS + 1), key=abs):
        tried = factors
        for _ in range(abs(step)):
            tried = np.nextafter(tried, np.float32(np.copysign(np.inf, step)))
        right = wrong & (before * tried[:, None] == after).all(axis=1)
        found[right], wrong[right] = tried[right], False
    return None if wrong.any() else found


def _reference(name: str, place: Place) -> Any:
    """A tensor whose data lie in the weights file."""
    import onnx

    tensor = onnx.TensorProto(name=name, data_type=TYPES[place.type], dims=place.shape)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", WEIGHTS), ("offset", place.offset), ("length", place.length)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def _operators(recipe: _Recipe, result: str) -> Iterator[Any]:
    """The operators that compute a tensor of the network from a stored one."""
    from onnx import TensorProto, helper

    steps: list[tuple[str, list[str], dict[str, Any]]] = [("Cast", [], {"to": TensorProto.FLOAT})]
    if recipe.factors is not None:
        steps.append(("Mul", [f"{recipe.name}.factors"], {}))
    if recipe.transposed:
        steps.append(("Transpose", [], {"perm": [1, 0]}))
    current = recipe.name
    for number, (kind, more, attributes) in enumerate(steps, start=1):
        output = result if number == len(steps) else f"{recipe.name}.{kind}"
        yield helper.make_node(kind, [current, *more], [output], **attributes)
        current = output


if __name__ == "__main__":
    for name in bundled_models():
        write_graph(Bundle.load(name))
