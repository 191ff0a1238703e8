import json
import threading
from pathlib import Path

import pystac
import pytest

import geocfl
from geocfl.errors import GeocflError, OutputError, SceneError, UsageError
from geocfl.mapping import many
from geocfl.mapping.mapper import Mapper
from geocfl.mapping.recall import MANIFEST
from geocfl.mapping.results import Tally
from geocfl.products.scene_map import SceneMap
from geocfl.scenes import Source
from tests.noise import write_noise


def write_scene(path: Path, seed: int = 0) -> Path:
    return write_noise(path, 130, 200, seed)


def test_one_bad_scene_does_not_stop_the_rest(tmp_path: Path, tiny_model: Path) -> None:
    good = [write_scene(tmp_path / f"in/S2A_20240601T10003{n}.tif", n) for n in range(3)]
    bad = tmp_path / "in/bad.tif"
    bad.write_text("no raster")
    told: list[tuple[str, int, int, str]] = []
    options = {"model": tiny_model, "progress": lambda *said: told.append(said)}
    results = dict(geocfl.map_scenes([tmp_path / "in/*.tif"], tmp_path / "maps", **options))
    assert set(results) == {str(path) for path in [*good, bad]}
    assert isinstance(results[str(bad)], SceneError)
    assert all(results[str(path)].paths["lulc"].is_file() for path in good)
    assert not list((tmp_path / "maps").glob("bad*"))
    assert [said for said in told if said[3] == "scene" and said[0] == "scenes"][-1] == ("scenes", 4, 4, "scene")
    assert {said[0] for said in told if said[3] == "window" and said[1] == said[2]} == {path.name for path in good}
    items = list(pystac.Catalog.from_file(str(tmp_path / "maps/catalog.json")).get_items())
    assert [item.id for item in items] == [path.stem for path in good]
    assert all(Path(asset.get_absolute_href()).is_file() for item in items for asset in item.assets.values())

    bad.unlink()
    write_scene(bad, 9)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "maps").glob("S*")}
    tally = Tally()
    statuses = {
        path: tally.add(path, r) for path, r in geocfl.map_scenes([tmp_path / "in/*.tif"], tmp_path / "maps", **options)
    }
    assert statuses == {str(path): "skipped" for path in good} | {str(bad): "done"}
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert tally.table().splitlines()[2:] == [
        "done          1  mapped", "skipped       3  already mapped", "failed        0",
    ]  # fmt: skip


def test_warnings_are_repeated_below_the_counts(tmp_path: Path) -> None:
    tally, path = Tally(), tmp_path / "a_summary.json"
    for number in range(30):
        path.write_text(json.dumps({"warnings": [f"{number}.tif: use `scale=1`"]}))
        tally.add("a.tif", SceneMap({"summary": path}))
    lines = tally.table().splitlines()
    assert lines[6:8] == ["warning: 0.tif: use `scale=1`", "warning: 1.tif: use `scale=1`"]
    assert lines[-1] == "10 more warnings are in the summaries"


@pytest.mark.integration
def test_maps_are_those_of_one_scene_at_a_time(tmp_path: Path, tiny_model: Path) -> None:
    scenes = [write_scene(tmp_path / f"in/s{n}.tif", n) for n in range(4)]
    settings = {"model": tiny_model, "stride": 16, "products": ["default", "project", "report", "truecolor"]}
    for path, together in geocfl.map_scenes(scenes, tmp_path / "together", **settings):
        alone = geocfl.map_scene(path, tmp_path / "alone", **settings)
        for name, file in alone.paths.items():
            if name == "summary":
                one, other = (json.loads(p.read_text()) | {"timing": None} for p in (file, together.paths[name]))
                assert one == other
            else:
                assert file.read_bytes() == together.paths[name].read_bytes(), name


def test_the_next_scene_is_read_while_one_is_classified(tmp_path: Path, tiny_model: Path, monkeypatch) -> None:
    from geocfl.mapping import pipeline as engine

    scenes = [write_scene(tmp_path / f"s{n}.tif", n) for n in range(2)]
    both_read = threading.Event()
    read: set[str] = set()
    reading, classifying = engine.scene_strips, engine.classify_strip

    def scene_strips(scene, *rest, **how):
        for strip in reading(scene, *rest, **how):
            read.add(scene.name)
            if len(read) == 2:
                both_read.set()
            yield strip

    def classify_strip(*arguments):
        assert both_read.wait(30), "the second scene was not read while the first one was being classified"
        return classifying(*arguments)

    monkeypatch.setattr(engine, "scene_strips", scene_strips)
    monkeypatch.setattr(engine, "classify_strip", classify_strip)
    results = dict(geocfl.map_scenes(scenes, tmp_path / "maps", model=tiny_model))
    assert all(isinstance(result, SceneMap) for result in results.values())


def test_scenes_of_one_name_need_a_layout(tmp_path: Path, tiny_model: Path) -> None:
    for seed, folder in enumerate("ab"):
        write_scene(tmp_path / folder / "s_20240601.tif", seed)
    pattern, out = tmp_path / "*/s_20240601.tif", tmp_path / "maps"
    with pytest.raises(UsageError, match=r"a/s_.*\.tif and .*b/s_.*\.tif would both be mapped as s_20240601; use `lay"):
        dict(geocfl.map_scenes([pattern], out, model=tiny_model))
    assert not out.exists()
    results = dict(geocfl.map_scenes([pattern], out, model=tiny_model, layout="{year}/{folder}"))
    for path, result in results.items():
        assert result.paths["lulc"].parent == out / "2024" / Path(path).parent.name
    items = list(pystac.Catalog.from_file(str(out / "catalog.json")).get_items())
    assert [Path(item.get_self_href()).parent.name for item in items] == ["a", "b"]


@pytest.mark.integration
def test_shards_together_are_one_run(tmp_path: Path, tiny_model: Path) -> None:
    for number in range(5):
        write_scene(tmp_path / f"in/s{number}_20240601.tif", number)
    (tmp_path / "in/broken_20240601.tif").write_text("no raster")
    pattern, options = tmp_path / "in/*.tif", {"model": tiny_model, "layout": "{year}"}
    whole = dict(geocfl.map_scenes([pattern], tmp_path / "whole", **options))
    found: dict[str, SceneMap | GeocflError] = {}
    for index in (2, 0, 3, 1):
        shard = dict(geocfl.map_scenes([pattern], tmp_path / "shards", shard=(index, 4), **options))
        assert not found.keys() & shard.keys()
        found |= shard
    assert found.keys() == whole.keys()
    assert not (tmp_path / "shards/catalog.json").exists()
    geocfl.write_catalog(tmp_path / "shards")

    def content(folder: Path) -> dict[str, bytes]:
        files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
        files = {name: path for name, path in files.items() if not name.endswith(MANIFEST)}  # of paths and times
        return {
            name: json.dumps(json.loads(path.read_text()) | {"timing": None}).encode()
            if name.endswith("_summary.json")
            else path.read_bytes().replace(b'"shards"', b'"whole"')  # the name of the catalog
            for name, path in files.items()
        }

    assert content(tmp_path / "shards") == content(tmp_path / "whole")
    assert not dict(geocfl.map_scenes([pattern], tmp_path / "shards", shard=(6, 7), **options))


def test_a_failure_that_nobody_foresaw_is_that_scene_s_alone(tmp_path: Path, tiny_model: Path, monkeypatch) -> None:
    scenes = [write_scene(tmp_path / f"s{n}.tif", n) for n in range(3)]
    mapping = Mapper.map

    def fail(mapper, source, *rest, **options):
        if source.stem == "s1":
            raise ZeroDivisionError("of all things")
        return mapping(mapper, source, *rest, **options)

    monkeypatch.setattr(Mapper, "map", fail)
    results = dict(geocfl.map_scenes(scenes, tmp_path / "maps", model=tiny_model))
    failed = results.pop(str(scenes[1]))
    assert isinstance(failed, GeocflError)
    assert "s1.tif: failed unexpectedly (ZeroDivisionError: of all things); map only this one, with --debug" in str(
        failed
    )
    assert all(isinstance(result, SceneMap) for result in results.values())


@pytest.mark.integration
def test_a_caller_who_stops_leaves_what_can_be_gone_on_with(tmp_path: Path, tiny_model: Path) -> None:
    scenes = [write_scene(tmp_path / f"s{n}.tif", n) for n in range(4)]
    settings = {"model": tiny_model, "stride": 4, "batch_size": 8}

    def stop(what: str, done: int, total: int, unit: str) -> None:
        if what == "scenes":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:  # whose traceback is held, as by a debugger
        list(geocfl.map_scenes(scenes, tmp_path / "maps", progress=stop, **settings))
    assert caught
    done = len(list((tmp_path / "maps").glob("*_summary.json")))
    assert 1 <= done < 4
    assert not [each for each in threading.enumerate() if each.name.startswith("scene")]
    tally = Tally()
    for path, result in geocfl.map_scenes(scenes, tmp_path / "maps", **settings):
        tally.add(path, result)
    assert tally.counts == {"skipped": done, "done": 4 - done}
    assert {path.name for path in (tmp_path / "maps").glob(".*")} <= {MANIFEST}


def test_a_progress_that_stops_one_scene_stops_all(tmp_path: Path, tiny_model: Path) -> None:
    scenes = [write_scene(tmp_path / f"s{n}.tif", n) for n in range(3)]

    def stop(what: str, done: int, total: int, unit: str) -> None:
        if unit == "window":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(geocfl.map_scenes(scenes, tmp_path / "maps", model=tiny_model, progress=stop))
    assert not list(tmp_path.glob("maps/*_summary.json"))


def test_one_scene_needs_no_list(tmp_path: Path, tiny_model: Path) -> None:
    scene = write_scene(tmp_path / "s.tif")
    for given in (scene, str(scene)):
        ((path, result),) = geocfl.map_scenes(given, tmp_path / "maps", model=tiny_model)
        assert path == str(scene)
        assert isinstance(result, SceneMap)


def test_what_cannot_be_meant(tmp_path: Path, tiny_model: Path) -> None:
    scenes = [write_scene(tmp_path / f"s{n}.tif", n) for n in range(2)]

    def attempt(*given, **options) -> None:
        list(geocfl.map_scenes(*given, tmp_path / "maps", model=tiny_model, **options))

    with pytest.raises(UsageError, match="no scene to map"):
        attempt([])
    with pytest.raises(UsageError, match="matches no scene"):
        attempt([tmp_path / "none*.tif"])
    with pytest.raises(UsageError, match="`workers` and `scheduler` exclude each other"):
        attempt(scenes, workers=2, scheduler="tcp://127.0.0.1:1")
    with pytest.raises(UsageError, match="must be 0 or more"):
        attempt(scenes, workers=-1)
    assert not (tmp_path / "maps").exists()
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps/catalog.json").write_text("{}")
    with pytest.raises(OutputError, match=r"catalog\.json: already exists"):
        attempt(scenes)
    assert [path.name for path in (tmp_path / "maps").iterdir()] == ["catalog.json"]


def test_maps_without_a_date_are_not_catalogued(tmp_path: Path, tiny_model: Path, caplog) -> None:
    scenes = [write_scene(tmp_path / f"{name}.tif", 1) for name in ("s", "S2A_20240601T100031")]
    list(geocfl.map_scenes(scenes, tmp_path / "maps", model=tiny_model))
    assert any("catalog.json lacks 1 of the maps" in record.getMessage() for record in caplog.records)
    items = pystac.Catalog.from_file(str(tmp_path / "maps/catalog.json")).get_items()
    assert [item.id for item in items] == ["S2A_20240601T100031"]


def test_memory_is_shared_by_the_scenes_at_work(tiny_model: Path) -> None:
    settings = many.MapSettings()
    model = geocfl.load_model(tiny_model)
    one, two = (Mapper(model, settings, memory="40GB", scenes_at_once=n) for n in (1, 2))
    assert two.classifier.strip_memory == pytest.approx(one.classifier.strip_memory / 2, rel=0.2)


@pytest.mark.parametrize("where", [{"workers": 2}, {"scheduler": "tcp://127.0.0.1:1"}])
def test_workers_without_dask(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, where) -> None:
    monkeypatch.setattr(many, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"`workers` and `scheduler` need Dask; run: pip install distributed bokeh"):
        list(geocfl.map_scenes(tmp_path / "s.tif", tmp_path, model=tiny_model, **where))


def test_a_scene_whose_server_failed_is_mapped_again_after_the_others(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes = [write_scene(tmp_path / f"in/S2A_20240601T10003{n}.tif", n) for n in range(4)]
    whole, tried = Mapper.map, []

    def failing(mapper: Mapper, source: Source, *rest: object, **options: object) -> SceneMap:
        tried.append(source.path)
        if source.path == str(scenes[0]) and tried.count(source.path) < 3:
            raise SceneError(f"{source.path}: the server failed 5 times (HTTP 503)", transient=True)
        return whole(mapper, source, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0")
    monkeypatch.setattr(Mapper, "map", failing)
    results = list(geocfl.map_scenes(scenes, tmp_path / "maps", model=tiny_model))
    assert {path for path, _ in results} == {*map(str, scenes)}
    assert set(tried[: len(scenes)]) == {*map(str, scenes)}
    assert tried[len(scenes) :] == [str(scenes[0])] * 2
    assert all(isinstance(result, SceneMap) for _, result in results)
    tried.clear()
    _, result = next(geocfl.map_scenes([scenes[0]], tmp_path / "maps", model=tiny_model, retries=1))
    assert isinstance(result, SceneError)
    assert tried == [str(scenes[0])] * 2
