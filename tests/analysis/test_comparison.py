"""Comparison with a map of other classes: hectares of pairs, agreement, other grids, and what is refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.warp import transform_bounds

from geocfl.analysis import comparison
from geocfl.analysis.comparison import compare_maps
from geocfl.errors import DataError, OutputError, UsageError
from tests.analysis.test_change import PIXEL, STRIDE, UTM33, write_map

CROSSWALK = """code,name,class
10,Tree cover,Forest
50,Built-up,Residential;industrial
60,Bare,
"""


def write_other(path: Path, codes, transform: Affine = PIXEL, crs: CRS = UTM33, nodata=0, dtype="uint8") -> Path:
    codes = np.asarray(codes, dtype)
    size = {"height": codes.shape[0], "width": codes.shape[1], "count": 1, "dtype": dtype}
    with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=transform, nodata=nodata, **size) as dataset:
        dataset.write(codes, 1)
    return path


@pytest.fixture
def crosswalk(tmp_path):
    path = tmp_path / "crosswalk.csv"
    path.write_text(CROSSWALK)
    return path


def test_shares_and_agreement(tmp_path, crosswalk, monkeypatch):
    """Each cell of 16 x 16 pixels has known parts of the foreign classes."""
    own = write_map(tmp_path / "A", [[2, 8], [255, 0]])
    other = np.full((2 * STRIDE, 2 * STRIDE), 10)
    other[:STRIDE, STRIDE:] = 50
    other[:STRIDE, STRIDE : STRIDE + 4] = 60  # a quarter of the town
    other[0, :STRIDE] = 77  # a row of the forest
    other[1, :STRIDE] = 0
    monkeypatch.setattr(comparison, "CELLS", 100)
    found = compare_maps(own, write_other(tmp_path / "o.tif", other), crosswalk, out=tmp_path / "t.csv")
    cell, row = STRIDE**2 / 100, STRIDE / 100
    expected = np.zeros((11, 5))
    expected[1] = [cell - 2 * row, 0, 0, row, row]  # forest
    expected[7] = [0, 0.75 * cell, 0.25 * cell, 0, 0]
    expected[10] = [cell, 0, 0, 0, 0]  # unclassified
    assert found.hectares == pytest.approx(expected)
    assert found.agreement == 1.0
    by_class = found.by_class()
    assert by_class.comparable_ha[8] == pytest.approx(0.75 * cell)
    assert by_class.hectares[8] == pytest.approx(cell)
    table = pd.read_csv(tmp_path / "t.csv")
    assert table.hectares.sum() == pytest.approx(3 * cell)
    assert table[table["class"] == "Residential"].share.tolist() == [0.75, 0.25]
    assert "Built-up 75%, Bare 25%" in found.table()
    with pytest.raises(OutputError, match="already exists"):
        compare_maps(own, tmp_path / "o.tif", crosswalk, out=tmp_path / "t.csv")


def test_disagreement_counts(tmp_path, crosswalk):
    own = write_map(tmp_path / "A", [[2, 8, 5, 2]])
    other = write_other(tmp_path / "o.tif", np.repeat([[10, 10, 50, 50]], STRIDE, 0).repeat(STRIDE, 1))
    found = compare_maps(own, other, crosswalk)
    assert found.agreement == pytest.approx(0.5)
    assert found.by_class().agreement[[2, 5, 8]].tolist() == [0.5, 1, 0]
    frame = found.frame()
    assert frame[frame["class"] == "Forest"].agrees.tolist() == [True, False]


def test_in_degrees_and_coarser(tmp_path, crosswalk):
    """A foreign map in degrees, finer and coarser than the cells, over a map of two halves."""
    codes = np.full((40, 40), 2)
    codes[:, 20:] = 8
    own = write_map(tmp_path / "A", codes)
    ground = rasterio.transform.array_bounds(640, 640, PIXEL)
    west, south, east, north = transform_bounds(UTM33, CRS.from_epsg(4326), *ground)
    for count in (1600, 16):
        columns = np.arange(count + 2)
        side = (east - west) / count
        place = Affine(side, 0, west - side, 0, -(north - south) / count, north)
        other = np.broadcast_to(np.where(columns < count / 2 + 1, 10, 50), (count, count + 2))
        found = compare_maps(own, write_other(tmp_path / "o.tif", other, place, CRS.from_epsg(4326)), crosswalk)
        total = 40 * 40 * STRIDE**2 / 100
        assert found.hectares.sum() == pytest.approx(total, rel=0.01)
        assert found.agreement > (0.97 if count == 1600 else 0.9)


@pytest.mark.parametrize("crs", [UTM33, CRS.from_epsg(4326)])
def test_hectares_end_at_the_scene(tmp_path, crosswalk, crs):
    """Cells that reach beyond the scene count with their part in it, also on a foreign map of small cells."""
    own = write_map(tmp_path / "A", np.full((3, 4), 2), cut=11)
    ground = rasterio.transform.array_bounds(3 * STRIDE, 4 * STRIDE, PIXEL)
    west, south, east, north = transform_bounds(UTM33, crs, *ground)
    place = Affine((east - west) / 400, 0, west, 0, -(north - south) / 300, north)
    found = compare_maps(own, write_other(tmp_path / "o.tif", np.full((300, 400), 10), place, crs), crosswalk)
    assert found.hectares.sum() == pytest.approx((3 * STRIDE - 11) * (4 * STRIDE - 11) / 100, rel=0.01)


def test_refusals(tmp_path, crosswalk):
    own = write_map(tmp_path / "A", [[2, 8]])
    good = write_other(tmp_path / "o.tif", np.full((16, 32), 10))
    for text, message in (
        ("code,name\n", "has no column class"),
        ("code,name,class\n", "has no rows"),
        ("code,name,class\n10,a,Forrest\n", "unknown class 'Forrest'; did you mean 'Forest'"),
        ("code,name,class\n10,a,\n10,b,\n", "has code 10 twice"),
        ("code,name,class\n300,a,\n", "code is '300' but must be"),
        ("code,name,class\n-1,a,\n", "code is '-1' but must be"),
    ):
        bad = tmp_path / "bad.csv"
        bad.write_text(text)
        with pytest.raises(DataError, match=message):
            compare_maps(own, good, bad)
    far = write_other(tmp_path / "far.tif", [[10]], PIXEL @ Affine.translation(9999, 0))
    empty = write_other(tmp_path / "empty.tif", np.zeros((16, 32)))
    wide = write_other(tmp_path / "wide.tif", [[10]], dtype="uint16")
    for other, message in (
        (far, "does not overlap"),
        (empty, r"empty\.tif: has no data where"),
        (wide, "has 1 band of uint16, but codes must be one band of bytes"),
        (crosswalk, "not a raster that GDAL reads"),
        (tmp_path / "none.tif", "no such file"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            compare_maps(own, other, crosswalk)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="cannot be read"):
        compare_maps(own, good, tmp_path / "none.csv")
    with pytest.raises(UsageError, match=r"must end in \.csv"):
        compare_maps(own, good, crosswalk, out=tmp_path / "t.txt")


def test_code_zero_may_be_a_class(tmp_path):
    own = write_map(tmp_path / "A", [[10, 2]])
    water = tmp_path / "water.csv"
    water.write_text("code,name,class\n0,Water,Sea Lake\n1,Trees,Forest\n")
    codes = np.repeat([[0, 1]], STRIDE, 0).repeat(STRIDE, 1)
    assert compare_maps(own, write_other(tmp_path / "o.tif", codes, nodata=255), water).agreement == 1
    assert compare_maps(own, write_other(tmp_path / "p.tif", codes, nodata=None), water).agreement == 1
    coarse = write_other(tmp_path / "q.tif", [[0]], PIXEL @ Affine.scale(100), nodata=None)
    with pytest.raises(DataError, match="declares no value of no data"):
        compare_maps(own, coarse, water)
