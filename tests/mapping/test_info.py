from pathlib import Path

import numpy as np
import pytest

import geocfl
from geocfl.errors import ModelError, SceneError
from tests.noise import write_pixels


def write_scene(path: Path, dn: np.ndarray, bands) -> Path:
    return write_pixels(path, dn, bands, nodata=0)


def test_a_scene_in_facts(tmp_path: Path) -> None:
    dn = np.full((2, 100, 200), 2000, np.uint16)
    dn[:, :, :50] = 0
    facts = geocfl.info(write_scene(tmp_path / "S2_L1C.tif", dn, ("B04", "B8A")))
    assert facts["kind"] == "scene"
    assert facts["size_px"] == [200, 100]
    assert facts["gsd_m"] == 10
    assert facts["level"] == "L1C"
    assert facts["nodata"] == 0
    assert 0.2 < facts["nodata_share"] < 0.3
    assert facts["windows"] == {"stride 64": 8, "stride 32": 28, "stride 16": 91}
    assert facts["reflectance_p1_p50_p99"]["B8A"] == pytest.approx([0.2] * 3)
    assert "`offset=-1000`" in facts["warnings"][0]


def test_a_scene_without_known_bands(tmp_path: Path) -> None:
    facts = geocfl.info(write_scene(tmp_path / "s.tif", np.ones((1, 64, 64), np.uint16), None))
    assert facts["bands"] == {}


def test_a_scene_with_a_nodata_value_and_a_mask_of_the_users(tmp_path: Path) -> None:
    dn = np.full((2, 100, 200), 2000, np.uint16)
    dn[:, :, :50] = 7
    scene = write_scene(tmp_path / "s.tif", dn, ("B04", "B8A"))
    mask = write_scene(
        tmp_path / "mask.tif", np.repeat([0, 2, 8, 1], 25).astype(np.uint8)[None, :, None] + dn[:1] * 0, None
    )
    facts = geocfl.info(scene, nodata=7, mask=mask, mask_bits=(1, 3))
    assert facts["nodata"] == 7
    assert facts["nodata_share"] == 0.25
    assert facts["masked_share"] == 0.5
    assert geocfl.info(scene, mask=mask, mask_classes=(8,))["masked_share"] == 0.25


def test_a_model_in_facts(tiny_model: Path) -> None:
    facts = geocfl.info(tiny_model)
    assert facts["kind"] == "model"
    assert facts["bands"] == ["B04", "B03", "B02"]
    assert facts["classes"][10] == "Sea Lake"


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="has no files of Sentinel-2 bands"):
        geocfl.info(tmp_path)
    (tmp_path / "a.tif").write_bytes(b"")
    with pytest.raises(SceneError, match=r"use '.*/\*\.tif', in quotes, if each of its files is a scene"):
        geocfl.info(tmp_path)
    (tmp_path / "a.tif").unlink()
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=r"model\.json"):
        geocfl.info(tmp_path)


def test_a_misspelled_model_is_suggested() -> None:
    with pytest.raises(ModelError, match="eurosat-rgb-lite: no such model; did you mean 'eurosat-rgb-lite0'"):
        geocfl.info("eurosat-rgb-lite")
    with pytest.raises(SceneError, match=r"eurosat-rgb\.tif: no such file"):
        geocfl.info("eurosat-rgb.tif")
