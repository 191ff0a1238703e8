from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geocfl.data.patches import RGB, Patches
from geocfl.data.splits import Split, make_split, train_share
from geocfl.errors import DataError, UsageError
from geocfl.legend import Legend
from geocfl.radiometry import SENTINEL2


def patches(*counts: int) -> Patches:
    folders = [f"Class{chr(65 + k)}" for k in range(len(counts))]
    return Patches(
        pixels=np.zeros((sum(counts), 3, 1, 1), np.uint8),
        labels=np.repeat(np.arange(len(counts)), counts),
        names=tuple(f"{folder}_{i + 1}.tif" for folder, n in zip(folders, counts, strict=True) for i in range(n)),
        bands=RGB,
        scaling=SENTINEL2,
        legend=Legend.from_folders(folders),
        source="made up",
    )


def assert_partition(split: Split, size: int) -> None:
    everything = np.concatenate([split.train, split.validation, split.test])
    np.testing.assert_array_equal(np.sort(everything), np.arange(size))


@settings(deadline=None, max_examples=60)
@given(
    counts=st.lists(st.integers(4, 60), min_size=2, max_size=6),
    how=st.just("paper") | st.floats(0.51, 0.74).map(lambda share: f"random:{share}"),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_patch_is_in_exactly_one_part(counts, how, seed):
    data = patches(*counts)
    split = make_split(data, how, seed, Path())
    assert_partition(split, sum(counts))
    for part in (split.train, split.validation, split.test):
        assert all(data.counts(part)), "every part has every class"


def test_the_paper_split_halves_every_class():
    data = patches(3000, 2000, 2501)
    split = make_split(data, "paper", 0, Path())
    assert data.counts(split.test) == [1500, 1000, 1251]
    assert data.counts(split.validation) == [150, 100, 125]
    assert data.counts(split.train) == [1350, 900, 1125]


def test_random_shares_train_that_share():
    data = patches(100, 50)
    split = make_split(data, "random:0.8", 0, Path())
    assert data.counts(split.test) == [20, 10]
    assert data.counts(split.validation) == [8, 4]


def test_the_seed_decides():
    data = patches(100, 50)
    splits = [make_split(data, "paper", seed, Path()) for seed in (0, 0, 1)]
    for part in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(splits[0], part), getattr(splits[1], part))
    assert not np.array_equal(splits[0].test, splits[2].test)


@pytest.mark.parametrize("how", ["half", "", "random", "random:", "random:0", "random:1", "random:nan", "paper:0.5"])
def test_unknown_splits_are_refused(how):
    with pytest.raises(UsageError, match="paper, spatial or random:SHARE"):
        train_share(how)


def test_a_class_too_small_to_split_is_named():
    with pytest.raises(DataError, match="'ClassB' has 2 patches"):
        make_split(patches(10, 2), "paper", 0, Path())


def write_lists(folder: Path, train: list[str], val: list[str], test: list[str]) -> Path:
    for name, stems in (("train", train), ("val", val), ("test", test)):
        (folder / f"eurosat-spatial-{name}.txt").write_text("".join(f"{stem}.jpg\n" for stem in stems))
    return folder


def test_the_spatial_split_follows_its_lists(tmp_path):
    data = patches(2, 2)
    lists = write_lists(tmp_path, ["ClassB_2", "ClassA_1"], ["ClassA_2"], ["ClassB_1"])
    split = make_split(data, "spatial", 0, lists)
    assert [data.names[i] for i in split.train] == ["ClassA_1.tif", "ClassB_2.tif"]
    assert [data.names[i] for i in split.validation] == ["ClassA_2.tif"]
    assert [data.names[i] for i in split.test] == ["ClassB_1.tif"]


@pytest.mark.parametrize(
    ("train", "problem"),
    [
        (["ClassA_1", "ClassC_7"], "1 of its 2 patches .* 'ClassC_7'"),
        ([], "list is empty"),
        (["ClassA_1", "ClassA_2"], "a patch twice"),
    ],
)
def test_spatial_lists_that_do_not_fit_are_refused(tmp_path, train, problem):
    with pytest.raises(DataError, match=problem):
        make_split(patches(2, 2), "spatial", 0, write_lists(tmp_path, train, ["ClassA_2"], ["ClassB_1"]))


def test_a_missing_spatial_list_is_named(tmp_path):
    with pytest.raises(DataError, match=r"eurosat-spatial-train\.txt"):
        make_split(patches(2, 2), "spatial", 0, tmp_path)


def test_the_spatial_split_needs_distinct_names(tmp_path):
    data = patches(2, 2)
    twins = Patches(**{**vars(data), "names": ("1.tif", "2.tif", "1.tif", "2.tif")})
    with pytest.raises(DataError, match="same name"):
        make_split(twins, "spatial", 0, write_lists(tmp_path, ["1"], ["2"], ["1"]))


@pytest.mark.shared
def test_the_spatial_lists_of_eurosat_partition_it(shared_data):
    names = []
    for part in ("train", "val", "test"):
        names += (shared_data / f"eurosat/eurosat-spatial-{part}.txt").read_text().split()
    assert len(names) == len(set(names)) == 27_000
