"""The fields of an ONNX file, read without the package onnx: which operators and which files it refers to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
"""Kinds of fields in a protocol buffer."""
_FIXED = {_FIXED64: 8, _FIXED32: 4}

# Numbers of fields in https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
GRAPH, METADATA = 7, 14
"""Fields of a model."""
_NODE, _INITIALIZER, _INPUT, _OUTPUT = 1, 5, 11, 12
_ATTRIBUTE, _DOMAIN = 5, 7
_DIMENSIONS, _TYPE, _NAME, _EXTERNAL, _LOCATION = 1, 2, 8, 13, 14
_PLAIN = {
    "model": {1, 2, 3, 4, 5, 6, GRAPH, 8, METADATA},
    "graph": {_NODE, 2, _INITIALIZER, 10, _INPUT, _OUTPUT, 13, 16},
    "operator": {1, 2, 3, 4, _ATTRIBUTE, 6, _DOMAIN, 9},
    "attribute": {1, 2, 3, 4, 7, 8, 9, 13, 20},
    "tensor": {_DIMENSIONS, _TYPE, 4, 5, 7, _NAME, 9, 10, 11, 12, _EXTERNAL, _LOCATION},
}
"""Fields of a network of standard operators one after the other. Others hold functions, loops or further tensors."""


class Stored(NamedTuple):
    """Where the data of a tensor lie.

    Attributes:
        type: Number of its data type in ONNX: 1 is float32, 10 float16.
        shape: Its shape.
        file: File that holds the data, relative to the ONNX file.
        offset: First byte of the data in the file.
        length: Number of bytes.
    """

    type: int
    shape: tuple[int, ...]
    file: str
    offset: int
    length: int


class Outline(NamedTuple):
    """What an ONNX file needs and gives.

    Attributes:
        inputs: Names of its inputs.
        outputs: Names of its outputs.
        external: Its tensors in other files, by name.
    """

    inputs: list[str]
    outputs: list[str]
    external: Mapping[str, Stored]


def fields(content: bytes | memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a protocol buffer: the number of each, and its value or its bytes.

    Source: https://protobuf.dev/programming-guides/encoding/.

    Raises:
        ValueError: It is not a protocol buffer, or its end is missing.
    """
    content, at = memoryview(content), 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while at < len(content) and shift < 64:
            byte, at = content[at], at + 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
        raise ValueError("the end is missing")

    while at < len(content):
        field, kind = divmod(number(), 8)
        if kind == _VARINT:
            yield field, number()
            continue
        if kind != _BYTES and kind not in _FIXED:
            raise ValueError("not a protocol buffer")
        size = number() if kind == _BYTES else _FIXED[kind]
        if at + size > len(content):
            raise ValueError("the end is missing")
        yield field, content[at : at + size]
        at += size


def outline(content: bytes | memoryview) -> Outline:
    """Reads what an ONNX file needs and gives, and checks that it is a plain network.

    Args:
        content: The file.

    Raises:
        ValueError: It is damaged, or has more than standard operators one after the other: functions, loops,
            operators of other libraries, or tensors within them.
    """
    found = Outline([], [], {})
    external = {}
    for graph in _each(content, "model", GRAPH):
        for field, value in _plain(graph, "graph"):
            if field == _NODE:
                _check_operator(_bytes(value))
            elif field in (_INPUT, _OUTPUT):
                (found.inputs if field == _INPUT else found.outputs).append(_text(_bytes(value), 1))
            elif field == _INITIALIZER and (stored := _stored(_bytes(value))):
                external[_text(_bytes(value), _NAME)] = stored
    return found._replace(external=external)


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number in place of a message")
    return value


def _plain(content: bytes | memoryview, kind: str) -> Iterator[tuple[int, int | memoryview]]:
    for field, value in fields(content):
        if field not in _PLAIN[kind]:
            raise ValueError(f"the {kind} has the field {field}, which a plain network does not have")
        yield field, value


def _each(content: bytes | memoryview, kind: str, wanted: int) -> Iterator[memoryview]:
    for field, value in _plain(content, kind):
        if field == wanted:
            yield _bytes(value)


def _text(message: memoryview, wanted: int) -> str:
    return "".join(bytes(_bytes(value)).decode() for field, value in fields(message) if field == wanted)


def _check_operator(operator: memoryview) -> None:
    for attribute in _each(operator, "operator", _ATTRIBUTE):
        for _ in _plain(attribute, "attribute"):
            pass
    if _text(operator, _DOMAIN):
        raise ValueError("an operator of another library")


def _stored(tensor: memoryview) -> Stored | None:
    """Where the data of a tensor lie; None if they lie in it."""
    kind, elsewhere = 0, 0
    shape: list[int] = []
    place: list[tuple[str, str]] = []
    for field, value in _plain(tensor, "tensor"):
        if field == _EXTERNAL:
            place.append((_text(_bytes(value), 1), _text(_bytes(value), 2)))
        elif field in (_DIMENSIONS, _TYPE, _LOCATION):
            if not isinstance(value, int):
                raise ValueError("a message in place of a number")
            if field == _DIMENSIONS:
                shape.append(value)
            elif field == _TYPE:
                kind = value
            else:
                elsewhere = value
    if not elsewhere and not place:
        return None
    facts = dict(place)
    if sorted(key for key, _ in place) != ["length", "location", "offset"]:
        raise ValueError("a tensor in another file without a place there")
    return Stored(kind, tuple(shape), facts["location"], int(facts["offset"]), int(facts["length"]))
