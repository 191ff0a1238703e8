import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

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
