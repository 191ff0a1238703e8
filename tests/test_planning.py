"""Plans: the formula on made-up costs, and what is measured against what a real map takes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

import geocfl
from geocfl import planning
from geocfl.errors import SceneError, UsageError
from geocfl.planning import Cost, Plan, Stage, plan


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(planning, "SECONDS", 0.05)


def write_scene(path: Path, height: int = 200, width: int = 260, **options) -> Path:
    """Noise, compressed so that its bytes are not those of its pixels; the last fifth of the columns has no data."""
    dn = np.random.default_rng(height).integers(200, 1000, (4, height, width), dtype=np.uint16)
    dn[:, :, width * 4 // 5 :] = 0
    options = {"compress": "deflate", "tiled": True, "blockxsize": 64, "blockysize": 64} | options
    profile = {"driver": "GTiff", "height": height, "width": width, "count": 4, "dtype": "uint16", "nodata": 0}
    transform = Affine(10, 0, 3e5, 0, -10, 5e6)
    with rasterio.open(path, "w", **profile, **options, crs="EPSG:32633", transform=transform) as dataset:
        dataset.write(dn)
        dataset.descriptions = ("B04", "B03", "B02", "B08")
    return path


def cost(start=1.0, read=4.0, classify=30.0, write=2.0, cores=1.0) -> Cost:
    """Of a scene of 100 windows; every step takes so many cores."""
    stages = (Stage(seconds, seconds * cores) for seconds in (start, read, classify, write))
    return Cost("a.tif", 1000, 100, *stages, bytes_read=3_000_000, bytes_written=20_000)


def made_up(*costs: Cost, **facts) -> Plan:
    defaults = {"scenes": 10, "unreadable": (), "stand_in": False, "workers": 1, "cores": 4, "classifier": "m on cpu"}
    return Plan(costs=costs or (cost(),), **(defaults | {"load": 5.0, "read_rate": None, "remote": False} | facts))


def test_the_slowest_of_the_steps_that_overlap_counts():
    assert made_up().seconds_per_scene == 30
    assert made_up().seconds == 5 + 1 + 2 + 10 * 30
    assert made_up().bound == "classify"
    reading = made_up(cost(read=50))
    assert (reading.seconds_per_scene, reading.bound) == (50, "read")
    # Two scenes at once: no faster than half of all steps of one.
    writing = made_up(cost(write=100))
    assert (writing.seconds_per_scene, writing.bound) == ((1 + 30 + 100) / 2, "write")
    # One core for all of it.
    shared = made_up(cost(), cores=1)
    assert (shared.seconds_per_scene, shared.bound) == (1 + 4 + 30 + 2, "classify")


def test_workers_share_the_scenes_whole():
    assert made_up(workers=3).seconds == 5 + 1 + 2 + 4 * 30
    assert made_up(workers=100).seconds == 5 + 1 + 2 + 30


def test_a_stated_read_rate_comes_on_top_of_decoding():
    slow = made_up(read_rate=0.1)
    assert slow.stages["read"] == Stage(4 + 30, 4)
    assert (slow.seconds_per_scene, slow.bound) == (34, "read")
    assert "as --read-rate says" in slow.table()
    assert made_up(read_rate=100).bound == "classify"


def test_a_busy_machine_is_said():
    text = made_up(cost(cores=0.5), cores=2).table()
    assert "of 2 cores classifying got 0.5: alone, a scene takes it about 9.2 s" in text
    assert "busy" not in made_up(cost(cores=1.9), cores=2).table()
    assert "busy" not in made_up(cost(cores=0.5), cores=2, classifier="m on cuda").table()


def test_totals_are_of_all_scenes():
    both = made_up(cost(), replace(cost(classify=60), windows=300, bytes_written=40_000), scenes=6)
    assert (both.windows, both.bytes_read, both.bytes_written) == (1200, 18_000_000, 180_000)
    assert both.seconds_per_scene == 45
    assert made_up(cost(), replace(cost(), bytes_read=None)).bytes_read is None
    assert "unknown" in made_up(replace(cost(), bytes_read=None)).table()


@given(
    stages=st.lists(st.floats(0, 1e4), min_size=4, max_size=4),
    cores=st.integers(1, 64),
    scenes=st.integers(1, 20_000),
    workers=st.integers(1, 2000),
)
def test_a_plan_is_within_what_it_cannot_be_beyond(stages, cores, scenes, workers):
    p = made_up(cost(*stages), cores=cores, scenes=scenes, workers=workers)
    alone = sum(stages)
    assert max(stages[1:3]) <= p.seconds_per_scene <= alone + 1e-6
    rounds = -(-scenes // workers)
    assert p.seconds <= p.load + stages[0] + stages[3] + rounds * alone + 1e-6
    assert p.seconds >= made_up(cost(*stages), cores=cores, scenes=scenes, workers=workers + 1).seconds - 1e-6
    assert p.bound in ("start", "read", "classify", "write")


def test_what_is_measured_is_what_a_map_takes(tmp_path, tiny_model):
    scene = write_scene(tmp_path / "s.tif")
    before = set(tmp_path.iterdir())
    told = []
    p = plan([scene], model=tiny_model, stride=16, progress=lambda *step: told.append(step))
    assert set(tmp_path.iterdir()) == before
    assert told == [("plan", 0, 1, "scene"), ("plan", 1, 1, "scene")]
    assert (p.scenes, p.stand_in, p.unreadable) == (1, False, ())
    assert p.windows == pytest.approx(0.8 * 13 * 17, rel=0.02)
    measured = p.costs[0]
    assert measured.pixels == 200 * 260
    assert min(stage.seconds for stage in p.stages.values()) > 0
    result = geocfl.map_scene(scene, tmp_path / "maps", model=tiny_model, stride=16)
    written = sum(path.stat().st_size for path in result.paths.values())
    assert p.bytes_written == pytest.approx(written, rel=0.3)
    # Four bands share the blocks, so that all of the file is read.
    assert 0.9 * scene.stat().st_size < p.bytes_read <= scene.stat().st_size


def test_other_settings_write_other_products(tmp_path, tiny_model):
    scene = write_scene(tmp_path / "s.tif")
    few = plan([scene], model=tiny_model, stride=16, products="lulc")
    many = plan([scene], model=tiny_model, stride=16, products="all", vector="gpkg,geojson", datetime="2019-04-16")
    assert many.bytes_written > few.bytes_written + 50_000


def test_a_part_of_a_scene_is_read_in_part(tmp_path, tiny_model):
    scene = write_scene(tmp_path / "s.tif", 800, 800)
    with rasterio.open(scene) as dataset:
        west, south, east, north = rasterio.warp.transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
    box = f"{west},{(south + north) / 2},{(west + east) / 2},{north}"
    all_of_it, quarter = (plan([scene], model=tiny_model, bbox=bbox) for bbox in ("", box))
    assert 0.25 < quarter.bytes_read / all_of_it.bytes_read < 0.5
    assert quarter.windows < all_of_it.windows


def test_bands_that_are_not_read_do_not_count(tmp_path, tiny_model):
    """B08 lies in blocks of its own."""
    scene = write_scene(tmp_path / "s.tif", interleave="band")
    p = plan([scene], model=tiny_model)
    assert p.bytes_read == pytest.approx(0.75 * scene.stat().st_size, rel=0.05)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_bands_of_files_of_their_own(tmp_path, tiny_model):
    (tmp_path / "scene").mkdir()
    with rasterio.open(write_scene(tmp_path / "s.tif")) as dataset:
        profile = dataset.profile | {"driver": "PNG", "count": 1}
        for option in ("tiled", "compress", "interleave", "blockxsize", "blockysize", "transform", "crs"):
            profile.pop(option)
        for number, band in enumerate(("B04", "B03", "B02"), start=1):
            png = tmp_path / "scene" / f"{band}.png"
            with rasterio.open(png, "w", **profile) as single:
                single.write(dataset.read(number), 1)
            png.rename(png.with_suffix(".tif"))  # GDAL goes by the content
    size = sum(path.stat().st_size for path in (tmp_path / "scene").glob("*.tif"))
    p = plan([tmp_path / "scene"], model=tiny_model, allow_no_crs=True)
    assert p.bytes_read == size


def test_members_of_archives_have_their_own_bytes(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("in/B04.jp2", b"0" * 10_000)
    packed = planning._file_bytes(f"/vsizip/{tmp_path}/a.zip/in/B04.jp2")
    assert packed is not None
    assert 0 < packed < 1000
    assert planning._file_bytes(f"/vsizip/{{{tmp_path}/a.zip}}/in/B04.jp2") == packed
    assert planning._file_bytes("/vsicurl/https://example.com/B04.jp2") is None


def test_a_few_scenes_stand_for_all_and_broken_ones_are_left_out(tmp_path, tiny_model):
    for index in range(9):
        write_scene(tmp_path / f"s{index}.tif", 128 + 16 * index, 128)
    (tmp_path / "t.tif").write_bytes(b"no scene")
    p = plan([tmp_path / "*.tif"], model=tiny_model, workers=2)
    assert p.scenes == 9
    assert [c.scene for c in p.costs] == ["s0.tif", "s4.tif", "s8.tif"]
    assert len(p.unreadable) == 1
    text = p.table()
    assert "the other 6 are taken to be like that" in text
    assert "Left out, as they cannot be read:" in text
    assert "t.tif" in text
    assert json.loads(json.dumps(p.to_json()))["windows"] == p.windows
    assert plan([tmp_path / "s0.tif"], model=tiny_model, tiles=50).scenes == 50


def test_without_a_scene_a_generated_one_stands_in_for_tiles(tiny_model, monkeypatch):
    monkeypatch.setattr(planning, "STAND_IN", (1, 1))
    p = plan(tiles=20_000, workers=100, model=tiny_model)
    assert (p.stand_in, p.scenes) == (True, 20_000)
    assert p.windows == 20_000 * 172 * 172
    assert p.costs[0].pixels == 10_980**2
    assert p.costs[0].bytes_read > 50_000_000
    text = p.table()
    assert "generated scene" in text
    assert "real ones compress differently" in text
    assert "100 workers" in text
    assert "591,680,000" in text


def test_cells_repeat_mirrored():
    values = np.arange(6).reshape(1, 2, 3)
    got = planning._repeated(values, 5, 7)[0]
    assert got[:, :3].tolist() == [[0, 1, 2], [3, 4, 5], [3, 4, 5], [0, 1, 2], [0, 1, 2]]
    assert got[0].tolist() == [0, 1, 2, 2, 1, 0, 0]


def test_large_maps_are_measured_in_part(tmp_path, tiny_model, monkeypatch):
    scene = write_scene(tmp_path / "s.tif")
    how = {"model": tiny_model, "stride": 4, "products": "vector", "vector": "geojson"}
    whole = plan([scene], **how).bytes_written
    monkeypatch.setattr(planning, "WRITTEN_CELLS", 1600)
    assert plan([scene], **how).bytes_written == pytest.approx(whole, rel=0.2)


def test_what_cannot_be_meant_is_refused_in_one_sentence(tmp_path, tiny_model):
    scene, broken = write_scene(tmp_path / "s.tif"), tmp_path / "broken.tif"
    broken.write_bytes(b"no scene")
    cut = tmp_path / "cut.tif"
    cut.write_bytes(scene.read_bytes()[:20_000])
    for arguments, kind, said in [
        ({}, UsageError, "nothing to plan for; pass scenes, or a number of --tiles"),
        ({"scenes": [tmp_path / "*.jp2"]}, UsageError, r"\*\.jp2"),
        ({"scenes": [scene], "workers": 0}, UsageError, "--workers 0 is below 1"),
        ({"tiles": 0}, UsageError, "--tiles 0 is below 1"),
        ({"scenes": [scene], "read_rate": 0}, UsageError, "--read-rate 0 is no number"),
        ({"scenes": [scene], "stride": 65}, UsageError, "--stride 65"),
        ({"scenes": [broken]}, SceneError, r"broken\.tif"),
        ({"scenes": [cut]}, SceneError, r"cut\.tif"),
    ]:
        with pytest.raises(kind, match=said) as error:
            plan(**arguments, model=tiny_model)
        assert "\n" not in str(error.value)
