from xml.etree import ElementTree as ET

import pytest

from geocfl.core.legend import EUROSAT, Legend
from geocfl.products.formats.qml import (
    confidence_qml,
    entropy_qml,
    lulc_qml,
    polygons_qml,
    windows_qml,
    write_style,
)


def test_raster_style_names_every_class():
    palette = ET.fromstring(lulc_qml(EUROSAT)).findall(".//paletteEntry")
    assert [(e.get("value"), e.get("label"), e.get("color")) for e in palette] == [
        (str(c.code), c.name, c.color) for c in EUROSAT
    ]


@pytest.mark.parametrize("qml", [lulc_qml, polygons_qml, windows_qml])
def test_unclassified_is_listed_where_the_map_has_it(qml):
    assert "Unclassified" not in qml(EUROSAT)
    assert "Unclassified" in qml(EUROSAT, unclassified=True)


@pytest.mark.parametrize("qml", [polygons_qml, windows_qml])
def test_polygon_style_has_a_symbol_a_class(qml):
    root = ET.fromstring(qml(EUROSAT))
    assert root.find("renderer-v2").get("attr") == "class_code"
    categories, symbols = root.findall(".//category"), root.findall(".//symbol")
    assert [e.get("label") for e in categories] == EUROSAT.names
    assert [e.get("symbol") for e in categories] == [e.get("name") for e in symbols]
    assert bool(root.findall(".//data_defined_properties")) == (qml is windows_qml)


@pytest.mark.parametrize("qml", [confidence_qml, entropy_qml])
def test_ramps_span_zero_to_one(qml):
    shader = ET.fromstring(qml()).find(".//colorrampshader")
    assert (shader.get("minimumValue"), shader.get("maximumValue")) == ("0", "1")
    assert [item.get("label") for item in shader.findall("item")] == ["0%", "25%", "50%", "75%", "100%"]


def test_confidence_and_entropy_look_different():
    assert confidence_qml() != entropy_qml()


@pytest.mark.parametrize("qml", [lulc_qml, polygons_qml, windows_qml])
def test_names_are_escaped_and_kept(tmp_path, qml):
    legend = Legend.from_folders(['Wald & <Wiese> "1"', "Öde"])
    write_style(tmp_path / "S.qml", qml(legend))
    entries = ET.parse(tmp_path / "S.qml").findall(".//*[@label]")
    assert [e.get("label") for e in entries] == legend.names
    assert b"\r" not in (tmp_path / "S.qml").read_bytes()
