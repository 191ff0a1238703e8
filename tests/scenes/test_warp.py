"""Scenes on other grids, warped: their pixels lie where they did."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from pyproj import Transformer
from rasterio.crs import CRS

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
