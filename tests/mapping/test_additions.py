"""Products that are added to finished maps, without classification where the map's files suffice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

import geocfl
from geocfl.demonstration.landscape import write_synthetic_scene
from geocfl.errors import OutputError
from geocfl.mapping.classifier import Classifier
from geocfl.products.files import FILES
from geocfl.products.staging import Staging

EXACT: dict[str, Any] = {"backend": "torch", "precision": "float32", "device": "cpu"}
ALL = ("default", "sld", "project", "report", "stac")
WHEN = "2019-04-16"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scene")
    write_synthetic_scene(folder / "s.tif", folder / "truth.tif", size=256)
    return folder / "s.tif"


@pytest.fixture
def unclassified(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No scene may be classified, and no model loaded."""
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "classify", lambda *_, **__: pytest.fail("classified"))
        patch.setattr("geocfl.mapping.classifier.load_backend", lambda *_, **__: pytest.fail("loaded"))
        yield


def same(first: geocfl.SceneMap, second: geocfl.SceneMap) -> None:
    """Whether two maps are equal byte for byte, apart from timing."""
    assert set(first.paths) == set(second.paths)
    for name in first.paths:
        if name != "summary":
            assert first.paths[name].read_bytes() == second.paths[name].read_bytes(), name
    summaries = [json.loads(m.paths["summary"].read_text()) | {"timing": None} for m in (first, second)]
    assert json.dumps(summaries[0]) == json.dumps(summaries[1])


def stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


@pytest.fixture(scope="module", params=["tiny_model", "tiny_dense"])
def base(
    request: pytest.FixtureRequest, scene: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """The folder of a map with the default products, and its options; the dense model also has novelty.

    Random weights give one class, so some cells are unclassified, to have several polygons.
    """
    model = shutil.copytree(request.getfixturevalue(request.param), tmp_path_factory.mktemp("model") / "m")
    some: dict[str, Any] = {"min_confidence": 0.13}
    if request.param == "tiny_dense":
        facts = json.loads((model / "model.json").read_text())
        facts["novelty"] = [10 * value for value in facts["novelty"]]  # else that of every cell is 100
        (model / "model.json").write_text(json.dumps(facts))
        some = {"max_novelty": 47.0}
    options = {"model": model, "stride": 32, "datetime": WHEN, **EXACT, **some}
    folder = tmp_path_factory.mktemp("base") / "maps"
    made = geocfl.map_scene(scene, folder, **options)
    assert len(made.polygons) > 2
    return folder, options


@pytest.fixture
def finished(base: tuple[Path, dict[str, Any]], tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A copy of that map."""
    return shutil.copytree(base[0], tmp_path / "maps"), base[1]


def test_products_are_added_without_classification(
    finished: tuple[Path, dict[str, Any]], scene: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder, options = finished
    before = stamps(folder)
    whole = options | {"products": ALL, "vector": ("gpkg", "geoparquet", "flatgeobuf", "geojson")}
    expected = geocfl.map_scene(scene, tmp_path / "whole", **whole)
    request.getfixturevalue("unclassified")
    for products in (["stac"], ["sld"], ["report"], ["project"]):
        geocfl.map_scene(scene, folder, products=products, **options)
    added = geocfl.map_scene(
        scene, folder, **options, products=["vector"], vector=["geoparquet", "flatgeobuf", "geojson"]
    )
    assert not added.already_done
    same(added, expected)
    after = stamps(folder)
    assert [name for name in before if before[name] != after[name]] == ["s_summary.json"]
    assert geocfl.map_scene(scene, folder, **whole).already_done
    assert geocfl.map_scene(scene, folder, **options).already_done
    assert sorted(after) == sorted(path.name for path in expected.paths.values())


@pytest.mark.parametrize("how", [{"simplify": 40}, {"min_area": 30}, {"simplify": 40, "min_area": 30}])
def test_polygons_change_without_classification(
    finished: tuple[Path, dict[str, Any]],
    scene: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    how: dict[str, Any],
) -> None:
    folder, options = finished
    before = stamps(folder)
    expected = geocfl.map_scene(scene, tmp_path / "whole", **options, **how)
    with pytest.raises(OutputError, match="`overwrite=True`"):
        geocfl.map_scene(scene, folder, **options, **how)
    assert stamps(folder) == before
    request.getfixturevalue("unclassified")
    changed = geocfl.map_scene(scene, folder, **options, **how, overwrite=True)
    same(changed, expected)
    after = stamps(folder)
    assert {name for name in before if before[name] != after[name]} == {"s_summary.json", "s_lulc.gpkg"}


def test_a_lost_product_is_made_again(
    finished: tuple[Path, dict[str, Any]], scene: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder, options = finished
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    request.getfixturevalue("unclassified")
    for name in ("s_preview.png", "s_lulc.qml", "s_lulc.tif.aux.xml"):
        (folder / name).unlink()
        geocfl.map_scene(scene, folder, **options)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first


def test_what_is_not_stored_is_classified_again(
    finished: tuple[Path, dict[str, Any]], scene: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, options = finished
    before = stamps(folder)
    with caplog.at_level("INFO", "geocfl"):
        added = geocfl.map_scene(scene, folder, **options, products=["windows", "entropy", "probabilities"])
    assert "s.tif: classified again, because its map holds no entropy" in caplog.text
    products = ["default", "windows", "entropy", "probabilities"]
    same(added, geocfl.map_scene(scene, tmp_path / "whole", **options, products=products))
    after = stamps(folder)
    assert {name for name in before if before[name] != after[name]} == {"s_summary.json", "s_lulc.gpkg"}


def test_cells_of_another_device_are_not_mixed(finished: tuple[Path, dict[str, Any]], scene: Path) -> None:
    folder, options = finished
    with rasterio.open(folder / "s_confidence.tif", "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dataset:
        dataset.write(np.full((1, *dataset.shape), 1, np.uint8))
    before = stamps(folder)
    with pytest.raises(OutputError, match=r"s_summary\.json: .*another device.*`redo=True`"):
        geocfl.map_scene(scene, folder, **options, products=["probabilities"])
    assert stamps(folder) == before
    again = geocfl.map_scene(scene, folder, **options, products=["default", "probabilities"], redo=True)
    assert not again.already_done
    assert np.nanmin(again.confidence) > 0.01


def test_edited_polygons_do_not_decide_others(
    finished: tuple[Path, dict[str, Any]], scene: Path, tmp_path: Path
) -> None:
    import sqlite3

    folder, options = finished
    with sqlite3.connect(folder / "s_lulc.gpkg") as file:
        file.execute("drop trigger if exists trigger_delete_feature_count_lulc")
        file.execute("drop trigger if exists rtree_lulc_geom_delete")
        file.execute("delete from lulc where fid = 1")
    added = geocfl.map_scene(scene, folder, **options, products=["vector"], vector=["geoparquet"])
    expected = geocfl.map_scene(scene, tmp_path / "whole", **options, products=["vector"], vector=["geoparquet"])
    assert added.paths["geoparquet"].read_bytes() == expected.paths["geoparquet"].read_bytes()


def test_a_foreign_file_is_not_replaced(finished: tuple[Path, dict[str, Any]], scene: Path) -> None:
    folder, options = finished
    (folder / "s_report.html").write_text("mine")
    with pytest.raises(OutputError, match=r"s_report\.html: already exists"):
        geocfl.map_scene(scene, folder, **options, products=["report"])
    geocfl.map_scene(scene, folder, **options, products=["sld"])
    assert (folder / "s_report.html").read_text() == "mine"


@pytest.mark.parametrize("edit", [{"cells": "0" * 64}, {"settings": 7}, {"hash": "0" * 64}])
def test_an_edited_summary_is_another_map(
    finished: tuple[Path, dict[str, Any]], scene: Path, edit: dict[str, Any]
) -> None:
    folder, options = finished
    summary = json.loads((folder / "s_summary.json").read_text()) | edit
    (folder / "s_summary.json").write_text(json.dumps(summary))
    with pytest.raises(OutputError, match="made from another input, model or settings"):
        geocfl.map_scene(scene, folder, **options, products=["sld"])


def test_a_killed_addition_goes_on(
    finished: tuple[Path, dict[str, Any]], scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever file it had moved last."""
    folder, options = finished
    expected = geocfl.map_scene(scene, tmp_path / "whole", **options, products=["default", "sld", "project"])
    from geocfl.products import staging

    put, moved = staging.put, []

    def dying(source: Path, target: Path) -> None:
        if len(moved) == 2:
            raise KeyboardInterrupt
        moved.append(target.name)
        put(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(staging, "put", dying)
        with pytest.raises(KeyboardInterrupt):
            geocfl.map_scene(scene, folder, **options, products=["sld", "project"])
    assert json.loads((folder / "s_summary.json").read_text())["settings"]["products"] != ["sld"]
    assert len(moved) == 2
    added = geocfl.map_scene(scene, folder, **options, products=["sld", "project"])
    same(added, expected)
    assert sorted(stamps(folder)) == sorted(path.name for path in expected.paths.values())


def test_overwriting_the_same_map_changes_nothing_and_redoing_does(
    finished: tuple[Path, dict[str, Any]], scene: Path
) -> None:
    folder, options = finished
    before = stamps(folder)
    assert geocfl.map_scene(scene, folder, **options, overwrite=True).already_done
    assert stamps(folder) == before
    assert not geocfl.map_scene(scene, folder, **options, redo=True).already_done
    assert stamps(folder)["s_lulc.tif"] != before["s_lulc.tif"]


def test_an_interrupted_redo_goes_on(
    finished: tuple[Path, dict[str, Any]], scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, options = finished
    with monkeypatch.context() as patch:
        patch.setattr(Staging, "commit", lambda staging: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            geocfl.map_scene(scene, folder, **options, redo=True)
    monkeypatch.setattr("geocfl.mapping.pipeline.classify_strip", lambda *_, **__: pytest.fail("classified"))
    again = geocfl.map_scene(scene, folder, **options, redo=True)
    assert again.summary["timing"]["windows"] == 0
    assert set(FILES) >= set(again.paths)
