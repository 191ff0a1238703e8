"""The examples for servers, run as openEO and pygeoapi run them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

import geocfl

EXAMPLES = Path(__file__).parents[1] / "examples"
SHAPE = (150, 200)


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def numbers() -> np.ndarray:
    """Digital numbers of two dates in B02, B03 and B04; a corner has no data."""
    values = np.random.default_rng(0).integers(200, 2000, (2, 3, *SHAPE), dtype=np.uint16)
    values[1, :, :64, :64] = 0
    return values


@pytest.fixture
def scene(numbers: np.ndarray, tmp_path: Path) -> Path:
    """The second date as a scene."""
    path = tmp_path / "scenes" / "s.tif"
    path.parent.mkdir()
    place = {"crs": "EPSG:32633", "transform": Affine(10, 0, 3e5, 0, -10, 5e6)}
    profile = {"height": SHAPE[0], "width": SHAPE[1], "count": 3, "dtype": "uint16", "nodata": 0}
    with rasterio.open(path, "w", driver="GTiff", **profile, **place) as dataset:
        dataset.write(numbers[1])
        dataset.descriptions = ("B02", "B03", "B04")
    return path


@pytest.fixture
def cube(numbers: np.ndarray) -> Any:
    xarray = pytest.importorskip("xarray")
    y, x = 5e6 - 10 * (np.arange(SHAPE[0]) + 0.5), 3e5 + 10 * (np.arange(SHAPE[1]) + 0.5)
    times = np.array(["2022-06-01", "2022-06-11"], "datetime64[ns]")
    coordinates = {"t": times, "bands": ["B02", "B03", "B04"], "y": y, "x": x}
    return xarray.DataArray(numbers, coordinates, ("t", "bands", "y", "x"))


def test_an_openeo_function_gives_every_pixel_the_class_of_its_cell(cube, scene, tiny_dense, tmp_path) -> None:
    context = {"model": str(tiny_dense), "stride": 16}
    found = load("openeo_udf").apply_datacube(cube, context)
    assert found.dims == cube.dims
    assert found["bands"].values.tolist() == ["class", "confidence"]
    for name in ("t", "y", "x"):
        assert (found[name] == cube[name]).all()
    made = geocfl.map_scene(scene, tmp_path / "maps", model=tiny_dense, stride=16, products=("lulc", "confidence"))
    pixels = made.lulc.repeat(16, axis=0).repeat(16, axis=1)[: SHAPE[0], : SHAPE[1]]
    assert (found[1].sel(bands="class") == pixels).all()
    assert (np.isnan(found[1].sel(bands="confidence")) == (pixels == 0)).all()
    assert (pixels[:48, :48] == 0).all()


def test_openeo_finds_the_function_and_hands_it_a_cube(cube, tiny_dense) -> None:
    """As a back end does it, with openEO's own class."""
    udf = pytest.importorskip("openeo.udf")
    code = (EXAMPLES / "openeo_udf.py").read_text(encoding="utf-8")
    context = {"model": str(tiny_dense)}
    data = udf.UdfData(datacube_list=[udf.XarrayDataCube(cube)], user_context=context)
    (result,) = udf.run_udf_code(code, data).get_datacube_list()
    assert isinstance(result, udf.XarrayDataCube)
    expected = load("openeo_udf").apply_datacube(cube, context)
    assert result.get_array().equals(expected)


@pytest.fixture
def process(scene, tiny_dense) -> Any:
    pytest.importorskip("pygeoapi")
    definition = {"name": "pygeoapi_process.LandCoverProcessor", "scenes": scene.parent, "model": tiny_dense}
    return load("pygeoapi_process").LandCoverProcessor(definition)


def test_a_pygeoapi_process_answers_with_polygons(process, scene, tiny_dense, tmp_path) -> None:
    kind, found = process.execute({"scene": "s.tif", "stride": 64})
    assert kind == "application/geo+json"
    json.dumps(found)
    made = geocfl.map_scene(scene, tmp_path / "maps", model=tiny_dense, stride=64)
    area = sum(row["hectares"] for row in made.classes["classes"])
    assert sum(feature["properties"]["area_ha"] for feature in found["features"]) == pytest.approx(area)
    assert {"class_code", "class_name", "area_ha", "confidence"} <= set(found["features"][0]["properties"])
    assert process.metadata["inputs"].keys() == {"scene", "bbox", "stride"}


def test_a_pygeoapi_process_reads_only_its_scenes(process, tmp_path) -> None:
    from pygeoapi.process.base import ProcessorExecuteError

    (tmp_path / "secret.tif").write_text("")
    for name in ("../secret.tif", str(tmp_path / "secret.tif"), "none.tif", ""):
        with pytest.raises(ProcessorExecuteError) as error:
            process.execute({"scene": name})
        assert error.value.message == "scene: is not among the server's scenes"
    with pytest.raises(ProcessorExecuteError) as error:
        process.execute({"scene": "s.tif", "bbox": [0, 0, 1, 1]})
    assert "lies outside the scene s.tif" in error.value.message
