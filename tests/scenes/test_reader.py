from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from geocfl.errors import SceneError, UsageError
from geocfl.scenes import Reading, open_scene
from geocfl.scenes.bands import BANDS
from geocfl.scenes.checks import scene_warnings

RGB = ("B04", "B03", "B02")


def write(path: Path, dn: np.ndarray, bands=("B02", "B03", "B04"), nodata=None, crs="EPSG:32633", **profile) -> Path:
    scales, offsets = profile.pop("scales", None), profile.pop("offsets", None)
    with rasterio.open(
        path, "w", driver="GTiff", height=dn.shape[1], width=dn.shape[2], count=len(dn), dtype=dn.dtype,
        crs=crs, transform=Affine(10, 0, 3e5, 0, -10, 5e6), nodata=nodata, **profile,
    ) as dataset:  # fmt: skip
        dataset.write(dn)
        if bands:
            dataset.descriptions = bands
        if scales:
            dataset.scales, dataset.offsets = scales, offsets
    return path


@pytest.fixture
def dn() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 3000, (3, 100, 80), dtype=np.uint16)


def test_named_bands_come_in_the_order_asked_for(tmp_path: Path, dn: np.ndarray) -> None:
    with open_scene(write(tmp_path / "s.tif", dn)) as scene:
        got = scene.read(RGB, 10, 30)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, dn[::-1, 10:30] / 10_000, rtol=1e-6)
        assert scene.gsd == pytest.approx(10)
        assert scene.scaling_source == "Sentinel-2's default"


def test_options_set_the_scaling(tmp_path: Path, dn: np.ndarray) -> None:
    with open_scene(write(tmp_path / "s.tif", dn), Reading(scale=5000, offset=-1000)) as scene:
        np.testing.assert_allclose(scene.read(("B04",), 0, 5)[0], (dn[2, :5].astype(float) - 1000) / 5000, atol=1e-6)


def test_scale_and_offset_tags_of_gdal(tmp_path: Path, dn: np.ndarray) -> None:
    path = write(tmp_path / "s.tif", dn, scales=(1e-4,) * 3, offsets=(-0.1,) * 3)
    with open_scene(path) as scene:
        np.testing.assert_allclose(scene.read(("B02",), 0, 5)[0], dn[0, :5] * 1e-4 - 0.1, atol=1e-6)
        assert scene.scaling["B02"].offset == pytest.approx(-1000)


def test_eight_bit_scenes_take_eurosats_stretch(tmp_path: Path) -> None:
    dn = np.full((3, 64, 64), 255, np.uint8)
    with open_scene(write(tmp_path / "s.tif", dn)) as scene:
        assert scene.read(RGB, 0, 1).max() == pytest.approx(0.275)


def test_declared_nodata_in_any_needed_band(tmp_path: Path, dn: np.ndarray) -> None:
    dn[0, 5, 7] = 9999  # B02
    with open_scene(write(tmp_path / "s.tif", dn, nodata=9999)) as scene:
        missing = np.isnan(scene.read(RGB, 0, 100))
        assert missing[:, 5, 7].all()
        assert missing.sum() == 3
        assert not np.isnan(scene.read(("B04",), 0, 100)).any()


def test_without_declared_nodata_all_zero_is_none(tmp_path: Path, dn: np.ndarray) -> None:
    dn[:, 3, 3] = 0
    dn[1, 4, 4] = 0
    with open_scene(write(tmp_path / "s.tif", dn)) as scene:
        missing = np.isnan(scene.read(RGB, 0, 100)[0])
        assert missing[3, 3]
        assert missing.sum() == 1


@pytest.mark.parametrize("nodata", [-999, np.nan, -32768])
@pytest.mark.parametrize("fill", [0, -9999, -0.9999])
def test_values_that_are_no_reflectance_are_no_data_whatever_the_file_declares(
    tmp_path: Path, dn: np.ndarray, nodata: float, fill: float
) -> None:
    values = dn.astype(np.float32) / 10_000
    values[:, :20] = nodata
    values[:, 20:50] = fill
    values[0, 60] = 0
    values[0, 61] = -0.08
    with open_scene(write(tmp_path / "s.tif", values, nodata=nodata)) as scene:
        missing = np.isnan(scene.read(RGB, 0, 100)[0])
        assert scene.data_share() == pytest.approx(0.5)
    assert missing[:50].all()
    assert not missing[50:].any()


def test_packed_numbers_may_be_zero(tmp_path: Path, dn: np.ndarray) -> None:
    packed = dn.astype(np.int16) - 1500
    packed[:, 7] = 0
    path = write(tmp_path / "s.tif", packed, nodata=-32768, scales=(1e-4,) * 3, offsets=(0.15,) * 3)
    with open_scene(path) as scene:
        np.testing.assert_allclose(scene.read(RGB, 7, 8), 0.15, atol=1e-6)


def test_internal_masks_count(tmp_path: Path, dn: np.ndarray) -> None:
    path = write(tmp_path / "s.tif", dn)
    mask = np.full((100, 80), 255, np.uint8)
    mask[50:, :] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(mask)
    with open_scene(path) as scene:
        assert np.array_equal(np.isnan(scene.read(RGB, 0, 100)[0]), mask == 0)


def test_floating_scenes_with_nan(tmp_path: Path, dn: np.ndarray) -> None:
    values = dn.astype(np.float32)
    values[2, 0, 0] = np.nan
    with open_scene(write(tmp_path / "s.tif", values)) as scene:
        assert np.isnan(scene.read(RGB, 0, 1)[:, 0, 0]).all()


def test_unharmonized_scenes_are_warned_of(tmp_path: Path, dn: np.ndarray) -> None:
    path = write(tmp_path / "s.tif", dn + 1100)
    with open_scene(path) as scene:
        assert "`offset=-1000`" in scene_warnings(scene)[0]
    with open_scene(path, Reading(offset=-1000)) as scene:
        assert scene_warnings(scene) == []


def test_a_positive_offset_is_warned_of(tmp_path: Path, dn: np.ndarray) -> None:
    with open_scene(write(tmp_path / "s.tif", dn), Reading(offset=1000)) as scene:
        assert "`offset` is 1000" in scene_warnings(scene)[0]
        assert "`offset=-1000`" in scene_warnings(scene)[0]


def test_an_offset_applied_twice_is_warned_of(tmp_path: Path, dn: np.ndarray) -> None:
    path = write(tmp_path / "s.tif", dn)
    with open_scene(path) as scene:
        assert scene_warnings(scene) == []
    with open_scene(path, Reading(offset=-1000)) as scene:
        assert "`offset=0`" in scene_warnings(scene)[0]


@pytest.mark.parametrize(("name", "level"), [("S2_L2A_x", "L2A"), ("S2A_MSIL1C_2019", "L1C"), ("scene", "unknown")])
def test_level_from_the_name(tmp_path: Path, dn: np.ndarray, name: str, level: str) -> None:
    with open_scene(write(tmp_path / f"{name}.tif", dn)) as scene:
        assert scene.level == level


def test_missing_bands_name_the_remedy(tmp_path: Path, dn: np.ndarray) -> None:
    path = write(tmp_path / "s.tif", dn[:2], bands=None, photometric="MINISBLACK")
    with pytest.raises(SceneError, match=r"s\.tif: .* has 2 bands without names; use a scene that has them"):
        open_scene(path, needed=RGB)


def test_bands_that_may_be_named_otherwise(tmp_path: Path, dn: np.ndarray) -> None:
    path = write(tmp_path / "s.tif", dn, bands=("B05", "B06", "B07"))
    with pytest.raises(SceneError, match=r"B04, B03, B02 are needed, but the scene has only B05, B06, B07; .*`bands`"):
        open_scene(path, needed=RGB)


def test_more_bands_needed_than_there_are(tmp_path: Path, dn: np.ndarray) -> None:
    path = write(tmp_path / "s.tif", np.concatenate([dn, dn[:1]]), bands=("B02", "B03", "B04", "B08"))
    with pytest.raises(SceneError, match=r"has only B02, B03, B04, B08; .*use a scene that has them") as refused:
        open_scene(path, needed=BANDS)
    assert "assumed" not in str(refused.value)


def test_bands_without_names_are_assumed_and_said(tmp_path: Path, dn: np.ndarray) -> None:
    red, green, blue = dn
    dn = np.stack([red, green // 2 + 500, blue // 3 + 1000])  # blue is brighter in the dark and varies less
    with open_scene(write(tmp_path / "s.tif", dn, bands=None, photometric="MINISBLACK"), needed=RGB) as scene:
        np.testing.assert_allclose(scene.read(RGB, 0, 9), dn[:, :9] / 10_000, rtol=1e-6)
        assert "assumed to be B04, B03, B02" in scene_warnings(scene)[0]


def test_eight_bit_pictures_are_warned_of(tmp_path: Path) -> None:
    with open_scene(write(tmp_path / "s.tif", np.full((3, 64, 64), 255, np.uint8))) as scene:
        assert "8-bit picture" in scene_warnings(scene)[0]
    with open_scene(write(tmp_path / "s.tif", np.full((3, 64, 64), 255, np.uint8)), Reading(scale=255)) as scene:
        assert scene_warnings(scene) == []


def test_files_that_are_no_scene(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match=r"none\.tif: no such file"):
        open_scene(tmp_path / "none.tif")
    (tmp_path / "text.tif").write_text("hello")
    with pytest.raises(SceneError, match=r"text\.tif: not a readable raster"):
        open_scene(tmp_path / "text.tif")


def test_truncated_pixels(tmp_path: Path, dn: np.ndarray) -> None:
    path = write(tmp_path / "s.tif", dn, compress="deflate")
    path.write_bytes(path.read_bytes()[:-15_000])
    with (
        pytest.raises(SceneError, match=r"s\.tif.*(decoded|readable)"),
        open_scene(path) as scene,
    ):
        scene.read(RGB, 0, 100)


@pytest.mark.parametrize("bad", [{"scale": 0}, {"scale": -1}, {"offset": float("nan")}])
def test_impossible_options(bad: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=f"`{next(iter(bad))}` is .* must be"):
        Reading(**bad)
