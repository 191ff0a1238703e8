"""Cells that saturate, by hand."""

import numpy as np

from geocfl.mapping.saturation import saturated_cells

LIMIT = 0.275


def scene(bands: int = 3) -> np.ndarray:
    return np.full((bands, 20, 30), 0.1, np.float32)


def test_more_than_a_tenth_in_all_bands():
    pixels = scene()
    pixels[:, 0, :10] = LIMIT  # 10 of the 100 pixels of the first cell: not more than a tenth
    pixels[:, 1, 10:20] = pixels[:, 2, 10:11] = 0.9  # 11 of the second
    pixels[:2, :, 20:] = 0.9  # two of three bands of the third column
    assert saturated_cells(pixels, 10, LIMIT).tolist() == [[False, True, False], [False, False, False]]


def test_pixels_without_data_do_not_count():
    pixels = scene()
    pixels[:, :5, :10] = np.nan
    pixels[:, 5, :6] = 0.5  # 6 of the 50 with data
    assert saturated_cells(pixels, 10, LIMIT).tolist() == [[True, False, False], [False] * 3]
    pixels[:, 5, :1] = 0.1
    assert not saturated_cells(pixels, 10, LIMIT).any()


def test_cells_at_the_edge_count_their_own_pixels():
    pixels = scene()
    pixels[:, 16:, 24:] = 0.5  # all 4 x 6 pixels of the last cell
    found = saturated_cells(pixels, 8, LIMIT)
    assert np.argwhere(found).tolist() == [[2, 3]]


def test_one_band_suffices_for_a_model_of_one_band():
    pixels = scene(1)
    pixels[0, :10, :10] = 0.3
    assert saturated_cells(pixels, 10, LIMIT).sum() == 1
    assert not saturated_cells(pixels, 10, np.inf).any()
