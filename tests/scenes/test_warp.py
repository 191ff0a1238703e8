"""Scenes on other grids, warped: their pixels lie where they did."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from pyproj import Transformer
from rasterio.crs import CRS
from scipy.ndimage import binary_erosion

from geocfl.errors import SceneError
from geocfl.scenes import Reading, open_scene
from geocfl.scenes.warp import ground

BANDS = ("B04", "B03", "B02")


def write(path: Path, dn: np.ndarray, crs: str | None, transform: Affine, nodata: float | None = None) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", height=dn.shape[1], width=dn.shape[2], count=3, dtype=dn.dtype, crs=crs,
        transform=transform, nodata=nodata,
    ) as dataset:  # fmt: skip
        dataset.write(dn)
        dataset.descriptions = BANDS
    return path


def gradient(crs: str, transform: Affine, shape: tuple[int, int]) -> np.ndarray:
    """DN that say where they are: meters east and north of a corner in UTM zone 33, so that warping can be judged."""
    rows, columns = np.indices(shape) + 0.5
    x, y = transform @ (columns, rows)
    east, north = Transformer.from_crs(crs, 32633, always_xy=True).transform(x, y)
    plane = np.stack([(east - 290_000) / 10, (north - 4_990_000) / 10, np.full(shape, 500.0)])
    return np.rint(plane).astype(np.uint16)


CASES = {
    "20 m": ("EPSG:32633", Affine(20, 0, 300_000, 0, -20, 5_000_000), (150, 120)),
    "60 m": ("EPSG:32633", Affine(60, 0, 300_000, 0, -60, 5_000_000), (60, 50)),
    "5 m": ("EPSG:32633", Affine(4, 0, 300_000, 0, -4, 5_000_000), (400, 360)),
    "degrees": ("EPSG:4326", Affine(1.2e-4, 0, 12.45, 0, -0.9e-4, 45.13), (250, 220)),
    "web mercator": ("EPSG:3857", Affine(10, 0, 1_387_000, 0, -10, 5_641_000), (300, 280)),
    "rotated": ("EPSG:32633", Affine(8, 6, 300_000, 6, -8, 5_000_000), (150, 150)),
}


@pytest.mark.parametrize("case", CASES)
def test_pixels_stay_where_they_are(tmp_path: Path, case: str) -> None:
    crs, transform, shape = CASES[case]
    path = write(tmp_path / "s.tif", gradient(crs, transform, shape), crs, transform)
    with open_scene(path, needed=BANDS, gsd=10) as scene:
        assert scene.crs.to_epsg() == 32633
        assert (scene.transform.a, scene.transform.e) == (10, -10)
        assert (scene.transform.c % 10, scene.transform.f % 10) == (0, 0)
        pixels = scene.read(BANDS, 0, scene.height) * 10_000
        known = np.isfinite(pixels[0])
        rows, columns = np.indices(known.shape) + 0.5
        east, north = scene.transform @ (columns, rows)
        # Edges apart, where half a pixel is missing on one side.
        inner = np.zeros_like(known)
        inner[12:-12, 12:-12] = known[12:-12, 12:-12]
        assert np.abs(pixels[0] - (east - 290_000) / 10)[inner].max() < 1.1  # a meter is a tenth; DN are whole
        assert np.abs(pixels[1] - (north - 4_990_000) / 10)[inner].max() < 1.1
        area = known.sum() * 100
        with rasterio.open(path) as dataset:
            found = ground(dataset)
        assert area == pytest.approx(found.across * found.down * shape[0] * shape[1], rel=0.03)
        (note,) = scene.notes
        assert "warped from pixels of" in note
        assert "10 m in EPSG:32633" in note
        strips = np.concatenate(
            [scene.read(BANDS, r, min(r + 37, scene.height)) for r in range(0, scene.height, 37)], 1
        )
        np.testing.assert_allclose(strips * 10_000, pixels, atol=1.1)  # GDAL rounds anew at each strip


def waves(crs: str, transform: Affine, shape: tuple[int, int]) -> np.ndarray:
    """Smooth DN of amplitude 2,000, whose value at each place is known: waves 80 m long in UTM zone 33."""
    rows, columns = np.indices(shape) + 0.5
    x, y = transform @ (columns, rows)
    east, north = Transformer.from_crs(crs, 32633, always_xy=True).transform(x, y)
    return 5000 + 2000 * np.sin(2 * np.pi * east / 80) * np.cos(2 * np.pi * north / 90)


@pytest.mark.parametrize(
    ("crs", "transform", "shape", "error"),
    [  # the root-mean-square error in DN, about half of it with bilinear resampling
        pytest.param("EPSG:32633", Affine(20, 0, 3e5, 0, -20, 5e6), (75, 60), 200, id="20 m"),
        pytest.param("EPSG:4326", Affine(1.2e-4, 0, 12.45, 0, -0.9e-4, 45.13), (125, 110), 40, id="degrees"),
        pytest.param("EPSG:3857", Affine(13, 0, 1_387_000, 0, -13, 5_641_000), (150, 140), 40, id="web mercator"),
        pytest.param("EPSG:32633", Affine(8, 6, 3e5, 6, -8, 5e6), (150, 150), 25, id="rotated"),
        pytest.param("EPSG:32633", Affine(11, 0, 3e5, 0, -11, 5e6), (150, 150), 40, id="11 m"),
    ],
)
def test_warping_keeps_what_is_sharp(
    tmp_path: Path, crs: str, transform: Affine, shape: tuple[int, int], error: float
) -> None:
    dn = np.rint(np.stack([waves(crs, transform, shape)] * 3)).astype(np.uint16)
    with open_scene(write(tmp_path / "s.tif", dn, crs, transform), needed=BANDS, gsd=10) as scene:
        pixels = scene.read(BANDS, 0, scene.height)[0] * 10_000
        truth = waves(scene.crs.to_string(), scene.transform, pixels.shape)
    inner = binary_erosion(np.isfinite(pixels), iterations=6)
    assert inner.sum() > 5_000
    assert np.sqrt(np.mean((pixels - truth)[inner] ** 2)) <= error


def test_the_models_own_grid_is_left_alone(tmp_path: Path) -> None:
    for crs, transform in (
        ("EPSG:32733", Affine(10, 0, 3e5, 0, -10, 5e6)),
        ("EPSG:3035", Affine(10, 0, 45e5, 0, -10, 25e5)),
    ):
        path = write(tmp_path / "s.tif", np.ones((3, 70, 80), np.uint16), crs, transform)
        with open_scene(path, needed=BANDS, gsd=10) as scene:
            assert scene.transform == transform
            assert scene.notes == ()


def test_refused_without_warping(tmp_path: Path) -> None:
    crs, transform, shape = CASES["20 m"]
    path = write(tmp_path / "s.tif", gradient(crs, transform, shape), crs, transform)
    with pytest.raises(SceneError, match=r"s\.tif: has pixels of 20 x 20 m.*`warp=False`"):
        open_scene(path, Reading(warp=False), needed=BANDS, gsd=10)


@pytest.mark.parametrize("nodata", [None, 0, 7])
def test_no_data_stays_no_data(tmp_path: Path, nodata: int | None) -> None:
    dn = np.full((3, 100, 100), 1000, np.uint16)
    dn[:, :, :50] = nodata or 0
    dn[0, 10, 70] = 0  # of one band alone: dark, not missing, where nothing is declared
    path = write(tmp_path / "s.tif", dn, "EPSG:32633", Affine(20, 0, 3e5, 0, -20, 5e6), nodata)
    with open_scene(path, needed=BANDS, gsd=10) as scene:
        pixels = scene.read(BANDS, 0, 200)
    assert np.isnan(pixels[:, :, :98]).all()
    assert np.isfinite(pixels[:, 30:, 102:]).all()
    # Nothing between no data and data is made up.
    values = pixels[1][np.isfinite(pixels[1])]
    assert values.min() == pytest.approx(0.1)


@pytest.mark.parametrize("side", [20, 6], ids="{} m".format)
@pytest.mark.parametrize(
    ("dtype", "nodata", "low", "high"),
    [
        ("uint16", 0, 1, 3000),  # overshoots below 0
        ("uint16", 65535, 50_000, 65_534),  # overshoots above 65,535
        ("uint16", 2900, 1, 3000),  # overshoots past the nodata value
        ("uint16", None, 1, 3000),
        ("int16", -1, 0, 3000),
        ("int16", -32768, -32767, 32767),
        ("uint8", 0, 1, 255),
    ],
)
def test_overshoots_stay_valid_and_no_data_stays_in_place(
    tmp_path: Path, side: int, dtype: str, nodata: int | None, low: int, high: int
) -> None:
    rng = np.random.default_rng(0)
    dn = np.where(rng.random((3, 90, 100)) < 0.5, low, high)  # the steepest edges that there can be
    empty = rng.random((90, 100)) < 0.03
    empty[:, :30] = True
    dn[:, empty] = nodata or 0
    path = write(tmp_path / "s.tif", dn.astype(dtype), "EPSG:32633", Affine(side, 0, 3e5, 0, -side, 5e6), nodata)
    scale = 70_000  # no number is so far below 0 that it is no reflectance
    # The nodata value is given, so that an overshoot of exactly 0 in all bands is data.
    with open_scene(path, Reading(scale=scale, offset=0, nodata=nodata), needed=BANDS, gsd=10) as scene:
        pixels = scale * scene.read(BANDS, 0, scene.height)
    # A pixel has data exactly where the pixel that contains its middle has.
    rows, columns = ((np.arange(size) + 0.5) * 10 / side for size in pixels.shape[1:])
    inside = np.ix_(rows[rows < 90].astype(int), columns[columns < 100].astype(int))
    missing = np.isnan(pixels[:, : len(inside[0]), : inside[1].size])
    for band in missing:
        np.testing.assert_array_equal(band, empty[inside])
    known = pixels[np.isfinite(pixels)]
    margin = 0.6 * (high - low)
    limits = np.iinfo(dtype)
    assert known.min() >= max(limits.min, low - margin)
    assert known.max() <= min(limits.max, high + margin)
    assert (known < low + 0.2 * (high - low)).mean() > 0.05  # still dark and bright: nothing wrapped around
    assert (known > high - 0.2 * (high - low)).mean() > 0.05


def test_a_flat_scene_stays_flat_around_pixels_without_data(tmp_path: Path) -> None:
    dn = np.full((3, 60, 60), 1000, np.uint16)
    dn[:, :, :20] = 65535
    dn[:, 30, 40] = 65535
    dn[0, 10:20, 40:50] = 65535  # lacks one band
    path = write(tmp_path / "s.tif", dn, "EPSG:32633", Affine(20, 0, 3e5, 0, -20, 5e6), 65535)
    with open_scene(path, needed=BANDS, gsd=10) as scene:
        pixels = scene.read(BANDS, 0, 120)
    np.testing.assert_allclose(pixels[np.isfinite(pixels)], 0.1, rtol=1e-6)
    missing = np.isnan(pixels[0])
    assert missing[:, :40].all()
    assert missing[60:62, 80:82].all()
    assert missing[21:39, 81:99].all()
    assert missing.sum() == pytest.approx(40 * 120 + 4 + 20 * 20, abs=80)


def test_what_a_mask_hides_stays_hidden(tmp_path: Path) -> None:
    dn = np.full((3, 60, 60), 1000, np.uint16)
    hidden = np.random.default_rng(0).random((60, 60)) < 0.1
    dn[:, hidden] = 60_000
    path = write(tmp_path / "s.tif", dn, "EPSG:32633", Affine(20, 0, 3e5, 0, -20, 5e6))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK="YES"), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(~hidden)
    with open_scene(path, needed=BANDS, gsd=10) as scene:
        pixels = scene.read(BANDS, 0, 120)
    np.testing.assert_array_equal(np.isnan(pixels[0]), hidden.repeat(2, 0).repeat(2, 1))
    np.testing.assert_allclose(pixels[np.isfinite(pixels)], 0.1, rtol=1e-6)


def test_a_dark_band_is_data_where_nothing_is_declared(tmp_path: Path) -> None:
    dn = np.full((3, 60, 60), 1000, np.uint16)
    dn[2, 20:40, 20:40] = 0
    path = write(tmp_path / "s.tif", dn, "EPSG:32633", Affine(20, 0, 3e5, 0, -20, 5e6))
    with open_scene(path, needed=BANDS, gsd=10) as scene:
        pixels = scene.read(BANDS, 0, 120)
    assert np.isfinite(pixels).all()
    np.testing.assert_allclose(pixels[2, 44:76, 44:76], 0, atol=1.01e-4)


def test_without_a_crs_only_if_allowed(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tif", np.ones((3, 70, 80), np.uint16), None, Affine.identity())
    with pytest.raises(SceneError, match=r"s\.tif: has no coordinate reference system.*`allow_no_crs=True`"):
        open_scene(path, needed=BANDS, gsd=10)
    with open_scene(path, Reading(allow_no_crs=True), needed=BANDS, gsd=10) as scene:
        assert scene.transform == Affine(10, 0, 0, 0, -10, 0)
        assert scene.crs is not None
        assert scene.gsd is None


def test_ground_is_measured_along_the_ellipsoid(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tif", np.ones((3, 70, 80), np.uint16), "EPSG:3857", Affine(10, 0, 1.5e6, 0, -10, 5.8e6))
    with rasterio.open(path) as dataset:
        found = ground(dataset)
    lat = Transformer.from_crs(3857, 4326, always_xy=True).transform(1.5e6, 5.8e6)[1]
    assert found.across == pytest.approx(10 * np.cos(np.radians(lat)), rel=0.005)
    assert found.skew == 0
    assert CRS.from_epsg(3857).is_projected
