"""A table of the STAC Items of many maps, ``catalog.parquet``, in the format stac-geoparquet."""

from __future__ import annotations

import copy
import json
import posixpath
import tempfile
import uuid
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from geocfl.errors import OutputError, UsageError
from geocfl.products.formats.collection import COLLECTION, MAPS
from geocfl.products.storage import in_store, put

PACKAGE = "stac_geoparquet"


def check_package() -> None:
    """Checks that tables of Items can be written.

    Raises:
        UsageError: stac-geoparquet is not installed.
    """
    if not find_spec(PACKAGE):
        raise UsageError("`parquet=True` needs stac-geoparquet; run: pip install stac-geoparquet")


def write_items(path: Path, items: Mapping[str, Mapping[str, Any]], collection: Mapping[str, Any]) -> None:
    """Writes a row per Item, whole or not at all; the same Items give the same bytes.

    References are relative to the table. A link ``canonical`` leads to the Item itself.

    Args:
        path: The file, on a disk or in a store.
        items: Reference to each Item from the table, and the Item; at least one.
        collection: The Collection that describes them, without the links to its Items.

    Raises:
        OutputError: The Items do not fit into a table: they have been edited, and a field has values of two types.

    Source: stac-geoparquet 1.1, https://github.com/radiantearth/stac-geoparquet-spec.
    """
    from pyarrow.lib import ArrowException
    from shapely.errors import ShapelyError
    from stac_geoparquet.arrow import parse_stac_items_to_arrow, to_parquet

    moved = [_moved(href, item, str(collection["id"])) for href, item in items.items()]
    try:
        table = parse_stac_items_to_arrow(moved).read_all()
    except (ArrowException, ShapelyError) as error:
        why = str(error).partition("\n")[0]
        raise OutputError(
            f"{path}: the Items do not fit into a table ({why}); remove the *.stac.json that was edited, "
            "to have it made anew"
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        aside = Path(folder) / path.name if in_store(path) else path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        try:
            to_parquet(table, aside, collections={str(collection["id"]): collection}, compression="zstd")
            put(aside, path)
        finally:
            aside.unlink(missing_ok=True)


def is_ours(path: Path) -> bool:
    """Whether geocfl wrote this table; False without the package that could tell."""
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as file:
            metadata = pq.read_schema(file).metadata or {}
        described = json.loads(metadata.get(b"stac-geoparquet", b"{}")).get("collections", {})
        return any(MAPS in collection for collection in described.values())
    except (OSError, ValueError, AttributeError):
        return False


def _moved(href: str, item: Mapping[str, Any], collection: str) -> dict[str, Any]:
    """An Item with references relative to the table."""
    moved = copy.deepcopy(dict(item))
    folder = posixpath.dirname(href)
    for asset in moved["assets"].values():
        if asset["href"].startswith("./"):
            asset["href"] = f"{folder}/{asset['href'][2:]}"
    links = [
        {"rel": "canonical", "href": href, "type": "application/geo+json"},
        {"rel": "collection", "href": f"./{COLLECTION}", "type": "application/json"},
    ]
    return moved | {"collection": collection, "links": [*moved.get("links", ()), *links]}
