"""The valid share of cells, against shares counted window by window."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS

import geocfl
from geocfl.core.grid import CellGrid
from geocfl.core.windows import mirror
from geocfl.mapping.strips import Strip
from geocfl.mapping.valid import valid_shares
from geocfl.models.bundle import Bundle

PLACE = {"crs": "EPSG:32633", "transform": Affine(10, 0, 3e5, 0, -10, 5e6)}


@given(
    seed=st.integers(0, 10**6),
    size=st.tuples(st.integers(8, 40), st.integers(8, 40)),
    stride=st.integers(1, 8),
    context=st.sampled_from([0, 4]),
    first=st.integers(0, 9),
    count=st.integers(1, 9),
    holes=st.sampled_from([0.0, 0.3, 0.9]),
)
def test_shares_are_those_of_the_windows_in_the_scene(seed, size, stride, context, first, count, holes) -> None:
    known = np.random.default_rng(seed).random(size) >= holes
    grid = CellGrid(*size, stride, 8, Affine.identity(), CRS.from_epsg(32633), context)
    first %= grid.rows
    count = min(count, grid.rows - first)
    start, columns = first * stride - grid.margin, (grid.columns - 1) * stride - grid.margin + grid.footprint
    rows = mirror(start, start + (count - 1) * stride + grid.footprint, size[0])
    pixels = np.where(known, 0.1, np.nan).astype(np.float32)[rows][:, mirror(-grid.margin, columns, size[1])][None]
    cells = np.ones((count, grid.columns), bool)
    shares = valid_shares(Strip(first, pixels, pixels, cells, cells, ~cells), grid)
    for (row, column), share in np.ndenumerate(shares):
        top, left = ((n * stride + (stride - 8) // 2) for n in (first + row, column))
        window = known[max(top, 0) : max(top + 8, 0), max(left, 0) : max(left + 8, 0)]
        assert share == max(1, round(100 * window.sum() / 64)), (row, column)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """3 x 4 cells of 64 px, cut to 180 x 250 px, with 16 columns without data in the second cell of the first row."""
    dn = np.random.default_rng(0).integers(300, 2000, (3, 180, 250)).astype(np.uint16)
    dn[:, :64, 64:80] = 0
    profile = {"driver": "GTiff", "count": 3, "dtype": "uint16", "nodata": 0, "height": 180, "width": 250, **PLACE}
    with rasterio.open(tmp_path / "s.tif", "w", **profile) as dataset:
        dataset.write(dn)
        dataset.descriptions = ("B04", "B03", "B02")
    return tmp_path / "s.tif"


def test_a_map_has_the_shares_by_hand(tmp_path: Path, scene: Path, tiny_model: Path) -> None:
    mask = np.zeros((1, 180, 250), np.uint8)
    mask[:, 64:96, :64] = 1  # half of the first cell of the second row
    with rasterio.open(tmp_path / "mask.tif", "w", driver="GTiff", count=1, dtype="uint8", height=180, width=250,
                       **PLACE) as dataset:  # fmt: skip
        dataset.write(mask)
    options = {"model": tiny_model, "mask": tmp_path / "mask.tif", "mask_classes": (1,)}
    made = geocfl.map_scene(scene, tmp_path / "out", products=("lulc", "valid"), **options)
    # The last row has 52 of 64 px and the last column 58: 81.25%, 90.625% and 73.6%.
    assert (100 * made.valid).round().tolist() == [[100, 75, 100, 91], [50, 100, 100, 91], [81, 81, 81, 74]]
    with rasterio.open(made.paths["valid"]) as dataset:
        assert (dataset.dtypes, dataset.nodata, dataset.scales) == (("uint8",), 255, (0.01,))
    plain = geocfl.map_scene(scene, tmp_path / "plain", products=("lulc",), **options)
    assert made.path.read_bytes() == plain.path.read_bytes()
    assert made.summary["cells"] == plain.summary["cells"], "the product decides no cell"


@pytest.mark.parametrize("more", [{"stride": 32}, {"stride": 16, "smooth": True}, {"stride": 32, "interpolate": True}])
def test_every_cell_with_data_has_a_share_and_an_addition_equals_a_new_map(
    more: dict, tmp_path: Path, scene: Path, tiny_model: Path
) -> None:
    options = {"model": tiny_model, **more}
    whole = geocfl.map_scene(scene, tmp_path / "whole", products=("lulc", "valid"), **options)
    with rasterio.open(scene) as dataset:
        known = dataset.read(1) > 0
    grid = replace(whole.grid, window=64)
    for (row, column), share in np.ndenumerate(whole.valid):
        top, left = ((n * grid.stride + (grid.stride - 64) // 2) for n in (row, column))
        window = known[max(top, 0) : top + 64, max(left, 0) : left + 64]
        assert share == pytest.approx(window.sum() / 64**2, abs=0.0051) if whole.lulc[row, column] else np.isnan(share)
    geocfl.map_scene(scene, tmp_path / "added", products=("lulc",), **options)
    added = geocfl.map_scene(scene, tmp_path / "added", products=("valid",), **options)
    for name in ("lulc", "valid", "valid_style"):
        assert added.paths[name].read_bytes() == whole.paths[name].read_bytes()


def test_fused_maps_are_as_sure_as_their_model_says(tmp_path: Path, scene: Path, tiny_model: Path) -> None:
    products = ("lulc", "confidence", "probabilities", "valid")
    for name, correlation in (("alike", 1.0), ("alone", 0.0)):
        model = replace(Bundle.load(tiny_model), correlation=correlation)
        shutil.copytree(tiny_model, tmp_path / name / "model")
        model.write_facts(tmp_path / name / "model")
        maps = [
            geocfl.map_scene(scene, tmp_path / name / date, model=tmp_path / name / "model", products=products)
            for date in ("earlier", "later")
        ]
        assert maps[0].summary["model"]["correlation"] == correlation
        geocfl.mosaic(maps, tmp_path / name / "X_lulc.tif", overlap="fuse")
        fused = geocfl.open_map(tmp_path / name / "X_lulc.tif")
        assert [part["correlation"] for part in fused.summary["maps"]] == [correlation] * 2
        logs = np.log(np.maximum(maps[0].probabilities, 0.001)) * (1 if correlation else 2)
        expected = np.exp(logs).max(axis=2) / np.exp(logs).sum(axis=2)
        np.testing.assert_allclose(fused.confidence, expected, atol=0.0051)
