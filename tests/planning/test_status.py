"""How runs stand, from the events that they have written."""

import datetime as dt
import json
import os
import platform
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil
import pytest

import geocfl
from geocfl.errors import UsageError

START = dt.datetime(2026, 6, 1, 10, tzinfo=dt.UTC)
NOWHERE = {"host": "elsewhere", "pid": 1}


def at(minutes: float) -> str:
    return (START + dt.timedelta(minutes=minutes)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def beginning(run: str, listed: int = 4, minutes: float = 0, **more: Any) -> dict[str, Any]:
    facts = {"scenes": listed, "listed": listed, "list": "L", "shard": None, **NOWHERE}
    return {"event": 1, "kind": "run", "run": run, "time": at(minutes), **facts, **more}


def ending(run: str, minutes: float, result: str = "finished") -> dict[str, Any]:
    return {"event": 1, "kind": "end", "run": run, "time": at(minutes), "result": result, "reason": ""}


def begun(run: str, scene: str, minutes: float) -> dict[str, Any]:
    return {"event": 1, "kind": "start", "run": run, "time": at(minutes), "scene": scene, "attempt": 1, **NOWHERE}


def ended(run: str, scene: str, minutes: float, outcome: str = "done", **more: Any) -> dict[str, Any]:
    error = "SceneError" if outcome in ("failed", "retried") else ""
    return {
        "event": 1, "kind": "scene", "run": run, "time": at(minutes), "scene": scene, "outcome": outcome, "attempt": 1,
        "error": error, "reason": f"{scene}: no" if error else "", "stage": "read" if error else "",
        "start": at(minutes - 5), "end": at(minutes), "elapsed": 300.0,
        "seconds": {"open": 60.0, "classify": 200.0, "write": 30.0, "read": 150.0}, "windows": 7,
        **NOWHERE, **more,
    }  # fmt: skip


def write(path: Path, events: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    return path


def test_a_finished_run(tmp_path: Path) -> None:
    events = [
        beginning("r"), ended("r", "a", 10), ended("r", "b", 20, "retried"), ended("r", "b", 30),
        ended("r", "c", 40, "failed"), ended("r", "d", 40, "skipped"), ending("r", 60),
    ]  # fmt: skip
    found = geocfl.status(write(tmp_path / "e.jsonl", events))
    assert (found.scenes, found.done, found.skipped, found.failed, found.left, found.retries) == (4, 2, 1, 1, 0, 1)
    assert found.failures == ({"error": "SceneError", "stage": "read", "scenes": 1, "reason": "c: no", "scene": "c"},)
    assert found.stages == {"classify": 1000.0, "read": 750.0, "open": 300.0, "write": 150.0, "other": 50.0}
    (run,) = found.runs
    assert (run.state, run.ended, run.scenes_per_hour) == ("finished", 4, 3.0)
    assert (found.scenes_per_hour, found.hours_left) == (0, None)
    text = found.table()
    assert "nothing is left" in text
    assert "slowest stage: classify" in text
    assert "SceneError  read" in text
    assert json.loads(json.dumps(found.to_json()))["failures"][0]["error"] == "SceneError"


def test_failures_are_told_apart_by_their_stage(tmp_path: Path) -> None:
    stages = {"a": "write", "b": "read", "c": "write"}
    events = [beginning("r"), *(ended("r", scene, 10, "failed", stage=stage) for scene, stage in stages.items())]
    found = geocfl.status(write(tmp_path / "e.jsonl", events)).failures
    assert [(each["stage"], each["scenes"], each["scene"]) for each in found] == [("write", 2, "a"), ("read", 1, "b")]


def test_shards_count_together(tmp_path: Path) -> None:
    for index in (0, 2):
        events = [
            beginning(f"r{index}", 8, scenes=2, shard=f"{index}/4"),
            ended(f"r{index}", f"s{index}", 30),
            ending(f"r{index}", 60),
        ]
        write(tmp_path / f"{index}.jsonl", events)
    (tmp_path / "other.txt").write_text("no events")
    (tmp_path / ".manifest.jsonl").write_text('{"hash": 1}\n')
    found = geocfl.status(tmp_path)
    assert (found.scenes, found.done, found.left) == (8, 2, 6)
    assert found.missing_shards == ("1/4", "3/4")
    assert "no events of shard 1/4, 3/4" in found.table()
    write(tmp_path / "again.jsonl", [beginning("again", 8, scenes=1), ended("again", "s0", 70)])  # --retry-failed
    assert geocfl.status(tmp_path).missing_shards == ("1/4", "3/4")
    write(tmp_path / "all.jsonl", [beginning("all", 8), ended("all", "s1", 5)])
    assert geocfl.status(tmp_path).missing_shards == ()


def test_another_number_of_shards_loses_nothing(tmp_path: Path) -> None:
    write(
        tmp_path / "a.jsonl",
        [beginning("a", 4, scenes=2, shard="0/2"), ended("a", "s0", 1), ended("a", "s1", 2, "failed")],
    )
    write(
        tmp_path / "b.jsonl",
        [beginning("b", 4, scenes=1, shard="0/4"), ended("b", "s1", 3), ended("b", "s0", 4, "skipped")],
    )
    found = geocfl.status(tmp_path)
    assert (found.scenes, found.done + found.skipped, found.failed, found.left) == (4, 2, 0, 2)


def test_a_repeated_run_forgets_nothing(tmp_path: Path) -> None:
    events = [
        beginning("a"),
        ended("a", "s", 1),
        ended("a", "t", 1, "failed"),
        ending("a", 2),
        beginning("b", minutes=3),
    ]
    events += [ended("b", "s", 4, "skipped"), ended("b", "t", 5), ended("b", "u", 6, "skipped")]
    found = geocfl.status(write(tmp_path / "e.jsonl", events))
    assert (found.done, found.skipped, found.failed) == (2, 1, 0)
    write(
        tmp_path / "f.jsonl",
        [beginning("c"), ended("c", "s", 1, "skipped"), ended("c", "u", 1), ended("c", "t", 1, "failed")],
    )
    found = geocfl.status(tmp_path)
    assert (found.done, found.skipped, found.failed) == (3, 0, 0)


def test_runs_over_other_scenes_are_added(tmp_path: Path) -> None:
    events = [beginning("a", 2), ended("a", "s", 1), beginning("b", 3, list="M"), ended("b", "s", 2, "failed")]
    found = geocfl.status(write(tmp_path / "e.jsonl", events))
    assert (found.scenes, found.done, found.failed) == (5, 1, 1)


def test_what_runs_here(tmp_path: Path) -> None:
    now = dt.datetime.now(dt.UTC)
    since = (START - now).total_seconds() / 60
    here = {"host": platform.node(), "pid": os.getpid()}
    events = [beginning("r", 10, -since - 30, **here), *(ended("r", f"s{n}", -since - 30 + 10 * n) for n in (1, 2, 3))]
    path = write(tmp_path / "e.jsonl", [*events, begun("r", "s4", -since)])
    created = psutil.Process().create_time()
    if now.timestamp() - 30 * 60 < created:  # this process is younger than the run that it would be
        assert geocfl.status(path).runs[0].state == "stopped"
    live = [beginning("r", 10, -since, **here), ended("r", "s1", -since + 6), begun("r", "s2", -since + 6)]
    found = geocfl.status(write(path, live))
    assert (found.runs[0].state, found.running, found.runs[0].running) == ("running", 1, ("s2",))
    assert (found.scenes_per_hour, found.hours_left) == (pytest.approx(10, rel=0.01), pytest.approx(0.9, rel=0.01))
    assert "10 scenes an hour; 54 min left" in found.table()
    live[0]["pid"] = 2**22 + 1  # beyond the largest number of a process
    assert geocfl.status(write(path, live)).runs[0].state == "stopped"
    assert geocfl.status(path).running == 0


def test_a_silent_run_elsewhere_counts_as_stopped(tmp_path: Path) -> None:
    minutes = (dt.datetime.now(dt.UTC) - START).total_seconds() / 60
    for silent, elapsed, state in ((5, 60, "running"), (15, 60, "stopped"), (15, 600, "running"), (55, 600, "stopped")):
        events = [beginning("r", minutes=minutes - 90), ended("r", "a", minutes - silent, elapsed=elapsed)]
        assert geocfl.status(write(tmp_path / "e.jsonl", events)).runs[0].state == state


def test_clocks_that_differ(tmp_path: Path) -> None:
    events = [beginning("r"), ended("r", "a", 10, start=at(500), end=at(-500)), ended("r", "b", -10), ending("r", -5)]
    write(tmp_path / "a.jsonl", events)
    write(tmp_path / "b.jsonl", [beginning("q", minutes=-9999), ended("q", "a", -9990, "failed")])
    found = geocfl.status(tmp_path)
    assert (found.done, found.failed, found.left) == (2, 0, 2)
    assert all(value >= 0 for value in found.stages.values())
    assert all(run.scenes_per_hour >= 0 for run in found.runs)
    assert "left" in found.table()


def test_a_file_without_its_first_lines(tmp_path: Path) -> None:
    found = geocfl.status(write(tmp_path / "e.jsonl", [ended("r", "a", 10), ending("r", 20)]))
    assert (found.scenes, found.done, found.runs[0].state) == (1, 1, "finished")


def test_any_part_of_a_file_can_be_read(tmp_path: Path) -> None:
    events = [beginning("r"), begun("r", "a", 1), ended("r", "a", 10), ended("r", "b", 20, "failed"), ending("r", 60)]
    text = write(tmp_path / "e.jsonl", events).read_text()
    chance = random.Random(0)
    for _ in range(50):
        cut = chance.randrange(len(text.splitlines()[0]) + 1, len(text) + 1)
        (tmp_path / "cut.jsonl").write_text(text[:cut])
        found = geocfl.status(tmp_path / "cut.jsonl")
        assert found.damaged == 0
        assert found.table()
        assert json.dumps(found.to_json())


def test_what_is_no_file_of_events(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no files of events"):
        geocfl.status(tmp_path)
    with pytest.raises(UsageError, match="cannot be read"):
        geocfl.status([tmp_path / "none"])
    (tmp_path / "a.jsonl").write_text('{"type": "Feature"}\n')
    with pytest.raises(UsageError, match="holds no events"):
        geocfl.status(tmp_path)
