"""Opening finished maps: grid, legend and files come back, and what is no map is refused in one sentence."""

import shutil
import subprocess

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS

from geocfl.core.grid import CellGrid
from geocfl.core.legend import EUROSAT, Legend, LulcClass
from geocfl.errors import DataError
from geocfl.products.formats.raster import write_confidence, write_lulc
from geocfl.products.scene_map import georeferenced, open_map
from geocfl.products.summary import class_table


@pytest.fixture
def finish(tmp_path, cells_of):
    """Writes class raster, attribute table and confidence with stem S, and says what the map tells of its scene."""

    def write(codes, grid, legend=EUROSAT, *, cut=True):
        tags = {"GEOCFL_STRIDE": str(grid.stride), "GEOCFL_MODEL": "m"}
        if cut:
            tags |= {"GEOCFL_WIDTH": str(grid.width), "GEOCFL_HEIGHT": str(grid.height)}
        write_lulc(cells_of(codes), tmp_path / "S_lulc.tif", grid, legend, tags)
        write_confidence(cells_of(codes), tmp_path / "S_confidence.tif", grid, tags)
        return tmp_path / "S_lulc.tif"

    return write


@pytest.mark.parametrize("stride", [1, 7, 16, 64])
def test_grid_and_legend_come_back(finish, grid_of, codes, stride):
    grid = grid_of(codes, stride, (min(3, stride - 1), min(5, stride - 1)))
    opened = open_map(finish(codes, grid))
    assert (opened.grid.height, opened.grid.width, opened.grid.stride) == (grid.height, grid.width, stride)
    assert opened.grid.transform.almost_equals(grid.transform, 1e-9)
    assert opened.grid.crs == grid.crs
    assert opened.grid.areas().rows == pytest.approx(grid.areas().rows)
    assert opened.grid.areas().columns == pytest.approx(grid.areas().columns)
    assert [(c.code, c.name, c.color) for c in opened.legend] == [(c.code, c.name, c.color) for c in EUROSAT]
    assert opened.paths["confidence"] == opened.path.with_name("S_confidence.tif")
    assert opened.model == "m"


def test_a_map_that_does_not_say_where_its_scene_ends_has_whole_cells(finish, grid_of, codes):
    grid = grid_of(codes, 64, (14, 24))
    opened = open_map(finish(codes, grid, cut=False))
    assert (opened.grid.height, opened.grid.width, opened.grid.stride) == (*codes.shape, 1)
    assert opened.grid.transform == grid.cell_transform


@pytest.mark.integration
def test_a_part_of_a_map_is_not_taken_for_the_whole(tmp_path, finish, grid_of, codes):
    if shutil.which("gdal_translate") is None:
        pytest.skip("gdal_translate is not on PATH")
    whole, part = finish(codes, grid_of(codes, 64, (14, 24))), tmp_path / "P_lulc.tif"
    subprocess.run(["gdal_translate", "-q", "-srcwin", "2", "3", "5", "4", whole, part], check=True)
    with rasterio.open(part) as dataset:
        assert dataset.tags()["GEOCFL_WIDTH"]  # gdal_translate has taken them along
    opened = open_map(part)
    assert (opened.grid.height, opened.grid.width, opened.grid.stride) == (4, 5, 1)
    assert opened.grid.bounds()[0] == 600_000 + 2 * 640
    assert opened.legend.names == EUROSAT.names
    assert "confidence" not in opened.paths


@pytest.mark.parametrize(
    ("pixel", "crs"),
    [
        (Affine(10, 0, 500_000, 0, -10, 6_000_000), CRS.from_epsg(32733)),
        (Affine(8, 6, 600_000, 6, -8, 5_100_000), CRS.from_epsg(32633)),
        (Affine(10, 0, 0, 0, -10, 0), CRS.from_proj4("+proj=laea +lat_0=47 +lon_0=10 +ellps=GRS80 +units=m")),
    ],
    ids=["southern hemisphere", "rotated", "no EPSG code"],
)
def test_any_georeference_comes_back(finish, codes, pixel, crs):
    grid = CellGrid(9 * 16 - 3, 12 * 16, 16, 64, pixel, crs)
    opened = open_map(finish(codes, grid))
    assert opened.grid.transform.almost_equals(pixel, 1e-9)
    assert opened.grid.crs == crs


def test_names_are_text(finish, grid_of):
    names = ['Wald & "Wiese"', "</script>", "Gewässer"]
    legend = Legend(tuple(LulcClass(i + 1, name, "", f"#0{i}0{i}0{i}") for i, name in enumerate(names)))
    codes = np.array([[1, 2], [3, 255]])
    opened = open_map(finish(codes, grid_of(codes), legend))
    assert opened.legend == legend


FOREIGN = (
    '<PAMDataset><PAMRasterBand band="1"><GDALRasterAttributeTable>'
    "<FieldDefn><Name>v</Name><Type>0</Type><Usage>5</Usage></FieldDefn>{}"
    "</GDALRasterAttributeTable></PAMRasterBand></PAMDataset>"
)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (None, r"S_lulc\.tif: has no legend; pass a map made by geocfl, and keep its S_lulc\.tif\.aux\.xml"),
        ("", "has no legend"),
        ("<PAMDataset/>", "has no legend"),
        (FOREIGN.format(""), "not a map's"),
        (FOREIGN.format("<Row><F>11</F></Row>"), "not a map's"),
    ],
)
def test_without_a_legend_it_is_refused(finish, grid_of, codes, table, said):
    path = finish(codes, grid_of(codes))
    beside = path.with_name(path.name + ".aux.xml")
    beside.unlink()
    if table is not None:
        beside.write_text(table)
    with pytest.raises(DataError, match=said) as error:
        open_map(path)
    assert "\n" not in str(error.value)


def test_other_codes_than_a_maps_are_refused(finish, grid_of, codes):
    path = finish(codes, grid_of(codes))
    beside = path.with_name(path.name + ".aux.xml")
    beside.write_text(beside.read_text().replace("<F>1</F>", "<F>11</F>", 1))
    with pytest.raises(DataError, match="not a map's"):
        open_map(path)


def test_what_is_no_map_is_refused(tmp_path):
    profile = {"driver": "GTiff", "height": 2, "width": 2, "count": 1, "transform": Affine(10, 0, 0, 0, -10, 0)}
    with rasterio.open(tmp_path / "float.tif", "w", dtype="float32", crs="EPSG:32633", **profile):
        pass
    with rasterio.open(tmp_path / "nowhere.tif", "w", dtype="uint8", **profile):
        pass
    (tmp_path / "text.tif").write_text("no raster")
    cases = {
        "absent": "no such file",
        "float": "not a class raster",
        "nowhere": "has no legend",
        "text": "not a raster",
    }
    for name, said in cases.items():
        with pytest.raises(DataError, match=rf"{name}\.tif: .*{said}"):
            open_map(tmp_path / f"{name}.tif")


def test_a_map_without_a_place_opens_but_is_not_georeferenced(finish, grid_of, codes):
    path = finish(codes, grid_of(codes))
    with rasterio.open(path) as dataset:
        profile, cells, tags = dataset.profile, dataset.read(), dataset.tags()
    path.unlink()
    with rasterio.open(path, "w", **profile | {"driver": "GTiff", "crs": None}) as dataset:
        dataset.write(cells)
        dataset.update_tags(**tags)
    opened = open_map(path)
    assert opened.crs is None
    np.testing.assert_array_equal(opened.lulc, codes)
    with pytest.raises(DataError, match=r"no coordinate reference system .* -a_srs"):
        georeferenced(path)


def test_a_folder_stands_for_its_only_map(finish, grid_of, codes, tmp_path):
    path = finish(codes, grid_of(codes))
    assert open_map(tmp_path).path == path
    assert open_map(str(tmp_path)).name == "S"
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no map, whose name ends in _lulc\.tif"):
        open_map(tmp_path / "empty")
    shutil.copy(path, tmp_path / "T_lulc.tif")
    with pytest.raises(DataError, match=r"holds 2 maps; pass one of them, such as .*S_lulc\.tif"):
        open_map(tmp_path)


def test_without_a_summary_classes_are_counted_and_the_rest_is_said_to_be_unknown(finish, grid_of, cells_of, codes):
    grid = grid_of(codes, 64, (14, 24))
    opened = open_map(finish(codes, grid))
    assert opened.classes == class_table(cells_of(codes), grid, EUROSAT)
    assert opened.frame().hectares.sum() == pytest.approx(opened.classes["total"]["hectares"])
    assert "Unclassified" in opened.table()
    assert opened.bounds == grid.bounds()
    assert repr(opened).startswith("<SceneMap S: 108 cells of 640 m; in ")
    assert "Forest" in opened._repr_html_()
    with pytest.raises(DataError, match=r"S_summary\.json is not beside it, so its scene, model and settings"):
        _ = opened.summary


def test_without_a_raster_of_confidence_classes_have_none(finish, grid_of, codes):
    path = finish(codes, grid_of(codes))
    path.with_name("S_confidence.tif").unlink()
    opened = open_map(path)
    assert {row["confidence"] for row in opened.classes["classes"]} == {None}
    assert opened.frame().confidence.isna().all()


def test_a_map_on_a_web_server_is_to_be_downloaded() -> None:
    with pytest.raises(DataError, match=r"https://example\.com/S_lulc\.tif: maps are not opened from web servers"):
        open_map("https://example.com/S_lulc.tif")
