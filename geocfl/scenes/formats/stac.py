"""Scenes described by STAC Items, in files or at URLs."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeGuard
from urllib.parse import urlsplit

from geocfl.errors import SceneError
from geocfl.scenes.formats.stac_item import describe
from geocfl.scenes.remote import fetch
from geocfl.scenes.signing import token_address
from geocfl.scenes.source import Source
from geocfl.scenes.urls import is_remote, shown, without_secrets

if TYPE_CHECKING:
    import requests

JSON = {".json", ".geojson"}
NO_JSON = {".tif", ".tiff", ".jp2", ".j2k", ".vrt", ".img", ".nc", ".h5", ".hdf", ".png", ".jpg", ".jpeg"}
NO_JSON |= {".zip", ".tar", ".gz", ".tgz", ".xml"}
"""Endings of URLs that cannot be an Item; URLs with another ending, or none, are checked."""

log = logging.getLogger("geocfl")


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
    """The bands of an Item; `place`, `origin` and `name` as for `describe`."""
    import pystac

    try:
        source = describe(pystac.Item.from_dict(content, href=place, migrate=True), place, origin, name)
        catalogs = (token_address(str(link.get("href")), content.get("collection")) for link in _links(content))
        return replace(source, tokens=next(filter(None, catalogs), ""))
    except SceneError:
        raise
    except Exception as error:  # anything in an Item from elsewhere may be malformed
        why = without_secrets(f"{type(error).__name__}: {error}")
        raise SceneError(f"{name}: is not a valid STAC Item ({why}); download it again") from error


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
