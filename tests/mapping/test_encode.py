"""What is kept of probabilities."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import entropy

from geocfl.core.legend import UNCLASSIFIED
from geocfl.mapping.encode import Decision


def test_code_and_confidence_of_the_likeliest_class():
    values = Decision(3).of(np.array([[0.2, 0.7, 0.1], [0.5, 0.25, 0.25]], np.float32))
    assert values.dtype == np.uint8
    assert values.tolist() == [[2, 1], [70, 50]]


@pytest.mark.parametrize("percent", range(101))
def test_what_is_written_as_the_bound_is_not_below_it(percent):
    """100 * 0.07 is 7.000000000000001."""
    probability = np.array([[percent / 100, 1 - percent / 100]], np.float32)
    confidence = max(percent, 100 - percent)
    assert Decision(2, confidence / 100).of(probability)[0, 0] != UNCLASSIFIED
    if confidence < 100:
        assert Decision(2, (confidence + 1) / 100).of(probability)[0, 0] == UNCLASSIFIED
    assert Decision(2, 1.0).of(probability)[1, 0] == confidence


@given(arrays(np.float64, (5, 4), elements=st.floats(0, 1)))
def test_detail_is_entropy_and_all_probabilities(weights):
    probability = weights + 1e-9
    probability /= probability.sum(axis=1, keepdims=True)
    decision = Decision(4, detail=True)
    values = decision.of(probability.astype(np.float32))
    assert values.shape == (len(decision.bands), 5) == (7, 5)
    np.testing.assert_allclose(values[2], 100 * entropy(probability, base=4, axis=1), atol=0.51)
    np.testing.assert_allclose(values[3:].T, 100 * probability, atol=0.51)
    assert (values[1] == values[3:].max(axis=0)).all()


def test_certainty_and_ignorance():
    values = Decision(4, detail=True).of(np.array([[1, 0, 0, 0], [0.25] * 4], np.float32))
    assert values[2].tolist() == [0, 100]
