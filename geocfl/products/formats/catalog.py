"""A static STAC catalog and Collection of the maps in a folder, for pystac, odc-stac, QGIS and STAC Browser."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import pystac
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import RasterioError

from geocfl.core.files import parsed_json
from geocfl.core.grid import CellGrid
from geocfl.core.keywords import declared
from geocfl.errors import DataError, GeocflError, OutputError
from geocfl.products.files import FILES, SUMMARY
from geocfl.products.formats.attribute_table import read_legend
from geocfl.products.formats.collection import COLLECTION, MAPS, collection_text, times_of
from geocfl.products.formats.item_table import PACKAGE, check_package, is_ours, write_items
from geocfl.products.formats.stac import relative_href, write_item
from geocfl.products.storage import ASKING, in_store, output_folder, reaching, write_text

T = TypeVar("T")

log = logging.getLogger("geocfl")

NAME, TABLE = "catalog.json", "catalog.parquet"
LEFT, LEFT_SECONDS = re.compile(r"\.(?:catalog\.parquet|(?:catalog|collection|.+\.stac)\.json)\.[0-9a-f]{8}"), 60.0
"""Names of files before `geocfl.products.storage.write_text` moves them, and the seconds that this takes at most."""
REMEDY = "check the address and the store's credentials"


@dataclass(frozen=True)
class CatalogResult:
    """What a catalog holds.

    Attributes:
        path: The catalog's file.
        maps: Stems of the maps in it, sorted by name, with the folders that they lie in, such as ``"33TUL/2019/S"``.
        undated: Stems of the maps left out because nothing says when their scenes were taken.
    """

    path: Path
    maps: tuple[str, ...]
    undated: tuple[str, ...]


def check_catalog(out: str | Path, *, overwrite: bool = False) -> None:
    """Refuses a foreign ``catalog.json`` or ``collection.json`` before the work begins.

    Args:
        out: As for `write_catalog`.
        overwrite: As for `write_catalog`.

    Raises:
        UsageError: `out` is an address that cannot be written to.
        OutputError: Its ``catalog.json`` or ``collection.json`` is not geocfl's.
    """
    folder = output_folder(out)
    for name in (NAME, COLLECTION):
        _check_ours(folder / name, overwrite)


def _check_ours(path: Path, overwrite: bool) -> None:
    with reaching(path.parent, REMEDY):
        try:
            text = path.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            return
        except UnicodeDecodeError:
            text = ""
        except OSError as error:
            if overwrite:
                return
            raise OutputError(f"{path}: cannot be read ({error.strerror or error}); choose another `out`") from error
    try:
        ours = MAPS in parsed_json(text)
    except (ValueError, TypeError):
        ours = False
    if not ours and not overwrite:
        _refuse(path)


def _refuse(path: Path) -> NoReturn:
    raise OutputError(
        f"{path}: already exists, not made by geocfl; use `overwrite=True` to replace it, or choose another `out`"
    )


@declared
def write_catalog(
    out: str | Path, *, overwrite: bool = False, parquet: bool = False, depth: int | None = None
) -> CatalogResult:
    """Writes ``catalog.json``, a STAC 1.1 catalog of every finished map in a folder, and ``collection.json``.

    A map without an Item gets one, ``S.stac.json``, from its summary and its other products. The same maps give the
    same bytes. The Collection holds the extent of all maps and the kinds of their assets.

    Args:
        out: The folder that maps were written to, or its address in an object store.
        overwrite: Replace files of these names that geocfl has not made.
        parquet: Write ``catalog.parquet`` too, a table of all Items in the format stac-geoparquet. One that exists is
            kept up to date in any case.
        depth: How many folders deep to look for maps, and at least as deep as those of an earlier catalog; None for any
            number. Hidden folders are left out.

    Returns:
        The maps in it, and those left out.

    Raises:
        UsageError: `out` is an address that cannot be written to, or stac-geoparquet is not installed.
        DataError: The folder holds neither a finished map nor an earlier catalog.
        OutputError: A foreign file exists already, or the folder cannot be read or written.
    """
    if parquet:
        check_package()
    check_catalog(out, overwrite=overwrite)
    folder = output_folder(out)
    try:
        with reaching(folder, REMEDY):
            return _write(folder, overwrite, parquet, depth)
    except OSError as error:
        if not in_store(folder) and not folder.is_dir():
            raise OutputError(f"{folder}: is not a folder; pass the one that the maps were written to") from error
        raise OutputError(
            f"{folder}: its maps cannot be cataloged ({error.strerror or error}); make the folder readable and writable"
        ) from error


def _write(folder: Path, overwrite: bool, parquet: bool, depth: int | None) -> CatalogResult:
    if in_store(folder):
        folder.fs.invalidate_cache()  # others may have written since
    names = _files(folder, None if depth is None else max(depth, _depth_of_earlier(folder)))
    _sweep(folder, names)
    stems = sorted(name.removesuffix(SUMMARY) for name in names if name.endswith(SUMMARY))
    with ThreadPoolExecutor(ASKING) as pool:

        def read(what: Callable[[Path], T | None], stems: Iterable[str], suffix: str) -> dict[str, T]:
            listed = list(stems)
            found = zip(listed, pool.map(lambda stem: what(folder / f"{stem}{suffix}"), listed), strict=True)
            return {stem: content for stem, content in found if content}

        items = read(_item, (stem for stem in stems if f"{stem}{FILES['stac']}" in names), FILES["stac"])
        # An Item of geocfl beside a summary is that of a finished map, so the summary need not be read.
        summaries = read(_summary, (stem for stem in stems if not _is_own(items.get(stem))), SUMMARY)
        items = {stem: item for stem, item in items.items() if stem in summaries or _is_own(item)}
        # A mosaic, which lists its maps, is of no one scene: it is here only with an Item of its own.
        bare = {stem: facts for stem, facts in summaries.items() if stem not in items and "maps" not in facts}
        dated = {stem: summary for stem, summary in bare.items() if summary["scene"].get("datetime")}
        errors = pool.map(lambda stem: _add_item(folder, stem, dated[stem], names), dated)
        damaged = {stem: error for stem, error in zip(dated, errors, strict=True) if error}
        items |= read(_item, (stem for stem in dated if stem not in damaged), FILES["stac"])
    if damaged:
        stem, error = next(iter(damaged.items()))
        log.warning(
            "%s: lacks %d maps with damaged products, such as %s (%s); map their scenes again with `overwrite=True`",
            folder / NAME, len(damaged), stem, error,
        )  # fmt: skip
    undated = tuple(stem for stem in bare if stem not in dated)
    found = {stem: items[stem] for stem in stems if stem in items}
    if not (found or undated or NAME in names):
        raise DataError(f"{folder}: holds no finished map; pass a folder that geocfl map has written to")
    _write_files(folder, found, names, overwrite, parquet)
    return CatalogResult(folder / NAME, tuple(found), undated)


def _write_files(
    folder: Path, found: Mapping[str, dict[str, Any]], names: set[str], overwrite: bool, parquet: bool
) -> None:
    """Writes the table of the Items if it is wanted, the Collection, and the catalog last."""
    name = (folder.name if in_store(folder) else folder.resolve().name) or "maps"
    items = {relative_href(f"{stem}{FILES['stac']}"): item for stem, item in found.items()}
    placed = {href: item for href, item in items.items() if item.get("geometry")}  # a row needs a place on Earth
    table = bool(placed) and _table_is_due(folder / TABLE, TABLE in names, overwrite, parquet)
    if items:
        text = collection_text(name, items, relative_href(TABLE) if table else None)
        if table:
            try:
                write_items(folder / TABLE, placed, json.loads(text) | {"links": []})
            except OutputError as error:
                if parquet:
                    raise
                log.warning("%s", error)  # nobody asked for the table now, and it is there as it was
        write_text(folder / COLLECTION, text)
    write_text(folder / NAME, _catalog(name, items, bool(items)))


def _table_is_due(path: Path, exists: bool, overwrite: bool, wanted: bool) -> bool:
    """Whether to write the table: one that geocfl once made is kept up to date."""
    if not exists:
        return wanted
    if not find_spec(PACKAGE):
        log.warning("%s: may be out of date; run: pip install stac-geoparquet", path)
        return False
    if wanted and not overwrite and not is_ours(path):
        _refuse(path)
    return wanted or is_ours(path)


def _files(folder: Path, depth: int | None) -> set[str]:
    """Paths of the files in a folder and in those below it, separated by ``/``; hidden folders are left out."""
    if in_store(folder):
        root = folder.path.rstrip("/")
        found = (path[len(root) + 1 :] for path in folder.fs.find(root, maxdepth=None if depth is None else depth + 1))
        names = {name for name in found if not any(part.startswith(".") for part in name.split("/")[:-1])}
        if not names:
            next(iter(folder.iterdir()), None)  # raises an error if there is no such folder
        return names
    names = set[str]()
    waiting = [("", 0)]
    while waiting:
        below, level = waiting.pop()
        with os.scandir(folder / below) as entries:
            for entry in entries:
                if not entry.is_dir():
                    names.add(f"{below}{entry.name}")
                elif not entry.name.startswith(".") and not entry.is_symlink() and (depth is None or level < depth):
                    waiting.append((f"{below}{entry.name}/", level + 1))
    return names


def _depth_of_earlier(folder: Path) -> int:
    """How many folders deep the maps of an earlier catalog lie."""
    try:
        links = parsed_json((folder / NAME).read_text(encoding="utf-8"))["links"]
        return max((link["href"].count("/") - 1 for link in links if link["rel"] == "item"), default=0)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return 0


def _sweep(folder: Path, names: set[str]) -> None:
    """Removes files that processes left which were killed while they wrote a catalog or an Item."""
    for name in (name for name in names if LEFT.fullmatch(name.rpartition("/")[2])):
        with suppress(OSError):  # another process removes it too
            if time.time() - (folder / name).stat().st_mtime > LEFT_SECONDS:
                (folder / name).unlink()


def _summary(path: Path) -> dict[str, Any] | None:
    """A finished map's summary; None if the file is something else or was just removed."""
    try:
        content = parsed_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return content if isinstance(content, dict) and {"hash", "scene", "model", "classes"} <= content.keys() else None


def _item(path: Path) -> dict[str, Any] | None:
    """A map's Item; None if the file is something else or was just removed."""
    try:
        content = parsed_json(path.read_text(encoding="utf-8"))
        times_of(content)
        references = [asset["href"].strip() for asset in content["assets"].values()]
        box = [*map(float, content["bbox"])] if content.get("bbox") else [0.0] * 4
        return dict(content) if content["id"] and all(references) and len(box) == 4 else None
    except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _is_own(item: Mapping[str, Any] | None) -> bool:
    """Whether geocfl made an Item."""
    return item is not None and "geocfl" in (item["properties"].get("processing:software") or ())


def _add_item(folder: Path, stem: str, summary: Mapping[str, Any], names: set[str]) -> Exception | None:
    """Writes a map's Item; returns the error if that fails."""
    below, _, own = stem.rpartition("/")
    place = folder / below if below else folder
    assets = {key: f"{own}{suffix}" for key, suffix in FILES.items() if f"{stem}{suffix}" in names and key != "stac"}
    try:
        legend = read_legend(place / assets["lulc"]) if "lulc" in assets else None
        when = datetime.fromisoformat(summary["scene"]["datetime"])
        write_item(place / f"{own}{FILES['stac']}", own, _grid(summary), legend, summary, assets, when)
    except (GeocflError, RasterioError, LookupError, TypeError, ValueError) as error:
        return error
    return None


def _grid(summary: Mapping[str, Any]) -> CellGrid:
    """The map's cells."""
    scene = summary["scene"]
    return CellGrid(
        height=scene["height"],
        width=scene["width"],
        stride=summary["settings"]["stride"],
        window=summary["model"]["window"],
        transform=Affine(*scene["transform"]),
        crs=CRS.from_string(scene["crs"]),
    )


def _catalog(name: str, items: Mapping[str, Mapping[str, Any]], described: bool) -> str:
    catalog = pystac.Catalog(
        id=name,
        title="Land use / land cover",
        description="Maps of land use / land cover, made from Sentinel-2 scenes by geocfl.",
        extra_fields={MAPS: len(items)},
    )
    catalog.clear_links()
    catalog.add_link(pystac.Link(pystac.RelType.ROOT, f"./{NAME}", media_type=pystac.MediaType.JSON))
    if described:
        catalog.add_link(pystac.Link(pystac.RelType.ALTERNATE, f"./{COLLECTION}", media_type=pystac.MediaType.JSON))
    for href, item in items.items():
        link = pystac.Link(pystac.RelType.ITEM, href, media_type=pystac.MediaType.GEOJSON, title=str(item["id"]))
        catalog.add_link(link)
    content = catalog.to_dict(include_self_link=False, transform_hrefs=False)
    return json.dumps(content, indent=2) + "\n"
