from xml.etree import ElementTree as ET

import pytest

from geocfl.legend import EUROSAT, Legend
from geocfl.products.style import confidence_qml, lulc_qml, polygons_qml, write_confidence_style, write_lulc_style


def test_raster_style_names_every_class():
    palette = ET.fromstring(lulc_qml(EUROSAT)).findall(".//paletteEntry")
    assert [(e.get("value"), e.get("label"), e.get("color")) for e in palette] == [
        (str(c.code), c.name, c.color) for c in EUROSAT
    ]


@pytest.mark.parametrize("qml", [lulc_qml, polygons_qml])
def test_unclassified_is_listed_where_the_map_has_it(qml):
    assert "Unclassified" not in qml(EUROSAT)
    assert "Unclassified" in qml(EUROSAT, unclassified=True)


def test_polygon_style_has_a_symbol_a_class():
    root = ET.fromstring(polygons_qml(EUROSAT))
    assert root.find("renderer-v2").get("attr") == "class_code"
    categories, symbols = root.findall(".//category"), root.findall(".//symbol")
    assert [e.get("label") for e in categories] == EUROSAT.names
    assert [e.get("symbol") for e in categories] == [e.get("name") for e in symbols]


def test_confidence_style_spans_zero_to_one():
    shader = ET.fromstring(confidence_qml()).find(".//colorrampshader")
    assert (shader.get("minimumValue"), shader.get("maximumValue")) == ("0", "1")
    assert [item.get("label") for item in shader] == ["0%", "25%", "50%", "75%", "100%"]


def test_names_are_escaped_and_kept(tmp_path):
    legend = Legend.from_folders(["Wald & <Wiese>", "Öde"])
    write_lulc_style(tmp_path / "S_lulc.qml", legend)
    write_confidence_style(tmp_path / "S_confidence.qml")
    palette = ET.parse(tmp_path / "S_lulc.qml").findall(".//paletteEntry")
    assert [e.get("label") for e in palette] == legend.names
    assert ET.parse(tmp_path / "S_confidence.qml").getroot().tag == "qgis"
