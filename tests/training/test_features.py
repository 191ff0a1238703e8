from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from geocfl.core.files import cache_folder
from geocfl.core.legend import EUROSAT
from geocfl.core.radiometry import EUROSAT_RGB
from geocfl.data.patches import RGB, Patches
from geocfl.models.backbones import build_network
from geocfl.models.reflectance import Reflectance
from geocfl.training.features import read_features


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GEOCFL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/features"


@pytest.fixture
def patches() -> Patches:
    pixels = np.random.default_rng(0).integers(0, 255, (5, 3, 64, 64)).astype(np.uint8)
    return Patches(pixels, np.arange(5), tuple("abcde"), RGB, EUROSAT_RGB, EUROSAT, "made up")


def module(seed: int = 0, backbone: str = "resnet18", **options: object) -> Reflectance:
    torch.manual_seed(seed)
    network = build_network(backbone, 3, 10, **options)
    return Reflectance(network, (0.0, 0.275), (0.1,) * 3, (0.05,) * 3, 32).eval()


@pytest.mark.parametrize("backbone", ["resnet18", "lite0"])
def test_the_head_makes_the_networks_logits_of_them(backbone, cache, patches):
    network = module(backbone=backbone)
    features = read_features(network, patches, batch_size=2)
    x = torch.from_numpy(patches.reflectance(np.arange(5)))
    with torch.inference_mode():
        torch.testing.assert_close(network.head(features), network(x), atol=5e-3, rtol=5e-3)
    assert features.shape[0] == 5


def test_once_computed_they_are_read(cache, patches):
    first = read_features(module(), patches)
    (file,) = cache.glob("*")
    written = file.stat().st_mtime_ns
    assert torch.equal(read_features(module(), patches), first)
    assert file.stat().st_mtime_ns == written


def test_the_head_does_not_matter_and_all_else_does(cache, patches):
    read_features(module(), patches)
    headless = module()
    torch.nn.init.zeros_(headless.head.weight)
    read_features(headless, patches)
    assert len(list(cache.glob("*"))) == 1
    other_pixels = replace(patches, pixels=patches.pixels[::-1])
    read_features(module(seed=1), patches)
    read_features(module(), other_pixels)
    read_features(module(), replace(patches, scaling=replace(EUROSAT_RGB, scale=255.0)))
    other_mean = module()
    other_mean.mean += 0.01
    read_features(other_mean, patches)
    assert len(list(cache.glob("*.safetensors"))) == 5


def test_the_cache_is_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.delenv("GEOCFL_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "geocfl"
    monkeypatch.setenv("GEOCFL_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"


def test_a_broken_cache_is_made_anew_and_an_unwritable_one_done_without(cache, patches, monkeypatch, caplog):
    first = read_features(module(), patches)
    (file,) = cache.glob("*")
    file.write_bytes(b"half a f")
    assert torch.equal(read_features(module(), patches), first)
    assert torch.equal(read_features(module(), patches), first)
    (cache.parent.parent / "file").write_text("no folder")
    monkeypatch.setenv("GEOCFL_CACHE", str(cache.parent.parent / "file"))
    assert torch.equal(read_features(module(), patches), first)
    assert "other runs will compute the features again" in caplog.text
