"""Windows of strips against the definition, pixel by pixel with numpy's own padding."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geocfl.grid import CellGrid
from geocfl.mapping import strips
from geocfl.mapping.strips import has_data, mirror, read_strips
from geocfl.scene import open_scene

TRANSFORM = Affine(10, 0, 3e5, 0, -10, 5e6)


def write_scene(path: Path, dn: np.ndarray) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", height=dn.shape[1], width=dn.shape[2], count=len(dn), dtype=dn.dtype,
        crs="EPSG:32633", transform=TRANSFORM, nodata=0,
    ) as dataset:  # fmt: skip
        dataset.write(dn)
        dataset.descriptions = ("B04", "B03")[: len(dn)]
    return path


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    height=st.integers(64, 200),
    width=st.integers(64, 200),
    stride=st.integers(1, 64),
    budget=st.sampled_from([1, 30_000, 10**9]),
    seed=st.integers(0, 99),
)
def test_windows_are_those_of_the_definition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, height: int, width: int, stride: int, budget: int, seed: int
) -> None:
    monkeypatch.setattr(strips, "STRIP_PIXELS", budget)
    dn = np.random.default_rng(seed).integers(0, 4, (2, height, width), dtype=np.uint16)
    grid = CellGrid(height, width, stride, 64, TRANSFORM, None)
    padded = np.pad(dn, ((0, 0), (63, 63), (63, 63)), mode="reflect")
    has_value = (dn != 0).all(axis=0)
    rows = 0
    with open_scene(write_scene(tmp_path / "s.tif", dn)) as scene:
        for strip in read_strips(scene, ("B04", "B03"), grid):
            assert strip.first == rows
            for k in {0, len(strip.windows) - 1}:
                i = rows + k
                for j in {0, grid.columns // 2, grid.columns - 1}:
                    y, x = i * stride + (stride - 64) // 2 + 63, j * stride + (stride - 64) // 2 + 63
                    expected = padded[:, y : y + 64, x : x + 64]
                    got = strip.windows[k, j]
                    known = (expected != 0).all(axis=0)
                    assert np.isnan(got[:, ~known]).all()
                    np.testing.assert_allclose(got[:, known], expected[:, known] / 10_000, rtol=1e-6)
                    cell = has_value[i * stride : (i + 1) * stride, j * stride : (j + 1) * stride]
                    assert strip.valid[k, j] == (cell.mean() >= 0.5)
            start, stop = rows * stride, min(height, (rows + len(strip.windows)) * stride)
            assert strip.inside.shape == (2, stop - start, width)
            rows += len(strip.windows)
    assert rows == grid.rows


def test_windows_copy_nothing(tmp_path: Path) -> None:
    dn = np.ones((1, 128, 128), np.uint16)
    with open_scene(write_scene(tmp_path / "s.tif", dn)) as scene:
        strip = next(read_strips(scene, ("B04",), CellGrid(128, 128, 1, 64, TRANSFORM, None)))
    assert strip.windows.shape == (128, 128, 1, 64, 64)
    assert strip.windows.base is not None
    assert not strip.windows.flags.owndata


@given(st.integers(2, 50), st.data())
def test_mirror_is_numpys_reflect(size: int, data: st.DataObject) -> None:
    before, after = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size - 1))
    expected = np.pad(np.arange(size), (before, after), mode="reflect")
    np.testing.assert_array_equal(mirror(-before, size + after, size), expected)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 20), st.integers(0, 99))
def test_a_cell_is_no_data_when_more_than_half_of_it_is(height: int, width: int, stride: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < 0.5
    got = has_data(mask, stride)
    for i in range(got.shape[0]):
        for j in range(got.shape[1]):
            cell = mask[i * stride : (i + 1) * stride, j * stride : (j + 1) * stride]
            assert got[i, j] == (not (~cell).sum() > cell.size / 2)
