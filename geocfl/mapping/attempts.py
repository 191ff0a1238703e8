"""Attempts at the scenes of a run: what each took, and in which order scenes are attempted again."""

from __future__ import annotations

import datetime as dt
import heapq
import logging
import os
import platform
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from itertools import chain
from queue import Empty, SimpleQueue
from typing import Any, Generic, Literal, Protocol, TypeVar

from geocfl.errors import GeocflError
from geocfl.mapping.measured import Measured
from geocfl.mapping.memory import peak_memory
from geocfl.mapping.results import unexpected
from geocfl.products.lock import BusyError
from geocfl.products.scene_map import SceneMap
from geocfl.scenes.remote import pause_before_retry

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Outcome = Literal["done", "skipped", "failed", "retried", "busy"]
"""How an attempt ended: ``retried`` and ``busy`` are followed by another one."""

log = logging.getLogger("geocfl")

BUSY_PATIENCE = 3600.0
"""Seconds to wait for scenes that other processes map, once nothing else is left to do."""
BUSY_PAUSE, LONGEST_PAUSE = 2.0, 60.0
"""Seconds until a scene that another process maps is looked at again: at first, doubling, and at most."""


@dataclass(frozen=True)
class Attempt(Generic[T_co]):
    """One attempt at a scene, or at a part of one.

    Attributes:
        result: What the work returned, or the error that ended it.
        start: When it began, UTC, by the clock of its machine.
        end: When it ended.
        elapsed: Seconds it took, by a clock that nobody sets.
        measured: What it took.
        host: Name of the machine.
        pid: Number of the process.
        peak_memory: Largest memory of that process so far, bytes.
        unforeseen: Whether the error is of no kind that geocfl knows.
    """

    result: T_co | GeocflError
    start: dt.datetime
    end: dt.datetime
    elapsed: float = 0.0
    measured: Measured = field(default_factory=Measured)
    host: str = field(default_factory=platform.node)
    pid: int = field(default_factory=os.getpid)
    peak_memory: int = field(default_factory=peak_memory)
    unforeseen: bool = False


@dataclass(frozen=True)
class Ended:
    """The end of an attempt at a scene of a run.

    Attributes:
        index: The scene.
        attempt: What it took.
        number: Number of the attempt, from 1.
        outcome: How it ended.
    """

    index: int
    attempt: Attempt[SceneMap]
    number: int
    outcome: Outcome


class Pending(Protocol):
    """Work that goes on elsewhere: a future of ``concurrent.futures`` or Dask."""

    def add_done_callback(self, function: Callable[[Any], object], /) -> object:
        """Calls a function with the future once it is done."""


def attempt(path: str, work: Callable[[Measured], T]) -> Attempt[T]:
    """Does some work on a scene, and returns its result or error with what it took.

    Args:
        path: The scene, which the message about an unforeseen error names.
        work: The work; it fills in what it is given.
    """
    measured, started, start = Measured(), time.perf_counter(), dt.datetime.now(dt.UTC)
    result: T | GeocflError
    unforeseen = False
    try:
        result = work(measured)
    except GeocflError as error:
        result = error
    except Exception as error:
        result, unforeseen = unexpected(path, error), True
    elapsed = time.perf_counter() - started
    return Attempt(result, start, dt.datetime.now(dt.UTC), elapsed, measured, unforeseen=unforeseen)


def refused(error: GeocflError, stage: str = "") -> Attempt[Any]:
    """The attempt at a scene that ended without a report of its work: refused before it, or lost with its worker.

    Args:
        error: Why.
        stage: As in `Measured`.
    """
    now = dt.datetime.now(dt.UTC)
    return Attempt(error, now, now, measured=Measured(stage=stage))


def in_turn(
    scenes: Iterable[int],
    submit: Callable[[int, int], Pending],
    settle: Callable[[int, Any], Attempt[SceneMap] | Pending | None],
    retries: int,
    *,
    at_once: int | None = None,
    unforeseen_too: bool = False,
) -> Generator[Ended, None, None]:
    """Attempts scenes until each is mapped or has failed for good.

    A scene whose error may pass is attempted again after a pause, at the end of the queue. So is a scene that another
    process maps, which counts as skipped once the other has finished it: several runs over the same scenes and folder
    share the work.

    Args:
        scenes: The scenes to attempt, in their order.
        submit: Starts an attempt at a scene; it gets the number of the attempt, from 1.
        settle: Takes what is done: gives the attempt, other work that the attempt goes on with, or None if it was lost.
            After a loss, no attempt is started any more.
        retries: How often a scene is attempted again after errors.
        at_once: Attempts that are started before their ends are taken, so that results do not pile up; None for all.
        unforeseen_too: Whether that holds for unforeseen errors, too.

    Yields:
        The end of each attempt, but not those that were lost.
    """
    finished: SimpleQueue[tuple[int, Pending]] = SimpleQueue()
    numbers, failures, waits = Counter[int](), Counter[int](), Counter[int]()
    waiting, later = deque(scenes), list[tuple[float, int]]()
    going, lost, only_busy_since = set[int](), False, 0.0

    def watch(index: int, work: Pending) -> None:
        going.add(index)
        work.add_done_callback(lambda done: finished.put((index, done)))

    def start(index: int) -> None:
        numbers[index] += 1
        watch(index, submit(index, numbers[index]))

    def again(index: int, pause: float) -> None:
        heapq.heappush(later, (time.monotonic() + pause, index))

    while going or ((waiting or later) and not lost):
        while later and later[0][0] <= time.monotonic():
            waiting.append(heapq.heappop(later)[1])
        while waiting and not lost and (at_once is None or len(going) < at_once):
            start(waiting.popleft())
        try:
            index, done = finished.get(timeout=max(0.0, later[0][0] - time.monotonic()) if later else None)
        except Empty:
            continue
        going.remove(index)
        settled = settle(index, done)
        del done  # Dask keeps the result as long as this refers to it
        if settled is None:
            lost = True
            continue
        if not isinstance(settled, Attempt):
            watch(index, settled)
            continue
        result, outcome = settled.result, _outcome(settled.result)
        if outcome == "failed" and failures[index] < retries and _may_pass(settled, unforeseen_too):
            outcome = "retried"
            failures[index] += 1
            pause = pause_before_retry(failures[index])
            log.warning("%s; it is mapped again after the others, in %.0f s or more", result, pause)
            again(index, pause)
        if outcome != "busy" or any(each not in waits for each in chain(going, waiting)):
            only_busy_since = 0.0
        elif not only_busy_since:
            only_busy_since = time.monotonic()
            log.warning("%s; waiting for it", str(result).partition(";")[0])
        elif time.monotonic() - only_busy_since > BUSY_PATIENCE:
            outcome = "failed"
        if outcome == "busy":
            again(index, min(LONGEST_PAUSE, BUSY_PAUSE * 2.0 ** waits[index]))
            waits[index] += 1
        yield Ended(index, settled, numbers[index], outcome)


def _outcome(result: SceneMap | GeocflError) -> Outcome:
    if isinstance(result, SceneMap):
        return "skipped" if result.already_done else "done"
    return "busy" if isinstance(result, BusyError) else "failed"


def _may_pass(attempt: Attempt[Any], unforeseen_too: bool) -> bool:
    """Whether another attempt may succeed."""
    error = attempt.result
    return isinstance(error, GeocflError) and (error.transient or (unforeseen_too and attempt.unforeseen))
