"""A static STAC catalog of the maps in a folder, for pystac, odc-stac, QGIS and STAC Browser."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pystac
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import RasterioError

from geocfl.core.files import parsed_json
from geocfl.core.grid import CellGrid
from geocfl.errors import GeocflError, OutputError
from geocfl.products.files import FILES, SUMMARY
from geocfl.products.formats.attribute_table import read_legend
from geocfl.products.formats.stac import relative_href, write_item
from geocfl.products.storage import ASKING, in_store, output_folder, reaching, write_text

log = logging.getLogger("geocfl")

NAME = "catalog.json"
OURS = "geocfl:maps"
"""Field by which geocfl recognizes its own catalogs: the number of maps."""
LEFT, LEFT_SECONDS = re.compile(r"\.(?:catalog|.+\.stac)\.json\.[0-9a-f]{8}"), 60.0
"""Names of files before `geocfl.products.storage.write_text` moves them, and the seconds that this takes at most."""
REMEDY = "check the address and the store's credentials"


@dataclass(frozen=True)
class CatalogResult:
    """What a catalog holds.

    Attributes:
        path: The catalog's file.
        maps: Stems of the maps in it, sorted by name.
        undated: Stems of the maps left out because nothing says when their scenes were taken.
    """

    path: Path
    maps: tuple[str, ...]
    undated: tuple[str, ...]


def check_catalog(out: str | Path, *, overwrite: bool = False) -> None:
    """Refuses a foreign ``catalog.json`` before the work begins.

    Args:
        out: As for `write_catalog`.
        overwrite: As for `write_catalog`.

    Raises:
        UsageError: `out` is an address that cannot be written to.
        OutputError: Its ``catalog.json`` is not geocfl's.
    """
    path = output_folder(out) / NAME
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
        ours = OURS in parsed_json(text)
    except (ValueError, TypeError):
        ours = False
    if not ours and not overwrite:
        raise OutputError(
            f"{path}: already exists, not made by geocfl; use `overwrite=True` to replace it, or choose another `out`"
        )


def write_catalog(out: str | Path, *, overwrite: bool = False) -> CatalogResult:
    """Writes ``catalog.json``, a STAC 1.1 catalog of every finished map in a folder.

    A map without an Item gets one, ``S.stac.json``, from its summary and its other products. The same maps give the
    same bytes.

    Args:
        out: The folder that maps were written to, as for `geocfl.products.storage.output_folder`.
        overwrite: Replace a ``catalog.json`` that geocfl has not made.

    Returns:
        The maps in it, and those left out.

    Raises:
        UsageError: `out` is an address that cannot be written to.
        OutputError: A foreign ``catalog.json`` exists already, or the folder cannot be read or written.
    """
    check_catalog(out, overwrite=overwrite)
    folder = output_folder(out)
    try:
        with reaching(folder, REMEDY):
            return _write(folder)
    except OSError as error:
        raise OutputError(
            f"{folder}: its maps cannot be cataloged ({error.strerror or error}); make the folder readable and writable"
        ) from error


def _write(folder: Path) -> CatalogResult:
    if in_store(folder):
        folder.fs.invalidate_cache()  # others may have written since
    names = {path.name for path in folder.iterdir()}
    _sweep(folder, names)
    stems = sorted(name.removesuffix(SUMMARY) for name in names if name.endswith(SUMMARY))
    with ThreadPoolExecutor(ASKING) as pool:
        read = zip(stems, pool.map(lambda stem: _summary(folder / f"{stem}{SUMMARY}"), stems), strict=True)
        described = {stem for stem in stems if f"{stem}{FILES['stac']}" in names}
        # A mosaic, which lists its maps, is of no one scene: it is here only with an Item of its own.
        maps = {stem: found for stem, found in read if found and ("maps" not in found or stem in described)}
        bare = {stem: summary for stem, summary in maps.items() if stem not in described}
        dated = {stem: summary for stem, summary in bare.items() if summary["scene"].get("datetime")}
        errors = pool.map(lambda stem: _add_item(folder, stem, dated[stem], names), dated)
        damaged = {stem: error for stem, error in zip(dated, errors, strict=True) if error}
    if damaged:
        stem, error = next(iter(damaged.items()))
        log.warning(
            "%s: lacks %d maps with damaged products, such as %s (%s); map their scenes again with `overwrite=True`",
            folder / NAME, len(damaged), stem, error,
        )  # fmt: skip
    undated = tuple(stem for stem in bare if stem not in dated)
    left_out = {*undated, *damaged}
    found = tuple(stem for stem in maps if stem not in left_out)
    path = folder / NAME
    write_text(path, _catalog(folder.name if in_store(folder) else folder.resolve().name, found))
    return CatalogResult(path, found, undated)


def _sweep(folder: Path, names: set[str]) -> None:
    """Removes files that processes left which were killed while they wrote a catalog or an Item."""
    for name in filter(LEFT.fullmatch, names):
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


def _add_item(folder: Path, stem: str, summary: Mapping[str, Any], names: set[str]) -> Exception | None:
    """Writes a map's Item; returns the error if that fails."""
    assets = {key: f"{stem}{suffix}" for key, suffix in FILES.items() if f"{stem}{suffix}" in names}
    try:
        legend = read_legend(folder / assets["lulc"]) if "lulc" in assets else None
        when = datetime.fromisoformat(summary["scene"]["datetime"])
        write_item(folder / f"{stem}{FILES['stac']}", stem, _grid(summary), legend, summary, assets, when)
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


def _catalog(name: str, stems: Sequence[str]) -> str:
    catalog = pystac.Catalog(
        id=name or "maps",
        title="Land use / land cover",
        description="Maps of land use / land cover, made from Sentinel-2 scenes by geocfl.",
        extra_fields={OURS: len(stems)},
    )
    catalog.clear_links()
    catalog.add_link(pystac.Link(pystac.RelType.ROOT, f"./{NAME}", media_type=pystac.MediaType.JSON))
    for stem in stems:
        target = relative_href(f"{stem}{FILES['stac']}")
        catalog.add_link(pystac.Link(pystac.RelType.ITEM, target, media_type=pystac.MediaType.GEOJSON, title=stem))
    content = catalog.to_dict(include_self_link=False, transform_hrefs=False)
    return json.dumps(content, indent=2) + "\n"
