"""What earlier runs took, from the events that they wrote, to compare a plan with."""

from __future__ import annotations

import datetime as dt
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geocfl.errors import UsageError
from geocfl.mapping.events import PAGE, outcomes, read_events
from geocfl.planning.status import event_files

log = logging.getLogger("geocfl")

Event = Mapping[str, Any]
STAGES = {"start": "open", "read": "read", "classify": "classify", "write": "write"}
"""Steps of a plan to stages of an event."""


@dataclass(frozen=True)
class Actual:
    """What a scene took on average in earlier runs.

    Attributes:
        scenes: Number of scenes that were mapped.
        failed: Number of scenes that were not.
        attempts: Attempts per mapped scene, >= 1.
        seconds: Seconds of each step of `geocfl.planning.profile.Cost`.
        windows: Windows.
        bytes_written: Bytes of the products.
        seconds_per_scene: Seconds from the end of one scene to the end of the next, on one machine.
        hosts: Number of machines.
    """

    scenes: int
    failed: int
    attempts: float
    seconds: Mapping[str, float]
    windows: float
    bytes_written: float
    seconds_per_scene: float
    hosts: int


def read_actual(path: str | Path, model: str, settings: Mapping[str, Any]) -> Actual:
    """What mapping a scene took, according to a file of events, or to all files ``*.jsonl`` in a folder.

    Events of several runs and shards may be mixed. Scenes that were skipped count as not attempted. Clocks of different
    machines are not compared. Runs with another model or other settings are compared too, with a warning.

    Args:
        path: The file or folder.
        model: Name of the plan's model.
        settings: The plan's settings, as events have them.

    Raises:
        UsageError: It cannot be read, holds no events, or no scene was mapped.
    """
    events = [event for file in event_files([path]) for event in read_events(file).events]
    scenes = [event for event in events if event["kind"] == "scene"]
    done = [event for event in scenes if event["outcome"] == "done" and event["windows"]]
    if not done:
        raise UsageError(
            f"{path}: holds no scene that was mapped, to compare with; pass the events of another run", page=PAGE
        )
    runs = {event["run"] for event in done}
    planned = {"model": model, **settings}
    for name, other in sorted(_others(planned, (event for event in events if event["run"] in runs))):
        log.warning(
            "%s: holds a run with `%s=%s`, while the plan has `%s=%s`: their figures are not alike",
            path, name, other, name, planned[name],
        )  # fmt: skip
    others = sum(event["outcome"] in ("failed", "retried") for event in scenes)
    failed = sum(event["outcome"] == "failed" for event in outcomes(events).values())
    times = _times(done)
    return Actual(
        scenes=len(done),
        failed=failed,
        attempts=1 + others / len(done),
        seconds={step: _mean(event["seconds"].get(stage, 0.0) for event in done) for step, stage in STAGES.items()},
        windows=_mean(event["windows"] for event in done),
        bytes_written=_mean(event.get("bytes_written") or 0 for event in done),
        seconds_per_scene=sum((max(each) - min(each)).total_seconds() for each in times.values()) / len(done),
        hosts=len({host for _, host in times}),
    )


def _others(planned: Mapping[str, Any], events: Iterable[Event]) -> set[tuple[str, str]]:
    """Names and values in which runs differ from a plan."""
    found = set()
    for event in events:
        if event["kind"] == "run" and isinstance(event.get("settings"), dict):
            used = {"model": event.get("model"), **event["settings"]}
            found |= {(name, str(used[name])) for name in used.keys() & planned.keys() if used[name] != planned[name]}
    return found


def _times(done: Iterable[Event]) -> dict[tuple[str, str], list[dt.datetime]]:
    """When attempts began and ended, by run and machine."""
    times: dict[tuple[str, str], list[dt.datetime]] = defaultdict(list)
    for event in done:
        times[event["run"], str(event.get("host"))] += [event["start"], event["end"]]
    return times


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)
