from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import rasterio
import torchgeo.datasets.eurosat as torchgeo_eurosat

from geocfl.core.legend import EUROSAT
from geocfl.data.eurosat import is_torchgeo_root, read_torchgeo
from geocfl.data.patches import EUROSAT_BANDS, RGB
from geocfl.data.splits import make_split
from geocfl.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

PARTS = ("train", "val", "test")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """torchgeo's layout with one patch a class and part, and both classes' split lists."""
    for lulc in EUROSAT:
        folder = tmp_path / "ds/images/remote_sensing/otherDatasets/sentinel_2/tif" / lulc.folder
        folder.mkdir(parents=True)
        for number in (1, 2, 3):
            with rasterio.open(
                folder / f"{lulc.folder}_{number}.tif", "w", "GTiff", 64, 64, 13, dtype="uint16"
            ) as file:
                for band in range(1, 14):
                    file.write(np.full((64, 64), 1000 * lulc.code + 100 * number + band, np.uint16), band)
    for prefix in ("eurosat", "eurosat-spatial"):
        for number, part in enumerate(PARTS, 1):
            lines = [f"{lulc.folder}_{number}.jpg\n" for lulc in EUROSAT]
            (tmp_path / f"{prefix}-{part}.txt").write_text("".join(lines))
    return tmp_path


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise URLError("Name or service not known\nand more")

    monkeypatch.setattr(torchgeo_eurosat, "download_url", fail)
    monkeypatch.setattr(torchgeo_eurosat, "download_and_extract_archive", fail)


@pytest.mark.parametrize("spatial", [False, True])
def test_all_parts_are_read(root, spatial):
    patches = read_torchgeo(root, ("B8A", "B04", "B01"), spatial)
    assert is_torchgeo_root(root)
    assert (len(patches), patches.legend, patches.pixels.dtype) == (30, EUROSAT, np.uint16)
    for pixels, label, name in zip(patches.pixels, patches.labels, patches.names, strict=True):
        code, number = int(label) + 1, int(name.partition("_")[2].removesuffix(".tif"))
        assert name == f"{EUROSAT[code].folder}/{EUROSAT[code].folder}_{number}.tif"
        assert pixels[:, 5, 5].tolist() == [1000 * code + 100 * number + band for band in (13, 4, 1)]
    np.testing.assert_allclose(patches.reflectance([0])[0, 1], 0.1104, rtol=1e-6)
    split = make_split(patches, "spatial", 0, root)
    assert [len(part) for part in (split.train, split.validation, split.test)] == [10, 10, 10]
    assert {patches.names[i].partition("_")[2] for i in split.test} == {"3.tif"}


def test_torchgeo_orders_the_bands_as_we_do():
    assert torchgeo_eurosat.EuroSAT.all_band_names == EUROSAT_BANDS


@pytest.mark.parametrize("missing", ["eurosat-spatial-val.txt", "ds"])
def test_an_incomplete_root_says_what_it_needs(root, missing):
    (root / missing).rename(root / "elsewhere")
    with pytest.raises(DataError, match=r"needs EuroSATallBands\.zip and eurosat-spatial-train\.txt") as caught:
        read_torchgeo(root, RGB, spatial=True)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("offline")
def test_downloading_without_a_network_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match="cannot be downloaded") as caught:
        read_torchgeo(tmp_path / "data", RGB, spatial=False, download=True)
    message = str(caught.value)
    assert "\n" not in message
    assert "EuroSAT.zip" in message
    assert "`data`" in message


def test_unknown_bands_are_refused(root):
    with pytest.raises(DataError, match="unknown band 'B99'"):
        read_torchgeo(root, ("B04", "B99"), spatial=False)


def test_a_corrupt_patch_is_named(root):
    file = next(root.rglob("Forest_2.tif"))
    file.write_bytes(b"no tiff")
    with pytest.raises(DataError, match=r"Forest_2\.tif: cannot be read") as caught:
        read_torchgeo(root, RGB, spatial=False)
    assert "\n" not in str(caught.value)


def test_a_corrupt_archive_is_no_download_problem(root):
    (root / "ds").rename(root / "elsewhere")
    (root / "EuroSATallBands.zip").write_bytes(b"no archive")
    with pytest.raises(DataError, match="cannot be read as torchgeo's EuroSAT"):
        read_torchgeo(root, RGB, spatial=False)
