"""Finds clouds and their shadows by a published network, for scenes without a classification layer."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from geocfl.core.files import refuse_existing, replacing
from geocfl.core.keywords import declared
from geocfl.core.progress import Progress, counted, silent
from geocfl.errors import UsageError
from geocfl.scenes import Reading, Source, find_source, open_scene
from geocfl.scenes.checks import reflectance_warnings

log = logging.getLogger("geocfl")

GSD = 30.0
"""Meters a pixel that the network was trained at."""
COLORS = {"B02": "blue", "B03": "green", "B04": "red", "B08": "nir", "B11": "swir16", "B12": "swir22"}
"""The network's names of bands; the last two are optional."""
NEEDED = ("B02", "B03", "B04", "B08")
ROWS, MARGIN = 1024, 64
"""Rows of 30 m classified at a time, and rows of context above and below."""
CLOUD, SHADOW = 1, 2
"""Values of the mask."""


@declared
def find_clouds(
    scene: str | Path | Source,
    out: str | Path,
    *,
    bands: Mapping[str, int] | Sequence[str] | None = None,
    scale: float | None = None,
    offset: float | None = None,
    nodata: float | None = None,
    buffer: int = 4,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Path:
    """Writes a mask of clouds and cloud shadows, for `geocfl.map_scene(mask=...)`.

    The network is CSmask (https://github.com/dlr-eoc/ukis-csmask, Apache-2.0). It reads blue, green, red and near
    infrared in pixels of 30 m, and short-wave infrared if the scene has it.

    Args:
        scene: As for `geocfl.map_scene`.
        out: GeoTIFF to write, uint8: 0 clear or no data, 1 cloud, 2 cloud shadow; 30 m.
        bands: As for `geocfl.map_scene`.
        scale: As for `geocfl.map_scene`.
        offset: As for `geocfl.map_scene`.
        nodata: As for `geocfl.map_scene`.
        buffer: Pixels of 30 m to mask around clouds and shadows.
        overwrite: Replace `out`.
        progress: Called with the number of strips done.

    Returns:
        `out`.

    Raises:
        UsageError: The network is not installed, or a value is of the wrong type or out of range.
        SceneError: The scene cannot be read, or lacks a band.
        OutputError: `out` exists already, or cannot be written.
    """
    try:
        from ukis_csmask.mask import CSmask
    except ImportError as error:
        raise UsageError(
            "finding clouds needs ukis-csmask; run: pip install ukis-csmask onnxruntime, or use your own mask",
            page="how-to/clouds/",
        ) from error
    if buffer < 0:
        raise UsageError(f"`buffer` is {buffer} but must be 0 or more pixels")
    target = Path(out)
    if target.suffix.lower() not in (".tif", ".tiff"):
        raise UsageError(f"`out` is {target} but must end in .tif")
    refuse_existing(target, overwrite=overwrite)
    reading = Reading(bands=bands, scale=scale, offset=offset, nodata=nodata)
    source = find_source(scene, reading.bands)
    needed = tuple(COLORS) if all(band in source.bands for band in COLORS) else NEEDED
    with open_scene(source, reading, needed=needed, gsd=GSD) as opened, replacing(target) as partial:
        level = opened.level.lower() if opened.level != "unknown" else "l2a"
        if opened.level == "unknown":
            log.info("%s: its processing level is unknown; L2A is assumed to find clouds", opened.path)
        for warning in reflectance_warnings(opened):
            log.warning("%s", warning)
        colors = [COLORS[band] for band in needed]

        def classify(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
            found = CSmask(pixels, colors, level, invalid_buffer=buffer)
            classes: NDArray[np.uint8] = found.csm[..., 0]
            classes[(found.valid[..., 0] == 0) & (classes == 0)] = CLOUD  # the buffer around both
            return classes

        profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "compress": "deflate", "tiled": True}
        place = {"height": opened.height, "width": opened.width, "crs": opened.crs, "transform": opened.transform}
        with rasterio.open(partial, "w", **profile, **place) as dataset:
            dataset.set_band_description(1, "clouds")
            starts = range(0, opened.height, ROWS)
            for start in counted(starts, progress, opened.name, len(starts), "strip"):
                stop = min(opened.height, start + ROWS)
                top, bottom = max(0, start - MARGIN), min(opened.height, stop + MARGIN)
                pixels = opened.read(needed, top, bottom).transpose(1, 2, 0)
                missing = np.isnan(pixels[..., 0])
                classes = classify(np.nan_to_num(pixels))
                classes[missing] = 0
                dataset.write(classes[start - top : stop - top], 1, window=Window(0, start, opened.width, stop - start))
    return target
