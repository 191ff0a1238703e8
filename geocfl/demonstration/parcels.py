"""Parcels of a synthetic landscape: blocks of land, each divided into strips of fields or lots."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from geocfl.demonstration.terrain import Array, Terrain

Labels = NDArray[np.int64]

PRIME = 4093
"""Length of the tables of random numbers for parcels."""


@dataclass(frozen=True)
class Parcels:
    """The parcel of each of N pixels.

    Attributes:
        ident: (N,) int64 number of the parcel.
        along: (N,) pixels along the rows.
        across: (N,) pixels across the rows.
        edge: (N,) pixels to the nearest edge of the parcel.
        block_edge: (N,) pixels to the nearest block of parcels with another orientation.
    """

    ident: Labels
    along: Array
    across: Array
    edge: Array
    block_edge: Array


def parcels(rng: Generator, terrain: Terrain, block: float, length: float, width: float) -> Parcels:
    """Divides land into blocks of about `block` pixels, and each into strips of parcels of `length` by `width`."""
    x, y = terrain.x + 3 * terrain.smooth, terrain.y - 3 * terrain.smooth
    number, block_edge = blocks(rng, x, y, block)
    angle = lot(rng, number, 0, np.pi)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    strip, to_strip = _divide(across, lot(rng, number, 0.7, 1.4) * np.float32(width))
    row = number * 7919 + strip
    plot, to_plot = _divide(along + lot(rng, row, 0, length), lot(rng, row, 0.6, 1.6) * np.float32(length))
    edge = np.minimum(np.minimum(to_strip, to_plot), block_edge)
    return Parcels(row * 6101 + plot, along, across, edge, block_edge)


def _divide(position: Array, step: Array) -> tuple[Labels, Array]:
    """The interval that contains each position on a line, and the distance to its nearer end."""
    number = np.floor(position / step)
    start = position - number * step
    return number.astype(np.int64), np.minimum(start, step - start)


def blocks(rng: Generator, x: Array, y: Array, side: float) -> tuple[Labels, Array]:
    """Voronoi cells of one random point per square of `side` pixels, and the distance to the nearest border, pixels."""
    column, row = np.floor(x / side), np.floor(y / side)
    jitter = rng.random((2, PRIME), np.float32)
    first, second = np.full((2, 3, x.size), np.inf, np.float32)  # squared distance, x and y of the two nearest points
    number = np.zeros(x.size, np.int64)
    for i, j in itertools.product((-1, 0, 1), repeat=2):
        ident = ((row + i) * 613 + column + j).astype(np.int64)
        east, south = (column + j + jitter[0, ident % PRIME]) * side, (row + i + jitter[1, ident % PRIME]) * side
        point = np.stack([(x - east) ** 2 + (y - south) ** 2, east, south])
        nearest = point[0] < first[0]
        second = np.where(nearest, first, np.where(point[0] < second[0], point, second))
        first = np.where(nearest, point, first)
        number[nearest] = ident[nearest]
    between = np.hypot(second[1] - first[1], second[2] - first[2])
    return number, (second[0] - first[0]) / (2 * between)


def lot(rng: Generator, ident: Labels, low: float = 0.0, high: float = 1.0) -> Array:
    """A uniform random number for each parcel, the same at all of its pixels."""
    lots: Array = rng.uniform(low, high, PRIME).astype(np.float32)
    return lots[ident % PRIME]
