"""Scales that the numbers of a scene, or its files' names, show; and numbers that cannot be reflectance."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from geocfl.errors import SceneError
from geocfl.scenes import Reading, open_scene
from geocfl.scenes.checks import scene_warnings

BANDS = ("B02", "B03", "B04")
RAW = "2022-06-01-00_00_2022-06-01-23_59_Sentinel-2_L2A_{}_(Raw).tiff"


def write(path: Path, numbers: np.ndarray, bands: tuple[str, ...] = BANDS, scale: float | None = None) -> Path:
    path.parent.mkdir(exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", height=numbers.shape[1], width=numbers.shape[2], count=len(numbers),
        dtype=numbers.dtype, crs="EPSG:32633", transform=Affine(10, 0, 3e5, 0, -10, 5e6),
    ) as dataset:  # fmt: skip
        dataset.write(numbers)
        dataset.descriptions = bands[: len(numbers)]
        if scale:
            dataset.scales = (scale,) * len(numbers)
    return path


@pytest.fixture
def reflectance() -> np.ndarray:
    """Land, with some bright pixels and a border without data; multiples of 1/10000, as products have them."""
    rng = np.random.default_rng(0)
    land = rng.gamma(4, 0.02, (3, 90, 120)) + 0.02
    land[:, rng.random((90, 120)) < 0.005] = 0.9
    land[:, :, :10] = 0
    return np.round(land, 4)


def read(path: Path, **how: float) -> np.ndarray:
    with open_scene(path, Reading(**how), needed=BANDS) as scene:
        return scene.read(BANDS, 0, scene.height)


def assert_same(found: np.ndarray, reflectance: np.ndarray, within: float) -> None:
    np.testing.assert_array_equal(np.isnan(found), np.broadcast_to((reflectance == 0).all(axis=0), found.shape))
    np.testing.assert_allclose(np.nan_to_num(found), reflectance, atol=within)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floats_below_1_are_reflectance(tmp_path: Path, reflectance: np.ndarray, dtype: str) -> None:
    path = write(tmp_path / "s.tif", reflectance.astype(dtype))
    assert_same(read(path), reflectance, 1e-6)
    with open_scene(path) as scene:
        (said,) = scene_warnings(scene)
        assert "are reflectance itself, so `scale=1` is used" in said
    with open_scene(path, Reading(scale=1)) as scene:
        assert scene_warnings(scene) == []


def test_floats_with_a_scale_tag_that_is_applied_already(tmp_path: Path, reflectance: np.ndarray) -> None:
    path = write(tmp_path / "s.tif", reflectance.astype(np.float32), scale=1e-4)
    assert_same(read(path), reflectance, 1e-6)


def test_floats_with_a_scale_tag_that_holds(tmp_path: Path, reflectance: np.ndarray) -> None:
    path = write(tmp_path / "s.tif", (reflectance * 10_000).astype(np.float32), scale=1e-4)
    assert_same(read(path), reflectance, 1e-5)
    with open_scene(path) as scene:
        assert scene_warnings(scene) == []


def test_floats_of_digital_numbers_are_read_as_before(tmp_path: Path, reflectance: np.ndarray) -> None:
    path = write(tmp_path / "s.tif", (reflectance * 10_000).astype(np.float32))
    assert_same(read(path), reflectance, 1e-5)


@pytest.mark.parametrize(
    ("factor", "dtype", "said"),
    [
        (100, "float32", "darker than land; use `scale`"),
        (100, "uint16", "darker than land; use `scale`"),
        (255, "uint16", "darker than land; use `scale`"),
        (50_000, "float32", "brighter than any surface; use `scale`"),
        (300_000, "float64", "brighter than any surface; use `scale`"),
        (300_000, "int32", "brighter than any surface; use `scale`"),
    ],
)
def test_numbers_of_an_unknown_scale_are_refused(
    tmp_path: Path, reflectance: np.ndarray, factor: float, dtype: str, said: str
) -> None:
    numbers = reflectance * factor if dtype.startswith("float") else np.round(reflectance * factor)
    numbers[:, 40:] *= 2.5 if factor == 50_000 else 1
    path = write(tmp_path / "s.tif", numbers.astype(dtype))
    with pytest.raises(SceneError, match=said) as refused:
        read(path)
    assert "s.tif: its values of up to" in str(refused.value)
    assert np.isfinite(read(path, scale=factor)).any()


@pytest.mark.parametrize("rounded", [np.round, np.floor])
def test_sixteen_bits_are_told_by_their_steps(tmp_path: Path, reflectance: np.ndarray, rounded: np.ufunc) -> None:
    path = write(tmp_path / "s.tif", rounded(reflectance * 65_535).astype(np.uint16))
    assert_same(read(path), reflectance, 2e-5)
    with open_scene(path) as scene:
        (said,) = scene_warnings(scene)
        assert "`scale=65535` is used" in said
    with open_scene(path, Reading(scale=65_535)) as scene:
        assert scene_warnings(scene) == [], "no offset is missing"


@pytest.mark.parametrize(("dtype", "scale"), [("uint8", 255), ("uint16", 65_535), ("float32", 1)])
def test_raw_bands_of_copernicus_browser(tmp_path: Path, reflectance: np.ndarray, dtype: str, scale: int) -> None:
    for band, values in zip(BANDS, reflectance * scale, strict=True):
        whole = values if scale == 1 else np.round(values)
        write(tmp_path / "s" / RAW.format(band), whole[None].astype(dtype), (band,))
    assert_same(read(tmp_path / "s"), reflectance, 0.5 / scale if scale > 1 else 1e-6)


def test_band_files_of_eight_bits_without_such_names_are_refused(tmp_path: Path, reflectance: np.ndarray) -> None:
    for band, values in zip(BANDS, np.round(reflectance * 255).astype(np.uint8), strict=True):
        write(tmp_path / "s" / f"{band}.tif", values[None], (band,))
    with pytest.raises(SceneError, match=r"its bands of 8 bits may be .*; use `scale=255`"):
        read(tmp_path / "s")
    assert_same(read(tmp_path / "s", scale=255), reflectance, 0.5 / 255)


def test_water_alone_is_not_too_dark(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    middle = np.array([420, 260, 90])[:, None, None]
    sea = rng.normal(middle, 15, (3, 80, 80)).round().clip(1).astype(np.uint16)
    np.testing.assert_allclose(read(write(tmp_path / "s.tif", sea)), sea / 10_000, rtol=1e-5)


def test_snow_and_clouds_are_not_too_bright(tmp_path: Path) -> None:
    snow = np.random.default_rng(0).normal(11_000, 2_000, (3, 80, 80)).round().clip(5_000, 17_000).astype(np.uint16)
    np.testing.assert_allclose(read(write(tmp_path / "s.tif", snow)), snow / 10_000, rtol=1e-5)


def test_a_wrong_scale_option_is_warned_of(tmp_path: Path, reflectance: np.ndarray) -> None:
    path = write(tmp_path / "s.tif", (reflectance * 10_000).astype(np.uint16))
    for scale, said in ((100, "brighter than any surface"), (10_000_000, "darker than any surface")):
        with open_scene(path, Reading(scale=scale)) as scene:
            assert any(said in warning for warning in scene_warnings(scene))


def test_numbers_that_would_be_all_dark_land_are_warned_of(tmp_path: Path, reflectance: np.ndarray) -> None:
    dull = np.where(reflectance > 0.4, 0.3, reflectance)
    path = write(tmp_path / "s.tif", np.round(dull * 1000).astype(np.uint16))
    with open_scene(path) as scene:
        assert "only water and dense forest are; if so, use `scale=10000`, else" in scene_warnings(scene)[0]
    for scale in (1000, 10_000):
        with open_scene(path, Reading(scale=scale)) as scene:
            assert scene_warnings(scene) == []
    with open_scene(write(tmp_path / "t.tif", np.round(dull * 10_000).astype(np.uint16))) as scene:
        assert scene_warnings(scene) == []
