from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from geocfl.errors import SceneError
from geocfl.scenes import Reading, find_source, open_scene

RGB = ("B04", "B03", "B02")


def land(side: int = 128) -> dict[str, np.ndarray]:
    """Vegetation, soil and water with haze: digital numbers of the 10 m bands and a mask."""
    rng = np.random.default_rng(1)
    soil, plants = np.kron(rng.random((2, side // 8, side // 8)), np.ones((8, 8)))
    noise = rng.normal(0, 5, (4, side, side))
    blue, green, red = 700 + 500 * soil, 550 + 900 * soil + 100 * plants, 350 + 1500 * soil - 100 * plants
    near = 400 + 900 * soil + 3000 * plants
    bands = np.stack([blue, green, red, near]) + noise
    return dict(zip(("B02", "B03", "B04", "B08"), bands.clip(1), strict=True)) | {"mask": np.eye(side) * 0 + 1}


def write(path: Path, bands, names=(), tags=(), dtype="uint16", **profile) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", height=len(bands[0]), width=len(bands[0][0]), count=len(bands), dtype=dtype,
        crs="EPSG:32633", transform=Affine(10, 0, 3e5, 0, -10, 5e6), **profile,
    ) as dataset:  # fmt: skip
        dataset.write(np.stack(bands).astype(dtype))
        for number, name in enumerate(names, start=1):
            dataset.set_band_description(number, name)
        for number, items in enumerate(tags, start=1):
            dataset.update_tags(number, **items)
    return path


def numbers(path: Path) -> dict[str, int]:
    return {name: band.index for name, band in find_source(path).bands.items()}


@pytest.mark.parametrize("dtype", ["uint16", "uint8"])
@pytest.mark.parametrize(
    "order",
    [
        ("B04", "B03", "B02"), ("B02", "B03", "B04"), ("B08", "B04", "B03"), ("B02", "B03", "B04", "B08"),
        ("B04", "B03", "B02", "B08"), ("B04", "B03", "B02", "mask"), ("B02", "B03", "B04", "mask"),
        ("B08", "B04", "B03", "B02"),
    ],
)  # fmt: skip
def test_pixels_tell_the_order_of_bands_without_names(tmp_path: Path, order, dtype: str) -> None:
    bands = land()
    scale = 1 if dtype == "uint16" else 1 / 20  # GDAL calls any bytes red, green, blue, alpha
    path = write(tmp_path / "s.tif", [bands[name] * (1 if name == "mask" else scale) for name in order], dtype=dtype)
    assert numbers(path) == {name: number for number, name in enumerate(order, start=1) if name != "mask"}


def test_an_order_that_pixels_do_not_tell_is_refused_and_can_be_set(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(1, 3000, (4, 80, 80))
    path = write(tmp_path / "s.tif", [*noise])
    with pytest.raises(SceneError, match="they may be B02, B03, B04, B08 or B04, B03, B02, B08; use `bands`"):
        open_scene(path, needed=RGB)
    with open_scene(path, Reading(bands=("B02", "B03", "B04", "B08")), needed=RGB) as scene:
        assert scene.bands == {"B04": 3, "B03": 2, "B02": 1}


@pytest.mark.parametrize(
    "label", ["Band_{}", "Layer_{}", "Resize (Band {}:s2.dat)", "Band {}", "b{}", "B{}", "band_0{}"]
)
def test_numbers_that_count_are_no_names(tmp_path: Path, label: str) -> None:
    bands, order = land(), ("B02", "B03", "B04", "B08")
    path = write(tmp_path / "s.tif", [bands[name] for name in order], [label.format(n) for n in range(1, 5)])
    assert numbers(path) == {"B02": 1, "B03": 2, "B04": 3, "B08": 4}


@pytest.mark.parametrize("item", ["DESCRIPTION", "long_name", "BandName"])
def test_names_in_the_metadata_of_bands(tmp_path: Path, item: str) -> None:
    order = ("B03", "B04", "B02")  # of which pixels would say something else
    path = write(tmp_path / "s.tif", [land()["B03"]] * 3, tags=[{item: name} for name in order])
    assert numbers(path) == {"B03": 1, "B04": 2, "B02": 3}


def test_eleven_bands_are_those_of_sen2r(tmp_path: Path) -> None:
    found = numbers(write(tmp_path / "s.tif", [land()["B03"]] * 11))
    assert (found["B02"], found["B04"], found["B11"]) == (2, 4, 10)


def test_files_of_a_virtual_raster_name_its_bands(tmp_path: Path) -> None:
    for name in RGB:
        write(tmp_path / f"T32TPT_20200601T101031_{name}.tif", [land()[name]])
    elements = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{number}"><SimpleSource><SourceFilename relativeToVRT="1">'
        f"T32TPT_20200601T101031_{name}.tif</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        for number, name in enumerate(("B02", "B03", "B04"), start=1)
    )
    (tmp_path / "s.vrt").write_text(f'<VRTDataset rasterXSize="128" rasterYSize="128">{elements}</VRTDataset>')
    assert numbers(tmp_path / "s.vrt") == {"B02": 1, "B03": 2, "B04": 3}


@pytest.mark.parametrize("value", [-10000, -9999, -32768])
def test_undeclared_nodata_is_recognized_and_said(tmp_path: Path, value: int) -> None:
    bands = [land()[name] for name in RGB]
    for band in bands:
        band[:30, :40] = value
    path = write(tmp_path / "s.tif", bands, RGB, dtype="int16")
    with open_scene(path, needed=RGB, gsd=10) as scene:
        assert np.isnan(scene.read(RGB, 0, scene.height)[0]).sum() == 30 * 40
        assert f"{value} is assumed to be it; `nodata` overrides it" in scene.notes[0]


def test_saturated_pixels_inside_are_no_nodata(tmp_path: Path) -> None:
    bands = [np.kron(land()[name], np.ones((4, 4))) for name in RGB]
    for band in bands:
        band[240:260, 240:260] = 65535
    with open_scene(write(tmp_path / "inside.tif", bands, RGB), needed=RGB) as scene:
        assert np.isfinite(scene.read(RGB, 0, scene.height)).all()
    for band in bands:
        band[:20] = 65535
    with open_scene(write(tmp_path / "border.tif", bands, RGB), needed=RGB) as scene:
        assert np.isnan(scene.read(RGB, 0, 20)).all()


def test_another_nodata_value_than_the_declared_0_is_recognized(tmp_path: Path) -> None:
    bands = [land()[name] for name in RGB]
    for band in bands:
        band[:20], band[40:50] = 65535, 0
    with open_scene(write(tmp_path / "s.tif", bands, RGB, nodata=0), needed=RGB) as scene:
        missing = np.isnan(scene.read(RGB, 0, scene.height)[0])
        assert "declares another nodata value, but 65535 is assumed to be it" in scene.notes[0]
    assert missing[:20].all()
    assert missing[40:50].all()
    assert missing.sum() == 30 * missing.shape[1]


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_virtual_raster_has_the_descriptions_of_its_sources(tmp_path: Path) -> None:
    path = write(tmp_path / "tile.tif", [land()[name] for name in RGB], ("B08", "B03", "B04"))
    sources = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{number}"><SimpleSource><SourceFilename relativeToVRT="1">{path.name}'
        f"</SourceFilename><SourceBand>{number}</SourceBand></SimpleSource></VRTRasterBand>"
        for number in (1, 2, 3)
    )
    (tmp_path / "mosaic.vrt").write_text(f'<VRTDataset rasterXSize="128" rasterYSize="128">{sources}</VRTDataset>')
    assert numbers(tmp_path / "mosaic.vrt") == {"B08": 1, "B03": 2, "B04": 3}


def test_a_chosen_nodata_value_overrides_the_declared_one(tmp_path: Path) -> None:
    bands = [land()[name] for name in RGB]
    for band in bands:
        band[5, 5], band[9, 9] = 7, 0
    path = write(tmp_path / "s.tif", bands, RGB, nodata=0)
    with open_scene(path, Reading(nodata=7), needed=RGB) as scene:
        assert np.argwhere(np.isnan(scene.read(RGB, 0, 20)[0])).tolist() == [[5, 5]]
    with pytest.raises(SceneError, match="no pixel of its data type uint16 has the value -1; correct `nodata`"):
        open_scene(path, Reading(nodata=-1), needed=RGB)


@pytest.mark.parametrize("internal", ["YES", "NO"])
def test_masks_of_band_files_are_kept(tmp_path: Path, internal: str) -> None:
    hole = {"B04": np.s_[10:20, 10:20], "B03": np.s_[30:40, 0:10], "B02": np.s_[50:60, 5:9]}
    for name, where in hole.items():
        valid = np.full((128, 128), 255, np.uint8)
        valid[where] = 0
        path = write(tmp_path / f"{name}.tif", [land()[name]])
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(path, "r+") as dataset:
            dataset.write_mask(valid)
    with open_scene(tmp_path, needed=RGB, gsd=10) as scene:
        assert np.isnan(scene.read(RGB, 0, 128)[0]).sum() == 100 + 100 + 40


@pytest.mark.parametrize(("name", "reading", "values"), [
    ("HLS.S30.T32TPT.2020153T101031.v2.0.Fmask.tif", {}, [0, 64, 16, 2, 8, 72]),
    ("clouds.tif", {"mask_bits": (1, 2, 3)}, [0, 64, 16, 2, 8, 72]),
    ("QA60.tif", {}, [0, 1, 512, 1024, 2048, 3072]),
    ("MSK_CLDPRB_20m.tif", {}, [0, 49, 1, 50, 100, 99]),
    ("20200601_LEVEL2_SEN2A_QAI.tif", {}, [0, 1, 48, 2, 4, 8]),
    ("SENTINEL2A_20200601-105043-463_L2A_T32TPT_C_V2-2_MG2_R1.tif", {}, [0, 1, 20, 2, 8, 10]),
    ("T32TPT_20200601T101031_SCL_20m.tif", {}, [0, 4, 6, 3, 8, 9]),
])  # fmt: skip
def test_masks_of_bits(tmp_path: Path, name: str, reading, values) -> None:
    path = write(tmp_path / "s.tif", [land()[band] for band in RGB], RGB)
    rows = np.zeros((128, 128))
    rows[: len(values)] = np.array(values)[:, None]
    mask = write(tmp_path / name, [rows])
    with open_scene(path, Reading(mask=mask, **reading), needed=RGB) as scene:
        assert np.isnan(scene.read(RGB, 0, 8)[0, :, 0]).tolist() == [False] * 3 + [True] * 3 + [False] * 2
