"""Scenes that failed are found again by their events alone."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import geocfl
from geocfl.core.progress import silent
from geocfl.errors import OutputError, SceneError, UsageError
from geocfl.mapping import mapper
from geocfl.mapping.attempts import attempt
from geocfl.mapping.events import read_events
from geocfl.mapping.retry import scenes_to_retry
from geocfl.mapping.settings import MapSettings
from geocfl.models.bundle import Bundle
from geocfl.products.scene_map import SceneMap
from geocfl.scenes import Scene, Source
from geocfl.scenes.source import Band
from tests.mapping.test_events import FAST, SCHEMA, raw, scene_event, write_scene
from tests.scenes.formats.test_stac import earth_search


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def broken(*paths: str) -> list[str]:
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("no raster")
    return [*paths]


def test_events_alone_name_what_failed(tiny_model: Path) -> None:
    options = {"model": tiny_model, "events": "run.jsonl", **FAST}
    write_scene(Path("in/a.tif"))
    listed = ["in/a.tif", *broken("in/b.tif", "in/c.tif")]
    list(geocfl.map_scenes(listed, "maps", **options))
    write_scene(Path("in/b.tif"), 1)
    again = dict(geocfl.map_scenes(out="maps", retry_failed="run.jsonl", **options))
    assert set(again) == {"in/b.tif", "in/c.tif"}
    assert isinstance(again["in/b.tif"], SceneMap)
    found = geocfl.status("run.jsonl")
    assert (found.scenes, found.done, found.failed, found.left) == (3, 2, 1, 0)
    begins = [event for event in raw(Path("run.jsonl")) if event["kind"] == "run"]
    assert [(event["scenes"], event["listed"]) for event in begins] == [(3, 3), (2, 3)]
    assert len({event["list"] for event in begins}) == 1
    with pytest.raises(UsageError, match="`shard` is a part of all scenes"):
        next(geocfl.map_scenes(out="maps", retry_failed="run.jsonl", shard=(0, 2), **options))


def test_files_of_single_bands_and_items_are_found_again(tiny_model: Path) -> None:
    bands = broken(*(f"bands/T33TUL_{band}.tif" for band in ("B04", "B03", "B02")))
    items = [earth_search() | {"id": name, "assets": {}} for name in "AB"]
    Path("items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    run = geocfl.map_scenes(bands, "maps", stac_items="items.json", model=tiny_model, events="run.jsonl", **FAST)
    names = sorted(path for path, _ in run)
    assert names == ["bands/T33TUL_B04.tif", "items.json#A", "items.json#B"]
    again = scenes_to_retry("run.jsonl")
    assert [each.path for each in again.scenes] == names
    assert again.scenes[0].source
    assert set(again.scenes[0].source.bands) == {"B04", "B03", "B02"}
    assert again.listed == 3


def test_signed_links_need_the_list(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    for scene in ("http://127.0.0.1:9/a.tif?sig=secret", Source("mine", "mine", {"B04": Band("none.tif")})):
        list(geocfl.map_scenes(scene, "maps", model=tiny_model, events="run.jsonl", **FAST))
        assert "secret" not in Path("run.jsonl").read_text()
        with pytest.raises(UsageError, match=r"run\.jsonl: does not say where .* lies, because .*; pass the scenes"):
            scenes_to_retry("run.jsonl")
        Path("run.jsonl").unlink()


def test_events_that_were_changed_by_hand_do_no_harm() -> None:
    for given in (None, [], "s.tif", [1]):
        Path("e.jsonl").write_text(json.dumps(scene_event(given=given)))
        with pytest.raises(UsageError, match=r"does not say where s\.tif lies"):
            scenes_to_retry("e.jsonl")
    Path("e.jsonl").write_text(json.dumps(scene_event(outcome="done")))
    assert scenes_to_retry("e.jsonl").scenes == []


@pytest.mark.parametrize("stage", ["open", "read", "classify", "write"])
def test_events_name_the_stage_that_failed(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    scene = write_scene(tmp_path / "in/s.tif")

    def fail(*_: Any, **__: Any) -> Any:
        raise OutputError("full")

    if stage == "read":
        monkeypatch.setattr(mapper, "scene_warnings", lambda _: [])
        monkeypatch.setattr(Scene, "_attempt", fail)
    else:
        where = {
            "open": "geocfl.mapping.mapper.cells_of",
            "classify": "geocfl.mapping.classifier.classify_scene",
            "write": "geocfl.products.write.write_products",
        }
        monkeypatch.setattr(where[stage], fail)
    options = {"model": tiny_model, "events": "run.jsonl", "scale": 10_000.0, "offset": 0.0, **FAST}
    list(geocfl.map_scenes(scene, "maps", **options))
    (event,) = [event for event in read_events("run.jsonl").events if event["kind"] == "scene"]
    assert (event["outcome"], event["stage"]) == ("failed", stage)
    for each in raw(Path("run.jsonl")):
        jsonschema.validate(each, SCHEMA)


def test_a_scene_that_a_worker_cannot_open_has_its_stage(tiny_model: Path) -> None:
    pytest.importorskip("distributed", reason="needs geocfl[dask]")
    from geocfl.mapping.dask_worker import map_one

    worker = mapper.Mapper(Bundle.load(tiny_model), MapSettings())
    (scene,) = broken("in/a.tif")
    source = Source(scene, "a", {}, raster=scene)
    ended = attempt(scene, lambda m: map_one(worker, m, silent, source, Path("maps"), False, 9))
    assert isinstance(ended.result, SceneError)
    assert ended.measured.stage == "open"
