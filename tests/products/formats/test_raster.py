import json
import shutil
import subprocess

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rio_cogeo.cogeo import cog_validate

from geocfl.core.legend import EUROSAT, Legend
from geocfl.products.formats.raster import (
    write_confidence,
    write_entropy,
    write_lulc,
    write_novelty,
    write_probabilities,
    write_sets,
    write_valid,
)
from geocfl.products.prediction_sets import pack
from geocfl.products.scratch import MEMBERS, NOVELTY, VALID
from geocfl.products.summary import class_table

TAGS = {"software": "geocfl 1.0", "note": "a < b & c"}


@pytest.fixture
def confidence(codes):
    return np.where(codes == 0, 255, np.arange(codes.size).reshape(codes.shape) % 101)


def test_class_raster_holds_codes_colors_and_georeference(tmp_path, cells_of, grid_of, codes):
    grid, path = grid_of(codes, 16, (3, 5)), tmp_path / "S_lulc.tif"
    write_lulc(cells_of(codes), path, grid, EUROSAT, TAGS)
    with rasterio.open(path) as dataset:
        assert (dataset.read(1) == codes).all()
        assert dataset.dtypes == ("uint8",)
        assert dataset.crs == grid.crs
        assert dataset.transform == grid.cell_transform
        assert dataset.nodata == 0
        assert dataset.colorinterp == (ColorInterp.palette,)
        assert dataset.descriptions == ("land use / land cover",)
        assert dataset.overviews(1) == []
        assert TAGS.items() <= dataset.tags().items()
        table = dataset.colormap(1)
    assert [table[c.code] for c in EUROSAT] == [(*c.rgb, 255) for c in EUROSAT]
    assert table[255] == (217, 217, 217, 255)


def test_confidence_raster_is_scaled_percent(tmp_path, cells_of, grid_of, codes, confidence):
    path = tmp_path / "S_confidence.tif"
    write_confidence(cells_of(codes, confidence), path, grid_of(codes), TAGS)
    with rasterio.open(path) as dataset:
        assert (dataset.read(1) == confidence).all()
        assert dataset.scales == (0.01,)
        assert dataset.nodata == 255
        assert dataset.descriptions == ("confidence",)


def test_probabilities_and_entropy(tmp_path, cells_of, grid_of, codes):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 101, (12, *codes.shape))
    values[:, codes == 0] = 255
    cells, grid = cells_of(codes, *values), grid_of(codes)
    write_probabilities(cells, tmp_path / "S_probabilities.tif", grid, EUROSAT, TAGS)
    write_entropy(cells, tmp_path / "S_entropy.tif", grid, TAGS)
    shares = cells_of(codes, None, values[0], names=[VALID])
    write_valid(shares, tmp_path / "S_valid.tif", grid, TAGS)
    for name, bands, names in (
        ("S_probabilities.tif", values[2:], tuple(EUROSAT.names)),
        ("S_entropy.tif", values[1:2], ("entropy",)),
        ("S_valid.tif", values[:1], ("valid share",)),
    ):
        with rasterio.open(tmp_path / name) as dataset:
            assert (dataset.read() == bands).all()
            assert dataset.descriptions == names
            assert set(dataset.scales) == {0.01}
            assert set(dataset.nodatavals) == {255}
            assert TAGS.items() <= dataset.tags().items()
        assert cog_validate(tmp_path / name, strict=True) == (True, [], [])


def test_novelty_is_percent_without_a_scale(tmp_path, cells_of, grid_of, codes, confidence):
    path = tmp_path / "S_novelty.tif"
    write_novelty(cells_of(codes, None, confidence, names=[NOVELTY]), path, grid_of(codes), TAGS)
    with rasterio.open(path) as dataset:
        assert (dataset.read(1) == confidence).all()
        assert (dataset.dtypes, dataset.scales, dataset.nodata) == (("uint8",), (1.0,), 255)
        assert dataset.descriptions == ("novelty",)
        assert float(dataset.tags(1)["STATISTICS_MAXIMUM"]) == confidence[codes != 0].max()
    assert cog_validate(path, strict=True) == (True, [], [])


@pytest.mark.parametrize("classes", [3, 7, 8, 10, 15, 20, 31])
def test_sets_hold_their_size_and_members(tmp_path, cells_of, grid_of, classes):
    legend = Legend.from_folders([f"class {i:02}" for i in range(classes)])
    rng = np.random.default_rng(classes)
    members = rng.random((9, 12, classes)) < 0.5
    members[0, 0], members[0, 1] = False, True
    codes = rng.integers(1, classes + 1, (9, 12))
    codes[:, 5] = 0
    packed = pack(members.reshape(-1, classes)).reshape(-1, 9, 12)
    packed[:, codes == 0] = 255
    path = tmp_path / "S_sets.tif"
    cells = cells_of(codes, None, *packed, names=[MEMBERS] * len(packed))
    write_sets(cells, path, grid_of(codes), legend, TAGS)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["S_sets.tif", "cells.tif"]
    with rasterio.open(path) as dataset:
        size, mask = dataset.read()
        nodata = np.iinfo(mask.dtype).max
        assert dataset.descriptions == ("size", "members")
        assert dataset.dtypes == (["uint8", "uint16", "uint32"][(classes > 7) + (classes > 15)],) * 2
        assert dataset.nodatavals == (nodata, nodata)
        assert float(dataset.tags(1)["STATISTICS_MAXIMUM"]) == classes
        assert float(dataset.tags(1)["STATISTICS_MEAN"]) == pytest.approx(members[codes != 0].sum(axis=1).mean(), 1e-5)
        names = dataset.tags(2)
        assert {f"BIT_{c.code - 1}": c.name for c in legend}.items() <= names.items()
        assert TAGS.items() <= dataset.tags().items()
    known = codes != 0
    assert (size[known] == members[known].sum(axis=1)).all()
    for code in range(1, classes + 1):
        assert ((mask[known] >> (code - 1) & 1) == members[known][:, code - 1]).all()
    assert (size[~known] == nodata).all()
    assert (mask[~known] == nodata).all()
    assert cog_validate(path, strict=True) == (True, [], [])


def test_sets_are_written_strip_by_strip(tmp_path, cells_of, grid_of, monkeypatch):
    members = np.random.default_rng(0).random((700, 600, 10)) < 0.3
    codes = np.ones((700, 600), np.uint8)
    packed = pack(members.reshape(-1, 10)).reshape(2, 700, 600)
    cells = cells_of(codes, None, *packed, names=[MEMBERS] * 2)
    for name, most in (("a", 1_000_000), ("b", 1)):
        monkeypatch.setattr("geocfl.products.scratch.STRIP_CELLS", most)
        write_sets(cells, tmp_path / f"{name}.tif", grid_of(codes), EUROSAT, TAGS)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert (dataset.read(1) == members.sum(axis=2)).all()
        assert dataset.overviews(1) == [2]


def test_statistics_are_those_of_the_cells_with_data(tmp_path, cells_of, grid_of, codes, confidence):
    cells, grid = cells_of(codes, confidence), grid_of(codes)
    write_lulc(cells, tmp_path / "S_lulc.tif", grid, EUROSAT, {})
    write_confidence(cells, tmp_path / "S_confidence.tif", grid, {})
    for name, band, nodata in (("S_lulc.tif", codes, 0), ("S_confidence.tif", confidence, 255)):
        with rasterio.open(tmp_path / name) as dataset:
            found = {key: float(value) for key, value in dataset.tags(1).items()}
        values = band[band != nodata]
        assert found["STATISTICS_MINIMUM"] == values.min()
        assert found["STATISTICS_MAXIMUM"] == values.max()
        assert found["STATISTICS_MEAN"] == pytest.approx(values.mean(), rel=1e-5)
        assert found["STATISTICS_STDDEV"] == pytest.approx(values.std(), rel=1e-5)
        assert found["STATISTICS_VALID_PERCENT"] == pytest.approx(100 * values.size / band.size, rel=1e-3)


def test_a_map_without_data_has_no_statistics(tmp_path, cells_of, grid_of):
    codes = np.zeros((3, 4))
    write_lulc(cells_of(codes), tmp_path / "S_lulc.tif", grid_of(codes), EUROSAT, {})
    with rasterio.open(tmp_path / "S_lulc.tif") as dataset:
        assert dataset.tags(1) == {}
        assert not dataset.read(1).any()


@pytest.mark.parametrize("epsg", [32633, 4326])
def test_files_are_strictly_cloud_optimized(tmp_path, cells_of, grid_of, epsg):
    rng = np.random.default_rng(0)
    codes = np.kron(rng.integers(0, 11, (75, 70)), np.ones((8, 8)))
    cells, grid = cells_of(codes), grid_of(codes, 8, (3, 5), epsg)
    write_lulc(cells, tmp_path / "S_lulc.tif", grid, EUROSAT, TAGS)
    write_confidence(cells, tmp_path / "S_confidence.tif", grid, TAGS)
    for name in ("S_lulc.tif", "S_confidence.tif"):
        assert cog_validate(tmp_path / name, strict=True) == (True, [], [])
        with rasterio.open(tmp_path / name) as dataset:
            assert dataset.block_shapes == [(512, 512)]
            assert dataset.overviews(1) == [2]
            assert dataset.compression.name == "deflate"
            assert dataset.crs.to_epsg() == epsg
    with rasterio.open(tmp_path / "S_lulc.tif", overview_level=0) as overview:
        assert (overview.read(1) == codes[::2, ::2]).all()


def test_overviews_take_the_mode(tmp_path, cells_of, grid_of):
    codes = np.full((1, 600), 3)
    codes[0, ::2] = 9
    codes = np.repeat(codes, 600, axis=0)
    codes[::2] = 3  # three of each four cells
    write_lulc(cells_of(codes), tmp_path / "S_lulc.tif", grid_of(codes), EUROSAT, {})
    with rasterio.open(tmp_path / "S_lulc.tif", overview_level=0) as overview:
        assert (overview.read(1) == 3).all()


@pytest.mark.parametrize("strip", [1, 1_000_000])
def test_no_data_keeps_its_share_in_overviews(tmp_path, cells_of, grid_of, monkeypatch, strip):
    monkeypatch.setattr("geocfl.products.formats.overviews.STRIP_CELLS", strip)
    rng = np.random.default_rng(0)
    codes = rng.integers(1, 4, (601, 1201))
    holes = rng.random(codes.shape) < 0.4  # small ones, which GDAL would fill
    codes[holes] = 0
    cells, grid = cells_of(codes), grid_of(codes)
    write_lulc(cells, tmp_path / "S_lulc.tif", grid, EUROSAT, TAGS)
    write_confidence(cells, tmp_path / "S_confidence.tif", grid, TAGS)
    for name, nodata in (("S_lulc.tif", 0), ("S_confidence.tif", 255)):
        assert cog_validate(tmp_path / name, strict=True) == (True, [], [])
        for level, factor in enumerate((2, 4)):
            with rasterio.open(tmp_path / name, overview_level=level) as overview:
                values = overview.read(1)
            assert values.shape == (601 // factor, 1201 // factor)
            rows, columns = (np.arange(n) * size // n for n, size in zip(values.shape, codes.shape, strict=True))
            assert ((values == nodata) == holes[np.ix_(rows, columns)]).all()
            assert (values == nodata).mean() == pytest.approx(0.4, abs=0.01)
    assert sorted(path.name for path in tmp_path.glob("*over*")) == []


def test_bytes_repeat_and_no_file_is_left_over(tmp_path, cells_of, grid_of, codes):
    cells, grid = cells_of(codes), grid_of(codes)
    written = []
    for run in ("a", "b"):
        folder = tmp_path / run
        folder.mkdir()
        write_lulc(cells, folder / "S_lulc.tif", grid, EUROSAT, TAGS)
        write_confidence(cells, folder / "S_confidence.tif", grid, dict(reversed(TAGS.items())))
        written.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert written[0] == written[1]
    assert sorted(written[0]) == ["S_confidence.tif", "S_lulc.tif", "S_lulc.tif.aux.xml"]


def test_refuses_cells_of_another_grid(tmp_path, cells_of, grid_of, codes):
    with pytest.raises(ValueError, match="9 x 12 cells"):
        write_lulc(cells_of(codes), tmp_path / "S_lulc.tif", grid_of(codes[1:]), EUROSAT, {})


@pytest.mark.integration
def test_gdal_reads_names_and_attribute_table(tmp_path, cells_of, grid_of, codes):
    if shutil.which("gdalinfo") is None:
        pytest.skip("gdalinfo is not on PATH")
    cells, grid, path = cells_of(codes), grid_of(codes, 16, (3, 5)), tmp_path / "S_lulc.tif"
    write_lulc(cells, path, grid, EUROSAT, TAGS)

    said = subprocess.run(["gdalinfo", path], check=True, capture_output=True, text=True).stdout
    assert said.index("0: No data") < said.index("1: Annual Crop") < said.index("10: Sea Lake")

    info = json.loads(subprocess.run(["gdalinfo", "-json", path], check=True, capture_output=True, text=True).stdout)
    rat = info["rat"]
    assert rat["tableType"] == "thematic"
    assert [field["name"] for field in rat["fieldDefn"]] == [
        "Value",
        "Class",
        "Red",
        "Green",
        "Blue",
        "Count",
        "Area_ha",
    ]
    table = class_table(cells, grid, EUROSAT)
    for row, c, cover in zip(rat["row"], EUROSAT, table["classes"], strict=False):
        assert row["f"] == [c.code, c.name, *c.rgb, cover["cells"], pytest.approx(cover["hectares"], abs=1e-6)]
    assert rat["row"][10]["f"][:2] == [255, "Unclassified"]
