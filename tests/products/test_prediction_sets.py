"""Prediction sets as bits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from geocfl.products.prediction_sets import MOST_CLASSES, pack, set_type, unpack


@given(st.integers(1, MOST_CLASSES).flatmap(lambda classes: arrays(bool, (6, classes))))
def test_every_set_survives_packing(members):
    classes = members.shape[1]
    masks = unpack(pack(members), classes)
    assert masks.dtype == set_type(classes)
    bits = [[bool(mask >> bit & 1) for bit in range(classes)] for mask in masks.tolist()]
    assert bits == members.tolist()
    assert (masks < np.iinfo(masks.dtype).max).all()  # which is no data


def test_the_type_grows_with_the_classes():
    sizes = {classes: set_type(classes).itemsize for classes in (1, 7, 8, 15, 16, 31)}
    assert sizes == {1: 1, 7: 1, 8: 2, 15: 2, 16: 4, 31: 4}
    with pytest.raises(ValueError, match="32 classes do not fit"):
        set_type(32)


def test_cells_without_data_are_the_highest_value():
    assert unpack(np.full((2, 3), 255, np.uint8), 10).tolist() == [65535] * 3
