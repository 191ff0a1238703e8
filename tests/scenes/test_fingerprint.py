"""The identity of files, on disk and in archives."""

from __future__ import annotations

import hashlib
import os
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

import geocfl
from geocfl.core.remembered import Remembered
from geocfl.errors import SceneError
from geocfl.scenes import fingerprint
from geocfl.scenes.fingerprint import identities, identity
from tests.scenes.safe_product import write_safe

CONTENT = b"pixels" * 1000


@pytest.mark.parametrize("form", ["/vsizip/{path}/in/B04.tif", "/vsizip/{{{path}}}/in/B04.tif"])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_file_in_an_archive_is_itself_and_damage_is_found(tmp_path: Path, form: str, method: int) -> None:
    path = tmp_path / "s.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("in/B04.tif", CONTENT)
        archive.writestr("other", b"other")
    raster = form.format(path=path)
    assert identity(raster) == hashlib.sha256(CONTENT).hexdigest()
    data = bytearray(path.read_bytes())
    data[50] ^= 1  # of 30 bytes of header, 10 of name, and content
    path.write_bytes(data)
    with pytest.raises(SceneError, match=r"s\.zip: is damaged .*; download it again"):
        identity(raster)


def test_a_damaged_image_in_an_archive_is_not_mapped(tmp_path: Path, tiny_model: Path) -> None:
    """GDAL reads other pixels there without an error."""
    path = write_safe(tmp_path, bands=("B02", "B03", "B04"), zipped=True).path
    with zipfile.ZipFile(path) as archive:
        image = next(each for each in archive.infolist() if each.filename.endswith("_B04_10m.jp2"))
    data = bytearray(path.read_bytes())
    data[image.header_offset + 30 + len(image.filename) + image.compress_size * 3 // 4] ^= 16
    path.write_bytes(data)
    with pytest.raises(SceneError, match="is damaged"):
        geocfl.map_scene(path, tmp_path / "out", model=tiny_model, backend="torch", products=["lulc"], vector=())
    assert not (tmp_path / "out").exists()


def remembered(tmp_path: Path, age: float = 60.0) -> tuple[Path, Remembered]:
    """A file that was last changed a while ago, with its hash in a manifest."""
    file = tmp_path / "s.tif"
    file.write_bytes(CONTENT)
    os.utime(file, (time.time() - age,) * 2)
    known = Remembered(tmp_path / "manifest.jsonl")
    assert identity(str(file), known) == hashlib.sha256(CONTENT).hexdigest()
    return file, known


def test_a_file_that_has_not_changed_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "SETTLED", -1_000_000_000_000)
    file, _ = remembered(tmp_path)
    monkeypatch.setattr(fingerprint, "file_hash", lambda path: pytest.fail("read"))
    again = Remembered(tmp_path / "manifest.jsonl")
    assert identity(str(file), again) == hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize("change", ["content", "same size", "same size and time", "another file", "touched"])
def test_a_file_that_has_changed_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    monkeypatch.setattr(fingerprint, "SETTLED", -1_000_000_000_000)
    file, known = remembered(tmp_path)
    before, other = file.stat(), CONTENT[::-1]
    if change == "content":
        file.write_bytes(CONTENT + b"more")
    elif change == "another file":
        (tmp_path / "new").write_bytes(other)
        os.utime(tmp_path / "new", ns=(before.st_atime_ns, before.st_mtime_ns))
        (tmp_path / "new").replace(file)
    elif change == "touched":
        file.touch()
    else:
        file.write_bytes(other)
        if change == "same size and time":
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert identity(str(file), known) == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_file_that_changes_is_not_remembered(tmp_path: Path) -> None:
    """Its times may stay the same with the next change."""
    file, known = remembered(tmp_path, age=0)
    assert known.get(f"{file}\n") is None


def test_a_member_of_an_archive_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "SETTLED", -1_000_000_000_000)
    path, known = tmp_path / "s.zip", Remembered(tmp_path / "manifest.jsonl")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.tif", CONTENT)
        archive.writestr("b.tif", CONTENT[1:])
    hashes = [identity(f"/vsizip/{path}/{name}.tif", known) for name in "ab"]
    assert hashes == [hashlib.sha256(content).hexdigest() for content in (CONTENT, CONTENT[1:])]
    monkeypatch.setattr(fingerprint, "_member_hash", lambda *_: pytest.fail("read"))
    assert hashes == [identity(f"/vsizip/{path}/{name}.tif", known) for name in "ab"]


def test_a_file_that_holds_several_rasters_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cube.nc", "a.tif", "b.tif"):
        (tmp_path / name).write_bytes(CONTENT + name.encode())
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        archive.add(tmp_path / "a.tif", "in/a.tif")
        archive.add(tmp_path / "b.tif", "in/b.tif")
    rasters = [
        *(f'netcdf:"{tmp_path}/cube.nc":{band}' for band in ("B04", "B03")),
        *(f"/vsitar/{{{tmp_path}/s.tar}}/in/{name}" for name in ("a.tif", "b.tif")),
        *(str(tmp_path / name) for name in ("a.tif", "b.tif", "a.tif")),
    ]
    one_by_one, whole, read = [identity(raster) for raster in rasters], fingerprint.file_hash, list[str]()

    def noted(path: Path) -> str:
        read.append(path.name)
        return whole(path)

    monkeypatch.setattr(fingerprint, "file_hash", noted)
    assert identities(rasters) == one_by_one
    assert sorted(read) == ["a.tif", "b.tif", "cube.nc", "s.tar"]
    assert identities([]) == []
