"""Windows of strips against the definition, pixel by pixel with numpy's own padding."""

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geocfl.core.grid import CellGrid
from geocfl.core.windows import cut
from geocfl.mapping.strips import scene_strips
from geocfl.scenes import open_scene
from tests.noise import write_pixels

TRANSFORM = Affine(10, 0, 3e5, 0, -10, 5e6)


def write_scene(path: Path, dn: np.ndarray, tiled: bool = False) -> Path:
    form = {"tiled": True, "blockxsize": 32, "blockysize": 32} if tiled else {}
    return write_pixels(path, dn, ("B04", "B03")[: len(dn)], nodata=0, **form)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    height=st.integers(64, 200),
    width=st.integers(64, 200),
    stride=st.integers(1, 64),
    cell_rows=st.sampled_from([1, 2, 5, 1000]),
    skipped=st.integers(0, 3),
    tiled=st.booleans(),
    seed=st.integers(0, 99),
)
def test_windows_are_those_of_the_definition(
    tmp_path: Path, height: int, width: int, stride: int, cell_rows: int, skipped: int, tiled: bool, seed: int
) -> None:
    dn = np.random.default_rng(seed).integers(0, 4, (2, height, width), dtype=np.uint16)
    grid = CellGrid(height, width, stride, 64, TRANSFORM, None)
    padded = np.pad(dn, ((0, 0), (63, 63), (63, 63)), mode="reflect")
    has_value = (dn != 0).all(axis=0)
    row = min(skipped, -(-grid.rows // cell_rows) - 1) * cell_rows
    with open_scene(write_scene(tmp_path / "s.tif", dn, tiled)) as scene:
        for strip in scene_strips(scene, ("B04", "B03"), grid, cell_rows, row):
            assert strip.first == row
            assert len(strip.valid) == min(cell_rows, grid.rows - row)
            for k in {0, len(strip.valid) - 1}:
                i = row + k
                columns = np.array([0, grid.columns // 2, grid.columns - 1])
                windows = cut(strip.pixels, 64, np.full(3, k * stride), columns * stride)
                assert windows.shape == (3, 2, 64, 64)
                for j, got in zip(columns, windows, strict=True):
                    y, x = i * stride + (stride - 64) // 2 + 63, j * stride + (stride - 64) // 2 + 63
                    expected = padded[:, y : y + 64, x : x + 64]
                    known = (expected != 0).all(axis=0)
                    assert np.isnan(got[:, ~known]).all()
                    np.testing.assert_allclose(got[:, known], expected[:, known] / 10_000, rtol=1e-6)
                    cell = has_value[i * stride : (i + 1) * stride, j * stride : (j + 1) * stride]
                    assert strip.valid[k, j] == (cell.mean() >= 0.5)
            start, stop = row * stride, min(height, (row + len(strip.valid)) * stride)
            assert strip.inside.shape == (2, stop - start, width)
            row += len(strip.valid)
    assert row == grid.rows


@pytest.mark.parametrize("stride", [1, 7, 16, 40, 64])
@pytest.mark.parametrize(("cell_rows", "tiled"), [(1, True), (3, True), (20, True), (3, False), (1000, False)])
def test_no_pixel_is_read_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stride: int, cell_rows: int, tiled: bool
) -> None:
    dn = np.ones((1, 150, 100), np.uint16)
    times = np.zeros(150, int)
    with open_scene(write_scene(tmp_path / "s.tif", dn, tiled)) as scene:
        read = scene.read

        def counting(bands, start, stop, out=None):
            times[start:stop] += 1
            whole = stop % scene.block_rows == 0 or stop == 150
            assert whole or scene.block_rows > cell_rows * stride
            return read(bands, start, stop, out)

        monkeypatch.setattr(scene, "read", counting)
        for _ in scene_strips(scene, ("B04",), CellGrid(150, 100, stride, 64, TRANSFORM, None), cell_rows):
            pass
    assert (times == 1).all()
