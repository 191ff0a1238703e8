from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

import geocfl.data.patches as patches_module
from geocfl.core.legend import EUROSAT
from geocfl.core.radiometry import EUROSAT_RGB, SENTINEL2, Scaling
from geocfl.data.patches import EUROSAT_BANDS, RGB, read_patches
from geocfl.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def write_tiff(path: Path, pixels: np.ndarray, descriptions: tuple[str, ...] = ()) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    bands, height, width = pixels.shape
    with rasterio.open(path, "w", "GTiff", width, height, bands, dtype=pixels.dtype) as dataset:
        dataset.write(pixels)
        for index, description in enumerate(descriptions):
            dataset.set_band_description(index + 1, description)


def stack(bands: int, value: int = 1000, size: int = 8) -> np.ndarray:
    """Band k holds value + k."""
    return np.broadcast_to(value + np.arange(bands)[:, None, None], (bands, size, size)).astype(np.uint16)


def png(color: tuple[int, int, int], size: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), color).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_folder_of_pictures(tmp_path, write_patches):
    patches = read_patches(write_patches(tmp_path / "data", each=3), RGB)
    assert (len(patches), patches.pixels.shape, patches.pixels.dtype) == (9, (9, 3, 64, 64), np.uint8)
    assert patches.legend.names == ["Forest", "River", "Sea Lake"]
    assert patches.names[3:5] == ("River/River_1.png", "River/River_2.png")
    np.testing.assert_array_equal(patches.labels, np.repeat(np.arange(3), 3))
    assert patches.scaling == EUROSAT_RGB
    with Image.open(tmp_path / "data/River/River_2.png") as image:
        np.testing.assert_array_equal(patches.pixels[4], np.asarray(image).transpose(2, 0, 1))
    assert patches.counts(np.array([0, 1, 8])) == [2, 0, 1]


def test_an_archive_is_read_as_its_folder_would_be(tmp_path, write_patches):
    folder = write_patches(tmp_path / "data", each=3)
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for file in sorted(folder.rglob("*.png"), reverse=True):
            archive.write(file, Path("2750") / file.relative_to(folder))
        archive.writestr("__MACOSX/2750/River/._River_1.png", b"no picture")
        archive.writestr("readme.txt", b"neither")
    one, other = read_patches(folder, RGB), read_patches(tmp_path / "data.zip", RGB)
    np.testing.assert_array_equal(one.pixels, other.pixels)
    assert (one.names, one.labels.tolist()) == (other.names, other.labels.tolist())


def test_jpegs_are_read(tmp_path):
    for folder in ("A", "B"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (64, 64), (10, 120, 250)).save(tmp_path / folder / "1.JPG", quality=100)
    assert np.abs(read_patches(tmp_path, RGB).pixels[0, :, 0, 0].astype(int) - (10, 120, 250)).max() <= 2


def test_pictures_give_their_bands_in_the_requested_order(tmp_path):
    for folder in ("A", "B"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.png").write_bytes(png((1, 2, 3)))
    assert read_patches(tmp_path, ("B02", "B04")).pixels[0, :, 0, 0].tolist() == [3, 1]
    with pytest.raises(DataError, match=r"A/1\.png: .*B08"):
        read_patches(tmp_path, ("B04", "B08"))


def test_eurosat_pictures_become_reflectance(tmp_path):
    for folder, value in (("A", 1), ("B", 255)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.png").write_bytes(png((value, value, 128)))
    reflectance = read_patches(tmp_path, RGB).reflectance([0, 1])
    np.testing.assert_allclose(reflectance[:, 0, 0, 0], [0, 0.275], atol=1e-7)
    np.testing.assert_allclose(reflectance[0, 2], 0.1375, atol=1e-7)
    assert reflectance.dtype == np.float32
    raw = read_patches(tmp_path, RGB, Scaling(scale=255))
    np.testing.assert_allclose(raw.reflectance([1])[0, 0], 1, atol=1e-6)


def test_thirteen_bands_are_those_of_eurosat_with_b8a_last(tmp_path):
    for folder in ("A", "B"):
        write_tiff(tmp_path / folder / "1.tif", stack(13))
    patches = read_patches(tmp_path, ("B8A", "B08", "B09", "B01"))
    assert patches.pixels[0, :, 0, 0].tolist() == [1012, 1007, 1008, 1000]
    assert EUROSAT_BANDS[-1] == "B8A"
    assert patches.scaling == SENTINEL2
    np.testing.assert_allclose(patches.reflectance([0])[0, 3], 0.1)


def test_band_descriptions_count(tmp_path):
    for folder in ("A", "B"):
        write_tiff(tmp_path / folder / "1.tif", stack(3), ("B08", "B03", "B04"))
    assert read_patches(tmp_path, ("B04", "B08")).pixels[0, :, 0, 0].tolist() == [1002, 1000]
    with pytest.raises(DataError, match="B02 not found"):
        read_patches(tmp_path, RGB)


def test_descriptions_that_are_no_band_names_do_not(tmp_path):
    for folder in ("A", "B"):
        write_tiff(tmp_path / folder / "1.tif", stack(3), ("red", "green", "blue"))
    assert read_patches(tmp_path, RGB).pixels[0, :, 0, 0].tolist() == [1000, 1001, 1002]


def test_patches_need_no_georeference(tmp_path, recwarn):
    for folder in ("A", "B"):
        write_tiff(tmp_path / folder / "1.tif", stack(3))
    recwarn.clear()
    read_patches(tmp_path, RGB)
    assert not recwarn.list


def test_files_without_the_bands_are_named(tmp_path):
    for folder in ("A", "B"):
        write_tiff(tmp_path / folder / "1.tif", stack(4))
    with pytest.raises(DataError, match=r"A/1\.tif: bands B04, B03, B02 not found among its 4 bands"):
        read_patches(tmp_path, RGB)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (png((1, 2, 3), size=9), r"'B/odd\.png' has 9 x 9 px and 3 bands of uint8 but most have 8 x 8 px"),
        (b"not a picture", r"B/odd\.png: cannot be decoded"),
        (png((1, 2, 3))[:45], r"B/odd\.png: cannot be decoded"),
        (b"", r"B/odd\.png: cannot be decoded"),
    ],
    ids=["another size", "no picture", "cut off", "empty"],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_a_file_unlike_the_others_is_named(tmp_path, content, problem, zipped):
    folder = tmp_path / "data"
    files = {"A/1.png": png((1, 2, 3)), "B/1.png": png((1, 2, 3)), "B/odd.png": content}
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    if zipped:
        with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
            for name in files:
                archive.write(folder / name, name)
    path = tmp_path / "data.zip" if zipped else folder
    with pytest.raises(DataError, match=problem + ".*, or leave it out with `skip_bad=True`"):
        read_patches(path, RGB)
    patches = read_patches(path, RGB, skip_bad=True)
    assert (patches.names, patches.skipped) == (("A/1.png", "B/1.png"), ("B/odd.png",))


def write_pictures(folder: Path, sizes: dict[str, int]) -> Path:
    """8-bit PNGs by name, each of a color of its own; a size of 0 is no picture."""
    for index, (name, size) in enumerate(sizes.items()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png((index, 2 * index, 100), size) if size else b"no picture")
    return folder


def test_the_odd_one_is_blamed_even_where_it_is_the_first(tmp_path):
    folder = write_pictures(tmp_path, {"A/0.png": 9, "A/1.png": 8, "B/1.png": 8, "B/2.png": 0})
    with pytest.raises(
        DataError, match=r"'A/0\.png' has 9 x 9 px .* most have 8 x 8 px .* it and 1 more out with `skip_bad"
    ):
        read_patches(folder, RGB)


def test_bad_patches_are_left_out_counted_and_listed(tmp_path, caplog):
    sizes = {"A/0.png": 9, "A/1.png": 8, "A/2.png": 0, "B/1.png": 8, "B/2.png": 7, "C/1.png": 8, "C/2.png": 0}
    patches = read_patches(write_pictures(tmp_path, sizes), RGB, skip_bad=True)
    assert patches.names == ("A/1.png", "B/1.png", "C/1.png")
    assert patches.skipped == ("A/0.png", "A/2.png", "B/2.png", "C/2.png")
    assert patches.labels.tolist() == [0, 1, 2]
    assert patches.pixels[:, 0, 0, 0].tolist() == [1, 3, 5], "and each keeps its pixels"
    assert patches.pixels.shape == (3, 3, 8, 8)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().endswith("4 of 7 patches are bad and are left out: A/0.png, A/2.png, B/2.png, ...")


def test_the_majority_of_all_counts_not_that_of_the_sample(tmp_path):
    # Every third of 40 is decoded first; those are all odd ones.
    sizes = {f"{'A' if index < 20 else 'B'}/{index:02}.png": 9 if index % 3 == 0 else 8 for index in range(40)}
    patches = read_patches(write_pictures(tmp_path, sizes), RGB, skip_bad=True)
    assert (patches.pixels.shape, len(patches.skipped)) == ((26, 3, 8, 8), 14)
    assert patches.pixels[:, 0, 0, 0].tolist() == [index for index in range(40) if index % 3]
    bad = {name: 0 if size == 9 else 8 for name, size in sizes.items()}
    assert len(read_patches(write_pictures(tmp_path, bad), RGB, skip_bad=True)) == 26


def test_good_patches_are_read_without_a_warning(tmp_path, caplog):
    folder = write_pictures(tmp_path, {"A/1.png": 8, "B/1.png": 8})
    strict, lax = read_patches(folder, RGB), read_patches(folder, RGB, skip_bad=True)
    np.testing.assert_array_equal(strict.pixels, lax.pixels)
    assert (strict.skipped, lax.skipped, caplog.records) == ((), (), [])


def test_another_type_and_missing_bands_can_be_skipped(tmp_path):
    write_tiff(tmp_path / "A/1.tif", stack(3))
    write_tiff(tmp_path / "A/2.tif", stack(3).astype(np.uint8))
    write_tiff(tmp_path / "B/1.tif", stack(3))
    write_tiff(tmp_path / "B/2.tif", stack(5))
    patches = read_patches(tmp_path, RGB, skip_bad=True)
    assert patches.skipped == ("A/2.tif", "B/2.tif")
    assert patches.pixels.dtype == np.uint16


@pytest.mark.parametrize("skip_bad", [False, True])
def test_only_bad_patches_are_an_error(tmp_path, skip_bad):
    folder = write_pictures(tmp_path, {"A/1.png": 0, "B/1.png": 0})
    with pytest.raises(DataError, match=r"none of the 2 patches can be read; the first: A/1\.png") as caught:
        read_patches(folder, RGB, skip_bad=skip_bad)
    assert "--skip-bad" not in str(caught.value), "it would not help"


def test_a_class_that_loses_all_patches_is_named(tmp_path):
    folder = write_pictures(tmp_path, {"A/1.png": 8, "A/2.png": 0, "B/1.png": 8, "C/1.png": 0, "C/2.png": 9})
    with pytest.raises(
        DataError, match=r"all patches of class 'C' are bad; the first: C/1\.png: cannot be decoded"
    ) as caught:
        read_patches(folder, RGB, skip_bad=True)
    assert "\n" not in str(caught.value)


def test_a_corrupt_tiff_is_named(tmp_path):
    write_tiff(tmp_path / "A/1.tif", stack(3))
    (tmp_path / "B").mkdir()
    (tmp_path / "B/2.tif").write_bytes((tmp_path / "A/1.tif").read_bytes()[:100])
    with pytest.raises(DataError, match=r"B/2\.tif: cannot be decoded"):
        read_patches(tmp_path, RGB)


def test_sixteen_bit_pictures_are_refused_not_clipped(tmp_path):
    for folder in ("A", "B"):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.full((8, 8), 1000, np.uint16)).save(tmp_path / folder / "1.png")
    with pytest.raises(DataError, match=r"A/1\.png: not an 8-bit image"):
        read_patches(tmp_path, RGB)


def test_an_archive_writes_nothing_wherever_its_paths_lead(tmp_path, monkeypatch):
    inner = tmp_path / "one/two"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    with zipfile.ZipFile(inner / "evil.zip", "w") as archive:
        for name in ("../../evil/..jpg", "../../evil/1.png", "/etc/geocfl/2.png", "good//./1.png"):
            archive.writestr(name, png((1, 2, 3)))
    before = sorted(os.walk(tmp_path))
    patches = read_patches(Path("evil.zip"), RGB)
    assert sorted(os.walk(tmp_path)) == before
    assert [c.folder for c in patches.legend] == ["evil", "geocfl", "good"]
    assert len(patches) == 3


def test_pictures_that_unpack_to_gigabytes_are_refused_undecoded(tmp_path):
    black = io.BytesIO()
    Image.new("1", (20_000, 4097)).save(black, "PNG")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in "AB":
            archive.writestr(f"{name}/1.png", black.getvalue())
            archive.writestr(f"{name}/2.png", png((1, 2, 3)))
    assert (tmp_path / "bomb.zip").stat().st_size < 100_000
    with pytest.raises(DataError, match=r"A/1\.png: has 20000 x 4097 px, but a patch may have 4096 px a side"):
        read_patches(tmp_path / "bomb.zip", RGB)


def test_files_that_unpack_to_gigabytes_are_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(patches_module, "MOST_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in "AB":
            archive.writestr(f"{name}/1.tif", bytes(1001))
    with pytest.raises(DataError, match=r"A/1\.tif: takes .* MB, but a patch may take"):
        read_patches(tmp_path / "bomb.zip", RGB)


def test_more_patches_than_memory_holds_are_refused(tmp_path, monkeypatch):
    for name in "AB":
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "1.png").write_bytes(png((1, 2, 3)))
    monkeypatch.setattr(patches_module, "free_memory", lambda: 2 * 3 * 64 - 1)
    with pytest.raises(DataError, match=r"data: 2 patches of 8 x 8 px and 3 bands of uint8 take .* use fewer"):
        read_patches(tmp_path / "data", RGB)


def test_archives_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "bad.zip").write_bytes(b"PK no archive")
    with pytest.raises(DataError, match=r"bad\.zip: not a readable zip archive"):
        read_patches(tmp_path / "bad.zip", RGB)
    with zipfile.ZipFile(tmp_path / "rot.zip", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("A/1.png", png((1, 2, 3)))
        archive.writestr("B/1.png", png((3, 2, 1)))
    content = bytearray((tmp_path / "rot.zip").read_bytes())
    content[content.index(b"IDAT") + 6] ^= 0xFF
    (tmp_path / "rot.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"A/1\.png: cannot be decoded \(BadZipFile\)"):
        read_patches(tmp_path / "rot.zip", RGB)


def test_folders_without_classes_are_refused(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        read_patches(tmp_path / "nowhere", RGB)
    (tmp_path / "loose.png").write_bytes(png((1, 2, 3)))
    with pytest.raises(DataError, match="class-named folders"):
        read_patches(tmp_path, RGB)
    (tmp_path / "Only").mkdir()
    (tmp_path / "Only/1.png").write_bytes(png((1, 2, 3)))
    with pytest.raises(DataError, match="only one class folder, 'Only'"):
        read_patches(tmp_path, RGB)


@pytest.mark.shared
def test_eurosat_jpegs_and_geotiffs_meet_in_reflectance(shared_data, tmp_path):
    tiffs = read_patches(shared_data / "eurosat/EuroSAT_MS_sample200.zip", RGB)
    with (
        zipfile.ZipFile(shared_data / "eurosat/EuroSAT.zip") as archive,
        zipfile.ZipFile(tmp_path / "pairs.zip", "w") as pairs,
    ):
        for name in tiffs.names:
            member = f"2750/{name.replace('.tif', '.jpg')}"
            pairs.writestr(member, archive.read(member))
    jpegs = read_patches(tmp_path / "pairs.zip", RGB)
    assert tiffs.legend == jpegs.legend == EUROSAT
    assert [Path(name).stem for name in tiffs.names] == [Path(name).stem for name in jpegs.names]
    every = np.arange(200)
    a, b = tiffs.reflectance(every).clip(0, 0.275), jpegs.reflectance(every)
    correlation = [np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in zip(a, b, strict=True)]
    assert min(correlation) > 0.96
    assert np.median(correlation) > 0.99
    assert np.abs(a - b).mean() < 0.005


@pytest.mark.shared
def test_the_eurosat_archive_has_the_counts_of_the_paper(shared_data):
    with zipfile.ZipFile(shared_data / "eurosat/EuroSAT.zip") as archive:
        folders = [Path(name).parent.name for name in archive.namelist() if name.endswith(".jpg")]
    counts = [folders.count(c.folder) for c in EUROSAT]
    assert counts == [3000, 3000, 3000, 2500, 2500, 2000, 2500, 3000, 2500, 3000]


def test_a_zip_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "patches.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("Forest/Forest_1.png", b"")
    content = bytearray(path.read_bytes())
    content[content.find(b"PK\x01\x02") + 6] = 255
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"patches\.zip: not a readable zip archive \(zip file version 25.5\)"):
        read_patches(path, RGB)
