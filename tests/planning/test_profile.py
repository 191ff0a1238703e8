"""What a scene takes: measured against what a real map of it takes."""

import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely

import geocfl
from geocfl.mapping.mapper import Mapper
from geocfl.mapping.provenance import Provenance
from geocfl.mapping.settings import MapSettings
from geocfl.models.predict import load_model
from geocfl.planning import profile as profiling
from geocfl.planning.profile import Cost, Stage, measure_scene
from geocfl.scenes import find_source
from tests.noise import write_scene


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(profiling, "SECONDS", 0.05)


def mapper(model: Path, **settings: Any) -> Mapper:
    return Mapper(load_model(model), MapSettings(**settings))


def measured(scene: Path, folder: Path, model: Path, **settings: Any) -> Cost:
    return measure_scene(mapper(model, **settings), find_source(scene), folder)


def test_the_measured_cost_is_the_cost_of_a_map(tmp_path, tiny_model, monkeypatch):
    monkeypatch.delattr("geocfl.mapping.classifier.measure_rate")  # its own windows tell the rate, not noise
    scene = write_scene(tmp_path / "s.tif")
    cost = measured(scene, tmp_path / "measured", tiny_model, stride=16)
    assert cost.windows == pytest.approx(0.8 * 13 * 17, rel=0.02)
    assert cost.pixels == 200 * 260
    assert min(getattr(cost, name).seconds for name in ("start", "read", "classify", "write")) > 0
    result = geocfl.map_scene(scene, tmp_path / "maps", model=tiny_model, stride=16)
    written = sum(path.stat().st_size for path in result.paths.values())
    assert cost.bytes_written == pytest.approx(written, rel=0.3)
    # Four bands share the blocks, so that all of the file is read.
    assert 0.9 * scene.stat().st_size < cost.bytes_read <= scene.stat().st_size


def test_other_settings_write_other_products_and_need_no_date(tmp_path, tiny_model):
    scene = write_scene(tmp_path / "s.tif")
    few = measured(scene, tmp_path / "few", tiny_model, stride=16, products=["lulc"])
    many = measured(scene, tmp_path / "many", tiny_model, stride=16, products=["all"], vector=["gpkg", "geojson"])
    assert many.bytes_written > few.bytes_written + 50_000


def test_only_part_of_a_scene_is_read_for_part_of_it(tmp_path, tiny_model):
    scene = write_scene(tmp_path / "s.tif", 800, 800)
    with rasterio.open(scene) as dataset:
        west, south, east, north = rasterio.warp.transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
    quarter_box = (west, (south + north) / 2, (west + east) / 2, north)
    whole, quarter = (measured(scene, tmp_path / f"b{box}", tiny_model, bbox=box) for box in (None, quarter_box))
    assert 0.25 < quarter.bytes_read / whole.bytes_read < 0.5
    assert quarter.windows < whole.windows


@pytest.mark.integration
def test_cells_outside_the_area_or_masked_are_not_counted(tmp_path, tiny_model):
    scene = write_scene(tmp_path / "s.tif", 1024, 1280)
    with rasterio.open(scene) as dataset:
        clouds, profile, bounds = np.zeros(dataset.shape, np.uint8), dataset.profile, dataset.bounds
    clouds[256:512] = 1
    with rasterio.open(tmp_path / "clouds.tif", "w", **(profile | {"count": 1, "dtype": "uint8"})) as dataset:
        dataset.write(clouds, 1)
    west, south, east, north = bounds
    triangle = shapely.Polygon([(west, south), (west, north), (east, north)])
    geopandas.GeoSeries([triangle], crs=profile["crs"]).to_file(tmp_path / "triangle.gpkg")
    for number, (settings, share) in enumerate(
        [
            ({}, 1),
            ({"mask": str(tmp_path / "clouds.tif")}, 0.75),
            ({"mask": str(tmp_path / "clouds.tif"), "max_masked": 1.0}, 1),
            ({"aoi": str(tmp_path / "triangle.gpkg")}, 0.5),
        ]
    ):
        cost = measured(scene, tmp_path / str(number), tiny_model, stride=16, **settings)
        assert cost.windows == pytest.approx(share * 0.8 * 64 * 80, rel=0.08), settings


def test_starting_begins_with_opening(tmp_path, tiny_model, monkeypatch):
    """And files are hashed once, by the size of what the scene stands for."""
    slow, hashed = 0.2, []
    opened = Mapper.opened

    @contextmanager
    def slowly(self, source):
        time.sleep(slow)
        with opened(self, source) as scene:
            yield scene

    monkeypatch.setattr(Mapper, "opened", slowly)
    monkeypatch.setattr(Provenance, "digest", lambda self: hashed.append(time.sleep(slow)))
    monkeypatch.setattr(profiling, "SIDE", 400)
    source, how = find_source(write_scene(tmp_path / "s.tif", 200, 200)), mapper(tiny_model)
    own, scaled = (measure_scene(how, source, tmp_path / str(stand_in), stand_in) for stand_in in (False, True))
    assert own.start.seconds >= 2 * slow
    assert scaled.start.seconds >= 5 * slow
    assert len(hashed) == 2


def test_stages_add_up():
    assert Stage(1, 2) + Stage(3, 5) == Stage(4, 7)


def test_cells_repeat_mirrored():
    values = np.arange(6).reshape(1, 2, 3)
    got = profiling._repeated(values, 5, 7)[0]
    assert got[:, :3].tolist() == [[0, 1, 2], [3, 4, 5], [3, 4, 5], [0, 1, 2], [0, 1, 2]]
    assert got[0].tolist() == [0, 1, 2, 2, 1, 0, 0]


def test_large_maps_are_measured_in_part(tmp_path, tiny_model, monkeypatch):
    scene = write_scene(tmp_path / "s.tif")
    how = {"stride": 4, "products": ["vector"], "vector": ["geojson"]}
    whole = measured(scene, tmp_path / "whole", tiny_model, **how).bytes_written
    monkeypatch.setattr(profiling, "WRITTEN_CELLS", 1600)
    assert measured(scene, tmp_path / "part", tiny_model, **how).bytes_written == pytest.approx(whole, rel=0.2)


def test_a_disturbance_of_one_of_the_parts_is_not_scaled_up(tmp_path, tiny_model, monkeypatch):
    class Disturbed(profiling._Clock):
        """Of 12 rows written twice, then 6 rows twice, the second and the third take a minute longer."""

        writing = iter([1, 61, 60, 0.5])

        def stage(self, times: float = 1.0) -> Stage:
            return Stage(next(self.writing), 0)

    source, how = find_source(write_scene(tmp_path / "s.tif")), mapper(tiny_model, stride=4)
    with how.opened(source) as scene:
        grid = profiling.cells_of(scene, how.model, 4)
        _, strip, _ = profiling._read(how, scene, grid, far=False)
        monkeypatch.setattr(profiling, "WRITTEN_CELLS", 12 * grid.columns)
        monkeypatch.setattr(profiling, "_Clock", Disturbed)
        cells = np.ones((len(how.decision.bands), 3, 3), np.uint8)
        stage, _ = profiling._write(how, source, scene, grid, strip, cells, tmp_path / "out")
    assert stage.seconds == pytest.approx(1 + (grid.rows - 12) * 0.5 / 6)


def test_the_stand_in_has_the_models_bands(tmp_path, tiny_model, monkeypatch):
    monkeypatch.setattr(profiling, "STAND_IN", (1, 2))
    bands = ("B04", "B08", "B11")
    source = profiling.write_stand_in(tmp_path, replace(load_model(tiny_model), bands=bands))
    assert tuple(source.bands) == bands
    with rasterio.open(tmp_path / "generated.tif") as dataset:
        assert dataset.shape == (1024, 2560)
        assert (dataset.read() > 0).all()
