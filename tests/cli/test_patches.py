"""``geocfl patches`` through the entry point, up to a map with the classes that were drawn."""

import json
from pathlib import Path

import geopandas as gpd
import pytest

from tests.cli.program import run
from tests.labeling.scene_data import box, write_labels, write_scene


def labels(folder: Path) -> Path:
    """Two classes on a board of 8 x 8 squares."""
    places = [(row, column) for row in range(0, 640, 80) for column in range(0, 640, 80)]
    shapes = {
        name: [box(row, column, 80, 80) for row, column in places if (row + column) // 80 % 2 == odd]
        for odd, name in enumerate(("Reed", "Rock"))
    }
    return write_labels(folder / "labels.gpkg", shapes)


@pytest.mark.integration
def test_patches_are_cut_and_split(tmp_path: Path) -> None:
    write_scene(tmp_path / "scene.tif")
    labels(tmp_path)
    command = ["patches", "scene.tif", "labels.gpkg", "--by", "class", "--split", "blocks:1.5", "--out", "p"]
    done = run(*command, cwd=tmp_path)
    assert done.stdout.splitlines()[0].split() == ["class", "patches", "train", "validation", "test"]
    assert done.stdout.splitlines()[-1] == "  p"
    assert "cutting patches of labels.gpkg from scene.tif" in done.stderr
    again = run(*command, cwd=tmp_path, code=1)
    assert again.stderr.count("\n") == 2
    assert "p: already contains patches; use --overwrite to replace them, or choose another --out" in again.stderr
    rows = json.loads(run(*command, "--overwrite", "--json", cwd=tmp_path).stdout)
    assert [row["label"] for row in rows] == ["Reed", "Rock"]
    assert len(gpd.read_file(tmp_path / "p" / "manifest.gpkg")) == sum(row["patches"] for row in rows)
    wrong = run(*command[:-2], "--out", "q", "--split", "blocks:99", cwd=tmp_path, code=2)
    assert "only 1 block of 99 km" in wrong.stderr
    assert not (tmp_path / "q").exists()


@pytest.mark.slow
@pytest.mark.integration
def test_own_labels_become_a_map(tmp_path: Path, tiny_model: Path) -> None:
    """From two drawn classes to a map of them: patches, train by the manifest, evaluate by it, map."""
    write_scene(tmp_path / "scene.tif")
    labels(tmp_path)
    run("patches", "scene.tif", "labels.gpkg", "--by", "class", "--split", "blocks:1.5", "--out", "p", cwd=tmp_path)
    training = ["--split", "manifest", "--backbone", "lite0", "--weights", tiny_model, "--freeze", "--epochs", 1]
    run("train", "--data", "p", "--out", "run", *training, "--input-size", 32, cwd=tmp_path)
    assert json.loads((tmp_path / "run/model.json").read_text())["origin"]["split"] == "manifest"
    run("evaluate", "run", "--data", "p", "--out", "evaluation", cwd=tmp_path)
    run("map", "scene.tif", "--model", "run", "--backend", "torch", "--out", "maps", cwd=tmp_path)
    summary = json.loads((tmp_path / "maps/scene_summary.json").read_text())
    assert {entry["name"] for entry in summary["classes"]} >= {"Reed", "Rock"}
