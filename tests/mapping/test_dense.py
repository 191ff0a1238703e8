"""Maps of a dense model: the same in any strip and back end, without zero padding, and without what lies in gaps."""

from pathlib import Path

import numpy as np
import pytest
import rasterio

import geocfl
from geocfl.errors import UsageError
from geocfl.mapping import classifier
from geocfl.mapping.memory import choose_cell_rows
from geocfl.models.backends import jobs


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene of 300 x 236 px with structure at all scales, and a gap."""
    rng = np.random.default_rng(0)
    rough = [
        np.kron(rng.random((3, 1 + 300 // side, 1 + 240 // side)), np.ones((side, side))) for side in (60, 20, 4, 1)
    ]
    dn = sum(layer[:, :300, :236] for layer in rough) / len(rough)
    dn = (300 + 2200 * dn).astype(np.uint16)
    dn[:, 120:170, 90:130] = 0
    path = tmp_path_factory.mktemp("scene") / "scene.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=300, width=236, count=3, dtype="uint16", nodata=0, crs="EPSG:32633",
        transform=rasterio.Affine(10, 0, 3e5, 0, -10, 5e6), tiled=True, blockxsize=64, blockysize=64,
    ) as dataset:  # fmt: skip
        dataset.write(dn)
        dataset.descriptions = ("B04", "B03", "B02")
    return path


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four tiles in the scene, which are quick to compute."""
    monkeypatch.setattr(jobs, "TILE", 192)


def mapped(scene: Path, out: Path, model: Path, **options) -> geocfl.SceneMap:
    how = {"backend": "torch", "precision": "float32", "products": ("default", "probabilities"), "vector": ()}
    return geocfl.map_scene(scene, out, model=model, **{**how, **options})


@pytest.mark.integration
@pytest.mark.parametrize("stride", [16, 64])
def test_strip_height_changes_nothing(
    scene: Path, tiny_dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stride: int
) -> None:
    monkeypatch.setattr(jobs, "TILE", 64)  # five rows of tiles
    heights = []

    def rows(units: int):
        def choose(*arguments) -> int:
            heights.append(units * arguments[-1])
            return heights[-1]

        return choose

    monkeypatch.setattr(classifier, "choose_cell_rows", rows(1))
    one = mapped(scene, tmp_path / "one", tiny_dense, stride=stride)
    for units in (2, 5) if stride == 64 else (5,):
        monkeypatch.setattr(classifier, "choose_cell_rows", rows(units))
        other = mapped(scene, tmp_path / str(units), tiny_dense, stride=stride)
        for name in ("lulc", "confidence", "probabilities"):
            with rasterio.open(one.paths[name]) as a, rasterio.open(other.paths[name]) as b:
                np.testing.assert_array_equal(a.read(), b.read())
    assert heights == ([1, 2, 5] if stride == 64 else [4, 20])
    assert len(np.unique(one.lulc)) > 1, "a map of one class would prove nothing"


def test_strips_hold_whole_tiles(tiny_dense: Path) -> None:
    from affine import Affine
    from rasterio.crs import CRS

    from geocfl.core.grid import CellGrid

    grid = CellGrid(5000, 5000, 16, 64, Affine(10, 0, 3e5, 0, -10, 5e6), CRS.from_epsg(32633), context=16)
    assert choose_cell_rows(grid, 3, 2, 64, 10**9, 48) == 48
    with pytest.raises(UsageError, match="too little for a scene"):
        choose_cell_rows(grid, 3, 2, 64, 10**6, 48)


@pytest.mark.integration
@pytest.mark.extra("onnx", "openvino")
def test_back_ends_agree(scene: Path, tiny_dense: Path) -> None:
    model = geocfl.load_model(tiny_dense)
    with rasterio.open(scene) as dataset:
        image = np.where(dataset.read() == 0, np.nan, dataset.read() / 10_000).astype(np.float32)
    windows = np.stack([image[:, y : y + 64, x : x + 64] for y in (0, 100, 230) for x in (0, 60, 172)])
    for given, how in ((image, {"stride": 16}), (image, {"stride": 64}), (windows, {})):
        torch = model.predict(given, backend="torch", device="cpu", precision="float32", **how)
        for name in ("onnx", "openvino"):
            other = model.predict(given, backend=name, precision="float32", **how)
            np.testing.assert_allclose(other.probabilities, torch.probabilities, atol=5e-4)


def test_images_and_scenes_agree(scene: Path, tiny_dense: Path, tmp_path: Path) -> None:
    with rasterio.open(scene) as dataset:
        image = np.where(dataset.read() == 0, np.nan, dataset.read() / 10_000).astype(np.float32)
    predicted = geocfl.load_model(tiny_dense).predict(
        image, stride=32, backend="torch", device="cpu", precision="float32"
    )
    assert (predicted.codes == mapped(scene, tmp_path, tiny_dense, stride=32).lulc).all()


@pytest.mark.integration
def test_a_window_is_read_from_the_features_in_it(tiny_dense: Path) -> None:
    """Far from a change, the class does not depend on it; nor on where the tile begins."""
    import torch

    network = geocfl.load_model(tiny_dense).network()
    image = torch.from_numpy(np.random.default_rng(1).uniform(0, 0.2, (1, 3, 640, 640)).astype(np.float32))
    changed = image.clone()
    changed[..., 512:] = 0.27
    with torch.inference_mode():
        before, after = (network.window_scores(x)[0] for x in (image, changed))
    assert torch.equal(before[0, :, 0], after[0, :, 0]), "over 400 px away"
    assert not torch.equal(before[0, :, 29], after[0, :, 29])


def test_edges_are_mirrored(scene: Path, tiny_dense: Path) -> None:
    """The first cell of an image is that of the image with its mirror image around it."""
    model = geocfl.load_model(tiny_dense)
    with rasterio.open(scene) as dataset:
        image = (dataset.read(window=((0, 112), (0, 80))) / 10_000).astype(np.float32)
    around = np.pad(image, ((0, 0), (16, 16), (16, 16)), mode="reflect")
    how = {"backend": "torch", "device": "cpu", "precision": "float32"}
    import torch

    with torch.inference_mode():
        logits, _ = model.network().window_scores(torch.from_numpy(around[None, :, :96, :96]))
    expected = torch.softmax(logits[0, 1, 1] / model.temperature, 0).numpy()
    np.testing.assert_allclose(model.predict(image[None, :, :64, :64], **how).probabilities[0], expected, atol=1e-6)
    cells = model.predict(image[:, :64, :64], stride=64, **how).probabilities
    np.testing.assert_allclose(cells[0, 0], expected, atol=1e-6)


def test_other_strides_are_refused(scene: Path, tiny_dense: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="maps strides 16, 32, 48, 64; use one of them"):
        mapped(scene, tmp_path / "out", tiny_dense, stride=20)
    with pytest.raises(UsageError, match="maps strides 16, 32, 48, 64"):
        geocfl.load_model(tiny_dense).predict(np.zeros((3, 64, 64), np.float32), stride=1)
    assert not (tmp_path / "out").exists()


def test_gaps_are_filled_from_around_them(scene: Path, tiny_dense: Path, tmp_path: Path) -> None:
    lulc = mapped(scene, tmp_path, tiny_dense, stride=16).lulc
    assert (lulc == 0).sum() == 6, "cells with data in less than half of their pixels"
    assert lulc.shape == (19, 15)
