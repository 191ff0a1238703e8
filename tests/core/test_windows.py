"""Windows at edges and gaps: mirroring, filling, and which cells have data."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geocfl.core.windows import fill, has_data, mirror, spread


@pytest.mark.parametrize("turns", range(4))
def test_half_a_window_is_mirrored_about_its_edge(turns: int) -> None:
    window = np.broadcast_to(np.arange(8, dtype=np.float32), (1, 2, 8, 8)).copy()
    window[..., 5:] = np.nan
    expected = np.broadcast_to(np.array([0, 1, 2, 3, 4, 3, 2, 1], np.float32), (1, 2, 8, 8))
    got = fill(np.rot90(window, turns, (2, 3)).copy())
    np.testing.assert_array_equal(got, np.rot90(expected, turns, (2, 3)))


def test_where_the_mirror_image_is_missing_the_nearest_pixel_counts() -> None:
    window = np.full((1, 1, 1, 8), np.nan, np.float32).repeat(8, axis=2)
    window[..., 3:5] = [1, 2]
    np.testing.assert_array_equal(fill(window)[0, 0, 0], [1, 1, 2, 1, 2, 1, 2, 2])


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0.01, 1), count=st.integers(0, 4))
def test_what_has_data_stays_and_the_rest_comes_from_the_same_window(seed: int, share: float, count: int) -> None:
    rng = np.random.default_rng(seed)
    whole = rng.uniform(size=(count, 3, 16, 16)).astype(np.float32)
    gaps = rng.uniform(size=(count, 16, 16)) > share
    windows = whole.copy()
    windows.transpose(0, 2, 3, 1)[gaps] = np.nan
    for before, known, after in zip(whole, ~gaps, fill(windows), strict=True):
        if not known.any():
            assert np.isnan(after).all()
            continue
        np.testing.assert_array_equal(after[:, known], before[:, known])
        there = {tuple(pixel) for pixel in before[:, known].T}
        assert {tuple(pixel) for pixel in after.reshape(3, -1).T} <= there, "whole pixels, not their bands one by one"


@given(st.integers(2, 50), st.data())
def test_mirror_is_numpys_reflect(size: int, data: st.DataObject) -> None:
    before, after = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size - 1))
    expected = np.pad(np.arange(size), (before, after), mode="reflect")
    np.testing.assert_array_equal(mirror(-before, size + after, size), expected)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 20), st.integers(0, 99))
def test_a_cell_is_no_data_when_more_than_half_of_it_is(height: int, width: int, stride: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < 0.5
    got = has_data(mask, stride)
    for i in range(got.shape[0]):
        for j in range(got.shape[1]):
            cell = mask[i * stride : (i + 1) * stride, j * stride : (j + 1) * stride]
            assert got[i, j] == (not (~cell).sum() > cell.size / 2)


def test_spread_squares_begin_at_both_ends_and_never_twice_at_the_same_place() -> None:
    assert spread(1000, 100, 4).tolist() == [0, 300, 600, 900]
    assert spread(102, 100, 4).tolist() == [0, 1, 2]
    assert spread(50, 100, 4).tolist() == [0]
