"""Every command through the installed entry point, as a user runs it."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from shapely import box

from tests.scene.safe_product import write_safe

COMMAND = str(Path(sys.executable).parent / "geocfl")


def run(*args: object, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([COMMAND, *map(str, args)], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scene") / "s.tif"
    dn = np.random.default_rng(0).integers(200, 2000, (3, 130, 200), dtype=np.uint16)
    with rasterio.open(
        path, "w", driver="GTiff", height=130, width=200, count=3, dtype="uint16", crs="EPSG:32633",
        transform=Affine(10, 0, 3e5, 0, -10, 5e6),
    ) as dataset:  # fmt: skip
        dataset.write(dn)
        dataset.descriptions = ("B04", "B03", "B02")
    return path


def test_help_lists_the_commands_and_is_quick(tmp_path: Path) -> None:
    run("--help", cwd=tmp_path)  # bytecode is written, files are in memory
    best = np.inf
    for _ in range(3):
        started = time.perf_counter()
        text = run("--help", cwd=tmp_path).stdout
        best = min(best, time.perf_counter() - started)
    for command in ("map", "stats", "mosaic", "export", "demo", "train", "evaluate", "compare", "info"):
        assert command in text
    print(f"geocfl --help: {best:.2f} s")


def test_help_and_import_load_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys, geocfl, geocfl.cli; from typer.testing import CliRunner; "
        "CliRunner().invoke(geocfl.cli.app, ['map', '--help']); "
        "sys.exit(any(m in sys.modules for m in ('torch', 'torchgeo', 'matplotlib', 'geopandas', 'rasterio')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False).returncode == 0


def test_map_prints_the_table_and_the_paths(scene: Path, tiny_model: Path, tmp_path: Path) -> None:
    done = run("map", scene, "--out", "maps", "--model", tiny_model, "--stride", 32, cwd=tmp_path)
    assert "cells of 320 m" in done.stderr
    assert "--stride 16" in done.stderr
    for name in ("s_lulc.tif", "s_lulc.gpkg", "s_preview.png", "s_summary.json"):
        assert f"maps/{name}" in done.stdout
        assert (tmp_path / "maps" / name).is_file()
    again = run("map", scene, "--out", "maps", "--model", tiny_model, "--stride", 32, cwd=tmp_path)
    assert "already" in again.stdout


def test_map_writes_every_product(scene: Path, tiny_model: Path, tmp_path: Path) -> None:
    options = ["--model", tiny_model, "--products", "all", "--vector", "gpkg,geoparquet,flatgeobuf,geojson"]
    done = run("map", scene, "--out", "maps", *options, "--datetime", "2024-06-01", cwd=tmp_path)
    printed = {line.strip() for line in done.stdout.splitlines() if line.startswith("  maps/")}
    assert printed == {f"maps/{path.name}" for path in (tmp_path / "maps").iterdir()}
    assert len(printed) == 21
    flags = ["--probabilities", "--entropy", "--windows", "--sld"]
    run("map", scene, "--out", "flags", "--model", tiny_model, *flags, "--products", "lulc", cwd=tmp_path)
    assert {path.name for path in (tmp_path / "flags").iterdir()} == {
        "s_lulc.tif", "s_lulc.tif.aux.xml", "s_lulc.qml", "s_lulc.sld", "s_lulc_polygons.sld", "s_lulc.gpkg",
        "s_probabilities.tif", "s_entropy.tif", "s_entropy.qml", "s_summary.json",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--products", "maps"], "unknown product 'maps'; choose from"),
        (["--vector", "shp"], "unknown vector format 'shp'; choose from"),
        (["--min-confidence", "50"], "--min-confidence 50 is not between 0 and 1"),
        (["--min-area", "-1"], "--min-area -1 is no number of hectares"),
        (["--simplify", "nan"], "--simplify nan is no number of metres"),
        (["--datetime", "yesterday"], "--datetime 'yesterday' is no date"),
    ],
)
def test_map_refuses_products_that_cannot_be_meant(
    scene: Path, tiny_model: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    done = run("map", scene, "--out", "maps", "--model", tiny_model, *options, cwd=tmp_path, code=2)
    assert message in done.stderr
    assert not (tmp_path / "maps").exists()


def test_stats_and_mosaic(scene: Path, tiny_model: Path, tmp_path: Path) -> None:
    run("map", scene, "--out", "maps", "--model", tiny_model, cwd=tmp_path)
    square = geopandas.GeoDataFrame({"name": ["here"]}, geometry=[box(3e5, 5e6 - 640, 3e5 + 1280, 5e6)], crs=32633)
    square.to_file(tmp_path / "zones.gpkg")
    done = run("stats", "maps/s_lulc.tif", "--zones", "zones.gpkg", "--by", "name", "--out", "areas.csv", cwd=tmp_path)
    assert "81.92" in done.stdout
    assert "areas.csv" in done.stdout
    assert (tmp_path / "areas.csv").is_file()
    rows = json.loads(run("stats", "maps/s_lulc.tif", "--zones", "zones.gpkg", "--json", cwd=tmp_path).stdout)
    assert sum(row["hectares"] for row in rows) == pytest.approx(81.92)
    for out in ("all_lulc.tif", "all_lulc.vrt"):
        done = run("mosaic", "maps/s_lulc.tif", "--out", out, "--overwrite", cwd=tmp_path)
        assert out in done.stdout
        with rasterio.open(tmp_path / out) as dataset, rasterio.open(tmp_path / "maps/s_lulc.tif") as one:
            assert (dataset.read(1) == one.read(1)).all()
    again = run("mosaic", "maps/s_lulc.tif", "--out", "all_lulc.tif", cwd=tmp_path, code=1)
    assert "--overwrite" in again.stderr


def test_map_as_json(scene: Path, tiny_model: Path, tmp_path: Path) -> None:
    done = run("map", scene, "--out", tmp_path, "--model", tiny_model, "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["scene"]["file"] == "s.tif"


def test_a_safe_product_and_files_of_one_band_each(tmp_path: Path, tiny_model: Path) -> None:
    product = write_safe(tmp_path, "L2A", zipped=True)
    said = json.loads(run("info", product.path, "--json", cwd=tmp_path).stdout)
    assert (said["level"], said["offset"]["B04"], said["taken"][:10]) == ("L2A", -1000, "2022-06-01")
    done = run("map", product.path, "--out", "maps", "--model", tiny_model, "--mask", "scl", cwd=tmp_path)
    assert f"maps/{product.path.stem}_lulc.tif" in done.stdout
    for band in ("B02", "B03", "B04"):
        pixels = np.random.default_rng(0).integers(200, 2000, (1, 130, 140), dtype=np.uint16)
        with rasterio.open(
            tmp_path / f"T33TUL_{band}.tif", "w", driver="GTiff", height=130, width=140, count=1, dtype="uint16",
            crs="EPSG:32633", transform=Affine(10, 0, 3e5, 0, -10, 5e6),
        ) as dataset:  # fmt: skip
            dataset.write(pixels)
    files = [f"T33TUL_{band}.tif" for band in ("B02", "B03", "B04")]
    done = run("map", *files, "--out", "maps", "--model", tiny_model, cwd=tmp_path)
    assert "maps/T33TUL_lulc.tif" in done.stdout


def test_a_model_is_described_for_catalogues(tmp_path: Path) -> None:
    done = run("export", "eurosat-rgb-lite0", "--format", "stac-mlm", cwd=tmp_path)
    item = json.loads((tmp_path / done.stdout.splitlines()[0]).read_text())
    assert item["properties"]["mlm:name"] == "eurosat-rgb-lite0"


def test_map_several_scenes_with_a_bad_one(scene: Path, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.tif").write_text("no raster")
    done = run("map", "bad.tif", scene, "--out", "maps", "--model", tiny_model, cwd=tmp_path, code=1)
    assert "bad.tif" in done.stderr
    assert (tmp_path / "maps" / "s_summary.json").is_file()


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["map", "none.tif"], 1, "none.tif: no such file"),
        (["map", "none.tif", "--model", "nowhere"], 1, "nowhere: no such model"),
        (["info", "none.tif"], 1, "none.tif: no such file"),
        (["stats", "none.tif", "--zones", "none.gpkg"], 1, "none.tif"),
        (["mosaic", "none_lulc.tif", "--out", "all_lulc.tif"], 1, "none_lulc.tif"),
        (["clouds", "none.tif", "--out", "clouds.tif"], 1, "none.tif: no such file"),
        (["map", "http://127.0.0.1:9/s.tif"], 1, "http://127.0.0.1:9/s.tif: the server cannot be reached"),
        (["train", "--data", "none.zip", "--out", "run"], 1, "none.zip"),
        (["train", "--data", "none.zip", "--out", "run", "--split", "thirds"], 2, "paper, spatial or random"),
        (["train", "--data", "none.zip", "--out", "run", "--loss", "hinge"], 2, "class-focal"),
        (["train", "--data", "none.zip", "--out", "run", "--backbone", "vgg"], 2, "resnet18"),
        (["train", "--data", "none.zip", "--out", "run", "--imbalance", "tail"], 2, "long-tail:R"),
        (["train", "--out", "run"], 2, "--data"),
        (["train", "--config", "none.json", "--out", "run"], 2, "none.json"),
        (["evaluate", "nowhere", "--data", "none.zip", "--out", "out"], 1, "nowhere: no such model"),
        (["evaluate", "eurosat-rgb-lite0", "--data", "none.zip", "--out", "out"], 1, "none.zip"),
        (["compare", "--data", "none.zip", "--out", "out", "--losses", "ce,hinge"], 2, "class-focal"),
    ],
)
def test_errors_are_one_sentence(tmp_path: Path, args: list[str], code: int, words: str) -> None:
    done = run(*args, cwd=tmp_path, code=code)
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_usage_errors_exit_with_two(tmp_path: Path) -> None:
    assert "stride" in run("map", "s.tif", "--stride", 65, cwd=tmp_path, code=2).stderr
    run("map", cwd=tmp_path, code=2)
    run("nonsense", cwd=tmp_path, code=2)


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [COMMAND, "--debug", "info", "none.tif"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_info_of_a_scene_and_of_a_model(scene: Path, tiny_model: Path, tmp_path: Path) -> None:
    text = run("info", scene, cwd=tmp_path).stdout
    assert "EPSG:32633" in text
    facts = json.loads(run("info", scene, "--json", cwd=tmp_path).stdout)
    assert facts["bands"] == {"B04": 1, "B03": 2, "B02": 3}
    assert facts["windows"]["stride 64"] == 12
    assert "Annual Crop" in run("info", tiny_model, cwd=tmp_path).stdout


def test_version(tmp_path: Path) -> None:
    import geocfl

    assert run("--version", cwd=tmp_path).stdout.strip() == f"geocfl {geocfl.__version__}"


def test_train_then_map_with_what_was_trained(scene: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for folder, level in (("Field", 160), ("Water", 40)):
        (tmp_path / "patches" / folder).mkdir(parents=True)
        for i in range(12):
            pixels = rng.normal(level, 10, (64, 64, 3)).clip(1, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "patches" / folder / f"{folder}_{i}.png")
    args = ["--weights", "none", "--epochs", 1, "--batch-size", 8, "--split", "paper"]
    done = run("train", "--data", "patches", "--out", "run", *args, cwd=tmp_path)
    assert "Water" in done.stdout
    for name in ("model.json", "model.safetensors", "metrics.json", "history.csv", "config.json", "report.html"):
        assert (tmp_path / "run" / name).is_file(), name
    run("train", "--config", "run/config.json", "--out", "again", cwd=tmp_path)
    again, first = ((tmp_path / name / "metrics.json").read_bytes() for name in ("again", "run"))
    assert again == first, "bit for bit"
    done = run("evaluate", "run", "--data", "patches", "--out", "evaluation", cwd=tmp_path)
    assert "Water" in done.stdout
    assert json.loads((tmp_path / "evaluation/metrics.json").read_text())["test"] == json.loads(first)["test"]
    run("map", scene, "--model", "run", "--out", "maps", cwd=tmp_path)
    with rasterio.open(tmp_path / "maps" / "s_lulc.tif") as dataset:
        assert set(np.unique(dataset.read(1))) <= {1, 2}
    refused = run("train", "--data", "patches", "--out", "run", *args, cwd=tmp_path, code=1)
    assert "--overwrite" in refused.stderr
    shutil.rmtree(tmp_path / "run")


def test_compare_plans_trains_and_reads(write_patches: Callable[..., Path], tmp_path: Path) -> None:
    write_patches(tmp_path / "patches", each=24)
    args = [
        "--data",
        "patches",
        "--out",
        "out",
        "--losses",
        "ce,class-focal",
        "--imbalance",
        "none,step:3",
        "--seeds",
        1,
    ]
    args += ["--backbone", "resnet18", "--weights", "none", "--input-size", 32, "--epochs", 1, "--batch-size", 8]
    plan = run("compare", *args, "--dry-run", cwd=tmp_path).stdout
    assert "4 cells, 0 finished, 4 trainings to do: about" in plan
    assert not (tmp_path / "out").exists()
    table = run("compare", *args, cwd=tmp_path).stdout
    assert "class-focal" in table
    assert "step:3" in table
    for name in ("table.csv", "table.md", "table.html"):
        assert (tmp_path / "out" / name).is_file()
    assert "4 cells, 4 finished" in run("compare", *args, "--dry-run", cwd=tmp_path).stdout
    assert run("compare", *args, cwd=tmp_path).stdout == table
