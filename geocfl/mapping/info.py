"""Facts about a scene or a model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geocfl.core.keywords import declared
from geocfl.models.bundle import DEFAULT_MODEL, Bundle, looks_like_model
from geocfl.scenes import Reading, Scene, open_scene
from geocfl.scenes.checks import scene_warnings


@declared
def info(
    path: str | Path,
    *,
    bands: Mapping[str, int] | Sequence[str] | None = None,
    scale: float | None = None,
    offset: float | None = None,
    nodata: float | None = None,
    mask: str | Path | None = None,
    mask_classes: Collection[int] | None = None,
    mask_bits: Collection[int] | None = None,
) -> dict[str, Any]:
    """Describes a scene or a model.

    Args:
        path: A raster, a bundle's folder, or the name of a built-in model.
        bands: As in `geocfl.map_scene`; for a scene.
        scale: As in `geocfl.map_scene`; for a scene.
        offset: As in `geocfl.map_scene`; for a scene.
        nodata: As in `geocfl.map_scene`; for a scene.
        mask: As in `geocfl.map_scene`; for a scene, whose facts then state the share of masked pixels.
        mask_classes: As in `geocfl.map_scene`; for a scene.
        mask_bits: As in `geocfl.map_scene`; for a scene.

    Returns:
        Facts by name; ``kind`` is ``"scene"`` or ``"model"``.

    Raises:
        GeocflError: It is neither, or broken.
    """
    if looks_like_model(path):
        return _model(path)
    reading = Reading(
        bands=bands,
        scale=scale,
        offset=offset,
        nodata=nodata,
        mask=mask,
        mask_classes=mask_classes,
        mask_bits=mask_bits,
    )
    with open_scene(path, reading) as scene:
        return _scene(scene)


def _model(path: str | Path) -> dict[str, Any]:
    model = Bundle.load(path)
    return {
        "kind": "model",
        "name": model.name,
        "backbone": model.backbone,
        "bands": list(model.bands),
        "gsd_m": model.gsd,
        "window_px": model.window,
        "input_px": model.input_size,
        "dense": model.feature_stride > 0,
        "novelty": bool(model.novelty),
        "prediction_sets": bool(model.conformal),
        "clip": list(model.clip),
        "temperature": model.temperature,
        "tta": model.tta,
        "classes": {c.code: c.name for c in model.legend},
        "origin": model.origin,
    }


def _scene(scene: Scene) -> dict[str, Any]:
    window = Bundle.load(DEFAULT_MODEL).window
    facts: dict[str, Any] = {
        "kind": "scene",
        "file": scene.name,
        "size_px": [scene.width, scene.height],
        "dtype": scene.dtype,
        "bands": scene.bands,
        "crs": scene.crs.to_string() if scene.crs else None,
        "gsd_m": scene.gsd,
        "level": scene.level,
        "taken": scene.taken.isoformat().replace("+00:00", "Z") if scene.taken else None,
        "nodata": scene.nodata,
        "windows": {
            f"stride {s}": -(-scene.width // s) * -(-scene.height // s) for s in (window, window // 2, window // 4)
        },
    }
    if scene.mask:
        facts["masked_share"] = round(scene.masked_share(), 4)
    if scene.bands:
        bands = tuple(scene.bands)
        pixels = scene.sample(bands)
        data = np.isfinite(pixels[0])
        facts |= {
            "nodata_share": round(1 - float(data.mean()), 4),
            "scale": {band: scene.scaling[band].scale for band in bands},
            "offset": {band: scene.scaling[band].offset for band in bands},
            "scaling_from": scene.scaling_source,
            "reflectance_p1_p50_p99": {
                band: np.percentile(values[data], [1, 50, 99]).round(4).tolist() if data.any() else None
                for band, values in zip(bands, pixels, strict=True)
            },
            "warnings": scene_warnings(scene),
        }
    return facts
