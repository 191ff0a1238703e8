"""Scenes whose place is said in other ways than by a CRS and a geotransform from north to south."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from pyproj import Transformer
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.rpc import RPC

from geocfl.errors import SceneError
from geocfl.scenes.opening import open_scene
from geocfl.scenes.reader import Scene
from geocfl.scenes.reading import Reading

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

SIZE = 64
HERE = Affine(10, 0, 600_000, 0, -10, 5_300_000)
DN = np.arange(1, 1 + SIZE * 2 * SIZE, dtype=np.uint16).reshape(SIZE, 2 * SIZE)
BANDS = ("B04", "B03", "B02")


def write(path: Path, dn: np.ndarray = DN, **profile: object) -> str:
    options = {"crs": "EPSG:32632", "transform": HERE} | profile
    height, width = dn.shape
    with rasterio.open(path, "w", driver="GTiff", height=height, width=width, count=3, dtype=dn.dtype, **options) as f:
        f.write(np.stack([dn] * 3))
        f.descriptions = BANDS
    return str(path)


def opened(path: str, **reading: object) -> Scene:
    return open_scene(path, Reading(**reading), needed=BANDS, gsd=10.0)  # type: ignore[arg-type]


def dn_of(scene: Scene) -> np.ndarray:
    return np.nan_to_num(scene.read(("B04",), 0, scene.height)[0] * 10_000).round().astype(int)


@pytest.mark.parametrize(
    ("turned", "transform"),
    [
        (DN[::-1], Affine(10, 0, 600_000, 0, 10, 5_300_000 - 10 * SIZE)),
        (DN[:, ::-1], Affine(-10, 0, 600_000 + 20 * SIZE, 0, -10, 5_300_000)),
        (DN[::-1, ::-1], Affine(-10, 0, 600_000 + 20 * SIZE, 0, 10, 5_300_000 - 10 * SIZE)),
        (DN.T, Affine(0, 10, 600_000, -10, 0, 5_300_000)),
        (np.rot90(DN), Affine(0, -10, 600_000 + 20 * SIZE, -10, 0, 5_300_000)),
    ],
    ids=["south-up", "mirrored", "both", "transposed", "quarter turn"],
)
def test_turned_scenes_come_out_north_up_with_the_same_pixels(tmp_path, turned, transform):
    with opened(write(tmp_path / "scene.tif", np.ascontiguousarray(turned), transform=transform)) as scene:
        assert scene.transform == HERE
        np.testing.assert_array_equal(dn_of(scene), DN)


def test_turned_scenes_keep_their_mask(tmp_path):
    path = write(tmp_path / "scene.tif", DN[::-1], transform=Affine(10, 0, 600_000, 0, 10, 5_300_000 - 10 * SIZE))
    with rasterio.open(path, "r+") as file:
        mask = np.full(DN.shape, 255, np.uint8)
        mask[0] = 0  # the southernmost row
        file.write_mask(mask)
    with opened(path) as scene:
        np.testing.assert_array_equal(dn_of(scene), np.where(np.arange(SIZE)[:, None] == SIZE - 1, 0, DN))


def test_a_sheared_scene_is_warped(tmp_path):
    with opened(write(tmp_path / "scene.tif", transform=Affine(10, 3, 600_000, 0, -10, 5_300_000))) as scene:
        assert (scene.transform.a, scene.transform.b, scene.transform.d, scene.transform.e) == (10, 0, 0, -10)
        assert "warped" in scene.notes[0]


def with_points(path: Path, bend: float, dn: np.ndarray = DN) -> str:
    written = write(path, dn, crs=None, transform=None)
    points = [
        GroundControlPoint(row, col, *(HERE @ (col + bend * (row / SIZE) ** 2, row)))
        for row in (0, SIZE / 2, SIZE)
        for col in (0, SIZE, 2 * SIZE)
    ]
    with rasterio.open(written, "r+") as file:
        file.gcps = (points, CRS.from_epsg(32632))
    return written


def test_ground_control_points_place_a_scene(tmp_path):
    with opened(with_points(tmp_path / "scene.tif", 0)) as scene:
        assert scene.crs == CRS.from_epsg(32632)
        assert scene.transform.almost_equals(HERE, 1e-4)
        np.testing.assert_array_equal(dn_of(scene), DN)


def test_ground_control_points_that_bend_warp_a_scene(tmp_path):
    columns = np.broadcast_to(np.arange(1, 1 + 2 * SIZE, dtype=np.uint16) * 100, DN.shape)
    with opened(with_points(tmp_path / "scene.tif", 6, columns)) as scene:
        bent = 6 * (60.5 / SIZE) ** 2
        column, row = ~scene.transform @ (HERE @ (40.5 + bent, 60.5))
        assert dn_of(scene)[int(row), int(column)] == pytest.approx(columns[60, 40], abs=100)
        assert bent > 5


@pytest.mark.parametrize("bend", [0, 6])
def test_ground_control_points_of_band_files(tmp_path, bend):
    for band, step in zip(BANDS, (1, 2, 1), strict=True):
        dn = DN[::step, ::step]
        with rasterio.open(with_points(tmp_path / "three.tif", bend)) as three:
            points, crs = three.gcps
        with rasterio.open(
            tmp_path / f"{band}.tif", "w", driver="GTiff", height=dn.shape[0], width=dn.shape[1], count=1,
            dtype=dn.dtype,
        ) as file:  # fmt: skip
            file.write(dn, 1)
            file.gcps = ([GroundControlPoint(p.row / step, p.col / step, p.x, p.y) for p in points], crs)
        (tmp_path / "three.tif").unlink()
    with opened(str(tmp_path)) as scene:
        assert scene.crs == CRS.from_epsg(32632)
        if bend:
            assert scene.width > 2 * SIZE
        else:
            assert scene.transform.almost_equals(HERE, 1e-4)
            np.testing.assert_array_equal(dn_of(scene), DN)


def test_degrees_from_0_to_360_are_the_same_place(tmp_path):
    step = Affine(1e-4, 0, 10.3, 0, -1e-4, 47.85)
    one = write(tmp_path / "one.tif", transform=step, crs="EPSG:4326")
    other = write(tmp_path / "other.tif", transform=Affine.translation(360, 0) @ step, crs="EPSG:4326")
    with opened(one) as first, opened(other) as second:
        assert first.transform.almost_equals(second.transform)
        assert first.data_share() > 0.5
        np.testing.assert_array_equal(dn_of(first), dn_of(second))


@pytest.mark.parametrize("west", [180 - 1e-4 * SIZE, -180 - 1e-4 * SIZE])
def test_a_scene_on_the_180th_meridian_keeps_both_halves_in_their_place(tmp_path, west):
    columns = np.broadcast_to(np.arange(1, 1 + 2 * SIZE, dtype=np.uint16) * 100, DN.shape)
    step = Affine(1e-4, 0, west, 0, -1e-4, 10)
    with opened(write(tmp_path / "scene.tif", columns, transform=step, crs="EPSG:4326")) as scene:
        found, height = dn_of(scene), scene.height
        assert scene.data_share() > 0.9
        for column in (20, 100):
            longitude, latitude = step @ (column + 0.5, SIZE / 2)
            x, y = Transformer.from_crs(4326, scene.crs.to_epsg(), always_xy=True).transform(longitude, latitude)
            where = ~scene.transform @ (x, y)
            assert int(where[1]) < height
            assert found[int(where[1]), int(where[0])] == pytest.approx(columns[0, column], abs=110)


@pytest.mark.parametrize(("latitude", "epsg"), [(86, 5041), (-85, 5042)])
def test_near_the_poles_the_grid_is_polar(tmp_path, latitude, epsg):
    step = Affine(1e-3, 0, 20, 0, -1e-4, latitude)
    with opened(write(tmp_path / "scene.tif", transform=step, crs="EPSG:4326")) as scene:
        assert scene.crs == CRS.from_epsg(epsg)
        assert scene.data_share() > 0.3


PLAN = 'LOCAL_CS["plan",UNIT["metre",1]]'  # codespell:ignore metre
LOST = {
    "no CRS": ({"crs": None}, "has no coordinate reference system"),
    "no geotransform": ({"transform": None}, "no geotransform"),
    "engineering": (
        {"crs": CRS.from_wkt(PLAN)},
        "Engineering CRS",
    ),
    "geocentric": ({"crs": CRS.from_epsg(4978)}, "Geocentric CRS"),
    "outside": ({"crs": "EPSG:4326"}, "do not fit each other"),
    "huge pixels": ({"transform": Affine(1e9, 0, 0, 0, -1e9, 0)}, "do not fit each other"),
    "no area": ({"transform": Affine(10, 0, 600_000, 0, 0, 5_300_000)}, "no geotransform"),
    "not finite": ({"transform": Affine(10, 0, float("nan"), 0, -10, 5_300_000)}, "no geotransform"),
}


@pytest.mark.parametrize(("profile", "said"), LOST.values(), ids=LOST)
def test_a_scene_without_a_place_is_one_sentence(tmp_path, profile, said):
    path = write(tmp_path / "scene.tif", **profile)
    with pytest.raises(SceneError, match=said) as caught:
        opened(path)
    assert path in str(caught.value)
    with open_scene(path) as scene:
        assert scene.crs is None
    with opened(path, allow_no_crs=True) as scene:
        np.testing.assert_array_equal(dn_of(scene), DN)


def test_a_scene_with_rpcs_alone_is_to_be_orthorectified(tmp_path):
    path = write(tmp_path / "scene.tif", crs=None, transform=None)
    one = [1.0] + [0.0] * 19
    with rasterio.open(path, "r+") as file:
        file.rpcs = RPC(
            height_off=0, height_scale=1, lat_off=47, lat_scale=1, line_off=0, line_scale=1, long_off=10,
            long_scale=1, samp_off=0, samp_scale=1, line_den_coeff=one, line_num_coeff=one, samp_den_coeff=one,
            samp_num_coeff=one,
        )  # fmt: skip
    with pytest.raises(SceneError, match="gdalwarp -rpc"):
        opened(path)
