"""How runs over many scenes stand, from the events that they have written."""

from __future__ import annotations

import datetime as dt
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from geocfl.core.keywords import declared
from geocfl.core.table import align
from geocfl.errors import UsageError
from geocfl.mapping.events import PAGE, outcomes, read_events

Event = Mapping[str, Any]
ENDING = "*.jsonl"
"""Names of event files in a folder."""
RANK = ("failed", "skipped", "done")
"""Outcomes; between files, the last of these counts."""
SILENCE = 600.0
"""Seconds without an event after which a run elsewhere counts as stopped, unless its scenes take longer."""
MANY_TIMES = 5
"""A run elsewhere counts as stopped after this many times its longest attempt without an event, if that is longer."""


@dataclass(frozen=True)
class RunStatus:
    """How one run stands.

    Attributes:
        run: Its identifier.
        state: ``"running"``, ``"finished"`` or ``"stopped"``, such as by a kill.
        host: Machine that it was started on.
        shard: Its share of the scenes, such as ``"0/4"``; empty for all.
        scenes: Number of its scenes.
        ended: Number of those that are done, skipped or failed.
        running: Scenes that it works on.
        scenes_per_hour: Rate of scenes mapped or failed; 0 while there are none.
        last: Time of its last event, by its clock.
    """

    run: str
    state: str
    host: str
    shard: str
    scenes: int
    ended: int
    running: tuple[str, ...]
    scenes_per_hour: float
    last: dt.datetime


@dataclass(frozen=True)
class Status:
    """How runs over the same scenes stand together.

    Attributes:
        scenes: Number of scenes in the lists of the runs, each once.
        done: Number of scenes that these runs have mapped.
        skipped: Number of scenes that were already mapped before.
        failed: Number of scenes that failed.
        running: Number of scenes in progress.
        retries: Number of attempts after which a scene was attempted again.
        scenes_per_hour: Rate of the runs that are running, together.
        hours_left: Hours until all scenes are done at this rate; None if nothing runs, or nothing is known yet.
        failures: By class of error and stage in which it happened, most frequent first: number of scenes, a reason, and
            the scene that it is of.
        stages: Seconds of all attempts by stage, longest first. ``read`` overlaps the others; ``other`` is the rest,
            mostly waiting for a scene that is classified or written at the same time.
        missing_shards: Shards of which no run is known, such as ``"2/4"``.
        damaged: Number of damaged lines in the files.
        runs: The runs, in the order in which they began.
    """

    scenes: int
    done: int
    skipped: int
    failed: int
    running: int
    retries: int
    scenes_per_hour: float
    hours_left: float | None
    failures: tuple[dict[str, Any], ...]
    stages: dict[str, float]
    missing_shards: tuple[str, ...]
    damaged: int
    runs: tuple[RunStatus, ...]

    @property
    def left(self) -> int:
        """Number of scenes that are neither mapped nor failed."""
        return max(0, self.scenes - self.done - self.skipped - self.failed)

    def to_json(self) -> dict[str, Any]:
        """The same for programs."""
        names = ("scenes", "done", "skipped", "failed", "running", "left", "retries", "scenes_per_hour", "hours_left")
        runs = [
            vars(run) | {"running": list(run.running), "last": run.last.isoformat().replace("+00:00", "Z")}
            for run in self.runs
        ]
        return {
            **{name: getattr(self, name) for name in names},
            "failures": list(self.failures),
            "stages": self.stages,
            "missing_shards": list(self.missing_shards),
            "damaged": self.damaged,
            "runs": runs,
        }

    def table(self) -> str:
        """The same as plain text, without a final newline."""
        counts = [
            ("done", self.done),
            ("skipped", self.skipped),
            ("failed", self.failed),
            ("running", self.running),
            ("left", self.left),
            ("all", self.scenes),
        ]
        lines = [align([("result", "scenes"), *((name, f"{count:,}") for name, count in counts)], text_columns=[0]), ""]
        lines += [_pace(self.scenes_per_hour, self.hours_left, self.left)]
        if self.stages:
            total = sum(seconds for stage, seconds in self.stages.items() if stage != "read") or 1.0
            slowest = next(stage for stage in self.stages if stage != "read")
            shares = ", ".join(f"{stage} {seconds / total:.0%}" for stage, seconds in self.stages.items())
            lines += [f"slowest stage: {slowest} ({shares} of the time; reading goes on beside the others)"]
        if self.retries:
            lines += [f"{self.retries} attempts were repeated"]
        if self.missing_shards:
            lines += [f"no events of shard {', '.join(self.missing_shards)}"]
        if self.damaged:
            lines += [f"{self.damaged} damaged lines were left out"]
        if self.failures:
            rows = [(e["error"], e["stage"] or "-", f"{e['scenes']:,}", e["reason"]) for e in self.failures]
            lines += ["", align([("failures", "stage", "scenes", "such as"), *rows], text_columns=[0, 1, 3])]
        runs = [
            (
                each.run,
                each.shard or "all",
                each.state,
                f"{each.ended:,} of {each.scenes:,}",
                each.host,
                _clock(each.last),
            )
            for each in self.runs
        ]
        header = ("run", "shard", "state", "scenes", "host", "last event (UTC)")
        return "\n".join([*lines, "", align([header, *runs], text_columns=[0, 1, 2, 4, 5])])


@declared
def status(paths: Iterable[str | Path] | str | Path) -> Status:
    """How runs of `map_scenes` stand that write, or have written, events.

    Runs over the same scenes are counted together: shards, runs side by side, and runs that were repeated. A scene
    counts as its last attempt ended; between files, whose machines may have clocks that differ, mapped counts more
    than failed.

    Args:
        paths: Files of events, or folders that hold them under names that end in ``.jsonl``; one or several.

    Raises:
        UsageError: A file cannot be read, or there are no events.
    """
    files = list(event_files([paths] if isinstance(paths, str | Path) else paths))
    ends: dict[tuple[str, str], Event] = {}
    attempts: list[Event] = []
    runs: list[tuple[Event, list[Event]]] = []
    damaged = 0
    for path in files:
        read = read_events(path)
        damaged += read.damaged
        by_run: dict[str, list[Event]] = {}
        for event in read.events:
            by_run.setdefault(event["run"], []).append(event)
        lists = {name: _beginning(events)["list"] for name, events in by_run.items()}
        runs += [(_beginning(events), events) for events in by_run.values()]
        attempts += [event for event in read.events if event["kind"] == "scene"]
        for of in dict.fromkeys(lists.values()):
            of_list = [event for event in read.events if lists[event["run"]] == of]
            for scene, ended in outcomes(of_list).items():
                known = ends.get((of, scene))
                if known is None or RANK.index(ended["outcome"]) > RANK.index(known["outcome"]):
                    ends[of, scene] = ended
    runs.sort(key=lambda each: each[0]["time"])
    standing = [_standing(beginning, events) for beginning, events in runs]
    counts = Counter(event["outcome"] for event in ends.values())
    rate = sum(run.scenes_per_hour for run in standing if run.state == "running")
    scenes = max(len(ends), sum({beginning["list"]: beginning["listed"] for beginning, _ in runs}.values()))
    left = scenes - sum(counts.values())
    return Status(
        scenes=scenes,
        done=counts["done"],
        skipped=counts["skipped"],
        failed=counts["failed"],
        running=len({scene for run in standing for scene in run.running}),
        retries=sum(event["outcome"] == "retried" for event in attempts),
        scenes_per_hour=round(rate, 2),
        hours_left=round(left / rate, 2) if rate and left else None,
        failures=tuple(_failures(event for event in ends.values() if event["outcome"] == "failed")),
        stages=_stages(attempts),
        missing_shards=tuple(_missing_shards([beginning for beginning, _ in runs])),
        damaged=damaged,
        runs=tuple(standing),
    )


def event_files(paths: Iterable[str | Path]) -> Iterable[Path]:
    """The files of events that paths of files and folders name.

    Raises:
        UsageError: A folder holds none.
    """
    for path in map(Path, paths):
        if not path.is_dir():
            yield path
            continue
        found = sorted(each for each in path.glob(ENDING) if not each.name.startswith("."))  # geocfl has its own
        if not found:
            raise UsageError(
                f"{path}: holds no files of events, which end in .jsonl; write some with geocfl map --events", page=PAGE
            )
        yield from found


def _beginning(events: Sequence[Event]) -> Event:
    """The first event of a run, or what stands for one that is lost."""
    found = next((event for event in events if event["kind"] == "run"), None)
    scenes = len({event["scene"] for event in events if "scene" in event})
    unknown = {"scenes": scenes, "listed": scenes, "list": events[0]["run"], "host": "", "pid": 0}
    return found or {**unknown, "run": events[0]["run"], "time": events[0]["time"]}


def _standing(beginning: Event, events: Sequence[Event]) -> RunStatus:
    """How one run stands."""
    ends = outcomes(events)
    last = max(event["time"] for event in events)
    state = _state(beginning, events, last)
    latest = {event["scene"]: event["kind"] for event in events if "scene" in event}
    tried = sum(event["outcome"] != "skipped" for event in ends.values())
    hours = (last - beginning["time"]).total_seconds() / 3600
    return RunStatus(
        run=beginning["run"],
        state=state,
        host=beginning["host"],
        shard=str(beginning.get("shard") or ""),
        scenes=beginning["scenes"],
        ended=len(ends),
        running=tuple(scene for scene, kind in latest.items() if kind == "start") if state == "running" else (),
        scenes_per_hour=round(tried / hours, 2) if hours > 0 else 0.0,
        last=last,
    )


def _state(beginning: Event, events: Sequence[Event], last: dt.datetime) -> str:
    """Whether a run is running, finished or stopped."""
    end = next((event for event in events if event["kind"] == "end"), None)
    if end is not None:
        return "finished" if end["result"] == "finished" else "stopped"
    if beginning["host"] == platform.node():
        return "running" if _lives(beginning["pid"], beginning["time"]) else "stopped"
    longest = max((event["elapsed"] for event in events if event["kind"] == "scene"), default=0.0)
    silent = (dt.datetime.now(dt.UTC) - last).total_seconds()
    return "running" if silent < max(SILENCE, MANY_TIMES * longest) else "stopped"


def _lives(pid: int, since: dt.datetime) -> bool:
    """Whether a process of this machine that ran at a time is still running; its number may have been given again."""
    try:
        return bool(psutil.Process(pid).create_time() <= since.timestamp() + 1)
    except psutil.Error:
        return False


def _failures(events: Iterable[Event]) -> list[dict[str, Any]]:
    """Failures by class of error and stage, most frequent first."""
    groups: dict[tuple[str, str], list[Event]] = {}
    for event in events:
        groups.setdefault((event["error"], str(event.get("stage", ""))), []).append(event)
    return [
        {
            "error": error,
            "stage": stage,
            "scenes": len(group),
            "reason": group[0]["reason"],
            "scene": group[0]["scene"],
        }
        for (error, stage), group in sorted(groups.items(), key=lambda each: (-len(each[1]), each[0]))
    ]


def _stages(attempts: Iterable[Event]) -> dict[str, float]:
    """Seconds of all attempts by stage, longest first."""
    seconds = Counter[str]()
    for event in attempts:
        seconds.update(event["seconds"])
        known = sum(spent for stage, spent in event["seconds"].items() if stage != "read")
        seconds["other"] += max(0.0, event["elapsed"] - known)
    return {stage: round(spent, 1) for stage, spent in seconds.most_common() if spent}


def _missing_shards(runs: Sequence[Event]) -> list[str]:
    """Shards that no run has, of each list that is only mapped in shards."""
    whole = {run["list"] for run in runs if not run.get("shard") and run["scenes"] >= run["listed"]}
    known = {(run["list"], run["shard"]) for run in runs if run.get("shard")}
    counts = {(of, shard.partition("/")[2]) for of, shard in known if of not in whole}
    return [
        f"{index}/{count}"
        for of, count in sorted(counts)
        if count.isdigit()
        for index in range(int(count))
        if (of, f"{index}/{count}") not in known
    ]


def _pace(rate: float, hours: float | None, left: int) -> str:
    if not left:
        return "nothing is left"
    if hours is None:
        return "nothing is running" if not rate else f"{rate:g} scenes an hour"
    return f"{rate:g} scenes an hour; {_span(hours)} left"


def _span(hours: float) -> str:
    minutes = round(hours * 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{max(1, minutes)} min"


def _clock(when: dt.datetime) -> str:
    return when.strftime("%Y-%m-%d %H:%M:%S")
