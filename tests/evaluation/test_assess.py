"""Assessments of answered samples: against the truth, against the estimators, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pytest
import shapely

from geocfl.analysis.change import change as change_maps
from geocfl.analysis.estimators import Population, estimate_accuracy
from geocfl.analysis.sample_files import KEY
from geocfl.analysis.sampling import Sample, sample
from geocfl.core.legend import EUROSAT
from geocfl.errors import DataError, OutputError
from geocfl.evaluation.assess import FILES, assess
from tests.analysis.sample_data import answer, change, made_map, put


class Made:
    """A map with its truth and an answered sample."""

    def __init__(self, folder: Path, **options: object) -> None:
        self.folder = folder
        self.map, self.truth, self.grid = made_map(folder)
        self.sample: Sample = sample(self.map, folder / "s.gpkg", **{"size": 200, **options})  # type: ignore[arg-type]
        self.path = self.sample.paths[0]
        answer(self.sample, self.truth)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


def true_hectares(made: Made) -> np.ndarray:
    """(10,) hectares of each class in the cells that have a class on the map."""
    areas = made.grid.areas()
    cells = areas.rows.T @ areas.columns
    return np.array([cells[made.truth == c.code].sum() for c in EUROSAT])


def test_estimates_of_a_sample_by_class(made: Made) -> None:
    found = assess(made.map, made.path)
    design = made.sample.design
    strata, hectares = design.cells[:, 3], np.array([s.hectares for s in design.strata])
    reference = made.truth[design.cells[:, 0], design.cells[:, 1]].astype(int) - 1
    wanted = estimate_accuracy(
        Population(hectares, np.array([float(s.cells) for s in design.strata])),
        strata, design.cells[:, 2] - 1, reference, 10, design.hectares,
    )  # fmt: skip
    frame = found.frame()
    assert found.strata == "classes"
    assert (found.matrix(counts=True).to_numpy() == wanted.counts).all()
    assert found.matrix().to_numpy().sum() == pytest.approx(1)
    np.testing.assert_allclose(frame["area_ha"], hectares.sum() * wanted.area.value)
    np.testing.assert_allclose(frame["area_ha_se"], hectares.sum() * wanted.area.error)
    np.testing.assert_allclose(frame["users_low"], wanted.users.low)
    assert frame["area_ha"].sum() == pytest.approx(hectares.sum())
    assert frame["mapped_ha"].sum() == pytest.approx(hectares.sum())
    truth = true_hectares(made)
    near = np.abs(frame["area_ha"] - truth) <= 4 * frame["area_ha_se"] + 500
    assert near.all()
    assert "Overall accuracy" in found.table()
    assert "Olofsson et al. 2014" in found.methods()
    assert "200 cells (strata: the classes of the map" in found.methods()


@pytest.mark.parametrize("design", ["simple", "systematic"])
def test_other_designs_are_post_stratified(tmp_path: Path, design: str) -> None:
    made = Made(tmp_path, design=design)
    found = assess(made.map, made.path)
    assert found.strata == "classes"
    assert "post-stratified" in found.methods()
    assert f"a {design}" in found.methods()
    np.testing.assert_allclose(
        found.matrix().to_numpy().sum(axis=1)[1], found.design.mapped[1].hectares / found.hectares
    )


def test_strata_that_differ_from_the_classes(tmp_path: Path) -> None:
    halves = [shapely.box(6e5, 5e6, 6.2e5, 5.2e6), shapely.box(6.2e5, 5e6, 6.6e5, 5.2e6)]
    gpd.GeoDataFrame({"n": ["west", "east"]}, geometry=halves, crs=32633).to_file(tmp_path / "z.gpkg")
    made = Made(tmp_path, strata=tmp_path / "z.gpkg", by="n")
    found = assess(made.map, made.path)
    assert found.strata == "strata"
    assert "Stehman 2014" in found.methods()
    assert (found.frame()["area_ha_se"][[1, 2, 8, 9]] > 0).all()


def test_files_of_an_assessment(made: Made, tmp_path: Path) -> None:
    found = assess(made.map, made.path, out=tmp_path / "out")
    assert [path.name for path in found.paths] == list(FILES)
    facts = json.loads((tmp_path / "out/assessment.json").read_text())
    assert facts["overall_accuracy"]["value"] == float(found.accuracy.overall.value)
    assert facts["classes"][2]["users"] is None  # not on the map
    table = pd.read_csv(tmp_path / "out/classes.csv")
    assert table["area_ha"].tolist() == pytest.approx(found.frame()["area_ha"].tolist(), abs=1e-6)
    assert pd.read_csv(tmp_path / "out/matrix.csv")["points"].sum() == 200
    page = (tmp_path / "out/report.html").read_text()
    assert not re.search(r"(src|href)='(?!data:)", page)
    assert page.count("data:image/png") == 2
    assert found.methods() in page.replace("&#x27;", "'")
    with pytest.raises(OutputError, match="already exists"):
        assess(made.map, made.path, out=tmp_path / "out")
    again = assess(made.map, made.path, out=tmp_path / "out", overwrite=True)
    assert again.paths[0].read_text() == page


def test_missing_answers_are_counted(tmp_path: Path) -> None:
    made = Made(tmp_path)
    put(made.path, {5: None, 6: "  "})
    change(made.path, "DELETE FROM sample WHERE id = 7")
    with pytest.raises(DataError, match="3 of 200 points have no answer or are gone"):
        assess(made.map, made.path)
    found = assess(made.map, made.path, missing_at_random=True)
    assert (found.missing, found.accuracy.counts.sum()) == (3, 197)
    assert any("3 of 200 points" in note for note in found.notes)
    put(made.path, dict.fromkeys(range(1, 201), None))
    with pytest.raises(DataError, match="has no answers"):
        assess(made.map, made.path, missing_at_random=True)


def test_a_stratum_without_answers_is_said(made: Made) -> None:
    lake = np.flatnonzero(made.sample.design.cells[:, 2] == 10) + 1
    put(made.path, dict.fromkeys(lake.tolist(), None))
    found = assess(made.map, made.path, missing_at_random=True)
    assert found.hectares == pytest.approx(made.sample.design.total - made.sample.design.mapped[9].hectares)
    assert any("have no answered point" in note for note in found.notes)


def test_a_changed_map_is_refused_unless_its_classes_are_read_again(made: Made, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    other, _, _ = made_map(tmp_path / "new", seed=1)
    with pytest.raises(DataError, match=r"drawn from another map, or .* has changed.*post_stratify"):
        assess(other, made.path)
    same = assess(made.map, made.path, post_stratify=True)
    assert same.reread
    assert same.strata == "strata"
    np.testing.assert_allclose(same.frame()["area_ha"], assess(made.map, made.path).frame()["area_ha"])
    (tmp_path / "covered").mkdir()
    covered, _, _ = made_map(tmp_path / "covered", seed=0, wrong=0.5)
    assert assess(covered, made.path).accuracy.counts.sum() == 200  # the same cells
    with pytest.raises(DataError, match="have no class on"):
        assess(_elsewhere(tmp_path), made.path, post_stratify=True)


def _elsewhere(folder: Path) -> Path:
    from affine import Affine

    from tests.analysis.test_zonal import write_map

    (folder / "far").mkdir()
    return write_map(folder / "far", np.ones((9, 9), np.uint8), pixel=Affine(10, 0, 7e5, 0, -10, 5.2e6))[0]


def test_points_without_a_design_give_their_own_accuracy(made: Made, tmp_path: Path) -> None:
    points = pyogrio.read_dataframe(made.path, layer="sample")
    points.to_crs(4326).set_geometry(points.to_crs(4326).centroid).to_file(tmp_path / "p.geojson")
    found = assess(made.map, tmp_path / "p.geojson", out=tmp_path / "out")
    assert found.design is None
    assert found.accuracy.overall.value == pytest.approx(np.trace(found.accuracy.counts) / 200)
    assert found.frame()["area_ha"].isna().all()
    assert np.isnan(found.accuracy.overall.error)
    assert "accuracies of these points, not of the map" in found.table()
    assert "no probability sample" in found.methods()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("Forrest", "point 9 has the reference 'Forrest', which is no class; did you mean 'Forest'"),
        ("Wald", "'Wald', which is no class; choose from: Annual Crop, Forest"),
        ("11", "'11', which is no class"),
    ],
)
def test_unknown_labels_offer_the_nearest(made: Made, answer: str, message: str) -> None:
    put(made.path, {9: answer})
    with pytest.raises(DataError, match=re.escape(message)):
        assess(made.map, made.path)


def test_spelling_of_labels_does_not_matter(made: Made) -> None:
    wanted = assess(made.map, made.path).accuracy.counts
    names = pyogrio.read_dataframe(made.path, layer="sample")["reference"]
    spelled = [str.upper, str.lower, lambda n: n.replace(" ", ""), lambda n: n.replace(" ", "_"), lambda n: f" {n} "]
    codes = {c.name: str(c.code) for c in EUROSAT}
    spelled.append(lambda n: codes[n])
    put(made.path, {k: spelled[k % len(spelled)](name) for k, name in enumerate(names, start=1)})
    assert (assess(made.map, made.path).accuracy.counts == wanted).all()


def rewritten(made: Made, points: gpd.GeoDataFrame, *, design: bool = True) -> Path:
    """Saves changed points as QGIS does: the file's metadata stays."""
    path = made.folder / "changed.gpkg"
    metadata = {KEY: made.sample.design.to_json()} if design else None
    pyogrio.write_dataframe(points, path, layer="sample", driver="GPKG", dataset_metadata=metadata)
    return path


def test_points_that_were_changed(made: Made) -> None:
    points = pyogrio.read_dataframe(made.path, layer="sample")
    moved = points.copy()
    moved.loc[3, "geometry"] = shapely.affinity.translate(moved.geometry[3], 700, 0)
    with pytest.raises(DataError, match="point 4 is not where the design has them"):
        assess(made.map, rewritten(made, moved))
    twice = pd.concat([points, points.iloc[[7]]])
    with pytest.raises(DataError, match="point 8 is there twice; delete the copies"):
        assess(made.map, rewritten(made, twice))
    added = points.copy()
    added.loc[0, "id"] = 999
    with pytest.raises(DataError, match="point 999 is not in the design"):
        assess(made.map, rewritten(made, added))
    with pytest.raises(DataError, match="has no field id"):
        assess(made.map, rewritten(made, points.drop(columns="id")))
    with pytest.raises(DataError, match="has no points with a field reference"):
        assess(made.map, rewritten(made, points.drop(columns="reference")))
    gone = points.copy()
    gone.loc[2, "geometry"] = None
    with pytest.raises(DataError, match="a point has no place any more"):
        assess(made.map, rewritten(made, gone))


def test_points_in_another_projection(made: Made) -> None:
    points = pyogrio.read_dataframe(made.path, layer="sample")
    wanted = assess(made.map, made.path).accuracy.matrix
    assert (assess(made.map, rewritten(made, points.to_crs(3857))).accuracy.matrix == wanted).all()
    claimed = points.set_crs(32632, allow_override=True)
    with pytest.raises(DataError, match="and 195 more are not where the design has them"):
        assess(made.map, rewritten(made, claimed))


def test_files_that_are_no_samples(made: Made, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        assess(made.map, tmp_path / "none.gpkg")
    (tmp_path / "answers.csv").write_text("id,reference\n1,Forest\n")
    with pytest.raises(DataError, match=r"answers\.csv: .*; pass the sample, and this table as `answers`"):
        assess(made.map, tmp_path / "answers.csv")
    (tmp_path / "text.gpkg").write_text("no")
    with pytest.raises(DataError, match="not a vector file"):
        assess(made.map, tmp_path / "text.gpkg")
    points = pyogrio.read_dataframe(made.path, layer="sample")
    broken = tmp_path / "broken.gpkg"
    pyogrio.write_dataframe(points, broken, layer="sample", driver="GPKG", dataset_metadata={KEY: "{}"})
    with pytest.raises(DataError, match="its design cannot be read"):
        assess(made.map, broken)


def test_answers_of_a_csv_file(made: Made, tmp_path: Path) -> None:
    points = pyogrio.read_dataframe(made.path, layer="sample")
    wanted = assess(made.map, made.path).accuracy.counts
    table = tmp_path / "answers.csv"
    points.drop(columns="geometry").sample(frac=1, random_state=0).to_csv(table, index=False)
    put(made.path, dict.fromkeys(range(1, 201), None))
    assert (assess(made.map, made.path, answers=table).accuracy.counts == wanted).all()
    for text, message in (
        ("id,class\n1,Forest\n", "has no column reference"),
        ("id,reference\n1,Forest\n1,River\n", "point 1 is there twice"),
        ("id,reference\n777,Forest\n", "point 777 is not in the sample"),
        ("id,reference\n1,Forest\n", "199 of 200 points have no answer"),
    ):
        table.write_text(text)
        with pytest.raises(DataError, match=message):
            assess(made.map, made.path, answers=table)


def test_areas_of_change(made: Made, tmp_path: Path) -> None:
    """A change map is sampled by its transitions, and the areas of transitions are estimated."""
    (tmp_path / "later").mkdir()
    later, truth, _ = made_map(tmp_path / "later", seed=3)
    changed = change_maps(made.map, later, tmp_path / "x_change.tif")
    drawn = sample(changed.path, tmp_path / "c.gpkg", size=120, at_least=3)
    assert {s.name for s in drawn.design.strata} >= {"Forest", "Forest > River", "River > Forest"}
    rows, columns = drawn.design.cells[:, :2].T
    names = {0: "Forest"} | {c.code: c.name for c in EUROSAT}
    pairs = [
        names[a] if a == b else f"{names[a]} > {names[b]}"
        for a, b in zip(made.truth[rows, columns].tolist(), truth[rows, columns].tolist(), strict=True)
    ]
    table = tmp_path / "answers.csv"
    pd.DataFrame({"id": range(1, len(pairs) + 1), "reference": pairs}).to_csv(table, index=False)
    found = assess(changed, drawn.paths[0], answers=table, out=tmp_path / "out")
    frame = found.frame().set_index("class")
    assert frame["area_ha"].sum() == pytest.approx(drawn.design.total)
    assert frame.loc["Forest > River", "area_ha_se"] > 0
    assert 0.5 < found.accuracy.overall.value < 0.95


def test_intervals_of_a_whole_round_contain_the_true_areas(tmp_path: Path) -> None:
    """Sample, answer from the truth, assess; over seeds, at about the stated rate."""
    path, truth, grid = made_map(tmp_path)
    hits = []
    for seed in range(12):
        drawn = sample(path, tmp_path / f"{seed}.gpkg", size=150, seed=seed)
        answer(drawn, truth)
        frame = assess(path, drawn.paths[0]).frame()
        areas = grid.areas()
        cells = (areas.rows.T @ areas.columns) * ((truth > 0) & (truth < 255))
        true = np.array([cells[truth == c.code].sum() for c in EUROSAT])
        hits.append((frame["area_ha_low"] <= true) & (true <= frame["area_ha_high"]))
    assert np.mean(np.array(hits)[:, [0, 1, 7, 8]]) >= 0.85
