"""Change between two maps: what each cell gets, sums that are those of both maps, and what is refused."""

import csv
import json
import re
import zipfile
from pathlib import Path
from xml.etree import ElementTree as ET

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rio_cogeo.cogeo import cog_validate

import geocfl
from geocfl.analysis import change_cells
from geocfl.analysis.change import change
from geocfl.analysis.change_probability import (
    LEAST,
    change_probability,
    from_percent,
    most_probable,
    persistent_prior,
    without,
)
from geocfl.core.grid import CellGrid
from geocfl.core.legend import EUROSAT, Legend, LulcClass
from geocfl.demonstration.landscape import write_synthetic_scene
from geocfl.errors import DataError, OutputError, UsageError
from geocfl.products.change_map import open_change
from geocfl.products.formats.raster import write_confidence, write_lulc, write_probabilities
from geocfl.products.scene_map import open_map
from geocfl.products.scratch import BANDS, PROBABILITY, write_header

UTM33 = CRS.from_epsg(32633)
PIXEL = Affine(10, 0, 600_000, 0, -10, 5_100_000)
STRIDE = 16
FOREST, RESIDENTIAL = 2, 8


def write_map(
    path: Path,
    codes,
    confidence=90,
    *,
    probabilities=None,
    pixel: Affine = PIXEL,
    cut: int = 0,
    size: tuple[int, int] | None = None,
    crs: CRS = UTM33,
    stride: int = STRIDE,
    legend: Legend = EUROSAT,
) -> Path:
    """A finished map ``<path>_lulc.tif`` with its confidence and, if given, its (classes, rows, columns) percent."""
    codes = np.asarray(codes, np.uint8)
    confidence = np.where(codes == 0, 255, np.broadcast_to(confidence, codes.shape)).astype(np.uint8)
    more = [] if probabilities is None else list(np.where(codes == 0, 255, probabilities).astype(np.uint8))
    cells = path.with_name(f"{path.name}-cells")
    write_header(cells, *codes.shape, [*BANDS, *[PROBABILITY] * len(more)])
    cells.write_bytes(np.stack([codes, confidence, *more], axis=1).tobytes())
    height, width = size or (side * stride - cut for side in codes.shape)
    grid = CellGrid(height, width, stride, 64, pixel, crs)
    tags = {"GEOCFL_STRIDE": str(stride), "GEOCFL_WIDTH": str(grid.width), "GEOCFL_HEIGHT": str(grid.height)}
    tags |= {"GEOCFL_MODEL": "m", "GEOCFL_SOURCE": path.name}
    write_lulc(cells, lulc := path.with_name(f"{path.name}_lulc.tif"), grid, legend, tags)
    write_confidence(cells, path.with_name(f"{path.name}_confidence.tif"), grid, tags)
    if more:
        write_probabilities(cells, path.with_name(f"{path.name}_probabilities.tif"), grid, legend, tags)
    cells.unlink()
    Path(f"{cells}.hdr").unlink()
    return lulc


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return dataset.read(1)


@pytest.fixture
def two(tmp_path):
    """Two maps of 5 x 7 cells with unclassified cells and no data, cut at the scene's edge."""
    random = np.random.default_rng(1)
    codes = random.choice([0, 2, 3, 8, 9, 255], (2, 5, 7), p=[0.1, 0.3, 0.2, 0.2, 0.1, 0.1])
    return [write_map(tmp_path / name, each, cut=5) for name, each in zip("AB", codes, strict=True)], codes


def test_each_cell_has_its_transition(two, tmp_path):
    maps, (before, after) = two
    made = change(*maps, tmp_path / "X_change.tif")
    expected = np.where((before == 0) | (after == 0), 0, 100 * before + after)
    expected[(expected > 0) & ((before == 255) | (after == 255))] = 65535
    assert np.array_equal(read(made.path), expected)
    assert np.array_equal(made.codes, expected)
    assert cog_validate(made.path, strict=True) == (True, [], [])
    probability = made.probability
    assert np.array_equal(np.isnan(probability), (expected == 0) | (expected == 65535))
    changed = (before != after) & ~np.isnan(probability)
    assert probability[changed].min() > probability[~changed & ~np.isnan(probability)].max()
    assert sorted(file.name for file in tmp_path.glob("X_*")) == sorted(path.name for path in made.paths.values())
    assert [c.name for c in made.classes if c.code == 208] == ["Forest > Residential"]
    assert repr(made).startswith("<ChangeMap X_change: ")


def test_sums_are_those_of_both_maps(two, tmp_path):
    maps, _ = two
    made = change(*maps, tmp_path / "X_change.tif")
    frame = made.frame()
    for path, side in zip(maps, ("from", "to"), strict=True):
        expected = open_map(path).classes
        hectares, cells = frame.groupby(f"{side}_code").hectares.sum(), frame.groupby(f"{side}_code").cells.sum()
        rows = {row["code"]: row for row in expected["classes"]}
        rows |= {255: expected["unclassified"], 0: expected["nodata"]}
        for code, row in rows.items():
            assert cells.get(code, 0) == row["cells"]
            assert hectares.get(code, 0) == pytest.approx(row["hectares"], abs=1e-4)  # a square meter
    summary = made.summary
    for key in ("cells", "pixels", "hectares"):
        parts = [*summary["classes"], summary["unclassified"], summary["nodata"]]
        assert sum(row[key] for row in parts) == pytest.approx(summary["total"][key])
    assert made.matrix().to_numpy().sum() == pytest.approx(summary["total"]["hectares"])
    by_class = made.by_class()
    assert by_class.lost_ha.sum() == pytest.approx(by_class.gained_ha.sum())
    assert by_class.lost_ha.sum() == pytest.approx(summary["changed"]["hectares"])
    with made.paths["table"].open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["cells"]) for row in rows] == frame.cells.tolist()
    assert "no cell" not in made.table()


def test_known_change_between_two_demonstration_scenes(tmp_path):
    """Hectares of each transition, to the square meter, from the land cover that the scenes were drawn with."""
    truths = [
        write_synthetic_scene(tmp_path / f"{seed}.tif", tmp_path / f"{seed}_truth.tif", size=832, seed=seed)
        for seed in (0, 1)
    ]
    with rasterio.open(truths[0].path) as scene:
        height, width, pixel, crs = scene.height, scene.width, scene.transform, scene.crs
    before, after = (drawn.truth for drawn in truths)
    cut = before.shape[1] * 64 - width
    assert cut
    assert height == before.shape[0] * 64
    side = {"pixel": pixel, "crs": crs, "stride": 64}
    maps = [
        write_map(tmp_path / name, codes, size=(height, width), **side)
        for name, codes in zip("AB", (before, after), strict=True)
    ]
    made = change(*maps, tmp_path / "X_change.tif")
    pixels = np.full(before.shape, 64 * 64)
    pixels[:, -1] = 64 * (64 - cut)
    frame = made.frame().set_index(["from_code", "to_code"])
    pairs = np.unique(np.stack([before, after]).reshape(2, -1), axis=1).T.tolist()
    assert sorted(map(list, frame.index)) == pairs
    for i, j in pairs:
        known = pixels[(before == i) & (after == j)].sum() / 100
        assert frame.hectares[i, j] == pytest.approx(known, abs=1e-4)
    moved = (before != after) & (before > 0) & (after > 0)
    assert made.summary["changed"]["hectares"] == pytest.approx(pixels[moved].sum() / 100, abs=1e-4)


def test_attribute_table_and_style_name_what_occurs(two, tmp_path):
    maps, _ = two
    made = change(*maps, tmp_path / "X_change.tif")
    table = ET.parse(made.paths["attributes"])
    rows = [[cell.text for cell in row] for row in table.iter("Row")]
    assert {int(row[0]) for row in rows} == set(np.unique(made.codes)) - {0}
    assert {int(row[0]): int(row[5]) for row in rows} == {
        code: int((made.codes == code).sum()) for code in np.unique(made.codes) if code
    }
    style = ET.parse(made.paths["change_style"])
    assert {int(entry.get("value")) for entry in style.iter("paletteEntry")} == set(np.unique(made.codes)) - {0}


def test_polygons_are_those_of_change(two, tmp_path):
    maps, _ = two
    made = change(*maps, tmp_path / "X_change.tif")
    polygons = gpd.read_file(made.paths["gpkg"], layer="change")
    assert polygons.area_ha.sum() == pytest.approx(made.summary["changed"]["hectares"])
    assert (polygons.from_class != polygons.to_class).all()
    assert polygons.probability.between(0, 1).all()
    assert np.allclose(polygons.area / 1e4, polygons.area_ha)
    least = polygons.area_ha.median()
    large = change(*maps, tmp_path / "Y_change.tif", min_area=least)
    assert sorted(large.polygons.area_ha) == pytest.approx(sorted(polygons.area_ha[polygons.area_ha >= least - 1e-9]))
    facts = large.summary["polygons"]
    assert facts["count"] + facts["left_out"] == len(polygons)
    assert facts["hectares"] + facts["left_out_hectares"] == pytest.approx(made.summary["changed"]["hectares"])


def test_project_and_page(two, tmp_path):
    maps, _ = two
    made = change(*maps, tmp_path / "out" / "X_change.tif")
    with zipfile.ZipFile(made.paths["project"]) as archive:
        project = ET.fromstring(archive.read(archive.namelist()[0]))
    sources = [element.text for element in project.iter("datasource")]
    assert sources == [
        "./X_change.gpkg|layername=change",
        "./X_change_probability.tif",
        "./X_change.tif",
        "./../B_lulc.tif",
        "./../A_lulc.tif",
    ]
    for source in sources:
        assert (made.path.parent / source.partition("|")[0]).is_file()
    page = made.paths["report"].read_text("utf-8")
    assert page.count("data:image/png;base64,") == 3
    assert "<svg class='sankey'" in page
    assert not re.search(r"(src|href)=[\"'](?!data:)", page)


def test_again_is_done_and_other_work_is_refused(two, tmp_path):
    maps, _ = two
    out = tmp_path / "X_change.tif"
    assert not change(*maps, out).already_done
    written = {path: path.read_bytes() for path in tmp_path.glob("X_*")}
    assert change(*maps, out).already_done
    with pytest.raises(OutputError, match="already exists"):
        change(*maps, out, persistence=0.5)
    assert {path: path.read_bytes() for path in tmp_path.glob("X_*")} == written
    change(*maps, out, overwrite=True)
    assert {path: path.read_bytes() for path in tmp_path.glob("X_*")} == written
    assert change(*maps, out, persistence=0.5, overwrite=True).summary["settings"]["persistence"] == 0.5


def test_small_strips_change_nothing(two, tmp_path, monkeypatch):
    maps, _ = two
    whole = change(*maps, tmp_path / "X_change.tif")
    monkeypatch.setattr(change_cells, "VALUES", 70)
    strips = []
    parts = change(*maps, tmp_path / "Y_change.tif", progress=lambda *report: strips.append(report))
    assert strips[-1][1:] == (5, 5, "strip")
    assert np.array_equal(whole.codes, parts.codes)
    assert whole.summary["by_class"] == [pytest.approx(row) for row in parts.summary["by_class"]]


def test_maps_that_reach_differently_share_their_overlap(tmp_path):
    codes = np.arange(48).reshape(6, 8) % 10 + 1
    a = write_map(tmp_path / "A", codes[:5, :6], cut=3)
    b = write_map(tmp_path / "B", codes[1:, 2:], 80, pixel=PIXEL @ Affine.translation(2 * STRIDE, STRIDE))
    made = change(a, b, tmp_path / "X_change.tif")
    assert made.codes.tolist() == (codes[1:5, 2:6] * 101).tolist()
    assert made.grid.transform == PIXEL @ Affine.translation(2 * STRIDE, STRIDE)
    assert (made.grid.height, made.grid.width, made.grid.stride) == (4 * STRIDE - 3, 4 * STRIDE - 3, STRIDE)
    total = (4 * STRIDE - 3) ** 2 / 100
    assert made.summary["total"]["hectares"] == pytest.approx(total, rel=1e-3)
    assert "only" in made.summary["warnings"][0]
    assert made.summary["changed"]["cells"] == 0
    assert "no cell changed" in made.table()


def test_other_cells_are_compared_with_the_nearest(tmp_path):
    a = write_map(tmp_path / "A", np.full((4, 4), FOREST))
    b = write_map(tmp_path / "B", [[FOREST, RESIDENTIAL], [FOREST, FOREST]], stride=2 * STRIDE)
    made = change(a, b, tmp_path / "X_change.tif")
    assert np.array_equal(made.codes == 208, np.kron([[0, 1], [0, 0]], np.ones((2, 2))))
    assert any("nearest" in warning for warning in made.summary["warnings"])
    other = write_map(tmp_path / "C", np.full((5, 5), RESIDENTIAL), crs=CRS.from_epsg(25833))
    again = change(a, other, tmp_path / "Y_change.tif")
    assert again.summary["changed"]["cells"] >= 9


@pytest.mark.parametrize("strides", [(STRIDE, 2 * STRIDE), (2 * STRIDE, STRIDE)])
def test_other_cells_of_the_same_scene_have_its_area(tmp_path, strides):
    paths = [
        write_map(tmp_path / name, np.full((128 // stride, 128 // stride), FOREST), stride=stride, cut=9)
        for name, stride in zip("AB", strides, strict=True)
    ]
    made = change(*paths, tmp_path / "X_change.tif")
    assert made.summary["total"]["hectares"] == pytest.approx((128 - 9) ** 2 / 100, rel=1e-3)


@given(st.integers(2, 6), st.integers(0, 2**32 - 1), st.floats(0.05, 0.99))
@settings(max_examples=30, deadline=None)
def test_probability_is_that_of_bayes_rule(classes, seed, persistence):
    random = np.random.default_rng(seed)
    before, after = random.dirichlet(np.ones(classes), (2, 5)).transpose(0, 2, 1).astype(np.float32)
    prior = persistent_prior(classes, persistence)
    legend = Legend(tuple(LulcClass(k + 1, f"c{k}", "", "#000000") for k in range(classes)))
    prior = without(prior, [(1, 2)], legend)
    assert prior.sum(axis=1) == pytest.approx(1)
    joint = before[:, None] * after[None] * prior[..., None]
    joint /= joint.sum(axis=(0, 1))
    expected = 1 - np.einsum("iin->n", joint)
    assert change_probability(before, after, prior) == pytest.approx(expected, abs=1e-5)
    first, second = most_probable(before, after, prior)
    best = joint[first - 1, second - 1, np.arange(5)]
    assert best == pytest.approx(joint.max(axis=(0, 1)), rel=1e-4)


def test_probabilities_of_all_classes_count_where_both_maps_have_them(tmp_path):
    percent = np.zeros((10, 1, 2))
    percent[FOREST - 1], percent[RESIDENTIAL - 1] = 60, 40
    a = write_map(tmp_path / "A", [[FOREST, FOREST]], 60, probabilities=percent)
    b = write_map(tmp_path / "B", [[RESIDENTIAL, FOREST]], 60, probabilities=percent[[0, 7, 2, 3, 4, 5, 6, 1, 8, 9]])
    made = change(a, b, tmp_path / "X_change.tif", persistence=0.5)
    assert made.summary["probability_from"] == "probabilities"
    first, second = (from_percent(np.asarray(p, np.uint8)) for p in ([0, 60, 0, 0, 0, 0, 0, 40, 0, 0],) * 2)
    second = second[[0, 7, 2, 3, 4, 5, 6, 1, 8, 9]]
    prior = persistent_prior(10, 0.5)
    joint = np.outer(first, second) * prior
    assert made.probability[0, 0] == pytest.approx(1 - np.trace(joint) / joint.sum(), abs=0.006)
    Path(tmp_path / "B_probabilities.tif").unlink()
    made = change(a, b, tmp_path / "X_change.tif", persistence=0.5, overwrite=True)
    assert made.summary["probability_from"] == "confidence"
    Path(tmp_path / "B_confidence.tif").unlink()
    made = change(a, b, tmp_path / "X_change.tif", persistence=0.5, overwrite=True)
    assert made.summary["probability_from"] == ""
    assert not (tmp_path / "X_change_probability.tif").exists()
    assert "probability" not in made.polygons
    with pytest.raises(DataError, match="has no probability beside it"):
        _ = made.probability
    assert LEAST > 0


def test_forbidden_transitions_give_way_to_the_most_probable_pair(tmp_path):
    a = write_map(tmp_path / "A", [[RESIDENTIAL, RESIDENTIAL, FOREST]], [[90, 55, 90]])
    b = write_map(tmp_path / "B", [[FOREST, FOREST, RESIDENTIAL]], [[60, 95, 90]])
    made = change(a, b, tmp_path / "X_change.tif", forbid=[("residential", "Forest")])
    assert made.codes.tolist() == [[808, 202, 208]]
    (row,) = made.summary["forbidden"]
    assert (row["from_class"], row["to_class"], row["cells"]) == ("Residential", "Forest", 2)
    assert any("forbidden" in warning for warning in made.summary["warnings"])
    (tmp_path / "B_confidence.tif").unlink()
    with pytest.raises(DataError, match=r"B_lulc\.tif: has no confidence beside it, which `forbid` needs"):
        change(a, b, tmp_path / "Y_change.tif", forbid=[("Residential", "Forest")])


def test_the_table_of_another_change_is_a_prior(two, tmp_path):
    codes = np.repeat(np.arange(1, 11), 4).reshape(4, 10)
    a = write_map(tmp_path / "C", codes)
    b = write_map(tmp_path / "D", np.roll(codes, 1), 91)
    table = change(a, b, tmp_path / "P_change.tif").paths["table"]
    made = change(a, b, tmp_path / "Q_change.tif", prior=table)
    assert made.summary["settings"]["prior"] == "P_change.csv"
    assert np.unique(made.probability[codes == np.roll(codes, 1)]).size
    lacking = tmp_path / "lacking.csv"
    lacking.write_text("from_class,to_class,share_of_from\nForest,Forest,1\n")
    with pytest.raises(DataError, match=r"lacking.csv: has no shares from Annual Crop"):
        change(a, b, tmp_path / "R_change.tif", prior=lacking)
    lacking.write_text("from_class,to_class,share_of_from\nForest,Forest,7\n")
    with pytest.raises(DataError, match="share_of_from is 7 but must be"):
        change(a, b, tmp_path / "R_change.tif", prior=lacking)
    lacking.write_text("a,b\n")
    with pytest.raises(DataError, match="has no column from_class"):
        change(a, b, tmp_path / "R_change.tif", prior=lacking)
    with pytest.raises(UsageError, match="exclude each other"):
        change(a, b, tmp_path / "R_change.tif", prior=table, persistence=0.5)


def test_legends_of_a_hundred_classes_and_more(tmp_path):
    legend = Legend(tuple(LulcClass(k, f"c{k}", "", "#123456") for k in range(1, 255)))
    a = write_map(tmp_path / "A", [[254, 1]], legend=legend)
    b = write_map(tmp_path / "B", [[254, 254]], legend=legend)
    assert change(a, b, tmp_path / "X_change.tif").codes.tolist() == [[254 * 257, 256 + 254]]


def test_refusals(two, tmp_path):
    (a, b), codes = two
    out = tmp_path / "X_change.tif"
    copy = write_map(tmp_path / "copy", codes[0], cut=5)
    copy.write_bytes(a.read_bytes())
    elsewhere = write_map(tmp_path / "far", codes[0], pixel=PIXEL @ Affine.translation(1000, 0))
    overseas = write_map(tmp_path / "overseas", codes[0], crs=CRS.from_epsg(32733))
    few = Legend(EUROSAT.classes[:9])
    fewer = write_map(tmp_path / "few", np.full((5, 7), 3), legend=few)
    empty = write_map(tmp_path / "empty", np.zeros((5, 7)), cut=5)
    plain = tmp_path / "plain.tif"
    with rasterio.open(plain, "w", driver="GTiff", width=3, height=3, count=3, dtype="uint16", crs=UTM33) as dataset:
        dataset.write(np.ones((3, 3, 3), np.uint16))
    for second, message in (
        (a, "A_lulc.tif: is the same map as"),
        (copy, "copy_lulc.tif: is the same map as"),
        (elsewhere, "far_lulc.tif: does not overlap"),
        (overseas, "overseas_lulc.tif: does not overlap"),
        (fewer, r"few_lulc.tif: has other classes than .*A_lulc.tif \(only one of them has Sea Lake\)"),
        (empty, "empty_lulc.tif: has no data where"),
        (plain, "plain.tif: "),
        (tmp_path / "none_lulc.tif", "no such file"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            change(a, second, out)
        assert "\n" not in str(caught.value)
    for options, message in (
        ({"forbid": [("Residentia", "Forest")]}, "`forbid`: unknown class 'Residentia'; did you mean 'Residential'"),
        ({"forbid": [("Forest", "Forest")]}, "a class can always stay"),
        ({"forbid": ["Forest"]}, "must have pairs"),
        ({"min_area": -1.0}, "`min_area` is -1.0"),
        ({"persistence": 1.5}, "`persistence` is 1.5"),
    ):
        with pytest.raises(UsageError, match=message):
            change(a, b, out, **options)
    with pytest.raises(UsageError, match=r"must end in _change.tif, such as .*X_change.tif"):
        change(a, b, tmp_path / "X.tif")
    assert not list(tmp_path.glob("*X*"))
    made = change(a, b, out)
    with pytest.raises(DataError, match="not a class raster"):
        change(made.path, b, tmp_path / "Y_change.tif")


def test_opened_again_it_says_the_same(two, tmp_path):
    (a, b), _ = two
    made = change(open_map(a), b, tmp_path / "X_change.tif")
    opened = open_change(made.path)
    assert opened.summary == made.summary
    assert opened.legend.names == EUROSAT.names
    assert opened.grid == open_map(a).grid
    assert "Forest" in opened._repr_html_()
    with pytest.raises(DataError, match=r"whose name ends in _change\.tif"):
        open_change(a)
    with pytest.raises(DataError, match="no such file"):
        open_change(tmp_path / "Z_change.tif")
    made.paths["summary"].write_text(json.dumps({"a": 1}))
    with pytest.raises(DataError, match="is not beside it or is broken"):
        open_change(made.path)


def test_a_sample_gives_the_area_of_change_with_intervals(tmp_path):
    """A tenth of the forest that stays is mapped as gone; the sample puts it back."""
    random = np.random.default_rng(5)
    before, after = random.choice([2, 6], (2, 30, 40), p=[0.7, 0.3])
    wrong = np.where((before == 2) & (after == 2) & (random.random(after.shape) < 0.1), 6, after)
    made = change(write_map(tmp_path / "A", before), write_map(tmp_path / "B", wrong, 80), tmp_path / "X_change.tif")
    drawn = geocfl.sample(made, tmp_path / "sample.gpkg", size=400, seed=1)
    assert {s.name for s in drawn.design.strata} == {c.name for c in made.classes}
    names = {2: "Forest", 6: "Pasture"}
    truth = [(names[before[i, j]], names[after[i, j]]) for i, j in drawn.design.cells[:, :2]]
    points = gpd.read_file(tmp_path / "sample.gpkg", layer="sample")
    answers = dict(zip(range(1, len(truth) + 1), (a if a == b else f"{a} > {b}" for a, b in truth), strict=True))
    (tmp_path / "answers.csv").write_text(
        "id,reference\n" + "".join(f"{number},{answers[number]}\n" for number in points["id"])
    )
    found = geocfl.assess(made, tmp_path / "sample.gpkg", answers=tmp_path / "answers.csv").frame()
    for i, j in ((2, 2), (2, 6), (6, 2), (6, 6)):
        row = found.loc[100 * i + j]
        true = ((before == i) & (after == j)).sum() * STRIDE**2 / 100
        assert row.area_ha_low <= true <= row.area_ha_high
    lost = found.loc[206]
    assert lost.area_ha_high < lost.mapped_ha
