"""QGIS layer styles: class names and colours without a click, from QGIS 3.22 on."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

from geocfl.legend import UNCLASSIFIED, Legend, LulcClass

WITHHELD = LulcClass(UNCLASSIFIED, "Unclassified", "", "#d9d9d9")
"""How unclassified cells are shown everywhere."""
OLDEST_QGIS = "3.22.0"
"""Newer versions convert what has changed since."""
CONFIDENCE_STOPS = (
    (0.0, "#440154"),
    (0.25, "#3b528b"),
    (0.5, "#21918c"),
    (0.75, "#5ec962"),
    (1.0, "#fde725"),
)
"""Confidence and colour: viridis, even in lightness and legible to colour-blind eyes."""


def shown_classes(legend: Legend, *, unclassified: bool) -> list[LulcClass]:
    """The classes of a legend, followed by `WITHHELD` where the map has unclassified cells."""
    return [*legend, WITHHELD] if unclassified else list(legend)


def write_lulc_style(path: Path, legend: Legend, *, unclassified: bool = False) -> None:
    """Writes the class raster's style; QGIS applies ``S_lulc.qml`` to ``S_lulc.tif`` by itself.

    Args:
        path: QML file to write.
        legend: Codes, names and colours.
        unclassified: Whether the map has unclassified cells, and the style an entry for them.
    """
    path.write_text(lulc_qml(legend, unclassified=unclassified), encoding="utf-8", newline="\n")


def write_confidence_style(path: Path) -> None:
    """Writes the confidence raster's style to a QML file."""
    path.write_text(confidence_qml(), encoding="utf-8", newline="\n")


def lulc_qml(legend: Legend, *, unclassified: bool = False) -> str:
    """Style of the class raster: a palette with one named entry a class."""
    renderer = ET.Element("rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1", nodataColor="")
    palette = ET.SubElement(renderer, "colorPalette")
    for c in shown_classes(legend, unclassified=unclassified):
        ET.SubElement(palette, "paletteEntry", value=str(c.code), label=c.name, color=c.color, alpha="255")
    return _raster_qml(renderer)


def confidence_qml() -> str:
    """Style of the confidence raster: a continuous ramp over 0..1, the values once QGIS has applied the scale."""
    renderer = ET.Element(
        "rasterrenderer",
        type="singlebandpseudocolor",
        band="1",
        opacity="1",
        alphaBand="-1",
        nodataColor="",
        classificationMin="0",
        classificationMax="1",
    )
    origin = ET.SubElement(renderer, "minMaxOrigin")
    for tag, text in (("limits", "None"), ("extent", "WholeRaster"), ("statAccuracy", "Estimated")):
        ET.SubElement(origin, tag).text = text
    shader = ET.SubElement(ET.SubElement(renderer, "rastershader"), "colorrampshader")
    # INTERPOLATED, over the whole range (classification mode 1: continuous).
    shader.attrib.update(
        colorRampType="INTERPOLATED", classificationMode="1", clip="0", minimumValue="0", maximumValue="1"
    )
    for value, color in CONFIDENCE_STOPS:
        ET.SubElement(shader, "item", value=str(value), label=f"{value:.0%}", color=color, alpha="255")
    return _raster_qml(renderer)


def polygons_qml(legend: Legend, *, unclassified: bool = False) -> str:
    """Style of the polygon layer: categories by ``class_code``, labelled with the class names."""
    qgis = _qgis("Symbology")
    renderer = ET.SubElement(
        qgis, "renderer-v2", type="categorizedSymbol", attr="class_code", enableorderby="0", forceraster="0"
    )
    categories = ET.SubElement(renderer, "categories")
    symbols = ET.SubElement(renderer, "symbols")
    for index, c in enumerate(shown_classes(legend, unclassified=unclassified)):
        attributes = {"value": str(c.code), "symbol": str(index), "label": c.name, "render": "true", "type": "long"}
        ET.SubElement(categories, "category", attributes)
        symbols.append(_fill(str(index), c))
    return _document(qgis)


def _fill(name: str, shown: LulcClass) -> ET.Element:
    """A plain fill; its outline has the same colour, so that no seams show between neighbours."""
    rgba = ",".join(map(str, (*shown.rgb, 255)))
    symbol = ET.Element("symbol", type="fill", name=name, alpha="1", clip_to_extent="1", force_rhr="0")
    layer = ET.SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "locked": "0", "pass": "0"})
    options = ET.SubElement(layer, "Option", type="Map")
    for key, value in (
        ("color", rgba),
        ("style", "solid"),
        ("outline_color", rgba),
        ("outline_style", "solid"),
        ("outline_width", "0.1"),
        ("outline_width_unit", "MM"),
        ("joinstyle", "miter"),
    ):
        ET.SubElement(options, "Option", type="QString", name=key, value=value)
    return symbol


def _raster_qml(renderer: ET.Element) -> str:
    """A raster style around a renderer: cells stay squares at every zoom."""
    qgis = _qgis("Symbology")
    pipe = ET.SubElement(qgis, "pipe")
    provider = ET.SubElement(pipe, "provider")
    ET.SubElement(
        provider,
        "resampling",
        enabled="false",
        zoomedInResamplingMethod="nearestNeighbour",
        zoomedOutResamplingMethod="nearestNeighbour",
        maxOversampling="2",
    )
    pipe.append(renderer)
    ET.SubElement(pipe, "brightnesscontrast", brightness="0", contrast="0", gamma="1")
    ET.SubElement(pipe, "huesaturation", saturation="0", grayscaleMode="0", colorizeOn="0")
    ET.SubElement(pipe, "rasterresampler", maxOversampling="2")
    return _document(qgis)


def _qgis(categories: str) -> ET.Element:
    """Root of a style."""
    return ET.Element("qgis", version=OLDEST_QGIS, styleCategories=categories)


def _document(qgis: ET.Element) -> str:
    """A style as the text of a QML file."""
    ET.indent(qgis)
    text = ET.tostring(qgis, encoding="unicode")
    return f"<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n{text}\n"
