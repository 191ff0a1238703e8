"""Processing baselines: who states them, and what the pixels say to it."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from geocfl.core.radiometry import Scaling
from geocfl.errors import SceneError
from geocfl.scenes import Reading, find_source, open_scene
from geocfl.scenes.baseline import find_baseline, has_offset, parse_baseline
from geocfl.scenes.checks import scene_warnings
from tests.scenes.safe_product import BANDS, metadata_xml

PRODUCT = "S2A_MSIL2A_20220601T100031_N0400_R122_T32TPT_20220601T160000"


def write(path: Path, dn: np.ndarray, band: str = "B04", **tags: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", height=dn.shape[0], width=dn.shape[1], count=1, dtype="uint16", nodata=0,
        crs="EPSG:32633", transform=Affine(10, 0, 3e5, 0, -10, 5e6),
    ) as dataset:  # fmt: skip
        dataset.write(dn, 1)
        dataset.set_band_description(1, band)
        dataset.update_tags(**tags)
    return path


@pytest.fixture
def raised() -> np.ndarray:
    """Digital numbers of baseline 04.00, some of them of negative reflectance."""
    rng = np.random.default_rng(0)
    dn = 1000 + 300 + rng.gamma(3, 150, (200, 200))
    dn[rng.random(dn.shape) < 0.005] = 960
    return dn.astype(np.uint16)


def warnings(scene: Path, **how: float) -> list[str]:
    with open_scene(scene, Reading(**how)) as opened:
        return scene_warnings(opened)


@pytest.mark.parametrize(
    ("path", "tags", "expected"),
    [
        (f"/data/{PRODUCT}_stack.tif", {}, "04.00"),
        (f"/data/{PRODUCT}.SAFE/out/stack.tif", {}, "04.00"),
        ("/data/N0510/stack.tif", {}, "05.10"),
        ("/data/L2A_T33TUL_A019924_20190416T100031_N02.11.tif", {}, "02.11"),
        ("/data/dem_N0450E0130.tif", {}, ""),
        ("/data/stack.tif", {"PROCESSING_BASELINE": "05.09"}, "05.09"),
        ("/data/stack.tif", {"s2:processing_baseline": "5.09"}, "05.09"),
        ("/data/stack.tif", {"PRODUCT_URI": f"{PRODUCT}.SAFE"}, "04.00"),
        (f"/data/{PRODUCT}.tif", {"PROCESSING_BASELINE": "02.11"}, "02.11"),
        ("/data/stack.tif", {"AREA_OR_POINT": "Area"}, ""),
    ],
)
def test_names_and_tags(path: str, tags: dict[str, str], expected: str) -> None:
    assert find_baseline(path, tags) == expected


@pytest.mark.parametrize(("stated", "expected"), [("04.00", "04.00"), (4.0, "04.00"), (4, "04.00"), ("N0511", "05.11")])
def test_spellings(stated: object, expected: str) -> None:
    assert parse_baseline(stated) == expected


def test_which_baselines_have_an_offset() -> None:
    assert all(map(has_offset, ("04.00", "05.11")))
    assert not any(map(has_offset, ("", "02.14", "03.01", "99.99")))


def test_what_states_the_baseline_is_believed_with_negative_pixels(tmp_path: Path, raised: np.ndarray) -> None:
    for scene in (
        write(tmp_path / f"{PRODUCT}_stack.tif", raised),
        write(tmp_path / "tagged.tif", raised, PROCESSING_BASELINE="04.00"),
        write(tmp_path / f"{PRODUCT}.tif" / "B04.tif", raised).parent,
        write(tmp_path / "tagged" / "B04.tif", raised, PROCESSING_BASELINE="04.00").parent,
    ):
        (said,) = warnings(scene)
        assert "it is of processing baseline 04.00" in said
        assert "`offset=-1000`" in said
        assert warnings(scene, offset=-1000) == []
        assert warnings(scene, offset=0) == [], "the user knows"


def test_the_tags_of_any_band_file_count(tmp_path: Path, raised: np.ndarray) -> None:
    write(tmp_path / "B02.tif", raised, "B02")
    write(tmp_path / "B04.tif", raised, PROCESSING_BASELINE="04.00")
    assert find_source(tmp_path).baseline == "04.00"


def test_the_tile_folders_of_servers(tmp_path: Path, raised: np.ndarray) -> None:
    tile = write(tmp_path / "0" / "R10m" / "B04.tif", raised).parents[1]
    (tile / "tileInfo.json").write_text(json.dumps({"productName": PRODUCT, "datastrip": {"id": "x_N04.00"}}))
    assert "it is of processing baseline 04.00" in warnings(tile)[0]
    offsets = "".join(f'<BOA_ADD_OFFSET band_id="{number}">-1000</BOA_ADD_OFFSET>' for number in range(13))
    text = (
        "<P><PRODUCT_TYPE>S2MSI2A</PRODUCT_TYPE><PROCESSING_BASELINE>04.00</PROCESSING_BASELINE>"
        f"<BOA_QUANTIFICATION_VALUE>10000</BOA_QUANTIFICATION_VALUE>{offsets}</P>"
    )
    (tile / "product_metadata.xml").write_text(text)
    source = find_source(tile)
    assert source.bands["B04"].scaling == Scaling(10_000, -1000)
    assert (source.level, source.scaling_source) == ("L2A", "the product's product_metadata.xml")
    assert warnings(tile) == []
    (tile / "product_metadata.xml").write_text(text[:-20])
    with pytest.raises(SceneError, match=r"product_metadata\.xml is broken"):
        find_source(tile)


@pytest.mark.parametrize(
    ("name", "used"),
    [
        ("B04.tif", True),
        ("T33TUL_20220601T100031_B04.tif", True),
        ("S2_L2A_20220601_B04.tif", True),
        ("T32TPT_20220601T100031_B04.tif", False),
        ("T33TUL_20220606T100031_B04.tif", False),
        ("S2_L1C_B04.tif", False),
    ],
)
def test_metadata_of_another_scene_beside_bands_are_not_used(
    tmp_path: Path, raised: np.ndarray, name: str, used: bool
) -> None:
    image = "GRANULE/L2A_T33TUL_A036250_20220601T100206/IMG_DATA/R10m/T33TUL_20220601T100031_B04_10m"
    text = metadata_xml("L2A", "04.00", [image], offsets=dict.fromkeys(BANDS, -1000.0))
    (tmp_path / "MTD_MSIL2A.xml").write_text(text)
    write(tmp_path / name, raised)
    source = find_source(tmp_path)
    assert (source.bands["B04"].scaling is not None) is used
    assert any("MTD_MSIL2A.xml beside its bands is of another scene" in note for note in source.notes) is not used


def test_without_a_baseline_the_dark_pixels_speak_in_reflectance(tmp_path: Path, raised: np.ndarray) -> None:
    assert "darkest B04 values are above a reflectance of 0.1" in warnings(write(tmp_path / "s.tif", raised))[0]
    assert warnings(write(tmp_path / "t.tif", raised - 900)) == []


def test_a_baseline_that_the_pixels_contradict_is_not_warned_of(tmp_path: Path, raised: np.ndarray) -> None:
    lowered = np.where(raised > 1000, raised - 1000, 1).astype(np.uint16)
    assert warnings(write(tmp_path / f"{PRODUCT}.tif", lowered)) == []
