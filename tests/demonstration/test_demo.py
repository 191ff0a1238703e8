import json
from pathlib import Path

import pytest
import rasterio

import geocfl
from geocfl.errors import OutputError, UsageError


@pytest.fixture(scope="module")
def demonstration(tmp_path_factory: pytest.TempPathFactory):
    return geocfl.demo(tmp_path_factory.mktemp("demo"))


def test_the_default_model_agrees_with_the_truth(demonstration) -> None:
    assert demonstration.cells > 200
    assert demonstration.agreement >= 0.75
    assert demonstration.clear_agreement >= 0.85
    assert demonstration.clear_agreement >= demonstration.agreement


def test_truth_and_map_lie_beside_the_scene(demonstration) -> None:
    with rasterio.open(demonstration.scene) as scene, rasterio.open(demonstration.truth) as truth:
        assert scene.shape == truth.shape
        assert scene.crs == truth.crs
    assert json.loads(demonstration.result.paths["summary"].read_text())["scene"]["file"] == "demo_scene.tif"


def test_again_is_quick_and_the_same(demonstration) -> None:
    again = geocfl.demo(demonstration.scene.parent)
    assert again.result.already_done
    assert again.agreement == demonstration.agreement
    assert not list(demonstration.scene.parent.glob(".*"))


def test_another_scene_is_not_overwritten_unasked(demonstration) -> None:
    before = demonstration.scene.read_bytes()
    with pytest.raises(OutputError, match="`overwrite=True`"):
        geocfl.demo(demonstration.scene.parent, seed=1)
    assert demonstration.scene.read_bytes() == before


def test_a_negative_seed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="`seed` is -1 but must be a whole number"):
        geocfl.demo(tmp_path / "out", seed=-1)
    assert not (tmp_path / "out").exists()


def test_an_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    with pytest.raises(OutputError, match="another folder"):
        geocfl.demo(tmp_path / "file" / "demo")
