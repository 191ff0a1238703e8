"""Many maps into one: what wins, what stays exact, where other projections land, and what is refused."""

import json
import logging
import os
import shutil
import subprocess
import tracemalloc
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rio_cogeo.cogeo import cog_validate
from shapely import Point, Polygon, box
from shapely.affinity import translate

from geocfl.analysis import mosaic_raster, mosaic_regions, mosaic_virtual
from geocfl.analysis.mosaic import mosaic
from geocfl.analysis.regions import Regions
from geocfl.analysis.zonal import stats
from geocfl.core.grid import CellGrid
from geocfl.core.legend import EUROSAT, Legend, LulcClass
from geocfl.errors import DataError, OutputError, UsageError
from geocfl.products import staging
from geocfl.products.formats.raster import write_confidence, write_lulc
from geocfl.products.formats.vector_formats import VECTOR_FORMATS
from geocfl.products.scene_map import open_map
from geocfl.products.scratch import write_header

UTM33 = CRS.from_epsg(32633)
PIXEL = Affine(10, 0, 600_000, 0, -10, 5_100_000)


def write_map(
    path: Path,
    codes: np.ndarray,
    confidence: np.ndarray | int = 50,
    *,
    pixel: Affine = PIXEL,
    crs: CRS = UTM33,
    stride: int = 16,
    cut: int = 0,
    legend: Legend = EUROSAT,
) -> Path:
    """A finished map ``<path>_lulc.tif`` with its confidence; its last row and column reach `cut` pixels too far."""
    codes = np.asarray(codes, np.uint8)
    confidence = np.where(codes == 0, 255, np.broadcast_to(confidence, codes.shape)).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = path.with_name(f"{path.name}-cells")
    write_header(cells, *codes.shape)
    cells.write_bytes(np.stack([codes, confidence], axis=1).tobytes())
    grid = CellGrid(codes.shape[0] * stride - cut, codes.shape[1] * stride - cut, stride, 64, pixel, crs)
    tags = {"GEOCFL_STRIDE": str(stride), "GEOCFL_WIDTH": str(grid.width), "GEOCFL_HEIGHT": str(grid.height)}
    tags["GEOCFL_MODEL"] = "m"
    lulc = path.with_name(f"{path.name}_lulc.tif")
    write_lulc(cells, lulc, grid, legend, tags)
    write_confidence(cells, path.with_name(f"{path.name}_confidence.tif"), grid, tags)
    cells.unlink()
    Path(f"{cells}.hdr").unlink()
    return lulc


def moved(columns: float, rows: float, stride: int = 16) -> Affine:
    """The usual place, so many cells further to the right and down."""
    return PIXEL @ Affine.translation(columns * stride, rows * stride)


def write_mosaic(maps: list[Path], out: Path, **options) -> list[Path]:
    """The files of a mosaic."""
    return mosaic(maps, out, **options).paths


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def confidence_of(lulc: Path) -> Path:
    return lulc.with_name(lulc.name.replace("_lulc", "_confidence"))


def test_the_more_confident_wins_and_the_rest_is_copied(tmp_path):
    a = write_map(tmp_path / "A", [[1, 1, 1, 0], [1, 1, 255, 1]], [[90, 40, 50, 0], [80, 60, 30, 70]])
    b = write_map(tmp_path / "B", [[2, 2, 2], [2, 0, 255]], [[40, 51, 50], [60, 0, 99]], pixel=moved(1, 0))
    files = write_mosaic([a, b], tmp_path / "X_lulc.tif")
    assert [file.name for file in files] == [
        "X_lulc.tif",
        "X_lulc.tif.aux.xml",
        "X_lulc.qml",
        "X_confidence.tif",
        "X_confidence.qml",
        "X_summary.json",
    ]
    # Column 1: a tie goes to the map named first, then a lower one loses; column 2: 51 beats 50; no data never wins.
    assert read(files[0]).tolist() == [[1, 1, 2, 2], [1, 1, 255, 255]]
    assert read(files[3]).tolist() == [[90, 40, 51, 50], [80, 60, 30, 99]]
    assert read(write_mosaic([b, a], tmp_path / "Y_lulc.tif")[0]).tolist() == [[1, 2, 2, 2], [1, 2, 255, 255]]


@pytest.mark.integration
def test_it_is_a_map(tmp_path):
    """Opened again, and by another program, it says what a map says."""
    a = write_map(tmp_path / "A", np.full((3, 4), 2), cut=5)
    b = write_map(tmp_path / "B", np.full((3, 4), 9), pixel=moved(6, -5), cut=5)
    files = write_mosaic([a, b], tmp_path / "X_lulc.tif")
    opened = open_map(files[0])
    assert (opened.grid.rows, opened.grid.columns, opened.grid.stride) == (8, 10, 1)
    assert opened.grid.transform == Affine(160, 0, 600_000, 0, -160, 5_100_800)
    assert opened.legend.names == EUROSAT.names
    assert opened.paths["confidence"] == files[3]
    assert opened.model == "m"
    for name in (files[0], files[3]):
        assert cog_validate(name, strict=True) == (True, [], [])
    with rasterio.open(files[0]) as dataset:
        assert dataset.nodata == 0
        assert dataset.tags()["GEOCFL_SOURCE"] == "A_lulc.tif, B_lulc.tif"
        assert dataset.colormap(1)[9] == (*EUROSAT[9].rgb, 255)
    if shutil.which("gdalinfo") is None:
        pytest.skip("gdalinfo is not on PATH")
    said = json.loads(
        subprocess.run(["gdalinfo", "-json", files[0]], check=True, capture_output=True, text=True).stdout
    )
    counts = {row["f"][1]: row["f"][5] for row in said["rat"]["row"]}
    assert (counts["Forest"], counts["River"]) == (12, 12)
    assert said["rat"]["row"][1]["f"][6] == pytest.approx(12 * 2.56)  # whole cells, though the scenes had cut some


@given(data=st.data(), strip=st.sampled_from([1, 40, 1_000_000]))
@settings(max_examples=25)
def test_aligned_maps_are_as_an_array_would_have_them(tmp_path_factory, data, strip):
    folder = tmp_path_factory.mktemp("mosaic")
    maps, placed = [], []
    for index in range(data.draw(st.integers(1, 4))):
        rows, columns = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
        left, top = data.draw(st.tuples(st.integers(-6, 6), st.integers(-6, 6)))
        values = st.lists(st.integers(0, 100), min_size=rows * columns, max_size=rows * columns)
        codes = np.array(data.draw(values)).reshape(rows, columns) % 11
        sure = np.array(data.draw(values)).reshape(rows, columns)
        maps.append(
            write_map(folder / f"M{index}", codes, sure, pixel=moved(left, top), cut=data.draw(st.integers(0, 15)))
        )
        placed.append((left, top, codes, sure))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mosaic_raster, "PASTED_CELLS", strip)
        files = write_mosaic(maps, folder / "X_lulc.tif")
    left, top = min(p[0] for p in placed), min(p[1] for p in placed)
    expected = np.zeros((20, 20), int)
    best = np.full((20, 20), -1)
    for x, y, codes, sure in placed:
        for (row, column), code in np.ndenumerate(codes):
            there = (y - top + row, x - left + column)
            if code and sure[row, column] > best[there]:
                expected[there], best[there] = code, sure[row, column]
    got = read(files[0])
    assert (got == expected[: got.shape[0], : got.shape[1]]).all()
    assert (np.where(got, read(files[3]).astype(int), -1) == best[: got.shape[0], : got.shape[1]]).all()
    assert not expected[got.shape[0] :].any()
    assert not expected[:, got.shape[1] :].any()


def test_bytes_repeat(tmp_path):
    written = []
    for name in ("one", "two"):
        a = write_map(tmp_path / name / "A", [[1, 2]])
        b = write_map(tmp_path / name / "B", [[3, 4]], pixel=moved(1.5, 0.25))
        written.append([file.read_bytes() for file in write_mosaic([a, b], tmp_path / name / "X_lulc.tif")])
        written[-1] += [file.read_bytes() for file in write_mosaic([a, b], tmp_path / name / "V_lulc.vrt")]
    assert written[0] == written[1]
    assert not list(tmp_path.glob("*/.*"))


def test_finer_maps_keep_their_detail(tmp_path):
    coarse = write_map(tmp_path / "A", [[1, 2]], 90, stride=64)
    fine = write_map(tmp_path / "B", np.arange(3, 11).reshape(2, 4), 80, pixel=moved(4, 2), stride=16)
    files = write_mosaic([coarse, fine], tmp_path / "X_lulc.tif")
    expected = np.repeat([[1, 1, 1, 1, 2, 2, 2, 2]], 4, axis=0)
    assert read(files[0]).tolist() == expected.tolist()
    files = write_mosaic([fine, coarse], tmp_path / "Y_lulc.tif")
    assert open_map(files[0]).grid.transform.a == 160
    write_map(tmp_path / "B", np.arange(3, 11).reshape(2, 4), 95, pixel=moved(4, 2), stride=16)
    expected[2:, 4:] = np.arange(3, 11).reshape(2, 4)
    assert read(write_mosaic([coarse, fine], tmp_path / "Z_lulc.tif")[0]).tolist() == expected.tolist()


def nearest(maps: list[Path], files: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """The mosaic's codes, and those that the maps have at its cells' centers by pyproj, the more confident first.

    A cell whose center lies on a border of cells, within a thousandth, is left out: either is right there.
    """
    with rasterio.open(files[0]) as dataset:
        got, transform, crs = dataset.read(1), dataset.transform, dataset.crs
    columns, rows = np.meshgrid(np.arange(got.shape[1]) + 0.5, np.arange(got.shape[0]) + 0.5)
    x, y = transform @ (columns, rows)
    expected, best = np.zeros(got.shape, int), np.full(got.shape, -1)
    sharp = np.ones(got.shape, bool)
    for path in maps:
        with rasterio.open(path) as dataset, rasterio.open(confidence_of(path)) as sure:
            to_map = pyproj.Transformer.from_crs(crs.to_wkt(), dataset.crs.to_wkt(), always_xy=True)
            column, row = ~dataset.transform @ to_map.transform(x, y)
            inside = (column >= 0) & (row >= 0) & (column < dataset.width) & (row < dataset.height)
            near = np.minimum(np.abs(column - np.rint(column)), np.abs(row - np.rint(row))) < 2e-3
            sharp &= ~(near & (np.abs(column) < 1e4))
            there = row[inside].astype(int), column[inside].astype(int)
            codes, values = dataset.read(1)[there], sure.read(1)[there].astype(int)
        wins = (codes > 0) & (values > best[inside])
        expected[inside], best[inside] = np.where(wins, codes, expected[inside]), np.where(wins, values, best[inside])
    return got[sharp], expected[sharp]


def noise(seed: int, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 11, (rows, columns)), rng.integers(0, 101, (rows, columns))


def test_neighboring_utm_zones_become_one(tmp_path):
    """The second scene lies across the border of zones 33 and 34, given in the other zone."""
    a = write_map(tmp_path / "A", *noise(0, 40, 50), pixel=Affine(10, 0, 728_000, 0, -10, 5_100_000))
    b = write_map(
        tmp_path / "B", *noise(1, 40, 50), pixel=Affine(10, 0, 268_000, 0, -10, 5_100_000), crs=CRS.from_epsg(32634)
    )
    files = write_mosaic([a, b], tmp_path / "X_lulc.tif")
    got, expected = nearest([a, b], files)
    assert (got == expected).all()
    assert (expected > 0).mean() > 0.5
    grid = open_map(files[0]).grid
    assert grid.crs == UTM33
    assert (grid.transform.c - 728_000) % 160 == 0  # so that the first map is copied
    assert (
        open_map(write_mosaic([a, b], tmp_path / "Y_lulc.tif", crs="EPSG:32634")[0]).grid.transform.c % 160
        == 268_000 % 160
    )


@pytest.mark.parametrize(
    ("crs", "side"),
    [("EPSG:3035", 160), ("EPSG:4326", 0.0017), ("EPSG:3857", 230), ("+proj=laea +lat_0=46 +lon_0=16", 160)],
)
def test_maps_go_into_any_crs(tmp_path, crs, side):
    a = write_map(tmp_path / "A", *noise(0, 30, 40), cut=7)
    b = write_map(tmp_path / "B", *noise(1, 30, 40), pixel=moved(20.3, 10.6))
    files = write_mosaic([a, b], tmp_path / "X_lulc.tif", crs=crs)
    grid = open_map(files[0]).grid
    assert (grid.transform.a, grid.transform.e) == (side, -side)
    got, expected = nearest([a, b], files)
    assert (got == expected).all()
    assert (got > 0).sum() > 1000


def test_the_southern_hemisphere_and_rotated_maps(tmp_path):
    south = CRS.from_epsg(32733)
    a = write_map(tmp_path / "A", *noise(0, 12, 15), pixel=Affine(8, 6, 600_000, 6, -8, 6_000_000), crs=south)
    b = write_map(tmp_path / "B", *noise(1, 12, 15), pixel=Affine(10, 0, 600_900, 0, -10, 6_000_700), crs=south)
    for maps in ([a, b], [b, a]):
        files = write_mosaic(maps, tmp_path / f"{maps[0].name[0]}{maps[1].name[0]}_lulc.tif")
        got, expected = nearest(maps, files)
        assert (got == expected).all()
    one = write_mosaic([a], tmp_path / "one_lulc.tif")[0]
    assert (read(one) == read(a)).all()
    assert open_map(one).grid.transform.almost_equals(open_map(a).grid.cell_transform)


@pytest.fixture
def either_side(tmp_path):
    """A map in UTM zone 60 and one in zone 1, which overlap at 180 degrees."""
    a = write_map(
        tmp_path / "A", *noise(0, 40, 60), pixel=Affine(10, 0, 814_000, 0, -10, 1_900_000), crs=CRS.from_epsg(32660)
    )
    b = write_map(
        tmp_path / "B", *noise(1, 40, 60), pixel=Affine(10, 0, 178_000, 0, -10, 1_902_000), crs=CRS.from_epsg(32601)
    )
    with rasterio.open(a) as left, rasterio.open(b) as right:
        west = rasterio.warp.transform(left.crs, "EPSG:4326", [left.bounds.left, left.bounds.right], [1_900_000] * 2)[0]
        east = rasterio.warp.transform(
            right.crs, "EPSG:4326", [right.bounds.left, right.bounds.right], [1_900_000] * 2
        )[0]
    assert west[1] < -179.9 < 179.9 < west[0]  # each crosses 180 degrees
    assert east[1] < -179.9 < 179.9 < east[0]
    return [a, b]


@pytest.mark.parametrize("crs", [None, "EPSG:32601", "EPSG:4326"])
def test_across_the_antimeridian(tmp_path, either_side, crs):
    files = write_mosaic(either_side, tmp_path / "X_lulc.tif", crs=crs)
    got, expected = nearest(either_side, files)
    assert got.size < 40 * 60 * 5
    assert (got == expected).all()
    assert (got > 0).sum() > 40 * 60


def test_a_crs_that_tears_maps_apart_is_refused(tmp_path, either_side):
    with pytest.raises(DataError, match=r"A_lulc\.tif: EPSG:3857 tears the maps apart.* `crs`") as error:
        write_mosaic(either_side, tmp_path / "X_lulc.tif", crs="EPSG:3857")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("*X_*"))


def test_any_number_of_maps_with_one_open_at_a_time(tmp_path, monkeypatch):
    maps = [
        write_map(tmp_path / f"M{i}", np.full((4, 4), i % 9 + 1), pixel=moved(i % 9 * 3, i // 9 * 3)) for i in range(63)
    ]
    current, most = 0, 0
    opened = rasterio.open

    class Counted:
        def __init__(self, *arguments, **options):
            self.dataset = opened(*arguments, **options)

        def __enter__(self):
            nonlocal current, most
            current += 1
            most = max(most, current)
            return self.dataset.__enter__()

        def __exit__(self, *error):
            nonlocal current
            current -= 1
            return self.dataset.__exit__(*error)

    monkeypatch.setattr(mosaic_raster.rasterio, "open", Counted)
    got = read(write_mosaic(maps, tmp_path / "X_lulc.tif")[0])
    assert most == 1
    columns = [1, *np.repeat(np.arange(1, 10), 3)]  # where two lie, that named first
    assert (got == np.tile(columns, (22, 1))).all()


@pytest.mark.integration
def test_a_virtual_mosaic_refers_to_the_maps(tmp_path):
    a = write_map(tmp_path / "maps" / "A & <1>", [[1, 1, 1], [1, 0, 1]], 99)
    b = write_map(tmp_path / "maps" / "B", [[2, 2], [0, 2]], 1, pixel=moved(1, 0))
    files = write_mosaic([a, b], tmp_path / "maps" / "X_lulc.vrt")
    assert [file.name for file in files] == ["X_lulc.vrt", "X_lulc.qml"]
    assert read(files[0]).tolist() == [[1, 2, 2], [1, 0, 2]]  # later over earlier, no data transparent
    shutil.move(tmp_path / "maps", tmp_path / "moved")
    vrt = tmp_path / "moved" / "X_lulc.vrt"
    assert read(vrt).tolist() == [[1, 2, 2], [1, 0, 2]]
    opened = open_map(vrt)
    assert opened.legend.names == EUROSAT.names
    assert opened.grid.transform == PIXEL @ Affine.scale(16)
    with rasterio.open(vrt) as dataset:
        assert dataset.nodata == 0
        assert dataset.colormap(1)[2] == (*EUROSAT[2].rgb, 255)
    if shutil.which("gdalinfo") is None:
        pytest.skip("gdalinfo is not on PATH")
    said = subprocess.run(["gdalinfo", vrt], check=True, capture_output=True, text=True)
    assert "2: Forest" in said.stdout
    assert "<F>Sea Lake</F>" in said.stdout
    assert not said.stderr


def test_a_virtual_mosaic_needs_no_confidence_but_one_crs(tmp_path):
    a, b = write_map(tmp_path / "A", [[1]]), write_map(tmp_path / "B", [[2]], pixel=moved(0.5, 0))
    confidence_of(a).unlink()
    assert read(write_mosaic([a, b], tmp_path / "X_lulc.vrt")[0]).shape == (1, 2)
    with pytest.raises(DataError, match=r"A_lulc\.tif: A_confidence\.tif is not beside it"):
        write_mosaic([a, b], tmp_path / "X_lulc.tif", overwrite=True)
    turned = write_map(tmp_path / "T", [[3]], pixel=Affine(8, 6, 600_000, 6, -8, 5_100_000))
    with pytest.raises(DataError, match=r"T_lulc\.tif: is rotated .* use .*Y_lulc\.tif as `out`"):
        write_mosaic([b, turned], tmp_path / "Y_lulc.vrt")
    other = write_map(tmp_path / "O", [[3]], crs=CRS.from_epsg(32634))
    with pytest.raises(DataError, match=r"O_lulc\.tif: is not in EPSG:32633"):
        write_mosaic([b, other], tmp_path / "Y_lulc.vrt")


def test_maps_in_an_object_store(tmp_path):
    store = pytest.importorskip("upath").UPath(f"memory://{tmp_path.name}")
    a = write_map(tmp_path / "A", [[1, 2]])
    for file in tmp_path.iterdir():
        (store / file.name).write_bytes(file.read_bytes())
    for entry in (str(store / a.name), store / a.name, open_map(store)):
        assert read(write_mosaic([entry], tmp_path / "X_lulc.tif", overwrite=True)[0]).tolist() == [[1, 2]]
    with pytest.raises(DataError, match=r"A_lulc\.tif: is in an object store, .* refers only to files"):
        mosaic(str(store / a.name), tmp_path / "X_lulc.vrt")
    with pytest.raises(UsageError, match=r"`out` is memory:.*, but only rasters and tiles go into object stores"):
        mosaic(a, f"{store}/X_lulc.vrt")


@pytest.mark.parametrize("name", ["X_lulc.tif", "X_lulc.vrt"])
def test_maps_of_the_same_classes_in_other_colors_are_merged_in_those_of_the_first(tmp_path, name):
    old = Legend(tuple(replace(c, color=f"#0000{c.code:02x}") for c in EUROSAT))
    east = PIXEL @ Affine.translation(32, 0)
    maps = [write_map(tmp_path / "A", [[1, 2]]), write_map(tmp_path / "B", [[3, 4]], pixel=east, legend=old)]
    assert [c.color for c in open_map(maps[1]).legend] == [c.color for c in old]
    found = write_mosaic(maps, tmp_path / name)
    assert read(found[0]).tolist() == [[1, 2, 3, 4]]
    assert [c.color for c in open_map(found[0]).legend] == [c.color for c in EUROSAT]


def test_wrong_arguments_are_refused_in_one_sentence(tmp_path):
    a = write_map(tmp_path / "A", [[1]])
    two = Legend((LulcClass(1, "Wald", "", "#000000"), LulcClass(2, "Feld", "", "#ffffff")))
    other = write_map(tmp_path / "B", [[1]], legend=two)
    moved_confidence = write_map(tmp_path / "C", [[1]])
    shutil.copy(confidence_of(write_map(tmp_path / "D", [[1, 1]])), confidence_of(moved_confidence))
    for maps, out, options, kind, said in [
        ([], "X_lulc.tif", {}, UsageError, "`maps` is empty"),
        ([a], "X.tif", {}, UsageError, r"must end in _lulc\.tif or _lulc\.vrt, such as .*/X_lulc\.tif"),
        ([a], "X_lulc.png", {}, UsageError, r"must end in _lulc\.tif or _lulc\.vrt, such as .*/X_lulc\.tif"),
        ([a], "A_lulc.tif", {"overwrite": True}, UsageError, "is one of the maps"),
        ([a], "X_lulc.tif", {"crs": "EPSG:nothing"}, UsageError, "`crs` is EPSG:nothing, which is not a coordinate"),
        ([a, other], "X_lulc.tif", {}, DataError, r"B_lulc\.tif: has other classes than .*A_lulc\.tif"),
        ([a, moved_confidence], "X_lulc.tif", {}, DataError, r"C_confidence\.tif: has other cells"),
        ([a, tmp_path / "E_lulc.tif"], "X_lulc.tif", {}, DataError, "no such file"),
    ]:
        with pytest.raises(kind, match=said) as error:
            write_mosaic(maps, tmp_path / out, **options)
        assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("*X*"))


def test_nothing_is_overwritten_by_default(tmp_path):
    a, b = write_map(tmp_path / "A", [[1]]), write_map(tmp_path / "B", [[2]])
    for out in ("X_lulc.tif", "V_lulc.vrt"):
        files = write_mosaic([a], tmp_path / out)
        with pytest.raises(OutputError, match=r"_lulc\.\w+: already exists.*`overwrite=True`"):
            write_mosaic([a, b], tmp_path / out)
        assert write_mosaic([a], tmp_path / out, overwrite=True) == files
    made = (tmp_path / "X_lulc.tif").stat().st_mtime_ns
    assert write_mosaic([a], tmp_path / "X_lulc.tif")[-1].name == "X_summary.json"
    assert (tmp_path / "X_lulc.tif").stat().st_mtime_ns == made


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    a = write_map(tmp_path / "A", [[1]])
    before = sorted(os.listdir(tmp_path))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mosaic_raster, "write_confidence", full)
    with pytest.raises(OutputError, match="the disk is full"):
        write_mosaic([a], tmp_path / "new" / "X_lulc.tif")
    monkeypatch.setattr(mosaic_virtual, "write_style", full)
    with pytest.raises(OutputError, match=r"X_lulc\.\w+: cannot be written \(No space left"):
        write_mosaic([a], tmp_path / "X_lulc.vrt")
    assert sorted(os.listdir(tmp_path)) == before


def test_a_code_beyond_the_legend_is_refused(tmp_path):
    a = write_map(tmp_path / "A", [[1, 10]])
    table = a.with_name(a.name + ".aux.xml")
    start = table.read_text().index('<Row index="9">')
    table.write_text(table.read_text()[:start] + "</GDALRasterAttributeTable></PAMRasterBand></PAMDataset>")
    with pytest.raises(DataError, match=r"A_lulc\.tif: holds codes that its legend lacks"):
        write_mosaic([a], tmp_path / "X_lulc.tif")
    assert not list(tmp_path.glob("*X*"))


@pytest.fixture
def four(tmp_path: Path) -> Path:
    """A folder of four maps of noise, each a quarter of 20 x 20 cells, one of them with cells without data."""
    for index in range(4):
        codes, sure = noise(index, 10, 10)
        codes[:] = np.where(codes, codes, 1)
        if index == 3:
            codes[5:, 5:] = 0
        write_map(tmp_path / "maps" / f"M{index}", codes, sure, pixel=moved(10 * (index % 2), 10 * (index // 2)))
    return tmp_path / "maps"


def whole(folder: Path) -> np.ndarray:
    m = [read(folder / f"M{index}_lulc.tif") for index in range(4)]
    return np.block([[m[0], m[1]], [m[2], m[3]]])


def test_folders_and_patterns_stand_for_the_maps_in_them(four, tmp_path):
    expected = whole(four)
    target = four / "X_lulc.tif"
    for index, named in enumerate(
        ([four], [four / "*_lulc.tif"], [tmp_path / "**" / "*"], [four / "M[0-3]*.tif"], [four / "M0_lulc.tif", four])
    ):
        # From the second time on, the mosaic lies among the maps.
        assert (read(write_mosaic(named, target, overwrite=index > 0)[0]) == expected).all()
        with rasterio.open(target) as dataset:
            assert dataset.tags()["GEOCFL_SOURCE"] == "M0_lulc.tif, M1_lulc.tif, M2_lulc.tif, M3_lulc.tif"
    odd = write_map(tmp_path / "odd" / "A[1]", [[7]])
    assert read(write_mosaic([odd], tmp_path / "Y_lulc.tif")[0]).tolist() == [[7]]  # what is there is no pattern
    assert read(write_mosaic([odd.parent], tmp_path / "Z_lulc.tif")[0]).tolist() == [[7]]
    (tmp_path / "empty").mkdir()
    for named in (tmp_path / "empty", tmp_path / "nowhere" / "*_lulc.tif", four / "*_confidence.tif"):
        with pytest.raises(DataError, match=r"without maps, whose names end in _lulc\.tif") as error:
            mosaic([four, named], tmp_path / "N_lulc.tif")
        assert str(named) in str(error.value)


def test_the_table_counts_the_mosaic(four, tmp_path):
    expected = np.bincount(whole(four).ravel(), minlength=11)
    for out in ("X_lulc.tif", "V_lulc.vrt"):
        result = mosaic([four], tmp_path / out)
        classes = result.classes[""]
        assert [row["cells"] for row in classes["classes"]] == expected[1:].tolist()
        assert classes["nodata"]["cells"] == expected[0] == 25
        assert classes["total"]["hectares"] == pytest.approx(400 * 2.56)
        assert "Forest" in result.table()
        assert list(result) == result.paths
        assert all((row["confidence"] is None) == out.endswith("vrt") for row in classes["classes"] if row["cells"])


def test_polygons_of_the_mosaic_are_those_of_its_cells(four, tmp_path):
    result = mosaic([four], tmp_path / "X_lulc.tif", vector=VECTOR_FORMATS)
    names = {path.name for path in result.paths}
    assert names == {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert {"X_lulc.gpkg", "X_lulc_polygons.parquet", "X_lulc_polygons.fgb", "X_lulc_polygons.geojson"} < names
    for name in ("X_lulc.gpkg", "X_lulc_polygons.parquet", "X_lulc_polygons.fgb", "X_lulc_polygons.geojson"):
        path = tmp_path / name
        polygons = gpd.read_parquet(path) if path.suffix == ".parquet" else gpd.read_file(path, layer="lulc")
        hectares = polygons.groupby("class_code").area_ha.sum()
        for row in result.classes[""]["classes"]:
            assert hectares.get(row["code"], 0) == pytest.approx(row["hectares"])
        assert polygons.to_crs(32633).area.sum() / 10_000 == pytest.approx(polygons.area_ha.sum(), rel=1e-6)


def test_virtual_and_real_mosaics_agree_zone_by_zone(four, tmp_path):
    rng = np.random.default_rng(1)
    corners = 600_000 + 3_200 * rng.random(8), 5_100_000 - 3_200 * rng.random(8)
    zones = gpd.GeoDataFrame(
        geometry=[Polygon(np.column_stack(corners)[[k, k + 1, k + 2]]) for k in range(6)], crs=32633
    )
    zones.to_file(tmp_path / "zones.gpkg")
    real = mosaic([four], tmp_path / "X_lulc.tif").paths[0]
    virtual = mosaic([four], tmp_path / "V_lulc.vrt").paths[0]
    one, other = stats(real, tmp_path / "zones.gpkg"), stats(virtual, tmp_path / "zones.gpkg")
    np.testing.assert_allclose(one.hectares, other.hectares, atol=1e-9)
    np.testing.assert_allclose(one.nodata, other.nodata, atol=1e-9)
    assert one.hectares.sum() > 10


def write_regions(path: Path, shapes: dict[str, Polygon], crs: int = 32633) -> Path:
    gpd.GeoDataFrame({"name": list(shapes)}, geometry=list(shapes.values()), crs=crs).to_file(path)
    return path


@given(points=st.lists(st.tuples(st.integers(-5, 90), st.integers(-5, 90)), min_size=3, max_size=8))
@settings(max_examples=15)
def test_a_region_is_what_of_the_mosaic_has_its_center_inside(tmp_path_factory, points):
    folder = tmp_path_factory.mktemp("regions")
    a = write_map(folder / "A", *(v.clip(1) for v in noise(0, 10, 20)))
    b = write_map(folder / "B", *(v.clip(1) for v in noise(1, 10, 20)), pixel=moved(0, 10))
    # In quarters of a cell, less a little, so that no side meets a center.
    shape = Polygon([(600_000 + 40 * x + 0.7, 5_100_000 - 40 * y - 0.3) for x, y in points]).buffer(0)
    both = read(write_mosaic([a, b], folder / "X_lulc.tif")[0])
    centers = [[Point(600_080 + 160 * x, 5_099_920 - 160 * y) for x in range(20)] for y in range(20)]
    inside = np.array([[shape.contains(point) for point in row] for row in centers])
    if not inside.any():
        return
    regions = write_regions(folder / "regions.gpkg", {"one": shape})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mosaic_raster, "PASTED_CELLS", 40)
        result = mosaic([a, b], folder / "out", regions=regions, by="name")
    with rasterio.open(result.paths[0]) as dataset:
        column, row = ~PIXEL @ dataset.transform @ (0, 0)
        column, row = round(column / 16), round(row / 16)
        got = np.zeros_like(both)
        got[row : row + dataset.height, column : column + dataset.width] = dataset.read(1)
    assert (got == np.where(inside, both, 0)).all()
    assert sum(row["cells"] for row in result.classes["one"]["classes"]) == inside.sum()


def test_regions_share_the_mosaic_out(four, tmp_path, caplog):
    """Four regions that fill the ground have all of its cells once; in degrees, as such files are."""
    expected = np.bincount(whole(four).ravel(), minlength=11)
    quarters = gpd.GeoSeries(
        [box(x, y, x + 1_700, y + 1_700) for x in (599_900, 601_600) for y in (5_096_700, 5_098_400)], crs=32633
    )
    shapes = dict(zip(["Île de/France", "b", "c", "d"], quarters.segmentize(200).to_crs(4326), strict=True))
    far = translate(shapes["b"], 5)
    regions = write_regions(tmp_path / "regions.gpkg", shapes | {"far": far}, crs=4326)
    before, out = set(four.iterdir()), four
    with caplog.at_level(logging.WARNING):
        result = mosaic([four], out, regions=regions, by="name", vector=("gpkg", "geoparquet"))
    assert "no map has data in far; no files are written for it" in caplog.text
    assert list(result.classes) == list(shapes)
    counts = [[row["cells"] for row in classes["classes"]] for classes in result.classes.values()]
    assert np.sum(counts, axis=0).tolist() == expected[1:].tolist()
    assert result.paths[0] == out / "Île_de_France_lulc.tif"
    assert set(out.iterdir()) - before == set(result.paths)
    assert (out / "b_lulc_polygons.parquet").is_file()
    table = stats(out / "b_lulc.tif", regions, by="name")
    hectares = [row["hectares"] for row in result.classes["b"]["classes"]]
    np.testing.assert_allclose(table.hectares[table.zones.index("b")], hectares, rtol=0.2, atol=6)  # cells in part
    assert "\n\nb\ncode" in result.table()
    # Again among its own products: they are no maps to make it of.
    again = mosaic([four], out, regions=regions, by="name", vector=("gpkg", "geoparquet"), overwrite=True)
    assert again.classes == result.classes


def test_regions_over_utm_zones_and_the_antimeridian(tmp_path, either_side):
    """A region given on both sides of 180 degrees, as countries there are."""
    fiji = box(179.5, 16.9, 180, 17.3).union(box(-180, 16.9, -179.5, 17.3))
    regions = write_regions(tmp_path / "regions.gpkg", {"Fiji": fiji}, crs=4326)
    everything = mosaic(either_side, tmp_path / "X_lulc.tif").classes[""]
    for crs in (None, "EPSG:32601", "EPSG:4326"):
        out = tmp_path / f"out-{crs}"
        made = mosaic(either_side, out, regions=regions, by="name", crs=crs).classes["Fiji"]
        assert sum(row["hectares"] for row in made["classes"]) == pytest.approx(
            sum(row["hectares"] for row in everything["classes"]), rel=0.02
        )


def test_wrong_regions_are_refused_in_one_sentence(four, tmp_path):
    here, other = box(600_000, 5_097_000, 601_000, 5_098_000), box(601_000, 5_097_000, 602_000, 5_098_000)
    good = write_regions(tmp_path / "good.gpkg", {"a": here})
    same = write_regions(tmp_path / "same.gpkg", {"a b": here, "A/b": other})
    none = write_regions(tmp_path / "none.gpkg", {"": here})
    far = write_regions(tmp_path / "far.gpkg", {"far": translate(here, 1e6)})
    out = {"out": tmp_path / "out"}
    for options, kind, said in [
        ({"regions": good, **out}, UsageError, r"good\.gpkg: pass the field that names its regions as `by`"),
        ({"regions": good, "by": "nom", **out}, UsageError, r"good\.gpkg: has no field 'nom' for `by`"),
        ({"regions": same, "by": "name", **out}, DataError, r"same\.gpkg: the maps of 'a b' and 'A/b' would both"),
        ({"regions": none, "by": "name", **out}, DataError, r"none\.gpkg: holds a region whose name is ''"),
        ({"regions": far, "by": "name", **out}, DataError, r"far\.gpkg: no map has data in any region"),
        (
            {"regions": good, "by": "name", "out": tmp_path / "X_lulc.tif"},
            UsageError,
            "must be a folder",
        ),
        ({"by": "name", "out": tmp_path / "X_lulc.tif"}, UsageError, "pass the polygons as `regions`"),
        ({"vector": ["gpkg"], "out": tmp_path / "X_lulc.vrt"}, UsageError, r"needs confidences, .*X_lulc\.tif"),
        ({"vector": ["shp"], "out": tmp_path / "X_lulc.tif"}, UsageError, "shp"),
    ]:
        with pytest.raises(kind, match=said) as error:
            mosaic([four], **options)
        assert "\n" not in str(error.value)
        assert not (tmp_path / "out").exists()
    mosaic([four], tmp_path / "out", regions=good, by="name")
    with pytest.raises(OutputError, match=r"a_lulc\.tif: already exists"):
        mosaic([four], tmp_path / "out", regions=good, by="name")


def test_an_existing_file_of_a_region_is_refused_before_any_is_made(four, tmp_path):
    shapes = {"a": box(600_000, 5_097_000, 601_000, 5_098_000), "b": box(601_000, 5_097_000, 602_000, 5_098_000)}
    regions = write_regions(tmp_path / "regions.gpkg", shapes)
    out = tmp_path / "out"
    out.mkdir()
    (out / "b_preview.png").write_bytes(b"")  # of a map that this mosaic would stand for
    with pytest.raises(OutputError, match=r"b_preview\.png: already exists"):
        mosaic([four], out, regions=regions, by="name")
    assert [path.name for path in out.iterdir()] == ["b_preview.png"]
    (out / "b_preview.png").unlink()
    (out / "elsewhere_preview.png").write_bytes(b"")
    assert set(mosaic([four], out, regions=regions, by="name").classes) == {"a", "b"}


def test_a_region_that_maps_reach_only_by_slivers_has_no_map(tmp_path, caplog):
    """Beside diagonal maps, whose sides bend over its own in degrees: both seem to reach into it, and neither does."""
    west, north, side = 400_000, 5_100_000, 640
    a = write_map(tmp_path / "A", np.ones((4, 4)), pixel=Affine(10, 0, west, 0, -10, north))
    b = write_map(tmp_path / "B", np.ones((4, 4)), pixel=Affine(10, 0, west + side, 0, -10, north - side))
    shapes = {
        "between": box(west + side, north - side, west + 2 * side, north),
        "a": box(west, north - side, west + side, north),
    }
    regions = write_regions(tmp_path / "regions.gpkg", shapes)
    between, _ = Regions(regions, "name").reached_by([open_map(a), open_map(b)])
    assert len(between) == 2
    with caplog.at_level(logging.WARNING):
        assert list(mosaic([a, b], tmp_path / "out", regions=regions, by="name").classes) == ["a"]
    assert "no map has data in between" in caplog.text


@pytest.mark.parametrize("crs", [None, "EPSG:32601", "EPSG:4326"])
@pytest.mark.parametrize("source", [3460, 32660])
def test_regions_in_meters_across_the_antimeridian(tmp_path, either_side, source, crs):
    corners = [(813_000, 1_890_000), (829_000, 1_891_000), (828_000, 1_905_000), (812_000, 1_903_000)]
    around = gpd.GeoSeries([Polygon(corners).segmentize(500)], crs=32660).to_crs(source)[0]
    regions = write_regions(tmp_path / "regions.gpkg", {"Fiji": around}, crs=source)
    everything = mosaic(either_side, tmp_path / "X_lulc.tif", crs=crs).classes[""]
    made = mosaic(either_side, tmp_path / "out", regions=regions, by="name", crs=crs).classes["Fiji"]
    assert made["classes"] == everything["classes"]


@pytest.mark.integration
def test_hundreds_of_maps_take_no_more_memory(tmp_path, monkeypatch):
    first = write_map(tmp_path / "M", *(v.clip(1) for v in noise(0, 300, 300)))
    mosaic([first], tmp_path / "warm_lulc.tif")  # what is imported and cached stays, however many maps there are
    peaks = {}
    for count in (10, 110):
        maps = []
        for index in range(count):
            for path in (first, first.with_name("M_lulc.tif.aux.xml"), confidence_of(first)):
                shutil.copy(path, tmp_path / f"{count}-{index:03}{path.name}")
            lulc = tmp_path / f"{count}-{index:03}M_lulc.tif"
            for path in (lulc, confidence_of(lulc)):
                with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dataset:
                    dataset.transform = moved(300 * (index % 2), 300 * (index // 2 % 2)) @ Affine.scale(16)
            summary = {"hash": str(index), "more": list(range(300, 20_000))}  # 700 kB in memory
            (tmp_path / f"{count}-{index:03}M_summary.json").write_text(json.dumps(summary))
            maps.append(lulc)
        tracemalloc.start()
        result = mosaic(maps, tmp_path / f"X{count}_lulc.tif")
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert read(result.paths[0]).shape == (600, 600)
        with rasterio.open(result.paths[0]) as dataset:
            assert ("and 10 more" in dataset.tags()["GEOCFL_SOURCE"]) == (count == 110)
    assert peaks[110] < peaks[10] + 100 * 20_000  # a map's legend and place; its cells are 90,000


def test_an_interrupted_mosaic_is_finished_if_its_maps_are_as_they_were(tmp_path, monkeypatch):
    a = write_map(tmp_path / "A", [[1, 2]])
    whole = staging.put

    def interrupted(source, target):
        if target.name.endswith("_confidence.tif"):
            raise KeyboardInterrupt
        whole(source, target)

    for name in ("X", "Y"):
        with monkeypatch.context() as patch:
            patch.setattr(staging, "put", interrupted)
            with pytest.raises(KeyboardInterrupt):
                mosaic([a], tmp_path / f"{name}_lulc.tif")
        assert not (tmp_path / f"{name}_confidence.tif").exists()
    made = mosaic([a], tmp_path / "X_lulc.tif")
    assert all(path.is_file() for path in made.paths)
    assert [row["cells"] for row in made.classes[""]["classes"]][:3] == [1, 1, 0]
    write_map(tmp_path / "A", [[1, 3]])
    with pytest.raises(OutputError, match=r"Y_lulc\.tif: already exists"):
        mosaic([a], tmp_path / "Y_lulc.tif")


def test_a_broken_confidence_is_named(tmp_path):
    a = write_map(tmp_path / "A", [[1]])
    confidence_of(a).write_bytes(b"")
    with pytest.raises(DataError, match=r"A_confidence\.tif: not a raster .*; map its scene again") as error:
        mosaic([a], tmp_path / "X_lulc.tif")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("*X*"))


def test_one_map_needs_no_list(tmp_path):
    a = write_map(tmp_path / "A", [[1, 2]])
    for index, one in enumerate((a, str(a), tmp_path, str(tmp_path / "A*"))):
        assert read(mosaic(one, tmp_path / "out" / f"X{index}_lulc.tif").paths[0]).tolist() == [[1, 2]]


def test_broken_maps_are_named_and_nothing_is_left(four, tmp_path):
    broken = four / "M2_lulc.tif"
    content = broken.read_bytes()
    broken.write_bytes(content[: len(content) - 60])
    for out in ("X_lulc.tif", "X_lulc.vrt"):
        with pytest.raises(DataError, match=r"M2_lulc\.tif") as error:
            mosaic([four], tmp_path / out)
        assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["maps"]


def test_progress_is_told_to_whoever_asks(four, tmp_path, monkeypatch):
    monkeypatch.setattr(mosaic_raster, "PASTED_CELLS", 100)
    told = []
    mosaic([four], tmp_path / "X_lulc.tif", progress=lambda *step: told.append(step))
    assert told == [("X_lulc.tif", done, 4, "strip") for done in range(5)]
    told.clear()
    shapes = {"a": box(600_000, 5_097_000, 601_000, 5_098_000), "b": box(601_000, 5_097_000, 602_000, 5_098_000)}
    regions = write_regions(tmp_path / "regions.gpkg", shapes)
    mosaic([four], tmp_path / "out", regions=regions, by="name", progress=lambda *step: told.append(step))
    assert told == [("out", done, 2, "region") for done in range(3)]


def test_an_interrupted_mosaic_of_regions_is_finished(four, tmp_path, monkeypatch):
    shapes = {"a": box(600_000, 5_097_000, 601_000, 5_098_000), "b": box(601_000, 5_097_000, 602_000, 5_098_000)}
    regions, out = write_regions(tmp_path / "regions.gpkg", shapes), tmp_path / "out"
    whole, begun = mosaic_regions.write_raster, []

    def interrupted(grid, placed, target, *rest, **options):
        begun.append(target.name)
        if target.name.startswith("b"):
            raise KeyboardInterrupt
        return whole(grid, placed, target, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(mosaic_regions, "write_raster", interrupted)
        with pytest.raises(KeyboardInterrupt):
            mosaic([four], out, regions=regions, by="name")
    assert begun == ["a_lulc.tif", "b_lulc.tif"]
    before = (out / "a_lulc.tif").stat().st_mtime_ns
    made = mosaic([four], out, regions=regions, by="name")
    assert set(made.classes) == {"a", "b"}
    assert (out / "a_lulc.tif").stat().st_mtime_ns == before
    assert not list(out.glob(".*"))
    again = mosaic([four], tmp_path / "again", regions=regions, by="name")
    assert [path.read_bytes() for path in made if path.suffix == ".tif"] == [
        path.read_bytes() for path in again if path.suffix == ".tif"
    ]
    assert made.classes == again.classes


def test_a_mosaic_of_regions_killed_while_its_marks_are_removed_is_finished(four, tmp_path, monkeypatch):
    shapes = {"a": box(600_000, 5_097_000, 601_000, 5_098_000), "b": box(601_000, 5_097_000, 602_000, 5_098_000)}
    regions, out = write_regions(tmp_path / "regions.gpkg", shapes), tmp_path / "out"
    forget, removed = staging.Staging.forget, []

    def killed(mark):
        if removed:
            raise KeyboardInterrupt
        removed.append(mark)
        forget(mark)

    with monkeypatch.context() as patch:
        patch.setattr(staging.Staging, "forget", killed)
        with pytest.raises(KeyboardInterrupt):
            mosaic([four], out, regions=regions, by="name")
    assert [path.name for path in out.glob(".*")] == [".a.partial"]
    before = {path: path.read_bytes() for path in out.glob("*.tif")}
    assert set(mosaic([four], out, regions=regions, by="name").classes) == {"a", "b"}
    assert {path: path.read_bytes() for path in out.glob("*.tif")} == before
    assert not list(out.glob(".*"))
    with pytest.raises(OutputError, match="already exists"):  # only once
        mosaic([four], out, regions=regions, by="name")


def test_an_interrupted_virtual_mosaic_is_finished(tmp_path, monkeypatch):
    a = write_map(tmp_path / "A", [[1]])
    whole = os.replace

    def interrupted(source, target):
        if Path(target).suffix == ".vrt":
            raise KeyboardInterrupt
        whole(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            mosaic([a], tmp_path / "V_lulc.vrt")
    assert (tmp_path / "V_lulc.qml").exists()
    assert all(path.is_file() for path in mosaic([a], tmp_path / "V_lulc.vrt").paths)
    (tmp_path / "W_lulc.qml").write_text("mine")
    with pytest.raises(OutputError, match=r"W_lulc\.qml: already exists"):
        mosaic([a], tmp_path / "W_lulc.vrt")
    assert (tmp_path / "W_lulc.qml").read_text() == "mine"
    assert not (tmp_path / "W_lulc.vrt").exists()
