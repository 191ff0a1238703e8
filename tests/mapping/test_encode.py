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


def test_novelty_is_rounded_up_and_withholds_what_is_beyond():
    probability = np.full((5, 2), 0.5, np.float32)
    novelty = np.array([0, 94.2, 95, 95.01, 100], np.float32)
    decision = Decision(2, novelty=True, max_novelty=95)
    assert decision.bands == ("code", "confidence", "novelty")
    assert decision.of(probability, novelty).tolist() == [[1, 1, 1, 255, 255], [50] * 5, [0, 95, 95, 96, 100]]
    assert (Decision(2, novelty=True, max_novelty=99).of(probability, novelty)[0] == [1, 1, 1, 1, 255]).all()
    assert (Decision(2, novelty=True, max_novelty=100).of(probability, novelty)[0] == 1).all()
    assert (Decision(2, novelty=True).of(probability, novelty)[0] == 1).all()
    with pytest.raises(ValueError, match="no novelty"):
        decision.of(probability)


@given(st.integers(2, 12).flatmap(lambda n: st.tuples(arrays(float, (6, n), elements=st.floats(0, 1)), st.just(n))))
def test_sets_are_the_classes_within_their_thresholds(drawn):
    weights, classes = drawn
    probability = ((weights + 1e-6) / (weights + 1e-6).sum(axis=1, keepdims=True)).astype(np.float32)
    thresholds = tuple(np.linspace(0.3, 0.9, classes).tolist())
    decision = Decision(classes, detail=True, novelty=True, conformal=thresholds)
    values = decision.of(probability, np.zeros(6, np.float32))
    bands = [index for index, name in enumerate(decision.bands) if name == "members"]
    assert len(bands) == 1 + (classes > 7)
    masks = sum(values[band].astype(int) << 8 * index for index, band in enumerate(bands))
    for mask, row in zip(masks, probability.tolist(), strict=True):
        assert mask == sum(1 << c for c in range(classes) if 1 - row[c] <= thresholds[c])
    plain = Decision(classes, detail=True).of(probability)
    others = [index for index, name in enumerate(decision.bands) if name not in ("members", "novelty")]
    np.testing.assert_array_equal(values[others], plain)


def test_sets_may_be_empty_or_whole():
    probability = np.array([[0.25] * 4, [0.97, 0.01, 0.01, 0.01]], np.float32)
    assert Decision(4, conformal=(0.5,) * 4).of(probability)[2].tolist() == [0, 1]
    assert Decision(4, conformal=(1.0,) * 4).of(probability)[2].tolist() == [15, 15]
    assert Decision(4, conformal=(0.75, 0.5, 0.75, 0.5)).of(probability)[2].tolist() == [5, 1]
