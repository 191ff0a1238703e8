"""Terrain of a synthetic landscape: random fields for hills, clumps, grain and shade."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Terrain:
    """Coordinates and random fields of the pixels of a scene or of one class, as arrays of the same shape.

    Attributes:
        x: Pixels from the west.
        y: Pixels from the north.
        smooth: Hills of hundreds of meters, unit variance.
        rough: Clumps of a few pixels, unit variance.
        fine: White noise, unit variance.
        shade: Illumination of slopes by a sun in the south-east, about -1..1.
    """

    x: Array
    y: Array
    smooth: Array
    rough: Array
    fine: Array
    shade: Array

    @classmethod
    def draw(cls, rng: Generator, height: int, width: int) -> Terrain:
        """Fields of a scene's pixels."""
        y, x = np.mgrid[:height, :width].astype(np.float32)
        smooth = _random_field(rng, height, width, slope=1.7)
        rough = _random_field(rng, height, width, slope=0.9)
        relief = _random_field(rng, height, width, slope=1.9)
        slope = np.gradient(relief, axis=0) + np.gradient(relief, axis=1)
        return cls(x, y, smooth, rough, rng.standard_normal(x.shape, np.float32), slope / slope.std())

    def __getitem__(self, pixels: Mask) -> Terrain:
        return Terrain(*(field[pixels] for field in vars(self).values()))


def _random_field(rng: Generator, height: int, width: int, slope: float) -> Array:
    """(height, width) Gaussian field of unit variance whose amplitude falls with frequency to the power of `slope`."""
    spectrum = np.fft.rfft2(rng.standard_normal((height, width), np.float32))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    field = np.fft.irfft2(spectrum / np.maximum(frequency, 1 / max(height, width)) ** slope, (height, width))
    return np.asarray((field - field.mean()) / field.std(), np.float32)
