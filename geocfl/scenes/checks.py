"""What looks wrong with a scene, before it is mapped."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from geocfl.scenes.bands import FINE_BANDS
from geocfl.scenes.baseline import has_offset
from geocfl.scenes.plausible import BRIGHTEST, DARKEST
from geocfl.scenes.reader import Scene
from geocfl.scenes.scaling import DEFAULT, EIGHT_BIT, OPTIONS, TAGS

OFFSET = 0.1
"""Reflectance that the DN + 1000 of processing baseline 04.00 adds."""
DARK = {0.1: 0.05, 5: OFFSET}
"""Percentiles of B04 that are all above these reflectances where the offset was not removed: few pixels have negative
reflectance, and only a little."""
DARK_ALREADY = 0.08
"""A 5th percentile of B04 below this shows that the offset of a later baseline was removed; with it, one pixel in 20
would have a reflectance below -0.02."""
DARK_LAND = 0.05
"""If 99.9 % of B04 is below this reflectance, the scene is water or dense forest, or its scale is another one."""
NEGATIVE_SHARE = 0.05
"""A larger share of reflectance below 0 looks like an offset applied twice."""
COARSE_M = 15
"""Pixels of this side and more, in whole meters, are too coarse for models trained at 10 m."""
RIGHT = {"10 m": 0.948, "20 m": 0.932}
"""Share of the spatial test patches that the default model classifies correctly among like neighbors, as they are and
resampled from pixels of 20 m (`benchmarks/resolution.py`, docs/explanation/limits.md)."""


def scene_warnings(scene: Scene) -> list[str]:
    """What was assumed of a scene, and what looks wrong with its pixels' size or, from a sample of B04, reflectance."""
    return [*scene.notes, *(f"{scene.path}: {warning}" for warning in _resolution(scene)), *_of_radiometry(scene)]


def reflectance_warnings(scene: Scene) -> list[str]:
    """As `scene_warnings`, without those about the pixels' size."""
    return [*scene.notes, *_of_radiometry(scene)]


def _of_radiometry(scene: Scene) -> list[str]:
    return [f"{scene.path}: {warning}" for warning in _radiometry(scene)]


def _resolution(scene: Scene) -> Iterator[str]:
    coarse = {band: side for band, side in scene.pixels.items() if band in FINE_BANDS and round(side) >= COARSE_M}
    if coarse:
        yield (
            f"its pixels of {max(coarse.values()):.3g} m ({', '.join(coarse)}) are coarser than the 10 m of the "
            "training data, so the map is less accurate: of test patches resampled from 20 m, the default model "
            f"classifies {RIGHT['20 m']:.1%} correctly instead of {RIGHT['10 m']:.1%}; use bands of 10 m if you have "
            "them"
        )


def _radiometry(scene: Scene) -> Iterator[str]:
    lines = [f"{scaling.scale:g} and {scaling.offset:g}" for scaling in scene.scaling.values()]
    if scene.scaling_source not in (OPTIONS, TAGS) and len(set(lines)) > 1:  # tags of packed netCDF may well differ
        each = ", ".join(f"{band} {line}" for band, line in zip(scene.scaling, lines, strict=True))
        yield (
            f"its bands differ in scale and offset by {scene.scaling_source} ({each}), which products of Sentinel-2 "
            "do not; if that is wrong, use `scale` and `offset`"
        )
    if "B04" not in scene.bands:
        return
    if scene.dtype == "uint8":
        if scene.scaling_source == EIGHT_BIT:
            yield (
                "is an 8-bit picture, read with EuroSAT's stretch, so the map is less accurate; use the product's "
                "own bands if you have them"
            )
        return
    red, scaling = scene.red[np.isfinite(scene.red)], scene.scaling["B04"]
    if not red.size:
        return
    high = float(np.percentile(red, 99))
    if scaling.offset > 0 and scaling.scale > 1 and scene.scaling_source == OPTIONS:
        yield (
            f"`offset` is {scaling.offset:g}, which makes every pixel brighter; products of processing baseline 04.00 "
            f"and later need the negative value, `offset=-{scaling.offset:g}`"
        )
    elif high > BRIGHTEST:
        yield f"1% of B04 is above a reflectance of {high:.3g} with scale {scaling.scale:g}, brighter than any surface"
    elif scene.scaling_source == OPTIONS and 0 < high < DARKEST / 10:
        yield f"99% of B04 is below a reflectance of {high:.2g} with scale {scaling.scale:g}, darker than any surface"
    elif scene.scaling_source == DEFAULT and np.percentile(red, 99.9) < DARK_LAND:
        yield (
            f"99.9% of B04 is below a reflectance of {np.percentile(red, 99.9):.2g} with the usual scale of "
            f"{scaling.scale:g}, which only water and dense forest are; if so, use `scale={scaling.scale:g}`, else the "
            "right scale, such as `scale=1000`"
        )
    elif scaling.offset == 0 and not scene.offset_given and (sign := _offset_sign(scene, red)):
        yield f"{sign}; if so, use `offset={-OFFSET * scaling.scale:g}`, else `offset=0`"
    elif (share := float((red < 0).mean())) > NEGATIVE_SHARE and scaling.offset:
        yield (
            f"{share:.0%} of B04 is below 0 with offset {scaling.offset:g}; if the offset was already removed, use "
            "`offset=0`"
        )


def _offset_sign(scene: Scene, red: NDArray[np.float32]) -> str:
    """What says that the offset of baseline 04.00 was not removed, in words; empty if nothing does."""
    if has_offset(scene.baseline) and np.percentile(red, 5) >= DARK_ALREADY:
        return (
            f"it is of processing baseline {scene.baseline}, whose digital numbers are 1000 too high unless the offset "
            "was removed, and its B04 looks as if it was not"
        )
    if all(np.percentile(red, share) > least for share, least in DARK.items()):
        return (
            f"its darkest B04 values are above a reflectance of {OFFSET:g}, as in products of processing baseline "
            "04.00 and later, whose digital numbers are 1000 too high"
        )
    return ""
