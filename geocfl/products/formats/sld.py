"""OGC styles for map servers: SLD 1.0.0, for GeoServer and MapServer."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from geocfl.core.legend import Legend, LulcClass, shown_classes

RASTER, POLYGONS = "lulc", "lulc_polygons"
"""Names of the styled layers. MapServer applies a style to its layer of the same name, GeoServer to any layer."""
_NAMESPACES = {
    "xmlns": "http://www.opengis.net/sld",
    "xmlns:ogc": "http://www.opengis.net/ogc",
    "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
    "xsi:schemaLocation": "http://www.opengis.net/sld http://schemas.opengis.net/sld/1.0.0/StyledLayerDescriptor.xsd",
}
_TITLE = "Land use / land cover"


def lulc_sld(legend: Legend, *, unclassified: bool = False) -> str:
    """Style of the class raster: a color map of exact values, each with its class name as label.

    Args:
        legend: Codes, names and colors.
        unclassified: Whether the map, and so the style, has unclassified cells.
    """
    rule = ET.Element("Rule")
    color_map = ET.SubElement(ET.SubElement(rule, "RasterSymbolizer"), "ColorMap")
    # GeoServer's type; other servers apply each color up to the next code, which is the same for whole codes.
    color_map.set("type", "values")
    for c in shown_classes(legend, unclassified=unclassified):
        ET.SubElement(color_map, "ColorMapEntry", color=c.color, quantity=str(c.code), label=c.name)
    return _document(RASTER, [rule])


def polygons_sld(legend: Legend, *, unclassified: bool = False) -> str:
    """Style of the polygons: a rule for each ``class_code``, titled with the class name.

    Args:
        legend: Codes, names and colors.
        unclassified: Whether the map, and so the style, has unclassified polygons.
    """
    return _document(POLYGONS, [_rule(c) for c in shown_classes(legend, unclassified=unclassified)])


def _rule(shown: LulcClass) -> ET.Element:
    """Rule for the polygons of one class; the outline has the color of the fill, so that no seams show."""
    rule = ET.Element("Rule")
    ET.SubElement(rule, "Name").text = shown.name
    ET.SubElement(rule, "Title").text = shown.name
    equal = ET.SubElement(ET.SubElement(rule, "ogc:Filter"), "ogc:PropertyIsEqualTo")
    ET.SubElement(equal, "ogc:PropertyName").text = "class_code"
    ET.SubElement(equal, "ogc:Literal").text = str(shown.code)
    symbolizer = ET.SubElement(rule, "PolygonSymbolizer")
    for tag, parameters in (
        ("Fill", {"fill": shown.color}),
        ("Stroke", {"stroke": shown.color, "stroke-width": "0.3"}),
    ):
        painted = ET.SubElement(symbolizer, tag)
        for name, value in parameters.items():
            ET.SubElement(painted, "CssParameter", name=name).text = value
    return rule


def _document(layer: str, rules: list[ET.Element]) -> str:
    """The text of an SLD file with one style of one layer."""
    root = ET.Element("StyledLayerDescriptor", _NAMESPACES, version="1.0.0")
    named = ET.SubElement(root, "NamedLayer")
    ET.SubElement(named, "Name").text = layer
    style = ET.SubElement(named, "UserStyle")
    ET.SubElement(style, "Name").text = layer
    ET.SubElement(style, "Title").text = _TITLE
    ET.SubElement(style, "FeatureTypeStyle").extend(rules)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'
