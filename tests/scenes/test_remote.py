"""Rasters on a server: little is read, what fails is tried again, and what cannot be had is said in one sentence."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.windows import Window

from geocfl.errors import SceneError
from geocfl.scenes import find_source
from geocfl.scenes.fingerprint import fingerprint
from geocfl.scenes.remote import (
    SETTINGS,
    cloud_settings,
    fetch,
    insist,
    open_remote,
    remote_settings,
)
from geocfl.scenes.trouble import explain
from geocfl.scenes.urls import gdal_path, is_remote, shown
from tests.scenes.range_server import RangeServer

SIDE = 512
WINDOW = Window(60, 70, 300, 200)


def write(path: Path, pixels: NDArray[np.uint16], driver: str = "COG", **options: object) -> Path:
    height, width = pixels.shape
    place = {"crs": "EPSG:32633", "transform": Affine(10, 0, 3e5, 0, -10, 5e6)}
    with rasterio.open(
        path, "w", driver=driver, height=height, width=width, count=1, dtype="uint16", **place, **options
    ) as dataset:
        dataset.write(pixels, 1)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[RangeServer]:
    with RangeServer(folder) as server:
        yield server


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint16]:
    return np.random.default_rng(0).integers(0, 3000, (SIDE, SIDE), dtype=np.uint16)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Impatient, and nobody's credentials."""
    for name in [*os.environ]:
        if name.startswith(("AWS_", "GS_", "AZURE_", "GOOGLE_", "GDAL_HTTP_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.01")
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "2")


@pytest.fixture
def name(request: pytest.FixtureRequest, folder: Path, pixels: NDArray[np.uint16]) -> str:
    """A GeoTIFF that only this test asks for."""
    name = f"{request.node.name.replace('[', '-').replace(']', '')}.tif"
    write(folder / name, pixels, compress="deflate", blocksize=256)
    return name


def read(path: str, window: Window = WINDOW) -> NDArray[np.uint16]:
    def attempt() -> NDArray[np.uint16]:
        with remote_settings(path), open_remote(path) as dataset:
            values: NDArray[np.uint16] = dataset.read(1, window=window)
            return values

    return insist(path, attempt)


@pytest.mark.parametrize(
    ("path", "opened"),
    [
        ("https://example.com/a/B04.tif?sig=x", "/vsicurl/https://example.com/a/B04.tif?sig=x"),
        ("HTTP://example.com/B04.tif", "/vsicurl/http://example.com/B04.tif"),
        ("s3://bucket/a/B04.tif", "/vsis3/bucket/a/B04.tif"),
        ("gs://bucket/B04.tif", "/vsigs/bucket/B04.tif"),
        ("az://container/B04.tif", "/vsiaz/container/B04.tif"),
        ("/vsis3/bucket/B04.tif", "/vsis3/bucket/B04.tif"),
        ("/vsizip//vsicurl/https://example.com/a.zip/B04.jp2", "/vsizip//vsicurl/https://example.com/a.zip/B04.jp2"),
    ],
)
def test_paths_that_lead_over_the_network(path: str, opened: str) -> None:
    assert gdal_path(path) == opened
    assert is_remote(path)
    assert is_remote(opened)


@pytest.mark.parametrize(
    "path", ["B04.tif", "/data/B04.tif", r"C:\data\B04.tif", "/vsizip/a.zip/B04.jp2", "/vsimem/a.tif", "s3/B04.tif"]
)
def test_local_paths_stay_as_they_are(path: str) -> None:
    assert gdal_path(path) == path
    assert not is_remote(path)
    assert cloud_settings(path) == {}
    assert shown(path) == path


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/vsicurl/https://example.com/B04.tif?sv=1&sig=SECRET", "https://example.com/B04.tif"),
        ("https://me:SECRET@example.com/B04.tif#SECRET", "https://example.com/B04.tif"),
        ("/vsis3/bucket/B04.tif", "s3://bucket/B04.tif"),
        ("/vsizip//vsicurl/https://example.com/a.zip?SECRET/B04.jp2", "/vsizip//vsicurl/https://example.com/a.zip"),
    ],
)
def test_secrets_are_not_shown(path: str, text: str) -> None:
    assert shown(path) == text


def test_a_window_of_a_large_file_is_a_small_part_of_its_bytes(folder: Path, server: RangeServer) -> None:
    large = np.arange(4096 * 4096, dtype=np.uint32).reshape(4096, 4096).astype(np.uint16)
    path = write(folder / "large.tif", large, compress="NONE", blocksize=512)
    window = Window(700, 900, 512, 512)
    np.testing.assert_array_equal(read(server.url("large.tif"), window), large[900:1412, 700:1212])
    assert server.sent("large.tif") < path.stat().st_size / 10
    assert len(server.requests("large.tif")) <= 5  # its size twice, its header, two rows of blocks


@pytest.mark.parametrize(("driver", "ending"), [("COG", "tif"), ("JP2OpenJPEG", "jp2")])
def test_nothing_but_the_file_is_asked_for(
    folder: Path, server: RangeServer, pixels: NDArray[np.uint16], driver: str, ending: str
) -> None:
    options = {"QUALITY": "100", "REVERSIBLE": "YES"} if ending == "jp2" else {}
    before = server.names()
    write(folder / f"alone.{ending}", pixels, driver, **options)
    np.testing.assert_array_equal(read(server.url(f"alone.{ending}")), pixels[70:270, 60:360])
    assert server.names() - before == {f"alone.{ending}"}


def test_members_of_archives(folder: Path, server: RangeServer, pixels: NDArray[np.uint16], tmp_path: Path) -> None:
    with zipfile.ZipFile(folder / "S2A.zip", "w") as archive:
        archive.write(write(tmp_path / "B04.tif", pixels), "S2A.SAFE/B04.tif")
    member = f"/vsizip/{gdal_path(server.url('S2A.zip'))}/S2A.SAFE/B04.tif"
    np.testing.assert_array_equal(read(member), pixels[70:270, 60:360])
    assert fingerprint(member) == fingerprint(server.url("S2A.zip"))


def test_buckets_are_read_without_credentials_where_there_are_none(
    folder: Path, server: RangeServer, pixels: NDArray[np.uint16], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "bucket").mkdir()
    write(folder / "bucket/B04.tif", pixels)
    monkeypatch.setenv("AWS_S3_ENDPOINT", server.url("").removeprefix("http://").rstrip("/"))
    monkeypatch.setenv("AWS_HTTPS", "NO")
    monkeypatch.setenv("AWS_VIRTUAL_HOSTING", "FALSE")
    np.testing.assert_array_equal(read("s3://bucket/B04.tif"), pixels[70:270, 60:360])
    before = fingerprint("s3://bucket/B04.tif")
    assert fingerprint("s3://bucket/B04.tif") == before
    write(folder / "bucket/B04.tif", pixels + 1)
    assert fingerprint("s3://bucket/B04.tif") != before


def test_credentials_are_used_where_there_are_some(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cloud_settings("s3://b/a.tif")["AWS_NO_SIGN_REQUEST"] == "YES"
    assert cloud_settings("gs://b/a.tif")["GS_NO_SIGN_REQUEST"] == "YES"
    assert "AWS_NO_SIGN_REQUEST" not in cloud_settings("https://example.com/a.tif")
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").touch()
    assert "AWS_NO_SIGN_REQUEST" not in cloud_settings("s3://b/a.tif")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "key.json")
    assert "GS_NO_SIGN_REQUEST" not in cloud_settings("gs://b/a.tif")


def test_the_copernicus_data_space_is_found() -> None:
    assert cloud_settings("s3://eodata/Sentinel-2/B04.jp2")["AWS_S3_ENDPOINT"] == "eodata.dataspace.copernicus.eu"
    assert "AWS_S3_ENDPOINT" not in cloud_settings("s3://sentinel-cogs/B04.tif")


def test_the_environment_counts_before_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cloud_settings("https://example.com/a.tif")["GDAL_HTTP_TIMEOUT"] == SETTINGS["GDAL_HTTP_TIMEOUT"]
    monkeypatch.setenv("GDAL_HTTP_TIMEOUT", "5")
    assert "GDAL_HTTP_TIMEOUT" not in cloud_settings("https://example.com/a.tif")
    monkeypatch.setenv("GDAL_NUM_THREADS", "ALL_CPUS")  # hands out wrong pixels, see ONE_THREAD
    assert cloud_settings("https://example.com/a.tif")["GDAL_NUM_THREADS"] == "1"


@pytest.mark.parametrize(
    "fault", [{"status": 500}, {"status": 503}, {"cut": 0}, {"cut": 1000}], ids=["500", "503", "cut0", "cut1000"]
)
def test_what_fails_for_a_while_is_tried_again(
    server: RangeServer, name: str, pixels: NDArray[np.uint16], fault: dict[str, int]
) -> None:
    server.fail(name, times=2, **fault)
    np.testing.assert_array_equal(read(server.url(name)), pixels[70:270, 60:360])


def test_a_connection_that_breaks_off_while_pixels_are_read(
    folder: Path, server: RangeServer, pixels: NDArray[np.uint16]
) -> None:
    for ending, driver, options in (
        ("tif", "GTiff", {"tiled": True, "blockxsize": 256, "blockysize": 256}),
        ("jp2", "JP2OpenJPEG", {"QUALITY": "100", "REVERSIBLE": "YES", "BLOCKXSIZE": 256, "BLOCKYSIZE": 256}),
    ):
        name = f"breaks.{ending}"
        write(folder / name, pixels, driver, **options)
        path = server.url(name)
        with remote_settings(path), open_remote(path) as dataset:
            server.fail(name, cut=3000)
            with pytest.raises(rasterio.RasterioIOError) as caught:  # and no wrong pixels
                dataset.read(1)
        assert "the connection breaks; try again later" in explain(caught.value, path)
        server.heal(name)
        np.testing.assert_array_equal(read(path), pixels[70:270, 60:360])  # nothing of it is remembered


def test_a_header_that_comes_in_part_makes_no_wrong_pixels(
    folder: Path, server: RangeServer, pixels: NDArray[np.uint16]
) -> None:
    write(folder / "header.tif", pixels, "GTiff", tiled=True, blockxsize=128, blockysize=128)
    path = gdal_path(server.url("header.tif"))
    failed = 0
    for cut in range(100, 700, 20):  # the tables of where its blocks lie, among others
        server.fail("header.tif", cut=cut, times=1)
        try:
            with remote_settings(path), rasterio.open(path) as dataset:
                got = dataset.read(1)
        except rasterio.RasterioIOError:
            failed += 1
        else:
            np.testing.assert_array_equal(got, pixels)
        server.heal("header.tif")
    assert failed


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ({"status": 404}, r"does not exist \(HTTP 404\); check the address"),
        ({"status": 403}, r"denies access \(HTTP 403\); use a signed address"),
        ({"status": 500}, r"the server failed 3 times \(HTTP 500\); try again later, or download it"),
        ({"status": 418}, r"refuses the request \(HTTP 418\)"),
        ({"status": 501}, r"refuses the request \(HTTP 501\)"),  # such as a server that knows no HEAD
        ({"cut": 100}, "failed 3 times: it is damaged, is not a raster, or the connection breaks"),
    ],
    ids=["404", "403", "500", "418", "501", "cut"],
)
def test_what_fails_for_good_is_said_in_one_sentence(
    server: RangeServer, name: str, fault: dict[str, int], sentence: str
) -> None:
    server.fail(name, **fault)
    with pytest.raises(SceneError, match=sentence) as caught:
        read(f"{server.url(name)}?X-Amz-Signature=SECRET")
    text = str(caught.value)
    assert text.startswith(f"{server.url(name)}: ")
    assert "SECRET" not in text
    assert "\n" not in text


def test_servers_that_do_not_answer(server: RangeServer, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDAL_HTTP_TIMEOUT", "0.3")
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "1")
    server.fail(name, delay=2)
    with pytest.raises(SceneError, match=r"asked 2 times and did not answer within 0\.3 s; try again later"):
        read(server.url(name))
    with pytest.raises(SceneError, match=r"asked 2 times and did not answer within 0\.3 s; try again later"):
        fetch(server.url(name), lambda _: True)


def test_servers_that_are_not_there() -> None:
    for get in (read, lambda url: fetch(url, lambda _: True), fingerprint):
        with pytest.raises(SceneError, match="the server cannot be reached; check the address and the network"):
            get("http://127.0.0.1:9/B04.tif")


def test_files_that_are_no_raster(folder: Path, server: RangeServer) -> None:
    (folder / "page.tif").write_text("<html>Sign in</html>")
    with pytest.raises(SceneError, match=r"page\.tif: failed 3 times: it is damaged, is not a raster"):
        read(server.url("page.tif"))


def test_formats_that_name_other_files_are_not_read_from_servers(
    folder: Path, server: RangeServer, pixels: NDArray[np.uint16], tmp_path: Path
) -> None:
    mine = write(tmp_path / "mine.tif", pixels)
    (folder / "trap.tif").write_text(
        f'<VRTDataset rasterXSize="{SIDE}" rasterYSize="{SIDE}"><VRTRasterBand dataType="UInt16" band="1">'
        f"<SimpleSource><SourceFilename>{mine}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(SceneError, match=r"trap\.tif: has the format VRT, which is not read from servers"):
        read(server.url("trap.tif"))


@pytest.mark.parametrize(
    "url",
    [
        "https://a.org/S2A_MSIL2A.SAFE", "https://a.org/S2A_MSIL2A.SAFE/", "https://me:SECRET@a.org/S2A_MSIL2A.zip?SECRET",
        "s3://bucket/S2A.SAFE/MTD_MSIL2A.xml", "/vsicurl/https://a.org/S2A.tar.gz",
    ],
)  # fmt: skip
def test_products_on_servers_are_refused_before_anything_is_asked_for(url: str) -> None:
    with pytest.raises(SceneError, match="products and archives are not read from servers; download it") as caught:
        find_source(url)
    assert "SECRET" not in str(caught.value)


def test_denied_buckets_name_the_remedy() -> None:
    denied = rasterio.RasterioIOError("HTTP response code: 403")
    assert "set AWS credentials" in explain(denied, "/vsis3/bucket/B04.tif")
    assert "keys of the Copernicus Data Space" in explain(denied, "s3://eodata/B04.jp2")
    private = rasterio.RasterioIOError("HTTP response code: 409")
    assert "planetary-computer" in explain(private, "https://sentinel2l2a01.blob.core.windows.net/B04.tif")


def test_local_files_are_read_once_and_their_errors_stay() -> None:
    attempts = []

    def attempt() -> None:
        attempts.append(1)
        raise OSError("mine")

    with pytest.raises(OSError, match="mine"):
        insist("B04.tif", attempt)
    assert len(attempts) == 1


def test_fetching(folder: Path, server: RangeServer) -> None:
    (folder / "item.json").write_bytes(b"{}" * 5000)
    url = server.url("item.json")
    server.fail("item.json", status=503, times=1)
    server.fail("item.json", cut=500, times=1)
    assert fetch(url, lambda answer: answer.headers["Content-Type"] == "application/json") == b"{}" * 5000
    assert fetch(url, lambda _: False) is None
    with pytest.raises(SceneError, match=r"/none\.json: does not exist \(HTTP 404\)"):
        fetch(server.url("none.json?token=SECRET"), lambda _: True)
    server.fail("item.json", cut=500)
    with pytest.raises(SceneError, match="the connection breaks"):
        fetch(url, lambda _: True)


def test_fingerprints_change_when_the_file_does(folder: Path, server: RangeServer, pixels: NDArray[np.uint16]) -> None:
    path = write(folder / "print.tif", pixels)
    url = server.url("print.tif")
    for of in (url, str(path)):
        before = fingerprint(of)
        assert fingerprint(of) == before
        write(path, pixels[::-1])
        assert fingerprint(of) != before
    assert fingerprint(f"{url}?sig=1") == fingerprint(f"{url}?sig=2")
    assert server.sent("print.tif") < 100
    for none in ("none.tif", "/vsimem/none.tif"):
        with pytest.raises(SceneError, match=r"none\.tif: cannot be read; pass a readable file"):
            fingerprint(none)
