"""A QGIS project of a map's products, for QGIS 3.22 and newer; its paths are relative."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from uuid import NAMESPACE_URL, uuid5
from xml.etree import ElementTree as ET

from rasterio.crs import CRS

from geocfl.core.areas import METERS_PER_DEGREE
from geocfl.core.grid import CellGrid
from geocfl.core.legend import Legend, LulcClass, shown_classes
from geocfl.products.about import About
from geocfl.products.formats.qgis_layout import Entry, Sheet, layouts
from geocfl.products.formats.qml import (
    CONFIDENCE_STOPS,
    ENTROPY_STOPS,
    HAIRLINE,
    NOVELTY_STOPS,
    OLDEST_QGIS,
    VALID_STOPS,
    class_renderer,
    lulc_renderer,
    map_tip,
    qgis_document,
    ramp_renderer,
    raster_pipe,
    raster_renderer,
    sets_renderer,
)

WGS84 = CRS.from_epsg(4326)
"""CRS of GeoJSON, whatever the scene's is."""
ELLIPSOID = "EPSG:7030"
"""WGS 84, on which QGIS measures lengths and areas; without it, it measures in the projection."""
SCENE = "Scene, true color"
ABSTRACTS = {
    "Polygons": "Polygons of neighboring cells of one class, with area in hectares and mean confidence.",
    "Confidence": "Probability that the model gives to the class of each cell, 0 to 1.",
    "Entropy": "Uncertainty of each cell, from 0 (certain) to 1 (all classes equally likely).",
    "Novelty": "How unlike the training data each cell is: the percentage of validation patches that are less unlike.",
    "Valid share": "Share of the window of each cell that holds pixels of the scene, 0 to 1.",
    "Size of the prediction set": "Number of classes that each cell may have.",
    "Land use / land cover": "Most probable class of each cell.",
    SCENE: "The scene in red, green and blue, stretched for display.",
}
"""What each layer of a map's project shows, by its name."""
CHANGE_ABSTRACTS = {
    "Change": "Polygons of neighboring cells with the same change of class.",
    "Probability of change": "Probability that the classes of a cell differ, 0 to 1.",
    "Transitions": "Class on the earlier and on the later map of each cell.",
    "Later map": "Most probable class of each cell on the later map.",
    "Earlier map": "Most probable class of each cell on the earlier map.",
}
"""What each layer of a change map's project shows, by its name."""
MARGIN = 0.03
"""Margin around the scene in the opened project, as a fraction of its longer side."""


@dataclass(frozen=True)
class ProjectLayer:
    """A layer of a project.

    Attributes:
        file: Path of its file, relative to the project; in the project of a map, the suffix of the product.
        name: Name in QGIS's list of layers.
        drawing: A raster's pipe, or the elements of a vector layer's style.
        checked: Whether the opened project shows it.
        expanded: Whether the opened project shows its legend.
        part: What follows the file's name in QGIS's name of the source.
        crs: Its coordinate reference system; None is the project's.
        abstract: What it shows, for QGIS's properties and tip of the layer.
    """

    file: str
    name: str
    drawing: tuple[ET.Element, ...]
    checked: bool = False
    expanded: bool = False
    part: str = ""
    crs: CRS | None = None
    abstract: str = ""

    @property
    def is_raster(self) -> bool:
        """Whether it shows a raster."""
        return self.drawing[0].tag == "pipe"


def write_project(
    path: Path,
    stem: str,
    grid: CellGrid,
    legend: Legend,
    present: Collection[str],
    *,
    unclassified: bool = False,
    about: About | None = None,
) -> None:
    """Writes a QGIS project of the products in the same folder, with relative paths.

    Layers from the top: polygons, confidence, entropy, novelty, valid shares and prediction sets, switched off; the
    map, opaque, so that its colors are those of the legend; the scene in true color. The project opens on the scene,
    with a small margin, in the scene's CRS, and has a print layout.

    Args:
        path: QGZ file to write, beside the products.
        stem: Stem of the scene's file name; the products' names begin with it.
        grid: The scene's rectangle and CRS.
        legend: Codes, names and colors.
        present: Suffixes of the existing products, such as ``"_lulc.tif"``; only they get layers.
        unclassified: Whether the map has unclassified cells.
        about: What the map says of itself, for the layers' abstracts and the layout.
    """
    about = about or About()
    layers = [replace(layer, file=f"{stem}{layer.file}") for layer in _layers(legend, present, unclassified, about)]
    shown = next((layer for layer in layers if layer.checked and layer.expanded), None)
    sheet = None
    if shown:
        sheet = Sheet(
            title="Land use / land cover",
            subtitle=" · ".join(filter(None, [stem, about.taken, grid.crs_name()])),
            notes=[about.model, about.limits, about.reading, " ".join(filter(None, [about.credit, about.maker]))],
            legend=[_entry(shown, "Class", shown_classes(legend, unclassified=unclassified))],
        )
    write_layers(path, f"{stem}: land use / land cover", grid.crs, _around(grid), layers, sheet)


def write_change_project(
    path: Path,
    stem: str,
    grid: CellGrid,
    legend: Legend,
    moved: Sequence[LulcClass],
    stayed: Sequence[LulcClass],
    maps: tuple[str, str],
    *,
    probability: bool,
    about: About,
) -> None:
    """Writes a QGIS project of a change map.

    Layers from the top: polygons of change; the probability of change and all transitions, switched off; the later and
    the earlier map, of which the later one is on.

    Args:
        path: QGZ file to write, beside the products.
        stem: Stem of the products' names, which ends in ``_change``.
        grid: The rectangle and CRS.
        legend: Codes, names and colors of both maps.
        moved: Those of the transitions between two classes.
        stayed: Those of the classes that stay.
        maps: Class rasters of the earlier and the later map, relative to the project if they can be.
        probability: Whether there is a raster of the probability of change.
        about: What the map says of itself, for the layers' abstracts and the layout.
    """
    polygons = (class_renderer(moved, outline=HAIRLINE), map_tip("probability" if probability else ""))
    ramp = raster_pipe(ramp_renderer(ENTROPY_STOPS))
    before, after = (raster_pipe(lulc_renderer(legend, unclassified=True)) for _ in maps)
    layers = [
        ProjectLayer(f"{stem}.gpkg", "Change", polygons, checked=True, expanded=True, part="|layername=change"),
        *([ProjectLayer(f"{stem}_probability.tif", "Probability of change", (ramp,))] if probability else []),
        ProjectLayer(f"{stem}.tif", "Transitions", (raster_pipe(lulc_renderer([*moved, *stayed])),)),
        ProjectLayer(maps[1], "Later map", (after,), checked=True),
        ProjectLayer(maps[0], "Earlier map", (before,)),
    ]
    facts = " ".join(filter(None, [about.taken and f"{about.taken}.", about.credit, about.limits]))
    layers = [replace(layer, abstract=f"{CHANGE_ABSTRACTS[layer.name]} {facts}".strip()) for layer in layers]
    legend_of = [_entry(layers[0], "Change", moved)] if moved else []
    sheet = Sheet(
        title="Change of land use / land cover",
        subtitle=" · ".join(filter(None, [stem.removesuffix("_change"), about.taken, grid.crs_name()])),
        notes=[about.limits, about.credit, about.maker],
        legend=[*legend_of, _entry(layers[-2], "Later map", shown_classes(legend, unclassified=True))],
    )
    title = f"{stem.removesuffix('_change')}: change of land use / land cover"
    write_layers(path, title, grid.crs, _around(grid), layers, sheet)


def _around(grid: CellGrid) -> tuple[float, float, float, float]:
    """West, south, east, north of a rectangle with a small margin."""
    west, south, east, north = grid.bounds()
    margin = MARGIN * max(east - west, north - south)
    return west - margin, south - margin, east + margin, north + margin


def write_layers(
    path: Path,
    title: str,
    crs: CRS,
    view: tuple[float, float, float, float],
    layers: Sequence[ProjectLayer],
    sheet: Sheet | None = None,
) -> None:
    """Writes a QGIS project of any layers.

    Args:
        path: QGZ file to write.
        title: Title of the project.
        crs: Its coordinate reference system.
        view: West, south, east, north of what the opened project shows.
        layers: The layers from the top.
        sheet: The print layout, if it has one.
    """
    entry = zipfile.ZipInfo("map.qgs", date_time=(1980, 1, 1, 0, 0, 0))
    entry.create_system, entry.external_attr = 3, 0o644 << 16  # the same bytes on every system
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(entry, _project(title, crs, view, layers, sheet))


def _layers(legend: Legend, present: Collection[str], unclassified: bool, about: About) -> list[ProjectLayer]:
    """The project's layers from the top; one layer for polygons in several formats."""
    polygons = (class_renderer(legend, unclassified=unclassified, outline=HAIRLINE), map_tip())
    classes = raster_pipe(lulc_renderer(legend, unclassified=unclassified))
    # The picture is already stretched. QGIS counts its mask as a fourth band.
    colors = raster_renderer("multibandcolor", redBand="1", greenBand="2", blueBand="3", alphaBand="4")
    vectors = [
        ProjectLayer("_lulc.gpkg", "Polygons", polygons, part="|layername=lulc"),
        ProjectLayer("_lulc_polygons.fgb", "Polygons", polygons),
        ProjectLayer("_lulc_polygons.geojson", "Polygons", polygons, crs=WGS84),
    ]
    rasters = [
        ProjectLayer("_confidence.tif", "Confidence", (raster_pipe(ramp_renderer(CONFIDENCE_STOPS)),)),
        ProjectLayer("_entropy.tif", "Entropy", (raster_pipe(ramp_renderer(ENTROPY_STOPS)),)),
        ProjectLayer("_novelty.tif", "Novelty", (raster_pipe(ramp_renderer(NOVELTY_STOPS, "{:g}%")),)),
        ProjectLayer("_valid.tif", "Valid share", (raster_pipe(ramp_renderer(VALID_STOPS)),)),
        ProjectLayer("_sets.tif", "Size of the prediction set", (raster_pipe(sets_renderer(len(legend))),)),
        ProjectLayer("_lulc.tif", "Land use / land cover", (classes,), checked=True, expanded=True),
        ProjectLayer("_truecolor.tif", SCENE, (raster_pipe(colors),), checked=True),
    ]
    found = [v for v in vectors if v.file in present][:1] + [r for r in rasters if r.file in present]
    facts = {
        name: [
            about.taken and f"{about.taken}.",
            about.credit,
            *([] if name == SCENE else [about.model, about.limits, about.reading]),
        ]
        for name in ABSTRACTS
    }
    return [
        replace(layer, abstract=" ".join(filter(None, [ABSTRACTS[layer.name], *facts[layer.name]]))) for layer in found
    ]


def _entry(layer: ProjectLayer, title: str, classes: Iterable[LulcClass]) -> Entry:
    """A layer in the legend of a print layout."""
    return Entry(_identifier(layer), _source(layer), title, [c.name for c in classes], layer.is_raster)


def _identifier(layer: ProjectLayer) -> str:
    """What QGIS knows the layer by; it may hold those of several projects."""
    return f"geocfl_{uuid5(NAMESPACE_URL, _source(layer))}".replace("-", "_")


def _source(layer: ProjectLayer) -> str:
    return f"{'' if PurePath(layer.file).is_absolute() else './'}{layer.file}{layer.part}"


def _project(
    title: str,
    crs: CRS,
    view: tuple[float, float, float, float],
    layers: Sequence[ProjectLayer],
    sheet: Sheet | None,
) -> str:
    """The text of the project's QGS file."""
    qgis = ET.Element("qgis", version=OLDEST_QGIS, projectname=title)
    ET.SubElement(qgis, "title").text = title
    ET.SubElement(qgis, "projectCrs").append(_crs(crs))
    tree = ET.SubElement(qgis, "layer-tree-group")
    maps = ET.SubElement(qgis, "projectlayers")
    for layer in layers:
        source, identifier = _source(layer), _identifier(layer)
        provider = "gdal" if layer.is_raster else "ogr"
        ET.SubElement(
            tree,
            "layer-tree-layer",
            id=identifier,
            name=layer.name,
            source=source,
            providerKey=provider,
            checked="Qt::Checked" if layer.checked else "Qt::Unchecked",
            expanded=str(int(layer.expanded)),
        )
        element = ET.SubElement(maps, "maplayer", type="raster" if layer.is_raster else "vector")
        for tag, text in (("id", identifier), ("datasource", source), ("layername", layer.name)):
            ET.SubElement(element, tag).text = text
        ET.SubElement(element, "srs").append(_crs(layer.crs or crs))
        ET.SubElement(element, "provider").text = provider
        element.extend(layer.drawing)
        if layer.abstract:
            ET.SubElement(element, "abstract").text = layer.abstract
            ET.SubElement(ET.SubElement(element, "resourceMetadata"), "abstract").text = layer.abstract
    located = crs.is_projected or crs.is_geographic
    properties = ET.SubElement(qgis, "properties")
    for group, name, kind, text in (
        ("Paths", "Absolute", "bool", "false"),
        ("SpatialRefSys", "ProjectionsEnabled", "int", "1"),
        ("Measure", "Ellipsoid", "QString", ELLIPSOID if located else "NONE"),
    ):
        ET.SubElement(ET.SubElement(properties, group), name, type=kind).text = text
    ET.SubElement(qgis, "ProjectViewSettings").append(_view(crs, view))
    if sheet:
        qgis.append(layouts(sheet, view, crs.units_factor[1] if crs.is_projected else METERS_PER_DEGREE))
    return qgis_document(qgis)


def _crs(crs: CRS) -> ET.Element:
    """A CRS by its definition; QGIS finds the authority's code itself."""
    reference = ET.Element("spatialrefsys")
    ET.SubElement(reference, "wkt").text = crs.to_wkt()
    return reference


def _view(crs: CRS, view: tuple[float, float, float, float]) -> ET.Element:
    """The extent of the opened project, until the user saves another."""
    names = ("xmin", "ymin", "xmax", "ymax")
    element = ET.Element("DefaultViewExtent", {name: repr(float(end)) for name, end in zip(names, view, strict=True)})
    element.append(_crs(crs))
    return element
