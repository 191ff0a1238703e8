"""The identity of files, on disk and in archives."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

import geocfl
from geocfl.errors import SceneError
from geocfl.scenes.fingerprint import identity
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
