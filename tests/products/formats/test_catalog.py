"""A catalog of many maps: valid, complete, the same again, and never of what is not whole."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pystac
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from pystac.validation import validate
from pystac.validation.stac_validator import JsonSchemaSTACValidator

from geocfl.core.grid import CellGrid
from geocfl.core.legend import EUROSAT
from geocfl.errors import DataError, OutputError, UsageError
from geocfl.products.files import FILES
from geocfl.products.formats import item_table
from geocfl.products.formats.catalog import CatalogResult, check_catalog, write_catalog
from geocfl.products.formats.collection import box_of
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


def cut(grid: CellGrid) -> CellGrid:
    """A part of a grid, at its upper left."""
    return replace(grid, height=128, width=3000)


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
    item = {"id": "asked for", "bbox": None, "properties": {"datetime": "2019-04-16T10:00:31Z"}, "assets": {}}
    (tmp_path / "S.stac.json").write_text(json.dumps(item))
    assert write_catalog(tmp_path).maps == ("S",)
    assert json.loads((tmp_path / "S.stac.json").read_text()) == item


def test_an_item_that_is_none_is_made_anew(tmp_path: Path, finish: Callable[..., Any], grid: CellGrid) -> None:
    finish(tmp_path, "S", grid)
    (tmp_path / "S.stac.json").write_text("cut o")
    assert write_catalog(tmp_path).maps == ("S",)
    assert pystac.Item.from_file(tmp_path / "S.stac.json").id == "S"


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
        with pytest.raises(OutputError, match="is not a folder; pass the one"):
            write_catalog(tmp_path / name)
    with pytest.raises(DataError, match="holds no finished map"):
        write_catalog(_made(tmp_path / "empty"))
    assert list((tmp_path / "empty").iterdir()) == []


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
    (out / "33TUL/2019").mkdir(parents=True)
    for path in local.glob("a_*"):
        (out / "33TUL/2019" / path.name).write_bytes(path.read_bytes())
    assert write_catalog(str(out), depth=0).maps == ("a", "b")
    assert write_catalog(str(out)).maps == ("33TUL/2019/a", "a", "b")
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
    with pytest.raises(DataError):
        write_catalog(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".letter.json.0123abcd", ".s.stac.json.4567cdef"]


def test_a_catalog_that_cannot_be_read_is_not_called_foreign(tmp_path: Path) -> None:
    (tmp_path / "catalog.json").mkdir()
    with pytest.raises(OutputError, match=r"catalog.json: cannot be read \(Is a directory\); choose another `out`"):
        check_catalog(tmp_path)


def test_maps_in_folders_below_and_what_a_catalog_keeps(
    tmp_path: Path, finish: Callable[..., Any], grid: CellGrid, validator: JsonSchemaSTACValidator
) -> None:
    for folder in ("33TUL/2019", "33TUL/2020", ".S.partial", "33TUL/.old"):
        finish(tmp_path / folder, "S", grid)
    finish(tmp_path, "T", grid)
    assert write_catalog(tmp_path, depth=0).maps == ("T",)
    assert write_catalog(tmp_path).maps == ("33TUL/2019/S", "33TUL/2020/S", "T")
    assert write_catalog(tmp_path, depth=0).maps == ("33TUL/2019/S", "33TUL/2020/S", "T")
    for name, kind in (("catalog.json", pystac.Catalog), ("collection.json", pystac.Collection)):
        catalog = kind.from_file(str(tmp_path / name))
        validate(catalog, validator=validator)
        items = list(catalog.get_items())
        assert [item.id for item in items] == ["S", "S", "T"]
        assert all(Path(asset.get_absolute_href()).is_file() for item in items for asset in item.assets.values())


def test_the_collection_describes_its_maps(tmp_path: Path, finish: Callable[..., Any], grid: CellGrid) -> None:
    for number, (stem, day) in enumerate({"a": "2019-04-16", "b": "2021-07-02", "c": "2020-01-01"}.items()):
        finish(
            tmp_path,
            stem,
            replace(grid, transform=grid.transform @ Affine.translation(5000 * number, 0)),
            f"{day}T10:00:00Z",
        )
    items = [pystac.Item.from_file(tmp_path / f"{stem}.stac.json") for stem in write_catalog(tmp_path).maps]
    collection = pystac.Collection.from_file(tmp_path / "collection.json")
    ((start, end),) = collection.extent.temporal.intervals
    assert (start.date().isoformat(), end.date().isoformat()) == ("2019-04-16", "2021-07-02")
    boxes = np.array([item.bbox for item in items])
    assert collection.extent.spatial.bboxes == [[*boxes.min(axis=0)[:2], *boxes.max(axis=0)[2:]]]
    assert list(collection.item_assets) == ["lulc", "attributes", "confidence", "gpkg", "summary"]
    assert collection.item_assets["lulc"].media_type == items[0].assets["lulc"].media_type
    assert collection.summaries.get_list("proj:code") == ["EPSG:32633"]


longitudes = st.floats(-180, 180, allow_nan=False)


@given(st.lists(st.tuples(longitudes, st.floats(0.1, 30)), min_size=1, max_size=6))
def test_a_box_holds_all_boxes_also_over_the_antimeridian(spans: list[tuple[float, float]]) -> None:
    boxes = [[west, 0, (west + width + 180) % 360 - 180, 1] for west, width in spans]
    west, _, east, _ = box_of(boxes)
    width = (east - west) % 360 or 360
    assert -180 <= west <= 180
    assert -180 <= east <= 180
    for start, span in spans:
        inside = (start - west) % 360
        assert min(inside, 360 - inside) < 1e-4 or inside + span <= width + 1e-4
    assert width <= sum(span for _, span in spans) + 360
    if len(spans) == 1:
        assert width == pytest.approx(spans[0][1], abs=1e-5)


def test_boxes_on_both_sides_of_the_antimeridian_do_not_span_the_world() -> None:
    assert box_of([[179, -18, 180, -17], [-180, -17, -178, -16]]) == [179, -18, -178, -16]
    assert box_of([[178, 0, -152, 1], [-153, 0, -152, 1]]) == [178, 0, -152, 1]  # one inside the other
    assert box_of([[-180, 0, -178, 1]]) == [-180, 0, -178, 1]
    assert box_of([]) == [-180, -90, 180, 90]


def test_a_table_of_the_items_is_read_by_others(tmp_path: Path, finish: Callable[..., Any], grid: CellGrid) -> None:
    pytest.importorskip("stac_geoparquet")
    finish(tmp_path / "33TUL", "S", grid)
    finish(tmp_path, "T", grid, "2020-06-01T10:00:00Z", rasters=False)  # has other assets
    finish(tmp_path, "Fiji", cut(PLACES["Fiji, over the antimeridian"]), "2021-06-01T10:00:00Z")
    write_catalog(tmp_path, parquet=True)
    table = tmp_path / "catalog.parquet"
    written = table.read_bytes()
    frame = geopandas.read_parquet(table).set_index("id")
    assert {id: row["assets"]["gpkg"]["href"] for id, row in frame.iterrows()} == {
        "Fiji": "./Fiji_lulc.gpkg", "S": "./33TUL/S_lulc.gpkg", "T": "./T_lulc.gpkg",
    }  # fmt: skip
    assert frame.crs.to_epsg() in (4326, None) or frame.crs.to_authority() == ("OGC", "CRS84")
    for id, below in (("S", "33TUL/"), ("T", ""), ("Fiji", "")):
        item = json.loads((tmp_path / f"{below}{id}.stac.json").read_text())
        assert frame.geometry[id].equals_exact(shapely.geometry.shape(item["geometry"]), 1e-9)
    assert pystac.Collection.from_file(tmp_path / "collection.json").assets["items"].href == "./catalog.parquet"
    write_catalog(tmp_path)  # which keeps it up to date
    assert table.read_bytes() == written
    finish(tmp_path, "U", grid)
    write_catalog(tmp_path)
    assert set(geopandas.read_parquet(table)["id"]) == {"Fiji", "S", "T", "U"}
    assert not list(tmp_path.glob(".*"))


def test_a_table_of_the_items_is_what_rustac_reads(
    tmp_path: Path, finish: Callable[..., Any], grid: CellGrid, validator: JsonSchemaSTACValidator
) -> None:
    pytest.importorskip("stac_geoparquet")
    rustac = pytest.importorskip("rustac")
    for stem in "ab":
        finish(tmp_path, stem, grid)
    write_catalog(tmp_path, parquet=True)

    async def read() -> list[dict[str, Any]]:
        return list((await rustac.read(str(tmp_path / "catalog.parquet")))["features"])

    found = asyncio.run(read())
    assert [item["id"] for item in found] == ["a", "b"]
    for item in found:
        own = json.loads((tmp_path / f"{item['id']}.stac.json").read_text())
        assert validate(pystac.Item.from_dict(item), validator=validator)
        assert item["properties"]["proj:code"] == own["properties"]["proj:code"]
        assert item["assets"]["lulc"]["classification:classes"] == own["assets"]["lulc"]["classification:classes"]
        assert item["bbox"] == pytest.approx(own["bbox"])


def test_items_that_were_edited(tmp_path: Path, finish: Callable[..., Any], grid: CellGrid) -> None:
    pytest.importorskip("stac_geoparquet")
    for stem in "abcd":
        finish(tmp_path, stem, grid)
    write_catalog(tmp_path)

    def edit(stem: str, **changes: Any) -> None:
        path = tmp_path / f"{stem}.stac.json"
        item = json.loads(path.read_text())
        path.write_text(json.dumps(item | changes | {"properties": item["properties"] | changes.get("properties", {})}))

    whole = (tmp_path / "a.stac.json").read_text()
    for changes in ({"assets": []}, {"assets": {"x": {"href": 3}}}, {"bbox": "no"}, {"properties": {"datetime": 3}}):
        edit("a", **changes)
        assert write_catalog(tmp_path).maps == ("a", "b", "c", "d")
        assert (tmp_path / "a.stac.json").read_text() == whole
    edit("b", geometry=None, bbox=None)  # of a map without a place on Earth
    edit("c", properties={"x": 1})
    assert write_catalog(tmp_path, parquet=True).maps == ("a", "b", "c", "d")
    assert list(geopandas.read_parquet(tmp_path / "catalog.parquet")["id"]) == ["a", "c", "d"]
    edit("d", properties={"x": "one"})
    with pytest.raises(OutputError, match=r"catalog\.parquet: the Items do not fit into a table \(Could not convert"):
        write_catalog(tmp_path, parquet=True)
    assert write_catalog(tmp_path).maps == ("a", "b", "c", "d")
    edit("c", properties={"datetime": "2018-04-16T10:00:00"})  # of no time zone
    write_catalog(tmp_path)
    ((start, _),) = pystac.Collection.from_file(tmp_path / "collection.json").extent.temporal.intervals
    assert start.isoformat() == "2018-04-16T10:00:00+00:00"


def test_a_table_of_other_making_stays(tmp_path: Path, finish: Callable[..., Any], grid: CellGrid) -> None:
    pytest.importorskip("stac_geoparquet")
    finish(tmp_path, "S", grid)
    foreign = tmp_path / "catalog.parquet"
    foreign.write_bytes(b"prices of trees")
    with pytest.raises(OutputError, match=r"catalog\.parquet: already exists, not made by geocfl"):
        write_catalog(tmp_path, parquet=True)
    write_catalog(tmp_path)
    assert foreign.read_bytes() == b"prices of trees"
    write_catalog(tmp_path, parquet=True, overwrite=True)
    assert list(geopandas.read_parquet(foreign)["id"]) == ["S"]
    (tmp_path / "collection.json").write_text("{}")
    with pytest.raises(OutputError, match=r"collection\.json: already exists, not made by geocfl"):
        write_catalog(tmp_path)


def test_a_table_needs_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_table, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install stac-geoparquet"):
        write_catalog(tmp_path, parquet=True)
