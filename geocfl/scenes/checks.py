"""What looks wrong with a scene, before it is mapped."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from geocfl.scenes.reader import Scene
from geocfl.scenes.scaling import EIGHT_BIT, OPTIONS

UNHARMONIZED_DN = 1000
"""A 0.1 percentile of B04 above this, without an offset, looks like the DN + 1000 of processing baseline 04.00."""
NEGATIVE_SHARE = 0.05
"""A larger share of reflectance below 0 looks like an offset applied twice."""


def scene_warnings(scene: Scene) -> list[str]:
    """What was assumed of a scene, and what looks wrong with its reflectance, from a sample of B04."""
    return [*scene.notes, *(f"{scene.path}: {warning}" for warning in _radiometry(scene))]


def _radiometry(scene: Scene) -> Iterator[str]:
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
    if scaling.offset > 0 and scaling.scale > 1 and scene.scaling_source == OPTIONS:
        yield (
            f"`offset` is {scaling.offset:g}, which makes every pixel brighter; products of processing baseline 04.00 "
            f"and later need the negative value, `offset=-{scaling.offset:g}`"
        )
    elif scaling.offset == 0 and np.percentile(red, 0.1) * scaling.scale > UNHARMONIZED_DN:
        yield (
            f"its darkest B04 values are above DN {UNHARMONIZED_DN}, as in products of processing baseline 04.00 and "
            "later; if it is one, use `offset=-1000`"
        )
    elif (share := float((red < 0).mean())) > NEGATIVE_SHARE:
        yield (
            f"{share:.0%} of B04 is below 0 with offset {scaling.offset:g}; if the offset was already removed, use "
            "`offset=0`"
        )
