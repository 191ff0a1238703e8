"""Damages files: bits, lengths and values of headers, drawn from a seeded generator.

Each damage takes a random generator and the content of an intact file, and returns the damaged content with a few words
about it.
"""

from __future__ import annotations

import copy
import json
import struct
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

Rng = np.random.Generator
Damage = Callable[[Rng, bytes], tuple[bytes, str]]

NUMBERS = (0, 1, 2, 7, 255, 256, 32767, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
"""Values for whole-number fields of headers."""
TEXTS = ("", " ", "nan", "inf", "-inf", "-1", "0", "1e308", "-1e308", "1e-320", "99999999999999999999", "\x7f",
         "../../x", "/etc/passwd", "%s%n", "ä" * 3, "x" * 100_000, "true", "None", "0x10", "1,5", "12;3")  # fmt: skip
"""Values for texts of documents."""
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, -1e308, 1e308, 5e-324, float("nan"), float("inf"), 2**70, "", "x", "\x00", "../../x",
    [], {}, [[]], [None], {"a": 1}, "y" * 100_000, [0] * 10_000,
)  # fmt: skip
"""Values for JSON documents."""


def flipped(rng: Rng, content: bytes) -> tuple[bytes, str]:
    """1 to 16 bits are flipped anywhere."""
    return _flip(rng, content, len(content))


def flipped_early(rng: Rng, content: bytes) -> tuple[bytes, str]:
    """1 to 4 bits are flipped in the first 512 bytes, where headers are."""
    return _flip(rng, content, min(512, len(content)), most=4)


def _flip(rng: Rng, content: bytes, end: int, most: int = 16) -> tuple[bytes, str]:
    data, bits = bytearray(content), rng.integers(0, 8 * end, rng.integers(1, most + 1))
    for bit in bits:
        data[bit // 8] ^= 1 << bit % 8
    return bytes(data), f"bits {sorted(map(int, bits))} are flipped"


def truncated(rng: Rng, content: bytes) -> tuple[bytes, str]:
    """The end is missing."""
    length = int(rng.integers(0, len(content)))
    return content[:length], f"only the first {length} of {len(content)} bytes"


def blanked(rng: Rng, content: bytes) -> tuple[bytes, str]:
    """A run of bytes is zero, as after a lost block of a disk."""
    start, length = _run(rng, content)
    return content[:start] + bytes(length) + content[start + length :], f"bytes {start} to {start + length} are zero"


def scrambled(rng: Rng, content: bytes) -> tuple[bytes, str]:
    """A run of bytes is random."""
    start, length = _run(rng, content)
    return content[:start] + rng.bytes(length) + content[start + length :], f"{start} to {start + length} are random"


def shifted(rng: Rng, content: bytes) -> tuple[bytes, str]:
    """A run of bytes is missing or comes twice."""
    start, length = _run(rng, content)
    if rng.random() < 0.5:
        return content[:start] + content[start + length :], f"bytes {start} to {start + length} are missing"
    return content[: start + length] + content[start:], f"bytes {start} to {start + length} come twice"


def _run(rng: Rng, content: bytes) -> tuple[int, int]:
    length = int(min(len(content), 2 ** rng.uniform(0, 13)))
    return int(rng.integers(0, len(content) - length + 1)), length


def emptied(rng: Rng, content: bytes) -> tuple[bytes, str]:
    """Nothing, or nothing but zeros or noise."""
    which = int(rng.integers(3))
    data = (b"", bytes(len(content)), rng.bytes(len(content)))[which]
    return data, ("empty", "zeros", "noise")[which]


BYTES: tuple[Damage, ...] = (
    flipped,
    flipped,
    flipped_early,
    truncated,
    truncated,
    blanked,
    scrambled,
    shifted,
    emptied,
)
"""Damages of any file; some come more often."""


def tiff_entry(rng: Rng, content: bytes) -> tuple[bytes, str]:
    """The type, count or value of an entry in a TIFF's directory is absurd."""
    order = "<" if content[:2] == b"II" else ">"
    entries: list[int] = []
    offset = struct.unpack_from(order + "I", content, 4)[0]
    while 0 < offset < len(content) - 2 and len(entries) < 500:
        count = struct.unpack_from(order + "H", content, offset)[0]
        entries += [offset + 2 + 12 * index for index in range(count)]
        offset = struct.unpack_from(order + "I", content, offset + 2 + 12 * count)[0]
    at = int(rng.choice(entries))
    tag = struct.unpack_from(order + "H", content, at)[0]
    data = bytearray(content)
    what = ("type", "count", "value", "value", "value")[rng.integers(5)]
    if what == "type":
        value = int(rng.integers(0, 20))
        struct.pack_into(order + "H", data, at + 2, value)
    elif what == "count":
        value = int(rng.choice(NUMBERS[:12]))
        struct.pack_into(order + "I", data, at + 4, value)
    else:
        value = int(rng.choice(NUMBERS[:12]))
        short = struct.unpack_from(order + "HI", content, at + 2) == (3, 1)
        struct.pack_into(order + ("H" if short else "I"), data, at + 8, value & 0xFFFF if short else value)
    return bytes(data), f"{what} of tag {tag} is {value}"


def tiff_double(rng: Rng, content: bytes) -> tuple[bytes, str]:
    """A number of a TIFF's place or keys is absurd: those that are stored as doubles."""
    order = "<" if content[:2] == b"II" else ">"
    start = struct.unpack_from(order + "I", content, 4)[0]
    places = []
    for index in range(struct.unpack_from(order + "H", content, start)[0]):
        tag, kind, count, where = struct.unpack_from(order + "HHII", content, start + 2 + 12 * index)
        if kind == 12:
            places += [(tag, where + 8 * number) for number in range(count)]
    if not places:
        return tiff_entry(rng, content)
    tag, where = places[rng.integers(len(places))]
    value = (0.0, -1.0, 1e-300, 1e308, float("nan"), float("inf"), 1e15, -1e15)[rng.integers(8)]
    data = bytearray(content)
    struct.pack_into(order + "d", data, where, value)
    return bytes(data), f"a number of tag {tag} is {value}"


def jp2_field(rng: Rng, content: bytes) -> tuple[bytes, str]:
    """A field of a JPEG 2000's boxes, or of its image size marker, is absurd."""
    data = bytearray(content)
    size = content.find(b"\xff\x51")
    if rng.random() < 0.6 and size > 0:
        at = size + 6 + 4 * int(rng.integers(0, 8))
        what = "size marker"
    else:
        boxes = [
            content.find(name) for name in (b"jP  ", b"ftyp", b"jp2h", b"ihdr", b"colr", b"uuid", b"jp2c", b"asoc")
        ]
        at = int(rng.choice([box - 4 + shift for box in boxes if box > 0 for shift in (0, 8)]))
        what = "box"
    value = int(rng.choice(NUMBERS[:12]))
    struct.pack_into(">I", data, at, value)
    return bytes(data), f"{what} at byte {at} is {value}"


def xml_element(rng: Rng, content: bytes) -> tuple[bytes, str]:
    """An element of an XML document is missing, twice, renamed, elsewhere or absurd, or the document is a bomb."""
    root = ET.fromstring(content)
    pairs = [(parent, child) for parent in root.iter() for child in parent]
    parent, child = pairs[rng.integers(len(pairs))]
    how = int(rng.integers(9))
    text = TEXTS[rng.integers(len(TEXTS))]
    short = ascii(text[:20])
    if how == 0:
        parent.remove(child)
        said = f"no {child.tag}"
    elif how == 1:
        parent.append(copy.deepcopy(child))
        said = f"{child.tag} twice"
    elif how == 2:
        child.tag, said = "other", f"{child.tag} is called other"
    elif how == 3 and child.attrib:
        name = sorted(child.attrib)[rng.integers(len(child.attrib))]
        child.attrib[name], said = text, f"{name} of {child.tag} is {short}"
    elif how == 4:
        parent.remove(child)
        root.append(child)
        said = f"{child.tag} at the end"
    elif how == 5:
        return b"".join((b"<a>" * 100_000, b"</a>" * 100_000)), "100,000 levels"
    elif how == 6:
        bomb = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
        bombed = f'<!DOCTYPE x [<!ENTITY e0 "lol">{bomb}]><x>&e9;</x>'
        return bombed.encode(), "entities that grow to gigabytes"
    else:
        said = f"{child.tag} is {short}"
        child.text = text
    return ET.tostring(root), said


def json_value(rng: Rng, content: bytes) -> tuple[bytes, str]:
    """A value of a JSON document is absurd, of another type or missing, or the document is nested deeply."""
    document = json.loads(content)
    if rng.random() < 0.03:
        depth = int(rng.choice([1000, 200_000]))
        return b"[" * depth + b"]" * depth, f"{depth} levels"
    places = list(_places(document))
    holder, key = places[rng.integers(len(places))]
    name = f"{key!r}"
    if rng.random() < 0.2:
        del holder[key]
        said = f"no {name}"
    else:
        value = VALUES[rng.integers(len(VALUES))]
        holder[key], said = value, f"{name} is {str(value)[:20]!r}"
    return json.dumps(document).encode(), said


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict):
        keys: Iterable[Any] = list(value)
    else:
        keys = range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def tensors(rng: Rng, content: bytes) -> tuple[bytes, str]:
    """The header of a safetensors file is absurd: its length, or the type, shape or place of a tensor."""
    length = struct.unpack("<Q", content[:8])[0]
    if rng.random() < 0.2:
        value = int(rng.choice(np.array(NUMBERS, np.uint64)))
        return struct.pack("<Q", value) + content[8:], f"length of the header is {value}"
    header = json.loads(content[8 : 8 + length])
    names = [name for name in header if name != "__metadata__"]
    name = names[rng.integers(len(names))]
    how = int(rng.integers(5))
    if how == 0:
        del header[name]
        said = f"no tensor {name}"
    elif how == 1:
        header["other"] = header.pop(name)
        said = f"{name} is called other"
    elif how == 2:
        header[name]["dtype"] = ("F64", "I8", "BOOL", "x", None)[rng.integers(5)]
        said = f"{name} is of type {header[name]['dtype']}"
    elif how == 3:
        header[name]["shape"] = ([], [0], [-1], [2**40, 2**40], None, [1, 2, 3])[rng.integers(6)]
        said = f"{name} has the shape {header[name]['shape']}"
    else:
        header[name]["data_offsets"] = ([0, 0], [5, 2], [-4, 4], [0, 2**62], None)[rng.integers(5)]
        said = f"{name} lies at {header[name]['data_offsets']}"
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :], said


def weights(rng: Rng, content: bytes) -> tuple[bytes, str]:
    """A weight in half precision is not finite."""
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    halves = [entry for name, entry in header.items() if name != "__metadata__" and entry["dtype"] == "F16"]
    first, last = halves[rng.integers(len(halves))]["data_offsets"]
    at = 8 + length + int(rng.integers(first, last)) // 2 * 2
    value = (b"\x00\x7c", b"\x00\x7e", b"\x00\xfc")[rng.integers(3)]
    return content[:at] + value + content[at + 2 :], f"weight at byte {at} is not finite"


def zip_field(rng: Rng, content: bytes) -> tuple[bytes, str]:
    """A field of a zip archive's headers is absurd: method, flags, checksum, sizes, places, names."""
    headers = [
        (b"PK\x03\x04", (4, 6, 8, 14, 18, 22, 26, 28, 30)),
        (b"PK\x01\x02", (6, 8, 10, 16, 20, 24, 28, 30, 42, 46)),
        (b"PK\x05\x06", (4, 8, 10, 12, 16, 20)),
    ]
    places = []
    for mark, fields in headers:
        at = content.find(mark)
        while at >= 0:
            places += [at + field for field in fields]
            at = content.find(mark, at + 4)
    at = places[rng.integers(len(places))]
    value = int(rng.choice(NUMBERS[:8]))
    data = bytearray(content)
    struct.pack_into("<H", data, min(at, len(content) - 2), value)
    return bytes(data), f"field at byte {at} is {value}"
