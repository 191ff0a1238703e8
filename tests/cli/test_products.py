import json
from pathlib import Path

import geopandas
import pytest
import rasterio
from shapely import box

from tests.cli.program import run

pytestmark = pytest.mark.integration


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
    again = run("mosaic", "maps/s_lulc.tif", "--out", "all_lulc.tif", "--vector", "geojson", cwd=tmp_path, code=1)
    assert "--overwrite" in again.stderr
    run("mosaic", "maps/s_lulc.tif", "--out", "all_lulc.tif", "--vector", "geojson", "--update", cwd=tmp_path)
    assert (tmp_path / "all_lulc_polygons.geojson").is_file()


def test_one_map_for_each_region(scene: Path, tiny_model: Path, tmp_path: Path) -> None:
    run("map", scene, "--out", "maps", "--model", tiny_model, cwd=tmp_path)
    halves = [box(3e5, 5e6 - 1300, 3e5 + 960, 5e6), box(3e5 + 960, 5e6 - 1300, 3e5 + 2000, 5e6)]
    regions = geopandas.GeoDataFrame({"name": ["west", "east"]}, geometry=halves, crs=32633)
    regions.to_file(tmp_path / "regions.gpkg")
    options = ["--regions", "regions.gpkg", "--by", "name", "--vector", "gpkg"]
    done = run("mosaic", "maps", "--out", "out", *options, cwd=tmp_path)
    for region in ("west", "east"):
        assert f"  out/{region}_lulc.tif" in done.stdout.splitlines()
        assert (tmp_path / "out" / f"{region}_lulc.gpkg").is_file()
    facts = json.loads(run("mosaic", "maps", "--out", "again", *options, "--json", cwd=tmp_path).stdout)
    assert facts.keys() == {"west", "east"}
    tiles = ["--grid", "regions.gpkg", "--by", "name", "--overlap", "mode", "--update", "--workers", "2"]
    facts = json.loads(run("mosaic", "maps", "--out", "tiles", *tiles, "--json", cwd=tmp_path).stdout)
    assert facts.keys() == {"west", "east"}
    assert (tmp_path / "tiles" / "west_summary.json").is_file()
    misspelt = run("mosaic", "maps", "--out", "x", "--regions", "regions.gpkg", "--by", "nmae", cwd=tmp_path, code=2)
    assert "did you mean 'name'?" in misspelt.stderr
    assert not (tmp_path / "x").exists()


def test_shards_and_their_catalog(scene: Path, tiny_model: Path, tmp_path: Path) -> None:
    for name in ("a_20240601", "b_20240601"):
        (tmp_path / f"{name}.tif").write_bytes(scene.read_bytes())
    options = ["--out", "maps", "--model", tiny_model, "--layout", "{year}"]
    done = run("map", "*.tif", *options, "--shard", "1/2", cwd=tmp_path)
    assert "shard 1/2: 1 of 2 scenes" in done.stderr
    assert not (tmp_path / "maps/catalog.json").exists()
    refused = run("map", "*.tif", *options, "--shard", "2/2", cwd=tmp_path, code=2)
    assert refused.stderr.splitlines()[-1] == "geocfl: --shard 2/2 does not exist; use --shard 0/2 to --shard 1/2"
    made = json.loads(run("catalog", "maps", "--json", cwd=tmp_path).stdout)
    assert made["maps"] == ["2024/b_20240601"]
    done = run("catalog", "maps", cwd=tmp_path)
    assert "catalog.json: 1 map\n" in done.stdout.replace("\\", "/")
