"""Splits by place."""

import logging

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from geocfl.data.manifest import SUBSETS
from geocfl.errors import DataError, UsageError
from geocfl.labeling.blocks import check_subsets, name_blocks, overlapping, parse_blocks, split_blocks

SIDE = 640.0


@given(
    st.lists(st.tuples(st.floats(0, 20_000), st.floats(0, 20_000)), min_size=1, max_size=150),
    st.integers(0, 99),
    st.floats(0.5, 8),
)
def test_no_two_overlapping_windows_are_in_different_subsets(places, seed, block) -> None:
    """Whatever the blocks, and also where whole blocks are split at random."""
    x, y = np.array(places).T
    squares = shapely.box(x, y, x + SIDE, y + SIDE)
    keys = np.floor(np.array(places) / (1000 * block)).astype(int)
    subsets = np.random.default_rng(seed).integers(0, 3, (50, 50))
    split = np.array(SUBSETS, object)[subsets[keys[:, 0], keys[:, 1]]]
    kept = ~overlapping(squares, split)
    overlaps = (np.abs(x[:, None] - x) <= SIDE) & (np.abs(y[:, None] - y) <= SIDE)
    differ = split[:, None] != split
    assert not (overlaps & differ)[np.ix_(kept, kept)].any()
    assert kept[split == "test"].all(), "others give way to test"
    assert kept[~(overlaps & differ).any(1)].all(), "no window is left out without need"


@given(st.floats(-180, 540), st.floats(-89.9, 89.9), st.floats(0.5, 100))
def test_a_block_is_about_as_large_as_it_says(longitude, latitude, side) -> None:
    """Two places less than half a side apart are in the same block or in adjacent ones."""
    step = side / 111.195 / 2
    there = np.array([longitude, longitude]), np.array([latitude, min(89.99, latitude + step * 0.99)])
    rows = [int(name.split("-")[0]) for name in name_blocks(*there, side)]
    assert rows[1] - rows[0] in (0, 1)
    along = np.linspace(0, 360, 2_000, endpoint=False)
    names = name_blocks(along, np.full(2_000, latitude), side)
    around = 40_030 * np.cos(np.radians(latitude))
    assert len(set(names)) <= around / side * 1.1 + side / 50 + 2


def test_blocks_do_not_depend_on_the_turn_of_longitudes() -> None:
    assert name_blocks(np.array([-170.0]), np.array([5.0]), 5) == name_blocks(np.array([190.0]), np.array([5.0]), 5)


@pytest.mark.parametrize("seed", range(4))
def test_whole_blocks_get_their_share_of_each_class(seed) -> None:
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 40, 2_000).astype(str).astype(object)
    classes = rng.integers(1, 5, 2_000)
    split = split_blocks(blocks, classes, seed, 5)
    for block in set(blocks):
        assert len(set(split[blocks == block])) == 1
    for code in range(1, 5):
        shares = [float((split[classes == code] == subset).mean()) for subset in SUBSETS]
        assert shares == pytest.approx([0.6, 0.2, 0.2], abs=0.06)


def test_the_same_seed_gives_the_same_split() -> None:
    blocks = np.repeat([f"{k}" for k in range(12)], 9).astype(object)
    classes = np.tile([1, 2, 3], 36)
    first = split_blocks(blocks, classes, 3, 5)
    assert (split_blocks(blocks, classes, 3, 5) == first).all()
    assert (split_blocks(blocks, classes, 4, 5) != first).any()


def test_the_only_block_of_a_class_is_for_training(caplog: pytest.LogCaptureFixture) -> None:
    blocks = np.array(["a"] * 5 + ["b"] * 5 + ["c"] * 5 + ["d"] * 5, object)
    classes = np.array([1] * 5 + [2] * 15)
    split = split_blocks(blocks, classes, 0, 5)
    assert set(split[classes == 1]) == {"train"}
    with caplog.at_level(logging.WARNING):
        check_subsets(split, np.where(classes == 1, "One", "Two").astype(object), 5)
    assert "no patch of One is for validation" in caplog.text
    assert "no patch of One is for test" in caplog.text


def test_too_few_blocks_are_refused_with_a_smaller_one() -> None:
    with pytest.raises(UsageError, match=r"only 2 blocks of 5 km, too few .* such as blocks:2\.5"):
        split_blocks(np.array(["a", "a", "b"], object), np.array([1, 2, 1]), 0, 5)
    with pytest.raises(UsageError, match="3 blocks of 5 km, 3 with the only patches of a class"):
        split_blocks(np.array(["a", "b", "c"], object), np.array([1, 2, 3]), 0, 5)


def test_a_class_without_training_patches_is_refused() -> None:
    split = np.array(["train", "validation", "test"], object)
    with pytest.raises(DataError, match="no patch of B is left for train"):
        check_subsets(split, np.array(["A", "A", "B"], object), 5)
    with pytest.raises(DataError, match="no patch is left for validation"):
        check_subsets(split[[0, 2]], np.array(["A", "A"], object), 5)


@pytest.mark.parametrize(
    "text", ["blocks", "blocks:", "blocks:x", "blocks:0", "blocks:nan", "random:0.8", "blocks:5km"]
)
def test_other_splits_are_refused(text) -> None:
    with pytest.raises(UsageError, match="must be blocks:KM"):
        parse_blocks(text)
    assert parse_blocks("blocks:2.5") == 2.5
