"""Cuts windows from a scene into GeoTIFFs of reflectance."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray

from geocfl.core.legend import Legend
from geocfl.core.progress import Progress, counted
from geocfl.core.radiometry import SENTINEL2
from geocfl.labeling.folder import ENDING
from geocfl.labeling.windows import Windows
from geocfl.scenes import Scene

MASKED = "masked in part, such as by clouds"
NO_DATA = "without data in part"
"""Why a window is left out."""


def cut_windows(
    scene: Scene,
    windows: Windows,
    legend: Legend,
    bands: tuple[str, ...],
    side: int,
    folder: Path,
    stem: str,
    progress: Progress,
) -> tuple[list[str], NDArray[np.bool_], Counter[str]]:
    """Writes the windows of a scene into class folders, in the order of their rows.

    Digital numbers are reflectance x 10,000, the scale of Sentinel-2, as ``geocfl train`` reads 16-bit patches.

    Args:
        scene: The scene.
        windows: Its windows.
        legend: The classes, each with its folder.
        bands: Bands to write, in this order.
        side: Pixels along each side of a window.
        folder: The folder of the class folders.
        stem: Beginning of the files' names.
        progress: Called with the number of windows.

    Returns:
        Names of the patches such as ``"Forest/scene_r64_c128.tif"``, which windows they are, and the number of others
        by the reason that they were left out for.
    """
    names: list[str] = []
    kept = np.zeros(len(windows), bool)
    left_out: Counter[str] = Counter()
    order = range(len(windows))
    for number in counted(order, progress, scene.name, len(windows), "patch"):
        row, column = int(windows.rows[number]), int(windows.columns[number])
        reflectance = scene.read_window(bands, row, column, side)
        if not np.isfinite(reflectance).all():
            left_out[MASKED if scene.masked(row, column, side).any() else NO_DATA] += 1
            continue
        kept[number] = True
        name = f"{legend[int(windows.classes[number])].folder}/{stem}_r{row}_c{column}{ENDING}"
        names.append(name)
        _write(folder / name, reflectance, bands, scene, scene.transform @ Affine.translation(column, row))
    return names, kept, left_out


def _write(
    path: Path, reflectance: NDArray[np.float32], bands: tuple[str, ...], scene: Scene, transform: Affine
) -> None:
    path.parent.mkdir(exist_ok=True)
    limits = np.iinfo(np.uint16)
    numbers = np.rint(reflectance * SENTINEL2.scale).clip(limits.min, limits.max).astype(np.uint16)
    with rasterio.open(
        path, "w", driver="GTiff", dtype="uint16", count=len(bands), height=numbers.shape[1], width=numbers.shape[2],
        crs=scene.crs, transform=transform, compress="deflate", predictor=2,
    ) as dataset:  # fmt: skip
        dataset.write(numbers)
        dataset.descriptions = bands
        dataset.scales = [1 / SENTINEL2.scale] * len(bands)
