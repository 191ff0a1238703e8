"""Samples: what is drawn, how it is written, and what is refused."""

from __future__ import annotations

import logging
from pathlib import Path
from xml.etree import ElementTree as ET

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pytest
import rasterio
import shapely

from geocfl.analysis.sample_files import read_design
from geocfl.analysis.sampling import Sample, sample
from geocfl.analysis.strata import digest_of
from geocfl.core.legend import EUROSAT
from geocfl.errors import DataError, OutputError, UsageError
from geocfl.products.scene_map import SceneMap, open_map
from tests.analysis.sample_data import made_map, put
from tests.analysis.test_zonal import write_map

UA = {"Annual Crop": 0.6, "Forest": 0.95, "Residential": 0.8, "River": 0.9, "Sea Lake": 0.9}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, _, _ = made_map(tmp_path_factory.mktemp("map"))
    return path


def codes_of(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def check(drawn: Sample, finished: Path) -> None:
    """Each point is a cell of the map, none twice, and has the map's class and the stratum's name."""
    cells, codes = drawn.design.cells, codes_of(finished)
    assert (codes[cells[:, 0], cells[:, 1]] == cells[:, 2]).all()
    assert len(np.unique(cells[:, :2], axis=0)) == len(cells)
    assert np.bincount(cells[:, 3]).tolist() == [s.points for s in drawn.design.strata]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"size": 100}, [16, 44, 18, 20, 2]),
        ({"size": 100, "at_least": 20}, None),
        ({"size": 103, "allocation": "equal"}, [25, 25, 25, 25, 3]),
        ({"size": 100, "allocation": "neyman", "expected_ua": UA}, None),
        ({"target_se": 0.03, "expected_ua": 0.8}, None),
        ({"size": 60, "design": "simple"}, [60]),
        ({"size": 60, "design": "systematic"}, None),
        ({"size": 60, "min_distance": 2000.0}, None),
    ],
)
def test_designs(finished: Path, tmp_path: Path, options: dict, wanted: list[int] | None) -> None:
    drawn = sample(finished, tmp_path / "s.gpkg", **options)
    check(drawn, finished)
    points = drawn.frame()["points"]
    if wanted is not None:
        assert points.tolist() == pytest.approx(wanted, abs=1 if len(wanted) > 1 and "equal" not in str(options) else 0)
    if "target_se" in options:
        total = sum(s.cells for s in drawn.design.strata)
        assert points.sum() == int(np.ceil(0.16 / (0.03**2 + 0.16 / total)))
    if options.get("design") == "systematic":
        rows = np.unique(drawn.design.cells[:, 0])
        assert np.ptp(np.diff(rows)) <= 1
        assert 45 <= points.sum() <= 75
    if "min_distance" in options:
        middles = drawn.design.centers()
        apart = np.hypot(*(middles[:, None] - middles).transpose(2, 0, 1)) + 1e9 * np.eye(len(middles))
        assert apart.min() >= 2000
    if options.get("allocation") == "neyman":
        weights = drawn.frame()["weight"] * [np.sqrt(u * (1 - u)) for u in UA.values()]
        assert points.tolist() == pytest.approx((100 * weights / weights.sum()).tolist(), abs=2.5)


def test_the_file_has_squares_windows_form_and_design(finished: Path, tmp_path: Path) -> None:
    drawn = sample(finished, tmp_path / "s.gpkg", size=40, csv=True, kml=True)
    assert [path.name for path in drawn.paths] == ["s.gpkg", "s.qgz", "s.csv", "s.kml"]
    points = drawn.points()
    assert list(points.columns) == ["id", "reference", "confidence", "comment", "map_class", "stratum", "geometry"]
    assert points["id"].tolist() == list(range(1, 41))
    assert points["reference"].isna().all()
    assert (points["map_class"] == [EUROSAT[int(code)].name for code in drawn.design.cells[:, 2]]).all()
    assert len(set(points["map_class"][:10])) > 1  # in random order
    assert points.area.tolist() == pytest.approx((drawn.design.hectares * 10_000).tolist())
    windows = pyogrio.read_dataframe(drawn.paths[0], layer="windows")
    assert windows.geom_equals(points.geometry).all()  # at this stride; the map has no summary
    design = read_design(drawn.paths[0])
    assert design is not None
    assert design.to_json() == drawn.design.to_json()
    assert design.digest == digest_of(open_map(finished))
    styles = pyogrio.read_dataframe(drawn.paths[0], layer="layer_styles", read_geometry=False).set_index("f_table_name")
    form = ET.fromstring(styles["styleQML"]["sample"])
    values = form.findall(".//field[@name='reference']//Option[@type='List']/Option/Option")
    assert [value.get("name") for value in values] == ["(no answer)", *EUROSAT.names]
    assert {e.get("name") for e in form.findall(".//attributeEditorField")} == {
        "id",
        "reference",
        "confidence",
        "comment",
    }
    listed = pd.read_csv(drawn.paths[2])
    assert list(listed.columns)[:3] == ["id", "latitude", "longitude"]
    assert "Forest" not in drawn.paths[2].read_text() + drawn.paths[3].read_text()
    assert drawn.paths[3].read_text().count("<Placemark>") == 40


def test_the_same_seed_gives_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    one, same, other = (sample(finished, tmp_path / f"{n}.gpkg", size=30, seed=n // 2) for n in (0, 1, 2))
    assert one.paths[0].read_bytes() == same.paths[0].read_bytes()
    assert (one.design.cells != other.design.cells).any()


@pytest.mark.integration
def test_cells_of_a_stratum_are_equally_probable(finished: Path, tmp_path: Path) -> None:
    hits = np.zeros(codes_of(finished).shape)
    for seed in range(40):
        cells = sample(finished, tmp_path / "s.gpkg", size=400, seed=seed, overwrite=True).design.cells
        hits[cells[:, 0], cells[:, 1]] += 1
    forest = hits[codes_of(finished) == 2]
    rate = forest.sum() / forest.size
    assert forest.var() == pytest.approx(rate * (1 - rate / 40), rel=0.15)  # binomial
    assert hits[:30].sum() == pytest.approx(hits[30:].sum(), rel=0.05)


def test_strata_of_a_raster_and_of_polygons(finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    halves = [shapely.box(6e5, 5e6, 6.2e5, 5.2e6), shapely.box(6.2e5, 5e6, 6.4e5, 5.2e6)]
    gpd.GeoDataFrame({"name": ["west", "east"]}, geometry=halves, crs=32633).to_crs(4326).to_file(tmp_path / "z.gpkg")
    drawn = sample(finished, tmp_path / "s.gpkg", size=40, strata=tmp_path / "z.gpkg", by="name")
    check(drawn, finished)
    assert {s.name for s in drawn.design.strata} == {"west", "east"}
    x = drawn.design.centers()[:, 0]
    names = np.array([s.name for s in drawn.design.strata])[drawn.design.cells[:, 3]]
    assert ((x < 6.2e5) == (names == "west")).all()
    assert drawn.design.left_out > 10_000
    assert "no class or are in no stratum" in caplog.text

    profile = {"driver": "GTiff", "width": 100, "height": 100, "count": 1, "dtype": "int16", "nodata": -1}
    place = rasterio.Affine(1000, 0, 5.9e5, 0, -1000, 5.11e6)
    values = np.full((100, 100), 7, np.int16)
    values[:, 40:] = 30
    values[:, 70:] = -1
    with rasterio.open(tmp_path / "r.tif", "w", crs="EPSG:32633", transform=place, **profile) as dataset:
        dataset.write(values, 1)
    drawn = sample(finished, tmp_path / "r.gpkg", size=40, strata=tmp_path / "r.tif")
    x = drawn.design.centers()[:, 0]
    assert [s.name for s in drawn.design.strata] == ["7", "30"]
    assert ((x < 6.3e5) == (drawn.design.cells[:, 3] == 0)).all()
    assert x.max() < 6.6e5


def test_a_stratum_of_three_cells_is_taken_whole(
    finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    drawn = sample(finished, tmp_path / "s.gpkg", size=300, at_least=50)
    assert drawn.frame()["points"].tolist()[-1] == 3
    assert "Sea Lake has only 3 cells, all of which are in the sample" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either `size`"),
        ({"size": 10, "target_se": 0.1}, "either `size`"),
        ({"size": 0}, "must be 1 or more"),
        ({"size": 5}, "5 points are too few: 5 strata with 2 each need 10"),
        ({"target_se": 2.0}, "must be a fraction"),
        ({"target_se": 0.05}, "give `expected_ua`"),
        ({"target_se": 0.05, "expected_ua": 80.0}, "must be a fraction"),
        ({"target_se": 0.05, "expected_ua": 1.0}, "leaves no doubt"),
        ({"target_se": 0.05, "expected_ua": {"Forrest": 0.8}}, "did you mean 'Forest'"),
        ({"target_se": 0.05, "expected_ua": {"Forest": 0.8}}, "lacks Annual Crop, Residential"),
        ({"size": 50, "design": "stratifed"}, "did you mean 'stratified'"),
        ({"size": 50, "allocation": "neymann"}, "did you mean 'neyman'"),
        ({"size": 50, "at_least": 1}, "fewer points have no variance"),
        ({"size": 50, "design": "simple", "at_least": 10}, "has no strata"),
        ({"size": 50, "design": "systematic", "min_distance": 10.0}, "leave out `min_distance`"),
        ({"size": 50, "min_distance": -1.0}, "must be meters"),
    ],
)
def test_parameters_that_are_not_allowed(finished: Path, tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        sample(finished, tmp_path / "s.gpkg", **options)
    assert list(tmp_path.iterdir()) == []


def test_files_that_cannot_be_used(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"must end in \.gpkg"):
        sample(finished, tmp_path / "s.shp", size=50)
    with pytest.raises(DataError, match="no such file; pass a raster or polygons"):
        sample(finished, tmp_path / "s.gpkg", size=50, strata=tmp_path / "none.tif")
    with pytest.raises(UsageError, match="is a raster, which has no fields"):
        sample(finished, tmp_path / "s.gpkg", size=50, strata=finished, by="name")
    (tmp_path / "empty").mkdir()
    empty, _ = write_map(tmp_path / "empty", np.zeros((5, 5), np.uint8))
    with pytest.raises(DataError, match="has no cell with a class"):
        sample(empty, tmp_path / "s.gpkg", size=50)
    assert not (tmp_path / "s.gpkg").exists()


def test_a_sample_with_answers_is_never_replaced(finished: Path, tmp_path: Path) -> None:
    drawn = sample(finished, tmp_path / "s.gpkg", size=30)
    with pytest.raises(OutputError, match="already exists"):
        sample(finished, tmp_path / "s.gpkg", size=30)
    sample(finished, tmp_path / "s.gpkg", size=30, overwrite=True)
    put(drawn.paths[0], {3: "Forest", 4: "River"})
    before = drawn.paths[0].read_bytes()
    with pytest.raises(OutputError, match="holds 2 answers, which are not replaced"):
        sample(finished, tmp_path / "s.gpkg", size=30, overwrite=True)
    assert drawn.paths[0].read_bytes() == before


def test_the_expected_accuracies_are_the_models_by_default(finished: Path, tmp_path: Path) -> None:
    """Those of each class where its test patches give them, and the accuracy of all for a class that has none."""
    known = {name: accuracy for name, accuracy in UA.items() if name != "Sea Lake"} | {"Sea Lake": None}
    judged = {"model": {"origin": {"metrics": {"test": {"accuracy": 0.7, "users_accuracy": known}}}}}
    mapped = open_map(finished)
    given = SceneMap({**mapped.paths, "summary": tmp_path / "map_summary.json"}, judged)
    options = {"size": 100, "allocation": "neyman"}
    by_model = sample(given, tmp_path / "a.gpkg", **options)
    by_hand = sample(mapped, tmp_path / "b.gpkg", expected_ua={**UA, "Sea Lake": 0.7}, **options)
    assert by_model.frame()["points"].tolist() == by_hand.frame()["points"].tolist()
