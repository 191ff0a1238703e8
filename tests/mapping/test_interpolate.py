"""Interpolation between cells: which are classified, and what the others get."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from geocfl.mapping.interpolate import INTERPOLATION_REACH, cells_to_classify, interpolate

masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.sampled_from([True, True, False]))


def field(rows: int, columns: int, of=lambda y, x: 2 * y - 3 * x + 1) -> np.ndarray:
    y, x = np.indices((rows, columns)).astype(np.float32)
    return np.stack([of(y, x), -of(y, x)], axis=-1).astype(np.float32)


def known(logits: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    return np.where(chosen[..., None], logits, np.nan).astype(np.float32)


@given(masks)
def test_every_cell_with_data_gets_a_value(valid: np.ndarray) -> None:
    chosen = cells_to_classify(valid, len(valid))
    assert not (chosen & ~valid).any()
    logits = field(*valid.shape)
    result = interpolate(known(logits, chosen))
    assert not np.isnan(result[valid]).any()
    np.testing.assert_array_equal(result[chosen], logits[chosen])


@given(masks, st.integers(1, 5))
def test_strips_choose_the_same_cells_as_the_whole_map(valid: np.ndarray, half: int) -> None:
    rows, step = len(valid), 2 * half
    strips = [cells_to_classify(valid[top : top + step], rows - top) for top in range(0, rows, step)]
    np.testing.assert_array_equal(np.concatenate(strips), cells_to_classify(valid, rows))


@given(masks, st.integers(0, 5))
def test_no_cell_depends_on_rows_out_of_reach(valid: np.ndarray, half: int) -> None:
    logits = known(field(*valid.shape, lambda y, x: np.cos(5 * y + 3 * x)), cells_to_classify(valid, len(valid)))
    whole = interpolate(logits.copy())
    row = min(2 * half, len(valid) - 1)
    top = max(0, row - INTERPOLATION_REACH) // 2 * 2
    part = interpolate(logits[top : row + 1 + INTERPOLATION_REACH].copy())
    np.testing.assert_array_equal(part[row - top], whole[row])


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (8, 10), (11, 7)])
def test_a_plane_is_restored_to_the_edges(shape: tuple[int, int]) -> None:
    logits = field(*shape)
    chosen = cells_to_classify(np.ones(shape, bool), shape[0])
    np.testing.assert_allclose(interpolate(known(logits, chosen)), logits, atol=1e-4)


def test_a_parabola_is_restored_inside() -> None:
    logits = field(16, 16, lambda y, x: y * y - 2 * x * x + y * x)
    chosen = cells_to_classify(np.ones((16, 16), bool), 16)
    result = interpolate(known(logits, chosen))
    np.testing.assert_allclose(result[3:-4, 3:-4], logits[3:-4, 3:-4], atol=1e-3)


def test_a_quarter_of_a_large_map_is_classified() -> None:
    assert cells_to_classify(np.ones((400, 500), bool), 400).mean() == pytest.approx(0.25, abs=0.005)


def test_cells_at_gaps_are_classified() -> None:
    valid = np.ones((6, 7), bool)
    valid[2, 2] = False
    chosen = cells_to_classify(valid, 100)
    assert chosen[2].tolist() == [True, True, False, True, True, False, True]
    assert chosen[3].tolist() == [False, False, True, False, False, False, False]
    assert not chosen[5].any()  # a row follows
    assert cells_to_classify(valid, 6)[5].all()
