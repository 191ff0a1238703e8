"""Shards of a run, and what batch systems say about them."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geocfl.errors import UsageError
from geocfl.mapping.shards import check_shard, shard_of_job, take


@given(st.lists(st.text(max_size=3), max_size=40), st.integers(1, 9), st.randoms())
def test_shards_together_are_the_run_whatever_the_order(names: list[str], count: int, chance: random.Random) -> None:
    scenes = list(range(len(names)))
    shards = [take(scenes, names, (index, count)) for index in range(count)]
    assert sorted(scene for shard in shards for scene in shard) == scenes
    assert all(shard == sorted(shard) for shard in shards)
    sizes = [len(shard) for shard in shards]
    assert max(sizes) - min(sizes) <= 1
    unique = sorted(set(names))
    shuffled = chance.sample(unique, len(unique))
    for index in range(count):
        assert set(take(unique, unique, (index, count))) == set(take(shuffled, shuffled, (index, count)))


@given(st.integers(0, 50), st.integers(1, 9), st.integers(1, 9))
def test_all_shards_of_either_number_are_the_run(scenes: int, one: int, other: int) -> None:
    """A run that changes the number of shards half-way does some scenes twice, and none never, once it is whole."""
    listed = list(range(scenes))
    names = [str(scene) for scene in listed]
    begun = set(take(listed, names, (0, one)))
    rest = {scene for index in range(other) for scene in take(listed, names, (index, other))}
    assert begun | rest == set(listed)


@pytest.mark.parametrize("shard", [(4, 4), (-1, 4), (0, 0), (0, -1)])
def test_shards_that_do_not_exist(shard: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match=f"`shard` {shard[0]}/{shard[1]} does not exist; use `shard=0/4`"):
        check_shard(shard)


SLURM = {"SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "7", "SLURM_ARRAY_TASK_COUNT": "4"}


@pytest.mark.parametrize(
    ("variables", "count", "expected"),
    [
        (SLURM | {"SLURM_ARRAY_TASK_ID": "1"}, None, (0, 4)),
        (SLURM | {"SLURM_ARRAY_TASK_ID": "7"}, None, (3, 4)),
        (SLURM | {"SLURM_ARRAY_TASK_ID": "7"}, 8, (7, 8)),
        ({"JOB_COMPLETION_INDEX": "0"}, 3, (0, 3)),
        ({"JOB_COMPLETION_INDEX": "2", "JOB_COMPLETIONS": "3"}, None, (2, 3)),
        ({"AWS_BATCH_JOB_ARRAY_INDEX": "9", "AWS_BATCH_JOB_ARRAY_SIZE": "10"}, None, (9, 10)),
    ],
)
def test_batch_systems(variables: dict[str, str], count: int | None, expected: tuple[int, int]) -> None:
    assert shard_of_job(variables, count) == expected


@pytest.mark.parametrize(
    ("variables", "count", "message"),
    [
        ({}, None, "needs one of SLURM_ARRAY_TASK_ID, JOB_COMPLETION_INDEX and AWS_BATCH_JOB_ARRAY_INDEX"),
        ({}, 4, "needs one of SLURM_ARRAY_TASK_ID"),
        ({"JOB_COMPLETION_INDEX": "0"}, None, "not the number of tasks; set JOB_COMPLETIONS, or state it, such as"),
        ({"JOB_COMPLETION_INDEX": "3"}, 3, "`shard` 3/3 does not exist; use `shard=0/3` to `shard=2/3`"),
        ({"JOB_COMPLETION_INDEX": "one"}, 3, "JOB_COMPLETION_INDEX is 'one' but must be a whole number"),
        ({"SLURM_ARRAY_TASK_ID": "1"}, None, "SLURM_ARRAY_TASK_MIN is '' but must be a whole number"),
        (SLURM | {"SLURM_ARRAY_TASK_ID": "2"}, None, "evenly spaced indices, but this one has 4 from 1 to 7"),
        (
            SLURM | {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MAX": "8"},
            None,
            "evenly",
        ),
    ],
)
def test_what_batch_systems_do_not_say(variables: dict[str, str], count: int | None, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        shard_of_job(variables, count)
