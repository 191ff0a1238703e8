"""One file a band: what files' names say, which of them are one scene, and the finest of each band."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from geocfl.core.radiometry import Scaling
from geocfl.errors import SceneError
from geocfl.scenes.formats.folder import find_folder, group_files
from geocfl.scenes.source import Source
from tests.scenes.safe_product import write_safe

BROWSER = "2022-06-01-00:00_2022-06-01-23:59_Sentinel-2_L2A"


def write(folder: Path, *names: str, count: int = 1) -> Path:
    """Rasters in a folder, each of another value."""
    for value, name in enumerate(names, start=1):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        profile = {"driver": "GTiff", "height": 4, "width": 4, "count": count, "dtype": "uint16"}
        with rasterio.open(
            path, "w", **profile, crs="EPSG:32633", transform=Affine(10, 0, 3e5, 0, -10, 5e6)
        ) as dataset:
            dataset.write(np.full((count, 4, 4), value, np.uint16))
    return folder


def find(folder: Path) -> Source:
    source = find_folder(str(folder))
    assert source is not None
    return source


def names(source: Source) -> dict[str, str]:
    return {band: Path(where.path).name for band, where in source.bands.items()}


@pytest.mark.parametrize(
    ("file", "other", "bands", "stem"),
    [
        ("T33TUL_20190416T100031_B04_10m.jp2", "T33TUL_20190416T100031_B8A_20m.jp2", ["B04", "B8A"],
         "T33TUL_20190416T100031"),
        ("B04.tif", "B12.tif", ["B04", "B12"], "rome"),
        ("b4.TIF", "B03.tiff", ["B03", "B04"], "rome"),
        (f"{BROWSER}_B04_(Raw).tiff", f"{BROWSER}_B01_(Raw).tiff", ["B01", "B04"], BROWSER),
        ("B8A-2022.tif", "B8-2022.tif", ["B08", "B8A"], "2022"),
        ("HLS.S30.T33TUL.2022001T100031.v2.0.B04.tif", "HLS.S30.T33TUL.2022001T100031.v2.0.B8A.tif", ["B04", "B8A"],
         "HLS.S30.T33TUL.2022001T100031.v2.0"),
        ("S2B_T33BXX_B1_clip.tif", "S2B_T33BXX_B10_clip.tif", ["B01", "B10"], "S2B_T33BXX_clip"),
        ("site12 band 4.tif", "site12 band 3.tif", ["B03", "B04"], "site12"),
        ("x_B2_20m.tif", "x_B11_20m.tif", ["B02", "B11"], "x"),
    ],
)  # fmt: skip
def test_bands_that_files_are_named_after(tmp_path: Path, file: str, other: str, bands: list[str], stem: str) -> None:
    folder = write(tmp_path / "rome", file, other)
    for source in (find(folder), *group_files([str(folder / file), str(folder / other)])):
        assert isinstance(source, Source)
        assert list(source.bands) == bands
        assert set(names(source).values()) == {file, other}
        assert source.stem == stem


@pytest.mark.parametrize(
    "name",
    [
        "T33TUL_20190416T100031.tif",
        "S2_L2A_20190416_aquileia_B04B03B02B08.tif",
        "scene_B04_B03_B02.tif",
        "S2B_33TUL.tif",
        "A019924_B13.tif",
        "B004.tif",
        "B0.tif",
        "B4A.tif",
        "AB04.tif",
        "B04.png",
        "B04.tif.aux.xml",
        "MSK_QUALIT_B04.jp2",
        "T33TUL_20190416T100031_TCI_10m.jp2",
        "2022_B20m.tif",
    ],
)
def test_names_that_are_no_band(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert find_folder(str(tmp_path)) is None
    other = str(tmp_path / "T33TUL_20190416T100031_B03.tif")
    assert group_files([str(tmp_path / name), other]) == [str(tmp_path / name), other]


def test_what_is_said_of_a_scene(tmp_path: Path) -> None:
    source = find(
        write(tmp_path, f"{BROWSER}_B04_(Raw).tiff", f"{BROWSER}_SCL_(Raw).tiff", f"{BROWSER}_True_color.tiff")
    )
    assert source.path == str(tmp_path)
    assert list(source.bands) == ["B04"]
    assert source.bands["B04"].scaling is None
    assert source.scl is not None
    assert Path(source.scl.path).name == f"{BROWSER}_SCL_(Raw).tiff"
    assert source.level == "L2A"
    assert source.taken == datetime(2022, 6, 1, tzinfo=UTC)
    assert (source.scaling_source, source.nodata, source.notes) == ("", None, ())


@pytest.mark.parametrize(
    ("files", "level"), [(["B04.tif"], "unknown"), (["B04.tif", "SCL.tif"], "L2A"), (["x_L1C_B04.tif"], "L1C")]
)
def test_level(tmp_path: Path, files: list[str], level: str) -> None:
    assert find(write(tmp_path / "rome", *files)).level == level


def test_the_finest_resolution_counts(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "IMG_DATA", "R10m/x_B04_10m.jp2", "R10m/x_TCI_10m.jp2", "R10m/x_AOT_10m.jp2", "R20m/x_B04_20m.jp2",
        "R20m/x_B8A_20m.jp2", "R20m/x_SCL_20m.jp2", "R60m/x_B8A_60m.jp2", "R60m/x_SCL_60m.jp2",
    )  # fmt: skip
    files = [str(file) for file in sorted(folder.rglob("*.jp2"), reverse=True)]
    for source in (find(folder), *group_files(files)):
        assert isinstance(source, Source)
        assert names(source) == {"B04": "x_B04_10m.jp2", "B8A": "x_B8A_20m.jp2"}
        assert source.scl is not None
        assert Path(source.scl.path).name == "x_SCL_20m.jp2"
        assert source.stem == "x"
    coarse = find(folder / "R20m")
    assert names(coarse) == {"B04": "x_B04_20m.jp2", "B8A": "x_B8A_20m.jp2"}


def test_folders_of_resolutions_count_where_names_do_not_say(tmp_path: Path) -> None:
    folder = write(tmp_path / "rome", "R20m/B04.tif", "R10m/B04.tif", "R20m/B05.tif")
    source = find(folder)
    assert source.bands["B04"].path == str(folder / "R10m/B04.tif")
    assert source.bands["B05"].path == str(folder / "R20m/B05.tif")
    assert source.stem == "rome"


@pytest.mark.parametrize("zoom", ["IMG_DATA", "IMG_DATA/R20m"])
def test_images_inside_a_product_keep_its_radiometry(tmp_path: Path, zoom: str) -> None:
    product = write_safe(tmp_path, size=48, bands=("B03", "B04"), offset=-700).path
    folder = next(product.glob(f"GRANULE/*/{zoom}"))
    files = [str(file) for file in sorted(folder.rglob("*_B0?_20m.jp2"))]
    for source in (find(folder), *group_files(files)):
        assert isinstance(source, Source)
        assert [band.scaling for band in source.bands.values()] == [Scaling(10_000, -700)] * 2
        assert source.scaling_source == "the product's MTD_MSIL2A.xml"
        assert source.level == "L2A"
        assert source.nodata == 0
        assert source.taken == datetime(2022, 6, 1, 10, 0, 31, 24_000, tzinfo=UTC)
        assert source.stem == "T33TUL_20220601T100031"
    alone = find(Path(shutil.copytree(folder, tmp_path / "copied" / folder.name)))
    assert {band.scaling for band in alone.bands.values()} == {None}


@pytest.mark.parametrize("second", ["T33TUL_20190421T100031_B03.tif", "T33TUM_20190416T100031_B04.tif", "rome_B03.tif"])
def test_folders_of_several_dates_or_tiles(tmp_path: Path, second: str) -> None:
    first = "T33TUL_20190416T100031_B04.tif"
    write(tmp_path, first, second)
    with pytest.raises(
        SceneError, match=r"holds bands of several scenes, such as .*; use the files of only one"
    ) as error:
        find_folder(str(tmp_path))
    assert first in str(error.value)
    assert second in str(error.value)


def test_a_band_that_two_files_hold(tmp_path: Path) -> None:
    write(tmp_path, "x_B04.tif", "x_B03.tif", "x_b4.jp2")
    expected = r"x_B04\.tif and \S*x_b4\.jp2 both hold B04; use only one of them"
    with pytest.raises(SceneError, match=expected):
        find_folder(str(tmp_path))
    with pytest.raises(SceneError, match=expected):
        group_files([str(tmp_path / name) for name in ("x_B04.tif", "x_B03.tif", "x_b4.jp2")])
    with pytest.raises(SceneError, match="both hold B03"):
        group_files(["a/B03.tif", "a/B04.tif", "a/B03.tif"])


def test_scenes_that_are_only_named_like_bands(tmp_path: Path) -> None:
    folder = write(tmp_path, "site_b1.tif", "site_b2.tif", count=3)
    assert find_folder(str(folder)) is None
    paths = [str(folder / name) for name in ("site_b1.tif", "site_b2.tif")]
    assert group_files(paths) == paths


def test_broken_files_are_still_bands(tmp_path: Path) -> None:
    """Where they are read it is said which."""
    write(tmp_path, "B04.tif")
    (tmp_path / "B03.jp2").write_bytes(b"")
    assert names(find(tmp_path)) == {"B03": "B03.jp2", "B04": "B04.tif"}


def test_no_folder(tmp_path: Path) -> None:
    file = write(tmp_path, "B04.tif") / "B04.tif"
    for path in (str(file), str(tmp_path / "none"), "https://example.com/folder", ""):
        assert find_folder(path) is None


def test_scenes_of_a_command_line_keep_their_order() -> None:
    first = [f"T33TUL_20190416T100031_{image}_10m.jp2" for image in ("B02", "TCI", "B04", "B03")]
    other = [f"T33TUL_20190421T100031_{band}_10m.jp2" for band in ("B04", "B03", "B02")]
    remote = [f"https://example.com/33/TUL/{band}.tif" for band in ("B04", "B03", "B02")]
    rest = ["scene.tif", "S2A_MSIL2A.SAFE", "T33TUL_20190501T100031_B04.jp2", "x/B04.tif", "item.json", "."]
    paths = [rest[0], first[0], other[0], rest[1], *first[1:], remote[0], *other[1:], *rest[2:], *remote[1:]]
    got = group_files(paths)
    assert [each.path if isinstance(each, Source) else each for each in got] == [
        rest[0], first[0], other[0], rest[1], remote[0], *rest[2:]
    ]  # fmt: skip
    scenes = [each for each in got if isinstance(each, Source)]
    assert [list(scene.bands) for scene in scenes] == [["B02", "B03", "B04"]] * 3
    assert [scene.stem for scene in scenes] == ["T33TUL_20190416T100031", "T33TUL_20190421T100031", "TUL"]
    assert scenes[1].taken == datetime(2019, 4, 21, 10, 0, 31, tzinfo=UTC)
    assert scenes[2].bands["B04"].path == remote[0]


def test_the_same_names_in_two_folders_are_two_scenes() -> None:
    got = group_files([f"{place}/{band}.tif" for place in ("rome", "milan") for band in ("B04", "B03")])
    assert [each.stem for each in got if isinstance(each, Source)] == ["rome", "milan"]


def test_files_where_one_stands_take_the_folders_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write(tmp_path / "rome", "B04.tif", "B03.tif"))
    (source,) = group_files(["B04.tif", "B03.tif"])
    assert isinstance(source, Source)
    assert source.stem == "rome"
    assert find(Path()).stem == "rome"


@given(st.text() | st.text("B0148Am_-. ()/Rrawtif", max_size=30))
def test_one_scene_stays_as_it_is(path: str) -> None:
    assert group_files([path]) == [path]
    assert group_files([f"{path}.tif"]) == [f"{path}.tif"]
