"""Layers of a STAC Item: which band of which asset holds which band of a scene, and where it lies."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from geocfl.errors import SceneError
from geocfl.scenes.bands import band_name
from geocfl.scenes.reach import Reach, reach
from geocfl.scenes.stack import OWN_PIXELS
from geocfl.scenes.urls import SCHEMES, gdal_path, is_remote, shown

if TYPE_CHECKING:
    import pystac

COMMON_NAMES = {
    "coastal": "B01", "blue": "B02", "green": "B03", "red": "B04",
    "rededge1": "B05", "rededge2": "B06", "rededge3": "B07",
    "rededge071": "B05", "rededge075": "B06", "rededge078": "B07",
    "nir": "B08", "nir08": "B8A", "nir09": "B09", "cirrus": "B10", "swir16": "B11", "swir22": "B12",
}  # fmt: skip
"""Common names of the eo extension, and Earth Search's of the red edge, to bands of Sentinel-2.

Source: https://github.com/stac-extensions/eo, versions 1 and 2."""
SCL = "SCL"
TRUE_COLOR = ("B04", "B03", "B02")
_SUFFIX = re.compile(r"(?:[-_](?:jp2|cog|\d+m))+$", re.IGNORECASE)
_PICTURE = re.compile(r"visual|tci|true", re.IGNORECASE)
_PREVIEW = re.compile(r"preview|rendered|thumbnail|overview|quicklook|browse", re.IGNORECASE)
_METERS = re.compile(r"_(\d+)m(?![a-z])", re.IGNORECASE)
# WMS:..., NETCDF:"..." and an XML that describes a raster; not a URL and not the drive of a path on Windows.
_CONNECTION = re.compile(r"\s*<|(?!(?:https?|s3|gs|az|file|abfss?|oss|swift):)[A-Za-z][\w+.-]+:", re.IGNORECASE)


@dataclass(frozen=True)
class Layer:
    """One band of an asset of an Item, with its metadata."""

    key: str
    asset: pystac.Asset
    index: int
    said: Mapping[str, Any]

    @property
    def band(self) -> str | None:
        """Its Sentinel-2 name, or `SCL`."""
        names = (self.said.get("name"), self.said.get("eo:common_name", self.said.get("common_name")))
        return next((band for name in names if isinstance(name, str) and (band := _named(name))), None)

    @property
    def is_jp2(self) -> bool:
        """Whether it is a JPEG 2000, which is slow to read in small windows."""
        return "jp2" in (self.asset.media_type or self.asset.href).lower()

    @property
    def is_8_bit(self) -> bool:
        """Whether its numbers are said to have 8 bits."""
        return self.said.get("data_type") == "uint8"

    @property
    def is_picture(self) -> bool:
        """Whether it belongs to a true color picture."""
        return bool(_PICTURE.match(self.key)) or "visual" in (self.asset.roles or ())

    @property
    def is_preview(self) -> bool:
        """Whether it belongs to a smaller picture."""
        return bool(_PREVIEW.match(self.key)) or not {"overview", "thumbnail"}.isdisjoint(self.asset.roles or ())

    @property
    def rank(self) -> tuple[bool, bool, bool, float]:
        """Less is better: full bit depth, readable in small windows, role "data", fine resolution."""
        return self.is_8_bit, self.is_jp2, "data" not in (self.asset.roles or ["data"]), self._meters

    @property
    def _meters(self) -> float:
        transform = self.said.get("proj:transform")
        named = _METERS.search(self.key) or _METERS.search(self.asset.href)
        told = (
            self.said.get("gsd"),
            self.said.get("raster:spatial_resolution", self.said.get("spatial_resolution")),
            transform[0] if isinstance(transform, list) and transform else None,
            int(named[1]) if named else None,
        )
        return next((abs(float(meters)) for meters in told if isinstance(meters, int | float)), float("inf"))


def layers_of_bands(item: pystac.Item) -> dict[str, list[Layer]]:
    """Band to the layers that hold it, without pictures."""
    found = defaultdict(list)
    for asset_layers in _of_rasters(item):
        for layer in asset_layers:
            band = layer.band or (_named(layer.key) if len(asset_layers) == 1 else None)
            if band and not layer.is_picture and not layer.is_preview:
                found[band].append(layer)
    return found


def _of_rasters(item: pystac.Item) -> Iterator[list[Layer]]:
    """The layers of each asset that may be a raster."""
    for key, asset in item.assets.items():
        kind = asset.media_type or "image/"
        if kind.startswith(("image/", "application/octet-stream")) and "metadata" not in (asset.roles or ()):
            yield [Layer(key, asset, index, said) for index, said in enumerate(_said(asset), start=1)]


def _said(asset: pystac.Asset) -> list[dict[str, Any]]:
    """Metadata of each band of an asset: that of the asset, which bands inherit in STAC 1.1, then its own."""
    fields = asset.extra_fields
    lists = [fields[key] for key in ("bands", "eo:bands", "raster:bands") if isinstance(fields.get(key), list)]
    result = [dict(fields) for _ in range(max(map(len, lists), default=1) or 1)]
    for bands in lists:
        for said, band in zip(result, bands, strict=False):
            said.update(band)
    return result


def _named(name: str) -> str | None:
    bare = _SUFFIX.sub("", name).lower()
    return SCL if bare == "scl" else COMMON_NAMES.get(bare) or band_name(bare)


def best_layer(name: str, band: str, layers: list[Layer]) -> Layer:
    """The one of a band's layers that is read.

    Raises:
        SceneError: Two of them are equally good.
    """
    best, *others = sorted(layers, key=lambda layer: layer.rank)
    for other in others:
        same = (other.asset.href, other.index) == (best.asset.href, best.index)
        if other.rank == best.rank and not same:
            raise SceneError(
                f"{name}: has {band} twice, as the assets {best.key} and {other.key}; remove one of them from the Item"
            )
    return best


def picture_layers(item: pystac.Item, name: str) -> list[Layer]:
    """The layers of a true color picture, as `TRUE_COLOR`, of an Item without bands.

    Raises:
        SceneError: It has no picture either.
    """
    found = [layers for layers in _of_rasters(item) if layers[0].is_picture and not layers[0].is_preview]
    if not found:
        assets = ", ".join(item.assets) or "it has none"
        raise SceneError(f"{name}: none of its assets ({assets}) is a Sentinel-2 band; use an Item of L1C or L2A")
    layers = min(found, key=lambda layers: layers[0].rank)
    named = {layer.band: layer for layer in layers}
    return [
        named.get(band, Layer(layers[0].key, layers[0].asset, index, {"data_type": "uint8"}))
        for index, band in enumerate(TRUE_COLOR, start=1)
    ]


def gdal_href(layer: Layer, place: str, origin: str, name: str) -> str:
    """Where a layer lies, as GDAL opens it.

    An Item from a server names no file of this machine, and nothing that fewer can reach than its own server; browsers
    have the same rule (https://wicg.github.io/local-network-access/). A local Item may name any file that
    holds its own pixels.

    Args:
        layer: The layer.
        place: Where the Item's links start from.
        origin: Where the Item was read.
        name: The Item in messages.

    Raises:
        SceneError: The Item may not name what it names.
    """
    href = layer.asset.get_absolute_href() or layer.asset.href
    trusted = "download the Item and use the copy if you trust it"
    if any(map(_CONNECTION.match, (href, layer.asset.href))):
        raise SceneError(
            f"{name}: its asset {layer.key} is no file and no address of one, but a description for GDAL, which may "
            "name any file; correct the Item"
        )
    if is_remote(place) and not href.lower().startswith(tuple(SCHEMES)):
        raise SceneError(
            f"{name}: its asset {layer.key} is a local file, which an Item from a server may not name; {trusted}",
            page="how-to/servers/",
        )
    own = reach(origin) if is_remote(origin) else Reach.MACHINE
    if own < Reach.MACHINE and reach(href) > own:
        raise SceneError(
            f"{name}: its asset {layer.key} lies at {shown(href)}, in a network that the Item's own server is not in; "
            f"{trusted}",
            page="how-to/servers/",
        )
    path = gdal_path(url2pathname(urlsplit(href).path) if href.lower().startswith("file:") else href)
    if not is_remote(path) and PurePosixPath(path).suffix.lower().removeprefix(".") not in OWN_PIXELS:
        raise SceneError(
            f"{name}: its asset {layer.key} is neither a GeoTIFF nor a JPEG 2000, and a virtual raster may show other "
            "files of this computer; pass the asset itself as the scene if you trust it",
            page="how-to/stac-items/",
        )
    return path
