from __future__ import annotations

import math
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from statsmodels.stats import contingency_tables, multitest, proportion

from geocfl.evaluation.significance import holm, mcnemar, t_interval, wilson_interval


def test_the_t_interval_is_the_textbooks():
    # t(0.975, 2) = 4.303; standard deviation 1, n = 3
    mean, half = t_interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert half == pytest.approx(4.3027 / math.sqrt(3), rel=1e-4)
    assert t_interval([1.0, 2.0, 3.0], 0.9)[1] == pytest.approx(2.9200 / math.sqrt(3), rel=1e-4)
    assert math.isnan(t_interval([1.0])[1]), "one seed says nothing about others"


def test_intervals_hold_the_true_mean_as_often_as_they_say():
    rng = np.random.default_rng(0)
    intervals = [t_interval(rng.normal(5, 2, 4)) for _ in range(2000)]
    held = np.mean([abs(mean - 5) <= half for mean, half in intervals])
    assert held == pytest.approx(0.95, abs=0.02)


@given(st.integers(1, 5000), st.floats(0, 1), st.floats(0.5, 0.999))
def test_wilsons_interval_is_that_of_statsmodels(n, share, level):
    correct = round(share * n)
    expected = proportion.proportion_confint(correct, n, 1 - level, method="wilson")
    assert wilson_interval(correct, n, level) == pytest.approx(expected, abs=1e-9)


def test_wilsons_interval_of_pasture():
    assert wilson_interval(83, 115) == pytest.approx((0.634, 0.796), abs=1e-3)


@given(hnp.arrays(bool, (2, 40)))
def test_mcnemar_is_that_of_statsmodels(correct):
    one, other = correct
    table = [[(one & other).sum(), (one & ~other).sum()], [(other & ~one).sum(), (~one & ~other).sum()]]
    ours, theirs, p = mcnemar(one, other)
    assert (ours, theirs) == (table[0][1], table[1][0])
    expected = contingency_tables.mcnemar(np.array(table), exact=True).pvalue if ours + theirs else 1.0
    assert p == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_is_that_of_statsmodels(p_values):
    with mock.patch("gc.collect"):  # statsmodels collects each time, which takes long once torch is loaded
        expected = multitest.multipletests(p_values, method="holm")[1]
    np.testing.assert_allclose(holm(p_values), expected, atol=1e-12)


def test_holm_of_nothing_is_nothing():
    assert holm([]) == []
