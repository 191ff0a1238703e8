"""Mosaics by tile: names and places of squares, no cell twice or left out, workers, stores, updates and reruns."""

from __future__ import annotations

import json
import logging
import uuid
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyproj
import pystac
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pystac.validation import validate
from rasterio.crs import CRS
from rasterio.features import geometry_mask
from rio_cogeo.cogeo import cog_validate
from shapely import box, unary_union

import geocfl
from geocfl.analysis import mosaic_tiles, tile_grid
from geocfl.analysis.alignment import place_maps
from geocfl.analysis.mosaic import mosaic
from geocfl.analysis.tile_grid import tiles_of
from geocfl.errors import DataError, OutputError, UsageError
from geocfl.products.scene_map import open_map
from tests.analysis.test_mosaic import UTM33, moved, read, write_map, write_regions
from tests.products.formats.test_stac import validator  # noqa: F401
from tests.products.test_stores import s3  # noqa: F401

mgrs = pytest.importorskip("mgrs")


def dated(path: Path, codes: Any, day: int = 1, **place: Any) -> Path:
    """A map with a date and a hash."""
    lulc = write_map(path, codes, **place)
    when = {"scene": {"datetime": f"2022-06-{day:02}T10:00:00Z"}, "hash": uuid.uuid4().hex}
    path.with_name(f"{path.name}_summary.json").write_text(json.dumps(when))
    return lulc


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    """Four maps around the corner of 33TWM, 33TXM, 33TWL and 33TXL, at 600 000 east and 5 100 000 north."""
    rng = np.random.default_rng(0)
    for number, (left, top) in enumerate([(-9, -7), (2, -7), (-9, 1), (-2, -2)]):
        dated(tmp_path / "maps" / f"M{number}", rng.integers(1, 11, (6, 8)), number + 1, pixel=moved(left, top))
    return tmp_path / "maps"


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_squares_have_their_names_cells_and_items(maps, tmp_path, validator) -> None:  # noqa: F811
    made = mosaic(maps, tmp_path / "tiles", grid="mgrs")
    assert set(made.classes) == {"33TWM", "33TXM", "33TWL", "33TXL"}
    whole = mosaic(maps, tmp_path / "all_lulc.tif").paths[0]
    together = open_map(whole)
    for name in made.classes:
        tile = open_map(tmp_path / "tiles" / f"{name}_lulc.tif")
        assert tile.bounds == tile.grid.bounds()
        assert tile.crs == UTM33
        assert cog_validate(tile.path, strict=True) == (True, [], [])
        zone, _, x, y = mgrs.MGRS().MGRSToUTM(name)
        assert zone == 33
        assert np.abs(np.array(tile.bounds) - (x - 5e4, y - 5e4, x + 5e4, y + 5e4)).max() <= 80
        with rasterio.open(whole) as all_of_it, rasterio.open(tile.path) as one:
            west, south, east, north = rasterio.coords.BoundingBox(*tile.bounds)
            window = rasterio.windows.from_bounds(
                max(west, together.bounds[0]), max(south, together.bounds[1]),
                min(east, together.bounds[2]), min(north, together.bounds[3]), all_of_it.transform,
            ).round()  # fmt: skip
            there = rasterio.windows.from_bounds(*all_of_it.window_bounds(window), one.transform).round()
            assert (one.read(1, window=there) == all_of_it.read(1, window=window)).all()
            assert (one.read(1) > 0).sum() == (all_of_it.read(1, window=window) > 0).sum()
        item = pystac.Item.from_file(str(tile.path.with_name(f"{name}.stac.json")))
        assert item.properties["proj:code"] == "EPSG:32633"
        assert item.properties["processing:lineage"].startswith("Mosaic of ")
        assert {"lulc", "confidence", "summary"} < set(item.assets)
        validate(item, validator=validator)
    catalog = pystac.Catalog.from_file(str(tmp_path / "tiles" / "catalog.json"))
    assert sorted(item.id for item in catalog.get_items()) == sorted(made.classes)
    # M3 lies in all four; another map in each of three
    dates = {item.id: item.common_metadata for item in catalog.get_items()}
    assert dates["33TXL"].start_datetime is None
    assert dates["33TWM"].start_datetime.day == 1
    assert dates["33TWM"].end_datetime.day == 4


@given(
    stride=st.sampled_from([8, 16, 37]),
    east=st.integers(-3000, 3000),
    south=st.integers(-3000, 3000),
    side=st.integers(3, 60),
)
@settings(max_examples=4)
def test_every_cell_is_in_exactly_one_tile(tmp_path_factory, stride, east, south, side) -> None:
    """Of squares, and of polygons of a file whose sides are slanted on the cells."""
    folder = tmp_path_factory.mktemp("tiles")
    place = Affine(10, 0, 600_000 + east, 0, -10, 5_100_000 - south)
    one = open_map(write_map(folder / "M", np.ones((side, side + 3)), pixel=place, stride=stride))
    degrees = [box(lon, lat, lon + 1, lat + 1) for lon in (15, 16, 17) for lat in (45, 46, 47)]
    slanted = gpd.GeoDataFrame({"name": [f"t{i}" for i in range(9)]}, geometry=degrees, crs=4326)
    slanted.to_file(folder / "grid.gpkg")
    lattice, _ = place_maps([one], UTM33)
    for grid, by in (("mgrs", None), (folder / "grid.gpkg", "name")):
        times = np.zeros((side, side + 3), int)
        for tile in tiles_of(grid, [one], by, None, None):
            rows, columns, part = tile.on_grid(lattice)
            shape = (rows.stop - rows.start, columns.stop - columns.start)
            inside = (
                np.ones(shape, bool) if part is None else geometry_mask([part], shape, Affine.identity(), invert=True)
            )
            top, left = max(rows.start, 0), max(columns.start, 0)
            here = inside[top - rows.start : side - rows.start, left - columns.start : side + 3 - columns.start]
            times[top : top + here.shape[0], left : left + here.shape[1]] += here
        assert (times == 1).all()


def test_squares_end_at_the_borders_of_zones(tmp_path) -> None:
    """Around 12 degrees east, where zones 32 and 33 meet, each cell lies in the zone of its center."""
    to_zone = {zone: pyproj.Transformer.from_crs(4326, 32600 + zone, always_xy=True) for zone in (32, 33)}
    x, y = to_zone[32].transform(12, 46.5)
    near = Affine(10, 0, round(x, -1) - 3200, 0, -10, round(y, -1))
    one = dated(tmp_path / "maps" / "M", np.ones((30, 40)), pixel=near, crs=CRS.from_epsg(32632))
    made = mosaic(one, tmp_path / "tiles", grid="mgrs")
    assert {name[:2] for name in made.classes} == {"32", "33"}
    total = 0.0
    for name, table in made.classes.items():
        tile = open_map(tmp_path / "tiles" / f"{name}_lulc.tif")
        rows, columns = np.nonzero(tile.lulc)
        centers = tile.transform @ (columns + 0.5, rows + 0.5)
        longitude = to_zone[int(name[:2])].transform(*centers, direction="INVERSE")[0]
        assert (longitude < 12).all() if name[:2] == "32" else (longitude >= 12).all()
        total += table["classes"][0]["hectares"]
    assert total == pytest.approx(30 * 40 * 2.56, rel=0.02)  # cells of zone 33 are other cells


@pytest.mark.parametrize(
    ("longitude", "latitude", "name"),
    [(5, 60, "32V"), (10, 78, "33X"), (20, 75, "33X"), (151, -33, "56H"), (20.5, 0.05, "34N"), (20.5, -0.05, "34M")],
)
def test_names_are_those_of_the_reference(tmp_path, longitude, latitude, name) -> None:
    """Also where zones are wider, around Norway and Svalbard, and south of the equator."""
    zone = 31 + int(longitude // 6)
    crs = CRS.from_epsg((32600 if latitude > 0 else 32700) + zone)
    x, y = pyproj.Transformer.from_crs(4326, crs.to_wkt(), always_xy=True).transform(longitude, latitude)
    path = dated(tmp_path / "M", np.ones((2, 2)), pixel=Affine(10, 0, x, 0, -10, y), crs=crs)
    tiles = tiles_of("mgrs", [open_map(path)], None, None, None)
    expected = mgrs.MGRS().toMGRS(latitude - 0.001, longitude + 0.001, MGRSPrecision=0)
    assert expected.startswith(name)
    assert expected in {tile.name for tile in tiles}
    assert len(unary_union([tile.square for tile in tiles if tile.crs == tiles[0].crs]).bounds) == 4


def test_workers_and_reruns_make_the_same_files(maps, tmp_path, monkeypatch) -> None:
    one = mosaic(maps, tmp_path / "one" / "tiles", grid="mgrs", overlap="newest")
    whole, seen = mosaic_tiles.write_raster, []

    def interrupted(grid: Any, placed: Any, target: Path, *rest: Any, **options: Any) -> Any:
        seen.append(target.name)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return whole(grid, placed, target, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(mosaic_tiles, "write_raster", interrupted)
        with pytest.raises(KeyboardInterrupt):
            mosaic(maps, tmp_path / "two" / "tiles", grid="mgrs", overlap="newest")
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "two" / "tiles").glob("*_lulc.tif")}
    assert len(done) == 2
    two = mosaic(maps, tmp_path / "two" / "tiles", grid="mgrs", overlap="newest")
    assert content(tmp_path / "one" / "tiles") == content(tmp_path / "two" / "tiles")
    assert all(path.stat().st_mtime_ns == when for path, when in done.items())
    assert one.classes == two.classes
    with pytest.raises(OutputError, match=r"33T\w\w_lulc\.tif: already exists"):
        mosaic(maps, tmp_path / "two" / "tiles", grid="mgrs", overlap="confidence")


@pytest.mark.integration
def test_processes_make_the_same_files(maps, tmp_path) -> None:
    told: list[Any] = []
    mosaic(maps, tmp_path / "one" / "tiles", grid="mgrs")
    mosaic(maps, tmp_path / "two" / "tiles", grid="mgrs", workers=2, progress=lambda *step: told.append(step))
    assert content(tmp_path / "one" / "tiles") == content(tmp_path / "two" / "tiles")
    assert told == [("tiles", done, 4, "tile") for done in range(5)]
    (maps / "M3_confidence.tif").write_bytes(b"")
    with pytest.raises(DataError, match=r"M3_confidence\.tif: not a raster"):
        mosaic(maps, tmp_path / "three", grid="mgrs", workers=2)


def test_an_update_makes_only_tiles_of_changed_maps(maps, tmp_path) -> None:
    out = tmp_path / "kept" / "tiles"
    mosaic(maps, out, grid="mgrs", update=True)
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*_lulc.tif")}
    dated(maps / "M1", np.full((6, 8), 3), 9, pixel=moved(2, -7))  # in 33TXM
    for file in maps.glob("M3_*"):
        file.unlink()  # the only one in 33TXL
    dated(maps / "M3", np.full((2, 2), 3), 4, pixel=moved(-2, -2))
    mosaic(maps, out, grid="mgrs", update=True)
    mosaic(maps, tmp_path / "new" / "tiles", grid="mgrs")
    assert content(out) == content(tmp_path / "new" / "tiles")
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("*_lulc.tif")}
    assert set(before) - set(after) == {"33TXL_lulc.tif"}
    dated(maps / "M1", np.full((6, 8), 4), 9, pixel=moved(2, -7))
    mosaic(maps, out, grid="mgrs", update=True)
    again = {path.name: path.stat().st_mtime_ns for path in out.glob("*_lulc.tif")}
    assert {name for name in after if after[name] != again[name]} == {"33TXM_lulc.tif"}


def test_maps_and_tiles_in_a_store(maps, tmp_path) -> None:
    store = pytest.importorskip("upath").UPath(f"memory://{uuid.uuid4().hex}")
    for file in maps.iterdir():
        (store / "maps" / file.name).write_bytes(file.read_bytes())
    made = mosaic(str(store / "maps"), str(store / "tiles"), grid="mgrs", overlap="newest")
    mosaic(maps, tmp_path / "tiles", grid="mgrs", overlap="newest")
    there = {path.name: path.read_bytes() for path in (store / "tiles").iterdir()}
    assert there == content(tmp_path / "tiles")
    assert len(made.paths) == len(there)
    assert mosaic(str(store / "maps"), str(store / "tiles"), grid="mgrs", overlap="newest").classes == made.classes
    (store / "empty" / "x.txt").write_text("")
    for folder, said in (("empty", "a folder without maps"), ("none", "none: (cannot be listed|a folder without)")):
        with pytest.raises(DataError, match=said):
            mosaic(str(store / folder), str(store / "tiles"), grid="mgrs")
    one = mosaic(str(store / "maps"), str(store / "all_lulc.tif")).paths[0]
    assert read(mosaic(maps, tmp_path / "all_lulc.tif").paths[0]).tolist() == open_map(one).lulc.tolist()


def test_an_s3_bucket_and_processes(maps, tmp_path, s3, monkeypatch) -> None:  # noqa: F811
    upath = pytest.importorskip("upath")
    for key, value in {
        "AWS_ENDPOINT_URL": s3["endpoint_url"], "AWS_ACCESS_KEY_ID": s3["key"], "AWS_SECRET_ACCESS_KEY": s3["secret"],
    }.items():  # fmt: skip
        monkeypatch.setenv(key, value)
    bucket = f"tiles-{uuid.uuid4().hex}"
    store = upath.UPath(f"s3://{bucket}")
    store.fs.mkdir(bucket)
    for file in maps.iterdir():
        (store / "maps" / file.name).write_bytes(file.read_bytes())
    mosaic(f"s3://{bucket}/maps", f"s3://{bucket}/tiles", grid="mgrs", workers=2, update=True)
    mosaic(maps, tmp_path / "tiles", grid="mgrs")
    store.fs.invalidate_cache()
    assert {path.name: path.read_bytes() for path in (store / "tiles").iterdir()} == content(tmp_path / "tiles")


def test_tiles_of_a_file_in_one_projection(maps, tmp_path, caplog) -> None:
    shapes = {"a b": box(598_000, 5_099_000, 600_040, 5_102_000), "c": box(600_040, 5_099_000, 603_000, 5_102_000)}
    grid = write_regions(tmp_path / "grid.gpkg", shapes | {"far": box(0, 0, 9, 9)})
    made = mosaic(maps, tmp_path / "tiles", grid=grid, by="name", vector=["gpkg"])
    assert set(made.classes) == {"a b", "c"}
    a, c = (open_map(tmp_path / "tiles" / f"{stem}_lulc.tif") for stem in ("a_b", "c"))
    assert a.bounds[2] == c.bounds[0] == 600_000  # the nearest border of cells of 160 m
    assert (tmp_path / "tiles" / "c_lulc.gpkg").is_file()
    for file in maps.glob("*_summary.json"):
        file.unlink()
    with caplog.at_level(logging.WARNING):
        mosaic(maps, tmp_path / "undated", grid=grid, by="name")
    assert "2 tiles, such as a_b, have no STAC Item" in caplog.text
    assert not (tmp_path / "undated" / "catalog.json").exists()


def test_what_does_not_fit_is_refused_in_one_sentence(maps, tmp_path, monkeypatch) -> None:
    grid = write_regions(tmp_path / "grid.gpkg", {"far": box(0, 0, 9, 9)})
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"grid": "mgr"}, UsageError, "`grid` is mgr but must be mgrs or a file of polygons"),
        ({"grid": grid}, UsageError, "pass the field that names its tiles"),
        ({"grid": grid, "by": "name"}, DataError, "no map reaches into any tile"),
        ({"grid": "mgrs", "crs": "EPSG:32632"}, UsageError, "belong to polygons"),
        ({"grid": "mgrs", "regions": grid, "by": "name"}, UsageError, "exclude each other"),
        ({"grid": "mgrs", "workers": 0}, UsageError, "`workers` is 0"),
        ({"workers": 2}, UsageError, "`workers` is 2"),
    ]
    for options, error, words in cases:
        with pytest.raises(error, match=words):
            geocfl.mosaic(maps, tmp_path / "tiles", **options)
    with pytest.raises(UsageError, match="must be a folder with `grid`, such as"):
        mosaic(maps, tmp_path / "X_lulc.tif", grid="mgrs")
    mosaic(maps, tmp_path / "tiles", grid="mgrs")
    with pytest.raises(UsageError, match=r"whose 33TW\w_lulc\.tif is one of the maps"):
        mosaic(tmp_path / "tiles", tmp_path / "tiles", grid="mgrs")
    monkeypatch.setattr(tile_grid, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs the package mgrs; run: pip install mgrs"):
        mosaic(maps, tmp_path / "more", grid="mgrs")
