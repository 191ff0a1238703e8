"""Smoothing against its formula, and on maps whose result is known."""

import numpy as np
import pytest

from geocfl.mapping.smooth import smooth, smoothing_reach


def probabilities(rows: int, columns: int, classes: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(classes), (rows, columns)).astype(np.float32)


def by_formula(
    p: np.ndarray, valid: np.ndarray, stride: int, window: int, sigma: float, sharpness: float
) -> np.ndarray:
    expected = p.astype(np.float64)
    for i, j in np.argwhere(valid):
        total = np.zeros(p.shape[2])
        for k, m in np.argwhere(valid):
            near, far = sorted((abs(i - k) * stride, abs(j - m) * stride))
            if 2 * far < window + stride:  # the window of (k, m) covers a part of (i, j)
                kernel = np.exp(-(near**2 + far**2) / (2 * sigma**2))
                total += kernel * float(p[k, m].max()) ** sharpness * p[k, m]
        expected[i, j] = total / total.sum()
    return expected


@pytest.mark.parametrize(("stride", "window"), [(16, 64), (20, 64), (48, 64), (7, 32), (63, 64)])
@pytest.mark.parametrize(("sigma", "sharpness"), [(12, 8), (30, 0), (5, 1)])
def test_cells_get_the_weighted_mean(stride: int, window: int, sigma: float, sharpness: float) -> None:
    p = probabilities(9, 11)
    valid = np.random.default_rng(1).random((9, 11)) < 0.8
    p[~valid] = np.nan
    smoothed = smooth(p, valid, stride, window, sigma=sigma, sharpness=sharpness)
    np.testing.assert_allclose(smoothed, by_formula(p, valid, stride, window, sigma, sharpness), rtol=2e-5)
    assert smoothed.dtype == np.float32


def test_an_unsure_cell_follows_its_sure_neighbors_and_not_the_reverse() -> None:
    p = np.full((5, 5, 2), (0.9, 0.1), np.float32)
    p[2, 2] = 0.45, 0.55
    smoothed = smooth(p, np.ones((5, 5), bool), 16, 64)
    assert (smoothed.argmax(-1) == 0).all()
    p[2, 2] = 0.0, 1.0
    p[p[..., 0] > 0] = 0.55, 0.45
    smoothed = smooth(p, np.ones((5, 5), bool), 16, 64)
    assert smoothed[2, 2].argmax() == smoothed[2, 3].argmax() == 1
    assert smoothed[0, 0].argmax() == 0


def test_cells_of_kept_classes_stay_as_they_are() -> None:
    p = np.full((5, 5, 3), (0.9, 0.05, 0.05), np.float32)
    p[2] = 0.4, 0.5, 0.1
    p[4, 4] = 0.4, 0.1, 0.5
    everywhere = np.ones((5, 5), bool)
    kept = smooth(p, everywhere, 16, 64, keep=(2,))
    np.testing.assert_array_equal(kept[2], p[2])
    assert kept[4, 4].argmax() == 0
    assert (smooth(p, everywhere, 16, 64)[2].argmax(-1) == 0).all()


def test_cells_without_data_do_not_count() -> None:
    p = probabilities(6, 6)
    valid = np.zeros((6, 6), bool)
    valid[3, 3] = True
    np.testing.assert_allclose(smooth(p, valid, 16, 64), p, rtol=1e-6)


def test_nothing_changes_where_all_are_alike_or_windows_do_not_overlap() -> None:
    alike = np.broadcast_to(probabilities(1, 1), (8, 9, 3)).copy()
    np.testing.assert_allclose(smooth(alike, np.ones((8, 9), bool), 16, 64), alike, rtol=1e-5)
    p = probabilities(8, 9)
    assert smoothing_reach(64, 64) == 0
    np.testing.assert_allclose(smooth(p, np.ones((8, 9), bool), 64, 64), p, rtol=1e-5)
