"""Warnings about the size of a scene's pixels. Those about its radiometry are tested with the reader."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from geocfl.core.radiometry import Scaling
from geocfl.scenes import Reading, open_scene
from geocfl.scenes.checks import RIGHT, scene_warnings
from geocfl.scenes.source import Band, Source

DOCS = Path(__file__).parents[2] / "docs"


def write(path: Path, side: float, bands: tuple[str, ...], crs: str | None = "EPSG:32633", width: int = 2400) -> Path:
    size = round(width / side)
    origin = (12.0, 45.0) if crs == "EPSG:4326" else (3e5, 5e6)
    side = side / 111_000 if crs == "EPSG:4326" else side
    with rasterio.open(
        path, "w", driver="GTiff", height=size, width=size, count=len(bands), dtype="uint16", crs=crs, nodata=0,
        transform=Affine(side, 0, origin[0], 0, -side, origin[1]),
    ) as dataset:  # fmt: skip
        dataset.write(np.full((len(bands), size, size), 900, np.uint16))
        dataset.descriptions = bands
    return path


@pytest.mark.parametrize(
    ("side", "crs", "warned"),
    [
        (10, "EPSG:32633", None),
        (14, "EPSG:32633", None),
        (15, "EPSG:32633", "15 m"),
        (20, "EPSG:32633", "20 m"),
        (60, "EPSG:32633", "60 m"),
        (30, "EPSG:4326", "30 m"),
        (20, "EPSG:3857", None),  # 14 m on the ground
    ],
)
def test_coarse_pixels_are_announced_with_what_they_cost(tmp_path: Path, side: float, crs: str, warned: str) -> None:
    scene = write(tmp_path / "s.tif", side, ("B04", "B03", "B02"), crs)
    if crs == "EPSG:3857":
        with rasterio.open(scene, "r+") as dataset:
            dataset.transform = Affine(side, 0, 1.4e6, 0, -side, 5.65e6)
    for gsd in (10, None):
        with open_scene(scene, needed=("B04", "B03", "B02"), gsd=gsd) as opened:
            found = [text for text in scene_warnings(opened) if "training data" in text]
        assert len(found) == bool(warned)
        for text in found:
            assert f"s.tif: its pixels of {warned} (B04, B03, B02)" in text
            assert f"{RIGHT['20 m']:.1%} correctly instead of {RIGHT['10 m']:.1%}" in text


def test_bands_that_the_sensor_takes_at_20_m_are_fine(tmp_path: Path) -> None:
    bands = {
        "B11": Band(str(write(tmp_path / "B11.tif", 20, ("B11",)))),
        "B04": Band(str(write(tmp_path / "B04.tif", 10, ("B04",)))),
    }
    with open_scene(Source("scene", "scene", bands), needed=("B11", "B04"), gsd=10) as scene:
        assert scene_warnings(scene) == []


def test_one_coarse_band_among_fine_ones_is_named(tmp_path: Path) -> None:
    bands = {
        "B04": Band(str(write(tmp_path / "B04.tif", 10, ("B04",)))),
        "B03": Band(str(write(tmp_path / "B03.tif", 20, ("B03",)))),
    }
    with open_scene(Source("scene", "scene", bands), needed=("B04", "B03"), gsd=10) as scene:
        (text,) = scene_warnings(scene)
    assert "its pixels of 20 m (B03)" in text


def test_pixels_of_unknown_size_are_not_judged(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tif", 20, ("B04", "B03", "B02"), None)
    with open_scene(path, Reading(allow_no_crs=True), needed=("B04",), gsd=10) as scene:
        assert scene.pixels == {}
        assert scene_warnings(scene) == []


def test_the_documentation_has_the_same_figures() -> None:
    page = (DOCS / "explanation" / "limits.md").read_text()
    for share in RIGHT.values():
        assert f"{share:.1%}" in page


def test_bands_that_the_metadata_scale_differently_are_named(tmp_path: Path) -> None:
    files = {name: str(write(tmp_path / f"{name}.tif", 10, (name,))) for name in ("B04", "B03", "B02")}
    for odd, warned in ((Scaling(10000, -1000), False), (Scaling(10000, 0), True)):
        bands = {name: Band(file, scaling=Scaling(10000, -1000)) for name, file in files.items()}
        bands["B03"] = Band(files["B03"], scaling=odd)
        source = Source("product", "product", bands, scaling_source="its metadata")
        with open_scene(source, needed=("B04", "B03", "B02"), gsd=10) as scene:
            found = [text for text in scene_warnings(scene) if "differ" in text]
        named = "by its metadata (B04 10000 and -1000, B03 10000 and 0, B02 10000 and -1000)"
        assert len(found) == warned
        assert all(named in text for text in found)
