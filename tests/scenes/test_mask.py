"""Masks of clouds, laid over scenes."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from geocfl.errors import SceneError, UsageError
from geocfl.scenes import Reading, open_scene
from geocfl.scenes.mask import Mask
from geocfl.scenes.source import Band, Source


def write(path: Path, values: np.ndarray, size: int = 10, crs: str | None = "EPSG:32633") -> str:
    with rasterio.open(
        path, "w", driver="GTiff", height=values.shape[0], width=values.shape[1], count=1, dtype=values.dtype, crs=crs,
        transform=Affine(size, 0, 3e5, 0, -size, 5e6),
    ) as dataset:  # fmt: skip
        dataset.write(values, 1)
    return str(path)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    band = Band(write(tmp_path / "B04.tif", np.full((128, 192), 900, np.uint16)))
    classes = np.repeat(np.arange(12, dtype=np.uint8), 8)[None, :].repeat(64, axis=0)  # 16 columns of 10 m each
    return Source("scene", "scene", {"B04": band}, scl=Band(write(tmp_path / "SCL.tif", classes, size=20)))


def masked(source: Source, **options: str) -> np.ndarray:
    with open_scene(source, Reading(**options), needed=("B04",), gsd=10) as scene:
        return np.isnan(scene.read(("B04",), 0, 128)[0])


def test_clouds_and_shadows_of_the_products_own_classification(source: Source) -> None:
    by_class = masked(source, mask="scl")[:, 8::16]
    assert np.flatnonzero(by_class.all(axis=0)).tolist() == [1, 3, 8, 9, 10]
    assert np.flatnonzero(by_class.any(axis=0)).tolist() == [1, 3, 8, 9, 10]


def test_other_classes_count_if_asked_for(source: Source) -> None:
    assert np.flatnonzero(masked(source, mask="scl", mask_classes=(6, 11))[0, 8::16]).tolist() == [6, 11]


def test_a_mask_of_the_users_own_on_another_grid(source: Source, tmp_path: Path) -> None:
    values = np.zeros((10, 20), np.uint8)
    values[:, :3] = 200  # 30 m each: 90 m, and the mask ends after 300 m
    path = write(tmp_path / "clouds.tif", values, size=30)
    found = masked(source, mask=path)
    assert found[:30, :9].all()
    assert not found[:, 9:].any()
    assert not found[30:].any()
    assert not masked(source, mask=path, mask_classes=[7]).any()


def test_no_mask_masks_nothing(source: Source) -> None:
    assert not masked(source).any()


def test_what_cannot_be_a_mask(source: Source, tmp_path: Path) -> None:
    bare = Source("scene", "scene", source.bands)
    with pytest.raises(SceneError, match=r"scene: has no scene classification layer.*`mask`"):
        masked(bare, mask="scl")
    with pytest.raises(SceneError, match=r"nothing\.tif: the mask does not exist; correct `mask`"):
        masked(source, mask=str(tmp_path / "nothing.tif"))
    nowhere = write(tmp_path / "nowhere.tif", np.zeros((9, 9), np.uint8), crs=None)
    with pytest.raises(SceneError, match=r"nowhere\.tif: the mask has no coordinate reference system"):
        masked(source, mask=nowhere)
    with pytest.raises(UsageError, match="`mask_classes` is 'x'"):
        masked(source, mask="scl", mask_classes="x")


@pytest.mark.parametrize(("path", "transient"), [("/vsicurl/http://127.0.0.1:9/m.tif", True), ("m.tif", False)])
def test_a_server_that_fails_while_a_mask_is_read_may_recover(
    path: str, transient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise rasterio.RasterioIOError("HTTP response code: 503")

    raster: Any = SimpleNamespace(name=path, read=fail)
    extent: Any = SimpleNamespace(window=lambda start, stop: None)
    with pytest.raises(SceneError) as caught:
        Mask(None, frozenset(), raster, raster).read(extent, 0, 1)
    assert caught.value.transient is transient
