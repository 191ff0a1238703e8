"""Finds Sentinel-2 scenes of a place and a period in a STAC API, for ``geocfl map --stac-items``."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import shapely
import shapely.geometry
from shapely.affinity import translate

from geocfl.core.files import refuse_existing, replacing
from geocfl.core.keywords import declared
from geocfl.core.progress import Progress, silent
from geocfl.core.table import align
from geocfl.errors import SceneError, UsageError
from geocfl.planning.catalogs import PAGE, catalog_of, check_period, search
from geocfl.planning.choose import ORDERS, Candidate, choose, polygons, square_km
from geocfl.scenes.area import Area, Box
from geocfl.scenes.urls import shown

if TYPE_CHECKING:
    import geopandas as gpd

log = logging.getLogger("geocfl")

LISTED = 40
"""Scenes in the text table."""
GAPS = 3
"""Gaps that are named."""
LEAST_GAP_KM2 = 0.01
"""A window of 100 m; smaller gaps are the rounding of coordinates."""


@dataclass(frozen=True, eq=False, repr=False)
class Found:
    """The scenes that were chosen.

    Attributes:
        path: The file that was written.
        scenes: By tile, each tile's in the order that was asked for.
        searched: Number of scenes that the search found before the choice.
        area_km2: The ground that was asked for, square kilometers.
        gaps: The parts of it that no chosen scene covers, largest first: polygons in degrees.
    """

    path: Path
    scenes: list[Candidate]
    searched: int
    area_km2: float
    gaps: list[shapely.Polygon]

    @property
    def coverage(self) -> float:
        """Share of the ground that the chosen scenes cover, clouds included, 0..1."""
        return 1 - sum(map(square_km, self.gaps)) / self.area_km2

    def frame(self) -> gpd.GeoDataFrame:
        """One row per scene: ``tile``, ``datetime`` (text), ``cloud`` (percent), ``id``, and the footprint."""
        import geopandas as gpd

        rows = [(scene.tile, scene.taken, scene.cloud, scene.id) for scene in self.scenes]
        columns = ["tile", "datetime", "cloud", "id"]
        return gpd.GeoDataFrame(rows, columns=columns, geometry=[s.footprint for s in self.scenes], crs="EPSG:4326")

    def table(self) -> str:
        """The scenes, what they cover and the largest gaps, as plain text."""
        lines: list[tuple[str, ...]] = [("tile", "date", "clouds", "scene")]
        for scene in self.scenes[:LISTED]:
            cloud = "-" if scene.cloud is None else f"{scene.cloud:.1f}%"
            lines.append((scene.tile or "-", scene.taken[:10] or "-", cloud, scene.id))
        parts = [align(lines, text_columns=[0, 1, 3])]
        if len(self.scenes) > LISTED:
            parts.append(f"{len(self.scenes) - LISTED:,} more are in {self.path}")
        share = "all" if not self.gaps else f"{min(self.coverage, 0.9999):.2%}"
        counts = f"{len(self.scenes):,} of the {self.searched:,} scenes found"
        parts.append(f"\n{counts} cover {share} of the {self.area_km2:,.0f} km2.")
        for gap in self.gaps[:GAPS]:
            point = gap.representative_point()
            parts.append(f"gap of {square_km(gap):,.2f} km2 around {point.x:.4f}, {point.y:.4f} (longitude, latitude)")
        if len(self.gaps) > GAPS:
            parts.append(f"{len(self.gaps) - GAPS} smaller gaps")
        return "\n".join(parts)

    def to_json(self) -> dict[str, Any]:
        """The same for programs, with the gaps as GeoJSON."""
        return {
            "file": str(self.path),
            "searched": self.searched,
            "area_km2": self.area_km2,
            "coverage": self.coverage,
            "gaps": shapely.geometry.mapping(shapely.MultiPolygon(self.gaps)) if self.gaps else None,
            "scenes": [{"tile": s.tile, "datetime": s.taken, "cloud": s.cloud, "id": s.id} for s in self.scenes],
        }

    def __repr__(self) -> str:
        return f"<Found: {len(self.scenes)} scenes covering {self.coverage:.1%}; in {self.path}>"


@declared
def find(
    out: str | Path = "items.json",
    *,
    datetime: str,
    bbox: Box | None = None,
    aoi: str | Path | None = None,
    api: str = "earth-search",
    collection: str | None = None,
    max_cloud: float | None = None,
    per_tile: int = 1,
    sort: str = "cloud",
    overwrite: bool = False,
    progress: Progress = silent,
) -> Found:
    """Finds scenes in a STAC API and writes their Items, for `geocfl.map_scenes` as ``stac_items``.

    Of each tile it takes the first scenes in the order and, if these leave gaps because the edge of the swath crosses
    the tile, those after them that fill the gaps. Of an acquisition that was processed several times, it takes the
    latest version.

    Args:
        out: ItemCollection to write (GeoJSON), with the Items as the server has them; links are not signed.
        datetime: A day, a month or a period, such as ``"2022-06-01/2022-08-31"``; UTC.
        bbox: West, south, east, north in degrees; west is greater than east across 180 degrees. Either this or `aoi`.
        aoi: File of polygons in any vector format and CRS.
        api: ``"earth-search"``, ``"planetary-computer"``, ``"copernicus"``, or the URL of a STAC API.
        collection: The collection; known APIs have ``"sentinel-2-l2a"`` by default.
        max_cloud: Percentage of clouds, 0 to 100, up to which scenes are taken; scenes that do not state it are left
            out. None takes all.
        per_tile: Scenes of each tile; 1 or more.
        sort: ``"cloud"`` (clearest first) or ``"newest"``.
        overwrite: Whether to replace `out`.
        progress: Called with the number of scenes found so far.

    Returns:
        The chosen scenes and the gaps they leave.

    Raises:
        UsageError: A parameter is not valid.
        SceneError: The server cannot be reached or does not answer as a STAC API, or there is no scene; or `aoi` cannot
            be read.
        OutputError: `out` exists, or cannot be written.
    """
    if (bbox is None) == (aoi is None):
        raise UsageError("give either `bbox` or `aoi`, the ground to cover", page=PAGE)
    if sort not in ORDERS:
        raise UsageError(f"`sort` is {sort!r} but must be {' or '.join(ORDERS)}")
    if per_tile < 1:
        raise UsageError(f"`per_tile` is {per_tile} but must be 1 or more")
    if max_cloud is not None and not 0 <= max_cloud <= 100:
        raise UsageError(f"`max_cloud` is {max_cloud:g} but must be a percentage from 0 to 100")
    check_period(datetime)
    target, catalog = Path(out), catalog_of(api, collection)
    refuse_existing(target, overwrite=overwrite)
    area = _in_degrees(Area.of_box(bbox) if bbox else Area.of_file(aoi or ""))
    candidates: dict[str, Candidate] = {}
    for box in _boxes(area):
        for item in search(catalog, box, datetime, max_cloud):
            if (scene := _candidate(item)) and scene.footprint.intersects(area):
                candidates.setdefault(scene.id, scene)
                progress(shown(catalog.url), len(candidates), len(candidates), "scene")
    clear = [s for s in candidates.values() if max_cloud is None or (s.cloud is not None and s.cloud <= max_cloud)]
    if not clear:
        limit = "" if max_cloud is None else f" with at most {max_cloud:g}% clouds"
        raise SceneError(
            f"{shown(catalog.url)}: {catalog.collection} has no scene of this place in {datetime}{limit}; widen the "
            "period" + ("" if max_cloud is None else ", or raise `max_cloud`"),
            page=PAGE,
        )
    chosen = choose(clear, area, per_tile, sort)
    missing = polygons(area.difference(shapely.union_all([scene.footprint for scene in chosen])))
    gaps = sorted((gap for gap in missing if square_km(gap) >= LEAST_GAP_KM2), key=square_km, reverse=True)
    collected = {"type": "FeatureCollection", "features": [scene.item for scene in chosen]}
    with replacing(target) as partial:
        partial.write_text(json.dumps(collected, indent=1, sort_keys=True) + "\n", encoding="utf-8", newline="\n")
    if gaps:
        remedy = "a longer period" if max_cloud is None else "a longer period or a higher `max_cloud`"
        log.warning("%s: its scenes leave gaps; %s may close them", target, remedy)
    return Found(target, chosen, len(candidates), square_km(area), gaps)


def _candidate(item: dict[str, Any]) -> Candidate | None:
    """A scene of the search; None, said in the log, for an Item that is not one."""
    try:
        return Candidate.of(item)
    except (ValueError, TypeError, KeyError, AttributeError, shapely.errors.ShapelyError) as error:
        log.warning("left out an Item of the search that is not valid (%s: %s)", type(error).__name__, error)
        return None


def _in_degrees(area: Area) -> shapely.Geometry:
    """The ground as one geometry in degrees, cut at 180 degrees."""
    import geopandas as gpd

    frame = gpd.GeoSeries(list(area.polygons), crs=area.crs)
    if not area.crs.is_geographic:
        frame = frame.segmentize(1 + max(frame.total_bounds[2:] - frame.total_bounds[:2]) / 200)
    ground = shapely.union_all(frame.to_crs("EPSG:4326").to_numpy())
    if ground.is_empty or not square_km(ground):
        raise UsageError(f"{area.name}: has no area; give polygons, or a box with west, south, east, north", page=PAGE)
    beyond = ground.intersection(shapely.box(180, -90, 540, 90))
    return shapely.union(ground.intersection(shapely.box(-180, -90, 180, 90)), translate(beyond, -360))


def _boxes(area: shapely.Geometry) -> Iterator[Box]:
    """Boxes to search: one around all, or one on either side of 180 degrees."""
    west, south, east, north = area.bounds
    if east - west <= 180:
        yield west, south, east, north
        return
    for half in (shapely.box(-180, -90, 0, 90), shapely.box(0, -90, 180, 90)):
        part = area.intersection(half)
        if not part.is_empty:
            yield part.bounds
