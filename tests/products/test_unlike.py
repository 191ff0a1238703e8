"""The share of a map that is unlike the training data, with known truth."""

import numpy as np
import pytest

from geocfl.products.scratch import NOVELTY
from geocfl.products.unlike import unlike_land, unlike_sentence

CODES = np.array([[1, 2, 255], [0, 3, 3]], np.uint8)
NOVEL = np.array([[95, 96, 100], [255, 0, 97]], np.uint8)


def test_area_beyond_the_percentile_by_hand(cells_of, grid_of):
    """The scene is 160 x 90 px of 10 m, so cells of the last column are 32 px wide and of the last row 26 px high."""
    cells = cells_of(CODES, None, NOVEL, names=[NOVELTY])
    found = unlike_land(cells, grid_of(CODES, 64, (38, 32)))
    assert found is not None
    assert (found["percentile"], found["cells"]) == (95, 3)
    beyond = 64 * 64 + 32 * 64 + 32 * 26  # pixels; unclassified cells count
    assert found["hectares"] == pytest.approx(beyond / 100)
    assert found["share"] == pytest.approx(beyond / (160 * 90 - 64 * 26))


def test_a_map_without_novelty_says_nothing(cells_of, grid_of):
    assert unlike_land(cells_of(CODES), grid_of(CODES)) is None
    assert unlike_sentence({}) == ""


@pytest.mark.parametrize(("share", "text"), [(0.1234, "12.3%"), (0.0, "0.0%"), (0.0001, "<0.1%"), (1.0, "100.0%")])
def test_the_sentence(share, text):
    found = unlike_sentence({"novelty": {"percentile": 95, "cells": 1, "hectares": 1.0, "share": share}})
    assert found.startswith(f"{text} of this map lies on land unlike anything the model was trained on")


def test_nothing_but_no_data(cells_of, grid_of):
    empty = np.zeros((2, 3), np.uint8)
    found = unlike_land(cells_of(empty, None, np.full((2, 3), 255, np.uint8), names=[NOVELTY]), grid_of(empty))
    assert found is not None
    assert found["share"] == 0
