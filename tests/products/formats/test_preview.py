from dataclasses import replace

import numpy as np
import pytest
from affine import Affine
from PIL import Image
from rasterio.crs import CRS

from geocfl.core.grid import CellGrid
from geocfl.core.legend import EUROSAT, Legend
from geocfl.products.about import About
from geocfl.products.formats.preview import write_preview
from geocfl.products.formats.truecolor import stretch


def colors(path):
    """Colors of a picture by the number of their pixels."""
    image = Image.open(path).convert("RGB")
    return {rgb: count for count, rgb in image.getcolors(maxcolors=1 << 24)}, image.size


@pytest.mark.parametrize(
    ("shape", "wide"), [((40, 45), True), ((10, 60), False), ((60, 5), False), ((1, 1), True), ((2, 300), True)]
)
def test_shows_the_classes_of_any_shape(tmp_path, cells_of, grid_of, shape, wide):
    codes = np.full(shape, 2)
    codes[:, : shape[1] // 2] = 9
    scene = stretch(np.random.default_rng(0).random((min(shape[0] * 4, 300), min(shape[1] * 4, 400), 3)))
    write_preview(tmp_path / "S_preview.png", scene, cells_of(codes), grid_of(codes, 16, (3, 5)), EUROSAT, "S $x$")
    found, (width, height) = colors(tmp_path / "S_preview.png")
    assert found[EUROSAT[2].rgb] > 2000
    assert width < 3500
    assert height < 1800
    assert (width > height) == wide or not wide


def test_scene_without_data_and_maps_with_gaps(tmp_path, cells_of, grid_of, codes):
    scene = np.full((20, 30, 3), np.nan)
    write_preview(tmp_path / "S_preview.png", scene, cells_of(codes), grid_of(codes, epsg=4326), EUROSAT, "S")
    found, _ = colors(tmp_path / "S_preview.png")
    assert found[(217, 217, 217)] > 1000  # unclassified
    assert found[(241, 243, 245)] > 100_000  # ground of the scene's panel


def test_many_classes_and_a_rotated_grid(tmp_path, cells_of):
    legend = Legend.from_folders([f"class {i:03}" for i in range(200)])
    codes = (np.arange(20 * 30).reshape(20, 30) % 200) + 1
    turned = Affine.translation(6e5, 5e6) @ Affine.rotation(30) @ Affine.scale(10, -10)
    grid = CellGrid(20 * 8, 30 * 8, 8, 64, turned, CRS.from_epsg(32633))
    write_preview(tmp_path / "S_preview.png", stretch(np.ones((9, 9, 3))), cells_of(codes), grid, legend, "S" * 200)
    assert Image.open(tmp_path / "S_preview.png").height < 1800


def test_bytes_repeat(tmp_path, cells_of, grid_of, codes):
    scene = stretch(np.random.default_rng(0).random((20, 30, 3)))
    for name in ("a.png", "b.png"):
        write_preview(tmp_path / name, scene, cells_of(codes), grid_of(codes), EUROSAT, "S")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_note_stands_below_the_map(tmp_path, cells_of, grid_of, codes):
    scene, cells, grid = stretch(np.ones((9, 9, 3))), cells_of(codes), grid_of(codes)
    for name, note in (("plain", ""), ("noted", "12.0% of this map lies on land unlike anything " + "far away " * 40)):
        write_preview(tmp_path / f"{name}.png", scene, cells, grid, EUROSAT, "S", note)
    plain, noted = (np.array(Image.open(tmp_path / f"{name}.png").convert("L")) for name in ("plain", "noted"))
    extra = noted.shape[0] - plain.shape[0]
    assert 0 < extra < 50
    assert noted.shape[1] == plain.shape[1]
    assert (noted[-30:] < 128).sum() > 100 > (plain[-20:] < 128).sum(), "the note, below the scale bar"
    assert (noted[:, -20:] == 255).all(), "it is shrunk to fit"


def test_a_graticule_lies_over_scene_and_map(tmp_path, cells_of, grid_of):
    codes, scene = np.full((20, 30), 1), np.full((9, 9, 4), 255, np.uint8)
    grid = grid_of(codes)
    nowhere = replace(grid, crs=CRS.from_wkt('LOCAL_CS["somewhere",UNIT["metre",1]]'))  # codespell:ignore metre
    for name, place in (("lines", grid), ("none", nowhere)):
        write_preview(tmp_path / f"{name}.png", scene, cells_of(codes), place, EUROSAT, "S")
    (lines, size), (none, same) = (colors(tmp_path / f"{name}.png") for name in ("lines", "none"))
    assert size == same
    covered = none[EUROSAT[1].rgb] - lines[EUROSAT[1].rgb]
    assert 1000 < covered < 0.1 * none[EUROSAT[1].rgb]


def test_date_and_credit_are_on_the_picture(tmp_path, cells_of, grid_of, codes):
    scene, cells, grid = stretch(np.ones((9, 9, 3))), cells_of(codes), grid_of(codes)
    about = About("Sentinel-2 L2A, 16 April 2019", "Model m, right on 92.4% of 5,400 test patches.", "Less elsewhere.")
    told = replace(about, credit="Contains modified Copernicus Sentinel data 2019.")
    heights = []
    for name, said in (("none", None), ("model", about), ("credit", told)):
        write_preview(tmp_path / f"{name}.png", scene, cells, grid, EUROSAT, "S", about=said)
        heights.append(Image.open(tmp_path / f"{name}.png").height)
    assert heights[0] < heights[1] < heights[2]


def test_warnings_stand_below_the_map_in_full(tmp_path, cells_of, grid_of, codes):
    scene, cells, grid = stretch(np.ones((9, 9, 3))), cells_of(codes), grid_of(codes)
    for name, warnings in (("plain", []), ("one", ["use `scale=1`"]), ("long", ["use `scale=1` " * 30])):
        write_preview(tmp_path / f"{name}.png", scene, cells, grid, EUROSAT, "S", warnings=warnings)
    plain, one, long = (
        np.array(Image.open(tmp_path / f"{name}.png").convert("L")) for name in ("plain", "one", "long")
    )
    assert plain.shape[0] < one.shape[0] < long.shape[0]
    assert plain.shape[1] == one.shape[1] == long.shape[1]
    assert (one[-40:] < 160).sum() > (plain[-40:] < 160).sum() + 100
    assert (long[:, -20:] == 255).all(), "it is wrapped to fit"
