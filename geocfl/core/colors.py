"""Distances between colors as normal and color-blind eyes see them, and colors that are far apart."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_Array = NDArray[np.float64]

DEFICIENCIES = {
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
}
"""What red-blind and green-blind eyes see of linear red, green and blue.

Source: Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency",
IEEE Transactions on Visualization and Computer Graphics 15 (2009), severity 1.
"""
_EYES: _Array = np.array([np.eye(3), *DEFICIENCIES.values()])
_TO_XYZ: _Array = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
"""CIE XYZ of linear sRGB, white at D65."""
_CANDIDATES = [
    (hue / 24, lightness, saturation)
    for lightness in (0.25, 0.4, 0.55, 0.7)
    for saturation in (0.35, 0.65)
    for hue in range(24)
]
"""Hue, lightness and saturation of the colors that `distinct_colors` chooses from, neither black, white nor gray."""


def least_distances(colors: Sequence[str], others: Sequence[str]) -> _Array:
    """Distances between colors, the least of those that normal, red-blind and green-blind eyes see.

    Args:
        colors: n colors, ``"#rrggbb"``.
        others: m colors.

    Returns:
        (n, m) differences CIE76, Euclidean distances in CIELAB; 2.3 is just noticeable, and colors 20 apart
        differ clearly in a legend.
    """
    seen, compared = _seen(colors), _seen(others)
    distances: _Array = np.linalg.norm(seen[:, :, None] - compared[:, None, :], axis=-1).min(axis=0)
    return distances


def distinct_colors(count: int, taken: Sequence[str]) -> list[str]:
    """Colors that are far from each other and from `taken`, for normal and for color-blind eyes.

    Each is the candidate that is farthest from all colors before it, so the first ones differ most.

    Args:
        count: How many.
        taken: Colors that are in use already, at least one.
    """
    candidates = ["#" + bytes(round(255 * part) for part in colorsys.hls_to_rgb(*hls)).hex() for hls in _CANDIDATES]
    nearest = least_distances(candidates, taken).min(axis=1)
    chosen: list[str] = []
    for _ in range(count):
        chosen.append(candidates[int(nearest.argmax())])
        nearest = np.minimum(nearest, least_distances(candidates, chosen[-1:])[:, 0])
    return chosen


def _seen(colors: Sequence[str]) -> _Array:
    """(eyes, n, 3) CIELAB of colors as each kind of eyes sees them."""
    rgb = np.array([list(bytes.fromhex(color[1:])) for color in colors]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = np.clip(linear @ _EYES.transpose(0, 2, 1), 0, 1) @ _TO_XYZ.T / _TO_XYZ.sum(axis=1)
    x, y, z = np.moveaxis(np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
