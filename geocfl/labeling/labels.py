"""Labels: points and polygons of a vector file, each with the class that a field states."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from geocfl.analysis.reproject import Polygons, polygonal
from geocfl.analysis.vectors import check_coordinates, read_features, without_missing
from geocfl.core.legend import MAX_CLASSES, Legend
from geocfl.errors import DataError

log = logging.getLogger("geocfl")

POINT, POLYGON = int(shapely.GeometryType.POINT), int(shapely.GeometryType.POLYGON)
UNCERTAIN = 0.01
"""Part of a polygon that two ways of repairing it may see differently."""
FORBIDDEN = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]+')
"""Characters that the names of folders cannot have on one system or another."""


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels of a vector file.

    Attributes:
        path: The file.
        crs: Its coordinate reference system.
        legend: The classes, each with the folder of its patches.
        shapes: (F,) points and valid polygons, one part of a feature each.
        classes: (F,) int64, code of each one's class.
        features: (F,) int64, number of each one's feature in the file, from 1.
    """

    path: Path
    crs: pyproj.CRS
    legend: Legend
    shapes: Polygons
    classes: NDArray[np.int64]
    features: NDArray[np.int64]

    @property
    def points(self) -> NDArray[np.bool_]:
        """(F,) which of the shapes are points; the others are polygons."""
        kinds: NDArray[np.bool_] = shapely.get_type_id(self.shapes) == POINT
        return kinds


def read_labels(path: Path, by: str, layer: str | None, known: Legend) -> Labels:
    """Reads labels.

    Args:
        path: Points and polygons, in any format that GDAL reads, or GeoParquet.
        by: Field with the labels, texts or whole numbers; features without one are left out.
        layer: Layer of the file; needed where several have geometries.
        known: The legend of a model: labels that name one of its classes get that class's folder.

    Raises:
        DataError: The file cannot be used, or has no labels.
        UsageError: It has no such layer or field.
    """
    series, values = read_features(path, layer, by, what="points and polygons")
    texts = np.array(["" if value is None else str(value).strip() for value in values or ()], object)
    if count := int((texts == "").sum()):
        log.warning("%s: %d feature%s no label in %s", path, count, " has" if count == 1 else "s have", by)
    folders = _folders(path, texts[texts != ""], known)
    if not folders:
        raise DataError(f"{path}: has no label in {by}; fill the field, or pass another as `by`")
    legend = _legend(path, folders)
    codes = {lulc.folder: lulc.code for lulc in legend}
    shapes, index = _parts(path, gpd.GeoSeries(without_missing(path, series), crs=series.crs))
    labeled = texts[index] != ""
    shapes, index = shapes[labeled], index[labeled]
    return Labels(
        path=path,
        crs=pyproj.CRS.from_user_input(series.crs),
        legend=legend,
        shapes=shapes,
        classes=np.array([codes[folders[texts[number]]] for number in index], np.int64),
        features=index + 1,
    )


def _parts(path: Path, series: gpd.GeoSeries) -> tuple[Polygons, NDArray[np.int64]]:
    """Points and valid polygons, and the index of the feature that each is a part of.

    Raises:
        DataError: There are other shapes, or one that cannot be repaired with certainty.
    """
    check_coordinates(path, series)
    shapes, index = _single(series.to_numpy())
    kinds = shapely.get_type_id(shapes)
    if (odd := (kinds != POINT) & (kinds != POLYGON)).any():
        raise DataError(
            f"{path}: feature {index[odd][0] + 1} is a {shapes[odd][0].geom_type}, but labels must be points or "
            "polygons; buffer lines into polygons, or pass another `layer`"
        )
    broken = np.flatnonzero(~shapely.is_valid(shapes))
    for number in broken:
        shapes[number] = _repaired(path, shapes[number], int(index[number]) + 1)
    if len(broken):
        log.info("%s: %d invalid polygon%s repaired", path, len(broken), "" if len(broken) == 1 else "s")
    parts, inner = _single(shapes)
    return parts, index[inner]


def _single(shapes: Polygons) -> tuple[Polygons, NDArray[np.int64]]:
    """The parts of shapes, those of collections in collections too, and the index of the shape of each."""
    parts, index = shapely.get_parts(shapes, return_index=True)
    while (shapely.get_type_id(parts) > POLYGON).any():
        parts, inner = shapely.get_parts(parts, return_index=True)
        index = index[inner]
    there = ~shapely.is_empty(parts)
    return parts[there], index[there].astype(np.int64)


def _repaired(path: Path, polygon: shapely.Geometry, number: int) -> shapely.Geometry:
    """A valid polygon, if it is certain which: a line that crosses itself is, one that runs around twice is not.

    Raises:
        DataError: It is not.
    """
    one, other = (
        polygonal(np.array([shapely.make_valid(polygon, method=method)], object))[0]
        for method in ("structure", "linework")
    )
    if shapely.symmetric_difference(one, other).area > UNCERTAIN * one.area or one.is_empty:
        raise DataError(
            f"{path}: the border of feature {number} crosses itself, so that its inside is not certain; correct it, "
            "such as with QGIS's Check Validity"
        )
    return one


def _folders(path: Path, texts: Iterable[str], known: Legend) -> dict[str, str]:
    """The folder of each label: that of a known class of the same name, or the label itself.

    Whole numbers get zeros in front, so that folders sort as they do.

    Raises:
        DataError: Two labels would get the same folder.
    """
    labels = sorted(set(texts))
    digits = max(map(len, labels), default=0) if all(label.isdecimal() for label in labels) else 0
    classes = {_plain(name): lulc.folder for lulc in known for name in (lulc.name, lulc.folder)}
    folders: dict[str, str] = {}
    taken: dict[str, str] = {}
    for label in labels:
        folder = classes.get(_plain(label)) or FORBIDDEN.sub("_", label).strip(". ").zfill(digits)
        if (other := taken.setdefault(_plain(folder), label)) != label:
            raise DataError(
                f"{path}: the labels {other!r} and {label!r} are too similar; write both alike, or rename one"
            )
        folders[label] = folder
    return folders


def _plain(name: str) -> str:
    """A name without case, spaces and the like, which other systems' folders may not tell apart."""
    return re.sub(r"[\s_\-.]+", "", name).casefold()


def _legend(path: Path, folders: dict[str, str]) -> Legend:
    """The legend of the folders.

    Raises:
        DataError: There are too many, or a name is no class's.
    """
    if len(folders) > MAX_CLASSES:
        raise DataError(f"{path}: has {len(folders)} labels, but a map holds at most {MAX_CLASSES} classes; merge some")
    try:
        return Legend.from_folders(list(folders.values()))
    except ValueError as error:
        raise DataError(f"{path}: {error}; correct the label") from error
