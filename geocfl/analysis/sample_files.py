"""The files of a sample: a GeoPackage with a form, a QGIS project, and lists of points for other programs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError

from geocfl.analysis.design import KEY, Design
from geocfl.analysis.strata import Mapped
from geocfl.core.files import replacing
from geocfl.errors import DataError, OutputError, UsageError
from geocfl.products.formats.qgis import ProjectLayer, write_layers
from geocfl.products.formats.qml import raster_pipe, raster_renderer
from geocfl.products.formats.sample_form import FIELDS, sample_qml, sample_style, windows_qml, windows_style
from geocfl.products.formats.vector import (
    cell_squares,
    fixed_date,
    window_squares,
    write_default_styles,
    write_layer,
)
from geocfl.products.formats.vector_formats import GEOMETRY
from geocfl.products.storage import in_store

LAYER, WINDOWS = "sample", "windows"
"""Layers of the GeoPackage."""
REFERENCE = "reference"
"""Field with the answers."""
AROUND = 1.0
"""Margin around the first point in the opened project, in sides of its window."""


def sample_files(out: Path, *, csv: bool, kml: bool) -> list[Path]:
    """The files of a sample: GeoPackage, project, and the lists that are asked for.

    Raises:
        UsageError: `out` has another ending than ``.gpkg``.
    """
    if out.suffix.lower() != ".gpkg":
        raise UsageError(f"`out` is {out} but must end in .gpkg")
    return [out, out.with_suffix(".qgz"), *[out.with_suffix(".csv")] * csv, *[out.with_suffix(".kml")] * kml]


def write_sample(files: Sequence[Path], finished: Mapped, design: Design) -> None:
    """Writes the files of a sample, the GeoPackage last.

    Args:
        files: From `sample_files`.
        finished: The map.
        design: The design.

    Raises:
        OutputError: One cannot be written.
    """
    rows, columns = design.cells[:, 0], design.cells[:, 1]
    squares = cell_squares(finished.grid, rows, columns)
    window = _window(finished)
    windows = window_squares(finished.grid, window, rows, columns) if window else squares
    for path in reversed(files):
        with replacing(path) as partial:
            match path.suffix.lower():
                case ".gpkg":
                    _write_geopackage(partial, design, squares, windows)
                case ".qgz":
                    _write_project(partial, files[0], finished, design, windows)
                case ".csv":
                    _write_csv(partial, design)
                case _:
                    _write_kml(partial, files[0].stem, design, windows)


def read_points(path: Path) -> gpd.GeoDataFrame:
    """The points of a sample, or of another vector file.

    Raises:
        DataError: The file cannot be read, or has no field ``reference``.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file; pass a sample, from geocfl sample, or points with a field {REFERENCE}")
    try:
        layers = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
        layer = LAYER if LAYER in layers or not layers else layers[0]
        points: gpd.GeoDataFrame = pyogrio.read_dataframe(path, layer=layer)
    except (DataSourceError, DataLayerError) as error:
        table = path.suffix.lower() == ".csv"
        remedy = "pass the sample, and this table as `answers`" if table else "pass a sample, from geocfl sample"
        raise DataError(f"{path}: not a vector file that GDAL reads; {remedy}") from error
    if REFERENCE not in points.columns or not isinstance(points, gpd.GeoDataFrame):
        raise DataError(f"{path}: has no points with a field {REFERENCE}; pass a sample, from geocfl sample")
    return points


def read_design(path: Path) -> Design | None:
    """The design in a sample's metadata; None if it has none.

    Raises:
        DataError: It is damaged, or of another version of geocfl.
    """
    try:
        metadata = pyogrio.read_info(path, layer=LAYER).get("dataset_metadata") or {}
    except (DataSourceError, DataLayerError):
        return None
    if KEY not in metadata:
        return None
    try:
        return Design.from_json(metadata[KEY])
    except ValueError as error:
        raise DataError(
            f"{path}: its design cannot be read ({error}); draw another sample, or upgrade geocfl"
        ) from error


def is_answer(values: pd.Series) -> pd.Series:
    """Whether each value of the field of answers is one."""
    return values.notna() & (values.astype(str).str.strip() != "")


def refuse_answered(path: Path) -> None:
    """Refuses to replace a file that holds answers; one that does not exist, or is no sample, holds none.

    Raises:
        OutputError: It does.
    """
    try:
        answers = int(is_answer(read_points(path)[REFERENCE]).sum())
    except DataError:
        return
    if answers:
        raise OutputError(
            f"{path}: holds {answers} answer{'s' * (answers > 1)}, which are not replaced; choose another `out`"
        )


def _window(finished: Mapped) -> int:
    """Side of a window in pixels; 0 if the map does not say."""
    if "summary" not in finished.paths:
        return 0
    return int(finished.summary.get("model", {}).get("window", 0))


def _write_geopackage(path: Path, design: Design, squares: np.ndarray, windows: np.ndarray) -> None:
    names = {c.code: c.name for c in design.classes}
    points = unanswered(
        squares,
        [names[code] for code in design.cells[:, 2].tolist()],
        [design.strata[k].name for k in design.cells[:, 3].tolist()],
        design.crs.to_wkt(),
    )
    squares_of_windows = gpd.GeoDataFrame({"id": points["id"]}, geometry=windows, crs=points.crs)
    with fixed_date():
        metadata = {KEY: design.to_json()}
        write_layer(points.rename_geometry(GEOMETRY), path, LAYER, "Polygon", metadata=metadata)
        write_layer(squares_of_windows.rename_geometry(GEOMETRY), path, WINDOWS, "Polygon")
    write_default_styles(path, {LAYER: sample_qml([c.name for c in design.classes]), WINDOWS: windows_qml()})


def unanswered(
    squares: NDArray[np.object_], map_classes: Sequence[str], strata: Sequence[str], crs: str
) -> gpd.GeoDataFrame:
    """Squares with the fields of `geocfl.products.formats.sample_form`, numbered from 1, without answers."""
    empty = np.full(len(squares), None, object)
    columns = {
        "id": np.arange(1, len(squares) + 1, dtype=np.int32),
        REFERENCE: empty,
        "confidence": empty,
        "comment": empty,
        "map_class": np.array(map_classes, object),
        "stratum": np.array(strata, object),
    }
    return gpd.GeoDataFrame({name: columns[name] for name in FIELDS}, geometry=squares, crs=crs)


def _write_project(path: Path, geopackage: Path, finished: Mapped, design: Design, windows: np.ndarray) -> None:
    """A project that opens on the first point, above the scene in true color if the map has it."""
    names = [c.name for c in design.classes]
    layers = [
        ProjectLayer(geopackage.name, "Sample", tuple(sample_style(names)), checked=True, part=f"|layername={LAYER}"),
        ProjectLayer(geopackage.name, "Windows", tuple(windows_style()), checked=True, part=f"|layername={WINDOWS}"),
        *scene_layers(finished, geopackage.parent),
    ]
    title = f"{geopackage.stem}: sample of {design.map}"
    write_layers(path, title, design.crs, around(windows[0]), layers)


def scene_layers(finished: Mapped, folder: Path) -> list[ProjectLayer]:
    """The scene in true color as a layer of a project in a folder; none if the map has no such picture."""
    scene = finished.paths.get("truecolor")
    if scene is None or in_store(scene):
        return []
    colors = raster_renderer("multibandcolor", redBand="1", greenBand="2", blueBand="3", alphaBand="4")
    return [ProjectLayer(_relative(scene, folder), "Scene, true color", (raster_pipe(colors),), checked=True)]


def around(window: shapely.Geometry) -> tuple[float, float, float, float]:
    """West, south, east, north of the view of a project that opens on a window."""
    west, south, east, north = shapely.bounds(window)
    margin = AROUND * max(east - west, north - south)
    return west - margin, south - margin, east + margin, north + margin


def _relative(path: Path, folder: Path) -> str:
    """A path as seen from a folder; absolute from another drive of Windows."""
    try:
        return Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix()
    except ValueError:
        return path.absolute().as_posix()


def _write_csv(path: Path, design: Design) -> None:
    """Points without the map's classes; the first three columns are those of Collect Earth."""
    centers = design.centers()
    degrees = gpd.GeoSeries(gpd.points_from_xy(*centers.T), crs=design.crs.to_wkt()).to_crs(4326)
    frame = pd.DataFrame(
        {
            "id": np.arange(1, len(centers) + 1),
            "latitude": degrees.y.round(7),
            "longitude": degrees.x.round(7),
            "x": centers[:, 0],
            "y": centers[:, 1],
            REFERENCE: "",
            "confidence": "",
            "comment": "",
        }
    )
    frame.to_csv(path, index=False, lineterminator="\n", encoding="utf-8")


def _write_kml(path: Path, name: str, design: Design, windows: np.ndarray) -> None:
    """Windows as polygons with the number of the point, without the map's classes."""
    degrees = gpd.GeoSeries(windows, crs=design.crs.to_wkt()).to_crs(4326)
    kml = ET.Element("kml", xmlns="http://www.opengis.net/kml/2.2")
    document = ET.SubElement(kml, "Document")
    ET.SubElement(document, "name").text = name
    style = ET.SubElement(document, "Style", id="window")
    ET.SubElement(ET.SubElement(style, "LineStyle"), "color").text = "ff33ddff"
    ET.SubElement(ET.SubElement(style, "PolyStyle"), "fill").text = "0"
    for number, shape in enumerate(degrees, start=1):
        placemark = ET.SubElement(document, "Placemark")
        ET.SubElement(placemark, "name").text = str(number)
        ET.SubElement(placemark, "styleUrl").text = "#window"
        ring = ET.SubElement(ET.SubElement(ET.SubElement(placemark, "Polygon"), "outerBoundaryIs"), "LinearRing")
        ET.SubElement(ring, "coordinates").text = " ".join(
            f"{x:.7f},{y:.7f}" for x, y in shapely.get_coordinates(shape)
        )
    ET.indent(kml)
    ET.ElementTree(kml).write(path, encoding="utf-8", xml_declaration=True)
