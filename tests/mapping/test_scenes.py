"""Maps of scenes in every form that they come in: the same pixels give the same map."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio import warp

import geocfl
from geocfl.errors import SceneError
from geocfl.mapping import SceneMap
from tests.scenes.range_server import RangeServer
from tests.scenes.safe_product import write_safe

TRANSFORM = Affine(10, 0, 3e5, 0, -10, 5.1e6)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with RangeServer(tmp_path_factory.mktemp("served")) as server:
        yield server


def write(path: Path, dn: np.ndarray, bands: tuple[str, ...], **profile) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", height=dn.shape[1], width=dn.shape[2], count=len(dn), dtype=dn.dtype,
        crs="EPSG:32633", transform=TRANSFORM, **profile,
    ) as dataset:  # fmt: skip
        dataset.write(dn)
        dataset.descriptions = bands
    return path


def content(result: SceneMap) -> tuple[np.ndarray, np.ndarray]:
    with rasterio.open(result.paths["lulc"]) as codes, rasterio.open(result.paths["confidence"]) as confidence:
        return codes.read(1), confidence.read(1)


def ground(size: int) -> dict[str, np.ndarray]:
    """Digital numbers with an offset of 1000, with structure that windows can differ by."""
    rng = np.random.default_rng(0)
    fields = np.kron(rng.integers(1100, 3000, (6, size // 24, size // 24)), np.ones((24, 24))).astype(np.uint16)
    return dict(zip(("B02", "B03", "B04", "B08", "B8A", "B11"), fields, strict=True))


@pytest.mark.parametrize("level", ["L1C", "L2A"])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_safe_product_is_mapped_as_its_bands_in_one_file(
    tmp_path: Path, tiny_model: Path, level: str, zipped: bool
) -> None:
    dn = ground(192)
    product = write_safe(tmp_path / "p", level, size=192, dn={b: dn[b] for b in ("B02", "B03", "B04")}, zipped=zipped)
    options = {"model": tiny_model, "stride": 32, "precision": "float32"}
    result = geocfl.map_scene(product.path, tmp_path / "a", **options)
    stack = write(tmp_path / "s.tif", np.stack([dn["B04"], dn["B03"], dn["B02"]]), ("B04", "B03", "B02"))
    expected = geocfl.map_scene(stack, tmp_path / "b", offset=-1000, **options)
    for one, other in zip(content(result), content(expected), strict=True):
        np.testing.assert_array_equal(one, other)
    facts = result.summary["scene"]
    assert facts["level"] == level
    assert facts["scaling"]["B04"] == {"scale": 10_000, "offset": -1000}
    assert facts["scaling_from"] == f"the product's MTD_MSI{level}.xml"
    assert facts["datetime"].startswith("2022-06-01T10:00:31")
    assert result.paths["lulc"].name.startswith(f"S2A_MSI{level}_20220601T100031_")
    assert geocfl.map_scene(product.path, tmp_path / "a", **options).already_done


def test_files_of_one_band_each_are_one_scene(tmp_path: Path, tiny_model: Path) -> None:
    dn = ground(192)
    files = [
        write(tmp_path / f"T33TUL_20220601T100031_{band}_10m.tif", dn[band][None], (None,))
        for band in ("B02", "B03", "B04")
    ]
    other = write(tmp_path / "other.tif", np.stack([dn[b] for b in ("B04", "B03", "B02")]), ("B04", "B03", "B02"))
    options = {"model": tiny_model, "offset": -1000}
    results = dict(geocfl.map_scenes([*files, other], tmp_path / "maps", **options))  # as they finish
    assert len(results) == 2
    single = results.pop(str(other))
    (grouped,) = results.values()
    assert grouped.paths["lulc"].name == "T33TUL_20220601T100031_lulc.tif"
    np.testing.assert_array_equal(content(grouped)[0], content(single)[0])
    folder = geocfl.map_scene(tmp_path, tmp_path / "folder", **options)
    np.testing.assert_array_equal(content(folder)[0], content(single)[0])


def test_a_mask_of_the_products_own(tmp_path: Path, tiny_model: Path) -> None:
    scl = np.full((192, 192), 4, np.uint8)  # at 10 m; the product has every second pixel
    scl[:128, :96] = 9
    product = write_safe(tmp_path, "L2A", size=192, dn={**ground(192), "SCL": scl})
    result = geocfl.map_scene(product.path, tmp_path / "maps", model=tiny_model, mask="scl")
    codes, _ = content(result)
    assert (codes == 0).tolist() == [[True, False, False], [True, False, False], [False, False, False]]
    assert result.summary["masked_cells"] == 2


def test_an_area_of_a_large_remote_scene_needs_a_tenth_of_it(tmp_path: Path, tiny_model: Path, server) -> None:
    dn = np.random.default_rng(0).integers(200, 3000, (3, 4096, 4096), dtype=np.uint16)
    local = write(tmp_path / "s.tif", dn, ("B04", "B03", "B02"), tiled=True, blockxsize=256, blockysize=256)
    rasterio.shutil.copy(local, server.folder / "s.tif", driver="COG", BLOCKSIZE="256", OVERVIEWS="NONE")
    size = (server.folder / "s.tif").stat().st_size
    # A square of 1.5 km, and what its windows look at beyond.
    corner = warp.transform("EPSG:32633", "EPSG:4326", [315_500, 317_000], [5_085_500, 5_087_000])
    (west, east), (south, north) = corner
    options = {"model": tiny_model, "stride": 64, "bbox": (west, south, east, north), "precision": "float32"}
    far = geocfl.map_scene(server.url("s.tif"), tmp_path / "far", **options)
    assert server.sent("s.tif") < size / 10
    near = geocfl.map_scene(local, tmp_path / "near", **options)
    for one, other in zip(content(far), content(near), strict=True):
        np.testing.assert_array_equal(one, other)
    before = server.sent("s.tif")
    assert geocfl.map_scene(server.url("s.tif"), tmp_path / "far", **options).already_done
    assert server.sent("s.tif") - before < size / 20


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"status": 404}, r"http://127\.0\.0\.1:\d+/t\.tif: does not exist \(HTTP 404\)"),
        ({"status": 500}, "the server failed 2 times"),
        ({"cut": 5000}, "connection breaks|damaged"),
    ],
)
def test_a_server_that_fails(tmp_path: Path, tiny_model: Path, server, monkeypatch, fault: dict, message: str) -> None:
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "1")
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.05")
    dn = np.random.default_rng(1).integers(200, 3000, (3, 300, 300), dtype=np.uint16)
    write(server.folder / "t.tif", dn, ("B04", "B03", "B02"), tiled=True, blockxsize=128, blockysize=128)
    server.fail("t.tif", **fault)
    try:
        with pytest.raises(SceneError, match=message) as caught:
            geocfl.map_scene(server.url("t.tif?token=secret"), tmp_path / "out", model=tiny_model)
    finally:
        server.heal("t.tif")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_server_that_fails_for_a_while(tmp_path: Path, tiny_model: Path, server, monkeypatch) -> None:
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.05")
    dn = np.random.default_rng(2).integers(200, 3000, (3, 300, 300), dtype=np.uint16)
    write(server.folder / "u.tif", dn, ("B04", "B03", "B02"), tiled=True, blockxsize=128, blockysize=128)
    server.fail("u.tif", status=503, times=2)
    result = geocfl.map_scene(server.url("u.tif"), tmp_path / "out", model=tiny_model)
    assert json.loads(result.paths["summary"].read_text())["scene"]["file"] == "u.tif"
    assert os.fspath(result.paths["lulc"]).endswith("u_lulc.tif")
