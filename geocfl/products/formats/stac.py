"""A STAC Item of a map, which lists its products and describes them."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import antimeridian
import numpy as np
import pyproj
import pystac
import rasterio
import shapely
from numpy.typing import NDArray
from pystac.extensions.classification import Classification, ClassificationExtension
from pystac.extensions.projection import ProjectionExtension
from pystac.extensions.raster import DataType, RasterBand, RasterExtension, Sampling

from geocfl.core.grid import CellGrid
from geocfl.core.legend import NODATA, WITHHELD, Legend
from geocfl.products.storage import open_raster, write_text

PROCESSING = "https://stac-extensions.github.io/processing/v1.1.0/schema.json"
"""pystac has no class for this extension."""
LEVEL = "L4"
"""Processing level of data that a model derives from lower levels."""
MEDIA = {
    ".tif": (pystac.MediaType.COG, "data"),
    ".gpkg": (pystac.MediaType.GEOPACKAGE, "data"),
    ".zip": ("application/zip", "data"),
    ".parquet": ("application/vnd.apache.parquet", "data"),
    ".fgb": (pystac.MediaType.FLATGEOBUF, "data"),
    ".geojson": (pystac.MediaType.GEOJSON, "data"),
    ".png": (pystac.MediaType.PNG, "overview"),
    ".json": (pystac.MediaType.JSON, "metadata"),
    ".html": (pystac.MediaType.HTML, "metadata"),
    ".xml": (pystac.MediaType.XML, "metadata"),
    ".qml": (pystac.MediaType.XML, "style"),
    ".sld": ("application/vnd.ogc.sld+xml", "style"),
    ".qgz": ("application/x-qgis-project", "metadata"),
}
"""Suffix of a product's file to its media type and role."""
VISUAL = ("truecolor",)
"""Rasters that are pictures, not data."""
TITLES = {
    "lulc": "Land use / land cover, class codes",
    "attributes": "Names and areas of the class codes",
    "lulc_style": "Style of the class codes for QGIS",
    "lulc_sld": "Style of the class codes for map servers",
    "confidence": "Confidence of the class, 0 to 1",
    "confidence_style": "Style of the confidence for QGIS",
    "probabilities": "Probability of each class, 0 to 1",
    "entropy": "Entropy of the probabilities, 0 (certain) to 1",
    "entropy_style": "Style of the entropy for QGIS",
    "novelty": "Unlikeness to the training data, percentile of validation patches",
    "novelty_style": "Style of the novelty for QGIS",
    "valid": "Share of a cell's window that holds pixels of the scene, 0 to 1",
    "valid_style": "Style of the valid share for QGIS",
    "sets": "Prediction sets, size and bit mask of the classes",
    "sets_style": "Style of the size of the prediction sets for QGIS",
    "features": "Principal components of the features of each cell",
    "zarr": "Cells as a Zarr cube in a ZIP file, for xarray",
    "gpkg": "Land use / land cover, polygons with their style",
    "geoparquet": "Land use / land cover, polygons",
    "flatgeobuf": "Land use / land cover, polygons",
    "geojson": "Land use / land cover, polygons in longitude and latitude",
    "polygons_style": "Style of the polygons for QGIS",
    "polygons_sld": "Style of the polygons for map servers",
    "truecolor": "The scene in true color",
    "project": "QGIS project with the products",
    "preview": "Scene and map side by side",
    "report": "The map in a browser, with areas and settings",
    "summary": "Area of each class, settings and origin",
}
SIDE_PIECES = 64
"""Points along a side of a footprint: straight in a UTM zone, it bends in longitude and latitude."""
TOLERANCE, DECIMALS = 1e-5, 7
"""Tolerance in degrees for simplifying a footprint (a meter), and decimals of its coordinates (centimeters)."""


def write_item(
    path: Path,
    stem: str,
    grid: CellGrid,
    legend: Legend | None,
    summary: Mapping[str, Any],
    assets: Mapping[str, str],
    when: datetime | tuple[datetime, datetime],
    elsewhere: Mapping[str, Path] | None = None,
) -> None:
    """Writes a map's STAC Item, with the projection, raster, classification and processing extensions.

    Facts about rasters are read from the rasters, so the files must exist already.

    Args:
        path: JSON file to write, beside the products.
        stem: Stem of the scene's file name; the Item's id.
        grid: Where the cells lie.
        legend: Names and colors of the codes; only the asset ``lulc`` needs them.
        summary: Content of ``S_summary.json``; ``timing`` is not used, since it depends on the clock.
        assets: Key of `TITLES` to the name of its file beside the Item, with a suffix of `MEDIA`.
        when: When the scene was taken, with a time zone; or when the first and the last scene of a mosaic were.
        elsewhere: Files that do not lie beside `path` while it is written, each with its path.

    Source: the STAC specification 1.1, https://github.com/radiantearth/stac-spec.
    """
    geometry = footprint(grid)
    first, last = when if isinstance(when, tuple) else (when, when)
    item = pystac.Item(
        id=stem,
        geometry=shapely.geometry.mapping(geometry) if geometry else None,
        bbox=antimeridian.bbox(geometry) if geometry else None,
        datetime=first if first == last else None,
        start_datetime=None if first == last else first,
        end_datetime=None if first == last else last,
        properties={"title": f"Land use / land cover of {stem}", **_processing(grid, summary)},
        stac_extensions=[PROCESSING],
    )
    if gsd := _resolution(grid.transform, grid):
        item.common_metadata.gsd = gsd
    _project(item, grid)
    for key, name in assets.items():
        media_type, role = MEDIA[Path(name).suffix]
        title = TITLES[key]
        roles = ["visual" if key in VISUAL else role]
        asset = pystac.Asset(relative_href(name), title, media_type=media_type, roles=roles)
        item.add_asset(key, asset)
        if media_type == pystac.MediaType.COG:
            _describe_raster(asset, (elsewhere or {}).get(key, path.parent / name), grid)
        if key == "lulc" and legend:
            ClassificationExtension.ext(asset, add_if_missing=True).classes = _map_classes(legend, summary)
    write_text(path, to_text(item))


def footprint(grid: CellGrid) -> shapely.Polygon | shapely.MultiPolygon | None:
    """The scene's rectangle in longitude and latitude (WGS 84), for a catalog.

    Args:
        grid: Where the scene lies, in any orientation, even around a pole.

    Returns:
        The footprint by RFC 7946: counter-clockwise, and cut at the antimeridian. None if the CRS has no known place
        on Earth, or is undefined where the scene lies.
    """
    try:
        lon, lat = _to_lonlat(grid.crs.to_wkt()).transform(*_ring(grid, SIDE_PIECES))
    except pyproj.exceptions.ProjError:
        return None
    if not np.isfinite([lon, lat]).all():
        return None
    ring = np.column_stack([lon, lat])
    fixed = shapely.Polygon(ring if _is_ccw(ring) else ring[::-1])
    if max(np.abs(lon).max(), np.abs(np.diff(lon)).max()) >= 180:  # else nothing is to cut, which is slow to find
        fixed = antimeridian.fix_polygon(fixed, fix_winding=False, great_circle=False)
    simple = shapely.simplify(shapely.get_parts(fixed), TOLERANCE)
    rounded = shapely.transform(simple, lambda points: points.round(DECIMALS))
    parts = [part for part in rounded if part.area]  # an edge on the antimeridian leaves an empty part
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)


@lru_cache(maxsize=128)  # as many as there are UTM zones
def _to_lonlat(wkt: str) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(wkt, "OGC:CRS84", always_xy=True)


def relative_href(name: str) -> str:
    """A file as a reference relative to the Item (RFC 3987), with other characters percent-encoded.

    Args:
        name: Its name, or its path from the Item's folder, separated by ``/``.
    """
    return "./" + re.sub(r'[\x00-\x20"#%<>?\[\\\]^`{|}\x7f]', lambda found: quote(found[0], safe=""), name)


def class_names(legend: Legend) -> list[str]:
    """Unique names of the classes in the order of codes, of letters, digits and underscores: ``"annual_crop"``."""
    plain = (unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode() for name in legend.names)
    names = [re.sub(r"\W+", "_", name.lower()).strip("_") for name in plain]
    if all(names) and len(set(names)) == len(names):
        return names
    return [f"{name or 'class'}_{c.code}" for c, name in zip(legend, names, strict=True)]


def to_text(item: pystac.Item) -> str:
    """An Item as JSON, without a link to itself."""
    return json.dumps(item.to_dict(include_self_link=False), indent=2) + "\n"


def _ring(grid: CellGrid, pieces: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coordinates x and y of the scene's closed outline, with each side in this many pieces."""
    corners, along = np.arange(5), np.linspace(0, 4, 4 * pieces + 1)
    columns = np.interp(along, corners, np.array([0, 0, 1, 1, 0]) * grid.width)
    rows = np.interp(along, corners, np.array([0, 1, 1, 0, 0]) * grid.height)
    a, b, c, d, e, f = grid.transform[:6]
    return a * columns + b * rows + c, d * columns + e * rows + f


def _is_ccw(ring: NDArray[np.float64]) -> bool:
    """Whether a ring of longitudes and latitudes runs counter-clockwise around the ground inside."""
    lon = np.unwrap(ring[:, 0], period=360)
    turns = round((lon[-1] - lon[0]) / 360)
    if turns:  # around a pole: eastward around the north pole, westward around the south pole
        return bool(turns == np.sign(ring[:, 1].mean()))
    return bool(shapely.is_ccw(shapely.LinearRing(np.column_stack([lon, ring[:, 1]]))))


def _project(item: pystac.Item, grid: CellGrid) -> None:
    """Adds the CRS, by an authority's code if there is one, and the scene's rectangle in it."""
    authority = grid.crs.to_authority()
    projection = ProjectionExtension.ext(item, add_if_missing=True)
    projection.apply(
        code=":".join(authority) if authority else None,
        wkt2=None if authority else pyproj.CRS.from_wkt(grid.crs.to_wkt()).to_wkt(),
        bbox=list(grid.bounds()),
        geometry=shapely.geometry.mapping(shapely.Polygon(np.column_stack(_ring(grid, 1)))),
    )


def _describe_raster(asset: pystac.Asset, path: Path, grid: CellGrid) -> None:
    """Adds size, place and bands of the file."""
    with open_raster(path) as dataset:
        projection = ProjectionExtension.ext(asset)
        projection.shape = list(dataset.shape)
        projection.transform = list(dataset.transform)[:6]
        bands = []
        for index in dataset.indexes:
            scale = dataset.scales[index - 1]
            band = RasterBand.create(
                data_type=DataType(dataset.dtypes[index - 1]),
                nodata=dataset.nodatavals[index - 1],
                sampling=Sampling.AREA,
                scale=None if scale == 1 else scale,
                unit=None if scale == 1 else "1",
                spatial_resolution=_resolution(dataset.transform, grid),
            )
            if description := dataset.descriptions[index - 1]:
                band.properties["description"] = description
            bands.append(band)
    RasterExtension.ext(asset, add_if_missing=True).bands = bands


def _resolution(transform: rasterio.Affine, grid: CellGrid) -> float | None:
    """Meters on the ground from one pixel to the next along the columns; None if the CRS is geographic."""
    if not grid.crs.is_projected:
        return None
    return round(math.hypot(transform.b, transform.e) * grid.ground_meters_per_unit(), 6)


def _map_classes(legend: Legend, summary: Mapping[str, Any]) -> list[Classification]:
    """Every code that the raster may hold, with its number of cells and their percentage of all cells with data."""
    withheld, empty = summary["unclassified"]["cells"], summary["nodata"]["cells"]
    data = sum(row["cells"] for row in summary["classes"]) + withheld

    def classified(code: int, name: str, title: str, color: str, cells: int) -> Classification:
        percentage = round(100 * cells / data, 4) if data else 0.0
        hint = color[1:].upper()
        return Classification.create(code, name=name, title=title, color_hint=hint, percentage=percentage, count=cells)

    names = class_names(legend)
    classes = [Classification.create(NODATA, name="nodata", title="No data", nodata=True, count=empty)]
    for c, name, row in zip(legend, names, summary["classes"], strict=True):
        classes.append(classified(c.code, name, c.name, c.color, row["cells"]))
    if withheld:
        classes.append(classified(WITHHELD.code, "unclassified", WITHHELD.name, WITHHELD.color, withheld))
    return classes


def _processing(grid: CellGrid, summary: Mapping[str, Any]) -> dict[str, Any]:
    """The processing extension's fields."""
    scene, model = _plain(summary["scene"]["file"]), _plain(summary["model"]["name"])
    lineage = (
        f"Cells of {grid.stride} x {grid.stride} pixels of {scene}, each of the class that the model {model} gives "
        f"to the {grid.window} x {grid.window} pixels around it."
    )
    if "maps" in summary:
        rule = summary["settings"]["overlap"]
        lineage = f"Mosaic of {len(summary['maps'])} maps of the model {model}, by the rule {rule} where they overlap."
    return {
        "processing:level": LEVEL,
        "processing:lineage": lineage,
        "processing:software": {"geocfl": summary["geocfl"]},
    }


def _plain(text: str) -> str:
    """Text escaped for CommonMark, which lineages may be read as."""
    return re.sub(r"([\\`*\[\]<>&~])", r"\\\1", text)
