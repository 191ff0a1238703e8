"""Bands of several rasters as one."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from geocfl.core.radiometry import Scaling
from geocfl.errors import SceneError
from geocfl.scenes import open_scene
from geocfl.scenes.source import Band, Source


def write(path: Path, dn: np.ndarray, size: int = 10, crs: str = "EPSG:32633", west: float = 3e5, nodata=None) -> str:
    with rasterio.open(
        path, "w", driver="GTiff", height=dn.shape[0], width=dn.shape[1], count=1, dtype=dn.dtype, crs=crs,
        transform=Affine(size, 0, west, 0, -size, 5e6), nodata=nodata,
    ) as dataset:  # fmt: skip
        dataset.write(dn, 1)
    return str(path)


@pytest.fixture
def dn() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 3000, (3, 120, 160), dtype=np.uint16)


def source(bands: dict[str, Band], nodata: float | None = 0) -> Source:
    return Source("scene", "scene", bands, nodata=nodata)


def test_each_band_comes_from_its_file(tmp_path: Path, dn: np.ndarray) -> None:
    names = ("B04", "B03", "B02")
    bands = {name: Band(write(tmp_path / f"{name}.tif", values)) for name, values in zip(names, dn, strict=True)}
    with open_scene(source(bands), needed=("B02", "B04"), gsd=10) as scene:
        assert scene.files == (bands["B02"].path, bands["B04"].path)
        np.testing.assert_allclose(scene.read(("B04", "B02"), 5, 50), dn[[0, 2], 5:50] / 10_000, rtol=1e-6)


def test_every_band_has_its_own_scaling(tmp_path: Path, dn: np.ndarray) -> None:
    scalings = {"B04": Scaling(10_000, -1000), "B03": Scaling(5_000)}
    bands = {
        name: Band(write(tmp_path / f"{name}.tif", values), scaling=scaling)
        for (name, scaling), values in zip(scalings.items(), dn, strict=False)
    }
    with open_scene(source(bands)) as scene:
        got = scene.read(("B04", "B03"), 0, 120)
    np.testing.assert_allclose(got[0], (dn[0].astype(float) - 1000) / 10_000, atol=1e-6)
    np.testing.assert_allclose(got[1], dn[1] / 5_000, rtol=1e-6)


def test_the_rasters_own_tags_and_type_count_where_nothing_else_does(tmp_path: Path, dn: np.ndarray) -> None:
    tagged = write(tmp_path / "B04.tif", dn[0])
    with rasterio.open(tagged, "r+") as dataset:
        dataset.scales, dataset.offsets = (1e-4,), (-0.1,)
    eight_bit = write(tmp_path / "B03.tif", np.full((120, 160), 255, np.uint8))
    with open_scene(source({"B04": Band(tagged), "B03": Band(eight_bit)})) as scene:
        got = scene.read(("B04", "B03"), 0, 120)
        assert scene.scaling_source == "the file's scale and offset"
    np.testing.assert_allclose(got[0], dn[0] * 1e-4 - 0.1, atol=1e-6)
    np.testing.assert_allclose(got[1], 0.275, rtol=1e-5)


def test_coarser_bands_are_brought_to_the_finest(tmp_path: Path) -> None:
    ramp = np.arange(80, dtype=np.uint16) * 20 + 100
    fine = write(tmp_path / "B04.tif", np.full((120, 160), 900, np.uint16))
    coarse = write(tmp_path / "B11.tif", np.tile(ramp, (60, 1)), size=20)
    with open_scene(source({"B11": Band(coarse), "B04": Band(fine)})) as scene:
        assert (scene.height, scene.width) == (120, 160)
        got = scene.read(("B11", "B04"), 0, 120) * 10_000
    assert (np.diff(got[0, 50, 4:-4]) > 0).all()  # no steps of two
    assert got[0, 50, 80] == pytest.approx(100 + 20 * 39.75, abs=1)
    np.testing.assert_allclose(got[1], 900, rtol=1e-6)


def test_coarser_bands_keep_what_is_sharp(tmp_path: Path) -> None:
    def waves(side: int, shape: tuple[int, int]) -> np.ndarray:
        rows, columns = ((np.indices(shape) + 0.5) * side) * 2 * np.pi
        return 5000 + 2000 * np.sin(columns / 100) * np.cos(rows / 90)

    fine = write(tmp_path / "B04.tif", np.full((120, 160), 900, np.uint16))
    coarse = write(tmp_path / "B11.tif", np.rint(waves(20, (60, 80))).astype(np.uint16), size=20)
    with open_scene(source({"B11": Band(coarse), "B04": Band(fine)})) as scene:
        got = scene.read(("B11",), 0, 120)[0] * 10_000
        assert scene.pixels == {"B11": pytest.approx(20, rel=0.002), "B04": pytest.approx(10, rel=0.002)}
    error = (got - waves(10, (120, 160)))[6:-6, 6:-6]
    assert np.sqrt(np.mean(error**2)) < 120  # about 270 with bilinear resampling


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("nodata", [0, 65535])
def test_no_data_of_a_coarser_band_does_not_bleed(tmp_path: Path, nodata: int, declared: bool) -> None:
    fine = write(tmp_path / "B04.tif", np.full((120, 160), 900, np.uint16))
    dn = np.full((60, 80), 1000, np.uint16)
    dn[:, :40] = nodata
    dn[20:30, 60:70] = nodata
    coarse = write(tmp_path / "B11.tif", dn, size=20, nodata=nodata if declared else None)
    with open_scene(source({"B11": Band(coarse), "B04": Band(fine)}, nodata=nodata)) as scene:
        pixels = scene.read(("B11", "B04"), 0, 120)[0]
        strips = np.concatenate([scene.read(("B11", "B04"), r, r + 17)[0] for r in range(0, 119, 17)])
    np.testing.assert_array_equal(strips, pixels[:119])
    np.testing.assert_allclose(pixels[np.isfinite(pixels)], 0.1, rtol=1e-6)
    assert np.isnan(pixels[:, :79]).all()
    assert np.isfinite(pixels[:38, 80:]).all()
    assert np.isnan(pixels[41:59, 121:139]).all()


def test_overshoots_of_a_coarser_band_stay_valid(tmp_path: Path) -> None:
    fine = write(tmp_path / "B04.tif", np.full((120, 160), 900, np.uint16))
    dn = np.random.default_rng(0).choice(np.array([1, 65_535], np.uint16), (60, 80))
    coarse = write(tmp_path / "B11.tif", dn, size=20)
    with open_scene(source({"B11": Band(coarse, scaling=Scaling(1)), "B04": Band(fine)})) as scene:
        pixels = scene.read(("B11",), 0, 120)[0]
    assert np.isfinite(pixels).all()
    whole = dn.repeat(2, 0).repeat(2, 1)
    assert pixels[whole == 1].mean() < 0.2 * 65_535  # nothing wrapped around
    assert pixels[whole == 65_535].mean() > 0.8 * 65_535


def test_no_data_of_one_band_is_no_data_of_the_pixel(tmp_path: Path, dn: np.ndarray) -> None:
    dn[1, :40] = 0
    bands = {name: Band(write(tmp_path / f"{name}.tif", v)) for name, v in zip(("B04", "B03"), dn, strict=False)}
    with open_scene(source(bands)) as scene:
        missing = np.isnan(scene.read(("B04", "B03"), 0, 120))
    assert missing[:, :40].all()
    assert not missing[:, 40:].any()
    with open_scene(source(bands, nodata=None)) as scene:  # not declared: only where all are 0
        assert not np.isnan(scene.read(("B04", "B03"), 0, 120)).any()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"crs": "EPSG:32634"}, "is in EPSG:32634 but .*a.tif in EPSG:32633"),
        ({"west": 300_100}, "covers another extent than .*a.tif"),
        ({"size": 20}, "covers another extent"),
    ],
)
def test_bands_that_disagree(tmp_path: Path, dn: np.ndarray, other: dict, message: str) -> None:
    bands = {"B04": Band(write(tmp_path / "a.tif", dn[0])), "B03": Band(write(tmp_path / "b.tif", dn[1], **other))}
    with pytest.raises(SceneError, match=rf"b\.tif: {message}") as caught:
        open_scene(source(bands))
    assert "use bands of one scene" in str(caught.value)


def test_a_band_that_cannot_be_read(tmp_path: Path, dn: np.ndarray) -> None:
    (tmp_path / "B03.jp2").write_bytes(b"")
    bands = {"B04": Band(write(tmp_path / "B04.tif", dn[0])), "B03": Band(str(tmp_path / "B03.jp2"))}
    with pytest.raises(SceneError, match=r"B03\.jp2: the raster of B03 cannot be read .*get the scene again"):
        open_scene(source(bands))
