"""What a STAC Item says of its scene: bands, scaling, acquisition, level and baseline."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rasterio.crs import CRS
from rasterio.errors import CRSError

from geocfl.core.radiometry import EUROSAT_RGB, SENTINEL2, Scaling
from geocfl.errors import SceneError
from geocfl.scenes.bands import BANDS
from geocfl.scenes.baseline import has_offset, named_in, parse_baseline
from geocfl.scenes.formats.stac_layers import (
    SCL,
    TRUE_COLOR,
    Layer,
    best_layer,
    gdal_href,
    layers_of_bands,
    picture_layers,
)
from geocfl.scenes.scaling import EIGHT_BIT, LARGEST, MOST_OFFSET, SMALLEST
from geocfl.scenes.source import Band, Source

if TYPE_CHECKING:
    import pystac

OFFSET_APPLIED = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")
"""Properties by which Earth Search says that the offset of baseline 04.00 is already applied in its GeoTIFFs, although
their ``raster:bands`` still name it (Element84/earth-search#9). The JP2s beside them are ESA's and need the offset."""
BASELINES = (
    "s2:processing_baseline",
    "sentinel:processing_baseline",
    "sentinel2:processing_baseline",
    "processing:version",
)
"""Properties that state the processing baseline, the surest first."""
PRODUCTS = ("s2:product_uri", "sentinel:product_id", "title")
"""Properties that hold the name of ESA's product, which contains the baseline."""
STEM_BYTES = 150
"""Maximum bytes of an Item's id in product names, so that these fit any file system."""
_LEVEL = re.compile(r"(?:L|MSI)(1C|2A)(?![0-9A-Z])")


def describe(item: pystac.Item, place: str, origin: str, name: str) -> Source:
    """The scene that an Item describes.

    Args:
        item: The Item.
        place: Where its links start from.
        origin: Where it was read, which decides whether it may name what lies behind a firewall.
        name: The Item in messages.

    Raises:
        SceneError: It has no Sentinel-2 band, has one twice, or states what cannot be.
    """

    def lies(layer: Layer) -> str:
        return gdal_href(layer, place, origin, name)

    found = layers_of_bands(item)
    layers = {band: best_layer(name, band, found[band]) for band in (*BANDS, SCL) if band in found}
    scl = layers.pop(SCL, None)
    picture = [] if layers else picture_layers(item, name)
    layers = layers or dict(zip(TRUE_COLOR, picture, strict=True))
    applied = next((flag for flag in OFFSET_APPLIED if item.properties.get(flag) is True), "")
    scaling = {band: _scaling(name, layer, bool(applied)) for band, layer in layers.items()}
    return Source(
        path=name,
        stem=_stem(item, place),
        bands={band: Band(lies(layer), layer.index, scaling[band]) for band, layer in layers.items()},
        scaling_source=_scaling_source(layers, scaling, applied),
        level=_level(item),
        taken=_taken(item),
        scl=Band(lies(scl), scl.index) if scl else None,
        nodata=_nodata(layers.values()),
        crs=_crs(item, layers.values()),
        notes=tuple(_notes(item, name, picture, any(scaling.values()))),
        baseline=_baseline(item) if any(scaling.values()) and not applied and not picture else "",
    )


def _scaling(name: str, layer: Layer, applied: bool) -> Scaling | None:
    if layer.is_picture:
        return EUROSAT_RGB
    if applied and not layer.is_jp2:
        return SENTINEL2
    offset = layer.said.get("raster:offset", layer.said.get("offset", 0))
    scale = layer.said.get("raster:scale", layer.said.get("scale", None if offset else 1))
    if (scale, offset) == (1, 0):  # what GDAL reports, and tools write, for files without scaling
        return EUROSAT_RGB if layer.is_8_bit else None
    try:
        if not (SMALLEST <= abs(float(scale)) <= LARGEST and abs(float(offset)) <= MOST_OFFSET):
            raise ValueError("no numbers could be reflectance")
        return Scaling.from_gdal(float(scale), float(offset))
    except (TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
        raise SceneError(
            f"{name}: its asset {layer.key} has the scale {scale!r} and offset {offset!r}, which are not valid; "
            "correct the Item"
        ) from error


def _scaling_source(layers: Mapping[str, Layer], scaling: Mapping[str, Scaling | None], applied: str) -> str:
    told = next((band for band, found in scaling.items() if found), None)
    if told is None:
        return ""
    if scaling[told] is EUROSAT_RGB:
        return EIGHT_BIT
    if applied and not layers[told].is_jp2:
        return f"the Item's {applied}, no offset"
    return f"the Item's {'raster:bands' if 'raster:bands' in layers[told].asset.extra_fields else 'bands'}"


def _nodata(layers: Iterable[Layer]) -> float | None:
    """The nodata value, if all layers that name one agree."""
    found = set()
    for layer in layers:
        try:
            found.add(float(layer.said["nodata"]))
        except (KeyError, TypeError, ValueError):
            continue
    return found.pop() if len(found) == 1 else None


def _crs(item: pystac.Item, layers: Iterable[Layer]) -> str | None:
    """The CRS that the Item gives for its rasters, if it is one."""
    told = (
        fields.get("proj:code") or (f"EPSG:{fields['proj:epsg']}" if fields.get("proj:epsg") else None)
        for fields in (*(layer.said for layer in layers), item.properties)
    )
    codes = {str(code) for code in told if code}
    try:
        return codes.pop() if len(codes) == 1 and all(CRS.from_user_input(code) for code in codes) else None
    except CRSError:
        return None


def _notes(item: pystac.Item, name: str, picture: list[Layer], scaled: bool) -> Iterator[str]:
    if picture:
        yield f"{name}: has no bands, so its picture, the asset {picture[0].key}, is used"
    if platform := _other_platform(item):
        yield f"{name}: is from {platform}, whose bands differ from those of Sentinel-2 that the models know"
    baseline = _baseline(item)
    if not scaled and has_offset(baseline):
        yield (
            f"{name}: states no offset, and digital numbers of processing baseline {baseline} are 1000 too high "
            "as delivered by ESA; use `offset=-1000` unless that has been subtracted already"
        )


def _baseline(item: pystac.Item) -> str:
    """The processing baseline that an Item states, or the name of its product; empty if neither does."""
    stated = (parse_baseline(item.properties.get(key, "")) for key in BASELINES)
    return next(filter(None, stated), "") or named_in([item.id, *(str(item.properties.get(key)) for key in PRODUCTS)])


def _stem(item: pystac.Item, place: str) -> str:
    stem = re.sub(r"[^\w.-]+", "_", str(item.id)).encode()[:STEM_BYTES].decode(errors="ignore").strip("._")
    return stem or PurePosixPath(urlsplit(place).path).stem


def _other_platform(item: pystac.Item) -> str:
    """The satellite of an Item; empty if it is Sentinel-2 or unknown."""
    platform = str(item.properties.get("constellation") or item.properties.get("platform") or "sentinel-2")
    return "" if re.match(r"sentinel[-_ ]?2|s2", platform, re.IGNORECASE) else platform


def _level(item: pystac.Item) -> str:
    if _other_platform(item):
        return "unknown"  # its levels are others
    properties = (item.properties.get(key) for key in ("s2:product_type", "product:type", "processing:level"))
    found = (_LEVEL.search(str(text).upper()) for text in (*properties, item.collection_id, item.id))
    return next((f"L{level[1]}" for level in found if level), "unknown")


def _taken(item: pystac.Item) -> datetime | None:
    when = item.datetime or item.common_metadata.start_datetime
    if when is None:
        return None
    return when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC)
