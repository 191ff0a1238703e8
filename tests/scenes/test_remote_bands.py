"""Scenes on a server with one file per band: read in ranges, with their masks, by no driver that names other files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray

from geocfl.errors import SceneError
from geocfl.scenes import Reading, open_scene
from geocfl.scenes.checks import scene_warnings
from geocfl.scenes.collect import list_scenes
from geocfl.scenes.source import Band, Source
from tests.scenes.range_server import RangeServer

BANDS = ("B02", "B03", "B04")
SIDE = 2048
START, ROWS = 1100, 64  # in one row of blocks, an eighth of the file


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*os.environ]:
        if name.startswith("GDAL_HTTP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.01")
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "2")


@pytest.fixture(scope="module")
def pixels() -> dict[str, NDArray[np.uint16]]:
    rng = np.random.default_rng(0)
    return {band: rng.integers(300, 3000, (SIDE, SIDE), dtype=np.uint16) for band in BANDS}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RangeServer]:
    with RangeServer(tmp_path) as server:
        yield server


def write(path: Path, values: NDArray[Any], mask: NDArray[np.uint8] | None = None, **options: Any) -> None:
    height, width = values.shape
    place = {"crs": "EPSG:32633", "transform": Affine(10, 0, 3e5, 0, -10, 5e6)}
    options = {"driver": "GTiff", "tiled": True, "blockxsize": 256, "blockysize": 256} | place | options
    tags = options.pop("tags", {})
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", height=height, width=width, count=1, dtype=values.dtype, **options) as file,
    ):
        file.write(values, 1)
        file.update_tags(**tags)
        if mask is not None:
            file.write_mask(mask)


def write_all(folder: Path, pixels: dict[str, NDArray[np.uint16]], **options: Any) -> None:
    for band, values in pixels.items():
        write(folder / f"{band}.tif", values, **options)


def item(server: RangeServer, ending: str = "tif?sig=SECRET", **properties: object) -> str:
    """The URL of an Item with one asset per band."""
    content = {
        "type": "Feature", "stac_version": "1.0.0", "id": "S2B_X", "geometry": None, "links": [],
        "properties": {"datetime": "2025-03-02T09:50:29Z", **properties},
        "assets": {band: {"href": f"./{band}.{ending}", "type": "image/tiff"} for band in BANDS},
    }  # fmt: skip
    (server.folder / "item.json").write_text(json.dumps(content))
    return server.url("item.json")


def listed(named: str | list[str] | Source) -> Source:
    (scene,) = list_scenes(named)
    if scene.error:
        raise scene.error
    assert scene.source
    return scene.source


def source_of(server: RangeServer) -> Source:
    return Source("scene", "scene", {band: Band(server.url(f"{band}.tif")) for band in BANDS})


FORMS = {
    "item": item,
    "source": source_of,
    "urls": lambda server: [server.url(f"{band}.tif") for band in BANDS],
    "signed": lambda server: [f"{server.url(f'{band}.tif')}?sig=SE.CRET" for band in BANDS],
    "vsicurl": lambda server: [f"/vsicurl/{server.url(f'{band}.tif')}" for band in BANDS],
    "user": lambda server: [server.url(f"{band}.tif").replace("//", "//me:SECRET@") for band in BANDS],
}


@pytest.mark.parametrize("form", FORMS)
def test_some_rows_are_a_small_part_of_the_bytes(
    server: RangeServer, pixels: dict[str, NDArray[np.uint16]], form: str
) -> None:
    write_all(server.folder, pixels)
    source = listed(FORMS[form](server))
    assert "SECRET" not in source.path
    assert "SE.CRET" not in source.path
    with open_scene(source, Reading(scale=10_000, offset=0, nodata=0)) as scene:
        got = scene.read(BANDS, START, START + ROWS)
    for band, values in zip(BANDS, got, strict=True):
        np.testing.assert_allclose(values, pixels[band][START : START + ROWS] / 10_000, rtol=1e-6)
        size = (server.folder / f"{band}.tif").stat().st_size
        assert 2 * SIDE * ROWS < server.sent(f"{band}.tif") < size / 5
    assert server.names() <= {"item.json", *(f"{band}.tif" for band in BANDS)}


def test_a_local_virtual_raster_of_files_on_a_server(
    server: RangeServer, pixels: dict[str, NDArray[np.uint16]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    write_all(server.folder, pixels)
    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{number}"><Description>{band}</Description><SimpleSource>'
        f'<SourceFilename relativeToVRT="0">{prefix}{server.url(f"{band}.tif")}</SourceFilename>'
        f"<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        for number, (band, prefix) in enumerate(zip(BANDS, ("/vsicurl/", "", ""), strict=True), start=1)
    )
    path = tmp_path_factory.mktemp("local") / "scene.vrt"
    path.write_text(
        f'<VRTDataset rasterXSize="{SIDE}" rasterYSize="{SIDE}"><SRS>EPSG:32633</SRS>'
        f"<GeoTransform>3e5, 10, 0, 5e6, 0, -10</GeoTransform>{bands}</VRTDataset>"
    )
    with open_scene(listed(str(path)), Reading(scale=10_000, offset=0, nodata=0)) as scene:
        got = scene.read(BANDS, START, START + ROWS)
    np.testing.assert_allclose(got[2], pixels["B04"][START : START + ROWS] / 10_000, rtol=1e-6)
    for band in BANDS:
        assert server.sent(f"{band}.tif") < (server.folder / f"{band}.tif").stat().st_size / 5


def test_jp2_bands(server: RangeServer, pixels: dict[str, NDArray[np.uint16]]) -> None:
    small = {band: values[:200, :300] for band, values in pixels.items()}
    for band, values in small.items():
        lossless = {"QUALITY": "100", "REVERSIBLE": "YES"}
        write(server.folder / f"{band}.jp2", values, driver="JP2OpenJPEG", tiled=False, **lossless)
    for ending in ("jp2", "jp2?sig=SECRET"):
        with open_scene(listed(item(server, ending)), Reading(scale=10_000, offset=0)) as scene:
            got = scene.read(BANDS, 0, 200)
        np.testing.assert_allclose(got, np.stack([small[band] for band in BANDS]) / 10_000, rtol=1e-6)


@pytest.mark.parametrize("form", ["urls", "signed"])
def test_masks_and_nodata_hold_as_for_local_files(
    server: RangeServer, pixels: dict[str, NDArray[np.uint16]], tmp_path: Path, form: str
) -> None:
    mask = np.full((SIDE, SIDE), 255, np.uint8)
    mask[:50, :70] = 0
    write(server.folder / "B02.tif", pixels["B02"], mask)
    write(server.folder / "B03.tif", pixels["B03"], nodata=300)
    write(server.folder / "B04.tif", pixels["B04"])
    how = Reading(scale=10_000, offset=0)
    with open_scene(listed(FORMS[form](server)), how) as far, open_scene(listed(str(tmp_path)), how) as near:
        one, other = far.read(BANDS, 0, ROWS), near.read(BANDS, 0, ROWS)
    np.testing.assert_array_equal(one, other)
    assert np.isnan(one[:, :50, :70]).all()
    assert np.isnan(one[0, 50:, 70:]).any()


@pytest.mark.parametrize("overviews", [True, False], ids=["overviews", "none"])
def test_undeclared_nodata_is_recognized(server: RangeServer, tmp_path: Path, overviews: bool) -> None:
    values = np.random.default_rng(1).integers(300, 3000, (1024, 1024)).astype(np.int16)
    values[:, :200] = -10_000
    for band in BANDS:
        write(tmp_path / f"{band}.tif", values)
        if overviews:
            with rasterio.open(tmp_path / f"{band}.tif", "r+") as file:
                file.build_overviews([2, 4, 8], rasterio.enums.Resampling.average)
    before = {band: server.sent(f"{band}.tif") for band in BANDS}
    with open_scene(listed(FORMS["urls"](server)), Reading(scale=10_000, offset=0)) as scene:
        sent = [server.sent(f"{band}.tif") - before[band] for band in BANDS]
        got = scene.read(BANDS, 500, 564)
    assert any("-10000 is assumed" in note for note in scene.notes)
    assert np.isnan(got[:, :, :200]).all()
    assert not np.isnan(got[:, :, 200:]).any()
    assert max(sent) < values.nbytes / 2


def test_the_baseline_is_that_of_any_band_file(server: RangeServer, pixels: dict[str, NDArray[np.uint16]]) -> None:
    for band, values in pixels.items():
        tags = {"PROCESSING_BASELINE": "05.11"} if band == "B04" else {}
        write(server.folder / f"{band}.tif", values[:512, :512] + 1000, tags=tags)
    for form in (item(server), FORMS["vsicurl"](server), str(server.folder)):
        with open_scene(listed(form)) as scene:
            assert scene.baseline == "05.11"
            assert any("processing baseline 05.11" in warning for warning in scene_warnings(scene))


def test_the_baseline_of_an_item(server: RangeServer, pixels: dict[str, NDArray[np.uint16]]) -> None:
    write_all(server.folder, {band: values[:512, :512] + 1000 for band, values in pixels.items()})
    with open_scene(listed(item(server, **{"s2:processing_baseline": "05.11"}))) as scene:
        assert any("processing baseline 05.11" in warning for warning in scene_warnings(scene))


def test_failures_name_the_scene_and_are_over_when_the_server_recovers(
    server: RangeServer, pixels: dict[str, NDArray[np.uint16]]
) -> None:
    write_all(server.folder, pixels)
    with open_scene(listed(item(server)), Reading(scale=10_000, offset=0, nodata=0)) as scene:
        scene.read(BANDS, 0, ROWS)
        server.fail("B03.tif", status=503)
        with pytest.raises(
            SceneError, match=r"(item\.json|B03\.tif): the server failed 3 times \(HTTP 503\)"
        ) as caught:
            scene.read(BANDS, START, START + ROWS)
        assert caught.value.transient
        assert "SECRET" not in str(caught.value)
        server.heal("B03.tif")
        server.fail("B04.tif", cut=100, times=2)
        got = scene.read(BANDS, START, START + ROWS)
    for band, values in zip(BANDS, got, strict=True):
        np.testing.assert_allclose(values, pixels[band][START : START + ROWS] / 10_000, rtol=1e-6)


@pytest.mark.parametrize("late", [False, True], ids=["at once", "after it was opened"])
@pytest.mark.parametrize("form", ["urls", "signed"])
def test_no_band_shows_a_local_file(
    server: RangeServer,
    pixels: dict[str, NDArray[np.uint16]],
    tmp_path_factory: pytest.TempPathFactory,
    form: str,
    late: bool,
) -> None:
    mine = tmp_path_factory.mktemp("mine") / "mine.tif"
    write(mine, np.full((SIDE, SIDE), 7777, np.uint16))
    trap = (
        f'<VRTDataset rasterXSize="{SIDE}" rasterYSize="{SIDE}"><SRS>EPSG:32633</SRS>'
        "<GeoTransform>3e5, 10, 0, 5e6, 0, -10</GeoTransform>"
        '<VRTRasterBand dataType="UInt16" band="1"><SimpleSource>'
        f"<SourceFilename>{mine}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    write_all(server.folder, pixels)
    if not late:
        (server.folder / "B03.tif").write_text(trap)

    def read() -> None:
        with open_scene(listed(FORMS[form](server)), Reading(scale=10_000, offset=0, nodata=0)) as scene:
            (server.folder / "B03.tif").write_text(trap)
            scene.read(BANDS, 0, ROWS)

    with pytest.raises(SceneError, match=r"B03\.tif: has the format VRT"):
        read()


def test_places_from_elsewhere_keep_the_driver(server: RangeServer, pixels: dict[str, NDArray[np.uint16]]) -> None:
    write_all(server.folder, {band: values[:512, :512] for band, values in pixels.items()}, crs=None)
    source = listed(item(server, **{"proj:code": "EPSG:32633"}))
    for needed in (BANDS, ("B04",)):  # of several files and of one
        with open_scene(source, Reading(scale=10_000, offset=0), needed=needed, gsd=10) as scene:
            assert scene.crs == rasterio.crs.CRS.from_epsg(32633)
            got = scene.read(needed, 0, 64)
        np.testing.assert_allclose(got[-1], pixels["B04"][:64, :512] / 10_000, rtol=1e-6)


def test_messages_about_bands_hold_no_token(server: RangeServer, pixels: dict[str, NDArray[np.uint16]]) -> None:
    write_all(server.folder, {band: values[:512, :512] for band, values in pixels.items()})
    write(server.folder / "B04.tif", pixels["B04"][:256, :256])
    with pytest.raises(SceneError, match="covers another extent") as caught:
        open_scene(listed(FORMS["signed"](server)))
    assert "SE.CRET" not in str(caught.value)
    twice = [f"{server.url(name)}?sig=SE.CRET" for name in ("B02.tif", "B02_10m.tif", "b2.tif")]
    with pytest.raises(SceneError, match="both hold B02") as caught:
        list_scenes(twice)
    assert "SE.CRET" not in str(caught.value)
