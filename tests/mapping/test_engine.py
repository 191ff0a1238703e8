"""The pipeline with a classifier whose answer is known: the mean of a window's first band."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from geocfl.errors import SceneError
from geocfl.grid import CellGrid
from geocfl.mapping import engine, strips
from geocfl.mapping.engine import classify_scene
from geocfl.scene import open_scene

TRANSFORM = Affine(10, 0, 3e5, 0, -10, 5e6)


def brightness(windows: np.ndarray) -> np.ndarray:
    """Class 1..4 by mean reflectance in quarters of 0..1, with probability 0.7."""
    level = np.clip((4 * np.nanmean(windows[:, 0], axis=(1, 2))).astype(int), 0, 3)
    return np.where(np.arange(4) == level[:, None], 0.7, 0.1).astype(np.float32)


def scene_file(path: Path, dn: np.ndarray) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", height=dn.shape[0], width=dn.shape[1], count=1, dtype="uint16", crs="EPSG:32633",
        transform=TRANSFORM, nodata=0, compress="deflate",
    ) as dataset:  # fmt: skip
        dataset.write(dn, 1)
        dataset.descriptions = ("B04",)
    return path


def run(path: Path, stride: int, out: Path, batch_size: int = 7, classify=brightness):
    with open_scene(path) as scene:
        grid = CellGrid(scene.height, scene.width, stride, 64, scene.transform, scene.crs)
        result = classify_scene(scene, ("B04",), grid, classify, batch_size, out)
    with rasterio.open(result.cells) as dataset:
        return result, dataset.read(1), dataset.read(2)


def test_cells_get_their_windows_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    levels = np.array([[1, 2, 3], [4, 3, 2]])
    dn = np.kron(levels * 2500 - 1250, np.ones((64, 64))).astype(np.uint16)
    monkeypatch.setattr(strips, "STRIP_PIXELS", 1)  # one row of cells a strip
    result, codes, confidence = run(scene_file(tmp_path / "s.tif", dn), 64, tmp_path / "c.tif")
    np.testing.assert_array_equal(codes, levels)
    assert (confidence == 70).all()
    assert result.windows == 6


def test_strips_and_batches_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dn = np.random.default_rng(0).integers(1, 10_000, (40, 50)).repeat(5, axis=0).repeat(5, axis=1).astype(np.uint16)
    path = scene_file(tmp_path / "s.tif", dn)
    _, whole, _ = run(path, 16, tmp_path / "a.tif", batch_size=10_000)
    monkeypatch.setattr(strips, "STRIP_PIXELS", 20_000)
    first, pieces, _ = run(path, 16, tmp_path / "b.tif", batch_size=3)
    np.testing.assert_array_equal(whole, pieces)
    np.testing.assert_allclose(first.thumbnail[0], dn / 10_000, rtol=1e-6)


def test_the_thumbnail_is_bounded_and_aligned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "THUMBNAIL_PIXELS", 50)
    monkeypatch.setattr(strips, "STRIP_PIXELS", 1)
    dn = np.random.default_rng(0).integers(1, 10_000, (200, 170), dtype=np.uint16)
    result, *_ = run(scene_file(tmp_path / "s.tif", dn), 10, tmp_path / "c.tif")
    np.testing.assert_allclose(result.thumbnail[0], dn[::4, ::4] / 10_000, rtol=1e-6)


def test_windows_without_data_never_reach_the_classifier(tmp_path: Path) -> None:
    dn = np.full((128, 192), 5000, np.uint16)
    dn[:, 60:] = 0
    seen = []

    def counting(windows: np.ndarray) -> np.ndarray:
        seen.append(len(windows))
        return brightness(windows)

    result, codes, confidence = run(scene_file(tmp_path / "s.tif", dn), 64, tmp_path / "c.tif", classify=counting)
    assert sum(seen) == result.windows == 2
    np.testing.assert_array_equal(codes, [[3, 0, 0], [3, 0, 0]])
    np.testing.assert_array_equal(confidence == 255, codes == 0)


def test_broken_pixels_end_in_one_sentence(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(1, 60_000, (300, 300)).astype(np.uint16)
    path = scene_file(tmp_path / "s.tif", noise)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :] = b"\xff" * (len(content) - len(content) // 2)
    path.write_bytes(content)
    with pytest.raises(SceneError, match=r"s\.tif"):
        run(path, 64, tmp_path / "c.tif")
