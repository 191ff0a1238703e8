import hashlib
import json
import re
import shutil
import zlib
from base64 import b64decode, b64encode
from html.parser import HTMLParser
from importlib.resources import files
from io import BytesIO

import numpy as np
import pytest
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pyproj import Geod
from rasterio.crs import CRS

from geocfl.core.grid import CellGrid
from geocfl.core.legend import EUROSAT, Legend, LulcClass
from geocfl.products import scratch as cells_module
from geocfl.products.formats import html as page_module
from geocfl.products.formats.html import write_page
from geocfl.products.summary import class_table

MALICE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & \"quotes\" 'n' Öl"


def facts(stride, **more):
    """A summary without its class table and timing."""
    scaling = {"scale": 10000, "offset": -1000.0}
    bands = {"B04": 3, "B03": 2, "B02": 1}
    return {
        "geocfl": "9.8.7",
        "cells": "c0ffee",
        "scene": {"file": "S.tif", "level": "L2A", "bands": bands, "scaling": dict.fromkeys(bands, scaling)},
        "model": {"name": "a-model", "hash": "feed", "origin": {"loss": "class-focal", "metrics": {"test": {"n": 7}}}},
        "settings": {"stride": stride, "bands": "", "scale": None},
        "cell_size_m": stride * 10.0,
        "warnings": [],
    } | more


@pytest.fixture
def page_of(tmp_path, cells_of):
    """Writes a page and returns its path; the scene is plain gray."""

    def write(codes, grid, confidence=None, legend=EUROSAT, title="S", picture=None, name="S_report.html", **more):
        cells = cells_of(codes, confidence) if confidence is not None else cells_of(codes)
        if picture is None:
            picture = np.full((grid.height // 4 + 1, grid.width // 4 + 1, 4), (90, 90, 90, 255), np.uint8)
        summary = facts(grid.stride, **(class_table(cells, grid, legend) | more))
        write_page(tmp_path / name, cells, grid, legend, picture, summary, title)
        return tmp_path / name

    return write


class Elements(HTMLParser):
    """Elements of a page with their attributes, and the text in them."""

    def __init__(self, text):
        super().__init__()
        self.found, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def data_of(path):
    """What the page's script reads, with the cells decoded as (codes, confidence)."""
    data = json.loads(re.search(r'id="data">(.*?)</script>', path.read_text("utf-8"), re.DOTALL)[1])
    planes = np.frombuffer(zlib.decompress(b64decode(data["cells"])), np.uint8)
    return data, planes.reshape(2, data["rows"], data["columns"])


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_cells_come_back_exactly(page_of, grid_of, rows, columns, seed):
    random = np.random.default_rng(seed)
    codes = random.choice([0, *range(1, 11), 255], (rows, columns)).astype(np.uint8)
    confidence = np.where(codes == 0, 255, random.integers(0, 101, codes.shape)).astype(np.uint8)
    data, planes = data_of(page_of(codes, grid_of(codes, 16), confidence))
    assert np.array_equal(planes, [codes, confidence])
    for entry in data["classes"]:
        expected = np.histogram(confidence[codes == entry["code"]], bins=20, range=(0, 100))[0]
        assert entry["bins"] == expected.tolist()
    assert {entry["code"] for entry in data["classes"]} == set(np.unique(codes)) - {0}


def test_large_maps_are_thinned_by_the_mode(page_of, grid_of, monkeypatch):
    monkeypatch.setattr(page_module, "SHOWN_CELLS", 5)
    monkeypatch.setattr(cells_module, "STRIP_CELLS", 600)  # strips that end within a block
    blocks = np.array([[1, 2, 3, 4, 5], [6, 7, 0, 9, 10]], np.uint8)
    codes = blocks.repeat(100, 0).repeat(100, 1)
    codes[::7, ::7] = 8
    confidence = np.where(codes == 0, 255, codes * np.uint8(9))
    codes[20:40, 20:40], confidence[20:40, 20:40] = 0, 255
    path = page_of(codes, grid_of(codes, 2, (1, 1)), confidence)
    data, (thinned, means) = data_of(path)
    assert np.array_equal(thinned, blocks)
    for (row, column), mean in np.ndenumerate(means):
        part = confidence[row * 100 : row * 100 + 100, column * 100 : column * 100 + 100]
        assert mean == (255 if blocks[row, column] == 0 else np.rint(part[part != 255].mean()))
    assert data["extent"] == [1000, 400]
    assert "100 \N{MULTIPLICATION SIGN} 100 cells" in path.read_text("utf-8")
    assert sum(sum(entry["bins"]) for entry in data["classes"]) == np.count_nonzero(codes)


def test_scene_is_thinned_and_keeps_its_transparency(page_of, grid_of, codes):
    picture = np.full((1000, 3200, 4), (200, 100, 50, 255), np.uint8)
    picture[:, :1600, 3] = 0
    data, _ = data_of(page_of(codes, grid_of(codes), picture=picture))
    image = Image.open(BytesIO(b64decode(data["picture"].removeprefix("data:image/webp;base64,"))))
    assert image.size == (1600, 500)
    pixels = np.asarray(image.convert("RGBA")).astype(int)
    assert not pixels[:, :790, 3].any()
    assert np.abs(pixels[:, 810:] - (200, 100, 50, 255)).max() < 6


def test_table_is_that_of_the_summary(page_of, grid_of, codes):
    codes[codes == 4] = 1
    cover = {"cells": 3, "pixels": 4, "hectares": 12345.67}
    path = page_of(codes, grid_of(codes, cut=(5, 9)), nodata=cover)
    text = Elements(path.read_text("utf-8")).text
    assert "No data 0 3 12,345.7" in text
    assert "Not on this map: Highway." in text
    assert "Unclassified 255 2" in text
    assert "labeled Highway or River contains one, so" in text
    assert "(DN -1000) / 10000" in text
    assert "metrics test (n 7)" in text


def test_bounds_are_in_full(page_of, grid_of, codes):
    bounds = [13.123456789, 45.987654321, 13.2, 46.1]
    scene = facts(64)["scene"] | {"bounds": bounds}
    page = page_of(codes, grid_of(codes), scene=scene).read_text("utf-8")
    assert "<dd>13.123456789, 45.987654321, 13.2, 46.1</dd>" in page


def test_land_unlike_the_training_data_is_said(page_of, grid_of, codes):
    novelty = {"percentile": 95, "cells": 3, "hectares": 7.0, "share": 0.123}
    page = page_of(codes, grid_of(codes), novelty=novelty).read_text()
    assert "12.3% of this map lies on land unlike anything the model was trained on" in page
    assert "unlike anything" not in page_of(codes, grid_of(codes)).read_text()


def test_what_users_name_is_text(page_of, grid_of):
    legend = Legend((LulcClass(1, MALICE, "a", "#112233"), LulcClass(2, "Plain", "b", "#445566")))
    path = page_of(np.array([[1, 1, 2]]), grid_of(np.ones((1, 3))), legend=legend, title=MALICE, warnings=[MALICE])
    text = path.read_text("utf-8")
    page = Elements(text)
    tags = [tag for tag, _ in page.found]
    assert (tags.count("script"), tags.count("img")) == (3, 0)
    assert page.text.count(" ".join(MALICE.split())) >= 4  # title, headline, warning, legend, table
    assert data_of(path)[0]["classes"][0]["name"] == MALICE


def test_file_names_that_are_no_text(page_of, grid_of):
    path = page_of(np.ones((2, 2)), grid_of(np.ones((2, 2))), title="sc\udce8ne")
    assert "<h1>sc&#56552;ne</h1>" in path.read_text("utf-8")


def test_bytes_repeat_and_nothing_is_elsewhere(page_of, grid_of, codes, tmp_path):
    first, second = (page_of(codes, grid_of(codes), name=name).read_bytes() for name in ("a.html", "b.html"))
    assert first == second
    assert str(tmp_path).encode() not in first
    assert b"\r" not in first
    assert b"sourceMappingURL" not in first
    for _, attributes in Elements(first.decode()).found:
        for name in ("src", "href", "action"):
            assert attributes.get(name, "data:").startswith("data:")


def test_only_the_scripts_of_this_page_may_run(page_of, grid_of, codes):
    text = page_of(codes, grid_of(codes)).read_text("utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    allowed = {f"'sha256-{b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts}
    assert policy.startswith("default-src 'none';")
    assert set(re.search("script-src (.*)", policy)[1].split()) == allowed
    assert "Redistributions in binary form must reproduce" in scripts[0]


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("leaflet.js", "20nQCchB9co0qIjJZRGuk2/Z9VM+kNiyxNV1lvTlZBo="),
        ("leaflet.css", "p4NxAoJBhIIN+hmNHrzRCf9tD/miZyoHS5obTRR9BMY="),
    ],
)
def test_leaflet_is_the_published_one(name, digest):
    """Subresource integrity that leafletjs.com states for 1.9.4."""
    content = files("geocfl.products.formats").joinpath("page_assets", "leaflet", name).read_bytes()
    assert b64encode(hashlib.sha256(content).digest()).decode() == digest


def test_meters_and_north(page_of, grid_of, codes):
    path = page_of(codes, grid_of(codes))
    assert data_of(path)[0]["meters"] == [10, 10]
    assert "transform: rotate(0.0deg)" in path.read_text("utf-8")
    assert "North is up" in path.read_text("utf-8")
    turned = Affine.translation(6e5, 5e6) @ Affine.rotation(30) @ Affine.scale(20, -10)
    path = page_of(codes, CellGrid(9 * 8, 12 * 8, 8, 64, turned, CRS.from_epsg(32633)))
    assert data_of(path)[0]["meters"] == pytest.approx([20, 10])
    # Rows run to 30 degrees left of south, and pixels are twice as wide as high.
    angle = float(re.search(r"style=.transform: rotate\((.*?)deg\)", path.read_text("utf-8"))[1])
    assert angle == pytest.approx(
        np.degrees(np.arctan2(np.sin(np.radians(30)) / 20, np.cos(np.radians(30)) / 10)), abs=0.01
    )
    wide, high = data_of(page_of(codes, grid_of(codes, epsg=4326)))[0]["meters"]
    assert wide == pytest.approx(Geod(ellps="WGS84").inv(13.1, 46.17, 13.1001, 46.17)[2], rel=1e-3)
    assert high == pytest.approx(11.115, rel=1e-3)


# ---- in a browser ----


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    executable = next(filter(None, map(shutil.which, names)), None)
    if executable is None:
        pytest.skip(f"none of {', '.join(names)} is installed")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def show(browser):
    """Opens a page from disk without a network; it must have asked for nothing and complained of nothing."""
    contexts, asked, complaints = [], [], []

    def open_page(path, width=1280, height=860, script=None, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        context.set_offline(True)
        page = context.new_page()
        if script:
            page.add_init_script(script)
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message) or dialog.dismiss())
        page.goto(path.as_uri())
        page.locator("#map canvas, #map:has-text('too old')").wait_for()
        asked.remove(path.as_uri())
        return page

    open_page.complaints = complaints
    yield open_page
    for context in contexts:
        context.close()
    assert [url for url in asked if not url.startswith("data:")] == []
    assert complaints == []


def place(page, grid, x, y):
    """Where pixel coordinates of the scene are on the screen, by the picture that fills the scene's rectangle."""
    frame = page.locator("#map .scene").bounding_box()
    return frame["x"] + x / grid.width * frame["width"], frame["y"] + y / grid.height * frame["height"]


def point_at(page, grid, row, column):
    """Puts the pointer into a cell, near its upper left corner, and returns what the readout says."""
    page.mouse.move(*place(page, grid, (column + 0.2) * grid.stride, (row + 0.2) * grid.stride))
    return [page.locator(f"#readout .{part}").inner_text() for part in ("class", "confidence", "position")]


def color_at(page, x, y):
    """Color on the screen."""
    shot = page.screenshot(clip={"x": round(x), "y": round(y), "width": 1, "height": 1})
    return Image.open(BytesIO(shot)).convert("RGB").getpixel((0, 0))


def set_opacity(page, percent):
    page.locator("#opacity").fill(str(percent))


DRAWN = """() => {
  const canvas = document.querySelector("#map canvas");
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d");
  copy.drawImage(canvas, 0, 0);
  return [...copy.getImageData(0, 0, canvas.width, canvas.height).data];
}"""
"""RGBA of each cell as the class layer holds it."""


def near(color, other, tolerance=3):
    return max(abs(a - b) for a, b in zip(color, other, strict=True)) <= tolerance


@pytest.fixture
def confidence(codes):
    """Another one in each cell."""
    values = np.arange(codes.size, dtype=np.uint8).reshape(codes.shape) % 101
    return np.where(codes == 0, 255, values).astype(np.uint8)


def test_readout_tells_each_cell(page_of, grid_of, codes, confidence, show):
    grid = grid_of(codes, 16, (5, 9))
    page = show(page_of(codes, grid, confidence))
    box = page.locator("#readout").bounding_box()
    for row, column in [(0, 1), (2, 5), (3, 7), (8, 2), (8, 11), (0, 11), (5, 0)]:
        name, percent, position = point_at(page, grid, row, column)
        code = codes[row, column]
        assert name == {0: "No data", 255: "Unclassified"}.get(code) or EUROSAT[code].name
        assert percent == ("" if code == 0 else f"confidence {confidence[row, column]}%")
        x, y = map(float, position.split(", "))
        assert (x, y) == pytest.approx(grid.cell_transform @ (column + 0.2, row + 0.2), abs=10)
        assert page.locator("#readout").bounding_box() == box
    x, y = place(page, grid, grid.width + 3, 20)
    page.mouse.move(x, y)
    assert page.locator("#readout .class").inner_text() == "Point at a cell, or tap it"


def test_readout_on_a_rotated_grid_in_degrees(page_of, codes, show):
    turned = Affine.translation(13, 46) @ Affine.rotation(40) @ Affine.scale(1e-4, -1e-4)
    grid = CellGrid(9 * 16, 12 * 16, 16, 64, turned, CRS.from_epsg(4326))
    page = show(page_of(codes, grid))
    name, _, position = point_at(page, grid, 6, 9)
    assert name == EUROSAT[codes[6, 9]].name
    assert tuple(map(float, position.split(", "))) == pytest.approx(grid.cell_transform @ (9.2, 6.2), abs=1.5e-4)


def test_cells_are_drawn_where_they_are_and_cut_at_the_scene(page_of, grid_of, codes, show):
    grid = grid_of(codes, 16, (5, 9))
    page = show(page_of(codes, grid))
    set_opacity(page, 100)
    for row, column in [(0, 1), (2, 5), (8, 11), (3, 8)]:
        expected = (217, 217, 217) if codes[row, column] == 255 else EUROSAT[codes[row, column]].rgb
        for corner in (0.06, 0.4):  # the last column has 7 of 16 pixels
            assert near(color_at(page, *place(page, grid, (column + corner) * 16, (row + corner) * 16)), expected)
    assert near(color_at(page, *place(page, grid, 5, 50)), (90, 90, 90))  # no data: the scene shows
    for x, y in [(grid.width + 1.5, 100), (100, grid.height + 1.5)]:
        assert near(color_at(page, *place(page, grid, x, y)), (223, 227, 232))  # the map's ground


def test_legend_switches_classes(page_of, grid_of, codes, show):
    grid = grid_of(codes, 16)
    page = show(page_of(codes, grid))
    set_opacity(page, 100)
    row, column = np.argwhere(codes == 7)[0]
    here = place(page, grid, (column + 0.5) * 16, (row + 0.5) * 16)
    bars = "#histogram rect"
    button = page.get_by_role("button", name="Permanent Crop")
    before, count = page.evaluate(DRAWN), page.locator(bars).count()
    assert button.get_attribute("aria-pressed") == "true"
    assert near(color_at(page, *here), EUROSAT[7].rgb)

    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert near(color_at(page, *here), (90, 90, 90))
    alpha = np.array(page.evaluate(DRAWN)).reshape(9, 12, 4)[..., 3]
    assert np.array_equal(alpha > 0, (codes != 7) & (codes != 0))
    assert page.locator(bars).count() == count - 1

    button.press("Space")
    assert page.evaluate(DRAWN) == before
    page.get_by_role("button", name="None").click()
    assert not np.any(page.evaluate(DRAWN))
    assert page.locator(bars).count() == 0
    page.get_by_role("button", name="Unclassified").press("Enter")
    alpha = np.array(page.evaluate(DRAWN)).reshape(9, 12, 4)[..., 3]
    assert np.array_equal(alpha > 0, codes == 255)
    page.get_by_role("button", name="All").click()
    assert page.evaluate(DRAWN) == before


def test_opacity_blends_classes_and_scene(page_of, grid_of, codes, show):
    grid = grid_of(codes, 16)
    page = show(page_of(codes, grid))
    here = place(page, grid, 1.5 * 16, 0.5 * 16)
    for percent in (0, 40, 100):
        set_opacity(page, percent)
        share = percent / 100
        blend = [share * c + (1 - share) * 90 for c in EUROSAT[codes[0, 1]].rgb]
        assert near(color_at(page, *here), blend)
        assert page.locator("#opacity-value").inner_text() == f"{percent}%"


def test_zooming_keeps_cells_sharp_and_the_way_back(page_of, grid_of, codes, show):
    grid = grid_of(codes, 16)
    page = show(page_of(codes, grid))
    set_opacity(page, 100)
    whole = page.locator("#map .scene").bounding_box()
    page.locator("#map").focus()
    page.keyboard.press("+")
    page.wait_for_timeout(500)
    closer = page.locator("#map .scene").bounding_box()
    assert closer["width"] == pytest.approx(2 * whole["width"], rel=0.01)
    x, y = place(page, grid, 6 * 16, 4.5 * 16)
    assert codes[4, 5] != codes[4, 6]
    assert near(color_at(page, x - 2, y), EUROSAT[codes[4, 5]].rgb)
    assert near(color_at(page, x + 2, y), EUROSAT[codes[4, 6]].rgb)
    page.get_by_role("button", name="Whole scene").click()
    assert page.locator("#map .scene").bounding_box() == whole


def test_the_whole_scene_stays_in_view_when_the_window_shrinks(page_of, grid_of, codes, show):
    page = show(page_of(codes, grid_of(codes, 16)))
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(300)
    frame, scene = page.locator("#map").bounding_box(), page.locator("#map .scene").bounding_box()
    assert frame["x"] < scene["x"]
    assert scene["x"] + scene["width"] < frame["x"] + frame["width"]


def test_many_classes_with_long_names_on_a_phone(page_of, grid_of, show):
    names = ["Unbroken" * 12, *(f"class {i:03}" for i in range(253))]
    classes = [LulcClass(k + 1, name, name, f"#{k:02x}8040") for k, name in enumerate(names)]
    codes = np.resize(np.arange(1, 255, dtype=np.uint8), (14, 19))
    grid = grid_of(codes, 16)
    path = page_of(codes, grid, legend=Legend(tuple(classes)), title="T" * 90, warnings=["w" * 120])
    page = show(path, 390, 844, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.get_by_placeholder("Find a class").fill("SS 04")
    assert page.locator("#legend button:visible").count() == 10
    page.get_by_role("button", name="None").click()
    assert page.locator("#legend [aria-pressed=true]").count() == 244
    page.locator("#map").scroll_into_view_if_needed()
    page.touchscreen.tap(*place(page, grid, 3.5 * 16, 0.5 * 16))
    page.locator("#readout .class:text-is('class 002')").wait_for()


def test_nothing_classified(page_of, grid_of, show):
    codes = np.array([[255, 0], [0, 255]], np.uint8)
    grid = grid_of(codes)
    page = show(page_of(codes, grid, np.full((2, 2), 255)))
    assert point_at(page, grid, 0, 0)[:2] == ["Unclassified", ""]
    page.get_by_role("button", name="Unclassified").click()
    assert not np.any(page.evaluate(DRAWN))


def test_malice_does_not_run(page_of, grid_of, show):
    legend = Legend((LulcClass(1, MALICE, "a", "#112233"),))
    codes = np.ones((3, 3), np.uint8)
    grid = grid_of(codes)
    page = show(page_of(codes, grid, legend=legend, title=MALICE, warnings=[MALICE]))
    assert point_at(page, grid, 1, 1)[0] == MALICE
    assert page.locator("h1").inner_text() == MALICE


def test_old_browsers_are_told(page_of, grid_of, codes, show):
    page = show(page_of(codes, grid_of(codes)), script="delete window.DecompressionStream")
    assert "too old" in page.locator("#map").inner_text()
    assert page.locator("tbody tr").count() == 10
    assert len(show.complaints) == 1
    show.complaints.clear()
