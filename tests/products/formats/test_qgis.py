import zipfile
from dataclasses import replace
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from geocfl.core.legend import EUROSAT, Legend
from geocfl.products.about import About
from geocfl.products.formats.qgis import write_project

ALL = (
    "_truecolor.tif", "_lulc.tif", "_sets.tif", "_valid.tif", "_novelty.tif", "_entropy.tif", "_confidence.tif",
    "_lulc.gpkg", "_summary.json", "_lulc.qml",
)  # fmt: skip


@pytest.fixture
def grid(grid_of):
    return grid_of(np.ones((4, 6)), cut=(10, 20))


def read(path):
    """The project in a QGZ file."""
    with zipfile.ZipFile(path) as archive:
        (name,) = archive.namelist()
        assert name.endswith(".qgs")
        return ET.fromstring(archive.read(name))


def sources(qgis):
    return [element.text for element in qgis.findall("projectlayers/maplayer/datasource")]


def test_layers_in_order_with_relative_sources(tmp_path, grid):
    write_project(tmp_path / "S_map.qgz", "S", grid, EUROSAT, ALL)
    qgis = read(tmp_path / "S_map.qgz")
    tree = qgis.findall("layer-tree-group/layer-tree-layer")
    assert [(layer.get("source"), layer.get("checked")) for layer in tree] == [
        ("./S_lulc.gpkg|layername=lulc", "Qt::Unchecked"),
        ("./S_confidence.tif", "Qt::Unchecked"),
        ("./S_entropy.tif", "Qt::Unchecked"),
        ("./S_novelty.tif", "Qt::Unchecked"),
        ("./S_valid.tif", "Qt::Unchecked"),
        ("./S_sets.tif", "Qt::Unchecked"),
        ("./S_lulc.tif", "Qt::Checked"),
        ("./S_truecolor.tif", "Qt::Checked"),
    ]
    assert sources(qgis) == [layer.get("source") for layer in tree]
    assert [layer.get("id") for layer in tree] == [e.text for e in qgis.findall("projectlayers/maplayer/id")]
    assert qgis.findtext("properties/Paths/Absolute") == "false"
    assert qgis.findtext("properties/Measure/Ellipsoid") == "EPSG:7030"
    assert str(tmp_path) not in ET.tostring(qgis, encoding="unicode")


@given(present=st.sets(st.sampled_from([*ALL, "_lulc_polygons.fgb", "_lulc_polygons.geojson"])))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_layer_is_of_a_product_that_is_there(tmp_path, grid, present):
    write_project(tmp_path / "S_map.qgz", "S", grid, EUROSAT, present)
    shown = [source.split("|")[0].removeprefix("./S") for source in sources(read(tmp_path / "S_map.qgz"))]
    assert set(shown) <= present
    assert {suffix for suffix in present if suffix.endswith(".tif")} <= set(shown)
    vectors = {"_lulc.gpkg", "_lulc_polygons.fgb", "_lulc_polygons.geojson"}
    assert len(vectors & set(shown)) == bool(vectors & present)


def test_unclassified_is_listed_where_the_map_has_it(tmp_path, grid):
    for unclassified in (False, True):
        write_project(tmp_path / "S_map.qgz", "S", grid, EUROSAT, ALL, unclassified=unclassified)
        qgis = read(tmp_path / "S_map.qgz")
        sizes = ["no classes", "1 class", *(f"{size} classes" for size in range(2, 11))]  # of prediction sets
        for entries, others in ((".//paletteEntry", sizes), (".//category", [])):
            labels = [element.get("label") for element in qgis.findall(entries)]
            assert labels == others + EUROSAT.names + ["Unclassified"] * unclassified


def test_same_map_same_bytes(tmp_path, grid):
    write_project(tmp_path / "a.qgz", "S", grid, EUROSAT, ALL)
    write_project(tmp_path / "b.qgz", "S", grid, EUROSAT, sorted(ALL))
    assert (tmp_path / "a.qgz").read_bytes() == (tmp_path / "b.qgz").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.qgz") as archive:
        (entry,) = archive.infolist()
    assert entry.date_time == (1980, 1, 1, 0, 0, 0)
    assert entry.create_system == 3


def test_layers_of_two_scenes_are_told_apart(tmp_path, grid):
    names = []
    for stem in ("S", "T"):
        write_project(tmp_path / "map.qgz", stem, grid, EUROSAT, ALL)
        names += [e.text for e in read(tmp_path / "map.qgz").findall("projectlayers/maplayer/id")]
    assert len(set(names)) == 16


@pytest.mark.parametrize("turn", [0, 30])
def test_view_holds_the_scene(tmp_path, grid, turn):
    grid = replace(grid, transform=grid.transform @ Affine.rotation(turn))
    write_project(tmp_path / "S_map.qgz", "S", grid, EUROSAT, ALL)
    view = read(tmp_path / "S_map.qgz").find("ProjectViewSettings/DefaultViewExtent")
    west, south, east, north = grid.bounds()
    margin = 0.03 * max(east - west, north - south)
    assert [float(view.get(side)) for side in ("xmin", "ymin", "xmax", "ymax")] == pytest.approx(
        [west - margin, south - margin, east + margin, north + margin]
    )
    assert all(repr(float(view.get(side))) == view.get(side) for side in ("xmin", "ymin"))


def test_crs_without_a_code_and_awkward_stem(tmp_path, grid):
    crs = CRS.from_string("+proj=laea +lat_0=47.1 +lon_0=13.4 +x_0=6e5 +y_0=5.1e6 +ellps=GRS80 +units=m +no_defs")
    stem = 'S <b>&"é'
    write_project(tmp_path / "map.qgz", stem, replace(grid, crs=crs), EUROSAT, ALL)
    qgis = read(tmp_path / "map.qgz")
    assert qgis.findtext("title") == f"{stem}: land use / land cover"
    assert f"./{stem}_lulc.tif" in sources(qgis)
    definitions = {element.text for element in qgis.iter("wkt")}
    assert len(definitions) == 1
    assert CRS.from_wkt(definitions.pop()) == crs


@pytest.mark.parametrize(
    ("shape", "names", "lies", "columns"),
    [
        ((4, 6), EUROSAT.names, True, "1"),
        ((12, 3), EUROSAT.names, False, "1"),
        ((2, 12), EUROSAT.names, True, "4"),
        ((6, 6), [f"a name that is quite long, number {index:02}" for index in range(30)], False, "2"),
    ],
)
def test_the_sheet_makes_the_map_large(tmp_path, grid_of, shape, names, lies, columns):
    legend = Legend(tuple(replace(EUROSAT[1], code=code, name=name) for code, name in enumerate(names, 1)))
    write_project(tmp_path / "S_map.qgz", "S", grid_of(np.ones(shape)), legend, ALL)
    (layout,) = read(tmp_path / "S_map.qgz").findall("Layouts/Layout")
    width, height = (float(side) for side in layout.find("PageCollection/LayoutItem").get("size").split(",")[:2])
    items = {item.get("id"): item for item in layout.findall("LayoutItem")}
    assert (width > height) == lies
    assert items["legend"].get("columnCount") == columns
    for item in items.values():
        left, top, across, down = (float(part) for key in ("position", "size") for part in item.get(key).split(",")[:2])
        assert left >= 12
        assert left + across <= width - 11.9
        assert top + down <= height


def test_layers_say_what_they_show_and_whose_data_it_is(tmp_path, grid):
    about = About("Sentinel-2 L2A, 16 April 2019", "Model m.", "Less accurate elsewhere.", credit="Contains data.")
    write_project(tmp_path / "S_map.qgz", "S", grid, EUROSAT, ALL, about=about)
    layers = {e.findtext("layername"): e for e in read(tmp_path / "S_map.qgz").findall("projectlayers/maplayer")}
    said = {name: layer.findtext("abstract") for name, layer in layers.items()}
    assert said == {name: layer.findtext("resourceMetadata/abstract") for name, layer in layers.items()}
    assert all("Contains data." in text and "16 April 2019." in text for text in said.values())
    assert "Model m. Less accurate" in said["Confidence"]
    assert "Model m." not in said["Scene, true color"]
