from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geocfl.core.legend import Legend
from geocfl.core.radiometry import SENTINEL2
from geocfl.data.imbalance import ORDERS, check_order, parse_imbalance, thin
from geocfl.data.patches import RGB, Patches
from geocfl.data.splits import Split, make_split
from geocfl.errors import DataError, UsageError


def patches(*counts: int) -> Patches:
    """Patches of the classes A, B, ..., shuffled."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    return Patches(
        pixels=np.zeros((sum(counts), 3, 1, 1), np.uint8),
        labels=labels,
        names=tuple(f"{chr(65 + label)}/{index}.png" for index, label in enumerate(labels)),
        bands=RGB,
        scaling=SENTINEL2,
        legend=Legend.from_folders([chr(65 + k) for k in range(len(counts))]),
        source="made up",
    )


def all_train(data: Patches) -> Split:
    none = np.array([], np.int64)
    return Split(np.arange(len(data)), none, none)


def kept(data: Patches, imbalance: str, order: str | tuple[int, ...] = "legend", seed: int = 0) -> list[int]:
    return data.counts(thin(data, all_train(data), imbalance, seed, order).train)


def orders(classes: int) -> st.SearchStrategy[list[int]]:
    return st.permutations(range(1, classes + 1))


@st.composite
def cases(draw: st.DrawFn, share: float = 1) -> tuple[Patches, str, float, list[int]]:
    """Patches, form, a ratio that this share of every class can bear, and an order."""
    counts = draw(st.lists(st.integers(math.ceil(1 / share), 120), min_size=2, max_size=6))
    form, ratio = draw(st.sampled_from(["long-tail", "step"])), draw(st.floats(1, min(counts) * share))
    return patches(*counts), form, ratio, draw(orders(len(counts)))


@settings(deadline=None, max_examples=150)
@given(cases(), st.integers(0, 2**32 - 1))
def test_the_ratio_is_exact_up_to_rounding_and_nothing_more_is_thinned(case, seed):
    data, form, ratio, order = case
    sizes, codes = data.counts(np.arange(len(data))), tuple(order)
    counts = kept(data, f"{form}:{ratio}", codes, seed)
    ordered = [counts[code - 1] for code in order]
    assert ordered == sorted(ordered, reverse=True), "monotone along the order"
    assert min(ordered) >= 1
    assert abs(ordered[0] - ratio * ordered[-1]) <= 0.5 + 0.5 * ratio + 1e-6
    last = len(order) - 1
    for rank, count in enumerate(ordered):
        share = ratio ** -(rank / last) if form == "long-tail" else 1 if rank < (last + 2) // 2 else 1 / ratio
        assert abs(count - ordered[0] * share) <= 0.5 + 0.5 * share + 1e-6
    assert any(count == size for count, size in zip(counts, sizes, strict=True)), "n_max could be no larger"


@settings(deadline=None, max_examples=60)
@given(cases(share=1 / 8), st.integers(0, 2**32 - 1), st.sampled_from(["legend", "reversed", "random"]))
def test_a_subset_of_train_that_the_seed_decides(case, seed, order):
    data, form, ratio, _ = case
    split = make_split(data, "paper", seed, Path())
    one, other = (thin(data, split, f"{form}:{ratio}", seed, order) for _ in range(2))
    np.testing.assert_array_equal(one.train, other.train)
    np.testing.assert_array_equal(one.train, np.unique(one.train))
    assert np.isin(one.train, split.train).all()
    assert one.train.dtype == np.int64
    np.testing.assert_array_equal(one.validation, split.validation)
    np.testing.assert_array_equal(one.test, split.test)


@settings(deadline=None, max_examples=60)
@given(cases(), st.sampled_from(["long-tail", "step"]), st.floats(0, 1), st.integers(0, 9))
def test_what_a_class_keeps_is_nested(case, other_form, share, seed):
    data, form, ratio, order = case
    codes = tuple(order)
    one = thin(data, all_train(data), f"{form}:{ratio}", seed, codes).train
    other = thin(data, all_train(data), f"{other_form}:{1 + share * (ratio - 1)}", seed).train
    for label in range(len(order)):
        small, large = sorted((part[data.labels[part] == label] for part in (one, other)), key=len)
        assert np.isin(small, large).all()


def test_the_forms_of_the_papers():
    ten = patches(*[1000] * 10)
    assert kept(ten, "long-tail:100") == [1000, 599, 359, 215, 129, 77, 46, 28, 17, 10]
    assert kept(ten, "step:10") == [1000] * 5 + [100] * 5
    assert kept(patches(90, 90, 90), "step:9") == [90, 90, 10]


def test_a_scarce_early_class_lowers_all():
    assert kept(patches(1000, 1000, 10), "step:10") == [100, 100, 10]
    assert kept(patches(100, 1000, 1000), "long-tail:4") == [100, 50, 25]
    assert kept(patches(80, 20, 50), "step:1") == [20, 20, 20]


def test_orders():
    data = patches(100, 100, 100)
    assert kept(data, "long-tail:4") == [100, 50, 25]
    assert kept(data, "long-tail:4", "reversed") == [25, 50, 100]
    assert kept(data, "long-tail:4", (2, 3, 1)) == [25, 100, 50]
    drawn = [kept(data, "long-tail:4", "random", seed) for seed in range(30)]
    assert {tuple(sorted(counts)) for counts in drawn} == {(25, 50, 100)}
    assert len({tuple(counts) for counts in drawn}) == 6
    assert kept(data, "long-tail:4", "random", 7) == drawn[7]


def test_seeds_keep_other_patches():
    data = patches(100, 100)
    one, other = (thin(data, all_train(data), "step:5", seed).train for seed in (0, 1))
    assert not np.array_equal(one, other)


def test_none_changes_nothing():
    data = patches(10, 20)
    split = all_train(data)
    assert thin(data, split, "none", 0) is split


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.integers(1, 80), min_size=2, max_size=6), st.sampled_from(["long-tail", "step"]), st.integers(1, 10**6)
)
def test_the_largest_ratio_that_an_error_names_works_and_the_next_does_not(counts, form, ratio):
    data = patches(*counts)
    try:
        assert min(kept(data, f"{form}:{ratio}")) >= 1
    except DataError as raised:
        error = str(raised)
    else:
        return
    assert f"leaves no patch of class '{data.legend[len(counts)].folder}' for training" in error
    largest = int(re.search(r"largest possible ratio is (\d+)$", error)[1])
    assert largest < ratio
    assert min(kept(data, f"{form}:{largest}")) >= 1
    with pytest.raises(DataError, match="largest possible ratio"):
        kept(data, f"{form}:{largest + 1}")


def test_a_class_without_training_patches_is_named():
    data = patches(5, 5)
    split = Split(np.flatnonzero(data.labels == 0), np.flatnonzero(data.labels == 1), np.array([], np.int64))
    with pytest.raises(DataError, match="made up: class 'B' has no training patch"):
        thin(data, split, "step:2", 0)


@pytest.mark.parametrize(
    ("imbalance", "parsed"),
    [("none", ("none", 1)), ("long-tail:50", ("long-tail", 50)), ("step:1", ("step", 1)), ("step:2.5", ("step", 2.5))],
)
def test_valid_imbalances(imbalance, parsed):
    assert parse_imbalance(imbalance) == parsed


@pytest.mark.parametrize(
    "imbalance", ["", "some", "none:5", "long-tail", "long-tail:", "step:x", "step:nan", "step:inf"]
)
def test_unknown_imbalances_are_refused(imbalance):
    with pytest.raises(UsageError, match="choose from: none, long-tail:R, step:R"):
        parse_imbalance(imbalance)


@pytest.mark.parametrize("imbalance", ["long-tail:0.5", "step:0", "step:-3"])
def test_ratios_below_one_are_refused(imbalance):
    with pytest.raises(UsageError, match="its ratio, of the largest to the smallest class, must be at least 1"):
        thin(patches(5, 5), all_train(patches(5, 5)), imbalance, 0)


@pytest.mark.parametrize("order", ["", "largest", "1;2", "3,1,2"])
def test_unknown_orders_are_refused(order):
    with pytest.raises(UsageError, match="choose from: legend, reversed, random, every class code once"):
        check_order(order)


@pytest.mark.parametrize("order", [(), (1, 2, 2), (0, 1), (1, 3), (-1, 1)])
@pytest.mark.parametrize("imbalance", ["none", "step:2"])
def test_codes_that_are_not_every_class_once_are_refused(order, imbalance):
    with pytest.raises(UsageError, match=r"`class_order` is .* but must name every class code once"):
        thin(patches(5, 5), all_train(patches(5, 5)), imbalance, 0, order)


def test_orders_are_checked_before_the_classes_are_known():
    assert check_order([3, 1, 2]) == (3, 1, 2)
    assert [check_order(order) for order in ORDERS] == list(ORDERS)
    with pytest.raises(UsageError, match="names 3 of 2 classes"):
        thin(patches(5, 5), all_train(patches(5, 5)), "step:2", 0, (3, 1, 2))
