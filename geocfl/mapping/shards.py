"""Shards, which are equal parts of the scenes of a run, for array jobs of batch systems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from geocfl.errors import UsageError

T = TypeVar("T")
Shard = tuple[int, int]
"""Index of a shard, from 0, and number of shards."""
SLURM, KUBERNETES, BATCH = "SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX", "AWS_BATCH_JOB_ARRAY_INDEX"
"""Variables in which batch systems state the index of a task in its array."""


def check_shard(shard: Shard) -> None:
    """Checks a shard.

    Raises:
        UsageError: The index is out of range.
    """
    index, count = shard
    if count < 1 or not 0 <= index < count:
        last = f"; use `shard=0/{count}` to `shard={count - 1}/{count}`" if count > 0 else ""
        raise UsageError(f"`shard` {index}/{count} does not exist{last or '; use `shard=0/4` for the first of four'}")


def take(scenes: Sequence[T], names: Sequence[str], shard: Shard) -> list[T]:
    """The scenes of one shard, in their order: every `count`-th by name, so that shards differ by one scene at most.

    Args:
        scenes: All scenes of the run.
        names: A name of each, which must not depend on what else can be read at the time.
        shard: The shard.

    Returns:
        Its scenes. Those of all shards together are `scenes`, each once, whatever the order of `scenes`.

    Raises:
        UsageError: The index is out of range.
    """
    check_shard(shard)
    index, count = shard
    by_name = sorted(range(len(scenes)), key=lambda position: (names[position], position))
    return [scenes[position] for position in sorted(by_name[index::count])]


def shard_of_job(environment: Mapping[str, str], count: int | None = None) -> Shard:
    """The shard of this task of an array job of Slurm, Kubernetes or AWS Batch.

    Args:
        environment: The environment's variables.
        count: Number of shards; the index is then taken as the batch system states it, so that a part of an array can
            be run again. None for the size of the array.

    Raises:
        UsageError: No batch system says which task this is, or how many there are.
    """
    found = next((name for name in (SLURM, KUBERNETES, BATCH) if environment.get(name)), None)
    if found is None:
        raise UsageError(
            f"`shard=auto` needs one of {SLURM}, {KUBERNETES} and {BATCH}, which array jobs set; without a batch "
            "system, use `shard=0/4` for the first of four"
        )
    index = _number(environment, found)
    if count is None:
        index, count = _slurm(environment, index) if found == SLURM else (index, _size(environment, found))
    shard = index, count
    check_shard(shard)
    return shard


def _slurm(environment: Mapping[str, str], index: int) -> Shard:
    """The position of a task in its array, whose indices may begin anywhere and have a step."""
    first = _number(environment, "SLURM_ARRAY_TASK_MIN")
    last = _number(environment, "SLURM_ARRAY_TASK_MAX")
    count = _number(environment, "SLURM_ARRAY_TASK_COUNT")
    step = (last - first) // (count - 1) if count > 1 else 1
    if step < 1 or first + step * (count - 1) != last or (index - first) % step:
        raise UsageError(
            f"`shard=auto` needs a Slurm array of evenly spaced indices, but this one has {count} from {first} to "
            f"{last}; state the number of shards, such as `shard=auto/{last + 1}`"
        )
    return (index - first) // step, count


def _size(environment: Mapping[str, str], found: str) -> int:
    """The number of tasks, which Kubernetes does not state itself."""
    name = "AWS_BATCH_JOB_ARRAY_SIZE" if found == BATCH else "JOB_COMPLETIONS"
    if not environment.get(name):
        raise UsageError(
            f"`shard=auto` finds {found} but not the number of tasks; set {name}, or state it, such as `shard=auto/4`"
        )
    return _number(environment, name)


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"{name} is {text!r} but must be a whole number; state the shard, such as `shard=0/4`")
    return int(text)
