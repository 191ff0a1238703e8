"""Runs over scenes that are done: they are cheap, and never wrong."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

import geocfl
from geocfl.demonstration.landscape import write_synthetic_scene
from geocfl.errors import OutputError
from geocfl.mapping import mapper
from geocfl.mapping.recall import MANIFEST
from geocfl.products.scene_map import SceneMap
from geocfl.scenes import Source, fingerprint
from tests.scenes.range_server import RangeServer

upath = pytest.importorskip("upath", reason="universal-pathlib is not installed")
OPTIONS: dict[str, Any] = {"backend": "torch", "precision": "float32", "device": "cpu", "stride": 64}


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """A folder of three scenes, which have not changed for a while."""
    folder = tmp_path / "scenes"
    folder.mkdir()
    write_synthetic_scene(folder / "a.tif", tmp_path / "truth.tif", size=128)
    for name in "bc":
        shutil.copy(folder / "a.tif", folder / f"{name}.tif")
    return folder


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "SETTLED", -1_000_000_000_000)


def run(scenes: Path, out: Any, model: Path, **options: Any) -> dict[str, Any]:
    results = geocfl.map_scenes(str(scenes / "*.tif"), out, model=model, **OPTIONS, **options)
    return {Path(path).stem: result for path, result in results}


@pytest.mark.parametrize("store", [False, True])
def test_a_run_again_reads_no_scene_and_asks_for_no_product(
    scenes: Path, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, store: bool
) -> None:
    monkeypatch.setenv("GEOCFL_CACHE", str(tmp_path / "cache"))
    out = upath.UPath(f"memory://reruns-{tmp_path.name}/maps") if store else tmp_path / "maps"
    first = run(scenes, out, tiny_model)
    with monkeypatch.context() as patch:
        patch.setattr("geocfl.mapping.mapper.open_scene", lambda *_, **__: pytest.fail("opened"))
        patch.setattr("geocfl.scenes.find._find_raster", lambda *_: pytest.fail("opened to be named"))
        patch.setattr(fingerprint, "file_hash", lambda path: pytest.fail(f"{path} is read"))
        patch.setattr("geocfl.products.staging.Staging.__enter__", lambda *_: pytest.fail("staged"))
        again = run(scenes, out, tiny_model)
    assert all(result.already_done for result in again.values())
    assert {name: result.paths for name, result in again.items()} == {n: r.paths for n, r in first.items()}
    assert again["b"].summary["hash"] == first["b"].summary["hash"]


def test_what_is_lost_or_changed_is_noticed(scenes: Path, tmp_path: Path, tiny_model: Path) -> None:
    out = tmp_path / "maps"
    first = run(scenes, out, tiny_model)
    first["a"].paths["preview"].unlink()
    first["b"].paths["summary"].write_text("{}")
    with rasterio.open(scenes / "c.tif", "r+") as dataset:
        dataset.write(np.full((dataset.count, dataset.height, dataset.width), 900, np.uint16))
    again = run(scenes, out, tiny_model)
    assert not again["a"].already_done
    assert first["a"].paths["preview"].is_file()
    for name in "bc":
        assert isinstance(again[name], OutputError)
        assert "made from another input, model or settings" in str(again[name])


@pytest.mark.parametrize("beside", ["b.tif.aux.xml", "b.tfw", "b.TFW", "b.tif.msk"])
def test_a_file_beside_a_scene_is_noticed(
    scenes: Path, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, beside: str
) -> None:
    run(scenes, tmp_path / "maps", tiny_model)
    (scenes / beside).write_text("<PAMDataset/>")
    opened: list[str] = []
    real = mapper.open_scene

    def noted(source: Source, *how: Any, **more: Any) -> Any:
        opened.append(source.stem)
        return real(source, *how, **more)

    monkeypatch.setattr(mapper, "open_scene", noted)
    run(scenes, tmp_path / "maps", tiny_model)
    assert opened == ["b"]


@pytest.mark.parametrize("manifest", ["", "not JSON", "[]\n{}\nnull\n", None])
def test_a_broken_manifest_costs_only_time(
    scenes: Path, tmp_path: Path, tiny_model: Path, manifest: str | None
) -> None:
    out = tmp_path / "maps"
    run(scenes, out, tiny_model)
    if manifest is None:
        (out / MANIFEST).unlink()
    else:
        (out / MANIFEST).write_text(manifest)
    assert all(result.already_done for result in run(scenes, out, tiny_model).values())


def test_a_shard_asks_for_its_own_scenes_only(scenes: Path, tmp_path: Path, tiny_model: Path) -> None:
    with RangeServer(scenes) as server:
        links = [server.url(f"{name}.tif") for name in "abc"]
        results = dict(geocfl.map_scenes(links, tmp_path / "maps", model=tiny_model, shard=(1, 3), **OPTIONS))
        asked = server.names()
    assert list(results) == [links[1]]
    assert isinstance(results[links[1]], SceneMap)
    assert "b.tif" in asked
    assert asked.isdisjoint({"a.tif", "c.tif"})


def test_a_single_scene_leaves_no_manifest(scenes: Path, tmp_path: Path, tiny_model: Path) -> None:
    geocfl.map_scene(scenes / "a.tif", tmp_path / "maps", model=tiny_model, **OPTIONS)
    assert not (tmp_path / "maps" / MANIFEST).exists()
