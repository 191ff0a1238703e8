"""Events of runs: what is written, also when a run fails, is stopped or shares its scenes; and what is read again."""

import json
import shutil
import subprocess
import sys
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import geocfl
from geocfl.errors import GeocflError, OutputError, SceneError, UsageError
from geocfl.mapping import attempts
from geocfl.mapping.attempts import Attempt, Ended, attempt, in_turn, refused
from geocfl.mapping.events import EventLog, outcomes, read_events
from geocfl.mapping.mapper import SCENES_AT_ONCE, Mapper
from geocfl.mapping.measured import Measured
from geocfl.mapping.results import FailureLimit, Tally
from geocfl.products.lock import BusyError, LockedFolder
from geocfl.products.scene_map import SceneMap
from geocfl.scenes import Source
from geocfl.scenes.collect import Listed
from tests.noise import write_noise

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/reference/events.schema.json").read_text())


def write_scene(path: Path, seed: int = 0) -> Path:
    return write_noise(path, 70, 70, seed)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("scenes")
    good = [write_scene(folder / f"S2A_20240601T10003{n}.tif", n) for n in range(2)]
    bad = folder / "bad.tif"
    bad.write_text("no raster")
    return [*good, bad]


def raw(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


FAST = {"products": ("lulc", "summary"), "retries": 0}


def test_a_run_and_its_repetition_write_events_of_the_schema(
    tmp_path: Path, tiny_model: Path, scenes: list[Path]
) -> None:
    file = tmp_path / "maps/events.jsonl"  # in the output folder, which does not exist yet
    options = {"model": tiny_model, "events": file, **FAST}
    results = dict(geocfl.map_scenes(scenes, tmp_path / "maps", **options))
    before = raw(file)
    for event in before:
        jsonschema.validate(event, SCHEMA)
    assert [event["kind"] for event in before[:1] + before[-1:]] == ["run", "end"]
    assert {event["run"] for event in before} == {before[0]["run"]}
    assert before[-1] == before[-1] | {"result": "finished", "done": 2, "skipped": 0, "failed": 1}
    ends = outcomes(read_events(file).events)
    assert {scene: event["outcome"] for scene, event in ends.items()} == {
        str(scenes[0]): "done", str(scenes[1]): "done", str(scenes[2]): "failed",
    }  # fmt: skip
    good, bad = ends[str(scenes[0])], ends[str(scenes[2])]
    summary = results[str(scenes[0])].summary
    assert good["digest"] == summary["hash"]
    assert good["windows"] == summary["timing"]["windows"] == 4
    assert good["bytes_read"] >= 3 * 70 * 70 * 2
    assert good["bytes_written"] == sum(path.stat().st_size for path in results[str(scenes[0])].paths.values())
    assert set(good["seconds"]) == {"open", "read", "classify", "write"}
    assert good["start"] <= good["end"]
    assert good["elapsed"] >= good["seconds"]["open"] + good["seconds"]["classify"] + good["seconds"]["write"] - 0.01
    assert (bad["error"], bad["stage"], good["stage"]) == ("SceneError", "open", "")
    assert (bad["given"], good["given"]) == ([str(scenes[2])], [str(scenes[0])])
    assert str(scenes[2]) in bad["reason"]

    list(geocfl.map_scenes(scenes, tmp_path / "maps", **options))
    after = raw(file)[len(before) :]
    assert after[0]["run"] != before[0]["run"]
    assert after[0]["list"] == before[0]["list"]
    assert after[-1] == after[-1] | {"done": 0, "skipped": 2, "failed": 1}


def test_only_scenes_that_failed_are_mapped_again(tmp_path: Path, tiny_model: Path, scenes: list[Path]) -> None:
    file, options = tmp_path / "events.jsonl", {"model": tiny_model, **FAST}
    bad = tmp_path / "in" / "bad.tif"
    bad.parent.mkdir()
    bad.write_text("no raster")
    listed = [scenes[0], bad]
    list(geocfl.map_scenes(listed, tmp_path / "maps", events=file, **options))
    write_scene(bad, 7)
    again = dict(geocfl.map_scenes(listed, tmp_path / "maps", events=file, retry_failed=file, **options))
    assert list(again) == [str(bad)]
    assert isinstance(again[str(bad)], SceneMap)
    assert [*geocfl.map_scenes(listed, tmp_path / "maps", retry_failed=file, **options)] == []
    (tmp_path / "other.jsonl").write_text(file.read_text().splitlines()[0] + "\n")
    assert [*geocfl.map_scenes(listed, tmp_path / "maps", retry_failed=tmp_path / "other.jsonl", **options)] == []


def test_events_of_other_scenes_are_refused(tmp_path: Path, tiny_model: Path, scenes: list[Path]) -> None:
    file, options = tmp_path / "events.jsonl", {"model": tiny_model, **FAST}
    list(geocfl.map_scenes([scenes[2]], tmp_path / "maps", events=file, **options))
    with pytest.raises(UsageError, match=r"bad\.tif failed in that run but is not among the scenes; pass"):
        list(geocfl.map_scenes([scenes[0]], tmp_path / "maps", retry_failed=file, **options))
    with pytest.raises(UsageError, match="cannot be read"):
        list(geocfl.map_scenes([scenes[0]], tmp_path / "maps", retry_failed=tmp_path / "none", **options))
    (tmp_path / "text").write_text("hello\n")
    with pytest.raises(UsageError, match="holds no events"):
        list(geocfl.map_scenes([scenes[0]], tmp_path / "maps", retry_failed=tmp_path / "text", **options))
    with pytest.raises(GeocflError, match="cannot be written to"):
        list(geocfl.map_scenes([scenes[0]], tmp_path / "maps", events=tmp_path / "text/events", **options))
    assert not (tmp_path / "maps").exists()


def scene_event(**changes: Any) -> dict[str, Any]:
    """A sound event, with changes."""
    return {
        "event": 1, "kind": "scene", "run": "a" * 12, "time": "2024-06-01T10:00:00.000Z", "scene": "s.tif", "stem": "s",
        "folder": "", "given": ["s.tif"], "digest": "", "outcome": "failed", "error": "SceneError",
        "reason": "s.tif: no", "stage": "open", "attempt": 1,
        "host": "h", "pid": 1, "start": "2024-06-01T09:59:00.000Z", "end": "2024-06-01T10:00:00.000Z", "elapsed": 60.0,
        "seconds": {"open": 1.0}, "windows": 0, "bytes_read": 0, "bytes_written": 0, "peak_memory": 1, **changes,
    }  # fmt: skip


def test_damaged_lines_are_left_out(tmp_path: Path) -> None:
    jsonschema.validate(scene_event(), SCHEMA)
    file = tmp_path / "events.jsonl"
    damaged = [
        "{", "[]", "null", "1", '{"event": 1}', "\0", "[" * 100_000, json.dumps(scene_event(kind="party")),
        *(json.dumps(scene_event(**change)) for change in (
            {"outcome": "fine"}, {"start": "yesterday"}, {"end": 7}, {"elapsed": -1}, {"elapsed": float("nan")},
            {"seconds": {"open": "1"}}, {"scene": None}, {"windows": -1}, {"run": 5}, {"time": "9999-99-99"},
        )),
    ]  # fmt: skip
    for line in damaged:
        file.write_text(f"{json.dumps(scene_event())}\n{line}\n")
        read = read_events(file)
        assert (len(read.events), read.damaged) == (1, 1), line
    file.write_text(json.dumps(scene_event()) + "\n" + json.dumps(scene_event())[:40])
    assert (len(read_events(file).events), read_events(file).damaged) == (1, 0)
    file.write_text(json.dumps(scene_event(event=2)) + "\n")
    with pytest.raises(UsageError, match="newer geocfl"):
        read_events(file)


def test_a_line_that_a_kill_has_cut_off_does_not_spoil_the_next_run(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text(json.dumps(scene_event())[:40])
    with EventLog(file, {"scenes": 0, "listed": 0, "list": ""}):
        pass
    assert [event["kind"] for event in read_events(file).events] == ["run", "end"]
    assert read_events(file).damaged == 1


def test_no_other_file_is_added_to(tmp_path: Path) -> None:
    facts = {"scenes": 0, "listed": 0, "list": ""}
    file = tmp_path / "scenes.txt"
    file.write_text("s.tif")
    with pytest.raises(OutputError, match=r"scenes\.txt: is no file of events; choose another file"):
        EventLog(file, facts)
    assert file.read_text() == "s.tif"
    with pytest.raises(OutputError, match="cannot be written to"):
        EventLog(tmp_path, facts)
    with pytest.raises(UsageError, match="cannot be added to a file in an object store"):
        EventLog("memory://bucket/events.jsonl", facts)
    file.write_text("")
    with EventLog(file, facts):
        pass
    assert len(raw(file)) == 2
    with EventLog("/dev/null", facts):
        pass


def test_an_end_says_why_the_run_ended(tmp_path: Path) -> None:
    facts = {"scenes": 0, "listed": 0, "list": ""}
    for error, result in ((KeyboardInterrupt(), "stopped"), (GeocflError("enough"), "failed")):
        file = tmp_path / f"{result}.jsonl"
        with pytest.raises(type(error)), EventLog(file, facts):
            raise error
        last = raw(file)[-1]
        assert (last["result"], last["reason"]) == (result, str(error) if result == "failed" else "")


def test_no_secrets_in_events(tmp_path: Path) -> None:
    error = SceneError("https://user:secret@example.com/s.tif?sig=token: cannot be read")
    file = tmp_path / "events.jsonl"
    with EventLog(file, {"scenes": 1, "listed": 1, "list": ""}) as log:
        log.ended(Listed("s.tif", None), Ended(0, refused(error), 1, "failed"))
    assert "secret" not in file.read_text()
    assert "token" not in file.read_text()


def test_a_run_stops_when_too_many_scenes_fail(tmp_path: Path, tiny_model: Path, scenes: list[Path]) -> None:
    bad = []
    for number in range(30):
        bad.append(tmp_path / f"in/{number}.tif")
        bad[-1].parent.mkdir(exist_ok=True)
        bad[-1].write_text("no raster")
    seen = []
    file = tmp_path / "events.jsonl"
    with pytest.raises(GeocflError, match=r"10 of 10 scenes failed, more than `max_failed=0.5` allows") as caught:
        seen.extend(geocfl.map_scenes(bad, tmp_path / "maps", model=tiny_model, max_failed=0.5, events=file))
    assert caught.value.exit_code == 1
    assert len(seen) == 10
    assert raw(file)[-1]["result"] == "failed"
    with pytest.raises(UsageError, match="`max_failed` is 2 but must be between 0 and 1"):
        next(geocfl.map_scenes(bad, tmp_path / "maps", model=tiny_model, max_failed=2.0))


def test_the_share_of_failures_leaves_out_scenes_that_were_mapped_before() -> None:
    limit = FailureLimit(0.2)
    for outcome in ["skipped"] * 100 + ["done"] * 8 + ["failed"] * 2:
        limit.add(outcome)
    with pytest.raises(GeocflError, match="3 of 11 scenes failed"):
        limit.add("failed")


@pytest.mark.parametrize(("outcomes", "code"), [("", 0), ("ds", 0), ("dsf", 3), ("sf", 3), ("f", 1), ("ff", 1)])
def test_exit_codes(outcomes: str, code: int) -> None:
    tally = Tally()
    tally.counts.update({"d": "done", "s": "skipped", "f": "failed"}[each] for each in outcomes)
    assert tally.exit_code() == code


def run_in_turn(results: dict[int, list[SceneMap | GeocflError]], retries: int = 2) -> list[tuple[int, int, str]]:
    """The ends of attempts whose results are given in turn, in one thread."""
    with ThreadPoolExecutor(1) as pool:

        def work(index: int, number: int) -> Attempt[Any]:
            result = results[index][number - 1]

            def give(_: Measured) -> SceneMap:
                if isinstance(result, Exception):
                    raise result
                return result

            return attempt("s.tif", give)

        ends = in_turn(results, lambda *which: pool.submit(work, *which), lambda _, done: done.result(), retries)
        return [(ended.index, ended.number, ended.outcome) for ended in ends]


DONE, SKIPPED = SceneMap({}), SceneMap({}, already_done=True)


def test_scenes_come_again_at_the_end_of_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "BUSY_PAUSE", 0.01)
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0")
    passing, lasting, busy = SceneError("later", transient=True), SceneError("never"), BusyError("wait; or stop")
    assert run_in_turn({0: [passing, DONE], 1: [busy, busy, SKIPPED], 2: [lasting], 3: [DONE]}) == [
        (0, 1, "retried"), (1, 1, "busy"), (2, 1, "failed"), (3, 1, "done"), (0, 2, "done"), (1, 2, "busy"),
        (1, 3, "skipped"),
    ]  # fmt: skip
    assert run_in_turn({0: [passing] * 3}) == [(0, 1, "retried"), (0, 2, "retried"), (0, 3, "failed")]


def test_the_wait_for_another_process_ends(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(attempts, "BUSY_PAUSE", 0.01)
    monkeypatch.setattr(attempts, "BUSY_PATIENCE", 0.02)
    ends = run_in_turn({0: [BusyError("maps: another geocfl is working on s there; wait for it, or stop it")] * 99})
    assert ends[-1][2] == "failed"
    assert {end[2] for end in ends[:-1]} == {"busy"}
    assert [record.getMessage() for record in caplog.records] == [
        "maps: another geocfl is working on s there; waiting for it"
    ]


def test_lost_work_ends_the_turn() -> None:
    with ThreadPoolExecutor(1) as pool:
        ends = in_turn(
            range(3), lambda *_: pool.submit(int), lambda index, _: refused(SceneError("")) if index else None, 2
        )
        assert [ended.index for ended in ends] == [1, 2]


def test_a_scene_that_another_process_maps_is_skipped_when_that_has_finished(
    tmp_path: Path, tiny_model: Path, scenes: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "BUSY_PAUSE", 0.05)
    out, file, options = tmp_path / "maps", tmp_path / "events.jsonl", {"model": tiny_model, **FAST}
    list(geocfl.map_scenes(scenes[:1], tmp_path / "other", **options))
    lock = LockedFolder(out, out, scenes[0].stem, private=False)
    lock.acquire()

    def finish_when_waited_for() -> None:
        while not file.exists() or '"outcome": "busy"' not in file.read_text():
            time.sleep(0.01)
        shutil.copytree(tmp_path / "other", out, dirs_exist_ok=True)
        lock.release()

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(finish_when_waited_for)
        results = dict(geocfl.map_scenes(scenes[:2], out, events=file, **options))
        other.result(timeout=10)
    assert set(results) == {str(scenes[0]), str(scenes[1])}
    assert results[str(scenes[0])].already_done
    found = [event["outcome"] for event in raw(file) if event["kind"] == "scene" and event["scene"] == str(scenes[0])]
    assert set(found[:-1]) == {"busy"}
    assert found[-1] == "skipped"


def test_memory_stays_flat_over_many_scenes(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[weakref.ref[SceneMap]] = []
    highest = 0

    def mapped(mapper: Mapper, source: Source, *_: Any, **__: Any) -> SceneMap:
        result = SceneMap({}, {"warnings": ["odd"] * 10, "content": "x" * 10_000})
        held.append(weakref.ref(result))
        return result

    monkeypatch.setattr(Mapper, "map", mapped)
    (tmp_path / "maps").mkdir()
    tally = Tally()
    sources = [Source(f"{n}.tif", f"s{n}", {}) for n in range(500)]
    how: dict[str, Any] = {"model": tiny_model, "events": tmp_path / "e.jsonl", "shard": (0, 1)}  # without a catalog
    for path, result in geocfl.map_scenes(sources, tmp_path / "maps", **how):
        tally.add(path, result)
        highest = max(highest, sum(each() is not None for each in held))
    assert tally.counts["done"] == 500
    assert len(tally.warnings) + tally.more_warnings == 5000
    assert highest <= 2 * SCENES_AT_ONCE + 2  # what waits to be taken, and the one at hand


@pytest.mark.integration
def test_equal_commands_share_the_scenes(tmp_path: Path, tiny_model: Path) -> None:
    for number in range(12):
        write_scene(tmp_path / f"in/s{number:02}_20240601T100031.tif", number)
    command = [str(Path(sys.executable).with_name("geocfl")), "map", "in/*.tif", "--model", str(tiny_model)]
    command += ["--products", "lulc", "--stride", "2"]
    subprocess.run([*command, "--out", "alone/maps"], cwd=tmp_path, check=True, capture_output=True)
    running = [
        subprocess.Popen(
            [*command, "--out", "shared/maps", "--events", f"{number}.jsonl"], cwd=tmp_path, stderr=subprocess.PIPE
        )
        for number in range(3)
    ]
    errors = [process.communicate()[1] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], errors
    ends = [outcomes(read_events(tmp_path / f"{number}.jsonl").events) for number in range(3)]
    assert all(len(each) == 12 for each in ends)
    done = [scene for each in ends for scene, event in each.items() if event["outcome"] == "done"]
    assert len(done) == len(set(done)) == 12
    assert sum(any(event["outcome"] == "done" for event in each.values()) for each in ends) > 1
    alone, shared = (
        {path.name: path.read_bytes() for path in (tmp_path / out / "maps").glob("[!.]*") if "summary" not in path.name}
        for out in ("alone", "shared")
    )
    assert shared == alone
    assert geocfl.status(tmp_path).done == 12
