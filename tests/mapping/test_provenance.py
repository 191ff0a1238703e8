"""What decides a map: its cells, and its products."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

import geocfl
from geocfl.errors import OutputError
from geocfl.mapping.provenance import CLASSIFICATION

FINGERPRINTS = {1: "b8eecea9aef6a3da50a6654cf3845defaa57b8ee456d82dcee2f79b4eb30b0bd"}
"""Classification version to the hash of the cells of `fixed_scene`; a version that was released never changes."""
MARGIN = 0.02
"""Percent that every probability is at least away from where its rounding turns, so that no processor decides it."""
EXACT: dict[str, Any] = {"backend": "torch", "precision": "float32", "device": "cpu"}


def fixed_scene(path: Path) -> Path:
    """A scene of 320 x 256 pixels whose digital numbers are whole by construction."""
    row, column = np.mgrid[:256, :320]
    waves = [((row * a + column * b) % c) * d + e for a, b, c, d, e in WAVES]
    pixels = np.stack(waves).astype(np.uint16)
    with rasterio.open(
        path, "w", driver="GTiff", width=320, height=256, count=3, dtype="uint16", nodata=0, crs="EPSG:32632",
        transform=Affine(10, 0, 600_000, 0, -10, 5_300_000),
    ) as dataset:  # fmt: skip
        dataset.write(pixels)
        dataset.descriptions = ("B04", "B03", "B02")
        dataset.scales = (0.0001,) * 3
    return path


WAVES = [(1, 2, 61, 9, 340), (2, 1, 47, 11, 450), (3, 1, 53, 7, 350)]


def test_cells_change_only_with_the_classification_version(tmp_path: Path) -> None:
    """Where this fails, the cells have changed: raise `CLASSIFICATION`, and add its fingerprint."""
    scene = fixed_scene(tmp_path / "s.tif")
    result = geocfl.map_scene(scene, tmp_path / "maps", products=["lulc", "confidence"], stride=64, **EXACT)
    with rasterio.open(scene) as dataset:
        reflectance = dataset.read().astype(np.float32) / 10_000
    exact = 100 * geocfl.load_model().predict(reflectance, stride=64, **EXACT).probabilities.max(axis=-1)
    assert np.abs(exact % 1 - 0.5).min() > MARGIN, "the fixed scene decides nothing on another processor"
    cells = np.stack([result.lulc, np.rint(100 * result.confidence).astype(np.uint8)])
    assert hashlib.sha256(cells.tobytes()).hexdigest() == FINGERPRINTS[CLASSIFICATION], cells.tolist()


def test_a_release_with_the_same_classification_redoes_nothing(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = fixed_scene(tmp_path / "s.tif")
    options = {"model": tiny_model, "products": ["lulc"], **EXACT}
    geocfl.map_scene(scene, tmp_path / "maps", **options)
    monkeypatch.setattr("geocfl.mapping.provenance.__version__", "99.0")
    assert geocfl.map_scene(scene, tmp_path / "maps", **options).already_done
    monkeypatch.setattr("geocfl.mapping.provenance.CLASSIFICATION", CLASSIFICATION + 1)
    with pytest.raises(OutputError, match="`overwrite=True`"):
        geocfl.map_scene(scene, tmp_path / "maps", **options)
