from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from geocfl.core.legend import EUROSAT
from geocfl.core.radiometry import EUROSAT_RGB
from geocfl.data.mosaics import TILES
from geocfl.data.patches import RGB, Patches
from geocfl.evaluation.logits import mosaic_logits, patch_logits
from geocfl.models.bundle import Bundle
from geocfl.models.reflectance import DenseReflectance


class Color(torch.nn.Module):
    """A network that tells patches by their color: one feature every 32 px, the mean of what lies there."""

    drop_rate = 0.0

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(x, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward_features(x).mean((2, 3))

    def get_classifier(self) -> torch.nn.Module:
        return torch.nn.Identity()


@pytest.fixture(scope="module")
def patches() -> Patches:
    colors = np.random.default_rng(0).integers(10, 250, (37, 3, 1, 1), np.uint8)
    pixels = np.broadcast_to(colors, (37, 3, 16, 16)).copy()
    return Patches(pixels, np.arange(37) * 7 % 10, tuple(map(str, range(37))), RGB, EUROSAT_RGB, EUROSAT, "test")


@pytest.fixture(scope="module")
def module(tiny_model) -> DenseReflectance:
    model = replace(Bundle.load(tiny_model), window=16, input_size=64, feature_stride=8)
    module = DenseReflectance(Color(), model)
    module.register_parameter("unused", torch.nn.Parameter(torch.zeros(1)))
    return module


@pytest.mark.parametrize("alike", [False, True])
@pytest.mark.parametrize("n", [1, 5, 16, 37])
def test_logits_follow_their_patches_out_of_the_mosaics(module, patches, n, alike):
    indices = np.random.default_rng(1).permutation(37)[:n]
    inside = mosaic_logits(module, patches, indices, alike=alike)
    # Bilinear scaling mixes the colors of neighbors within one pixel of their common edge: an eighth of the area.
    own, all_patches = patch_logits(module, patches, indices), patch_logits(module, patches, np.arange(37))
    assert inside.shape == own.shape
    assert torch.equal(torch.cdist(inside, all_patches).argmin(1), torch.from_numpy(indices))


def test_the_same_seed_gives_the_same_mosaics(module, patches):
    indices = np.arange(37)
    seen: list[torch.Tensor] = []

    def look(mosaic: torch.Tensor) -> torch.Tensor:
        seen.append(mosaic)
        return mosaic

    first = mosaic_logits(module, patches, indices, change=look)
    assert len(seen) == -(-37 // TILES)
    assert torch.equal(first, mosaic_logits(module, patches, indices))
    assert not torch.equal(first, mosaic_logits(module, patches, indices, seed=1))
    darker = mosaic_logits(module, patches, indices, change=lambda mosaic: 0 * mosaic)
    assert torch.allclose(darker, darker[:1].expand_as(darker))


def test_like_neighbors_share_a_mosaic(module, patches):
    classes: list[int] = []

    def count(mosaic: torch.Tensor) -> torch.Tensor:
        reflectance = torch.from_numpy(patches.reflectance(np.arange(37)))[:, :, 8, 8]
        tiles = mosaic[0, :, 8::16, 8::16].flatten(1).T
        classes.append(len(set(patches.labels[torch.cdist(tiles, reflectance).argmin(1).numpy()])))
        return mosaic

    mosaic_logits(module, patches, np.arange(37), alike=True, change=count)
    alike = sum(classes)
    classes.clear()
    mosaic_logits(module, patches, np.arange(37), change=count)
    assert alike < sum(classes)


def test_progress_ends_with_the_number_of_patches(module, patches):
    calls: list[tuple[int, int]] = []
    mosaic_logits(module, patches, np.arange(37), progress=lambda _, done, total, __: calls.append((done, total)))
    assert calls == [(16, 37), (32, 37), (37, 37)]
