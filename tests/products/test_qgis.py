"""QGIS as a judge: a map's products opened there, without a click, show named and colored classes."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from PIL import Image, ImageColor
from rasterio.crs import CRS

import geocfl
from geocfl.analysis.change import change
from geocfl.core.legend import EUROSAT, Legend, LulcClass
from geocfl.products import polygons
from geocfl.products.about import About
from geocfl.products.formats import qml as style
from geocfl.products.formats import raster, sld, truecolor, vector
from geocfl.products.formats.qgis import write_project
from geocfl.products.prediction_sets import pack
from geocfl.products.scratch import MEMBERS, NOVELTY
from tests.analysis.test_change import write_map

pytestmark = pytest.mark.integration

PYTHON = "/usr/bin/python3"
ZOOM = 8
CLASSES = [[c.code, c.name, c.color] for c in EUROSAT]
UNCLASSIFIED = [255, "Unclassified", "#d9d9d9"]
AWKWARD = Legend(
    (
        LulcClass(1, '<b>&"é</b>', "a", "#102030"),
        LulcClass(2, "[% 1 + 1 %] 'x' \\ </Option>", "b", "#a0b0c0"),
        LulcClass(3, "Öde, 100 %", "c", "#00ff00"),
    )
)
LOCAL = "+proj=laea +lat_0=47.123 +lon_0=13.456 +x_0=600000 +y_0=5100000 +ellps=GRS80 +units=m +no_defs"
ALL = ("_lulc.tif", "_confidence.tif", "_entropy.tif", "_truecolor.tif", "_lulc.gpkg")


@pytest.fixture(scope="module")
def qgis(tmp_path_factory):
    """Asks QGIS for layers or projects, see `qgis_check.py`; it is started once, and knows no settings of a user."""
    environment = os.environ | {"QT_QPA_PLATFORM": "offscreen", "PYTHONDONTWRITEBYTECODE": "1"}
    if sys.platform != "linux" or shutil.which(PYTHON) is None:
        pytest.skip(f"no {PYTHON} to look for QGIS in")
    if subprocess.run([PYTHON, "-c", "import qgis.gui"], env=environment, capture_output=True, check=False).returncode:
        pytest.skip(f"{PYTHON} has no QGIS bindings")
    home = tmp_path_factory.mktemp("home")
    home.chmod(0o700)
    with (
        (home / "errors").open("w") as errors,
        subprocess.Popen(
            [PYTHON, Path(__file__).with_name("qgis_check.py")],
            env=environment | {"HOME": str(home), "XDG_RUNTIME_DIR": str(home)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):

        def ask(kind, requests):
            process.stdin.write(json.dumps({kind: requests}, default=str) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            assert answer, (home / "errors").read_text()
            return json.loads(answer)[kind]

        yield ask
        process.stdin.close()
    assert process.returncode == 0, (home / "errors").read_text()


@pytest.fixture
def make_map(tmp_path, cells_of):
    """Writes the products that QGIS opens, with their styles and a project, and gives their folder.

    The scene's picture is light on the left and dark on the right.
    """

    def make(codes, grid, legend=EUROSAT, stem="S", name="out"):
        out = tmp_path / name
        out.mkdir()
        here = {"unclassified": bool((codes == 255).any())}
        percent = np.where(codes == 0, 255, 25)
        cells = cells_of(codes, np.where(codes == 0, 255, 75), percent, *[percent] * len(legend))

        raster.write_lulc(cells, out / f"{stem}_lulc.tif", grid, legend, {})
        raster.write_confidence(cells, out / f"{stem}_confidence.tif", grid, {})
        raster.write_entropy(cells, out / f"{stem}_entropy.tif", grid, {})
        truecolor.write_truecolor(out / f"{stem}_truecolor.tif", picture_of(grid), grid, {})
        frame = polygons.dissolve(cells, grid, legend)
        for suffix, kind in (
            ("_lulc.gpkg", "gpkg"),
            ("_lulc_polygons.fgb", "flatgeobuf"),
            ("_lulc_polygons.geojson", "geojson"),
        ):
            vector.write_polygons(frame, out / f"{stem}{suffix}", kind)
        vector.write_windows(cells, out / f"{stem}_lulc.gpkg", grid, legend)
        styles = {"lulc": style.polygons_qml(legend, **here), "windows": style.windows_qml(legend, **here)}
        vector.write_default_styles(out / f"{stem}_lulc.gpkg", styles)
        for suffix, text in (
            ("_lulc.qml", style.lulc_qml(legend, **here)),
            ("_confidence.qml", style.confidence_qml()),
            ("_entropy.qml", style.entropy_qml()),
            ("_lulc_polygons.qml", styles["lulc"]),
            ("_lulc_polygons.sld", sld.polygons_sld(legend, **here)),
        ):
            style.write_style(out / f"{stem}{suffix}", text)
        write_project(out / f"{stem}_map.qgz", stem, grid, legend, ALL, **here)
        return out

    return make


def picture_of(grid):
    """(H, W, 4) a scene of two colors, without data in its last 32 rows."""
    picture = np.full((grid.height, grid.width, 4), 255, np.uint8)
    picture[:, : grid.width // 2, :3] = 200, 180, 160
    picture[:, grid.width // 2 :, :3] = 40, 60, 20
    picture[-32:] = 0
    return picture


def cell_colors(path, shape):
    """(rows, columns, 4) colors near the middle of the cells."""
    pixels = np.asarray(Image.open(path).convert("RGBA")).astype(int)
    return pixels[ZOOM // 2 :: ZOOM, ZOOM // 2 :: ZOOM][: shape[0], : shape[1]]


def unmixed(layer):
    """What QGIS says of a layer, without what differs from format to format."""
    return {key: layer[key] for key in ("valid", "renderer", "attribute", "classes")}


@pytest.mark.parametrize("withheld", [False, True])
def test_files_open_with_named_and_colored_classes(qgis, make_map, codes, grid_of, tmp_path, withheld):
    if not withheld:
        codes[codes == 255] = 1
    grid = grid_of(codes)
    out = make_map(codes, grid)
    before = sorted(path.name for path in out.iterdir())
    wanted = [*CLASSES, UNCLASSIFIED] if withheld else CLASSES
    colors = {code: ImageColor.getrgb(color) for code, _, color in wanted}
    vectors = {
        "gpkg": "S_lulc.gpkg",
        "lulc": "S_lulc.gpkg|layername=lulc",
        "windows": "S_lulc.gpkg|layername=windows",
        "fgb": "S_lulc_polygons.fgb",
        "geojson": "S_lulc_polygons.geojson",
    }
    sources = {"tif": "S_lulc.tif", "confidence": "S_confidence.tif", "entropy": "S_entropy.tif"} | vectors
    requests = [
        {"source": out / source, "picture": tmp_path / f"{name}.png", "extent": grid.bounds()}
        for name, source in sources.items()
    ]
    for request in requests:
        if "geojson" in str(request["source"]):
            del request["picture"]  # in degrees
    shown = dict(zip(sources, qgis("layers", requests), strict=True))
    assert sorted(path.name for path in out.iterdir()) == before

    assert shown["tif"] == {
        "valid": True,
        "crs": "EPSG:32633",
        "crs_known": True,
        "renderer": "paletted",
        "opacity": 1,
        "classes": wanted,
    }
    for name in vectors:
        expected = {"valid": True, "renderer": "categorizedSymbol", "attribute": "class_code", "classes": wanted}
        assert unmixed(shown[name]) == expected, name
        assert shown[name]["tip"].endswith("</b>, 75%")
    assert shown["windows"]["features"] == np.count_nonzero(codes)
    for name, value, stops in (
        ("confidence", 0.75, style.CONFIDENCE_STOPS),
        ("entropy", 0.25, style.ENTROPY_STOPS),
    ):
        assert shown[name]["renderer"] == "singlebandpseudocolor"
        assert shown[name]["range"] == [0, 1]
        assert shown[name]["ends"] == ["0%", "100%"]
        assert shown[name]["value"] == pytest.approx(value)
        assert shown[name]["stops"] == [[stop, f"{stop:.0%}", color] for stop, color in stops]
        drawn = cell_colors(tmp_path / f"{name}.png", codes.shape)
        assert drawn[codes != 0, :3] == pytest.approx(
            np.tile(ImageColor.getrgb(dict(stops)[value]), (np.count_nonzero(codes), 1)), abs=2
        )
        assert (drawn[codes == 0, 3] == 0).all()

    for name in ("tif", "gpkg", "lulc", "windows", "fgb"):
        drawn = cell_colors(tmp_path / f"{name}.png", codes.shape)
        for code, color in colors.items():
            assert (drawn[codes == code] == (*color, 255)).all(), (name, code)
        assert (drawn[codes == 0, 3] == 0).all()


def test_novelty_and_sizes_of_sets_open_with_their_styles(qgis, cells_of, codes, grid_of, tmp_path):
    """Sets have as many members as the column's number says: none in the second, all in the last."""
    grid, legend = grid_of(codes), EUROSAT
    size = np.broadcast_to(np.clip(np.arange(codes.shape[1]) - 1, 0, 10), codes.shape)
    packed = pack(np.arange(10) < size.reshape(-1, 1)).reshape(2, *codes.shape)
    values = [np.where(codes == 0, 255, band) for band in (np.full(codes.shape, 95), *packed)]
    cells = cells_of(codes, None, *values, names=[NOVELTY, MEMBERS, MEMBERS])
    raster.write_novelty(cells, tmp_path / "S_novelty.tif", grid, {})
    raster.write_sets(cells, tmp_path / "S_sets.tif", grid, legend, {})
    style.write_style(tmp_path / "S_novelty.qml", style.novelty_qml())
    style.write_style(tmp_path / "S_sets.qml", style.sets_qml(len(legend)))
    novelty, sets = qgis(
        "layers",
        [
            {"source": tmp_path / f"S_{name}.tif", "picture": tmp_path / f"{name}.png", "extent": grid.bounds()}
            for name in ("novelty", "sets")
        ],
    )
    assert novelty["renderer"] == "singlebandpseudocolor"
    assert (novelty["range"], novelty["ends"], novelty["value"]) == ([0, 100], ["0%", "100%"], 95)
    assert novelty["stops"] == [[stop, f"{stop:g}%", color] for stop, color in style.NOVELTY_STOPS]
    drawn = cell_colors(tmp_path / "novelty.png", codes.shape)
    assert (drawn[codes != 0] == (*ImageColor.getrgb("#ce1256"), 255)).all()
    assert (drawn[codes == 0, 3] == 0).all()

    assert sets["renderer"] == "paletted"
    assert [entry[:2] for entry in sets["classes"][:3]] == [[0, "no classes"], [1, "1 class"], [2, "2 classes"]]
    colors = {value: ImageColor.getrgb(color) for value, _, color in sets["classes"]}
    drawn = cell_colors(tmp_path / "sets.png", codes.shape)
    for value, color in colors.items():
        assert (drawn[(size == value) & (codes != 0)] == (*color, 255)).all(), value
    assert (drawn[codes == 0, 3] == 0).all()


@pytest.mark.parametrize(("layer", "cells"), [("windows", [[1, 1], [1, 1]]), ("lulc", [[1, 2], [1, 2]])])
def test_outlines_show_when_zoomed_in(qgis, make_map, grid_of, tmp_path, layer, cells):
    codes = np.array(cells, np.uint8)
    out = make_map(codes, grid_of(codes))
    far, near = (
        {
            "source": f"{out}/S_lulc.gpkg|layername={layer}",
            "picture": tmp_path / f"{name}.png",
            "cell": 40,
            "scale": scale,
        }
        for name, scale in (("far", 500_000), ("near", 25_000))
    )
    qgis("layers", [far, near])
    plain, outlined = (np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")) for name in ("far", "near"))
    classes = [EUROSAT[code].rgb for code in {cells[0][0], cells[0][1]}]
    assert (plain[5:-5, 5:-5, None] == classes).all(axis=-1).any(axis=-1).all()
    lines = ~(outlined[60, 5:-5, None] == classes).all(axis=-1).any(axis=-1)
    across = lines.nonzero()[0] + 5
    assert 1 <= len(across) <= 3
    assert set(across) <= {127, 128, 129}  # a line between the cells, 128 pixels wide each


def test_project_opens_anywhere_on_the_map_over_the_scene(qgis, make_map, codes, grid_of, tmp_path):
    grid = grid_of(codes)
    home = make_map(codes, grid)
    (tmp_path / "elsewhere").mkdir()
    moved = home.rename(tmp_path / "elsewhere" / "renamed & gone")
    picture = tmp_path / "project.png"
    (project,) = qgis("projects", [{"path": moved / "S_map.qgz", "picture": picture, "extent": grid.bounds()}])

    assert project["read"]
    assert project["title"] == "S: land use / land cover"
    assert project["crs"] == "EPSG:32633"
    west, south, east, north = grid.bounds()
    margin = 0.03 * (east - west)
    assert project["extent"] == pytest.approx([west - margin, south - margin, east + margin, north + margin])
    seen = project["seen"]  # in a window of other proportions, all of it and centered
    assert seen[0] <= project["extent"][0]
    assert seen[1] <= project["extent"][1]
    assert [seen[0] + seen[2], seen[1] + seen[3]] == pytest.approx([west + east, south + north])

    layers = project["layers"]
    assert all(layer["valid"] and layer["crs"] == "EPSG:32633" for layer in layers)
    assert [[layer[key] for key in ("name", "shown", "expanded", "renderer", "opacity")] for layer in layers] == [
        ["Polygons", False, False, "categorizedSymbol", 1],
        ["Confidence", False, False, "singlebandpseudocolor", 1],
        ["Entropy", False, False, "singlebandpseudocolor", 1],
        ["Land use / land cover", True, True, "paletted", 1],
        ["Scene, true color", True, False, "multibandcolor", 1],
    ]
    assert layers[0]["classes"] == layers[3]["classes"] == [*CLASSES, UNCLASSIFIED]
    assert layers[0]["tip"].endswith("75%")
    assert [layer["stops"][-1][2] for layer in layers[1:3]] == ["#fde725", "#bd0026"]
    assert layers[4]["bands"] == [1, 2, 3, 4]

    drawn = cell_colors(picture, codes.shape)
    scene = picture_of(grid)[32::64, 32::64, :3].astype(float)
    colors = {code: ImageColor.getrgb(color) for code, _, color in layers[3]["classes"]}
    for code, color in colors.items():  # as in the legend
        assert (drawn[codes == code] == (*color, 255)).all(), code
    assert drawn[:-1][codes[:-1] == 0, :3] == pytest.approx(scene[:-1][codes[:-1] == 0], abs=3)
    assert (drawn[-1][codes[-1] == 0, 3] == 0).all()  # the last row has no picture below


def test_project_has_a_sheet_to_print(qgis, make_map, codes, grid_of, tmp_path):
    out = make_map(codes, grid_of(codes))
    about = About(
        "Sentinel-2 L2A, 16 April 2019", "Model m.", "Less accurate.", credit="Contains data.", maker="By us."
    )
    write_project(out / "S_map.qgz", "S", grid_of(codes), EUROSAT, ALL, unclassified=True, about=about)
    (project,) = qgis("projects", [{"path": out / "S_map.qgz", "sheet": tmp_path / "sheet.png"}])
    (sheet,) = project["layouts"]
    assert sheet["texts"] == {
        "title": "Land use / land cover",
        "subtitle": "S · Sentinel-2 L2A, 16 April 2019 · WGS 84 / UTM zone 33N (EPSG:32633)",
        "credit": "Model m.\nLess accurate.\nContains data. By us.",
    }
    assert sheet["legend"] == {"Class": [*EUROSAT.names, "Unclassified"]}
    assert sheet["bar"] > 0
    west, south, east, north = sheet["extent"]
    assert west < project["extent"][0] + 1
    assert (south + north) / 2 == pytest.approx((project["extent"][1] + project["extent"][3]) / 2)
    page, map_box = sheet["page"], sheet["boxes"]["map"]
    assert all(
        box[0] >= 0 and box[0] + box[2] <= page[0] and box[1] + box[3] <= page[1] for box in sheet["boxes"].values()
    )
    assert (east - west) / (north - south) == pytest.approx(map_box[2] / map_box[3], rel=1e-3)
    picture = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).reshape(-1, 3)
    drawn = {tuple(color) for color in np.unique(picture, axis=0)}
    assert {EUROSAT[code].rgb for code in np.unique(codes) if 1 <= code <= 10} <= drawn
    assert project["layers"][3]["abstract"].startswith(
        "Most probable class of each cell. Sentinel-2 L2A, 16 April 2019."
    )


def test_project_shows_what_is_there_alone(qgis, make_map, codes, grid_of):
    out = make_map(codes, grid_of(codes))
    present = {"few": ["_lulc.tif"], "fgb": ["_lulc_polygons.fgb"], "geojson": ["_lulc_polygons.geojson", "_lulc.tif"]}
    for name, suffixes in present.items():
        write_project(out / f"{name}.qgz", "S", grid_of(codes), EUROSAT, suffixes)
    few, fgb, geojson = qgis("projects", [{"path": out / f"{name}.qgz"} for name in present])
    assert [layer["name"] for layer in few["layers"]] == ["Land use / land cover"]
    assert few["layers"][0]["classes"] == CLASSES
    assert [[layer["name"], layer["valid"], layer["crs"]] for layer in fgb["layers"]] == [
        ["Polygons", True, "EPSG:32633"]
    ]
    assert [[layer["name"], layer["valid"], layer["crs"]] for layer in geojson["layers"]] == [
        ["Polygons", True, "EPSG:4326"],
        ["Land use / land cover", True, "EPSG:32633"],
    ]


def test_awkward_names_and_crs(qgis, make_map, tmp_path, grid_of):
    codes = np.array([[1, 2], [3, 1]], np.uint8)
    grid = grid_of(codes)
    stem = "S <b>&\"é #1 'x' S2A.SAFE"
    named = make_map(codes, grid, AWKWARD, stem, name="nämed")
    local = make_map(codes, replace(grid, crs=CRS.from_string(LOCAL)), name="local")
    turned = make_map(codes, replace(grid, transform=grid.transform @ Affine.rotation(30)), name="turned")
    degrees = make_map(codes, grid_of(codes, epsg=4326), name="degrees")
    paths = [named / f"{stem}_map.qgz", *(folder / "S_map.qgz" for folder in (local, turned, degrees))]
    projects = qgis("projects", [{"path": path} for path in paths])
    for project, crs in zip(projects, ("EPSG:32633", "", "EPSG:32633", "EPSG:4326"), strict=True):
        assert project["read"]
        assert project["crs_known"]
        assert project["crs"] == crs
        assert len(project["layers"]) == 5
        assert all(layer["valid"] and layer["crs_as_project"] for layer in project["layers"])
    title, layers = projects[0]["title"], projects[0]["layers"]
    assert title.startswith(stem)
    wanted = [[c.code, c.name, c.color] for c in AWKWARD]
    assert layers[0]["classes"] == layers[3]["classes"] == wanted
    assert layers[0]["tip"] == '<b>&lt;b>&amp;"é&lt;/b></b>, 75%'

    opened = qgis(
        "layers",
        [{"source": named / f"{stem}{suffix}"} for suffix in ("_lulc.tif", "_lulc.gpkg", "_lulc_polygons.fgb")],
    )
    assert [layer["classes"] for layer in opened] == [wanted] * 3


def test_sld_of_the_polygons_is_read(qgis, make_map, codes, grid_of, tmp_path):
    grid = grid_of(codes)
    out = make_map(codes, grid)
    picture = tmp_path / "sld.png"
    request = {"source": out / "S_lulc_polygons.fgb", "sld": out / "S_lulc_polygons.sld"}
    (layer,) = qgis("layers", [request | {"picture": picture, "extent": grid.bounds()}])
    assert layer["renderer"] == "RuleRenderer"
    wanted = [*CLASSES, UNCLASSIFIED]
    assert layer["rules"] == [[f"class_code = {code}", name, color] for code, name, color in wanted]
    drawn = cell_colors(picture, codes.shape)
    for code, _, color in wanted:
        assert (drawn[codes == code] == (*ImageColor.getrgb(color), 255)).all(), code


def test_change_maps_open_with_named_transitions(qgis, tmp_path):
    maps = [write_map(tmp_path / name, codes, 90) for name, codes in (("A", [[2, 2, 255]]), ("B", [[2, 8, 8]]))]
    made = change(*maps, tmp_path / "out" / "X_change.tif")
    colors = {c.code: c.color for c in made.classes}
    moved = [208, "Forest > Residential", colors[208]]
    (layer,) = qgis("layers", [{"source": made.path}])
    assert layer["classes"] == [moved, [202, "Forest", colors[202]], [65535, "Unclassified", "#d9d9d9"]]
    (project,) = qgis("projects", [{"path": made.paths["project"]}])
    assert [(found["name"], found["valid"], found["shown"]) for found in project["layers"]] == [
        ("Change", True, True),
        ("Probability of change", True, False),
        ("Transitions", True, False),
        ("Later map", True, True),
        ("Earlier map", True, False),
    ]
    polygons_layer, probability, transitions, later, _ = project["layers"]
    assert polygons_layer["classes"] == [moved]
    assert polygons_layer["features"] == 1
    assert (
        polygons_layer["tip"].startswith("<b>Forest &gt; Residential</b>, ") or "<b>Forest >" in polygons_layer["tip"]
    )
    assert probability["range"] == [0, 1]
    assert transitions["classes"] == layer["classes"]
    assert later["classes"] == [*CLASSES, UNCLASSIFIED]
    (sheet,) = project["layouts"]
    assert sheet["texts"]["title"] == "Change of land use / land cover"
    assert sheet["legend"] == {
        "Change": [label for _, label, _ in polygons_layer["classes"]],
        "Later map": [*EUROSAT.names, "Unclassified"],
    }
    assert all("errors of both maps count as change" in found["abstract"] for found in project["layers"])
    assert all(found["crs_as_project"] for found in project["layers"])


def test_areas_of_zones_open_in_the_color_of_their_largest_class(qgis, make_map, grid_of, tmp_path):
    codes = np.array([[1, 1, 2, 3], [1, 2, 2, 0]], np.uint8)
    grid = grid_of(codes)
    out = make_map(codes, grid, AWKWARD)
    west, south, _, north = grid.bounds()
    boxes = [shapely.box(west + 640 * a, south, west + 640 * b, north) for a, b in ((0, 2), (2, 3), (9, 10))]
    zones = gpd.GeoDataFrame({"name": ["a <b> & 'c'", "d", None]}, geometry=boxes, crs=grid.crs)
    zones.to_file(tmp_path / "zones.gpkg", layer="zones")
    geocfl.stats(out / "S_lulc.tif", tmp_path / "zones.gpkg", by="name", out=tmp_path / "areas.gpkg")
    picture = {"picture": tmp_path / "zones.png", "extent": grid.bounds()}
    (layer,) = qgis("layers", [{"source": f"{tmp_path / 'areas.gpkg'}|layername=zones", **picture}])
    assert layer["renderer"] == "categorizedSymbol"
    assert layer["classes"] == [*([c.code, c.name, c.color] for c in AWKWARD), [0, "No class", "#ffffff"]]
    assert layer["labels"] == "zone"
    assert layer["tip"] == (
        "<b>a &lt;b> &amp; 'c'</b><br>&lt;b&gt;&amp;&quot;é&lt;/b&gt; 75%, 122.9&nbsp;ha"
        "<br>[% 1 + 1 %] &#x27;x&#x27; \\ &lt;/Option&gt; 25%, 41.0&nbsp;ha"
    )
    drawn = np.asarray(Image.open(tmp_path / "zones.png").convert("RGB"))
    assert tuple(drawn[2, 2]) == AWKWARD[1].rgb
    assert tuple(drawn[2, 2 * ZOOM + 2]) == AWKWARD[2].rgb


def test_a_sample_opens_with_a_form_that_does_not_show_the_map(qgis, make_map, codes, grid_of, tmp_path):
    from geocfl.analysis.sampling import sample

    out = make_map(codes, grid_of(codes))
    sample(out / "S_lulc.tif", tmp_path / "sample.gpkg", size=40)
    form = qgis("forms", [{"source": f"{tmp_path / 'sample.gpkg'}|layername=sample"}])[0]
    hidden = ["map_class", "stratum"]
    assert form["widgets"]["reference"] == "ValueMap"
    assert [value for (value,) in form["values"]][1:] == EUROSAT.names
    assert [name for (name,) in form["answers"]] == ["(no answer)", *EUROSAT.names]
    assert [form["widgets"][name] for name in hidden] == ["Hidden", "Hidden"]
    assert form["hidden"] == hidden
    assert form["form"] == ["id", "reference", "confidence", "comment"]
    assert set(form["read_only"]) == {"id", *hidden}
    assert form["colors"] == {"None": "#ffdd33", "Forest": "#50dc78"}
    project = qgis("projects", [{"path": tmp_path / "sample.qgz"}])[0]
    assert [layer["name"] for layer in project["layers"]] == ["Sample", "Windows", "Scene, true color"]
    assert all(layer["valid"] and layer["shown"] for layer in project["layers"])
    west, _, east, _ = project["extent"]
    assert east - west == pytest.approx(3 * 640)
