import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image

from geocfl.models.stored import write_stored
from tests.cli.program import run

pytestmark = pytest.mark.integration


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
    run("map", scene, "--model", "run", "--out", "maps", "--backend", "torch", cwd=tmp_path)
    with rasterio.open(tmp_path / "maps" / "s_lulc.tif") as dataset:
        assert set(np.unique(dataset.read(1))) <= {1, 2}
    refused = run("train", "--data", "patches", "--out", "run", *args, cwd=tmp_path, code=1)
    assert "--overwrite" in refused.stderr
    shutil.rmtree(tmp_path / "run")


def test_compare_estimates_trains_and_reads(write_patches: Callable[..., Path], tmp_path: Path) -> None:
    write_patches(tmp_path / "patches", each=24)
    args = [
        "--data",
        "patches",
        "--out",
        "out",
        "--losses",
        "ce,class-focal",
        "--imbalances",
        "none,step:3",
        "--seeds",
        1,
    ]
    args += ["--backbone", "resnet18", "--weights", "none", "--input-size", 32, "--epochs", 1, "--batch-size", 8]
    plan = run("compare", *args, "--dry-run", cwd=tmp_path).stdout
    assert "4 runs, 0 finished, 4 trainings left: about" in plan
    assert not (tmp_path / "out").exists()
    table = run("compare", *args, cwd=tmp_path).stdout
    assert "class-focal" in table
    assert "step:3" in table
    for name in ("table.csv", "table.md", "table.html"):
        assert (tmp_path / "out" / name).is_file()
    assert run("compare", *args, cwd=tmp_path).stdout == table


@pytest.mark.slow
def test_classes_are_added_and_the_model_is_used_everywhere(
    scene: Path, write_patches: Callable[..., Path], tiny_dense: Path, tmp_path: Path
) -> None:
    """From few patches of two new classes to their map, facts, export and evaluation."""
    model = shutil.copytree(tiny_dense, tmp_path / "model")
    rng = torch.Generator().manual_seed(0)
    write_stored(Path(model), torch.rand(100, 1280, generator=rng), torch.arange(100) % 10)
    data = write_patches(tmp_path / "drawn", each=6)
    for name, colors in (("Snow", "SeaLake"), ("BareRock", "River")):
        (data / colors).rename(data / name)
    training = ["--data", "drawn", "--add-classes", "--weights", "model", "--epochs", 20]
    done = run("train", *training, "--out", "run", cwd=tmp_path)
    assert "features of 18 patches by tiny-dense" in done.stderr
    assert "few patches (Forest 6, Bare Rock 6, Snow 6)" in done.stderr
    assert "100 stored patches correct before" in done.stderr
    facts = run("info", "run", cwd=tmp_path).stdout
    assert "Snow" in facts
    run(
        "map",
        scene,
        "--model",
        "run",
        "--out",
        "maps",
        "--backend",
        "torch",
        "--products",
        "default,sets,novelty",
        cwd=tmp_path,
    )
    summary = json.loads((tmp_path / "maps/s_summary.json").read_text())
    assert len(summary["classes"]) == 12
    with rasterio.open(tmp_path / "maps/s_sets.tif") as dataset:
        assert dataset.count >= 1
    assert "Snow" in run("evaluate", "run", "--data", "drawn", "--out", "seen", cwd=tmp_path).stdout
    run("export", "run", "--out", "run.onnx", cwd=tmp_path)
    refused = run("train", *training, "--lr", 0.1, "--out", "other", cwd=tmp_path, code=2)
    assert "--lr does not apply to a last layer on the features of tiny-dense" in refused.stderr
    lite = run(
        "train", "--data", "drawn", "--add-classes", "--weights", tiny_dense, "--out", "other", cwd=tmp_path, code=2
    )
    assert "tiny-dense has no stored features (features.safetensors), and drawn has no patches of" in lite.stderr
