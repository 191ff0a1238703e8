"""QGIS layer styles, which QGIS 3.22 and newer load by themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np

from geocfl.core.legend import Legend, LulcClass, shown_classes

OLDEST_QGIS = "3.22.0"
"""Version of the styles; newer versions of QGIS convert them."""
QGIS_DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>"
CONFIDENCE_STOPS = (
    (0.0, "#440154"),
    (0.25, "#3b528b"),
    (0.5, "#21918c"),
    (0.75, "#5ec962"),
    (1.0, "#fde725"),
)
"""Confidence and color: viridis, which is even in lightness and legible for color-blind readers."""
ENTROPY_STOPS = (
    (0.0, "#ffffb2"),
    (0.25, "#fecc5c"),
    (0.5, "#fd8d3c"),
    (0.75, "#f03b20"),
    (1.0, "#bd0026"),
)
"""Entropy and color: ColorBrewer's YlOrRd, from pale (certain) to red (uncertain)."""
NOVELTY_STOPS = (
    (0.0, "#f7f4f9"),
    (50.0, "#d4b9da"),
    (90.0, "#df65b0"),
    (95.0, "#ce1256"),
    (100.0, "#67001f"),
)
"""Novelty in percent and color: ColorBrewer's PuRd, pale up to where one validation patch in ten is more unlike."""
VALID_STOPS = (
    (0.0, "#ffffe5"),
    (0.25, "#d9f0a3"),
    (0.5, "#78c679"),
    (0.75, "#238443"),
    (1.0, "#004529"),
)
"""Valid share and color: ColorBrewer's YlGn, dark where the whole window holds pixels."""
SET_COLORS = ("#ffffd9", "#c7e9b4", "#41b6c4", "#225ea8", "#081d58")
"""Colors of prediction sets from one class to all: ColorBrewer's YlGnBu."""
EMPTY_SET = "#d7301f"
"""Color of empty prediction sets."""
CELL_OUTLINE = "if(@map_scale < 100000, '35,35,35,128', @symbol_color)"
"""Outline of a cell's square: visible only at scales where the square is some millimeters wide."""
HAIRLINE = "if(@map_scale < 250000, '35,35,35,140', @symbol_color)"
"""Outline of polygons: thin and dark, at scales where most polygons are some millimeters wide."""
ZONE_OUTLINE = "'35,35,35,255'"
"""Outline of zones, at all scales."""
NO_CLASS = LulcClass(0, "No class", "", "#ffffff")
"""How zones without any class are shown."""

_OptionValue = str | int | bool | Mapping[str, "_OptionValue"]


def write_style(path: Path, style: str) -> None:
    """Writes a style from this module or from `geocfl.products.formats.sld`.

    QGIS applies a QML file to the layer with the same stem beside it: ``S_lulc.qml`` to ``S_lulc.tif``,
    ``S_lulc_polygons.qml`` to ``S_lulc_polygons.geojson`` and ``S_lulc_polygons.fgb``.

    Args:
        path: File to write.
        style: Its text.
    """
    path.write_text(style, encoding="utf-8", newline="\n")


def lulc_qml(legend: Iterable[LulcClass], *, unclassified: bool = False) -> str:
    """Style of the class raster: a palette with one named entry per class."""
    return _raster_qml(lulc_renderer(legend, unclassified=unclassified))


def confidence_qml() -> str:
    """Style of the confidence raster: a continuous ramp over 0..1, the values after QGIS has applied the scale."""
    return _raster_qml(ramp_renderer(CONFIDENCE_STOPS))


def entropy_qml() -> str:
    """Style of the entropy raster: a continuous ramp over 0..1, high where the model is uncertain."""
    return _raster_qml(ramp_renderer(ENTROPY_STOPS))


def novelty_qml() -> str:
    """Style of the novelty raster: a continuous ramp over 0..100 percent, dark where unlike the training data."""
    return _raster_qml(ramp_renderer(NOVELTY_STOPS, "{:g}%"))


def valid_qml() -> str:
    """Style of the raster of valid shares: a continuous ramp over 0..1, pale where little of a window holds pixels."""
    return _raster_qml(ramp_renderer(VALID_STOPS))


def sets_qml(classes: int) -> str:
    """Style of the sizes of prediction sets: a palette with an entry for each size from none to all classes."""
    return _raster_qml(sets_renderer(classes))


def change_polygons_qml(classes: Iterable[LulcClass], *, probability: bool) -> str:
    """Style of polygons of change: categories by ``class_code``, with a map tip."""
    return _vector_qml(class_renderer(classes, outline=HAIRLINE), map_tip("probability" if probability else ""))


def probability_qml() -> str:
    """Style of the probability of change: a continuous ramp over 0..1, dark where change is certain."""
    return _raster_qml(ramp_renderer(ENTROPY_STOPS))


def polygons_qml(legend: Legend, *, unclassified: bool = False) -> str:
    """Style of the polygon layer: categories by ``class_code``, labeled with the class names, with a map tip."""
    return _vector_qml(class_renderer(legend, unclassified=unclassified, outline=HAIRLINE))


def windows_qml(legend: Legend, *, unclassified: bool = False) -> str:
    """Style of the layer of cells: like the polygons', with outlines around the cells when zoomed in."""
    return _vector_qml(class_renderer(legend, unclassified=unclassified, outline=CELL_OUTLINE))


def zones_qml(legend: Sequence[LulcClass], fields: Sequence[str], name: str) -> str:
    """Style of zones with hectares of classes: the color of the largest class, a label, and a tip with all shares.

    Args:
        legend: Codes, names and colors.
        fields: Fields of their hectares, in the same order.
        name: Field of the zones' names.
    """
    hectares = [f"coalesce({_quoted(field)}, 0)" for field in fields]
    of_all = f"array({', '.join(hectares)})"
    largest = f"if(array_max({of_all}) > 0, array_find({of_all}, array_max({of_all})) + 1, 0)"
    renderer = class_renderer([*legend, NO_CLASS], outline=ZONE_OUTLINE, attribute=largest)
    total = " + ".join(hectares)
    rows = [
        f"if({area} > 0.005 * ({total}), '<br>' || {_text(escape(c.name))} || ' ' || "
        f"round(100 * {area} / ({total}), 1) || '%, ' || format_number({area}, 1) || '&nbsp;ha', '')"
        for c, area in zip(legend, hectares, strict=True)
    ]
    tip = ET.Element("mapTip")
    title = f"replace(replace(to_string({_quoted(name)}), '&', '&amp;'), '<', '&lt;')"
    tip.text = f"<b>[% {title} %]</b>[% {' || '.join(rows)} %]"
    labeling = ET.Element("labeling", type="simple")
    settings = ET.SubElement(labeling, "settings")
    style = ET.SubElement(
        settings, "text-style", fieldName=name, isExpression="0", fontSize="9", fontSizeUnit="Point",
        textColor="31,41,51,255", textOpacity="1",
    )  # fmt: skip
    ET.SubElement(
        style, "text-buffer", bufferDraw="1", bufferSize="0.8", bufferSizeUnits="MM", bufferColor="255,255,255,255",
        bufferOpacity="0.8",
    )  # fmt: skip
    ET.SubElement(settings, "placement", placement="1", polygonPlacementFlags="2")  # around the centroid, inside
    categories = "Symbology|Labeling|MapTips"
    qgis = ET.Element("qgis", version=OLDEST_QGIS, styleCategories=categories, labelsEnabled="1")
    qgis.extend([renderer, labeling, tip])
    return qgis_document(qgis)


def _quoted(field: str) -> str:
    """A field in a QGIS expression."""
    return '"' + field.replace('"', '""') + '"'


def _text(value: str) -> str:
    """A text in a QGIS expression in a map tip, whose own brackets must not appear in it."""
    quoted = "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
    return quoted.replace("[%", "[' || '%").replace("%]", "%' || ']")


def lulc_renderer(legend: Iterable[LulcClass], *, unclassified: bool = False) -> ET.Element:
    """Renderer of class codes, for styles and projects."""
    renderer = raster_renderer("paletted", band="1")
    palette = ET.SubElement(renderer, "colorPalette")
    for c in shown_classes(legend, unclassified=unclassified):
        ET.SubElement(palette, "paletteEntry", value=str(c.code), label=c.name, color=c.color, alpha="255")
    return renderer


def sets_renderer(classes: int) -> ET.Element:
    """Renderer of the sizes of prediction sets, for styles and projects."""
    renderer = raster_renderer("paletted", band="1")
    palette = ET.SubElement(renderer, "colorPalette")
    ramp = np.array([[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in SET_COLORS])
    places = np.linspace(0, len(SET_COLORS) - 1, classes)
    between = np.stack([np.interp(places, range(len(SET_COLORS)), channel) for channel in ramp.T], axis=1)
    colors = [EMPTY_SET, *("#" + bytes(color).hex() for color in between.round().astype(np.uint8))]
    for size, color in enumerate(colors):
        label = "1 class" if size == 1 else f"{size or 'no'} classes"
        ET.SubElement(palette, "paletteEntry", value=str(size), label=label, color=color, alpha="255")
    return renderer


def ramp_renderer(stops: Sequence[tuple[float, str]], label: str = "{:.0%}") -> ET.Element:
    """Renderer of values, with colors interpolated between `stops` of value and color; `label` formats the values."""
    low, high = (f"{value:g}" for value, _ in (stops[0], stops[-1]))
    renderer = raster_renderer("singlebandpseudocolor", band="1", classificationMin=low, classificationMax=high)
    origin = ET.SubElement(renderer, "minMaxOrigin")
    for tag, text in (("limits", "None"), ("extent", "WholeRaster"), ("statAccuracy", "Estimated")):
        ET.SubElement(origin, tag).text = text
    shader = ET.SubElement(ET.SubElement(renderer, "rastershader"), "colorrampshader")
    # INTERPOLATED, over the whole range (classification mode 1: continuous).
    shader.attrib.update(
        colorRampType="INTERPOLATED", classificationMode="1", clip="0", minimumValue=low, maximumValue=high
    )
    for value, color in stops:
        ET.SubElement(shader, "item", value=str(value), label=label.format(value), color=color, alpha="255")
    ends = {"minimumLabel": label.format(stops[0][0]), "maximumLabel": label.format(stops[-1][0])}
    ET.SubElement(shader, "rampLegendSettings", ends, useContinuousLegend="1", orientation="2", direction="0")
    return renderer


def raster_renderer(kind: str, **attributes: str) -> ET.Element:
    """A raster renderer of this type, opaque by default."""
    return ET.Element(
        "rasterrenderer", {"type": kind, "opacity": "1", "alphaBand": "-1", "nodataColor": ""} | attributes
    )


def raster_pipe(renderer: ET.Element) -> ET.Element:
    """QGIS's pipe for a raster, around its renderer; cells remain squares at every zoom."""
    pipe = ET.Element("pipe")
    provider = ET.SubElement(pipe, "provider")
    ET.SubElement(
        provider,
        "resampling",
        enabled="false",
        zoomedInResamplingMethod="nearestNeighbour",  # codespell:ignore neighbour
        zoomedOutResamplingMethod="nearestNeighbour",  # codespell:ignore neighbour
        maxOversampling="2",
    )
    pipe.append(renderer)
    ET.SubElement(pipe, "brightnesscontrast", brightness="0", contrast="0", gamma="1")
    ET.SubElement(pipe, "huesaturation", saturation="0", grayscaleMode="0", colorizeOn="0")
    ET.SubElement(pipe, "rasterresampler", maxOversampling="2")
    return pipe


def class_renderer(
    legend: Iterable[LulcClass], *, unclassified: bool = False, outline: str = "", attribute: str = "class_code"
) -> ET.Element:
    """Renderer of polygons by their class code, for styles and projects.

    Args:
        legend: Codes, names and colors.
        unclassified: Whether unclassified polygons are drawn too.
        outline: QGIS expression of the outline's color; the fill's color if empty.
        attribute: Field of the class code, or QGIS expression for it.
    """
    renderer = ET.Element("renderer-v2", type="categorizedSymbol", attr=attribute, enableorderby="0", forceraster="0")
    categories = ET.SubElement(renderer, "categories")
    symbols = ET.SubElement(renderer, "symbols")
    for index, c in enumerate(shown_classes(legend, unclassified=unclassified)):
        attributes = {"value": str(c.code), "symbol": str(index), "label": c.name, "render": "true", "type": "long"}
        ET.SubElement(categories, "category", attributes)
        symbols.append(_fill(str(index), c, outline))
    return renderer


def map_tip(share: str = "confidence") -> ET.Element:
    """QGIS's tip for the polygon under the pointer: its class and the share in a field, such as its confidence."""
    tip = ET.Element("mapTip")
    # The class name is text, the tip is HTML.
    name = "replace(replace(\"class_name\", '&', '&amp;'), '<', '&lt;')"
    tip.text = f"<b>[% {name} %]</b>" + (f', [% round(100 * "{share}") %]%' if share else "")
    return tip


def qgis_document(qgis: ET.Element) -> str:
    """A style or a project as the text of its file."""
    ET.indent(qgis)
    return f"{QGIS_DOCTYPE}\n{ET.tostring(qgis, encoding='unicode')}\n"


def _fill(name: str, shown: LulcClass, outline: str) -> ET.Element:
    """A plain fill; by default its outline has the same color, so that no seams show between polygons."""
    rgba = ",".join(map(str, (*shown.rgb, 255)))
    symbol = ET.Element("symbol", type="fill", name=name, alpha="1", clip_to_extent="1", force_rhr="0")
    layer = ET.SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "locked": "0", "pass": "0"})
    layer.append(
        qt_option(
            {
                "color": rgba,
                "style": "solid",
                "outline_color": rgba,
                "outline_style": "solid",
                "outline_width": "0.1",
                "outline_width_unit": "MM",
                "joinstyle": "miter",
            }
        )
    )
    if outline:
        color: Mapping[str, _OptionValue] = {"active": True, "expression": outline, "type": 3}  # 3: an expression
        defined = ET.SubElement(layer, "data_defined_properties")
        defined.append(qt_option({"name": "", "properties": {"outlineColor": color}, "type": "collection"}))
    return symbol


def qt_option(value: _OptionValue, **attributes: str) -> ET.Element:
    """A value as QGIS writes Qt's variants."""
    if isinstance(value, Mapping):
        option = ET.Element("Option", attributes, type="Map")
        option.extend(qt_option(part, name=name) for name, part in value.items())
        return option
    if isinstance(value, bool):  # before int, since a bool is an int
        return ET.Element("Option", attributes, type="bool", value=str(value).lower())
    return ET.Element("Option", attributes, type="int" if isinstance(value, int) else "QString", value=str(value))


def _raster_qml(renderer: ET.Element) -> str:
    """A raster's style."""
    qgis = ET.Element("qgis", version=OLDEST_QGIS, styleCategories="Symbology")
    qgis.append(raster_pipe(renderer))
    return qgis_document(qgis)


def _vector_qml(renderer: ET.Element, tip: ET.Element | None = None) -> str:
    """A vector layer's style."""
    qgis = ET.Element("qgis", version=OLDEST_QGIS, styleCategories="Symbology|MapTips")
    qgis.extend([renderer, map_tip() if tip is None else tip])
    return qgis_document(qgis)
