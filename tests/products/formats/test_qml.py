from xml.etree import ElementTree as ET

import pytest

from geocfl.core.legend import EUROSAT, Legend
from geocfl.products.formats.qml import (
    confidence_qml,
    entropy_qml,
    lulc_qml,
    novelty_qml,
    polygons_qml,
    sets_qml,
    valid_qml,
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
    assert len(root.findall(".//data_defined_properties")) == len(EUROSAT)


@pytest.mark.parametrize("qml", [confidence_qml, entropy_qml, valid_qml])
def test_ramps_span_zero_to_one(qml):
    shader = ET.fromstring(qml()).find(".//colorrampshader")
    assert (shader.get("minimumValue"), shader.get("maximumValue")) == ("0", "1")
    assert [item.get("label") for item in shader.findall("item")] == ["0%", "25%", "50%", "75%", "100%"]


def test_novelty_spans_the_percentiles():
    shader = ET.fromstring(novelty_qml()).find(".//colorrampshader")
    assert (shader.get("minimumValue"), shader.get("maximumValue")) == ("0", "100")
    assert [item.get("label") for item in shader.findall("item")] == ["0%", "50%", "90%", "95%", "100%"]


@pytest.mark.parametrize("classes", [1, 2, 10, 31])
def test_every_size_of_a_set_has_an_entry_of_its_own(classes):
    entries = ET.fromstring(sets_qml(classes)).findall(".//paletteEntry")
    assert [entry.get("value") for entry in entries] == [str(size) for size in range(classes + 1)]
    assert [entry.get("label") for entry in entries[:3]] == ["no classes", "1 class", "2 classes"][: classes + 1]
    colors = [entry.get("color") for entry in entries]
    assert len(set(colors)) == len(colors)
    assert colors[1:][:: max(1, classes - 1)] == ["#ffffd9", "#081d58"][:classes]


def test_rasters_look_different():
    assert len({confidence_qml(), entropy_qml(), novelty_qml(), valid_qml(), sets_qml(10)}) == 5


@pytest.mark.parametrize("qml", [lulc_qml, polygons_qml, windows_qml])
def test_names_are_escaped_and_kept(tmp_path, qml):
    legend = Legend.from_folders(['Wald & <Wiese> "1"', "Öde"])
    write_style(tmp_path / "S.qml", qml(legend))
    entries = ET.parse(tmp_path / "S.qml").findall(".//*[@label]")
    assert [e.get("label") for e in entries] == legend.names
    assert b"\r" not in (tmp_path / "S.qml").read_bytes()
