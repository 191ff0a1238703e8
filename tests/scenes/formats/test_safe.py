"""SAFE products: the pixels and radiometry of their own metadata, whatever form they come in, and broken ones."""

import re
import shutil
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio

from geocfl.core.radiometry import Scaling
from geocfl.errors import SceneError
from geocfl.scenes.formats.safe import find_safe
from geocfl.scenes.source import Source
from tests.scenes.safe_product import BANDS, NATIVE, SafeProduct, metadata_xml, write_safe, zip_product

LEVELS = ("L1C", "L2A")


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SafeProduct]:
    """One of each level, to be read only."""
    return {level: write_safe(tmp_path_factory.mktemp(level), level, bands=BANDS, size=96) for level in LEVELS}


@pytest.fixture
def product(products: dict[str, SafeProduct], tmp_path: Path) -> Path:
    """A copy of the L2A product, to be broken."""
    whole = products["L2A"].path
    return Path(shutil.copytree(whole, tmp_path / whole.name))


def find(path: Path | str) -> Source:
    source = find_safe(str(path))
    assert source is not None
    return source


def read(path: str) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return np.asarray(dataset.read(1))


def edit(product: Path, old: str, new: str, name: str = "MTD_MSIL2A.xml") -> None:
    text = (product / name).read_text()
    assert old in text
    (product / name).write_text(text.replace(old, new))


def image(product: Path, kind: str) -> Path:
    return next(product.rglob(f"IMG_DATA/**/*_{kind}.jp2"))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("zipped", [False, True])
def test_every_band_is_read_exactly_at_its_finest_resolution(
    products: dict[str, SafeProduct], tmp_path: Path, level: str, zipped: bool
) -> None:
    path = products[level].path
    if zipped:
        path = zip_product(Path(shutil.copytree(path, tmp_path / path.name)))
    source = find(path)
    assert tuple(source.bands) == tuple(band for band in BANDS if (level, band) != ("L2A", "B10"))
    for band, where in source.bands.items():
        with rasterio.open(where.path) as dataset:
            assert dataset.driver == "JP2OpenJPEG"
            assert dataset.crs == "EPSG:32633"
            assert dataset.res == (NATIVE[band], NATIVE[band])
            step = NATIVE[band] // 10
            np.testing.assert_array_equal(dataset.read(where.index), products[level].dn[band][::step, ::step])
        assert where.scaling == Scaling(10_000, -1000)
    assert source.path == str(path)
    assert source.stem == f"S2A_MSI{level}_20220601T100031_N0400_R122_T33TUL_20220601T160000"
    assert source.level == level
    assert source.taken == datetime(2022, 6, 1, 10, 0, 31, 24_000, tzinfo=UTC)
    assert source.scaling_source == f"the product's MTD_MSI{level}.xml"
    assert source.nodata == 0
    assert source.notes == ()
    assert (source.scl is None) == (level == "L1C")
    if source.scl:
        np.testing.assert_array_equal(read(source.scl.path), products[level].dn["SCL"][::2, ::2])


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")  # of the list of subdatasets
@pytest.mark.parametrize("level", LEVELS)
def test_bands_and_offsets_are_those_that_gdals_driver_finds(tmp_path: Path, level: str) -> None:
    offsets = {band: -1000.0 - number for number, band in enumerate(BANDS)}
    product = write_safe(tmp_path, level, bands=BANDS, size=48, offset=offsets)
    source = find(product.path)
    with rasterio.open(product.path / f"MTD_MSI{level}.xml") as dataset:
        subdatasets = [name for name in dataset.subdatasets if ":TCI:" not in name]
    seen = set()
    for name in subdatasets:
        with rasterio.open(name) as dataset:
            for index in dataset.indexes:
                tags = dataset.tags(index)
                band = re.sub(r"B(\d)$", r"B0\1", tags.get("BANDNAME", ""))
                if band in source.bands and dataset.res[0] == NATIVE[band]:
                    seen.add(band)
                    np.testing.assert_array_equal(read(source.bands[band].path), dataset.read(index))
                    offset = tags["RADIO_ADD_OFFSET" if level == "L1C" else "BOA_ADD_OFFSET"]
                    assert source.bands[band].scaling == Scaling(10_000, float(offset))
    assert seen == set(source.bands)


@pytest.mark.parametrize("level", LEVELS)
def test_products_before_baseline_04_have_no_offset(tmp_path: Path, level: str) -> None:
    source = find(write_safe(tmp_path, level, "02.14", size=48, bands=("B04",), quantification=5000).path)
    assert source.bands["B04"].scaling == Scaling(5000, 0)
    assert source.notes == ()


@pytest.mark.parametrize(("baseline", "said"), [("04.00", True), ("05.11", True), ("99.99", False), ("03.01", False)])
def test_a_baseline_that_should_have_offsets_and_has_none_is_said(product: Path, baseline: str, said: bool) -> None:
    images = [str(image(product, "B04_10m").relative_to(product))]
    (product / "MTD_MSIL2A.xml").write_text(metadata_xml("L2A", baseline, images))
    source = find(product)
    assert source.bands["B04"].scaling == Scaling(10_000, 0)
    assert [("BOA_ADD_OFFSET" in note and baseline in note) for note in source.notes] == [True] * said


def test_metadata_as_sen2cor_wrote_it_in_2017(product: Path) -> None:
    """Other names of elements, one list of granules for each resolution, and another beginning of images' names."""
    file = product / "MTD_MSIL2A.xml"
    start, _, end = file.read_text().partition("<Granule_List>")
    _, _, end = end.partition("</Granule_List>")
    for jp2 in sorted(product.rglob("IMG_DATA/**/*.jp2")):
        jp2.rename(jp2.with_name(f"L2A_{jp2.name}"))
    lists = []
    for meters in (60, 20, 10):
        names = sorted(str(jp2.relative_to(product))[:-4] for jp2 in product.rglob(f"IMG_DATA/R{meters}m/*.jp2"))
        lists += ["<Granule_List><Granule>", *(f"<IMAGE_FILE_2A>{name}</IMAGE_FILE_2A>" for name in names)]
        lists += ["</Granule></Granule_List>"]
    text = "\n".join([start, *lists, end])
    for name in (
        "Product_Info>",
        "Product_Organisation>",
        "Product_Image_Characteristics>",
        "BOA_QUANTIFICATION_VALUE",
    ):
        text = text.replace(f"<{name}", f"<L2A_{name}").replace(f"</{name}", f"</L2A_{name}")
    text = text.replace("S2MSI2A<", "S2MSI2Ap<").replace(">04.00<", ">02.05<")
    offsets = text.partition("<BOA_ADD_OFFSET_VALUES_LIST>")[2].partition("</BOA_ADD_OFFSET_VALUES_LIST>")[0]
    file.write_text(text.replace(f"<BOA_ADD_OFFSET_VALUES_LIST>{offsets}</BOA_ADD_OFFSET_VALUES_LIST>", ""))
    source = find(product)
    assert source.level == "L2A"
    assert source.bands["B04"].scaling == Scaling(10_000, 0)
    assert Path(source.bands["B04"].path).name == "L2A_T33TUL_20220601T100031_B04_10m.jp2"
    assert len(source.bands) == 12
    assert source.scl is not None


def test_forms_that_a_product_comes_in(product: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, truth = product.stem, read(find(product).bands["B04"].path)
    monkeypatch.chdir(product)
    forms = {str(tmp_path): whole, str(product / "MTD_MSIL2A.xml"): whole, ".": whole, "../" + product.name: whole}
    (tmp_path / "a.zip").mkdir()  # a folder, to mislead GDAL
    inner = tmp_path / "a.zip"
    for name, top, stem in (
        ("S2A_x.SAFE.zip", product.name, whole),
        ("renamed.ZIP", product.name, whole),
        ("flat.SAFE.zip", "", "flat"),
        ("with (a) {brace.zip", product.name, whole),
    ):
        with zipfile.ZipFile(inner / name, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("__MACOSX/._MTD_MSIL2A.xml", b"")
            for file in product.rglob("*"):
                archive.write(file, Path(top, file.relative_to(product)))
        forms[str(inner / name)] = stem
    forms["../a.zip/flat.SAFE.zip"] = "flat"
    for path, stem in forms.items():
        source = find(path)
        assert (source.path, source.stem) == (path, stem)
        np.testing.assert_array_equal(read(source.bands["B04"].path), truth, err_msg=path)


def test_a_product_without_its_ending_is_one(product: Path) -> None:
    renamed = product.rename(product.parent / "rome")
    assert find(renamed).stem == "rome"


def test_what_is_no_product(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "vault.safe").write_text("no folder")
    (tmp_path / "scene.tif").write_bytes(b"II")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    for name in ("folder", "scene.tif", "other.zip", "none.SAFE", "none.zip"):
        assert find_safe(str(tmp_path / name)) is None
    assert find_safe("https://example.com/S2A_MSIL2A.SAFE.zip") is None
    assert find_safe("/vsizip/x.zip/S2A.SAFE") is None
    assert find_safe("") is None


def test_missing_images_are_left_out_and_said(product: Path) -> None:
    image(product, "B03_10m").unlink()
    for meters in (10, 20, 60):
        image(product, f"B04_{meters}m").unlink()
    source = find(product)
    assert "B04" not in source.bands
    assert Path(source.bands["B03"].path).name.endswith("B03_20m.jp2")
    assert source.notes == (
        f"{product}: B03 is read at 20 m, because its image at 10 m is missing",
        f"{product}: the images of B04 are missing",
    )


@pytest.mark.parametrize("zipped", [False, True])
def test_empty_and_cut_images_fail_where_they_are_read(product: Path, zipped: bool) -> None:
    image(product, "B04_10m").write_bytes(b"")
    cut = image(product, "B03_10m")
    cut.write_bytes(cut.read_bytes()[:5000])
    source = find(zip_product(product) if zipped else product)
    for band in ("B04", "B03"):
        with pytest.raises(rasterio.RasterioIOError):
            read(source.bands[band].path)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_product_without_metadata(product: Path, zipped: bool) -> None:
    (product / "MTD_MSIL2A.xml").unlink()
    path = zip_product(product) if zipped else product
    with pytest.raises(
        SceneError, match=rf"{path.name}: lacks its metadata, MTD_MSIL1C\.xml or MTD_MSIL2A\.xml; download the product"
    ):
        find_safe(str(path))


def test_a_product_of_images_that_are_not_there(product: Path) -> None:
    shutil.rmtree(product / "GRANULE")
    with pytest.raises(
        SceneError, match=r"all bands that MTD_MSIL2A\.xml lists are missing; download the product again"
    ):
        find_safe(str(product))


@pytest.mark.parametrize("keep", [0, 100, 0.5, -30])
def test_a_zip_that_was_cut_off(product: Path, keep: float) -> None:
    path = zip_product(product)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(
        SceneError, match=rf"{path.name}: cannot be read as a zip archive \(.*\); download it again"
    ) as error:
        find_safe(str(path))
    assert "\n" not in str(error.value)


def test_a_zip_whose_metadata_is_damaged(product: Path) -> None:
    path = zip_product(product)
    data = bytearray(path.read_bytes())
    data[data.index(b"<PRODUCT_TYPE>") + 20] ^= 1  # no longer what its checksum says
    path.write_bytes(data)
    with pytest.raises(SceneError, match="cannot be read as a zip archive"):
        find_safe(str(path))


def test_metadata_that_was_cut_off(product: Path) -> None:
    file = product / "MTD_MSIL2A.xml"
    for size in (0, 1000, file.stat().st_size - 10):
        file.write_bytes(file.read_bytes()[:size])
        with pytest.raises(
            SceneError, match=rf"{product.name}: MTD_MSIL2A\.xml is broken .*; download the product again"
        ):
            find_safe(str(product))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("S2MSI2A<", "S2MSI1B<", "PRODUCT_TYPE is 'S2MSI1B'"),
        ("BOA_QUANTIFICATION_VALUE", "OTHER", "no BOA_QUANTIFICATION_VALUE"),
        (">10000<", ">many<", "many"),
        (">10000<", ">0<", "above 0"),
        (">-1000<", ">nan<", "finite"),
        ('band_id="3"', 'band_id="30"', "no BOA_ADD_OFFSET of B04"),
        ("IMAGE_FILE", "OTHER", "no IMAGE_FILE"),
        ('encoding="UTF-8"', 'encoding="none"', "none"),
    ],
)
def test_metadata_that_makes_no_sense(product: Path, old: str, new: str, reason: str) -> None:
    edit(product, old, new)
    with pytest.raises(
        SceneError, match=rf"{product.name}: MTD_MSIL2A\.xml is broken \(.*{reason}.*\); download"
    ) as error:
        find_safe(str(product))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "listed",
    ["GRANULE/../../outside_B04_10m", "../outside_B04_10m", "/etc/outside_B04_10m", "GRANULE\\..\\outside_B04_10m"],
)
def test_images_outside_the_product_are_refused(product: Path, listed: str) -> None:
    shutil.copy(image(product, "B04_10m"), product.parent / "outside_B04_10m.jp2")
    edit(product, f"{image(product, 'B04_10m').relative_to(product)}"[:-4], listed)
    with pytest.raises(SceneError, match="which is no image in GRANULE"):
        find_safe(str(product))


@pytest.mark.parametrize(
    "declared",
    ['<!DOCTYPE a [<!ENTITY b "10000"> <!ENTITY c "&b;&b;">]>', '<!DOCTYPE a SYSTEM "file:///etc/hostname">'],
)
def test_metadata_with_entities_is_refused(product: Path, declared: str) -> None:
    edit(product, "<n1:Level-2A_User_Product", f"{declared}\n<n1:Level-2A_User_Product")
    with pytest.raises(SceneError, match="declares a document type"):
        find_safe(str(product))


@pytest.mark.parametrize("zipped", [False, True])
def test_metadata_larger_than_any_is_not_parsed(product: Path, zipped: bool) -> None:
    with (product / "MTD_MSIL2A.xml").open("a") as file:
        file.write("<a/>" * 500_000)
    with pytest.raises(SceneError, match=r"MTD_MSIL2A\.xml is broken \(it is larger than 2 MB\)"):
        find_safe(str(zip_product(product) if zipped else product))


def test_a_band_listed_twice(product: Path) -> None:
    line = f"<IMAGE_FILE>{str(image(product, 'B04_10m').relative_to(product))[:-4]}</IMAGE_FILE>"
    edit(product, line, line + line)
    assert find_safe(str(product)), "the same image twice is one image"
    edit(product, line + line, line + line.replace("T33TUL_20220601", "T33TUL_20220606"))
    with pytest.raises(
        SceneError,
        match="lists B04 twice, as T33TUL_20220601T100031_B04_10m and T33TUL_20220606T100031_B04_10m; download",
    ):
        find_safe(str(product))


def test_a_product_of_several_tiles_names_one(product: Path) -> None:
    line = f"<IMAGE_FILE>{str(image(product, 'B04_10m').relative_to(product))[:-4]}</IMAGE_FILE>"
    edit(product, line, line + line.replace("T33TUL", "T33TUM"))
    with pytest.raises(
        SceneError, match=r"holds 2 tiles; use the images of one .* GRANULE/L2A_T33TUL_A036250_20220601T100206/IMG_DATA"
    ):
        find_safe(str(product))


def test_the_format_of_before_december_2016_names_a_tile(tmp_path: Path) -> None:
    product = tmp_path / "S2A_OPER_PRD_MSIL1C_PDMC_20160605T113933_R065_V20160605T100031_20160605T100031.SAFE"
    tile = "S2A_OPER_MSI_L1C_TL_EPA__20160605T113933_A000734_T32TQR_N02.02"
    (product / "GRANULE" / tile / "IMG_DATA").mkdir(parents=True)
    name = "S2A_OPER_MTD_SAFL1C_PDMC_20160605T113933_R065_V20160605T100031_20160605T100031.xml"
    (product / name).write_text("<a/>")
    (product / "manifest.safe").write_text("<a/>")
    for path in (product, zip_product(Path(shutil.copytree(product, tmp_path / "zipped" / product.name)))):
        with pytest.raises(
            SceneError, match=rf"before December 2016; use the images of one tile, .* GRANULE/{tile}/IMG_DATA"
        ):
            find_safe(str(path))


def test_several_products_in_one_folder(product: Path, tmp_path: Path) -> None:
    shutil.copytree(product, tmp_path / "other.SAFE")
    with pytest.raises(
        SceneError, match=r"several products, such as S2A_.*SAFE/MTD_MSIL2A\.xml and other\.SAFE/.*; use only one"
    ):
        find_safe(str(tmp_path))
