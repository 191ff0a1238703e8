"""What bands take in their files, against the sizes of the files."""

import zipfile
from pathlib import Path

import pytest
import rasterio

from geocfl.planning import stored_size
from geocfl.planning.stored_size import stored_bytes
from geocfl.scenes import find_source
from geocfl.scenes.find import chosen_bands
from tests.noise import write_scene

RGB = ("B04", "B03", "B02")


def test_bands_that_share_blocks_are_read_with_all_of_them(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "s.tif")
    stored = stored_bytes(chosen_bands(find_source(scene), RGB))
    assert stored is not None
    assert 0.9 * scene.stat().st_size < stored <= scene.stat().st_size


def test_bands_that_are_not_read_do_not_count(tmp_path: Path) -> None:
    """B08 has its own blocks."""
    scene = write_scene(tmp_path / "s.tif", interleave="band")
    stored = stored_bytes(chosen_bands(find_source(scene), RGB))
    assert stored == pytest.approx(0.75 * scene.stat().st_size, rel=0.05)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_bands_in_separate_files(tmp_path: Path) -> None:
    (tmp_path / "scene").mkdir()
    with rasterio.open(write_scene(tmp_path / "s.tif")) as dataset:
        profile = dataset.profile | {"driver": "JP2OpenJPEG", "count": 1}
        for option in ("tiled", "compress", "interleave", "blockxsize", "blockysize"):
            profile.pop(option)
        for number, band in enumerate(RGB, start=1):
            with rasterio.open(tmp_path / "scene" / f"{band}.jp2", "w", **profile) as single:
                single.write(dataset.read(number), 1)
    size = sum(path.stat().st_size for path in (tmp_path / "scene").glob("*.jp2"))
    assert stored_bytes(find_source(tmp_path / "scene")) == size


def test_members_of_archives_have_their_own_bytes(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("in/B04.jp2", b"0" * 10_000)
    packed = stored_size.file_bytes(f"/vsizip/{tmp_path}/a.zip/in/B04.jp2")
    assert packed is not None
    assert 0 < packed < 1000
    assert stored_size.file_bytes(f"/vsizip/{{{tmp_path}/a.zip}}/in/B04.jp2") == packed
    assert stored_size.file_bytes("/vsicurl/https://example.com/B04.jp2") is None
