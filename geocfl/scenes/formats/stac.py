"""Scenes described by STAC Items, in files or at URLs."""

from __future__ import annotations

import json
import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeGuard
from urllib.parse import urlsplit
from urllib.request import url2pathname

from rasterio.crs import CRS
from rasterio.errors import CRSError

from geocfl.core.radiometry import EUROSAT_RGB, SENTINEL2, Scaling
from geocfl.errors import SceneError
from geocfl.scenes.bands import BANDS, band_name
from geocfl.scenes.baseline import has_offset, named_in, parse_baseline
from geocfl.scenes.reach import Reach, reach
from geocfl.scenes.remote import fetch
from geocfl.scenes.signing import token_address
from geocfl.scenes.source import Band, Source
from geocfl.scenes.stack import OWN_PIXELS
from geocfl.scenes.urls import SCHEMES, gdal_path, is_remote, shown, without_secrets

if TYPE_CHECKING:
    import pystac
    import requests

JSON = {".json", ".geojson"}
NO_JSON = {".tif", ".tiff", ".jp2", ".j2k", ".vrt", ".img", ".nc", ".h5", ".hdf", ".png", ".jpg", ".jpeg"}
NO_JSON |= {".zip", ".tar", ".gz", ".tgz", ".xml"}
"""Endings of URLs that cannot be an Item; URLs with another ending, or none, are checked."""
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

log = logging.getLogger("geocfl")

SMALLEST, LARGEST = 1e-12, 1e6
"""Reflectance per digital number that an Item may state."""
_SUFFIX = re.compile(r"(?:[-_](?:jp2|cog|\d+m))+$", re.IGNORECASE)
_PICTURE = re.compile(r"visual|tci|true", re.IGNORECASE)
_PREVIEW = re.compile(r"preview|rendered|thumbnail|overview|quicklook|browse", re.IGNORECASE)
_METERS = re.compile(r"_(\d+)m(?![a-z])", re.IGNORECASE)
# WMS:..., NETCDF:"..." and an XML that describes a raster; not a URL and not the drive of a path on Windows.
_CONNECTION = re.compile(r"\s*<|(?!(?:https?|s3|gs|az|file|abfss?|oss|swift):)[A-Za-z][\w+.-]+:", re.IGNORECASE)
_LEVEL = re.compile(r"(?:L|MSI)(1C|2A)(?![0-9A-Z])")


@dataclass(frozen=True)
class _Layer:
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
        return "jp2" in (self.asset.media_type or self.asset.href).lower()

    @property
    def is_8_bit(self) -> bool:
        return self.said.get("data_type") == "uint8"

    @property
    def is_picture(self) -> bool:
        return bool(_PICTURE.match(self.key)) or "visual" in (self.asset.roles or ())

    @property
    def is_preview(self) -> bool:
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


def find_item(path: str) -> Source | None:
    """Finds the bands of a STAC Item.

    Args:
        path: A JSON file or its URL, which may be signed and need not end in ``.json``.

    Returns:
        Its bands; None if `path` is something else. If several assets hold a band, a GeoTIFF is preferred to a JP2,
        then the role "data", then the finest resolution; if none does, the colors of an 8-bit picture are used. The
        scaling follows ``earthsearch:boa_offset_applied``, or else ``raster:bands`` (STAC 1.0) or ``bands`` (1.1).

    Raises:
        SceneError: It cannot be read, is another STAC object, has no Sentinel-2 band or one twice, or comes from a
            server and names local files.
    """
    content = _read(path)
    name = shown(path)
    return _find(content, _place(path), _place(path), name) if _is_item(content, name) else None


def find_items(path: str) -> list[tuple[str, Source | SceneError]]:
    """Finds the bands of all STAC Items in a file or at a URL.

    Args:
        path: An ItemCollection or other GeoJSON FeatureCollection of Items, as a STAC API returns or pystac-client
            saves; a list of Items; newline-delimited Items; or one Item.

    Returns:
        ``PATH#ID`` of each Item, with its bands as from `find_item`, or with the error that prevented it.

    Raises:
        SceneError: It cannot be read or holds no Item.
    """
    name = shown(path)
    documents = _documents(path)
    contents = [content for document in documents for content in _features(document, name)]
    if not any(isinstance(content, dict) and "stac_version" in content for content in contents):
        raise SceneError(f"{name}: holds no STAC Item; use the result of a search of a STAC API, or one Item")
    if len(documents) == 1 and contents == documents:
        _is_item(contents[0], name)  # a Catalog or Collection is an error of the whole file
    return [_one_of_many(content, _place(path), name, number) for number, content in enumerate(contents, start=1)]


def _one_of_many(content: object, origin: str, name: str, number: int) -> tuple[str, Source | SceneError]:
    """An Item of a collection from `origin`; `number` names it if it has no id."""
    known = content.get("id") if isinstance(content, dict) else None
    name = f"{name}#{known or number}"
    try:
        if not _is_item(content, name):
            raise SceneError(f"{name}: is not a STAC Item; remove it from the collection")
        return name, _find(content, _own_place(content) or origin, origin, name)
    except SceneError as error:
        return name, error


def _own_place(content: dict[str, Any]) -> str:
    """The URL of an Item according to itself, which its links are relative to; a local path is ignored."""
    hrefs = (str(link.get("href")) for link in _links(content) if link.get("rel") == "self")
    return next(filter(is_remote, hrefs), "")


def _links(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    links = content.get("links")
    return [link for link in links if isinstance(link, dict)] if isinstance(links, list) else []


def _documents(path: str) -> list[object]:
    """The JSON documents of a file or URL: one, or one per line."""
    name = shown(path)
    if is_remote(path):
        text = _download(path, lambda _: True) or b""
    else:
        try:
            text = Path(path).read_bytes()
        except OSError as error:
            raise SceneError(f"{name}: cannot be read ({error.strerror}); use a file or URL with STAC Items") from error
    try:
        try:
            return [json.loads(text)]
        except ValueError:
            return [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, RecursionError) as error:
        raise SceneError(f"{name}: is not valid JSON; download it again") from error


def _features(document: object, name: str) -> list[object]:
    """The members of a list or FeatureCollection; any other document is its own only member."""
    if isinstance(document, list):
        return document
    features = document.get("features") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(features, list):
        return [document]
    if any(link.get("rel") == "next" for link in _links(document)):
        log.warning(
            "%s: is one page of a search, with only %d of its Items; pystac-client saves all of them",
            name, len(features),
        )  # fmt: skip
    return features


def _place(path: str) -> str:
    """The place that relative links of an Item start from."""
    return path.removeprefix("/vsicurl/") if is_remote(path) else str(Path(path).resolve())


def _find(content: dict[str, Any], place: str, origin: str, name: str) -> Source:
    """The bands of an Item.

    Args:
        content: Its JSON.
        place: Where its links start from.
        origin: Where it was read, which decides whether it may name what lies behind a firewall.
        name: The Item in messages.
    """
    import pystac

    try:
        source = _describe(pystac.Item.from_dict(content, href=place, migrate=True), place, origin, name)
        catalogs = (token_address(str(link.get("href")), content.get("collection")) for link in _links(content))
        return replace(source, tokens=next(filter(None, catalogs), ""))
    except SceneError:
        raise
    except Exception as error:  # anything in an Item from elsewhere may be malformed
        why = without_secrets(f"{type(error).__name__}: {error}")
        raise SceneError(f"{name}: is not a valid STAC Item ({why}); download it again") from error


def _describe(item: pystac.Item, place: str, origin: str, name: str) -> Source:
    def lies(layer: _Layer) -> str:
        return _href(layer, place, origin, name)

    found = _layers(item)
    layers = {band: _choose(name, band, found[band]) for band in (*BANDS, SCL) if band in found}
    scl = layers.pop(SCL, None)
    picture = [] if layers else _picture(item, name)
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


def _read(path: str) -> object:
    """The JSON of a file or URL; None if it is not JSON."""
    url, remote = path.removeprefix("/vsicurl/"), is_remote(path)
    ending = PurePosixPath(urlsplit(url).path if remote else path).suffix.lower()
    if ending in NO_JSON or (ending not in JSON and not url.lower().startswith(("https://", "http://"))):
        return None
    if remote:
        text = _download(path, lambda answer: ending in JSON or "json" in answer.headers.get("Content-Type", ""))
    else:
        text = Path(path).read_bytes() if Path(path).is_file() else None
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SceneError(f"{shown(path)}: is not valid JSON; download it again") from error


def _download(path: str, wanted: Callable[[requests.Response], bool]) -> bytes | None:
    """The content at a URL; None if it is not wanted."""
    url = path.removeprefix("/vsicurl/")
    if not url.lower().startswith(("https://", "http://")):
        raise SceneError(f"{shown(path)}: Items are read only from files and https://; download it and use the copy")
    return fetch(url, wanted)


def _is_item(content: object, name: str) -> TypeGuard[dict[str, Any]]:
    if not isinstance(content, dict):
        return False
    kind, features = content.get("type"), content.get("features")
    if isinstance(features, list) and any(isinstance(each, dict) and "stac_version" in each for each in features):
        kind = "ItemCollection"
    elif "stac_version" not in content:
        return False
    if kind == "ItemCollection":
        raise SceneError(f"{name}: is a STAC ItemCollection, not an Item; use it as `stac_items`")
    if kind != "Feature":
        raise SceneError(f"{name}: is a STAC {kind or 'Catalog'}, not an Item; use the file or URL of an Item in it")
    return True


def _layers(item: pystac.Item) -> dict[str, list[_Layer]]:
    """Band to the layers that hold it, without pictures."""
    found = defaultdict(list)
    for asset_layers in _of_rasters(item):
        for layer in asset_layers:
            band = layer.band or (_named(layer.key) if len(asset_layers) == 1 else None)
            if band and not layer.is_picture and not layer.is_preview:
                found[band].append(layer)
    return found


def _of_rasters(item: pystac.Item) -> Iterator[list[_Layer]]:
    """The layers of each asset that may be a raster."""
    for key, asset in item.assets.items():
        kind = asset.media_type or "image/"
        if kind.startswith(("image/", "application/octet-stream")) and "metadata" not in (asset.roles or ()):
            yield [_Layer(key, asset, index, said) for index, said in enumerate(_said(asset), start=1)]


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


def _choose(name: str, band: str, layers: list[_Layer]) -> _Layer:
    best, *others = sorted(layers, key=lambda layer: layer.rank)
    for other in others:
        same = (other.asset.href, other.index) == (best.asset.href, best.index)
        if other.rank == best.rank and not same:
            raise SceneError(
                f"{name}: has {band} twice, as the assets {best.key} and {other.key}; remove one of them from the Item"
            )
    return best


def _picture(item: pystac.Item, name: str) -> list[_Layer]:
    """The layers of a true color picture, as `TRUE_COLOR`, of an Item without bands."""
    found = [layers for layers in _of_rasters(item) if layers[0].is_picture and not layers[0].is_preview]
    if not found:
        assets = ", ".join(item.assets) or "it has none"
        raise SceneError(f"{name}: none of its assets ({assets}) is a Sentinel-2 band; use an Item of L1C or L2A")
    layers = min(found, key=lambda layers: layers[0].rank)
    named = {layer.band: layer for layer in layers}
    return [
        named.get(band, _Layer(layers[0].key, layers[0].asset, index, {"data_type": "uint8"}))
        for index, band in enumerate(TRUE_COLOR, start=1)
    ]


def _href(layer: _Layer, place: str, origin: str, name: str) -> str:
    """Where a layer lies, as GDAL opens it.

    An Item from a server names no file of this machine, and nothing that fewer can reach than its own server; browsers
    have the same rule (https://wicg.github.io/local-network-access/). A local Item may name any file that
    holds its own pixels.
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


def _scaling(name: str, layer: _Layer, applied: bool) -> Scaling | None:
    if layer.is_picture:
        return EUROSAT_RGB
    if applied and not layer.is_jp2:
        return SENTINEL2
    offset = layer.said.get("raster:offset", layer.said.get("offset", 0))
    scale = layer.said.get("raster:scale", layer.said.get("scale", None if offset else 1))
    if (scale, offset) == (1, 0):  # what GDAL reports, and tools write, for files without scaling
        return EUROSAT_RGB if layer.is_8_bit else None
    try:
        if not (SMALLEST <= abs(float(scale)) <= LARGEST and abs(float(offset)) <= LARGEST):
            raise ValueError("no numbers could be reflectance")
        return Scaling.from_gdal(float(scale), float(offset))
    except (TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
        raise SceneError(
            f"{name}: its asset {layer.key} has the scale {scale!r} and offset {offset!r}, which are not valid; "
            "correct the Item"
        ) from error


def _scaling_source(layers: Mapping[str, _Layer], scaling: Mapping[str, Scaling | None], applied: str) -> str:
    told = next((band for band, found in scaling.items() if found), None)
    if told is None:
        return ""
    if scaling[told] is EUROSAT_RGB:
        return "EuroSAT's 8-bit stretch"
    if applied and not layers[told].is_jp2:
        return f"the Item's {applied}, no offset"
    return f"the Item's {'raster:bands' if 'raster:bands' in layers[told].asset.extra_fields else 'bands'}"


def _nodata(layers: Iterable[_Layer]) -> float | None:
    """The nodata value, if all layers that name one agree."""
    found = set()
    for layer in layers:
        try:
            found.add(float(layer.said["nodata"]))
        except (KeyError, TypeError, ValueError):
            continue
    return found.pop() if len(found) == 1 else None


def _crs(item: pystac.Item, layers: Iterable[_Layer]) -> str | None:
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


def _notes(item: pystac.Item, name: str, picture: list[_Layer], scaled: bool) -> Iterator[str]:
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
