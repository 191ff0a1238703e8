"""The cube of a map in xarray, rioxarray and GDAL: values, place, time, legend and fill values."""

from __future__ import annotations

import json
import warnings
import zipfile
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

import geocfl
from geocfl.core.grid import CellGrid
from geocfl.core.legend import EUROSAT
from geocfl.errors import UsageError
from geocfl.products.formats import cube
from geocfl.products.formats.cube import write_cube
from geocfl.products.scratch import BANDS, ENTROPY, NOVELTY, PROBABILITY, VALID, write_header
from geocfl.products.selection import Selection
from tests.products.test_stores import s3  # noqa: F401

pytestmark = [pytest.mark.extra("zarr"), pytest.mark.filterwarnings("ignore::UserWarning:zarr")]
xarray = pytest.importorskip("xarray")
rioxarray = pytest.importorskip("rioxarray")

UTM33 = CRS.from_epsg(32633)
PIXEL = Affine(10, 0, 600_000, 0, -10, 5_100_000)
NAMES = [*BANDS, NOVELTY, VALID, ENTROPY, *[PROBABILITY] * len(EUROSAT)]
WHEN = datetime.fromisoformat("2022-06-01T10:05:59+02:00")


def make(folder: Path, values: np.ndarray, grid: CellGrid, **options: Any) -> Path:
    """The cube of (bands, rows, columns) values of `NAMES`."""
    cells = folder / "cells"
    write_header(cells, grid.rows, grid.columns, NAMES)
    cells.write_bytes(values.transpose(1, 0, 2).tobytes())
    path = folder / "S_cube.zarr.zip"
    write_cube(cells, path, grid, EUROSAT, {"GEOCFL_MODEL": "m"}, **options)
    assert sorted(file.name for file in folder.iterdir()) == ["S_cube.zarr.zip", "cells", "cells.hdr"]
    return path


def random_values(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 101, (len(NAMES), *shape)).astype(np.uint8)
    values[0] = rng.choice([0, 1, 5, 10, 255], shape)
    values[1:, values[0] == 0] = 255
    return values


def grid_of(shape: tuple[int, int], transform: Affine = PIXEL, crs: CRS = UTM33, stride: int = 16) -> CellGrid:
    return CellGrid(shape[0] * stride - 3, shape[1] * stride - 3, stride, 64, transform, crs)


ALL = frozenset({"entropy", "novelty", "valid", "probabilities"})


@given(rows=st.integers(1, 12), columns=st.integers(1, 12), chunk=st.integers(1, 9), seed=st.integers(0, 999))
@settings(max_examples=8)
def test_values_and_places_are_those_of_the_cells(tmp_path_factory, rows, columns, chunk, seed) -> None:
    values, grid = random_values((rows, columns), seed), grid_of((rows, columns))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cube, "CHUNK", chunk)
        path = make(tmp_path_factory.mktemp("cube"), values, grid, layers=ALL, when=WHEN)
    with xarray.open_zarr(f"zip::{path}", mask_and_scale=False, chunks=None) as raw:
        assert (raw["lulc"].values == values[0]).all()
        for name, band in (("confidence", 1), ("novelty", 2), ("valid", 3), ("entropy", 4)):
            assert (raw[name].values == values[band]).all()
        assert (raw["probability"].values == values[5:]).all()
        assert raw["probability"].dims == ("class", "y", "x")
    with xarray.open_zarr(f"zip::{path}", chunks=None) as opened:
        known = values[0] > 0
        np.testing.assert_array_equal(np.isnan(opened["lulc"].values), ~known)
        np.testing.assert_allclose(opened["confidence"].values[known], values[1][known] / 100, atol=1e-6)
        west, north = grid.cell_transform @ (0.5, 0.5)
        assert (opened["x"].values[0], opened["y"].values[0]) == (west, north)
        assert (np.diff(opened["x"].values) == 160).all()


def test_what_readers_know_about_a_cube(tmp_path: Path) -> None:
    values, grid = random_values((5, 7)), grid_of((5, 7))
    path = make(tmp_path, values, grid, layers=ALL, when=WHEN)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = xarray.open_zarr(f"zip::{path}", consolidated=True)
    with opened:
        assert set(opened.data_vars) == {"lulc", "confidence", "entropy", "novelty", "valid", "probability"}
        assert set(opened.coords) == {"x", "y", "time", "spatial_ref", "class", "class_name"}
        assert opened["time"].values == np.datetime64("2022-06-01T08:05:59")
        assert opened.attrs["Conventions"] == "CF-1.11"
        assert opened.attrs["GEOCFL_MODEL"] == "m"
        flags = opened["lulc"].attrs
        assert flags["flag_values"] == [*range(1, 11), 255]
        assert flags["flag_meanings"].split()[:2] == ["annual_crop", "forest"]
        assert [len(flags[f"flag_{what}"].split()) for what in ("meanings", "colors")] == [11, 11]
        assert opened["class_name"].values.tolist() == EUROSAT.names
        assert opened["x"].attrs["standard_name"] == "projection_x_coordinate"
        forest = opened["probability"].sel({"class": 2})
        assert forest.class_name == "Forest"
        for name in ("lulc", "probability"):
            assert opened[name].rio.crs == UTM33
            assert opened[name].rio.transform() == grid.cell_transform
            assert np.isnan(opened[name].rio.encoded_nodata) or opened[name].rio.encoded_nodata in (0, 255)
        assert opened["lulc"].rio.reproject("EPSG:4326").rio.crs == CRS.from_epsg(4326)
    with rasterio.open(f'ZARR:"/vsizip/{path}":/lulc') as dataset:
        assert (dataset.read(1) == values[0]).all()
        assert (dataset.nodata, dataset.crs, dataset.transform) == (0, UTM33, grid.cell_transform)


def test_only_what_is_asked_for_is_in_it(tmp_path: Path) -> None:
    with xarray.open_zarr(f"zip::{make(tmp_path, random_values((5, 7)), grid_of((5, 7)))}") as opened:
        assert set(opened.data_vars) == {"lulc", "confidence"}
        assert set(opened.coords) == {"x", "y", "spatial_ref"}


def test_other_places(tmp_path: Path) -> None:
    degrees = grid_of((5, 7), Affine(0.0001, 0, 13, 0, -0.0001, 46), CRS.from_epsg(4326))
    with xarray.open_zarr(f"zip::{make(tmp_path, random_values((5, 7)), degrees)}") as opened:
        assert opened["x"].attrs["standard_name"] == "longitude"
        assert opened["lulc"].rio.crs == CRS.from_epsg(4326)
    rotated = grid_of((5, 7), PIXEL @ Affine.rotation(30))
    with xarray.open_zarr(f"zip::{make(tmp_path, random_values((5, 7)), rotated)}") as opened:
        assert set(opened.coords) == {"spatial_ref"}
        assert np.allclose(opened["lulc"].rio.transform(), rotated.cell_transform)
    nowhere = grid_of((5, 7), crs=CRS())
    with xarray.open_zarr(f"zip::{make(tmp_path, random_values((5, 7)), nowhere)}") as opened:
        assert opened["lulc"].rio.crs is None
        assert opened["x"].values[0] == 600_080


def test_equal_cubes_are_equal_files_of_chunks(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(cube, "CHUNK", 4)
    made = []
    for name in "ab":
        (tmp_path / name).mkdir()
        made.append(make(tmp_path / name, random_values((5, 7)), grid_of((5, 7))))
    assert made[0].read_bytes() == made[1].read_bytes()
    with zipfile.ZipFile(made[0]) as archive:
        assert {"lulc/0.0", "lulc/0.1", "lulc/1.0", "lulc/1.1"} < set(archive.namelist())
        assert json.loads(archive.read(".zmetadata"))["metadata"]["lulc/.zarray"]["fill_value"] == 0


def test_a_map_has_a_cube(tiny_dense: Path, tmp_path: Path) -> None:
    scene, how = tmp_path / "s.tif", {"model": tiny_dense, "products": ("lulc", "probabilities", "zarr", "stac")}
    numbers = np.random.default_rng(0).integers(200, 2000, (3, 130, 200), dtype=np.uint16)
    profile = {"height": 130, "width": 200, "count": 3, "dtype": "uint16", "crs": UTM33, "transform": PIXEL}
    with rasterio.open(scene, "w", driver="GTiff", **profile) as dataset:
        dataset.write(numbers)
        dataset.descriptions = ("B04", "B03", "B02")
    made = geocfl.map_scene(scene, tmp_path / "maps", datetime="2022-06-01", **how)
    with xarray.open_zarr(f"zip::{made.paths['zarr']}", mask_and_scale=False) as opened:
        assert (opened["lulc"].values == made.lulc).all()
        assert np.allclose(opened["probability"].values.transpose(1, 2, 0) / 100, made.probabilities)
        assert opened["time"].dt.year == 2022
    item = json.loads(made.paths["stac"].read_text())
    assert item["assets"]["zarr"]["href"] == f"./{made.name}_cube.zarr.zip"
    assert geocfl.map_scene(scene, tmp_path / "maps", datetime="2022-06-01", **how).already_done


def test_a_missing_package_is_named(monkeypatch) -> None:
    monkeypatch.setattr("geocfl.products.selection.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs the package zarr; run: pip install zarr"):
        Selection.of(["zarr"])


def test_a_cube_is_read_in_its_store(tmp_path: Path, s3: dict[str, Any]) -> None:  # noqa: F811
    store, values = pytest.importorskip("upath").UPath("s3://cubes", **s3), random_values((5, 7))
    store.fs.mkdir("cubes")
    (store / "S_cube.zarr.zip").write_bytes(make(tmp_path, values, grid_of((5, 7))).read_bytes())
    address, options = "zip::s3://cubes/S_cube.zarr.zip", {"s3": s3}
    with xarray.open_zarr(address, storage_options=options, mask_and_scale=False) as opened:
        assert (opened["lulc"].values == values[0]).all()
