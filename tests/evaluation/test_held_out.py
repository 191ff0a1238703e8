from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from geocfl.core.legend import EUROSAT
from geocfl.core.radiometry import EUROSAT_RGB
from geocfl.data.augmentation import Augmentation
from geocfl.data.patches import RGB, Patches
from geocfl.evaluation.held_out import augmented_scores, patch_features
from geocfl.evaluation.logits import patch_logits
from geocfl.models.bundle import Bundle
from geocfl.models.network import load_network
from geocfl.models.reflectance import DenseReflectance, Reflectance


@pytest.fixture(scope="module")
def patches() -> Patches:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 3, 64, 64), dtype=np.uint8)
    pixels //= np.arange(1, 41, dtype=np.uint8)[:, None, None, None]  # patches differ in brightness
    names = tuple(f"patch{i}" for i in range(40))
    return Patches(pixels, np.arange(40) * 7 % 10, names, RGB, EUROSAT_RGB, EUROSAT, "test")


@pytest.fixture(scope="module", params=["windowed", "dense"])
def module(request, tiny_model) -> Any:
    bundle = Bundle.load(tiny_model)
    return load_network(replace(bundle, input_size=64, feature_stride=32 if request.param == "dense" else 0))


def test_every_patch_is_classified_once_and_in_order(module, patches, monkeypatch):
    """Means of patches stand for their logits."""

    def means_of(_: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        means = x.mean((2, 3))
        return means, 2 * means[:, 0]

    for kind in (DenseReflectance, Reflectance):
        monkeypatch.setattr(kind, "scores", means_of)
    indices = np.arange(3, 22)[::-1].copy()
    means = torch.from_numpy(patches.reflectance(indices)).mean((2, 3))
    logits, residuals = augmented_scores(module, patches, indices, Augmentation(), 0)
    torch.testing.assert_close(logits, means, atol=1e-5, rtol=0)
    torch.testing.assert_close(residuals, 2 * means[:, 0], atol=1e-5, rtol=0)
    changed, _ = augmented_scores(module, patches, indices, Augmentation(gain=0.3), 0)
    assert ((changed - means).abs() > 1e-4).any(1).all()
    torch.testing.assert_close(augmented_scores(module, patches, indices, Augmentation(gain=0.3), 0)[0], changed)


def test_features_give_the_logits_of_the_same_patches(module, patches):
    indices = np.arange(16)[::-1].copy()
    features = patch_features(module, patches, indices)
    expected = patch_logits(module, patches, indices)
    with torch.inference_mode():
        torch.testing.assert_close(module.head(features), expected, atol=1e-3, rtol=0)
    assert patch_features(module, patches, np.arange(35)).shape == (35, 1280)
