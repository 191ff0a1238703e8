import json
from pathlib import Path

import pytest

from geocfl.cli.models import _lines
from tests.cli.program import run


@pytest.mark.integration
def test_info_of_a_scene_and_of_a_model(scene: Path, tiny_model: Path, tmp_path: Path) -> None:
    text = run("info", scene, cwd=tmp_path).stdout
    assert "EPSG:32633" in text
    facts = json.loads(run("info", scene, "--json", cwd=tmp_path).stdout)
    assert facts["bands"] == {"B04": 1, "B03": 2, "B02": 3}
    assert facts["windows"]["stride 64"] == 12
    assert "Annual Crop" in run("info", tiny_model, cwd=tmp_path).stdout


def test_what_a_scene_does_not_say_is_a_dash() -> None:
    lines = _lines({"taken": None, "tags": {}, "names": [], "offset": 0, "bands": {"B04": None}})
    assert [line.split() for line in lines] == [
        ["taken", "-"],
        ["tags", "-"],
        ["names", "-"],
        ["offset", "0"],
        ["bands"],
        ["B04", "-"],
    ]


@pytest.mark.integration
def test_a_model_is_described_for_catalogs(tmp_path: Path) -> None:
    done = run("export", "eurosat-rgb-lite0", "--format", "stac-mlm", cwd=tmp_path)
    item = json.loads((tmp_path / done.stdout.splitlines()[0]).read_text())
    assert item["properties"]["mlm:name"] == "eurosat-rgb-lite0"
