"""Novelty and prediction sets in whole maps, by a classifier whose answers are known."""

import json
import re
from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine

import geocfl
from geocfl.core.windows import cut
from geocfl.errors import DataError, UsageError
from geocfl.mapping import classifier
from geocfl.mapping.mapper import Mapper
from geocfl.mapping.settings import MapSettings
from geocfl.models.backends.base import Classified
from geocfl.models.bundle import Bundle

THRESHOLDS = (0.1, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.96)
ALL_SAID = {"products": ("default", "novelty", "sets", "windows"), "vector": ("gpkg",)}
# Percent of novelty of each window of the scene below, from its second band.
NOVEL = np.array([[0, 94, 95, 96], [10, 50, 99, 100], [20, 30, 40, 60]])


class Known:
    """Class 1 with the mean of a window's first band as its probability, class 10 with the rest; novelty by the second.

    Windows come last first, in threes.
    """

    batch_size, precision, takes_numbers = 3, "float32", False

    def __init__(self, *_: object) -> None:
        pass

    def __repr__(self) -> str:
        return "known"

    def place(self, pixels: np.ndarray) -> np.ndarray:
        return pixels

    def classify(self, placed, rows, columns, stride):
        for start in range(0, len(rows), self.batch_size):
            windows = np.arange(len(rows))[::-1][start : start + self.batch_size]
            pixels = cut(placed, 64, rows[windows] * stride, columns[windows] * stride)
            first, second = np.nanmean(pixels[:, :2], axis=(2, 3)).T
            probabilities = np.zeros((len(windows), 10), np.float32)
            probabilities[:, 0], probabilities[:, 9] = first, 1 - first
            yield Classified(probabilities, np.rint(1e4 * second).astype(np.float32) / 100, windows)


@pytest.fixture(scope="module")
def wise_model(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Bundle:
    """A bundle that says it knows novelty and prediction sets."""
    folder = tmp_path_factory.mktemp("wise")
    for file in tiny_model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    bundle = replace(
        Bundle.load(folder), novelty=tuple(np.linspace(0, 1, 101).tolist()), conformal=THRESHOLDS, clip=(0.0, 1.0)
    )
    bundle.write_facts(folder)
    return Bundle.load(folder)


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier, "load_backend", Known)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """3 x 4 cells of 64 px, cut to 180 x 250 px; class 1 is at 0.95 in the first row, 0.5 in the second, 0.1 below."""
    bands = np.stack([np.repeat([[0.95], [0.5], [0.1]], 4, axis=1), NOVEL / 100, np.full((3, 4), 0.2)])
    dn = (1e4 * bands).round().astype(np.uint16).repeat(64, axis=1).repeat(64, axis=2)[:, :180, :250]
    dn[1] += dn[1] == 0  # no data is 0 in all bands
    place = {"crs": "EPSG:32633", "transform": Affine(10, 0, 3e5, 0, -10, 5e6), "height": 180, "width": 250}
    with rasterio.open(tmp_path / "s.tif", "w", driver="GTiff", count=3, dtype="uint16", nodata=0, **place) as dataset:
        dataset.write(dn)
        dataset.descriptions = ("B04", "B03", "B02")
    return tmp_path / "s.tif"


def test_novelty_in_every_product(tmp_path: Path, scene: Path, wise_model: Bundle) -> None:
    result = geocfl.map_scene(scene, tmp_path / "out", model=wise_model.folder, **ALL_SAID)
    expected = NOVEL.copy()
    expected[0, 0] = 1  # 0.01 percent, rounded up
    assert result.novelty.dtype == np.float32
    np.testing.assert_array_equal(result.novelty, expected)
    rows, columns = [64, 64, 52], [64, 64, 64, 58]
    areas = np.outer(rows, columns) / 100
    beyond = NOVEL > 95
    found = json.loads(result.paths["summary"].read_text())["novelty"]
    assert (found["percentile"], found["cells"]) == (95, beyond.sum())
    assert found["hectares"] == pytest.approx(areas[beyond].sum())
    assert found["share"] == pytest.approx(areas[beyond].sum() / areas.sum())
    assert found == result.summary["novelty"]
    polygons = result.polygons.set_index("class_code")
    assert list(polygons.columns) == ["class_name", "area_ha", "confidence", "novelty", "geometry"]
    assert polygons.novelty[1] == pytest.approx(expected[:2].mean())
    assert polygons.novelty[10] == pytest.approx(expected[2].mean())
    windows = geopandas.read_file(result.paths["gpkg"], layer="windows")
    assert windows.novelty.tolist() == expected.ravel().tolist()


def test_novelty_beyond_the_bound_is_unclassified(tmp_path: Path, scene: Path, wise_model: Bundle) -> None:
    whole = geocfl.map_scene(scene, tmp_path / "whole", model=wise_model.folder)
    assert (whole.lulc != 255).all()
    result = geocfl.map_scene(
        scene, tmp_path / "out", model=wise_model.folder, max_novelty=95, products=("lulc", "novelty")
    )
    np.testing.assert_array_equal(result.lulc, np.where(NOVEL > 95, 255, whole.lulc))
    assert result.summary["unclassified"]["cells"] == (NOVEL > 95).sum()
    assert result.summary["novelty"] == whole.summary["novelty"], "it does not depend on the bound"
    assert result.summary["settings"]["max_novelty"] == 95
    assert whole.summary["settings"]["max_novelty"] is None


def test_sets_are_known(tmp_path: Path, scene: Path, wise_model: Bundle) -> None:
    """Class 1 is a member at 0.9 and more, class 10 at 0.04 and more, the others never."""
    result = geocfl.map_scene(scene, tmp_path / "out", model=wise_model.folder, **ALL_SAID)
    members = np.zeros((3, 4, 10), bool)
    members[0, :, 0] = members[0, :, 9] = members[1:, :, 9] = True
    np.testing.assert_array_equal(result.sets, members)
    with rasterio.open(result.paths["sets"]) as dataset:
        assert dataset.dtypes == ("uint16", "uint16")
        size, mask = dataset.read()
    assert size.tolist() == [[2] * 4, [1] * 4, [1] * 4]
    assert mask.tolist() == [[513] * 4, [512] * 4, [512] * 4]


def test_saturated_cells_are_unlike_whatever_the_network_says(tmp_path: Path, scene: Path, wise_model: Bundle) -> None:
    with rasterio.open(scene, "r+") as dataset:
        dn = dataset.read()
        dn[:, 64:71, :64] = 10_000  # 448 of the 4096 pixels of the cell, more than a tenth
        dn[:, 64:70, 64:128] = 10_000  # 384, less
        dn[:2, 128:, :64] = 10_000  # not in all bands
        dataset.write(dn)
    result = geocfl.map_scene(scene, tmp_path / "out", model=wise_model.folder, products=("lulc", "novelty"))
    assert result.novelty[1, 0] == 100
    assert result.novelty[1, 1] == pytest.approx(np.ceil(50 + 50 * 6 / 64))
    assert result.summary["novelty"]["cells"] == 5


def test_cells_without_data_have_neither(tmp_path: Path, scene: Path, wise_model: Bundle) -> None:
    with rasterio.open(scene, "r+") as dataset:
        dn = dataset.read()
        dn[:, :64, :64] = 0
        dataset.write(dn)
    result = geocfl.map_scene(scene, tmp_path / "out", model=wise_model.folder, **ALL_SAID)
    assert np.isnan(result.novelty[0, 0])
    assert np.isfinite(result.novelty).sum() == 11
    assert not result.sets[0, 0].any()
    with rasterio.open(result.paths["sets"]) as dataset:
        assert dataset.read()[:, 0, 0].tolist() == [65535, 65535]


def test_all_is_all_that_the_model_offers(tmp_path: Path, scene: Path, wise_model: Bundle, tiny_model: Path) -> None:
    options = {"products": ("all",), "vector": ("gpkg",), "datetime": "2019-04-16"}
    offered = geocfl.map_scene(scene, tmp_path / "wise", model=wise_model.folder, **options)
    plain = geocfl.map_scene(scene, tmp_path / "tiny", model=tiny_model, **options)
    assert offered.paths.keys() - plain.paths.keys() == {"novelty", "novelty_style", "sets", "sets_style"}
    assert "novelty" not in plain.summary
    assert "novelty" not in plain.polygons
    with pytest.raises(DataError, match="has no novelty; map the scene again with novelty in `products`"):
        _ = plain.novelty
    item = json.loads(offered.paths["stac"].read_text())
    assert item["assets"]["sets"]["raster:bands"][1]["description"] == "members"
    assert "unlike anything the model was trained on" in offered.paths["report"].read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"products": ("novelty",)}, "`products` asks for novelty, but the model tiny has no novelty; "),
        ({"products": ("sets",)}, "`products` asks for sets, but the model tiny has no prediction sets; "),
        ({"max_novelty": 95}, "`max_novelty` is set, but the model tiny has no novelty; "),
    ],
)
def test_what_a_model_lacks_is_one_sentence(tiny_model: Path, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        Mapper(Bundle.load(tiny_model), MapSettings(**options))


def test_the_sentence_names_a_model_that_has_it(tiny_model: Path, wise_model: Bundle, monkeypatch) -> None:
    monkeypatch.setattr("geocfl.mapping.offers.bundled_models", lambda: [str(tiny_model), str(wise_model.folder)])
    with pytest.raises(UsageError, match=f"use {wise_model.folder}$"):
        Mapper(Bundle.load(tiny_model), MapSettings(max_novelty=95))


def test_sets_of_many_classes_are_refused(wise_model: Bundle) -> None:
    legend = geocfl.Legend.from_folders([f"class {i:02}" for i in range(32)])
    many = replace(wise_model, legend=legend, conformal=(0.5,) * 32)
    with pytest.raises(UsageError, match="asks for sets, but the model tiny has 32 classes, more than the 31"):
        Mapper(many, MapSettings(products=("sets",)))
