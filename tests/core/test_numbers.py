"""Digital numbers give what their reflectance gives, to the bit."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from geocfl.core.numbers import Numbers, at_least, known, reflectance, thinned
from geocfl.core.radiometry import Scaling
from geocfl.mapping.saturation import saturated_cells


@given(
    dtype=st.sampled_from([np.uint8, np.uint16]),
    scaling=st.tuples(*[st.builds(Scaling, st.floats(0.1, 1e5), st.floats(-2000, 2000))] * 2),
    limit=st.floats(0, 2),
    seed=st.integers(0, 99),
)
def test_numbers_stand_for_their_reflectance(dtype, scaling, limit, seed):
    rng = np.random.default_rng(seed)
    planes = rng.integers(0, np.iinfo(dtype).max, (3, 13, 20), dtype, endpoint=True)
    planes[2] = rng.random((13, 20)) < 0.2
    pixels = Numbers(planes, scaling)
    expected = np.stack([s.to_reflectance(band) for s, band in zip(scaling, planes, strict=False)])
    expected[:, planes[2] == 1] = np.nan
    assert pixels.shape == expected.shape
    np.testing.assert_array_equal(reflectance(pixels), expected)
    np.testing.assert_array_equal(known(pixels), known(expected))
    for band in range(2):
        np.testing.assert_array_equal(at_least(pixels, band, limit), at_least(expected, band, limit))
        np.testing.assert_array_equal(at_least(pixels, band, np.inf), np.zeros((13, 20), bool))
    every = slice(1, None, 3), slice(None, None, 2)
    np.testing.assert_array_equal(thinned(pixels, [1, 0, 0], *every), thinned(expected, [1, 0, 0], *every))
    part = pixels.part(slice(2, 9), slice(3, 20))
    np.testing.assert_array_equal(reflectance(part), expected[:, 2:9, 3:20])
    np.testing.assert_array_equal(saturated_cells(pixels, 4, limit), saturated_cells(expected, 4, limit))
