"""Tiles cover each window once and hold its footprint, wherever a strip begins and ends."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geocfl.models.backends.jobs import TILE, batches, tile_rows, tiles
from geocfl.models.bundle import Bundle

BUNDLE = replace(Bundle.load(), feature_stride=16)


@given(
    stride=st.sampled_from(list(BUNDLE.strides())),
    height=st.integers(1, 120),
    width=st.integers(1, 120),
    seed=st.integers(0, 9),
)
def test_every_window_lies_in_one_tile(stride: int, height: int, width: int, seed: int) -> None:
    wanted = np.random.default_rng(seed).random((height, width)) < 0.3
    rows, columns = np.nonzero(wanted)
    shape = ((height - 1) * stride + BUNDLE.footprint, (width - 1) * stride + BUNDLE.footprint)
    found = list(tiles(rows, columns, stride, BUNDLE, shape))
    assert sorted(np.concatenate([tile.windows for tile in found] or [[]])) == list(range(len(rows)))
    for tile in found:
        assert tile.rows.stop <= shape[0]
        assert tile.columns.stop <= shape[1]
        assert (tile.rows.stop - tile.rows.start) % 16 == (tile.columns.stop - tile.columns.start) % 16 == 0
        # Where the window starts in the strip: its footprint, then the context.
        top = tile.rows.start + 16 * tile.row
        left = tile.columns.start + 16 * tile.column
        np.testing.assert_array_equal(top, rows[tile.windows] * stride + BUNDLE.context)
        np.testing.assert_array_equal(left, columns[tile.windows] * stride + BUNDLE.context)
        assert (top + BUNDLE.window + BUNDLE.context <= tile.rows.stop).all()
        assert (left + BUNDLE.window + BUNDLE.context <= tile.columns.stop).all()


@pytest.mark.parametrize("stride", [16, 32, 48, 64])
def test_tiles_are_the_same_in_any_strip(stride: int) -> None:
    side = tile_rows(stride)
    assert side * stride == TILE
    height, width = 2 * side + 3, side + 2

    def boxes(first: int, last: int) -> list[tuple[int, int, int, int]]:
        rows, columns = np.indices((last - first, width)).reshape(2, -1)
        shape = ((last - first - 1) * stride + BUNDLE.footprint, (width - 1) * stride + BUNDLE.footprint)
        return [
            (first * stride + t.rows.start, first * stride + t.rows.stop, t.columns.start, t.columns.stop)
            for t in tiles(rows, columns, stride, BUNDLE, shape)
        ]

    assert boxes(0, height) == boxes(0, side) + boxes(side, height) == boxes(0, 2 * side) + boxes(2 * side, height)


def test_batches_cover_all() -> None:
    assert list(batches(7, 3)) == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert list(batches(0, 3)) == []


def test_strides_of_a_dense_model(tiny_dense: Path) -> None:
    assert list(Bundle.load(tiny_dense).strides()) == [16, 32, 48, 64]
    assert list(Bundle.load("eurosat-rgb-lite0").strides()) == list(range(1, 65))
