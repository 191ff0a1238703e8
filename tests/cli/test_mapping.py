import json
import re
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

import geocfl
from geocfl.cli.results import described
from tests.cli.program import run
from tests.scenes.safe_product import write_safe

pytestmark = pytest.mark.integration


def test_map_prints_the_table_and_the_paths(scene: Path, tiny_model: Path, tmp_path: Path) -> None:
    done = run("map", scene, "--out", "maps", "--model", tiny_model, "--stride", 32, cwd=tmp_path)
    assert done.stderr.startswith(f"mapping {scene} into maps with the model {tiny_model}\n")
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
    assert len(printed) == 23
    some = ["--products", "lulc,probabilities,entropy,windows,sld"]
    run("map", scene, "--out", "some", "--model", tiny_model, *some, cwd=tmp_path)
    assert {path.name for path in (tmp_path / "some").iterdir()} == {
        "s_lulc.tif", "s_lulc.tif.aux.xml", "s_lulc.qml", "s_lulc.sld", "s_lulc_polygons.sld", "s_lulc.gpkg",
        "s_probabilities.tif", "s_entropy.tif", "s_entropy.qml", "s_summary.json",
    }  # fmt: skip


def test_the_table_is_followed_by_the_share_of_unlike_land(tiny_model: Path, scene: Path, tmp_path: Path) -> None:
    result = geocfl.map_scene(scene, tmp_path / "maps", model=tiny_model)
    plain = described(result)
    assert "unlike anything" not in plain
    result.summary["novelty"] = {"percentile": 95, "cells": 1, "hectares": 2.0, "share": 0.12}
    said = set(described(result).splitlines()) - set(plain.splitlines())
    (sentence,) = said
    assert sentence.startswith("12.0% of this map lies on land unlike anything the model was trained on")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--products", "novelty"], "--products asks for novelty, but the model tiny has no novelty; "),
        (["--max-novelty", "95"], "--max-novelty is set, but the model tiny has no novelty; "),
        (["--max-novelty", "101"], "--max-novelty is 101 but must be between 0 and 100 percent"),
        (["--products", "maps"], "unknown product 'maps'; choose from"),
        (["--vector", "shp"], "unknown vector format 'shp'; choose from"),
        (["--min-confidence", "50"], "--min-confidence is 50 but must be between 0 and 1"),
        (["--min-area", "-1"], "--min-area is -1 but must be 0 or more hectares"),
        (["--simplify", "nan"], "--simplify is nan but must be 0 or more meters"),
        (["--smooth"], "--smooth needs windows that overlap; use a --stride of less than"),
        (["--interpolate"], "--interpolate needs a --stride of at most 32 px"),
        (["--smooth-keep", "River"], "--smooth-keep has no effect without smoothing; add --smooth"),
        (["--stride", "16", "--smooth", "--smooth-keep", "Rivr"], "--smooth-keep: unknown class 'Rivr'; did you mean"),
        (["--datetime", "yesterday"], "--datetime is 'yesterday', which is not a date"),
    ],
)
def test_map_refuses_unknown_products(
    scene: Path, tiny_model: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    done = run("map", scene, "--out", "maps", "--model", tiny_model, *options, cwd=tmp_path, code=2)
    assert message in done.stderr
    assert not (tmp_path / "maps").exists()


def test_map_as_json(scene: Path, tiny_model: Path, tmp_path: Path) -> None:
    done = run("map", scene, "--out", tmp_path, "--model", tiny_model, "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["scene"]["file"] == "s.tif"


def test_warnings_are_repeated_below_the_table(scene: Path, tiny_model: Path, tmp_path: Path) -> None:
    with rasterio.open(scene) as dataset:
        dn, profile, names = dataset.read(), dataset.profile, dataset.descriptions
    with rasterio.open(tmp_path / "float.tif", "w", **(profile | {"dtype": "float32"})) as dataset:
        dataset.write((dn / 10_000).astype(np.float32))
        dataset.descriptions = names
    done = run("map", "float.tif", "--out", "maps", "--model", tiny_model, cwd=tmp_path)
    said = r"warning: float\.tif: its values of up to 0\.\d+ are reflectance itself, so --scale 1 is used"
    assert re.search(said, done.stderr)
    assert re.search(said, done.stdout.partition("Total")[2])


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


def test_map_several_scenes_with_a_bad_one(scene: Path, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.tif").write_text("no raster")
    command = ("map", "bad.tif", scene, "--out", "maps", "--model", tiny_model)
    done = run(*command, "--events", "events.jsonl", cwd=tmp_path, code=3)
    assert "bad.tif: not a readable raster" in done.stdout
    assert (tmp_path / "maps" / "s_summary.json").is_file()
    again = run(*command, "--json", cwd=tmp_path, code=3).stdout
    found = json.loads(again)
    assert again == json.dumps(found, indent=2) + "\n"
    assert {(each["scene"], each["result"], bool(each["summary"])) for each in found} == {
        ("bad.tif", "failed", False), (str(scene), "skipped", True),
    }  # fmt: skip
    run("map", "bad.tif", "bad.tif", "worse.tif", "--model", tiny_model, cwd=tmp_path, code=1)
    shown = run("status", "events.jsonl", cwd=tmp_path).stdout
    assert "SceneError" in shown
    assert json.loads(run("status", ".", "--json", cwd=tmp_path).stdout)["failed"] == 1
    failed = run(*command, "--retry-failed", "events.jsonl", "--events", "-", cwd=tmp_path, code=1).stdout
    assert [json.loads(line)["kind"] for line in failed.splitlines()] == ["run", "start", "scene", "end"]
    alone = run("map", "--retry-failed", "events.jsonl", "--model", tiny_model, cwd=tmp_path, code=1)
    assert "bad.tif: not a readable raster" in alone.stdout
    both = run(*command, "--json", "--events", "-", cwd=tmp_path, code=2)
    assert "--json and --events - both print to standard output" in both.stderr
