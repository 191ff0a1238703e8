"""A print layout for a QGIS project: map, title, legend, scale bar and credit on a sheet of A4."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import NAMESPACE_URL, uuid5
from xml.etree import ElementTree as ET

from geocfl.products.formats.qml import qt_option

A4 = (297.0, 210.0)
"""Sides of the sheet, mm."""
MARGIN, GAP, TITLE, FOOTER, LEGEND_LINE = 12.0, 6.0, 18.0, 15.0, 6.1
"""Parts of the sheet, mm: margin, gaps, title, footer, and a line of the legend."""
SWATCH, CHARACTER, LONGEST = 13.0, 1.8, 60
"""Width of a legend's swatch and of a character, mm, and the longest name that room is made for, characters."""
COLUMNS = 4
"""Most columns of a legend below the map."""
BAR = 45.0
"""Longest scale bar, mm."""
INK, FAINT = (31, 41, 51), (102, 114, 127)
"""Colors of text."""
FONT = "Open Sans"
"""QGIS comes with this font; a system without it takes its own."""
PAGE, MAP, PICTURE, LABEL, LEGEND, SCALE_BAR = "65638", "65639", "65640", "65641", "65642", "65646"
"""QGIS's types of items."""
LEFT, RIGHT, TOP, BOTTOM = "1", "2", "32", "64"
"""Qt's alignments."""

_Box = tuple[float, float, float, float]
"""Left, top, width and height, mm."""


@dataclass(frozen=True)
class Entry:
    """A layer in the legend.

    Attributes:
        identifier: QGIS's identifier of the layer.
        source: Its source.
        title: Headline of its classes.
        classes: Names of its classes.
        raster: Whether it is a raster.
    """

    identifier: str
    source: str
    title: str
    classes: Sequence[str]
    raster: bool


@dataclass(frozen=True)
class Sheet:
    """What stands around the map.

    Attributes:
        title: The headline.
        subtitle: The line below it.
        notes: Lines at the foot of the sheet.
        legend: Its layers.
    """

    title: str
    subtitle: str
    notes: Sequence[str]
    legend: Sequence[Entry]


def layouts(sheet: Sheet, view: tuple[float, float, float, float], meters: float) -> ET.Element:
    """The layouts of a project, one: the sheet lies or stands so that the map is large.

    Args:
        sheet: What stands around the map.
        view: West, south, east, north of what the map shows.
        meters: Length of a unit of the map's coordinates, meters.
    """
    lines = [line for entry in sheet.legend for line in (entry.title, *entry.classes)]
    page, box, legend, columns = _arranged((view[2] - view[0]) / (view[3] - view[1]), lines)
    view = _filling(view, box[2] / box[3])
    root = ET.Element("Layouts")
    layout = ET.SubElement(root, "Layout", name="Map sheet", units="mm", printResolution="300")
    pages = ET.SubElement(layout, "PageCollection")
    _item(pages, PAGE, "page", (0, 0, *page), background="true")
    drawn = _item(
        layout, MAP, "map", box, frame="true", background="true", drawCanvasItems="true", keepLayerSet="false"
    )
    drawn.append(ET.Element("Extent", dict(zip(("xmin", "ymin", "xmax", "ymax"), map(repr, view), strict=True))))
    width = page[0] - 2 * MARGIN
    _label(layout, "title", sheet.title, (MARGIN, MARGIN - 1, width, 9), 17, INK, bold=True)
    _label(layout, "subtitle", sheet.subtitle, (MARGIN, MARGIN + 8, width, 6), 9, FAINT)
    _legend(layout, sheet, legend, columns)
    bottom = box[1] + box[3] + (0 if legend[0] > box[0] else legend[3])
    _scale_bar(layout, (box[0], bottom + 2), meters * (view[2] - view[0]) / box[2])
    _item(
        layout, PICTURE, "north arrow", (box[0] + box[2] - 10, box[1] + 2, 8, 12),
        file=":/images/north_arrows/layout_default_north_arrow.svg", mapUuid=_uuid("map"), northMode="0", mode="0",
        resizeMode="0", anchorPoint="4", svgFillColor="31,41,51,255", svgBorderColor="255,255,255,255",
        svgBorderWidth="0.2",
    )  # fmt: skip
    notes = "\n".join(filter(None, sheet.notes))
    _label(
        layout, "credit", notes, (MARGIN + BAR + 3 * GAP, bottom + 2, width - BAR - 3 * GAP, FOOTER), 7, FAINT, RIGHT
    )
    return root


def _arranged(ratio: float, lines: Sequence[str]) -> tuple[tuple[float, float], _Box, _Box, int]:
    """Sheet, boxes of map and legend, and the legend's columns: what shows a map of these proportions largest."""

    def shown(box: _Box) -> float:
        """Area of the map in a box; none if the box has no room."""
        return max(0, min(box[2], box[3] * ratio)) * max(0, min(box[2] / ratio, box[3]))

    entry = SWATCH + CHARACTER * min(LONGEST, max(map(len, lines)))
    ways = []
    for page in (A4, A4[::-1]):
        width, height, top = page[0] - 2 * MARGIN, page[1] - 2 * MARGIN - TITLE - FOOTER, MARGIN + TITLE
        beside = (MARGIN, top, width - entry - GAP, height)
        if len(lines) * LEGEND_LINE <= height:
            ways.append((shown(beside), page, beside, (MARGIN + width - entry, top - 2, entry, height), 1))
        columns = max(1, min(COLUMNS, int(width / entry)))
        below = (math.ceil((len(lines) - 1) / columns) + 1) * LEGEND_LINE
        above = (MARGIN, top, width, max(height - below, height / 3))
        ways.append((shown(above), page, above, (MARGIN, top + above[3] + 2, width, below - 2), columns))
    return max(ways, key=lambda way: way[0])[1:]


def _filling(view: tuple[float, float, float, float], ratio: float) -> tuple[float, float, float, float]:
    """A view with more around it, so that it is `ratio` times as wide as high."""
    west, south, east, north = view
    more = ratio * (north - south) - (east - west)
    aside, above = (more / 2, 0.0) if more > 0 else (0.0, -more / ratio / 2)
    return west - aside, south - above, east + aside, north + above


def _item(parent: ET.Element, kind: str, name: str, box: _Box, **attributes: str) -> ET.Element:
    left, top, width, height = (f"{value:.2f}" for value in box)
    plain = {"frame": "false", "background": "false", "opacity": "1", "visibility": "1", "referencePoint": "0"}
    placed = {"position": f"{left},{top},mm", "positionOnPage": f"{left},{top},mm", "size": f"{width},{height},mm"}
    named = {"type": kind, "id": name, "uuid": _uuid(name), "templateUuid": _uuid(name), "zValue": str(len(parent))}
    item = ET.SubElement(parent, "LayoutItem", {**plain, **placed, **named, **attributes})
    if item.get("frame") == "true":
        item.set("outlineWidthM", "0.2,mm")
        ET.SubElement(item, "FrameColor", _rgba(INK))
    return item


def _label(
    layout: ET.Element, name: str, text: str, box: _Box, size: int, color: tuple[int, int, int], align: str = LEFT,
    *, bold: bool = False,
) -> None:  # fmt: skip
    item = _item(
        layout, LABEL, name, box, labelText=text, htmlState="0", halign=align, valign=TOP, marginX="0", marginY="0"
    )
    ET.SubElement(item, "LabelFont", description=f"{FONT},{size},-1,5,{75 if bold else 50},0,0,0,0,0", style="")
    ET.SubElement(item, "FontColor", _rgba(color))
    _text_style(item, size, color, bold=bold)


def _legend(layout: ET.Element, sheet: Sheet, box: _Box, columns: int) -> None:
    item = _item(
        layout, LEGEND, "legend", box, map_uuid=_uuid("map"), resizeToContents="1", columnCount=str(columns),
        splitLayer="1", equalColumnWidth="1", columnSpace="6", boxSpace="2", symbolWidth="7", symbolHeight="4",
        lineSpacing="1", fontColor="#1f2933", wrapChar="", title="", titleAlignment=LEFT, rasterBorder="1",
        rasterBorderColor="120,120,120,255", rasterBorderWidth="0.1",
    )  # fmt: skip
    styles = ET.SubElement(item, "styles")
    for name, size, margins in (
        ("title", 10, {"marginBottom": "2"}),
        ("group", 10, {"marginTop": "2"}),
        ("subgroup", 9, {"marginTop": "3", "marginBottom": "1.5"}),
        ("symbol", 9, {"marginTop": "1.6"}),
        ("symbolLabel", 9, {"marginTop": "1", "marginLeft": "2"}),
    ):
        style = ET.SubElement(styles, "style", {"name": name, "alignment": LEFT, "indent": "0", **margins})
        weight = 75 if name == "subgroup" else 50
        ET.SubElement(style, "styleFont", description=f"{FONT},{size},-1,5,{weight},0,0,0,0,0", style="")
        _text_style(style, size, INK, bold=weight > 50)
    tree = ET.SubElement(item, "layer-tree-group")
    for entry in sheet.legend:
        layer = ET.SubElement(
            tree, "layer-tree-layer", id=entry.identifier, name=entry.title, source=entry.source,
            checked="Qt::Checked", expanded="1", providerKey="gdal" if entry.raster else "ogr",
        )  # fmt: skip
        first = 1 if entry.raster else 0  # the first entry of a raster is the name of its band
        nodes = ",".join(map(str, range(first, first + len(entry.classes))))
        ET.SubElement(layer, "customproperties").append(
            qt_option({"legend/title-label": entry.title, "legend/node-order": nodes})
        )


def _scale_bar(layout: ET.Element, corner: tuple[float, float], meters_per_mm: float) -> None:
    """A bar of two parts of 1, 2 or 5 times a power of ten meters each."""
    most = BAR / 2 * meters_per_mm
    power = 10.0 ** math.floor(math.log10(most))
    part = max(step * power for step in (1, 2, 5) if step * power <= most)
    unit, label, divisor = ("km", "km", 1000.0) if 2 * part >= 1000 else ("meters", "m", 1.0)
    item = _item(
        layout, SCALE_BAR, "scale bar", (*corner, BAR, 10), mapUuid=_uuid("map"), style="Single Box", unitType=unit,
        unitLabel=label, numUnitsPerSegment=f"{part / divisor:g}", numSegments="2", numSegmentsLeft="0", height="1.6",
        labelBarSpace="1", boxContentSpace="0.5", numMapUnitsPerScaleBarUnit="1", segmentSizeMode="0", alignment="0",
        outlineWidth="0.2", minBarWidth="20", maxBarWidth=f"{BAR:g}", labelVerticalPlacement="1",
        labelHorizontalPlacement="0",
    )  # fmt: skip
    _text_style(item, 8, INK)
    ET.SubElement(item, "fillColor", _rgba(INK))
    ET.SubElement(item, "fillColor2", _rgba((255, 255, 255)))
    ET.SubElement(item, "strokeColor", _rgba(INK))


def _text_style(parent: ET.Element, size: int, color: tuple[int, int, int], *, bold: bool = False) -> None:
    """The font as newer versions of QGIS read it."""
    ET.SubElement(
        parent, "text-style", fontFamily=FONT, fontSize=str(size), fontSizeUnit="Point",
        fontWeight="75" if bold else "50", textColor=",".join(map(str, (*color, 255))), textOpacity="1",
    )  # fmt: skip


def _rgba(color: tuple[int, int, int]) -> dict[str, str]:
    return dict(zip(("red", "green", "blue", "alpha"), map(str, (*color, 255)), strict=True))


def _uuid(name: str) -> str:
    return f"{{{uuid5(NAMESPACE_URL, f'geocfl-layout-{name}')}}}"
