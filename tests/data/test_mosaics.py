from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geocfl.core.legend import EUROSAT
from geocfl.core.radiometry import EUROSAT_RGB
from geocfl.data.augmentation import Augmentation
from geocfl.data.mosaics import BLOCKS, GROUP, PATCHES, SIDE, TILES, arrange, assemble, groups, mosaic_batches
from geocfl.data.patches import RGB, Patches
from geocfl.data.placed import place
from geocfl.training.recipe import DENSE

BUSY = replace(DENSE["augmentation"], blur=1.0)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batches_of(patches: Patches, *how: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    return mosaic_batches(place(patches, torch.device("cpu")), *how)


@pytest.fixture(scope="module")
def patches() -> Patches:
    """40 patches of 8 x 8 px; all pixels of patch i are 2 * i + 1."""
    pixels = np.broadcast_to((2 * np.arange(40, dtype=np.uint8) + 1)[:, None, None, None], (40, 3, 8, 8)).copy()
    names = tuple(f"patch{i}" for i in range(40))
    return Patches(pixels, np.arange(40) * 7 % 10, names, RGB, EUROSAT_RGB, EUROSAT, "test")


def test_patches_lie_row_by_row_and_keep_their_pixels():
    tiles = torch.rand(2 * 9, 3, 5, 4, generator=rng())
    mosaics = assemble(tiles, side=3)
    assert mosaics.shape == (2, 3, 15, 12)
    for m in range(2):
        for row in range(3):
            for column in range(3):
                cut = mosaics[m, :, 5 * row : 5 * row + 5, 4 * column : 4 * column + 4]
                assert torch.equal(cut, tiles[9 * m + 3 * row + column])


@given(n=st.integers(1, 200), seed=st.integers(0, 2**32))
def test_every_patch_is_used_and_none_more_often_than_needed(n, seed):
    labels = np.random.default_rng(seed).integers(0, 10, 300)
    indices = np.random.default_rng(seed).permutation(300)[:n]
    drawn = list(arrange(labels, indices, rng(seed)))
    assert len(drawn) == groups(n) == -(-n // PATCHES), "the last group is filled up"
    for number, mosaics in enumerate(drawn):
        assert [len(mosaic) * block**2 for mosaic, block in zip(mosaics, BLOCKS, strict=True)] == [TILES] * len(BLOCKS)
        if number % 2:
            assert (np.diff(labels[mosaics[0]]) >= 0).all(), "every other mosaic of small blocks is sorted by class"
    used, counts = np.unique(np.concatenate([np.concatenate(mosaics) for mosaics in drawn]), return_counts=True)
    assert np.array_equal(used, np.sort(indices))
    assert counts.max() - counts.min() <= 1


def test_labels_follow_their_patches(patches):
    indices = np.arange(3, 40)
    seen = []
    for mosaics, labels in batches_of(patches, indices, Augmentation(), 2 * GROUP, rng()):
        assert mosaics.shape == (8, 3, SIDE * 8, SIDE * 8), "37 patches fill two groups"
        assert mosaics.dtype == torch.float32
        assert labels.dtype == torch.int64
        values = mosaics[:, 0, 4::8, 4::8].flatten()
        stored = values.numpy() * EUROSAT_RGB.scale - EUROSAT_RGB.offset
        numbers = ((stored - 1) / 2).round().astype(int)
        assert np.array_equal(patches.labels[numbers], labels.numpy())
        seen += numbers.tolist()
    assert set(seen) == set(indices)


def test_the_last_batch_may_be_smaller(patches):
    sizes = [len(labels) for _, labels in batches_of(patches, np.arange(40), Augmentation(), 3 * GROUP, rng())]
    assert sizes == [2 * GROUP]


def test_land_continues_beyond_the_windows_of_a_large_block(patches):
    """A patch that is a ramp, mirrored again and again, has no jump anywhere."""
    ramp = np.arange(8, dtype=np.uint8) * 20
    ramps = replace(patches, pixels=np.broadcast_to(ramp, patches.pixels.shape).copy())
    (mosaics, _), *_ = batches_of(ramps, np.arange(40), Augmentation(), GROUP, rng())
    step = 20 / EUROSAT_RGB.scale
    jumps = [float(mosaic.diff(dim=2).abs().max()) / step for mosaic in mosaics]
    assert jumps[3] < 1.3, "one block: at most the ramp's own step"
    assert jumps[0] > 5, "an edge at every patch"


def test_mosaics_depend_only_on_the_generator(patches):
    def epoch(seed: int) -> list[torch.Tensor]:
        return [part for batch in batches_of(patches, np.arange(40), BUSY, GROUP, rng(seed)) for part in batch]

    torch.manual_seed(1)
    first = epoch(5)
    torch.manual_seed(2)
    assert all(map(torch.equal, first, epoch(5)))
    assert not all(map(torch.equal, first, epoch(6)))


def test_a_mosaic_has_one_atmosphere_and_its_patches_have_their_own_contrast(patches):
    one_color = replace(patches, pixels=np.full_like(patches.pixels, 100))
    hazy = Augmentation(gain=0.1, haze=0.01, veil=0.5)
    (mosaics, _), *_ = batches_of(one_color, np.arange(32), hazy, GROUP, rng())
    values = mosaics.flatten(2)
    torch.testing.assert_close(values, values[:, :, :1].expand_as(values))
    assert not torch.allclose(mosaics[0, :, 0, 0], mosaics[1, :, 0, 0], atol=1e-3)
    striped = patches.pixels.copy()
    striped[...] = 100
    striped[..., ::2] = 50
    (mosaics, _), *_ = batches_of(
        replace(patches, pixels=striped), np.arange(16), Augmentation(flatten=1.0), GROUP, rng()
    )
    contrast = mosaics[0, 0].unfold(0, 8, 8).unfold(1, 8, 8).flatten(2).std(2)
    full = (EUROSAT_RGB.to_reflectance(np.array(100)) - EUROSAT_RGB.to_reflectance(np.array(50))) / 2
    assert float(contrast.max()) == pytest.approx(float(full), rel=0.02)
    assert float(contrast.min()) < 0.7 * float(contrast.max())
