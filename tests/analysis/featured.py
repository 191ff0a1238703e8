"""Maps with features that are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from geocfl.core.grid import CellGrid
from geocfl.products.formats.features import FeatureSpace, write_features
from geocfl.products.scratch import FEATURES, write_header
from tests.analysis.test_zonal import write_map


def featured_map(
    folder: Path, codes: np.ndarray, features: np.ndarray, *, digest: str = "0" * 128, stride: int = 64
) -> tuple[Path, CellGrid]:
    """A finished class raster with a file of (rows, columns, K) features beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    path, grid = write_map(folder, codes, stride=stride)
    count = features.shape[-1]
    values = np.concatenate([features, np.zeros((*codes.shape, 1))], axis=-1).astype("<f2")
    raw = values.view(np.uint8).reshape(*codes.shape, -1).transpose(0, 2, 1)
    cells = folder / "featured"
    write_header(cells, *codes.shape, ["code", "confidence", *[FEATURES] * 2 * (count + 1)])
    both = np.stack([codes, codes], axis=1).astype(np.uint8)
    cells.write_bytes(np.concatenate([both, raw], axis=1).tobytes())
    space = FeatureSpace("known", digest, np.zeros(count, np.float32), np.eye(count, dtype=np.float32), "test")
    write_features(cells, folder / "S_features.parquet", grid, space, {})
    return path, grid


def finish(folder: Path, codes: np.ndarray, features: np.ndarray | None = None, stride: int = 64) -> Path:
    """The same with a summary, and with features only if they are given."""
    path, grid = featured_map(
        folder, codes, np.ones((*codes.shape, 2)) if features is None else features, stride=stride
    )
    if features is None:
        (folder / "S_features.parquet").unlink()
    summary = {"model": {"window": 64, "name": "known"}, "scene": {"bounds": list(grid.bounds())}}
    (folder / "S_summary.json").write_text(json.dumps(summary))
    return path
