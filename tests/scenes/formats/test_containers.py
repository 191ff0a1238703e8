"""Scenes in archives, in folders deeper down, and in the layouts of other programs."""

from __future__ import annotations

import json
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine

from geocfl.errors import SceneError
from geocfl.scenes.find import find_source
from geocfl.scenes.fingerprint import fingerprint, identity, local_file
from geocfl.scenes.formats.variables import find_variables
from geocfl.scenes.opening import open_scene
from geocfl.scenes.reading import Reading
from geocfl.scenes.source import absolute
from tests.scenes.safe_product import write_safe

BANDS = ("B04", "B03", "B02")
DN = {band: np.arange(64 * 64, dtype=np.int16).reshape(64, 64) + 100 * i for i, band in enumerate(BANDS, 1)}


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory):
    return write_safe(tmp_path_factory.mktemp("safe"), size=48, bands=BANDS)


def write(path: Path, dn: np.ndarray, driver: str = "GTiff", **profile: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"crs": "EPSG:32632", "transform": Affine(10, 0, 600_000, 0, -10, 5_300_000)} | profile
    height, width = dn.shape
    with rasterio.open(
        path, "w", driver=driver, height=height, width=width, count=1, dtype=dn.dtype, **options
    ) as file:
        file.write(dn, 1)
    return path


def zipped(path: Path, folder: Path, prefix: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.rglob("*"):
            archive.write(file, prefix + str(file.relative_to(folder)))
    return path


def red(scene: object) -> np.ndarray:
    with open_scene(str(scene), needed=BANDS, gsd=10.0) as opened:
        dn = opened.read(("B04",), 0, opened.height)[0] * opened.scaling["B04"].scale - opened.scaling["B04"].offset
    return dn.round()


def same_as(product, scene: object) -> None:
    found, dn = red(scene), product.dn["B04"]
    np.testing.assert_array_equal(found[dn > 0], dn[dn > 0])
    assert find_source(str(scene)).bands["B04"].scaling.offset == -1000  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("above.zip", "downloads/{}.SAFE/"),
        ("no_ending.zip", "{}/"),
        ("deep.zip", "a/b/{}.SAFE/"),
        ("named.SAFE", "{}.SAFE/"),
        ("download", "{}.SAFE/"),
    ],
)
def test_products_anywhere_in_a_zip_of_any_name(product, tmp_path, name, prefix):
    same_as(product, zipped(tmp_path / name, product.path, prefix.format(product.path.stem)))


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tgz"])
def test_a_tar_is_to_be_unpacked(product, tmp_path, ending):
    with tarfile.open(tmp_path / f"product.{ending}", "w" if ending == "tar" else "w:gz") as archive:
        archive.add(product.path, product.path.name)
    with pytest.raises(SceneError, match="unpack it"):
        find_source(tmp_path / f"product.{ending}")


def test_products_in_folders_deeper_down(product, tmp_path):
    shutil.copytree(product.path, tmp_path / "order" / product.path.stem / product.path.name)
    same_as(product, tmp_path)


def test_two_scenes_deeper_down_are_named(product, tmp_path):
    for place in ("a/x", "b/x"):
        shutil.copytree(product.path, tmp_path / place / product.path.name)
    with pytest.raises(SceneError, match="several scenes"):
        find_source(tmp_path)


def test_metadata_in_lower_case(product, tmp_path):
    copy = Path(shutil.copytree(product.path, tmp_path / product.path.name))
    (copy / "MTD_MSIL2A.xml").rename(copy / "MTD_MSIL2a.xml")
    same_as(product, copy)


def test_products_with_geotiff_images(product, tmp_path):
    copy = Path(shutil.copytree(product.path, tmp_path / product.path.name))
    for jp2 in list(copy.rglob("*.jp2")):
        with rasterio.open(jp2) as image:
            write(jp2.with_suffix(".tif"), image.read(1), crs=image.crs, transform=image.transform)
        jp2.unlink()
    same_as(product, copy)


@pytest.mark.parametrize(("level", "remedy"), [("L2F", "`scale`"), ("L2H", "`scale`"), ("L1B", "L1C or L2A")])
def test_products_of_other_levels_are_named(product, tmp_path, level, remedy):
    copy = Path(shutil.copytree(product.path, tmp_path / f"S2A_MSI{level}.SAFE"))
    (copy / "MTD_MSIL2A.xml").rename(copy / f"MTD_MSI{level}.xml")
    with pytest.raises(SceneError, match=f"of level {level}.*{remedy}"):
        find_source(copy)


def bands_in(folder: Path, name: str = "{}.tif", **profile: object) -> Path:
    for band in BANDS:
        write(folder / name.format(band), DN[band], **profile)  # type: ignore[arg-type]
    return folder


@pytest.mark.parametrize("prefix", ["", "inner/"])
def test_zips_of_band_files(tmp_path, prefix):
    name = "2022-06-01-00:00_2022-06-01-23:59_Sentinel-2_L2A_{}_(Raw).tiff"
    np.testing.assert_array_equal(
        red(zipped(tmp_path / "browser.zip", bands_in(tmp_path / "x", name), prefix)), DN["B04"]
    )


def test_long_and_deep_names_in_a_zip_are_left_out(tmp_path):
    raster = write(tmp_path / "B04.tif", np.ones((8, 8), np.uint16))
    with zipfile.ZipFile(tmp_path / "scene.zip", "w") as archive:
        archive.write(raster, "T33TUL_B04.tif")
        for number in range(5):  # takes gigabytes if each folder above is listed
            archive.writestr("a/" * 30_000 + f"{number}.tif", b"")
    assert list(find_source(tmp_path / "scene.zip").bands) == ["B04"]


def test_the_only_raster_of_a_zip(tmp_path):
    with rasterio.open(
        bands_in(tmp_path / "x") / "scene.tif", "w", driver="GTiff", height=64, width=64, count=3, dtype="int16",
        crs="EPSG:32632", transform=Affine(10, 0, 600_000, 0, -10, 5_300_000),
    ) as file:  # fmt: skip
        file.write(np.stack([DN[band] for band in BANDS]))
        file.descriptions = BANDS
    for band in BANDS:
        (tmp_path / "x" / f"{band}.tif").unlink()
    path = zipped(tmp_path / "scene.zip", tmp_path / "x")
    np.testing.assert_array_equal(red(path), DN["B04"])
    assert find_source(path).path == str(path)


def test_beam_dimap(tmp_path):
    bands_in(tmp_path / "scene.data", "{}.img", driver="ENVI")
    (tmp_path / "scene.dim").write_text("<Dimap_Document/>")
    source = find_source(tmp_path / "scene.dim")
    assert source.stem == "scene"
    np.testing.assert_array_equal(red(tmp_path / "scene.dim"), DN["B04"])


def test_majas_slope_corrected_images_come_first_and_minus_10000_is_no_data(tmp_path):
    name = "SENTINEL2A_20220601-105857-123_L2A_T31TCH_C_V3-0"
    for band in BANDS:
        dn = DN[band].copy()
        dn[:10] = -10_000
        write(tmp_path / name / f"{name}_FRE_{band.replace('B0', 'B')}.tif", dn)
        write(tmp_path / name / f"{name}_SRE_{band.replace('B0', 'B')}.tif", dn + 7)
    for scene in (tmp_path / name, tmp_path):
        found = red(scene)
        assert np.isnan(found[:10]).all()
        np.testing.assert_array_equal(found[10:], DN["B04"][10:])
    assert find_source(tmp_path / name).level == "L2A"


@pytest.mark.parametrize(("mask", "bit"), [("CLM", 5), ("MG2", 3)])
@pytest.mark.parametrize("inside", [True, False], ids=["zip", "folder"])
def test_majas_own_mask_of_clouds(tmp_path, mask, bit, inside):
    name = "SENTINEL2A_20220601-105857-123_L2A_T31TCH_C_V3-0"
    for band in BANDS:
        write(tmp_path / name / f"{name}_FRE_{band.replace('B0', 'B')}.tif", DN[band] + 1)
    values = np.ones((64, 64), np.uint8) if mask == "MG2" else np.zeros((64, 64), np.uint8)  # 1 is water
    values[20:30, 5:] = 1 << bit
    write(tmp_path / name / f"MASKS/{name}_{mask}_R1.tif", values)
    write(tmp_path / name / f"MASKS/{name}_{mask}_R2.tif", np.full((32, 32), 255, np.uint8))
    scene = zipped(tmp_path / "x.zip", tmp_path / name, f"{name}/") if inside else tmp_path / name
    with open_scene(scene, Reading(mask="scl"), needed=BANDS, gsd=10.0) as opened:
        missing = np.isnan(opened.read(("B04",), 0, 64)[0])
        assert opened.masked_share() == pytest.approx(10 * 59 / 64**2)
    found = find_source(scene)
    assert (found.nodata, found.level, found.taken.day) == (-10_000, "L2A", 1)
    assert missing[20:30, 5:].all()
    assert missing.sum() == 10 * 59


def test_the_cloud_mask_of_hls_belongs_to_its_bands(tmp_path):
    name = "HLS.S30.T32TPT.2022152T101031.v2.0"
    for band in BANDS:
        write(tmp_path / f"{name}.{band}.tif", DN[band] + 1)
    values = np.full((64, 64), 64, np.uint8)
    values[7] = 2
    write(tmp_path / f"{name}.Fmask.tif", values)
    with open_scene(tmp_path, Reading(mask="scl"), needed=BANDS, gsd=10.0) as scene:
        assert np.isnan(scene.read(("B04",), 0, 64)[0]).sum() == 64


def test_the_classification_of_old_sen2cor_belongs_to_its_bands(tmp_path):
    tail = "L2A_TL_EPA__20160605T113933_A000734_T32TPT"
    for band in BANDS:
        write(tmp_path / f"R10m/S2A_USER_MSI_{tail}_{band}_10m.tif", DN[band])
    scl = write(tmp_path / f"R20m/S2A_USER_SCL_{tail}_20m.tif", np.full((32, 32), 4, np.uint8))
    source = find_source(tmp_path)
    assert source.scl is not None
    assert source.scl.path == str(scl)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_variables_named_after_bands_are_a_scene_with_their_scale_and_fill(tmp_path):
    names = {band: with_scale(tmp_path, band) for band in BANDS}
    source = find_variables(str(tmp_path / "cube_20220601.nc"), list(names.values()))
    assert tuple(source.bands) == ("B02", "B03", "B04")
    with open_scene(source, needed=BANDS, gsd=10.0) as scene:
        found = scene.read(("B04",), 0, 64)[0]
    assert np.isnan(found[0]).all()
    np.testing.assert_allclose(found[1:], DN["B04"][1:] * 1e-4 - 0.1, atol=1e-6)


def with_scale(folder: Path, band: str) -> str:
    dn = DN[band].copy()
    dn[0] = -999
    path = write(folder / f"var_{band}.tif", dn, nodata=-999)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (1e-4,), (-0.1,)
        file.update_tags(1, long_name=band)
    return str(path)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_netcdf_with_a_variable_per_band_is_mapped_from_any_folder(tmp_path, monkeypatch):
    with rasterio.open(
        tmp_path / "x.tif", "w", driver="GTiff", height=64, width=64, count=4, dtype="int16", crs="EPSG:32632",
        transform=Affine(10, 0, 600_000, 0, -10, 5_300_000),
    ) as file:  # fmt: skip
        file.write(np.stack([DN["B04"], DN["B02"], DN["B03"], DN["B04"]]))
        for number in file.indexes:
            file.update_tags(number, NETCDF_VARNAME="B0")  # GDAL adds the number
    rasterio.shutil.copy(tmp_path / "x.tif", tmp_path / "cube.nc", driver="netCDF")
    monkeypatch.chdir(tmp_path)
    source = find_source("cube.nc")
    assert tuple(source.bands) == ("B01", "B02", "B03", "B04")
    assert source.stem == "cube"
    monkeypatch.chdir(tmp_path.parent)
    with open_scene(str(tmp_path / "cube.nc"), needed=BANDS, gsd=10.0) as scene:
        np.testing.assert_array_equal(
            (scene.read(("B04",), 0, 64)[0] * 10_000).round(), np.where(DN["B04"], DN["B04"], 0)
        )
    monkeypatch.chdir(tmp_path)
    there = absolute(source)
    monkeypatch.chdir(tmp_path.parent)
    assert open_scene(there, needed=BANDS, gsd=10.0).height == 64
    assert local_file(there.bands["B04"].path) == tmp_path / "cube.nc"
    assert fingerprint(there.bands["B04"].path) == fingerprint(str(tmp_path / "cube.nc"))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_counted_variables_are_no_bands(tmp_path):
    with rasterio.open(
        tmp_path / "x.tif", "w", driver="GTiff", height=64, width=64, count=3, dtype="int16", crs="EPSG:32632",
        transform=Affine(10, 0, 600_000, 0, -10, 5_300_000),
    ) as file:  # fmt: skip
        file.write(np.stack([DN["B04"]] * 3))
    rasterio.shutil.copy(tmp_path / "x.tif", tmp_path / "x.nc", driver="netCDF")
    with pytest.raises(SceneError, match=r"none of its 3 variables \(Band1, Band2, Band3\) is named .* use `bands`"):
        find_source(tmp_path / "x.nc")
    source = find_source(tmp_path / "x.nc", {"B04": 1, "B03": 2, "B02": 3})
    assert {band: where.path[-5:] for band, where in source.bands.items()} == {
        "B02": "Band3", "B03": "Band2", "B04": "Band1",
    }  # fmt: skip
    with pytest.raises(SceneError, match="has no band 4 for B02, only 3"):
        find_source(tmp_path / "x.nc", {"B02": 4})


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_the_order_of_counted_variables_is_told_from_their_pixels(tmp_path):
    rng = np.random.default_rng(0)
    land = rng.gamma(4, 0.02, (64, 64))
    dn = {"B02": 0.04 + 0.3 * land, "B03": 0.03 + 0.7 * land, "B04": 0.01 + 1.2 * land}
    with rasterio.open(
        tmp_path / "x.tif", "w", driver="GTiff", height=64, width=64, count=3, dtype="int16", crs="EPSG:32632",
        transform=Affine(10, 0, 600_000, 0, -10, 5_300_000),
    ) as file:  # fmt: skip
        file.write(np.stack([(10_000 * each).astype(np.int16) for each in dn.values()]))
    rasterio.shutil.copy(tmp_path / "x.tif", tmp_path / "x.nc", driver="netCDF")
    source = find_source(tmp_path / "x.nc")
    assert source.bands["B04"].path.endswith("Band3")
    assert "assumed to be B02, B03, B04" in source.notes[0]


SECRET = b"root:secret:0:0"


@pytest.mark.parametrize("ending", ["tif", "jp2"])
@pytest.mark.parametrize("inside", [True, False], ids=["in a zip", "in a folder"])
def test_a_virtual_raster_named_as_an_image_shows_no_other_file(product, tmp_path, ending, inside):
    (tmp_path / "secret").write_bytes(SECRET * 400)
    vrt = (
        '<VRTDataset rasterXSize="48" rasterYSize="48"><SRS>EPSG:32633</SRS><GeoTransform>300000, 10, 0, 5100000, 0, '
        '-10</GeoTransform><VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand"><SourceFilename '
        f'relativeToVRT="0">{tmp_path}/secret</SourceFilename></VRTRasterBand></VRTDataset>'
    )
    folder = Path(shutil.copytree(product.path, tmp_path / product.path.name))
    for jp2 in list(folder.rglob("*.jp2")):
        jp2.unlink()
        jp2.with_suffix(f".{ending}").write_text(vrt)
    scene = zipped(tmp_path / "evil.zip", folder, f"{folder.name}/") if inside else folder
    with pytest.raises(SceneError, match="cannot be read"):
        open_scene(scene, needed=BANDS, gsd=10.0)


def test_virtual_rasters_in_archives_are_not_read(tmp_path):
    bands_in(tmp_path / "x")
    (tmp_path / "y").mkdir()
    for band in BANDS:
        rasterio.shutil.copy(tmp_path / "x" / f"{band}.tif", tmp_path / "y" / f"{band}.vrt", driver="VRT")
    with pytest.raises(SceneError, match="unpack it"):
        open_scene(zipped(tmp_path / "y.zip", tmp_path / "y"), needed=BANDS, gsd=10.0)
    assert open_scene(tmp_path / "y", needed=BANDS, gsd=10.0).height == 64


def array(folder: Path, values: np.ndarray, **attributes: object) -> None:
    """An array of a Zarr store, as version 2 keeps it without compression."""
    folder.mkdir(parents=True)
    said = {
        "zarr_format": 2, "shape": values.shape, "chunks": values.shape, "dtype": values.dtype.str, "compressor": None,
        "fill_value": 0, "order": "C", "filters": None,
    }  # fmt: skip
    (folder / ".zarray").write_text(json.dumps(said))
    (folder / ".zattrs").write_text(json.dumps(attributes))
    (folder / ".".join(["0"] * values.ndim)).write_bytes(values.tobytes())


@pytest.fixture
def eopf(tmp_path):
    store = tmp_path / "S2A_MSIL2A_20220601T100031_N0400_R122_T32TPT_20220601T160000.zarr"
    for meters, step in ((10, 1), (20, 2)):
        group = store / f"measurements/reflectance/r{meters}m"
        for name, start, sign in (("x", 600_000, 1), ("y", 5_300_000, -1)):
            array(group / name, start + sign * meters * (np.arange(64 // step) + 0.5), _ARRAY_DIMENSIONS=[name])
        for band in BANDS:
            dn = (DN[band][::step, ::step] + 1000 + 7 * (step - 1)).astype(np.uint16)
            array(
                group / band.lower(), dn, _ARRAY_DIMENSIONS=["y", "x"], scale_factor=1e-4, add_offset=-0.1,
                **{"proj:epsg": 32632},
            )  # fmt: skip
            array(store / f"quality/mask/r{meters}m" / band.lower(), np.ones_like(dn), _ARRAY_DIMENSIONS=["y", "x"])
    for each in [store, *(each for each in store.rglob("*") if each.is_dir() and not (each / ".zarray").exists())]:
        (each / ".zgroup").write_text('{"zarr_format": 2}')
    return store


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_an_eopf_product_is_read_by_its_finest_bands(eopf, monkeypatch):
    source = find_source(eopf)
    assert (source.level, source.crs, source.taken.year) == ("L2A", "EPSG:32632", 2022)
    np.testing.assert_array_equal(red(eopf), DN["B04"] + 1000)
    before = identity(source.bands["B04"].path)
    assert before != identity(source.bands["B03"].path)
    (eopf / "measurements/reflectance/r10m/b04/0.0").write_bytes(b"\1" * 64 * 64 * 2)
    assert identity(source.bands["B04"].path) != before
    monkeypatch.chdir(eopf.parent)
    there = absolute(find_source(eopf.name))
    monkeypatch.chdir(eopf.parent.parent)
    assert open_scene(there, needed=BANDS, gsd=10.0).crs.to_epsg() == 32632


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_zarr_stores_that_are_not_read_are_one_sentence(tmp_path):
    (tmp_path / "S2A.zarr").mkdir()
    with pytest.raises(SceneError, match="Zarr store"):
        find_source(tmp_path / "S2A.zarr")
    with pytest.raises(SceneError, match=r"https://example\.com/S2A\.zarr: is a Zarr store on a server.*download it"):
        find_source("https://example.com/S2A.zarr")
    array(tmp_path / "other.zarr" / "height", DN["B04"], _ARRAY_DIMENSIONS=["y", "x"])
    (tmp_path / "other.zarr" / ".zgroup").write_text('{"zarr_format": 2}')
    with pytest.raises(SceneError, match="none of its arrays is named after a band"):
        find_source(tmp_path / "other.zarr")
