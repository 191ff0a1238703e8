"""Whole maps: real networks in small, real files, and what a user can do wrong."""

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from shapely import box

import geocfl
from geocfl.core.grid import CellGrid
from geocfl.errors import GeocflError, ModelError, OutputError, SceneError, UsageError
from geocfl.mapping import classifier
from geocfl.mapping.estimate import stride_estimate
from geocfl.products.files import FILES
from geocfl.products.formats.vector_formats import VECTOR_FORMATS
from geocfl.products.selection import Selection
from geocfl.products.staging import Staging
from tests.noise import write_pixels

GEOCFL = str(Path(sys.executable).with_name("geocfl"))
TRANSFORM = Affine(10, 0, 3e5, 0, -10, 5e6)
EXACT = {"backend": "torch", "device": "cpu", "precision": "float32"}
EVERYTHING = {"products": ["all"], "vector": VECTOR_FORMATS, "datetime": "2019-04-16T10:00:31Z"}


def write_scene(path: Path, dn: np.ndarray, crs="EPSG:32633", bands=("B04", "B03", "B02"), transform=TRANSFORM) -> Path:
    return write_pixels(path, dn, bands, crs=crs, transform=transform)


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(200, 2000, (3, 150, 200), dtype=np.uint16)


def codes(result: geocfl.mapping.SceneMap) -> np.ndarray:
    with rasterio.open(result.paths["lulc"]) as dataset:
        return dataset.read(1)


def test_full_stride_equals_a_direct_loop_over_patches(tmp_path: Path, tiny_model: Path) -> None:
    dn = np.random.default_rng(1).integers(200, 2000, (3, 192, 256), dtype=np.uint16)
    result = geocfl.map_scene(
        write_scene(tmp_path / "s.tif", dn), tmp_path / "out", model=tiny_model, batch_size=5, precision="float32"
    )
    model = geocfl.load_model(tiny_model)
    expected = [
        [
            model.predict(
                dn[None, :, y : y + 64, x : x + 64].astype(np.float32) / 10_000,
                backend="torch",
                device="cpu",
                precision="float32",
            ).codes[0]
            for x in range(0, 256, 64)
        ]
        for y in range(0, 192, 64)
    ]
    np.testing.assert_array_equal(codes(result), expected)


def test_what_writes_products_is_imported_after_the_map() -> None:
    late = {"matplotlib", "geopandas", "pandas", "scipy.ndimage", "torch"}
    code = f"import sys, geocfl.mapping.many; print(*{late}.intersection(sys.modules))"
    assert not subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_a_finished_map_needs_no_classifier(
    tmp_path: Path, tiny_model: Path, noise: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = write_scene(tmp_path / "s.tif", noise)
    geocfl.map_scene(scene, tmp_path / "out", model=tiny_model, **EXACT)
    loads: list[object] = []
    monkeypatch.setattr(classifier, "load_backend", lambda *how: loads.append(how))
    assert geocfl.map_scene(scene, tmp_path / "out", model=tiny_model, **EXACT).already_done
    assert not loads


def test_an_error_of_loading_ahead_is_that_of_the_map(
    tmp_path: Path, tiny_model: Path, noise: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise UsageError("no such precision")

    monkeypatch.setattr(classifier, "load_backend", broken)
    with pytest.raises(SceneError, match=r"none\.tif"):
        geocfl.map_scene(tmp_path / "none.tif", tmp_path / "out", model=tiny_model)
    with pytest.raises(UsageError, match="no such precision"):
        geocfl.map_scene(write_scene(tmp_path / "s.tif", noise), tmp_path / "out", model=tiny_model)
    assert not (tmp_path / "out").exists()


@pytest.mark.integration
def test_tta_is_a_setting(tmp_path: Path, tiny_model: Path, noise: np.ndarray) -> None:
    scene = write_scene(tmp_path / "s.tif", noise)
    model = geocfl.load_model(tiny_model)
    turned = geocfl.map_scene(scene, tmp_path / "out", model=tiny_model, tta=4, **EXACT)
    image = noise.astype(np.float32) / 10_000
    np.testing.assert_array_equal(codes(turned), model.with_tta(4).predict(image, **EXACT).codes)
    assert turned.summary["settings"]["tta"] == 4
    with pytest.raises(OutputError, match="other"):
        geocfl.map_scene(scene, tmp_path / "out", model=tiny_model, **EXACT)
    plain = geocfl.map_scene(scene, tmp_path / "out", model=tiny_model, overwrite=True, **EXACT)
    assert plain.summary["settings"]["tta"] == 1
    again = geocfl.map_scene(scene, tmp_path / "one", model=tiny_model, tta=1, **EXACT)
    assert plain.summary["hash"] == again.summary["hash"]
    bundle = model.with_tta(4).save(tmp_path / "four", model.network().network.state_dict())
    assert geocfl.map_scene(scene, tmp_path / "own", model=bundle.path, **EXACT).summary["settings"]["tta"] == 4


@pytest.mark.parametrize("stride", [64, 48, 17])
def test_products_are_whole_and_add_up(tmp_path: Path, tiny_model: Path, noise: np.ndarray, stride: int) -> None:
    result = geocfl.map_scene(write_scene(tmp_path / "s.tif", noise), tmp_path, model=tiny_model, stride=stride)
    assert set(result.paths) == Selection.of(["default"], ["gpkg"]).files
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["s.tif", *(p.name for p in result.paths.values())]
    )
    for path in result.paths.values():
        assert path.is_file(), path
    assert codes(result).shape == (-(-150 // stride), -(-200 // stride))
    summary = json.loads(result.paths["summary"].read_text())
    assert summary == result.summary
    assert sum(row["hectares"] for row in summary["classes"]) == pytest.approx(150 * 200 / 100)


def test_the_same_command_again_does_nothing(tmp_path: Path, tiny_model: Path, noise: np.ndarray) -> None:
    scene = write_scene(tmp_path / "s.tif", noise)
    first = geocfl.map_scene(scene, tmp_path, model=tiny_model)
    before = {path: path.stat().st_mtime_ns for path in first.paths.values()}
    again = geocfl.map_scene(scene, tmp_path, model=tiny_model)
    assert again.already_done
    assert again.summary == first.summary
    assert before == {path: path.stat().st_mtime_ns for path in again.paths.values()}


def test_what_is_said_of_a_scene_beside_it_is_part_of_it(tmp_path: Path, tiny_model: Path, noise: np.ndarray) -> None:
    scene = write_scene(tmp_path / "s.tif", noise)
    geocfl.map_scene(scene, tmp_path / "maps", model=tiny_model)
    before = scene.read_bytes()
    with rasterio.open(scene) as dataset:
        bands = "".join(
            f'<PAMRasterBand band="{band}"><NoDataValue>{noise[0, 0, 0]}</NoDataValue></PAMRasterBand>'
            for band in dataset.indexes
        )
    (tmp_path / "s.tif.aux.xml").write_text(f"<PAMDataset>{bands}</PAMDataset>")
    with pytest.raises(OutputError, match="made from another input"):
        geocfl.map_scene(scene, tmp_path / "maps", model=tiny_model)
    assert scene.read_bytes() == before


def test_nothing_that_is_removed_is_open(tmp_path: Path, tiny_model: Path, noise: np.ndarray, monkeypatch) -> None:
    commit, files = Staging.commit, Path("/proc/self/fd")
    if not files.is_dir():
        pytest.skip("the system does not say which files are open")

    def look_and_commit(staging: Staging) -> None:
        maps = Path("/proc/self/maps").read_text()
        assert str(staging.folder) not in maps
        for file in files.iterdir():
            with suppress(FileNotFoundError):
                assert staging.folder not in Path(os.readlink(file)).parents
        commit(staging)

    monkeypatch.setattr(Staging, "commit", look_and_commit)
    options = EVERYTHING | {"model": tiny_model}
    assert geocfl.map_scene(write_scene(tmp_path / "s.tif", noise), tmp_path / "maps", **options).paths


def test_other_settings_are_refused_without_overwrite(tmp_path: Path, tiny_model: Path, noise: np.ndarray) -> None:
    scene = write_scene(tmp_path / "s.tif", noise)
    first = geocfl.map_scene(scene, tmp_path, model=tiny_model)
    content = first.paths["lulc"].read_bytes()
    with pytest.raises(OutputError, match="`overwrite=True`"):
        geocfl.map_scene(scene, tmp_path, model=tiny_model, stride=32)
    assert first.paths["lulc"].read_bytes() == content
    second = geocfl.map_scene(scene, tmp_path, model=tiny_model, stride=32, overwrite=True)
    assert codes(second).shape == (5, 7)


def test_two_runs_give_the_same_bytes(tmp_path: Path, tiny_model: Path, noise: np.ndarray) -> None:
    scene = write_scene(tmp_path / "s.tif", noise)
    options = EVERYTHING | {"model": tiny_model, "stride": 32}
    runs = [geocfl.map_scene(scene, tmp_path / name, **options) for name in ("a", "b")]
    assert set(runs[0].paths) == set(FILES) - {"features", "zarr", "novelty", "novelty_style", "sets", "sets_style"}
    for name in runs[0].paths:
        if name != "summary":
            assert runs[0].paths[name].read_bytes() == runs[1].paths[name].read_bytes(), name
    first, second = (run.summary | {"timing": None} for run in runs)
    assert first == second


def test_fewer_products_in_other_formats(tmp_path: Path, tiny_model: Path, noise: np.ndarray) -> None:
    scene = write_scene(tmp_path / "s.tif", noise)
    geocfl.map_scene(scene, tmp_path / "out", **(EVERYTHING | {"model": tiny_model}))
    options = {"model": tiny_model, "products": ["vector", "entropy"], "vector": ["geojson"], "overwrite": True}
    result = geocfl.map_scene(scene, tmp_path / "out", **options)
    wanted = {"s_lulc_polygons.geojson", "s_lulc_polygons.qml", "s_entropy.tif", "s_entropy.qml", "s_summary.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == wanted  # what the earlier map had more is gone
    assert {path.name for path in result.paths.values()} == wanted
    assert geocfl.map_scene(scene, tmp_path / "out", **options | {"overwrite": False}).already_done


def test_cells_below_the_confidence_are_unclassified(tmp_path: Path, tiny_model: Path, noise: np.ndarray) -> None:
    scene = write_scene(tmp_path / "s.tif", noise)
    whole = geocfl.map_scene(scene, tmp_path / "whole", model=tiny_model, stride=32)
    with rasterio.open(whole.paths["confidence"]) as dataset:
        percent = dataset.read(1)
    bound = float(np.median(percent)) / 100
    result = geocfl.map_scene(scene, tmp_path / "sure", model=tiny_model, stride=32, min_confidence=bound)
    withheld = percent < np.median(percent)
    assert 0 < withheld.sum() < withheld.size
    assert (codes(result) == np.where(withheld, 255, codes(whole))).all()
    assert result.summary["unclassified"]["cells"] == withheld.sum()
    assert result.paths["confidence"].read_bytes()[:4] == b"II*\x00"
    with rasterio.open(result.paths["confidence"]) as dataset:
        assert (dataset.read(1) == percent).all()
    assert "Unclassified" in result.paths["lulc_style"].read_text()
    assert "Unclassified" in result.table()


def test_rasters_say_where_they_come_from(tmp_path: Path, tiny_model: Path, noise: np.ndarray) -> None:
    result = geocfl.map_scene(write_scene(tmp_path / "s.tif", noise), tmp_path, model=tiny_model, stride=48)
    for name in ("lulc", "confidence"):
        with rasterio.open(result.paths[name]) as dataset:
            tags = dataset.tags()
        assert tags["GEOCFL_MODEL"] == "tiny"
        assert tags["GEOCFL_VERSION"] == geocfl.__version__
        assert tags["GEOCFL_SOURCE"] == "s.tif"
        assert (tags["GEOCFL_WIDTH"], tags["GEOCFL_HEIGHT"], tags["GEOCFL_STRIDE"]) == ("200", "150", "48")
        assert json.loads(tags["GEOCFL_SETTINGS"])["stride"] == 48


def test_polygons_merged_and_simplified_leave_the_raster(tmp_path: Path, tiny_model: Path, noise: np.ndarray) -> None:
    scene = write_scene(tmp_path / "s.tif", noise)
    first = geocfl.map_scene(scene, tmp_path / "first", model=tiny_model, stride=16, products=["confidence"])
    with rasterio.open(first.paths["confidence"]) as dataset:
        bound = float(np.median(dataset.read(1))) / 100  # random weights say one class everywhere, more or less surely
    options = {"model": tiny_model, "stride": 16, "min_confidence": bound}
    plain = geocfl.map_scene(scene, tmp_path / "plain", **options)
    coarse = geocfl.map_scene(scene, tmp_path / "coarse", **options, min_area=30, simplify=50)
    assert (codes(plain) == codes(coarse)).all()
    before, after = (geopandas.read_file(run.paths["gpkg"], layer="lulc") for run in (plain, coarse))
    assert after.area_ha.min() >= 30 > before.area_ha.min()
    assert after.area_ha.sum() == pytest.approx(before.area_ha.sum())


def test_a_stac_item_needs_a_date(tmp_path: Path, tiny_model: Path, noise: np.ndarray) -> None:
    scene = write_scene(tmp_path / "s.tif", noise)
    with pytest.raises(SceneError, match=r"s\.tif: does not say when it was taken.*`datetime`"):
        geocfl.map_scene(scene, tmp_path / "out", model=tiny_model, products=["stac"])
    assert not (tmp_path / "out").exists()
    named = write_scene(tmp_path / "S2A_20190416T100031.tif", noise)
    result = geocfl.map_scene(named, tmp_path / "out", model=tiny_model, products=["stac"])
    assert result.summary["scene"]["datetime"] == "2019-04-16T10:00:31Z"
    assert json.loads(result.paths["stac"].read_text())["properties"]["datetime"] == "2019-04-16T10:00:31Z"


def test_the_picture_takes_the_bands_by_name(tmp_path: Path, tiny_model: Path) -> None:
    dn = np.full((3, 128, 128), 500, np.uint16)
    dn[2, :, :64] = 2500  # red, the file's third band
    scene = write_scene(tmp_path / "s.tif", dn, bands=("B02", "B03", "B04"))
    result = geocfl.map_scene(scene, tmp_path, model=tiny_model, products=["truecolor"])
    with rasterio.open(result.paths["truecolor"]) as dataset:
        red, _, blue = dataset.read()
    assert red[:, 10].min() > 200
    assert red[:, 120].max() < 50
    assert abs(int(blue[64, 10]) - int(blue[64, 120])) < 40


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        pytest.param("EPSG:32760", Affine(10, 0, 818_200, 0, -10, 8_100_000), id="south, over the antimeridian"),
        pytest.param("+proj=laea +lat_0=47 +lon_0=13 +units=m", Affine(10, 0, 0, 0, -10, 0), id="no EPSG code"),
        pytest.param("EPSG:32733", Affine(10, 0, 3e5, 0, -10, 9e6), id="south"),
    ],
)
def test_every_product_of_awkward_scenes(
    tmp_path: Path, tiny_model: Path, noise: np.ndarray, crs: str, transform: Affine
) -> None:
    scene = write_scene(tmp_path / "s.tif", noise, crs=crs, transform=transform)
    result = geocfl.map_scene(scene, tmp_path / "out", **(EVERYTHING | {"model": tiny_model, "stride": 32}))
    with rasterio.open(scene) as dataset:
        system = dataset.crs
    polygons = geopandas.read_file(result.paths["gpkg"], layer="lulc")
    assert polygons.area.sum() == pytest.approx(150 * 200 * 100)
    for name in ("lulc", "confidence", "truecolor", "probabilities"):
        with rasterio.open(result.paths[name]) as dataset:
            assert dataset.crs == system
            assert (dataset.transform.c, dataset.transform.f) == (transform.c, transform.f)
    geojson = geopandas.read_file(result.paths["geojson"])
    assert geojson.to_crs(system).area.sum() == pytest.approx(polygons.area.sum(), rel=1e-3)
    west, _, east, _ = json.loads(result.paths["stac"].read_text())["bbox"]
    around = (east - west) % 360  # RFC 7946: west > east where the antimeridian lies between
    assert 0 < around < 0.1
    assert (west > east) == (crs == "EPSG:32760")


def test_a_part_is_mapped_as_in_the_whole_scene(tmp_path: Path, tiny_model: Path) -> None:
    dn = np.random.default_rng(3).integers(200, 2000, (3, 400, 420), dtype=np.uint16)
    dn[:, :, 200:] //= 2  # two kinds of ground, and something between them
    scene = write_scene(tmp_path / "s.tif", dn)
    options = {"model": tiny_model, "stride": 16, "precision": "float32"}
    whole = geocfl.map_scene(scene, tmp_path / "whole", **options)
    square = box(3e5 + 10 * 150, 5e6 - 10 * 290, 3e5 + 10 * 260, 5e6 - 10 * 130)
    geopandas.GeoDataFrame(geometry=[square], crs=32633).to_crs(3035).to_file(tmp_path / "aoi.gpkg")
    part = geocfl.map_scene(scene, tmp_path / "part", aoi=str(tmp_path / "aoi.gpkg"), **options)
    with rasterio.open(whole.paths["lulc"]) as one, rasterio.open(part.paths["lulc"]) as other:
        window = one.window(*other.bounds)
        assert (window.col_off % 1, window.row_off % 1) == (0, 0)
        expected, found = one.read(1, window=window), other.read(1)
    inside = found != 0
    assert inside.any()
    assert (found[inside] == expected[inside]).all()
    # Cells of which more than half lie in the area, and no others.
    assert inside.sum() == 10 * 7
    assert part.summary["scene"]["width"] < 420
    assert geocfl.map_scene(scene, tmp_path / "part", aoi=str(tmp_path / "aoi.gpkg"), **options).already_done


def test_masked_cells_are_counted(tmp_path: Path, tiny_model: Path, noise: np.ndarray) -> None:
    scene = write_scene(tmp_path / "s.tif", noise)
    clouds = np.zeros((1, 150, 200), np.uint8)
    clouds[:, :50, :128] = 1  # 50 of 64 rows of two cells
    mask = str(write_scene(tmp_path / "clouds.tif", clouds, bands=()))
    result = geocfl.map_scene(scene, tmp_path / "out", model=tiny_model, mask=mask)
    assert (codes(result) == 0).tolist() == [[True, True, False, False]] + [[False] * 4] * 2
    assert result.summary["masked_cells"] == result.summary["nodata"]["cells"] == 2
    lenient = geocfl.map_scene(scene, tmp_path / "lenient", model=tiny_model, mask=mask, max_masked=0.8)
    assert (codes(lenient) != 0).all()
    assert lenient.summary["masked_cells"] == 0
    clouds[:] = 1
    mask = str(write_scene(tmp_path / "all.tif", clouds, bands=()))
    with pytest.raises(SceneError, match="`max_masked`"):
        geocfl.map_scene(scene, tmp_path / "none", model=tiny_model, mask=mask)


def test_a_coarser_scene_is_warped(tmp_path: Path, tiny_model: Path, noise: np.ndarray, caplog) -> None:
    scene = write_scene(tmp_path / "s.tif", noise, transform=Affine(20, 0, 3e5, 0, -20, 5e6))
    with caplog.at_level(logging.INFO, "geocfl"):
        result = geocfl.map_scene(scene, tmp_path / "out", model=tiny_model)
    assert sum("warped from pixels of 20 x 20 m" in record.getMessage() for record in caplog.records) == 1
    assert result.summary["scene"]["width"] == 400
    assert any("warped" in warning for warning in result.summary["warnings"])
    assert any("its pixels of 20 m" in warning for warning in result.summary["warnings"])
    assert any("its pixels of 20 m" in record.getMessage() for record in caplog.records)
    assert sum(row["hectares"] for row in result.summary["classes"]) == pytest.approx(300 * 400 / 100)


def test_a_scene_without_a_place(tmp_path: Path, tiny_model: Path, noise: np.ndarray) -> None:
    scene = write_scene(tmp_path / "s.tif", noise, crs=None, transform=Affine.identity())
    result = geocfl.map_scene(
        scene, tmp_path / "out", model=tiny_model, allow_no_crs=True, products=["default", "report"]
    )
    assert codes(result).shape == (3, 4)
    assert result.summary["total"]["hectares"] == pytest.approx(150 * 200 / 100)
    with rasterio.open(result.paths["lulc"]) as dataset:
        assert dataset.crs is None or not dataset.crs.is_geographic


def test_geojson_of_a_scene_without_a_place_is_refused_at_once(tmp_path: Path, tiny_model: Path, noise) -> None:
    scene = write_scene(tmp_path / "s.tif", noise, crs=None, transform=Affine.identity())
    with pytest.raises(
        geocfl.UsageError, match=r"s\.tif: has no place on the earth, and geojson in `vector` needs one"
    ):
        geocfl.map_scene(scene, tmp_path / "out", model=tiny_model, allow_no_crs=True, vector=("geojson",))
    assert not list((tmp_path / "out").glob("*"))


def test_the_estimate_says_what_strides_mean(tmp_path: Path, tiny_model: Path, noise: np.ndarray, caplog) -> None:
    grid = CellGrid(1000, 2000, 64, 64, TRANSFORM, rasterio.CRS.from_epsg(32633))
    line = stride_estimate("s.tif", grid, 10, share=1.0, rate=100, memory=1_234_000_000)
    assert line == (
        "s.tif: 512 cells of 640 m, about 5 s, 1.2 GB of memory (`stride=32`: 2,016 cells of 320 m, about 20 s; "
        "`stride=16`: 7,875 cells of 160 m, about 79 s)"
    )
    assert "512 cells of 640 m (50% with data), about 3 s, 1.2 GB" in stride_estimate(
        "s.tif", grid, 10, 0.5, 100, 1.2e9
    )
    quarter = stride_estimate("s.tif", grid, 10, share=1.0, rate=100, memory=1_234_000_000, interpolate=True)
    assert "512 cells of 640 m, about 5 s" in quarter
    assert "7,875 cells of 160 m, about 20 s" in quarter
    with caplog.at_level(logging.INFO, logger="geocfl"):
        geocfl.map_scene(write_scene(tmp_path / "s.tif", noise), tmp_path, model=tiny_model, stride=48)
    assert any("20 cells of 480 m" in r.message for r in caplog.records)


def test_unharmonised_scenes_are_warned_of(tmp_path: Path, tiny_model: Path, noise: np.ndarray) -> None:
    scene = write_scene(tmp_path / "s.tif", noise + 1000)
    warned = geocfl.map_scene(scene, tmp_path / "a", model=tiny_model)
    assert "`offset=-1000`" in warned.summary["warnings"][0]
    right = geocfl.map_scene(scene, tmp_path / "b", model=tiny_model, offset=-1000)
    assert right.summary["warnings"] == []
    plain = geocfl.map_scene(write_scene(tmp_path / "t.tif", noise), tmp_path / "c", model=tiny_model)
    np.testing.assert_array_equal(codes(right), codes(plain))


PEAK = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(done.returncode)
"""
"""A process's peak begins at that of the one that starts it; this one is small."""


@pytest.mark.integration
@pytest.mark.skipif(sys.platform != "linux", reason="peaks are in kilobytes on Linux")
@pytest.mark.parametrize("tiled", [True, False])
def test_memory_is_bounded_as_it_says(tmp_path: Path, tiny_model: Path, tiled: bool) -> None:
    """A scene of which a strip of full height would take half a gigabyte more."""
    path, columns = tmp_path / "wide.tif", 14_000
    layout = {"tiled": True, "blockxsize": 512, "blockysize": 512} if tiled else {}
    with rasterio.open(
        path, "w", driver="GTiff", height=1100, width=columns, count=3, dtype="uint16", crs="EPSG:32633", nodata=0,
        transform=TRANSFORM, sparse_ok=True, **layout,
    ) as dataset:  # fmt: skip
        dataset.write(np.full((3, 200, 300), 900, np.uint16), window=((600, 800), (5000, 5300)))
        dataset.descriptions = ("B04", "B03", "B02")
    geocfl.models.backends.load_backend(geocfl.load_model(tiny_model), "openvino")  # exports
    command = [GEOCFL, "map", str(path), "--model", str(tiny_model), "--backend", "openvino", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *command, "--memory", "800MB"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 < 800e6
    said = re.search(r"([\d.]+) GB of memory", done.stderr)
    assert said
    assert float(said[1]) <= 0.8


@pytest.mark.integration
class TestStopAndGoOn:
    """The command as a process of its own, stopped by a signal after its first strip."""

    @pytest.fixture
    def scene(self, tmp_path: Path) -> Path:
        dn = np.random.default_rng(0).integers(200, 2000, (3, 6 * 1024, 192), dtype=np.uint16)
        return write_scene(tmp_path / "s.tif", dn)

    def command(self, scene: Path, model: Path, out: Path) -> list[str]:
        options = {"out": out, "model": model, "stride": 24, "backend": "openvino"}
        return [
            GEOCFL,
            "map",
            str(scene),
            *(part for name, value in options.items() for part in (f"--{name}", str(value))),
        ]

    def started(self, command: list[str], checkpoint: Path) -> subprocess.Popen:
        """The running command, after its checkpoint holds a strip."""
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # What runs in the background ignores SIGINT, and so would what it starts.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )
        while process.poll() is None:
            if checkpoint.exists() and len(checkpoint.read_text().splitlines()) > 1:
                return process
            time.sleep(0.01)
        raise AssertionError(f"it ended before it could be stopped: {process.communicate()}")

    def test_killed_it_goes_on_and_gives_the_same_files(self, tmp_path: Path, scene: Path, tiny_model: Path) -> None:
        whole = self.command(scene, tiny_model, tmp_path / "whole")
        subprocess.run(whole, check=True, capture_output=True)
        again = self.command(scene, tiny_model, tmp_path / "again")
        checkpoint = tmp_path / "again" / ".s.partial" / "checkpoint.jsonl"
        process = self.started(again, checkpoint)
        process.kill()
        process.communicate()
        assert sorted(p.name for p in (tmp_path / "again").iterdir()) == [".s.lock", ".s.partial"]
        done = checkpoint.read_text()
        subprocess.run(again, check=True, capture_output=True)
        assert len(done.splitlines()) > 1
        assert not (tmp_path / "again" / ".s.partial").exists()
        names = sorted(path.name for path in (tmp_path / "whole").iterdir())
        assert names == sorted(path.name for path in (tmp_path / "again").iterdir())
        for name in names:
            if name != "s_summary.json":
                files = [tmp_path / run / name for run in ("whole", "again")]
                assert files[0].read_bytes() == files[1].read_bytes(), name

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_interrupted_it_ends_cleanly_and_soon(
        self, tmp_path: Path, scene: Path, tiny_model: Path, number: signal.Signals, code: int
    ) -> None:
        checkpoint = tmp_path / "out" / ".s.partial" / "checkpoint.jsonl"
        command = [*self.command(scene, tiny_model, tmp_path / "out"), "--work", str(tmp_path / "work")]
        process = self.started(command, checkpoint)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == code, errors
        assert errors.splitlines()[-1] == "geocfl: stopped"
        assert "Traceback" not in errors
        (copy,) = (tmp_path / "work").glob("*/checkpoint.jsonl")
        assert copy.read_text() == checkpoint.read_text()

    def test_terminated_among_many_it_goes_on(self, tmp_path: Path, scene: Path, tiny_model: Path) -> None:
        other = shutil.copy(scene, tmp_path / "t.tif")
        checkpoint = tmp_path / "out" / ".s.partial" / "checkpoint.jsonl"
        command = [*self.command(scene, tiny_model, tmp_path / "out"), str(other)]
        process = self.started(command, checkpoint)
        process.terminate()
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 143, errors
        assert "Traceback" not in errors
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "mapped" in done.stdout
        windows = {
            name: json.loads((tmp_path / f"out/{name}_summary.json").read_text())["timing"]["windows"] for name in "st"
        }
        assert windows["s"] < windows["t"] == 256 * 8


class TestBadInput:
    """Each gets one sentence that names the file, and leaves nothing."""

    @pytest.fixture
    def refused(self, tmp_path: Path, tiny_model: Path):
        def check(scene: Path, match: str, kind: type[GeocflError] = SceneError, **options) -> None:
            out = tmp_path / "out"
            with pytest.raises(kind, match=match) as caught:
                geocfl.map_scene(scene, out, **{"model": tiny_model, **options})
            assert "\n" not in str(caught.value)
            assert not out.exists()

        return check

    def test_missing_file(self, tmp_path: Path, refused) -> None:
        refused(tmp_path / "none.tif", r"none\.tif: no such file")

    def test_text_file(self, tmp_path: Path, refused) -> None:
        (tmp_path / "s.tif").write_text("hello")
        refused(tmp_path / "s.tif", r"s\.tif: not a readable raster")

    def test_truncated(self, tmp_path: Path, noise: np.ndarray, refused) -> None:
        path = write_scene(tmp_path / "s.tif", noise)
        path.write_bytes(path.read_bytes()[:90_000])
        refused(path, r"s\.tif")

    def test_without_crs(self, tmp_path: Path, noise: np.ndarray, refused) -> None:
        refused(write_scene(tmp_path / "s.tif", noise, crs=None), "no coordinate reference system.*gdal_edit")

    def test_geographic_or_coarse(self, tmp_path: Path, noise: np.ndarray, refused) -> None:
        degrees = Affine(1e-4, 0, 12, 0, -1e-4, 46)
        scene = write_scene(tmp_path / "s.tif", noise, crs="EPSG:4326", transform=degrees)
        refused(scene, r"s\.tif: has pixels of 7\.7.* m in EPSG:4326.*`warp=False`", warp=False)
        coarse = Affine(20, 0, 3e5, 0, -20, 5e6)
        refused(write_scene(tmp_path / "t.tif", noise, transform=coarse), "pixels of 20 x 20 m.*gdalwarp", warp=False)

    def test_without_the_bands(self, tmp_path: Path, noise: np.ndarray, refused) -> None:
        refused(
            write_scene(tmp_path / "s.tif", noise, bands=("B08", "B11", "B12")),
            r"s\.tif: B04, B03, B02 are needed.*`bands`",
        )

    def test_smaller_than_a_window(self, tmp_path: Path, noise: np.ndarray, refused) -> None:
        refused(write_scene(tmp_path / "s.tif", noise[:, :63]), r"200 x 63 px is smaller.*64 px")

    def test_all_nodata(self, tmp_path: Path, noise: np.ndarray, refused) -> None:
        refused(write_scene(tmp_path / "s.tif", np.zeros_like(noise)), "no cell has data")

    def test_stride_and_batch_size(self, tmp_path: Path, noise: np.ndarray, refused) -> None:
        path = write_scene(tmp_path / "s.tif", noise)
        refused(path, "`stride` is 65", UsageError, stride=65)
        refused(path, "`stride` is 0", UsageError, stride=0)
        refused(path, "`batch_size` is 0", UsageError, batch_size=0)
        refused(path, "precision", UsageError, precision="int8")
        refused(path, "device", UsageError, device="tpu9")
        refused(path, "backend", UsageError, backend="abacus")
        refused(path, "2GB", UsageError, memory="plenty")
        refused(path, "too little", UsageError, memory="1MB")

    def test_model_folder_with_missing_or_corrupt_file(
        self, tmp_path: Path, tiny_model: Path, noise: np.ndarray, refused
    ) -> None:
        path = write_scene(tmp_path / "s.tif", noise)
        refused(path, "no such model.*eurosat-rgb-lite0", ModelError, model=tmp_path / "nowhere")
        for name in ("model.json", "model.safetensors"):
            broken = tmp_path / f"without-{name}"
            shutil.copytree(tiny_model, broken)
            (broken / name).unlink()
            refused(path, name.replace(".", r"\."), ModelError, model=broken)
            (broken / name).write_bytes(b"\x00garbage")
            refused(path, name.replace(".", r"\."), ModelError, model=broken)

    @pytest.mark.skipif(os.name != "posix", reason="permissions as on POSIX")
    def test_unwritable_folder(self, tmp_path: Path, tiny_model: Path, noise: np.ndarray) -> None:
        path = write_scene(tmp_path / "s.tif", noise)
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(OutputError, match="file"):
            geocfl.map_scene(path, tmp_path / "file" / "out", model=tiny_model)
        if os.geteuid() == 0:
            pytest.skip("root may write everywhere; a file in the way was refused")
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o500)
        with pytest.raises(OutputError, match="locked"):
            geocfl.map_scene(path, locked, model=tiny_model)


@pytest.mark.shared
def test_a_mosaic_of_eurosat_patches_maps_back_to_their_predictions(tmp_path: Path, shared_data: Path) -> None:
    with zipfile.ZipFile(shared_data / "eurosat/EuroSAT.zip") as archive:
        names = sorted(n for n in archive.namelist() if n.endswith(".jpg"))[::1350]
        patches = np.stack([np.asarray(Image.open(archive.open(name))).transpose(2, 0, 1) for name in names])
    mosaic = patches.reshape(4, 5, 3, 64, 64).transpose(2, 0, 3, 1, 4).reshape(3, 256, 320)
    name = "eurosat-rgb-lite0"  # it sees nothing beyond its window
    scene = write_scene(tmp_path / "s.tif", mosaic)
    result = geocfl.map_scene(scene, tmp_path, model=name, precision="float32", device="cpu")
    model = geocfl.load_model(name)
    reflectance = geocfl.core.radiometry.EUROSAT_RGB.to_reflectance(patches)
    expected = model.predict(reflectance, backend="torch", device="cpu", precision="float32", batch_size=1).codes
    np.testing.assert_array_equal(codes(result).ravel(), expected)
    assert len(set(expected)) >= 8
    labels = [geocfl.core.legend.EUROSAT.names.index(" ".join(_words(Path(n).parent.name))) + 1 for n in names]
    assert np.mean(np.array(labels) == expected) >= 0.8


def _words(folder: str) -> list[str]:
    return "".join(f" {c}" if c.isupper() else c for c in folder).split()


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "options", "warned"),
    [
        ("S2_L2A_20190416_aquileia_B04B03B02B08.tif", {}, False),
        ("S2_L2A_202206_dolomites_B04B03B02B08.tif", {}, True),
        ("S2_L2A_202206_dolomites_B04B03B02B08.tif", {"offset": -1000}, False),
    ],
)
def test_real_scenes_map_without_options(tmp_path: Path, shared_data: Path, name, options, warned) -> None:
    result = geocfl.map_scene(shared_data / "scenes" / name, tmp_path, **options)
    assert bool(result.summary["warnings"]) == warned
    assert result.summary["scene"]["level"] == "L2A"
    assert sum(row["cells"] for row in result.summary["classes"]) > 150
