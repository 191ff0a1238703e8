"""Plans: the formula on made-up costs, and which scenes are measured."""

import json
import os
from dataclasses import replace

import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

import geocfl
from geocfl.errors import SceneError, UsageError
from geocfl.planning import plan as planning
from geocfl.planning import profile as profiling
from geocfl.planning.actual import read_actual
from geocfl.planning.plan import Plan, plan
from geocfl.planning.profile import Cost, Stage
from tests.noise import write_scene
from tests.scenes.range_server import RangeServer


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(profiling, "SECONDS", 0.05)


def cost(start=1.0, read=4.0, classify=30.0, write=2.0, cores=1.0) -> Cost:
    """The cost of a scene with 100 windows; every step uses this number of cores."""
    stages = (Stage(seconds, seconds * cores) for seconds in (start, read, classify, write))
    return Cost("a.tif", 1000, 100, *stages, bytes_read=3_000_000, bytes_written=20_000)


def made_up(*costs: Cost, **facts) -> Plan:
    defaults = {"scenes": 10, "unreadable": (), "stand_in": False, "machines": 1, "cores": 4, "classifier": "m on cpu"}
    return Plan(costs=costs or (cost(),), **(defaults | {"load": 5.0, "read_rate": None, "remote": False} | facts))


def test_the_slowest_of_overlapping_steps_decides():
    assert made_up().seconds_per_scene == 30
    assert made_up().seconds == 5 + 1 + 2 + 10 * 30
    assert made_up().bottleneck == "classify"
    reading = made_up(cost(read=50))
    assert (reading.seconds_per_scene, reading.bottleneck) == (50, "read")
    # Two scenes at once: no faster than half of all steps of one.
    writing = made_up(cost(write=100))
    assert (writing.seconds_per_scene, writing.bottleneck) == ((1 + 30 + 100) / 2, "write")
    # One core for all of it.
    shared = made_up(cost(), cores=1)
    assert (shared.seconds_per_scene, shared.bottleneck) == (1 + 4 + 30 + 2, "classify")


def test_machines_share_whole_scenes():
    assert made_up(machines=3).seconds == 5 + 1 + 2 + 4 * 30
    assert made_up(machines=100).seconds == 5 + 1 + 2 + 30


def test_a_read_rate_adds_to_the_time_of_decoding():
    slow = made_up(read_rate=0.1)
    assert slow.stages["read"] == Stage(4 + 30, 4)
    assert (slow.seconds_per_scene, slow.bottleneck) == (34, "read")
    assert "receives files at" in slow.table()
    assert made_up(read_rate=100).bottleneck == "classify"


def test_files_that_are_hashed_are_transferred_once():
    held = made_up(replace(cost(), bytes_hashed=9_000_000), read_rate=0.1)
    assert held.stages["start"].seconds == pytest.approx(1 + 90)
    assert held.stages["read"].seconds == 4
    assert held.bytes_hashed == 90_000_000
    assert "bytes to hash" in held.table()
    assert "bytes to hash" not in made_up().table()


def test_clouds_are_read_but_not_classified():
    clear, cloudy = made_up(), made_up(cloud_share=0.4)
    assert (cloudy.windows, cloudy.stages["classify"]) == (600, Stage(18, 18))
    assert cloudy.stages["read"] == clear.stages["read"]
    assert "Clouds hide 40% of the windows" in cloudy.table()


def test_retried_scenes_take_time_and_requests():
    remote = replace(cost(), requests=20)
    assert (made_up(remote).requests, made_up(remote, retry_share=0.1).requests) == (200, 220)
    assert made_up(retry_share=0.1).seconds == made_up(scenes=11).seconds
    assert made_up(retry_share=0.1).windows == made_up().windows


def test_a_price_is_that_of_all_machines():
    p = made_up(machines=3, price_hour=0.9)
    assert p.price == pytest.approx(3 * p.seconds / 3600 * 0.9)
    assert planning.in_money(p.price) in p.table()
    assert p.to_json()["price"] == p.price
    assert made_up().price is None
    assert "price" not in made_up().table()


@pytest.mark.parametrize(
    ("price", "text"),
    [(0, "0"), (2.61e-5, "0.000026"), (0.0312, "0.031"), (0.5, "0.50"), (0.999, "1.00"), (1234.567, "1,234.57")],
)
def test_small_prices_are_not_rounded_to_nothing(price, text):
    assert planning.in_money(price) == text


def test_dates_multiply_the_scenes(tmp_path, tiny_model):
    p = plan(write_scene(tmp_path / "s.tif", 128, 128), tiles=50, dates=4, model=tiny_model)
    assert (p.scenes, p.dates) == (200, 4)
    assert "Each scene is mapped at 4 dates." in p.table()


def test_a_plan_is_shown_beside_what_happened(tmp_path):
    event = {"event": 1, "kind": "scene", "run": "r1", "time": "2026-11-28T08:00:00.000Z", "host": "a", "pid": 1}
    event |= {"error": "", "reason": "", "attempt": 1, "elapsed": 60.0, "windows": 110, "bytes_written": 21_000}
    event |= {"seconds": {"open": 1.5, "read": 5.0, "classify": 33.0, "write": 2.0}}

    def scene(name: str, outcome: str, start: int, end: int, **more) -> dict:
        times = {key: f"2026-11-28T08:{minute:02}:00.000Z" for key, minute in (("start", start), ("end", end))}
        return event | {"scene": name, "outcome": outcome} | times | more

    lines = [
        scene("1.tif", "done", 0, 1),
        scene("2.tif", "retried", 1, 2, seconds={"open": 1.0}, windows=0),
        scene("3.tif", "failed", 1, 2, seconds={}, windows=0),
        scene("2.tif", "done", 2, 3),
        scene("4.tif", "skipped", 3, 4, seconds={}, windows=0),
        scene("5.tif", "done", 30, 32, host="b"),  # whose clock differs
        scene("6.tif", "done", 3, 3, seconds={"open": 1.0}, windows=0),  # only got another product
        {"event": 1, "kind": "end", "run": "r1", "time": "2026-11-28T09:00:00.000Z", "result": "finished"},
    ]
    log = tmp_path / "r1.jsonl"
    log.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"event": 1, "ki')
    actual = read_actual(tmp_path, "m", {})
    assert actual == read_actual(log, "m", {})
    assert (actual.scenes, actual.failed, actual.hosts) == (3, 1, 2)
    assert actual.attempts == pytest.approx(5 / 3)
    assert actual.seconds == {"start": 1.5, "read": 5, "classify": 33, "write": 2}
    assert actual.seconds_per_scene == (3 + 2) * 60 / 3
    table = made_up(actual=actual).table().splitlines()
    assert [line.split() for line in table if line.startswith("classify")][1] == ["classify", "30.0", "s", "33.0", "s"]
    assert any("mapped 3 scenes on 2 machines; 1 failed" in line for line in table)


def test_a_run_with_other_settings_is_compared_with_a_warning(tmp_path, caplog):
    common = {"event": 1, "run": "r1", "time": "2026-11-28T08:00:00.000Z", "host": "a", "pid": 1}
    run = common | {
        "kind": "run",
        "scenes": 1,
        "listed": 1,
        "list": "x",
        "model": "m",
        "settings": {"stride": 64, "tta": 1},
    }
    done = {
        "kind": "scene",
        "scene": "1.tif",
        "outcome": "done",
        "error": "",
        "reason": "",
        "attempt": 1,
        "elapsed": 9.0,
    }
    times = {"start": common["time"], "end": common["time"], "seconds": {"read": 5.0}, "windows": 110}
    (tmp_path / "e.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (run, common | done | times)))
    read_actual(tmp_path, "m", {"stride": 64, "tta": 1, "new": True})
    assert not caplog.messages
    read_actual(tmp_path, "other", {"stride": 32, "tta": 1})
    assert [message.partition(": ")[2] for message in caplog.messages] == [
        "holds a run with `model=m`, while the plan has `model=other`: their figures are not alike",
        "holds a run with `stride=64`, while the plan has `stride=32`: their figures are not alike",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read"),
        ("no events", "holds no events"),
        ('{"event": 2, "kind": "scene"}\n', "was written by a newer geocfl"),
        (
            '{"event": 1, "kind": "end", "run": "r", "time": "2026-11-28T09:00:00Z", "result": ""}\n',
            "holds no scene that",
        ),
    ],
)
def test_events_that_cannot_be_compared_with(tmp_path, text, said):
    if text is not None:
        (tmp_path / "e.jsonl").write_text(text)
    with pytest.raises(UsageError, match=rf"e\.jsonl: {said}") as error:
        read_actual(tmp_path / "e.jsonl", "m", {})
    assert "\n" not in str(error.value)


@pytest.mark.integration
def test_real_events_are_compared_with(tmp_path, tiny_model, caplog):
    scene = write_scene(tmp_path / "s.tif", 128, 128)
    list(geocfl.map_scenes(scene, tmp_path / "maps", model=tiny_model, events=tmp_path / "e.jsonl"))
    p = plan(scene, model=tiny_model, events=tmp_path / "e.jsonl")
    assert "their figures are not alike" not in caplog.text
    assert p.windows == pytest.approx(p.actual.windows, rel=0.3)  # by the share of no data
    assert p.actual.bytes_written == pytest.approx(p.bytes_written, rel=0.2)
    assert p.to_json()["actual"]["scenes"] == 1


@pytest.mark.integration
def test_requests_are_about_those_of_a_map(tmp_path, tiny_model):
    write_scene(tmp_path / "s.tif", 2100, 1000, blockxsize=256, blockysize=256)
    with RangeServer(tmp_path) as server:
        p = plan(server.url("s.tif"), model=tiny_model)
        before = len(server.requests("s.tif"))
        geocfl.map_scene(server.url("s.tif"), tmp_path / "maps", model=tiny_model)
        sent = len(server.requests("s.tif")) - before
    assert p.costs[0].bytes_hashed == 0
    assert sent / 2 <= p.requests <= 2 * sent
    assert f"{p.requests:,}" in p.table()
    assert "CPL_DEBUG" not in os.environ


def test_a_busy_machine_is_reported():
    text = made_up(cost(cores=0.5), cores=2).table()
    assert "classifying got only 0.5 of 2 cores. When it is idle, a scene takes about 9.2 s" in text
    assert "busy" not in made_up(cost(cores=1.9), cores=2).table()
    assert "busy" not in made_up(cost(cores=0.5), cores=2, classifier="m on cuda").table()


def test_totals_cover_all_scenes():
    both = made_up(cost(), replace(cost(classify=60), windows=300, bytes_written=40_000), scenes=6)
    assert (both.windows, both.bytes_read, both.bytes_written) == (1200, 18_000_000, 180_000)
    assert both.seconds_per_scene == 45
    assert made_up(cost(), replace(cost(), bytes_read=None)).bytes_read is None
    assert "unknown" in made_up(replace(cost(), bytes_read=None)).table()


@given(
    stages=st.lists(st.floats(0, 1e4), min_size=4, max_size=4),
    cores=st.integers(1, 64),
    scenes=st.integers(1, 20_000),
    machines=st.integers(1, 2000),
)
def test_a_plan_is_within_its_bounds(stages, cores, scenes, machines):
    p = made_up(cost(*stages), cores=cores, scenes=scenes, machines=machines)
    alone = sum(stages)
    assert max(stages[1:3]) <= p.seconds_per_scene <= alone + 1e-6
    rounds = -(-scenes // machines)
    assert p.seconds <= p.load + stages[0] + stages[3] + rounds * alone + 1e-6
    assert p.seconds >= made_up(cost(*stages), cores=cores, scenes=scenes, machines=machines + 1).seconds - 1e-6
    assert p.bottleneck in ("start", "read", "classify", "write")


def test_a_few_scenes_represent_all_and_broken_ones_are_left_out(tmp_path, tiny_model):
    for index in range(9):
        write_scene(tmp_path / f"s{index}.tif", 128 + 16 * index, 128)
    (tmp_path / "t.tif").write_bytes(b"no scene")
    p = plan([tmp_path / "*.tif"], model=tiny_model, machines=2)
    assert p.scenes == 9
    assert [c.scene for c in p.costs] == ["s0.tif", "s4.tif", "s8.tif"]
    assert len(p.unreadable) == 1
    text = p.table()
    assert "the other 6 are assumed to be similar" in text
    assert "Left out because they cannot be mapped:" in text
    assert "t.tif" in text
    assert json.loads(json.dumps(p.to_json()))["windows"] == p.windows
    assert plan([tmp_path / "s0.tif"], model=tiny_model, tiles=50).scenes == 50


def test_scenes_that_cannot_be_mapped_are_replaced_by_others(tmp_path, tiny_model):
    bad = {0: {"height": 40}, 4: {"crs": None}}
    for index in range(9):
        write_scene(tmp_path / f"s{index}.tif", **({"height": 128, "width": 128} | bad.get(index, {})))
    with rasterio.open(tmp_path / "s8.tif", "r+") as dataset:
        dataset.descriptions = ("B01", "B03", "B02", "B08")
    calls = []
    p = plan([tmp_path / "*.tif"], model=tiny_model, progress=lambda *step: calls.append(step[1:3]))
    assert p.scenes == 6
    assert [c.scene for c in p.costs] == ["s1.tif", "s2.tif", "s3.tif"]
    assert calls == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert len(p.unreadable) == 3
    assert "smaller than the model's window" in p.unreadable[0]
    calls.clear()
    some = [tmp_path / f"s{index}.tif" for index in (0, 1, 4)]
    p = plan(some, model=tiny_model, tiles=7, progress=lambda *step: calls.append(step[1:3]))
    assert (p.scenes, len(p.costs), len(p.unreadable)) == (7, 1, 2)
    assert calls == [(0, 3), (1, 3), (3, 3)]


def test_a_single_scene_needs_no_list(tmp_path, tiny_model):
    scene = write_scene(tmp_path / "s.tif", 128, 128)
    assert [plan(each, model=tiny_model).costs[0].scene for each in (scene, str(scene))] == ["s.tif"] * 2


def test_a_read_rate_without_a_known_size_is_refused_at_once(tmp_path, tiny_model, monkeypatch):
    scenes = [write_scene(tmp_path / f"s{index}.tif", 128, 128) for index in range(3)]
    monkeypatch.setattr(profiling, "stored_bytes", lambda source: None)
    calls = []
    with pytest.raises(UsageError, match=r"`read_rate` needs the size of s0\.tif, which is unknown"):
        plan(scenes, model=tiny_model, read_rate=20, progress=lambda *step: calls.append(step))
    assert calls == [("plan", 0, 3, "scene")]


def test_scenes_that_are_not_measured_do_not_make_the_plan_remote(tmp_path, tiny_model, monkeypatch):
    scenes = [write_scene(tmp_path / f"s{index}.tif", 128, 128) for index in range(4)]
    monkeypatch.setattr(planning, "is_remote", lambda path: path.endswith("s1.tif"))
    p = plan(scenes, model=tiny_model)
    assert ([c.scene for c in p.costs], p.remote) == (["s0.tif", "s2.tif", "s3.tif"], False)
    assert plan(scenes[1], model=tiny_model).remote


def test_bytes_that_round_to_a_thousand_use_the_next_unit():
    sizes = {0: "0 B", 999: "999 B", 999.7e6: "1 GB", 12_345: "12.3 kB", 999.4e9: "999 GB", 5e15: "5,000 TB"}
    assert {size: planning._bytes(size) for size in sizes} == sizes


def test_without_a_scene_a_synthetic_one_stands_in_for_tiles(tiny_model, monkeypatch):
    monkeypatch.setattr(profiling, "STAND_IN", (1, 1))
    p = plan(tiles=20_000, machines=100, model=tiny_model, products=("default", "stac"))
    assert (p.stand_in, p.scenes) == (True, 20_000)
    assert p.windows == 20_000 * 172 * 172
    assert p.costs[0].pixels == 10_980**2
    assert p.costs[0].bytes_read > 50_000_000
    text = p.table()
    assert "synthetic scene" in text
    assert "Real scenes compress differently" in text
    assert "100 machines" in text
    assert "591,680,000" in text


def test_invalid_values_are_refused_in_one_sentence(tmp_path, tiny_model):
    scene, broken = write_scene(tmp_path / "s.tif"), tmp_path / "broken.tif"
    broken.write_bytes(b"no scene")
    cut = tmp_path / "cut.tif"
    cut.write_bytes(scene.read_bytes()[:20_000])
    for arguments, kind, said in [
        ({}, UsageError, "nothing to plan for; pass scenes, or a number of tiles as `tiles`"),
        ({"scenes": [tmp_path / "*.jp2"]}, UsageError, r"\*\.jp2"),
        ({"scenes": [scene], "machines": 0}, UsageError, "`machines` is 0 but must be at least 1"),
        ({"tiles": 0}, UsageError, "`tiles` is 0 but must be at least 1"),
        ({"scenes": [scene], "read_rate": 0}, UsageError, "`read_rate` is 0 but must be above 0"),
        ({"scenes": [scene], "dates": 0}, UsageError, "`dates` is 0 but must be at least 1"),
        ({"scenes": [scene], "cloud_share": 1.5}, UsageError, "`cloud_share` is 1.5 but must be 0 to 1"),
        ({"scenes": [scene], "cloud_share": 0.5, "mask": "scl"}, UsageError, "`mask` is measured; use one of them"),
        ({"scenes": [scene], "price_hour": -1}, UsageError, "`price_hour` is -1 but must be"),
        ({"tiles": 5, "mask": "scl"}, UsageError, "`bbox`, `aoi` and `mask` need scenes"),
        ({"scenes": [scene], "stride": 65}, UsageError, "`stride` is 65"),
        ({"scenes": [broken]}, SceneError, r"broken\.tif"),
        ({"scenes": [cut]}, SceneError, r"cut\.tif"),
    ]:
        with pytest.raises(kind, match=said) as error:
            plan(**arguments, model=tiny_model)
        assert "\n" not in str(error.value)
