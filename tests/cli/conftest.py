from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """What the command line sets up of the log when it runs in this process ends with the test."""
    logger = logging.getLogger("geocfl")
    before = logger.handlers, logger.level
    yield
    logger.handlers, logger.level = before


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scene") / "s.tif"
    dn = np.random.default_rng(0).integers(200, 2000, (3, 130, 200), dtype=np.uint16)
    with rasterio.open(
        path, "w", driver="GTiff", height=130, width=200, count=3, dtype="uint16", crs="EPSG:32633",
        transform=Affine(10, 0, 3e5, 0, -10, 5e6),
    ) as dataset:  # fmt: skip
        dataset.write(dn)
        dataset.descriptions = ("B04", "B03", "B02")
    return path
