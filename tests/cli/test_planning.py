import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from typer.main import get_command

from geocfl.cli import app
from tests.cli.program import run

COMMANDS: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]


@pytest.mark.integration
def test_plan_says_hours_and_bytes(scene: Path, tiny_model: Path, tmp_path: Path) -> None:
    options = ["--model", tiny_model, "--tiles", 20_000, "--machines", 10]
    done = run("plan", scene, *options, cwd=tmp_path)
    assert "20,000 scenes" in done.stdout
    assert "240,000" in done.stdout  # windows
    assert "10 machines" in done.stdout
    assert "The bottleneck is" in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert "--tiles" in run("plan", cwd=tmp_path, code=2).stderr


@pytest.mark.integration
def test_plan_takes_what_changes_the_cost_of_a_map(scene: Path, tiny_model: Path, tmp_path: Path) -> None:
    with rasterio.open(scene) as dataset:
        profile = dataset.profile | {"count": 1, "dtype": "uint8"}
    with rasterio.open(tmp_path / "clouds.tif", "w", **profile) as dataset:
        dataset.write(np.full((1, 130, 200), 3, np.uint8))
    options = ["--mask", "clouds.tif", "--mask-classes", "3,4", "--products", "all", "--min-confidence", 0.2]
    options += ["--min-area", 50, "--simplify", 10, "--model", tiny_model, "--json"]
    assert json.loads(run("plan", scene, *options, cwd=tmp_path).stdout)["windows"] == 0
    assert json.loads(run("plan", scene, *options, "--max-masked", 1, cwd=tmp_path).stdout)["windows"] == 12
    options = ["--stride", 16, "--smooth", "--smooth-keep", "Highway,River", "--model", tiny_model, "--json"]
    assert json.loads(run("plan", scene, *options, cwd=tmp_path).stdout)["windows"] == 9 * 13
    assert json.loads(run("plan", scene, *options, "--interpolate", cwd=tmp_path).stdout)["windows"] == 5 * 7


def test_options_mean_what_they_mean_to_map() -> None:
    planned, mapped = ({parameter.name: parameter for parameter in COMMANDS[name].params} for name in ("plan", "map"))
    own = {"scenes", "tiles", "machines", "read_rate", "allow_no_crs"}
    own |= {"dates", "cloud_share", "retry_share", "price_hour", "events"}
    assert planned.keys() - own <= mapped.keys()
    for name in planned.keys() - own:
        shown = [(each.opts, each.help, each.default, each.metavar) for each in (planned[name], mapped[name])]
        assert shown[0] == shown[1]
