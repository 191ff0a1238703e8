"""The options that decide maps, which ``geocfl map`` and ``geocfl plan`` share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

from geocfl.cli import options, parse


def map_options(
    bands: options.SceneBands = None,
    scale: options.SceneScale = None,
    offset: options.SceneOffset = None,
    nodata: options.SceneNodata = None,
    bbox: options.Bbox = None,
    aoi: options.Aoi = None,
    mask: options.Mask = None,
    mask_classes: options.MaskClasses = None,
    mask_bits: options.MaskBits = None,
    max_masked: options.MaxMasked = 0.5,
    products: options.ProductNames = "default",
    vector: options.VectorNames = "gpkg",
    smooth: options.Smooth = False,
    smooth_keep: options.SmoothKeep = None,
    min_confidence: options.MinConfidence = 0.0,
    max_novelty: options.MaxNovelty = None,
    min_area: options.MinArea = 0.0,
    simplify: options.Simplify = 0.0,
    device: options.Device = "auto",
    backend: options.Backend = "auto",
    precision: options.Precision = "auto",
    tta: options.Tta = None,
    interpolate: options.Interpolate = False,
    batch_size: options.BatchSize = None,
    memory: options.Memory = None,
    list_file: options.ListFile = None,
    stac_items: options.StacItems = None,
) -> dict[str, Any]:
    """These options as arguments of `geocfl.map_scenes` and `geocfl.plan`."""
    return {
        "bands": parse.bands(bands),
        "scale": scale,
        "offset": offset,
        "nodata": nodata,
        "bbox": parse.box(bbox),
        "aoi": aoi or None,
        "mask": mask or None,
        "mask_classes": parse.mask_classes(mask_classes),
        "mask_bits": parse.mask_bits(mask_bits),
        "max_masked": max_masked,
        "products": parse.names(products or "default"),
        "vector": parse.vector_formats(vector),
        "smooth": smooth,
        "smooth_keep": parse.names(smooth_keep or ""),
        "min_confidence": min_confidence,
        "max_novelty": max_novelty,
        "min_area": min_area,
        "simplify": simplify,
        "device": device,
        "backend": backend,
        "precision": precision,
        "tta": tta,
        "interpolate": interpolate,
        "batch_size": batch_size,
        "memory": memory or None,
        "list_file": list_file,
        "stac_items": stac_items,
    }


def with_map_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command these options in the place of its parameter `arguments`, which receives `map_options`."""
    shared = inspect.signature(map_options).parameters
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        parameters += shared.values() if name == "arguments" else [parameter]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        command(arguments=map_options(**{name: given.pop(name) for name in shared}), **given)

    hints = get_type_hints(map_options, include_extras=True) | get_type_hints(command, include_extras=True)
    run.__annotations__ = {each.name: hints[each.name] for each in parameters}
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [each.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[each.name]) for each in parameters]
    )
    return run
