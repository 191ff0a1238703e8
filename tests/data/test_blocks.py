from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import rasterio.warp
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from geocfl.core.legend import Legend
from geocfl.core.radiometry import SENTINEL2
from geocfl.data.blocks import MOST_FOLDS, RANDOM_FOLDS, georeferenced_blocks, make_folds, patch_blocks
from geocfl.data.manifest import LAYER, MANIFEST
from geocfl.data.patches import RGB, Patches, read_patches


def patches_of(labels: list[int]) -> Patches:
    legend = Legend.from_folders([f"Class{c}" for c in range(max(labels) + 1)])
    pixels = np.zeros((len(labels), 3, 2, 2), np.uint16)
    names = tuple(f"Class{c}/{i}.tif" for i, c in enumerate(labels))
    return Patches(pixels, np.array(labels), names, RGB, SENTINEL2, legend, "made up")


def write_at(path: Path, east: float, north: float, crs: str | None = "EPSG:32633") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    place = {"crs": crs, "transform": Affine(10, 0, east, 0, -10, north)} if crs else {}
    with rasterio.open(path, "w", driver="GTiff", height=64, width=64, count=3, dtype="uint16", **place) as dataset:
        dataset.write(np.full((3, 64, 64), 900, np.uint16))


@given(st.lists(st.integers(0, 30), min_size=4, max_size=60).filter(lambda blocks: len(set(blocks)) > 1))
def test_no_block_is_in_two_folds(blocks):
    numbers = np.array(blocks)
    patches = patches_of([i % 2 for i in range(len(blocks))])
    folds = make_folds(patches, np.arange(len(blocks)), numbers, seed=0)
    assert folds.of.max() < MOST_FOLDS
    for block in np.unique(numbers):
        spread = [c in [code - 1 for code in folds.confined] for c in patches.labels]
        assert len(np.unique(folds.of[(numbers == block) & ~np.array(spread)])) <= 1


@pytest.mark.parametrize("count", [3, 10, 25])
def test_what_the_folds_are_is_said(count):
    patches = patches_of([0, 1] * 40)
    folds = make_folds(patches, np.arange(80), np.arange(80) // 2 % count, seed=0)
    assert folds.words == (
        f"leave-one-block-out over {count} blocks" if count <= MOST_FOLDS else "10 folds of 25 blocks"
    )
    assert len(np.unique(folds.of)) == min(count, MOST_FOLDS)


def test_a_class_in_one_block_is_dealt_out_at_random():
    patches = patches_of([0] * 6 + [1] * 6)
    folds = make_folds(patches, np.arange(12), np.array([0, 0, 1, 1, 2, 2] + [1] * 6), seed=0)
    assert folds.confined == (2,)
    assert set(folds.of[6:]) == {0, 1, 2}


def test_patches_without_a_place_are_dealt_out_within_each_class():
    patches = patches_of([0] * 10 + [1] * 5)
    folds = make_folds(patches, np.arange(15), None, seed=3)
    assert sorted(folds.of[:10]) == sorted(list(range(RANDOM_FOLDS)) * 2)
    assert sorted(folds.of[10:]) == list(range(RANDOM_FOLDS))
    assert "not known" in folds.words


def test_blocks_are_squares_of_land(tmp_path: Path):
    for i, (east, north) in enumerate([(300_000, 5_000_000), (300_300, 5_000_200), (340_000, 5_000_000)]):
        write_at(tmp_path / "A" / f"{i}.tif", east, north)
        write_at(tmp_path / "B" / f"{i}.tif", east, north - 64_000)
    patches = read_patches(tmp_path, RGB)
    blocks = georeferenced_blocks(tmp_path, patches)
    assert blocks is not None
    assert blocks[0] == blocks[1] != blocks[2]
    assert len({blocks[0], blocks[2], blocks[3], blocks[5]}) == 4


def test_land_in_two_zones_is_one(tmp_path: Path):
    """The same place in two projections is the same block."""
    write_at(tmp_path / "A/1.tif", 500_000, 5_000_000)
    (east,), (north,) = rasterio.warp.transform("EPSG:32633", "EPSG:32634", [500_000], [5_000_000])
    write_at(tmp_path / "B/1.tif", east, north, crs="EPSG:32634")
    write_at(tmp_path / "B/2.tif", 560_000, 5_000_000)
    patches = read_patches(tmp_path, RGB)
    blocks = georeferenced_blocks(tmp_path, patches)
    assert blocks is not None
    assert blocks[0] != blocks[2]
    assert blocks[0] == blocks[1]


def test_blocks_grow_until_there_are_few(tmp_path: Path):
    for i in range(24):
        write_at(tmp_path / "AB"[i % 2] / f"{i}.tif", 300_000 + 3_000 * i, 5_000_000)
    blocks = georeferenced_blocks(tmp_path, read_patches(tmp_path, RGB))
    assert blocks is not None
    assert 2 <= blocks.max() + 1 <= MOST_FOLDS


def test_pictures_and_files_without_a_place_have_no_blocks(tmp_path: Path, write_patches: Callable[..., Path]):
    pictures = write_patches(tmp_path / "pictures", each=2)
    assert georeferenced_blocks(pictures, read_patches(pictures, RGB)) is None
    for name in "AB":
        write_at(tmp_path / "plain" / name / "1.tif", 0, 0, crs=None)
    assert georeferenced_blocks(tmp_path / "plain", read_patches(tmp_path / "plain", RGB)) is None


def test_the_blocks_of_a_manifest_come_first(tmp_path: Path):
    for i in range(4):
        write_at(tmp_path / "AB"[i % 2] / f"{i}.tif", 300_000 + 50_000 * i, 5_000_000)
    patches = read_patches(tmp_path, RGB)
    table = gpd.GeoDataFrame(
        {"patch": patches.names, "block": ["1 1", "1 1", "2 7", "1 1"], "split": None},
        geometry=gpd.points_from_xy([0] * 4, [0] * 4),
        crs="EPSG:4326",
    )
    table.to_file(tmp_path / MANIFEST, layer=LAYER)
    blocks = patch_blocks(tmp_path, patches)
    assert blocks is not None
    assert blocks.tolist() == [0, 0, 1, 0]
    table.iloc[1:].to_file(tmp_path / MANIFEST, layer=LAYER)
    blocks = patch_blocks(tmp_path, patches)
    assert blocks is not None
    assert blocks.max() > 1, "one is not in the manifest"
