"""The scene's picture."""

import shutil
import subprocess

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rio_cogeo.cogeo import cog_validate

from geocfl.products.formats import truecolor
from geocfl.products.formats.truecolor import stretch, write_truecolor


def test_stretch_spans_the_middle_and_leaves_no_data_out():
    rgb = np.full((50, 40, 3), np.nan)
    ramp = np.linspace(0, 0.3, 40)
    rgb[:, :, 0], rgb[:, :, 1], rgb[:, :, 2] = ramp, ramp[::-1], 0.1
    rgb[0] = np.nan
    picture = stretch(rgb)
    assert picture.shape == (50, 40, 4)
    assert (picture[0] == 0).all()
    assert (picture[1:, :, 3] == 255).all()
    assert (np.diff(picture[1, :, 0].astype(int)) >= 0).all()
    assert picture[1, 0, 0] == 0
    assert 235 <= picture[1, -1, 0] <= 255
    assert (picture[1, :, 2] == picture[1, 0, 2]).all()


def test_bright_pixels_keep_their_differences():
    rgb = np.random.default_rng(0).uniform(0.02, 0.2, (200, 200, 3))
    rgb[0, :4] = np.array([[0.21], [0.25], [0.3], [0.4]])  # a hundredth of a percent of the pixels
    picture = stretch(rgb)
    shown = picture[0, :4, 0].astype(int)
    assert (np.diff(shown) > 0).all()
    assert shown[0] > 0.9 * 255
    land = picture[1:, :, :3]
    assert (land == 255).mean() < 0.001
    assert (land == 0).mean() < 0.01


@pytest.mark.parametrize("share", [0.0, 0.02, 0.1])
def test_scenes_with_bright_parts_are_not_dark(share):
    rgb = np.random.default_rng(0).uniform(0.02, 0.1, (100, 100, 3))
    rgb.reshape(-1, 3)[: int(share * 10_000)] = 0.4
    assert 80 < np.median(stretch(rgb)[..., :3]) < 150


def test_stretch_is_the_same_in_pieces(monkeypatch):
    rgb = np.random.default_rng(0).random((70, 30, 3))
    whole = stretch(rgb)
    monkeypatch.setattr(truecolor, "ROWS", 7)
    assert (stretch(rgb) == whole).all()


def test_a_scene_without_data_is_transparent():
    assert not stretch(np.full((3, 4, 3), np.nan)).any()


def test_raster_lies_where_the_scene_does(tmp_path, grid_of, codes):
    grid = grid_of(codes, 64, (3, 5))
    rng = np.random.default_rng(0)
    rgb = np.kron(rng.random((12, 16, 3)), np.ones((16, 16, 1)))[: -(-grid.height // 3), : -(-grid.width // 3)]
    rgb[:40, :50] = np.nan
    picture, path = stretch(rgb), tmp_path / "S_truecolor.tif"
    write_truecolor(path, picture, grid, {"note": "a < b"})
    assert cog_validate(path, strict=True)[0]
    assert [p.name for p in tmp_path.iterdir()] == ["S_truecolor.tif"]
    with rasterio.open(path) as dataset:
        assert dataset.count == 3
        assert dataset.colorinterp == (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        assert MaskFlags.per_dataset in dataset.mask_flag_enums[0]
        assert dataset.tags()["note"] == "a < b"
        assert dataset.crs == grid.crs
        assert dataset.transform.a == 30
        west, south, east, north = grid.bounds()
        assert dataset.bounds.left == west
        assert dataset.bounds.top == north
        assert east <= dataset.bounds.right < east + 30
        assert south - 30 < dataset.bounds.bottom <= south
        assert ((dataset.dataset_mask() > 0) == (picture[..., 3] > 0)).all()
        shown = dataset.read().transpose(1, 2, 0).astype(int)
    valid = picture[..., 3] > 0
    assert np.abs(shown - picture[..., :3])[valid].mean() < 8  # JPEG


@pytest.mark.integration
def test_gdalinfo_reads_it(tmp_path, grid_of, codes):
    if shutil.which("gdalinfo") is None:
        pytest.skip("gdalinfo is not on PATH")
    path = tmp_path / "S_truecolor.tif"
    write_truecolor(path, stretch(np.random.default_rng(0).random((64, 64, 3))), grid_of(codes), {})
    done = subprocess.run(["gdalinfo", path], check=True, capture_output=True, text=True)
    assert "COMPRESSION=YCbCr JPEG" in done.stdout
    assert "Warning" not in done.stdout + done.stderr
