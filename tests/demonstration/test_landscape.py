from pathlib import Path

import numpy as np
import pytest
import rasterio

from geocfl.core.legend import EUROSAT, NODATA
from geocfl.demonstration.landscape import (
    BANDS,
    CELL,
    SyntheticScene,
    cell_truth,
    write_synthetic_patches,
    write_synthetic_scene,
)
from geocfl.demonstration.surfaces import HIGHWAY, PASTURE, RIVER, SEA
from geocfl.errors import UsageError


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> SyntheticScene:
    folder = tmp_path_factory.mktemp("synthetic")
    return write_synthetic_scene(folder / "scene.tif", folder / "truth.tif")


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read()


def test_same_seed_same_bytes_other_seed_other_scene(tmp_path):
    def written(name: str, seed: int) -> tuple[bytes, bytes]:
        path, truth_path = tmp_path / f"{name}.tif", tmp_path / f"{name}_truth.tif"
        write_synthetic_scene(path, truth_path, size=192, seed=seed)
        return path.read_bytes(), truth_path.read_bytes()

    assert written("a", 3) == written("b", 3)
    assert written("c", 4)[0] != written("a", 3)[0]


def test_scene_has_the_metadata_of_sentinel_2(scene):
    with rasterio.open(scene.path) as file:
        assert file.dtypes == ("uint16",) * 4
        assert file.descriptions == BANDS
        assert (file.height, file.width) == (1024, 1280)
        assert file.crs.to_epsg() == 32632
        assert file.res == (10, 10)
        assert file.nodata == 0
        assert file.profile["tiled"]
        assert file.compression.value == "DEFLATE"


def test_truth_lies_on_the_scene_and_has_the_colors_of_the_legend(scene):
    with rasterio.open(scene.path) as image, rasterio.open(scene.truth_path) as truth:
        assert (truth.shape, truth.transform, truth.crs) == (image.shape, image.transform, image.crs)
        assert truth.dtypes == ("uint8",)
        assert truth.nodata == NODATA
        assert all(truth.colormap(1)[c.code][:3] == c.rgb for c in EUROSAT)


def test_edge_without_data_is_slanted_and_the_same_in_all_bands_and_in_the_truth(scene):
    missing = read(scene.path) == 0
    assert (missing == missing[0]).all()
    assert (missing[0] == (read(scene.truth_path)[0] == NODATA)).all()
    first = missing[0].argmax(axis=1)
    assert (np.diff(first) <= 0).all()
    assert first[0] > first[-1] + 50
    assert 0.02 < missing[0].mean() < 0.2


def test_reflectance_is_that_of_land_and_water_at_top_of_atmosphere(scene):
    red, _, blue, infrared = read(scene.path) / 10_000
    cover = read(scene.truth_path)[0]
    land = (cover != NODATA) & (cover != SEA) & (cover != RIVER)
    assert red[cover != NODATA].min() > 0
    assert red.max() < 0.4
    assert 0.07 < blue[cover == SEA].mean() < 0.1
    assert infrared[cover == SEA].mean() < 0.05
    assert infrared[land].mean() > 0.15
    ndvi = (infrared - red) / np.maximum(infrared + red, 1e-6)
    assert ndvi[cover == PASTURE].mean() > 0.6


@pytest.mark.parametrize("seed", [0, 1])
def test_every_class_decides_several_cells(tmp_path, scene, seed):
    if seed:
        scene = write_synthetic_scene(tmp_path / "scene.tif", tmp_path / "truth.tif", seed=seed)
    assert scene.truth.shape == scene.clear.shape == (16, 20)
    assert (np.bincount(scene.truth.ravel(), minlength=len(EUROSAT) + 1)[1:] >= 5).all()
    assert 0.6 < scene.clear.mean() < 0.95
    assert not scene.clear[scene.truth == NODATA].any()


def test_a_size_that_is_no_multiple_of_a_cell(tmp_path):
    scene = write_synthetic_scene(tmp_path / "scene.tif", tmp_path / "truth.tif", size=200)
    assert read(scene.path).shape == (4, 200, 250)
    assert scene.truth.shape == (4, 4)


def test_a_size_below_one_cell_is_refused(tmp_path):
    with pytest.raises(UsageError, match="64"):
        write_synthetic_scene(tmp_path / "scene.tif", tmp_path / "truth.tif", size=CELL - 1)


def test_cell_truth_follows_its_rules_in_order():
    def cell(*painted: tuple[int, int]) -> tuple[int, bool]:
        """Truth of a cell of pasture whose first rows are painted with (class, number of rows)."""
        land = np.full((CELL, CELL), PASTURE, np.uint8)
        top = 0
        for code, rows in painted:
            land[top : top + rows] = code
            top += rows
        truth, clear = cell_truth(land)
        return truth.item(), clear.item()

    assert cell() == (PASTURE, True)
    assert cell((SEA, 30)) == (PASTURE, False)
    assert cell((SEA, 40)) == (SEA, False)
    assert cell((SEA, 50)) == (SEA, True)
    assert cell((HIGHWAY, 2)) == (PASTURE, False)
    assert cell((HIGHWAY, 4)) == (HIGHWAY, False)
    assert cell((HIGHWAY, 5)) == (HIGHWAY, True)
    assert cell((RIVER, 8)) == (PASTURE, False)
    assert cell((RIVER, 10)) == (RIVER, False)
    assert cell((RIVER, 20)) == (RIVER, True)
    assert cell((RIVER, 20), (HIGHWAY, 5)) == (HIGHWAY, False)
    assert cell((NODATA, 32)) == (PASTURE, False)
    assert cell((NODATA, 33)) == (NODATA, False)
    assert cell((NODATA, 30), (HIGHWAY, 2)) == (HIGHWAY, False)


@pytest.mark.integration
def test_patches_are_cut_where_their_class_is_clear(tmp_path, scene):
    names = {"River": "Water", "SeaLake": "Water", "Forest": "Woodland"}
    count = write_synthetic_patches(tmp_path / "patches", names=names)
    files = sorted((tmp_path / "patches").glob("*/*.tif"))
    assert len(files) == count
    assert {file.parent.name for file in files} == {"Water", "Woodland"}
    expected = scene.clear & np.isin(scene.truth, [2, 9, 10])
    assert count == expected.sum()
    whole = read(scene.path)
    with rasterio.open(scene.path) as dataset:
        for file in files[:: len(files) // 5]:
            row, column = map(int, file.stem.split("_")[-2:])
            assert names[EUROSAT[int(scene.truth[row, column])].folder] == file.parent.name
            with rasterio.open(file) as patch:
                square = whole[:, row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]
                assert np.array_equal(patch.read(), square)
                assert patch.descriptions == BANDS
                assert patch.transform @ (0, 0) == dataset.transform @ (column * CELL, row * CELL)
    assert write_synthetic_patches(tmp_path / "all", seed=1) > 150
    assert {folder.name for folder in (tmp_path / "all").iterdir()} == {c.folder for c in EUROSAT}
