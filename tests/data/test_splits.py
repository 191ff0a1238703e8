from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geocfl.core.legend import Legend
from geocfl.core.radiometry import SENTINEL2
from geocfl.data.patches import RGB, Patches
from geocfl.data.splits import Split, listed, make_split, train_share
from geocfl.errors import DataError, UsageError


def patches(*counts: int) -> Patches:
    folders = [f"Class{chr(65 + k)}" for k in range(len(counts))]
    return Patches(
        pixels=np.zeros((sum(counts), 3, 1, 1), np.uint8),
        labels=np.repeat(np.arange(len(counts)), counts),
        names=tuple(
            f"{folder}/{folder}_{i + 1}.tif" for folder, n in zip(folders, counts, strict=True) for i in range(n)
        ),
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
    with pytest.raises(UsageError, match="choose from: paper, spatial, manifest, random:FRACTION"):
        train_share(how)


@pytest.mark.parametrize(("count", "words"), [(1, "1 patch"), (2, "2 patches")])
@pytest.mark.parametrize("how", ["paper", "random:0.9"])
def test_a_class_too_small_to_split_is_named(how, count, words):
    with pytest.raises(DataError, match=f"'ClassB' has {words}, too few"):
        make_split(patches(10, count), how, 0, Path())


def write_lists(folder: Path, train: list[str], val: list[str], test: list[str]) -> Path:
    for name, stems in (("train", train), ("val", val), ("test", test)):
        (folder / f"eurosat-spatial-{name}.txt").write_text("".join(f"{stem}.jpg\n" for stem in stems))
    return folder


def test_the_spatial_split_follows_its_lists(tmp_path):
    data = patches(2, 2)
    lists = write_lists(tmp_path, ["ClassB_2", "ClassA_1"], ["ClassA_2"], ["ClassB_1"])
    split = make_split(data, "spatial", 0, lists)
    assert [data.names[i] for i in split.train] == ["ClassA/ClassA_1.tif", "ClassB/ClassB_2.tif"]
    assert [data.names[i] for i in split.validation] == ["ClassA/ClassA_2.tif"]
    assert [data.names[i] for i in split.test] == ["ClassB/ClassB_1.tif"]


@pytest.mark.parametrize(
    ("train", "problem"),
    [
        (["ClassA_1", "ClassC_7"], "1 of its 2 patches .* 'ClassC_7.jpg'"),
        ([], "list is empty"),
        (["ClassA_1", "ClassA_2", "ClassB_2"], "have a patch in common"),
        (["ClassA_1", "ClassB_2", "ClassA_1"], "names 'ClassA/ClassA_1.tif' twice"),
        (["ClassA_1"], "train.txt: names no patch of class 'ClassB'"),
    ],
)
def test_spatial_lists_that_do_not_fit_are_refused(tmp_path, train, problem):
    with pytest.raises(DataError, match=problem):
        make_split(patches(2, 2), "spatial", 0, write_lists(tmp_path, train, ["ClassA_2"], ["ClassB_1"]))


def test_a_missing_spatial_list_is_named(tmp_path):
    with pytest.raises(DataError, match=r"eurosat-spatial-train\.txt"):
        make_split(patches(2, 2), "spatial", 0, tmp_path)


def write_list(folder: Path, *lines: str) -> Path:
    (folder / "list.txt").write_text("\n".join(lines))
    return folder / "list.txt"


def test_lists_name_patches_with_or_without_the_class(tmp_path):
    lines = ("ClassB_2.jpg", "", "ClassA/ClassA_2.png ", "2750/ClassB/ClassB_1.jpg", "ClassA_1")
    assert listed(patches(2, 3), write_list(tmp_path, *lines)).tolist() == [0, 1, 2, 3]


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_a_list_of_any_patches_finds_them(tmp_path_factory, data):
    made = patches(5, 7, 3)
    chosen = data.draw(st.lists(st.integers(0, 14), min_size=1, unique=True))
    lines = [data.draw(st.sampled_from([made.names[i], Path(made.names[i]).name])) for i in chosen]
    indices = listed(made, write_list(tmp_path_factory.mktemp("list"), *lines))
    assert (indices.tolist(), indices.dtype) == (sorted(chosen), np.int64)


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (
            ["ClassA_1.jpg", "ClassA_9.jpg", "ClassB/ClassA_1.jpg"],
            "2 of its 3 patches are not in made up, for example 'ClassA_9.jpg'",
        ),
        (["ClassA_1.jpg", "ClassA/ClassA_1.tif"], "twice, as 'ClassA_1.jpg' and 'ClassA/ClassA_1.tif'; remove one"),
        ([".", "/"], "2 of its 2 patches"),
        ([" ", ""], "the list is empty"),
    ],
)
def test_lists_that_do_not_fit_are_refused(tmp_path, lines, problem):
    with pytest.raises(DataError, match=f"list.txt: .*{problem}") as caught:
        listed(patches(2, 2), write_list(tmp_path, *lines))
    assert "\n" not in str(caught.value)


def test_a_bare_name_of_two_patches_is_ambiguous(tmp_path):
    twins = replace(patches(2, 2), names=("A/1.tif", "A/2.tif", "B/1.tif", "B/2.tif"))
    assert listed(twins, write_list(tmp_path, "B/1.jpg", "A/2.jpg")).tolist() == [1, 2]
    with pytest.raises(DataError, match=r"'1\.jpg' matches both 'A/1\.tif' and 'B/1\.tif'; write Class/name"):
        listed(twins, write_list(tmp_path, "1.jpg"))
    same = replace(twins, names=("A/1.tif", "A/1.png", "B/1.tif", "B/2.tif"))
    with pytest.raises(DataError, match=r"'A/1\.tif' matches both 'A/1\.tif' and 'A/1\.png'; rename"):
        listed(same, write_list(tmp_path, "A/1.tif"))


def test_listed_patches_that_were_skipped_are_left_out(tmp_path):
    data = replace(patches(2, 2), skipped=("ClassA/ClassA_3.tif", "ClassB/ClassB_3.tif"))
    assert listed(data, write_list(tmp_path, "ClassA_3.jpg", "ClassA_1.jpg")).tolist() == [0]
    with pytest.raises(DataError, match="all of its 2 patches are bad and were skipped"):
        listed(data, write_list(tmp_path, "ClassA_3.jpg", "ClassB_3.jpg"))


def test_lists_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.txt: cannot be read"):
        listed(patches(2, 2), tmp_path / "nowhere.txt")
    (tmp_path / "model.bin").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"model\.bin: cannot be read"):
        listed(patches(2, 2), tmp_path / "model.bin")


@pytest.mark.shared
def test_the_spatial_lists_of_eurosat_partition_it(shared_data):
    names = []
    for part in ("train", "val", "test"):
        names += (shared_data / f"eurosat/eurosat-spatial-{part}.txt").read_text().split()
    assert len(names) == len(set(names)) == 27_000


def test_a_random_split_does_not_depend_on_order_or_format():
    data = patches(40, 30)
    order = np.random.default_rng(1).permutation(70)
    shuffled = replace(
        data,
        pixels=data.pixels[order],
        labels=data.labels[order],
        names=tuple(data.names[i].replace(".tif", ".jpg") for i in order),
    )
    for part in ("train", "validation", "test"):
        first, other = (getattr(make_split(p, "paper", 0, Path()), part) for p in (data, shuffled))
        assert {data.names[i][:-4] for i in first} == {shuffled.names[i][:-4] for i in other}
