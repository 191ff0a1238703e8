"""Prediction sets as bits: the classes that a cell may have."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MOST_CLASSES = 31
"""Classes that a set can tell apart: one bit each, and one more for no data."""


def set_type(classes: int) -> np.dtype[np.unsignedinteger]:
    """The smallest unsigned type with a bit per class and one to spare, so that its highest value is in no set."""
    if classes > MOST_CLASSES:
        raise ValueError(f"{classes} classes do not fit into {MOST_CLASSES} bits")
    return np.dtype(np.uint8 if classes < 8 else np.uint16 if classes < 16 else np.uint32)


def pack(members: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Sets as bytes: bit (code - 1) is set if the class is a member; the lowest byte comes first.

    Args:
        members: (n, classes) which classes are in each set.

    Returns:
        (bytes, n) uint8, as many bytes as `set_type` has.
    """
    size = set_type(members.shape[1]).itemsize
    low_first = np.packbits(members, axis=1, bitorder="little")
    return np.pad(low_first, ((0, 0), (0, size - low_first.shape[1]))).T


def unpack(packed: NDArray[np.uint8], classes: int) -> NDArray[np.unsignedinteger]:
    """The bit masks that `pack` has split into bytes.

    Args:
        packed: (bytes, ...) uint8, the lowest byte first.
        classes: Number of classes.

    Returns:
        (...) of type `set_type`.
    """
    kind = set_type(classes)
    masks = np.zeros(packed.shape[1:], kind)
    for index, byte in enumerate(packed):
        masks |= byte.astype(kind) << kind.type(8 * index)
    return masks
