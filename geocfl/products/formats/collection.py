"""A STAC Collection of many maps: where and when they lie, and what their Items hold."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pystac

from geocfl.products.formats.stac import TITLES

COLLECTION = "collection.json"
MAPS = "geocfl:maps"
"""Field by which geocfl recognizes its own catalogs: the number of maps."""
WORLD = [-180.0, -90.0, 180.0, 90.0]
"""Extent of maps whose place on Earth is unknown."""


def collection_text(name: str, items: Mapping[str, Mapping[str, Any]], parquet: str | None = None) -> str:
    """A Collection as JSON, without links to other files but its Items.

    Args:
        name: Its id.
        items: Reference to each Item from the Collection, and the Item; at least one.
        parquet: Reference to a table of the Items, if there is one.

    Returns:
        The same Items give the same text.

    Source: the STAC specification 1.1, https://github.com/radiantearth/stac-spec/tree/v1.1.0/collection-spec.
    """
    contents = list(items.values())
    times = sorted(time for item in contents for time in times_of(item))
    collection = pystac.Collection(
        id=name,
        title="Land use / land cover",
        description="Maps of land use / land cover, made from Sentinel-2 scenes by geocfl.",
        license="other",
        keywords=["land cover", "land use", "Sentinel-2"],
        extent=pystac.Extent(
            pystac.SpatialExtent([box_of(item["bbox"] for item in contents if item.get("bbox"))]),
            pystac.TemporalExtent([[times[0], times[-1]]]),
        ),
        summaries=pystac.Summaries(_summaries(contents)),
        extra_fields={MAPS: len(contents), "item_assets": _item_assets(contents)},
    )
    collection.clear_links()
    for href, item in items.items():
        link = pystac.Link(pystac.RelType.ITEM, href, media_type=pystac.MediaType.GEOJSON, title=str(item["id"]))
        collection.add_link(link)
    if parquet:
        title, kind = "The Items as a table (stac-geoparquet)", "application/vnd.apache.parquet"
        collection.add_asset("items", pystac.Asset(parquet, title, media_type=kind, roles=["stac-items"]))
    content = collection.to_dict(include_self_link=False, transform_hrefs=False)
    return json.dumps(content, indent=2) + "\n"


def times_of(item: Mapping[str, Any]) -> tuple[datetime, datetime]:
    """When the first and the last scene of an Item were taken.

    Raises:
        LookupError, TypeError, ValueError: It does not say.
    """
    known = item["properties"]
    ends = ("datetime", "datetime") if known["datetime"] else ("start_datetime", "end_datetime")
    first, last = (datetime.fromisoformat(known[end]) for end in ends)
    return first.replace(tzinfo=first.tzinfo or UTC), last.replace(tzinfo=last.tzinfo or UTC)


def box_of(boxes: Iterable[Sequence[float]]) -> list[float]:
    """The smallest box around boxes, [west, south, east, north] in degrees; `WORLD` if there are none.

    Its west is larger than its east if it crosses the antimeridian, as theirs may be (RFC 7946, section 5.2).
    """
    listed = list(boxes)
    if not listed:
        return WORLD
    south, north = min(box[1] for box in listed), max(box[3] for box in listed)
    # A box over the antimeridian is one piece on each side of it.
    pieces = sorted(
        piece
        for box in listed
        for piece in ([(box[0], box[2])] if box[0] <= box[2] else [(box[0], 180.0), (-180.0, box[2])])
    )
    first, reached = pieces[0]
    gaps = []  # width, east end and west end of each part of the circle without a box
    for start, end in [*pieces[1:], (first + 360, first + 360)]:
        if start > reached:
            gaps.append((start - reached, start, reached))
        reached = max(reached, end)
    if not gaps:
        return [-180.0, south, 180.0, north]
    _, start, end = max(gaps)
    return [round(start - 360, 7) if start >= 180 else start, south, end, north]


def _summaries(items: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The CRSs and resolutions of the Items."""
    found = {field: {item["properties"].get(field) for item in items} - {None} for field in ("gsd", "proj:code")}
    return {field: sorted(values) for field, values in found.items() if values}


def _item_assets(items: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Type, title and roles of each asset that an Item has, in the order of the products."""
    found: dict[str, dict[str, Any]] = {}
    for item in items:
        for key, asset in item["assets"].items():
            if key not in found:
                found[key] = {field: asset[field] for field in ("title", "type", "roles") if field in asset}
    return {
        key: found[key]
        for key in sorted(found, key=lambda key: (list(TITLES).index(key) if key in TITLES else 99, key))
    }
