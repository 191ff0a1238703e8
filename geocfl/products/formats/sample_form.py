"""QGIS's form and style for the points of a sample: a drop-down of class names, and the class of the map hidden."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import NAMESPACE_URL, uuid5
from xml.etree import ElementTree as ET

from geocfl.products.formats.qml import OLDEST_QGIS, qgis_document, qt_option

FIELDS = ("id", "reference", "confidence", "comment", "map_class", "stratum")
"""Fields of the points, in the order of the layer."""
HIDDEN = ("map_class", "stratum")
"""Fields that would bias whoever answers."""
CONFIDENCES = ("high", "medium", "low")
NO_ANSWER = "{2839923C-8B7D-419E-B84B-CA2FE9B80EC7}"
"""What QGIS stores as NULL when it is chosen from a drop-down."""
OPEN, ANSWERED, WINDOW = "255,221,51,255", "80,220,120,255", "255,255,255,255"
"""Colors of outlines: cells without an answer, cells with one, and windows."""
_NEXT = """\
from qgis.core import QgsProject
from qgis.utils import iface
layer = QgsProject.instance().mapLayer('[% @layer_id %]')
number = int('[% coalesce("id", 0) %]')
left = [f for f in layer.getFeatures() if not f['reference']]
left.sort(key=lambda f: (f['id'] <= number, f['id']))
if left:
    layer.selectByIds([left[0].id()])
    iface.mapCanvas().zoomToSelected(layer)
    iface.mapCanvas().zoomByFactor(2)
    iface.openFeatureForm(layer, left[0], False, False)
else:
    iface.messageBar().pushMessage('All points have an answer')
"""
"""Action of a point: opens the form of the next one without an answer."""


def sample_style(names: Sequence[str]) -> list[ET.Element]:
    """The parts of a style for the layer of points, for a QML file or a project.

    Args:
        names: Names of the classes, in the order of the drop-down.
    """
    fields = ET.Element("fieldConfiguration")
    answers = {"(no answer)": NO_ANSWER, **{name: name for name in names}}
    confidences = {"(not stated)": NO_ANSWER, **{name: name for name in CONFIDENCES}}
    widgets: dict[str, tuple[str, list[ET.Element]]] = {
        "reference": ("ValueMap", [_values(answers)]),
        "confidence": ("ValueMap", [_values(confidences)]),
        "comment": ("TextEdit", [qt_option({"IsMultiline": True, "UseHtml": False})]),
        **{name: ("Hidden", [qt_option({})]) for name in HIDDEN},
    }
    for name in FIELDS:
        kind, settings = widgets.get(name, ("TextEdit", [qt_option({})]))
        widget = ET.SubElement(ET.SubElement(fields, "field", name=name), "editWidget", type=kind)
        ET.SubElement(widget, "config").extend(settings)
    aliases = ET.Element("aliases")
    titles = {"id": "Point", "reference": "Class seen in the window"}
    for index, name in enumerate(FIELDS):
        ET.SubElement(aliases, "alias", index=str(index), field=name, name=titles.get(name, name.capitalize()))
    table = ET.Element("attributetableconfig", sortExpression='"id"', sortOrder="0", actionWidgetStyle="buttonList")
    columns = ET.SubElement(table, "columns")
    ET.SubElement(columns, "column", type="actions", hidden="0", width="-1")
    for name in FIELDS:
        ET.SubElement(columns, "column", type="field", name=name, hidden=str(int(name in HIDDEN)), width="-1")
    form = ET.Element("attributeEditorForm")
    for index, name in enumerate(FIELDS):
        if name not in HIDDEN:
            ET.SubElement(form, "attributeEditorField", name=name, index=str(index), showLabel="1")
    editable = ET.Element("editable")
    for name in FIELDS:
        ET.SubElement(editable, "field", name=name, editable=str(int(name not in ("id", *HIDDEN))))
    return [
        _outlines(),
        fields,
        aliases,
        _actions(),
        table,
        _element("editorlayout", "tablayout"),
        form,
        editable,
        _element("previewExpression", "'Point ' || \"id\" || coalesce(': ' || \"reference\", '')"),
        _element("mapTip", 'Point [% "id" %]'),
    ]


def windows_style() -> list[ET.Element]:
    """The parts of a style for the layer of windows: dashed outlines."""
    renderer = ET.Element("renderer-v2", type="singleSymbol", enableorderby="0", forceraster="0")
    ET.SubElement(renderer, "symbols").append(_outline("0", WINDOW, "dash"))
    return [renderer]


def sample_qml(names: Sequence[str]) -> str:
    """Style and form of the layer of points."""
    return _document(sample_style(names), "Symbology|MapTips|Fields|Forms|Actions|AttributeTable")


def windows_qml() -> str:
    """Style of the layer of windows."""
    return _document(windows_style(), "Symbology")


def _document(parts: Sequence[ET.Element], categories: str) -> str:
    qgis = ET.Element("qgis", version=OLDEST_QGIS, styleCategories=categories)
    qgis.extend(parts)
    return qgis_document(qgis)


def _element(tag: str, text: str) -> ET.Element:
    element = ET.Element(tag)
    element.text = text
    return element


def _values(values: Mapping[str, str]) -> ET.Element:
    """The entries of a drop-down: what is shown to what is stored."""
    outer = ET.Element("Option", type="Map")
    entries = ET.SubElement(outer, "Option", name="map", type="List")
    for shown, stored in values.items():
        entries.append(qt_option({shown: stored}))
    return outer


def _outlines() -> ET.Element:
    """Cells by whether they have an answer; their color says nothing of the map's class."""
    renderer = ET.Element(
        "renderer-v2",
        type="categorizedSymbol",
        # Texts, because QGIS 3.22 compares categories as texts and would draw none of the numbers 0 and 1.
        attr="if(coalesce(\"reference\", '') = '', 'open', 'answered')",
        enableorderby="0",
        forceraster="0",
    )
    categories = ET.SubElement(renderer, "categories")
    symbols = ET.SubElement(renderer, "symbols")
    for index, (value, label, color) in enumerate((("open", "to answer", OPEN), ("answered", "answered", ANSWERED))):
        attributes = {"value": value, "symbol": str(index), "label": label, "render": "true", "type": "string"}
        ET.SubElement(categories, "category", attributes)
        symbols.append(_outline(str(index), color, "solid"))
    return renderer


def _outline(name: str, color: str, style: str) -> ET.Element:
    symbol = ET.Element("symbol", type="fill", name=name, alpha="1", clip_to_extent="1", force_rhr="0")
    layer = ET.SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "locked": "0", "pass": "0"})
    layer.append(
        qt_option(
            {
                "style": "no",
                "outline_color": color,
                "outline_style": style,
                "outline_width": "0.5",
                "outline_width_unit": "MM",
                "joinstyle": "miter",
            }
        )
    )
    return symbol


def _actions() -> ET.Element:
    """The action that steps to the next point without an answer."""
    actions = ET.Element("attributeactions")
    identifier = f"{{{uuid5(NAMESPACE_URL, 'geocfl-next-point')}}}"
    ET.SubElement(actions, "defaultAction", key="Canvas", value=identifier)
    setting = ET.SubElement(
        actions,
        "actionsetting",
        {
            "id": identifier,
            "type": "1",  # Python
            "name": "Next point without an answer",
            "shortTitle": "Next point",
            "action": _NEXT,
            "icon": "",
            "capture": "0",
            "isEnabledOnlyWhenEditable": "0",
            "notificationMessage": "",
        },
    )
    for scope in ("Canvas", "Feature", "Form"):
        ET.SubElement(setting, "actionScope", id=scope)
    return actions
