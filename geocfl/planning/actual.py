"""What earlier runs took, from the events that they wrote, to compare a plan with."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geocfl.core.files import parsed_json
from geocfl.errors import UsageError

VERSION = 1
"""Version of the events that are understood, see ``docs/reference/events.md``."""
STAGES = {"start": "open", "read": "read", "classify": "classify", "write": "write"}
"""Steps of a plan to stages of an event."""


@dataclass(frozen=True)
class Actual:
    """What a scene took on average in earlier runs.

    Attributes:
        scenes: Number of scenes that were mapped.
        failed: Number of scenes that were not.
        attempts: Attempts per mapped scene, >= 1.
        seconds: Seconds of each step of `geocfl.planning.profile.Cost` that the events state.
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


def read_actual(path: str | Path) -> Actual:
    """What mapping a scene took, according to a file of events or all ``*.jsonl`` files in a folder.

    Events of several runs and shards may be mixed. Scenes that were skipped count as not attempted. Clocks of different
    machines are not compared.

    Args:
        path: The file or folder. A last line that is cut off, as of a killed run, is left out.

    Raises:
        UsageError: It cannot be read, holds no events of geocfl or only others, or no scene was mapped.
    """
    done: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    attempts = 0
    for event in _scenes(Path(path)):
        outcome, scene = event.get("outcome"), str(event.get("scene"))
        if outcome in ("done", "failed", "retried"):
            attempts += 1
            failed[scene] = outcome
        if outcome == "done":
            done.append(event)
    if not done:
        raise UsageError(
            f"{path}: holds no scene that was mapped, to compare with; pass the `events` of an earlier run"
        )
    try:
        spans, hosts = _spans(done)
        stages = {
            step: _mean(_number(event["seconds"].get(stage)) for event in done)
            for step, stage in STAGES.items()
            if any(stage in event["seconds"] for event in done)
        }
        return Actual(
            scenes=len(done),
            failed=sum(outcome == "failed" for outcome in failed.values()),
            attempts=attempts / len(done),
            seconds=stages,
            windows=_mean(_number(event.get("windows")) for event in done),
            bytes_written=_mean(_number(event.get("bytes_written")) for event in done),
            seconds_per_scene=spans / len(done),
            hosts=hosts,
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{path}: an event lacks a field or has another type ({error}); pass it unedited") from error


def _scenes(path: Path) -> Iterator[dict[str, Any]]:
    """The events of scenes."""
    try:
        files = sorted(path.rglob("*.jsonl")) if path.is_dir() else [path]
        lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not text"
        raise UsageError(f"{path}: cannot be read ({why}); pass the `events` of an earlier run") from error
    events = [event for line in lines if (event := _event(line)) is not None]
    if not any("event" in event for event in events):
        raise UsageError(f"{path}: holds no events of geocfl; pass the `events` of an earlier run")
    for event in events:
        if event.get("event") != VERSION:
            raise UsageError(
                f"{path}: has events of version {event.get('event')}, but this geocfl reads "
                f"{VERSION}; use the geocfl that wrote it"
            )
        if event.get("kind") == "scene":
            yield event


def _event(line: str) -> dict[str, Any] | None:
    try:
        event = parsed_json(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


def _spans(done: Iterable[Mapping[str, Any]]) -> tuple[float, int]:
    """Seconds in which machines worked, summed over machines and runs, and the number of machines."""
    times: dict[tuple[str, str], list[dt.datetime]] = defaultdict(list)
    for event in done:
        key = str(event["run"]), str(event["host"])
        times[key] += [dt.datetime.fromisoformat(event[name]) for name in ("start", "end")]
    return sum((max(each) - min(each)).total_seconds() for each in times.values()), len({host for _, host in times})


def _number(value: Any) -> float:
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return float(value)


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)
