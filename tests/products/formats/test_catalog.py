"""A catalog of many maps: valid, complete, the same again, and never of what is not whole."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
from pystac.validation import validate
from pystac.validation.stac_validator import JsonSchemaSTACValidator

from geocfl.core.grid import CellGrid
from geocfl.core.legend import EUROSAT
from geocfl.errors import OutputError
from geocfl.products.files import FILES
from geocfl.products.formats.catalog import CatalogResult, check_catalog, write_catalog
from geocfl.products.formats.raster import write_confidence, write_lulc
from geocfl.products.formats.stac import write_item
from geocfl.products.summary import class_table
from tests.products.formats.test_stac import PLACES, WHEN, validator

__all__ = ["validator"]  # a fixture


@pytest.fixture
def finish(tmp_path: Path, cells_of: Callable[..., Path]) -> Callable[..., dict[str, Any]]:
    """Writes a finished map's products and summary; returns the summary."""

    def finish(
        folder: Path, stem: str, grid: CellGrid, when: str | None = "2019-04-16T10:00:31Z", rasters: bool = True
    ) -> dict[str, Any]:
        cells = cells_of(np.full((grid.rows, grid.columns), 2, np.uint8))
        folder.mkdir(parents=True, exist_ok=True)
        if rasters:
            write_lulc(cells, folder / f"{stem}_lulc.tif", grid, EUROSAT, {})
            write_confidence(cells, folder / f"{stem}_confidence.tif", grid, {})
        (folder / f"{stem}_lulc.gpkg").write_bytes(b"polygons")
        summary = {
            "geocfl": "1.2.3",
            "hash": f"hash of {stem}",
            "scene": {
                "file": f"{stem}.tif",
                "datetime": when,
                "width": grid.width,
                "height": grid.height,
                "crs": grid.crs.to_string(),
                "bounds": list(grid.bounds()),
                "transform": list(grid.transform)[:6],
            },
            "model": {"name": "m", "window": grid.window},
            "settings": {"stride": grid.stride},
            **class_table(cells, grid, EUROSAT),
        }
        (folder / f"{stem}_summary.json").write_text(json.dumps(summary))
        return summary

    return finish


@pytest.fixture
def grid(grid_of: Callable[..., CellGrid]) -> CellGrid:
    return grid_of(np.zeros((3, 4)), cut=(10, 20))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_finished_map_is_found(
    tmp_path: Path, finish: Callable[..., Any], grid: CellGrid, validator: JsonSchemaSTACValidator
) -> None:
    out = tmp_path / "maps"
    names = ["b", "a-ü_(1)", "S2A_MSIL2A_20190416"]
    for name in names:
        finish(out, name, grid)
    result = write_catalog(out)
    assert result == CatalogResult(out / "catalog.json", tuple(sorted(names)), ())
    catalog = pystac.Catalog.from_file(str(result.path))
    validate(catalog, validator=validator)
    assert (catalog.id, json.loads(result.path.read_text())["stac_version"]) == ("maps", "1.1.0")
    items = list(catalog.get_items(recursive=True))
    assert [item.id for item in items] == sorted(names)
    for item in items:
        validate(item, validator=validator)
        assert item.datetime == WHEN
        assert list(item.assets) == ["lulc", "attributes", "confidence", "gpkg", "summary"]
        for asset in item.assets.values():  # as odc-stac and others resolve them
            assert Path(asset.get_absolute_href() or "").is_file()
    assert [link.title for link in catalog.get_item_links()] == sorted(names)
    assert str(tmp_path) not in result.path.read_text()


def test_names_that_cannot_stand_in_an_address(tmp_path: Path, finish: Callable[..., Any], grid: CellGrid) -> None:
    finish(tmp_path, "50% a#b", grid, rasters=False)
    write_catalog(tmp_path)
    (link,) = (link for link in json.loads((tmp_path / "catalog.json").read_text())["links"] if link["rel"] == "item")
    assert (link["href"], link["title"]) == ("./50%25%20a%23b.stac.json", "50% a#b")


def test_it_is_the_same_when_it_is_made_again_or_elsewhere(
    tmp_path: Path, finish: Callable[..., Any], grid: CellGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    for out, names in ((tmp_path / "maps", "bca"), (tmp_path / "deep/maps", "abc")):
        for name in names:
            finish(out, name, grid)
        write_catalog(out)
    before = contents(tmp_path / "maps")
    assert before == contents(tmp_path / "deep/maps")
    assert before["catalog.json"].endswith(b"}\n")
    monkeypatch.chdir(tmp_path / "maps")
    write_catalog(".")
    assert contents(tmp_path / "maps") == before
    finish(tmp_path / "maps", "d", grid)
    assert write_catalog(".").maps == ("a", "b", "c", "d")
    (tmp_path / "maps/b_summary.json").unlink()
    assert write_catalog(".").maps == ("a", "c", "d")


@pytest.mark.parametrize("name", ["rotated", "southern", "no EPSG code", "ESRI's code", "degrees", "UTM edge"])
def test_items_are_those_that_products_stac_asks_for(
    tmp_path: Path, finish: Callable[..., dict[str, Any]], name: str
) -> None:
    place = PLACES[name]
    grid = CellGrid(310, 500, 64, 64, place.transform, place.crs)
    summary = finish(tmp_path / "a", "S", grid)
    finish(tmp_path / "b", "S", grid)
    write_catalog(tmp_path / "a")
    files = {key: f"S{suffix}" for key, suffix in FILES.items() if (tmp_path / f"b/S{suffix}").exists()}
    write_item(tmp_path / "b/S.stac.json", "S", grid, EUROSAT, summary, files, WHEN)
    assert (tmp_path / "a/S.stac.json").read_text() == (tmp_path / "b/S.stac.json").read_text()


def test_items_that_are_there_stay(tmp_path: Path, finish: Callable[..., Any], grid: CellGrid) -> None:
    finish(tmp_path, "S", grid, when=None)
    (tmp_path / "S.stac.json").write_text("asked for")
    assert write_catalog(tmp_path).maps == ("S",)
    assert (tmp_path / "S.stac.json").read_text() == "asked for"


def test_maps_without_date_are_left_out_and_told(tmp_path: Path, finish: Callable[..., Any], grid: CellGrid) -> None:
    for name, when in (("a", None), ("b", "2019-04-16T10:00:31Z"), ("c", None)):
        finish(tmp_path, name, grid, when)
    result = write_catalog(tmp_path)
    assert (result.maps, result.undated) == (("b",), ("a", "c"))
    assert not (tmp_path / "a.stac.json").exists()
    assert json.loads(result.path.read_text())["geocfl:maps"] == 1


def test_a_map_of_polygons_alone(
    tmp_path: Path, finish: Callable[..., Any], grid: CellGrid, validator: JsonSchemaSTACValidator
) -> None:
    finish(tmp_path, "S", grid, rasters=False)
    write_catalog(tmp_path)
    item = pystac.Item.from_file(tmp_path / "S.stac.json")
    validate(item, validator=validator)
    assert list(item.assets) == ["gpkg", "summary"]


def test_what_is_not_whole_or_not_a_map_does_not_count(
    tmp_path: Path, finish: Callable[..., Any], grid: CellGrid
) -> None:
    finish(tmp_path, "S", grid)
    finish(tmp_path / ".T.partial", "T", grid)
    write_lulc_only = tmp_path / "U_lulc.tif"
    write_lulc_only.write_bytes((tmp_path / "S_lulc.tif").read_bytes())
    for name, text in {"v": "{}", "w": "[1", "x": '{"hash": "other tool"}', "y": "[]"}.items():
        (tmp_path / f"{name}_summary.json").write_text(text)
    assert write_catalog(tmp_path).maps == ("S",)


def test_a_damaged_map_does_not_stop_the_others(
    tmp_path: Path, finish: Callable[..., Any], grid: CellGrid, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "abcd":
        finish(tmp_path, name, grid)
    (tmp_path / "a_lulc.tif").write_bytes(b"II*")
    (tmp_path / "b_lulc.tif.aux.xml").unlink()
    summary = json.loads((tmp_path / "c_summary.json").read_text())
    del summary["settings"]
    (tmp_path / "c_summary.json").write_text(json.dumps(summary))
    with caplog.at_level(logging.WARNING, "geocfl"):
        assert write_catalog(tmp_path).maps == ("d",)
    (message,) = caplog.messages
    assert f"{tmp_path / 'catalog.json'}: lacks 3 maps with damaged products, such as a (" in message


@pytest.mark.parametrize("text", ['{"type": "Catalog", "id": "mine"}', "[]", "7", "no JSON", "\xff"])
def test_a_catalog_of_other_making_is_refused(
    tmp_path: Path, finish: Callable[..., Any], grid: CellGrid, text: str
) -> None:
    finish(tmp_path, "S", grid)
    (tmp_path / "catalog.json").write_bytes(text.encode("latin-1"))
    before = contents(tmp_path)
    for attempt in (check_catalog, write_catalog):
        with pytest.raises(OutputError, match=r"catalog\.json: already exists, not made by geocfl; use `over"):
            attempt(tmp_path)
    assert contents(tmp_path) == before
    check_catalog(tmp_path, overwrite=True)
    assert write_catalog(tmp_path, overwrite=True).maps == ("S",)
    check_catalog(tmp_path)


def test_folders_that_are_none(tmp_path: Path) -> None:
    check_catalog(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    check_catalog(tmp_path / "file/maps")
    for name in ("new", "file", "file/maps"):
        with pytest.raises(OutputError, match=r"cannot be cataloged"):
            write_catalog(tmp_path / name)
    assert write_catalog(_made(tmp_path / "empty")).maps == ()


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_it_is_replaced_as_a_whole(tmp_path: Path, finish: Callable[..., Any], grid: CellGrid) -> None:
    """Whoever reads it while others write it reads one of theirs."""
    for number in range(20):
        finish(tmp_path, f"S{number}", grid, rasters=False)
    write_catalog(tmp_path)
    broken = []
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            write_catalog(tmp_path)

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    for _ in range(300):
        text = (tmp_path / "catalog.json").read_text()
        if json.loads(text or "{}").get("geocfl:maps") != 20:
            broken.append(text)
    stop.set()
    for writer in writers:
        writer.join()
    assert broken == []
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_maps_in_a_store(tmp_path: Path, finish: Callable[..., Any], grid: CellGrid) -> None:
    upath = pytest.importorskip("upath", reason="universal-pathlib is not installed")
    local = tmp_path / "maps"
    for name in "ab":
        finish(local, name, grid)
    out = upath.UPath(f"memory://{tmp_path.name}/maps")
    check_catalog(str(out))
    with pytest.raises(OutputError, match="cannot be"):
        write_catalog(str(out))
    for path in local.iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    result = write_catalog(str(out))
    assert (result.maps, str(result.path)) == (("a", "b"), f"{out}/catalog.json")
    write_catalog(local)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == contents(local)
    (out / "catalog.json").write_text("{}")
    with pytest.raises(OutputError, match=r"memory://.*catalog\.json: already exists"):
        write_catalog(str(out))


def test_a_real_map_is_cataloged(tmp_path: Path, tiny_model: Path, validator: JsonSchemaSTACValidator) -> None:
    """What its Item says is what --products stac says, but for the Item itself."""
    import geocfl
    from geocfl.demonstration.landscape import write_synthetic_scene

    scene = tmp_path / "S_20190416T100031.tif"
    write_synthetic_scene(scene, tmp_path / "truth.tif", size=128)
    options: dict[str, Any] = {"model": tiny_model, "products": ["lulc", "preview"]}
    geocfl.map_scene(scene, tmp_path / "a", **options)
    geocfl.map_scene(scene, tmp_path / "b", **options | {"products": ["lulc", "preview", "stac"]})
    (name,) = write_catalog(tmp_path / "a").maps
    made, asked = ((tmp_path / f"{folder}/{name}.stac.json").read_text() for folder in "ab")
    assert made == asked
    validate(pystac.Item.from_file(tmp_path / f"a/{name}.stac.json"), validator=validator)
    assert geocfl.map_scene(scene, tmp_path / "a", **options).already_done


def test_files_that_killed_processes_left_are_removed(tmp_path: Path) -> None:
    for name in (".catalog.json.0123abcd", ".s.stac.json.0123abcd", ".s.stac.json.4567cdef", ".letter.json.0123abcd"):
        (tmp_path / name).write_text("half")
        if "4567" not in name:  # that of a process which is writing it
            os.utime(tmp_path / name, (0, 0))
    write_catalog(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".letter.json.0123abcd",
        ".s.stac.json.4567cdef",
        "catalog.json",
    ]


def test_a_catalog_that_cannot_be_read_is_not_called_foreign(tmp_path: Path) -> None:
    (tmp_path / "catalog.json").mkdir()
    with pytest.raises(OutputError, match=r"catalog.json: cannot be read \(Is a directory\); choose another `out`"):
        check_catalog(tmp_path)
