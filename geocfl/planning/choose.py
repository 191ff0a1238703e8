"""Chooses scenes from a search: one or several a tile, the clearest or newest first, and more where they leave gaps."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyproj
import shapely
import shapely.geometry

SLIVER = 0.01
"""Part of a tile's ground in the area that another scene must add to be taken beyond the number wanted."""
SAME = 0.5
"""Two products of a tile and a moment that share more than this part of the smaller one are versions of each other."""
ORDERS: dict[str, Callable[[Candidate], tuple[Any, ...]]] = {
    "cloud": lambda scene: (scene.cloud is None, scene.cloud, _descending(scene.taken), scene.id),
    "newest": lambda scene: (_descending(scene.taken), scene.cloud is None, scene.cloud, scene.id),
}
"""Names of orders to how they sort."""
_TILE = re.compile(r"(?:^|[_-])T?(\d{1,2}[C-HJ-NP-X][A-HJ-NP-Z][A-HJ-NP-V])(?=[_-]|$)")
_GEOD = pyproj.Geod(ellps="WGS84")


@dataclass(frozen=True)
class Candidate:
    """A scene that a search found.

    Attributes:
        item: Its STAC Item, as the server has it.
        id: The Item's.
        tile: Its tile, such as ``"33TUL"``; empty if it states none.
        taken: When it was taken, as the Item has it; empty if it does not say.
        cloud: Percentage of clouds; None if it does not say.
        footprint: Its ground in degrees.
    """

    item: dict[str, Any]
    id: str
    tile: str
    taken: str
    cloud: float | None
    footprint: shapely.Geometry

    @classmethod
    def of(cls, item: dict[str, Any]) -> Candidate:
        """What an Item says.

        Raises:
            ValueError, TypeError, KeyError, AttributeError: It is not an Item with a geometry or a box.
        """
        properties = item["properties"]
        geometry = item.get("geometry")
        shape = shapely.geometry.shape(geometry) if geometry else shapely.box(*item["bbox"][:2], *item["bbox"][-2:])
        cloud = properties.get("eo:cloud_cover")
        return cls(
            item,
            str(item["id"]),
            _tile(str(item["id"]), properties),
            str(properties.get("datetime") or properties.get("start_datetime") or ""),
            None if cloud is None else float(cloud),
            shapely.make_valid(shapely.force_2d(shape)),
        )


def choose(found: Iterable[Candidate], area: shapely.Geometry, per_tile: int, sort: str) -> list[Candidate]:
    """Some scenes of each tile: the first in the order, and those after them that fill the gaps they leave.

    Args:
        found: Scenes, in any order. Of several versions of one acquisition, the latest counts.
        area: The ground wanted, in degrees.
        per_tile: Scenes of each tile, >= 1.
        sort: A key of `ORDERS`.

    Returns:
        The scenes by tile, each tile's in the order.
    """
    tiles: dict[str, list[Candidate]] = defaultdict(list)
    for scene in _latest(found):
        tiles[scene.tile or scene.id].append(scene)
    return [
        scene for tile in sorted(tiles) for scene in _of_tile(sorted(tiles[tile], key=ORDERS[sort]), area, per_tile)
    ]


def square_km(ground: shapely.Geometry) -> float:
    """The area of polygons in degrees on the ellipsoid, square kilometers."""
    return sum(
        abs(_GEOD.geometry_area_perimeter(shapely.geometry.polygon.orient(polygon))[0]) / 1e6
        for polygon in polygons(ground)
    )


def polygons(ground: shapely.Geometry) -> list[shapely.Polygon]:
    """The polygons in a geometry; of what intersections leave, lines and points have no area."""
    return [part for part in shapely.get_parts(shapely.get_parts([ground])) if part.geom_type == "Polygon"]


def _of_tile(scenes: Sequence[Candidate], area: shapely.Geometry, per_tile: int) -> list[Candidate]:
    wanted = shapely.union_all([scene.footprint for scene in scenes]).intersection(area)
    chosen = list(scenes[:per_tile])
    missing, least = wanted.difference(shapely.union_all([s.footprint for s in chosen])), SLIVER * square_km(wanted)
    for scene in scenes[per_tile:]:
        if square_km(missing) < least or missing.is_empty:
            break
        if square_km(missing.intersection(scene.footprint)) >= least:
            chosen.append(scene)
            missing = missing.difference(scene.footprint)
    return chosen


def _latest(found: Iterable[Candidate]) -> list[Candidate]:
    """The latest version of each acquisition of a tile: products are processed again, with later baselines.

    Products of one moment on different ground are parts of an acquisition, which ends of data strips divide.
    """
    versions: dict[tuple[str, str], list[Candidate]] = defaultdict(list)
    for scene in sorted(found, key=_version, reverse=True):
        kept = versions[scene.tile or scene.id, scene.taken[:19] or scene.id]
        if not any(_same_ground(scene, other) for other in kept):
            kept.append(scene)
    return [scene for kept in versions.values() for scene in kept]


def _same_ground(one: Candidate, other: Candidate) -> bool:
    common = one.footprint.intersection(other.footprint).area
    return bool(common > SAME * min(one.footprint.area, other.footprint.area))


def _version(scene: Candidate) -> tuple[str, ...]:
    properties = scene.item["properties"]
    return (*(str(properties.get(key) or "") for key in ("s2:processing_baseline", "updated", "created")), scene.id)


def _tile(name: str, properties: dict[str, Any]) -> str:
    """The MGRS tile of an Item, with two digits; empty if nothing states one."""
    parts = [properties.get(f"mgrs:{part}") for part in ("utm_zone", "latitude_band", "grid_square")]
    stated = (
        str(properties.get("grid:code", "")).removeprefix("MGRS-"),
        str(properties.get("s2:mgrs_tile", "")),
        "".join(map(str, parts)) if None not in parts else "",
        name,
    )
    return next((match[1].zfill(5) for text in stated if (match := _TILE.search(text))), "")


def _descending(text: str) -> tuple[int, ...]:
    """Sorts texts from last to first."""
    return (*(-ord(character) for character in text), 1)
