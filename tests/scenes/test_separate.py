"""Virtual rasters of separate band files: the files' masks count, unless the virtual raster shows another part."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from geocfl.scenes.separate import masked_files

SIDE = 64
RECTANGLE = '<{tag} xOff="{x}" yOff="0" xSize="{size}" ySize="{size}"/>'


def band_file(path: Path) -> Path:
    """A band with a mask inside and no nodata value."""
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path, "w", driver="GTiff", height=SIDE, width=SIDE, count=1, dtype="uint16", crs="EPSG:32633",
            transform=Affine(10, 0, 3e5, 0, -10, 5e6),
        ) as dataset,
    ):  # fmt: skip
        dataset.write(np.full((1, SIDE, SIDE), 900, np.uint16))
        mask = np.full((SIDE, SIDE), 255, np.uint8)
        mask[:10] = 0
        dataset.write_mask(mask)
    return path


def virtual(folder: Path, source: str, target: str) -> Path:
    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{number}"><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">{band_file(folder / f"{name}.tif").name}</SourceFilename>'
        f"<SourceBand>1</SourceBand>{source}{target}</SimpleSource></VRTRasterBand>"
        for number, name in enumerate(("B04", "B03"), start=1)
    )
    path = folder / "stack.vrt"
    path.write_text(
        f'<VRTDataset rasterXSize="{SIDE}" rasterYSize="{SIDE}"><SRS>EPSG:32633</SRS>'
        f"<GeoTransform>300000, 10, 0, 5000000, 0, -10</GeoTransform>{bands}</VRTDataset>"
    )
    return path


@pytest.mark.parametrize(
    ("source", "target", "whole"),
    [
        ("", "", True),
        (RECTANGLE.format(tag="SrcRect", x=0, size=SIDE), RECTANGLE.format(tag="DstRect", x=0, size=SIDE), True),
        (RECTANGLE.format(tag="SrcRect", x=0, size=SIDE // 2), RECTANGLE.format(tag="DstRect", x=0, size=SIDE), False),
        (RECTANGLE.format(tag="SrcRect", x=0, size=SIDE), RECTANGLE.format(tag="DstRect", x=8, size=SIDE), False),
    ],
    ids=["unsaid", "whole", "enlarged", "shifted"],
)
def test_files_count_only_where_they_are_whole(tmp_path: Path, source: str, target: str, whole: bool) -> None:
    with rasterio.open(virtual(tmp_path, source, target)) as dataset:
        files = masked_files(dataset, {"B04": 1, "B03": 2})
    assert {name: Path(band.path).name for name, band in files.items()} == (
        {"B04": "B04.tif", "B03": "B03.tif"} if whole else {}
    )
