"""Clouds, found by the real network where it is installed."""

import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

import geocfl
from geocfl.errors import OutputError, SceneError, UsageError
from geocfl.scenes import clouds

BANDS = ("B02", "B03", "B04", "B08")


def write(path: Path, dn: np.ndarray, bands: tuple[str, ...] = BANDS) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", height=dn.shape[1], width=dn.shape[2], count=len(dn), dtype="uint16",
        crs="EPSG:32633", transform=Affine(10, 0, 3e5, 0, -10, 5e6),
    ) as dataset:  # fmt: skip
        dataset.write(dn)
        dataset.descriptions = bands
    return path


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """In place of the network, one whose answer is known: bright is cloud, dark shadow; and what it was asked."""
    asked: list[tuple] = []

    class Known:
        def __init__(self, img, band_order, product_level, invalid_buffer):
            asked.append((img.shape, img.dtype, band_order, product_level, invalid_buffer))
            red = img[..., band_order.index("red")]
            self.csm = np.where(red > 0.5, 1, np.where((red < 0.01) & (red > 0), 2, 0)).astype(np.uint8)[..., None]
            self.valid = (self.csm == 0).astype(np.uint8)

    package = pytest.importorskip("ukis_csmask.mask", reason="ukis-csmask is not installed")
    monkeypatch.setattr(package, "CSmask", Known)
    return asked


def test_a_mask_lies_over_its_scene(tmp_path: Path, network: list[tuple], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clouds, "ROWS", 20)  # several strips
    monkeypatch.setattr(clouds, "MARGIN", 6)
    dn = np.full((4, 300, 240), 1000, np.uint16)
    dn[:, 90:150, 60:120] = 6000
    dn[:, 180:210, 60:120] = 50
    dn[:, :, 210:] = 0
    scene = write(tmp_path / "S2_L1C_20190416.tif", dn)
    out = geocfl.find_clouds(scene, tmp_path / "masks/clouds.tif", buffer=3)
    with rasterio.open(out) as dataset:
        assert dataset.transform == Affine(30, 0, 3e5, 0, -30, 5e6)
        found = dataset.read(1)
    expected = np.zeros((100, 80), np.uint8)
    expected[30:50, 20:40] = 1
    expected[60:70, 20:40] = 2
    assert (found == expected).mean() > 0.99  # pixels of 30 m across an edge are averages
    assert (found[:, 70:] == 0).all()
    shape, dtype, order, level, buffer = network[1]
    assert shape == (32, 80, 4)
    assert (dtype, order, level, buffer) == (np.float32, ["blue", "green", "red", "nir"], "l1c", 3)
    with pytest.raises(OutputError, match="`overwrite=True`"):
        geocfl.find_clouds(scene, out)
    with pytest.raises(UsageError, match=r"`out` is clouds\.png but must end in \.tif"):
        geocfl.find_clouds(scene, "clouds.png")


def test_a_scene_without_the_bands(tmp_path: Path, network: list[tuple]) -> None:
    scene = write(tmp_path / "s.tif", np.ones((3, 300, 300), np.uint16), BANDS[:3])
    with pytest.raises(SceneError, match=r"s\.tif: B02, B03, B04, B08 are needed"):
        geocfl.find_clouds(scene, tmp_path / "clouds.tif")
    assert not (tmp_path / "clouds.tif").exists()


def test_without_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ukis_csmask.mask", None)
    with pytest.raises(UsageError, match="pip install ukis-csmask onnxruntime"):
        geocfl.find_clouds(tmp_path / "s.tif", tmp_path / "clouds.tif")


@pytest.mark.shared
def test_the_real_network_finds_the_clouds_over_the_dolomites(shared_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("ukis_csmask.mask", reason="ukis-csmask is not installed")
    scene = shared_data / "scenes/S2_L2A_202206_dolomites_B04B03B02B08.tif"
    with rasterio.open(geocfl.find_clouds(scene, tmp_path / "clouds.tif", offset=-1000)) as dataset:
        found = dataset.read(1)
    assert (found[:70, 250:310] == 1).mean() > 0.1  # the largest cloud, in the north-east
    assert (found[80:180, 60:240] != 0).mean() < 0.01  # bare rock is as bright
