"""Small intact inputs: a model with random weights, scenes, products, maps, zones and patches."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from shapely.geometry import box

PLACE = {"crs": "EPSG:32633", "transform": Affine(10, 0, 3e5, 0, -10, 5e6)}
SIDE = 192


def write_model(folder: Path) -> Path:
    """A bundle with random weights whose last layer is scaled so that windows get different classes."""
    import torch

    from geocfl.core.legend import EUROSAT
    from geocfl.models.backbones import build_network
    from geocfl.models.bundle import Bundle

    torch.manual_seed(0)
    network: Any = build_network("lite0", 3, len(EUROSAT)).eval()
    with torch.no_grad():
        pixels = torch.from_numpy(land(640, 640)).unfold(1, 64, 64).unfold(2, 64, 64).flatten(1, 2).transpose(0, 1)
        windows = torch.nn.functional.interpolate((pixels / 10_000 - 0.1) / 0.04, 32)
        logits = network(windows)
        weight = network.classifier.weight.div_(logits.std(0)[:, None] / 2)
        network.classifier.bias.copy_(-weight @ network.forward_head(network.forward_features(windows), True).mean(0))
    model = Bundle(
        "tiny", "lite0", ("B04", "B03", "B02"), 10.0, 64, 32, (0.0, 0.275), (0.1,) * 3, (0.05, 0.04, 0.03), EUROSAT, 1.5
    )
    model.save(folder, network.state_dict())
    return folder


def land(height: int = SIDE, width: int = SIDE, seed: int = 0) -> NDArray[np.uint16]:
    """(3, height, width) digital numbers of red, green and blue: patches of land with texture."""
    rng = np.random.default_rng(seed)
    smooth = np.stack([gaussian_filter(rng.random((height, width)), 12) for _ in range(3)])
    smooth = (smooth - smooth.min()) / np.ptp(smooth)
    numbers = (200 + 2300 * smooth + rng.normal(0, 120, smooth.shape)).clip(1, 6000)
    return np.asarray(numbers, np.uint16)


def write_scene(path: Path, pixels: NDArray[np.uint16] | None = None, **profile: object) -> Path:
    """A GeoTIFF of red, green and blue."""
    pixels = land() if pixels is None else pixels
    count, height, width = pixels.shape
    options = {
        "tiled": True,
        "blockxsize": 64,
        "blockysize": 64,
        "compress": "deflate",
        "nodata": 0,
        **PLACE,
        **profile,
    }
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=pixels.dtype, **options
    ) as file:
        file.write(pixels)
        file.descriptions = ("B04", "B03", "B02")[:count]
        file.update_tags(TIFFTAG_DATETIME="2022:06:01 10:00:00")
    return path


def write_safe(folder: Path, *, zipped: bool = False) -> Path:
    """A SAFE product of level 2A; the members of its zip are compressed."""
    from tests.scenes.safe_product import write_safe as write

    pixels = dict(zip(("B04", "B03", "B02"), land() + 1000, strict=True))
    product = write(folder, size=SIDE, bands=("B02", "B03", "B04"), dn=pixels).path
    return zip_folder(product) if zipped else product


def zip_folder(folder: Path) -> Path:
    """Packs a folder into a zip with compression."""
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder.parent))
    return path


def write_vrt(folder: Path) -> Path:
    """A virtual raster of three files with a band each, which are named after their bands."""
    sources = []
    for number, (band, pixels) in enumerate(zip(("B04", "B03", "B02"), land(), strict=True), start=1):
        write_scene(folder / f"{band}.tif", pixels[None])
        sources.append(
            f'<VRTRasterBand dataType="UInt16" band="{number}"><Description>{band}</Description><NoDataValue>0'
            f'</NoDataValue><SimpleSource><SourceFilename relativeToVRT="1">{band}.tif</SourceFilename><SourceBand>1'
            f'</SourceBand><SrcRect xOff="0" yOff="0" xSize="{SIDE}" ySize="{SIDE}"/><DstRect xOff="0" yOff="0" '
            f'xSize="{SIDE}" ySize="{SIDE}"/></SimpleSource></VRTRasterBand>'
        )
    path = folder / "scene.vrt"
    path.write_text(
        f'<VRTDataset rasterXSize="{SIDE}" rasterYSize="{SIDE}"><SRS>EPSG:32633</SRS><GeoTransform>300000, 10, 0, '
        f"5000000, 0, -10</GeoTransform>{''.join(sources)}</VRTDataset>"
    )
    return path


def write_item(folder: Path) -> Path:
    """A STAC Item beside the GeoTIFFs of its bands, as catalogs of Sentinel-2 write it."""
    assets = {}
    for band, common, pixels in zip(("B04", "B03", "B02"), ("red", "green", "blue"), land() + 1000, strict=True):
        write_scene(folder / f"{band}.tif", pixels[None])
        assets[common] = {
            "href": f"./{band}.tif",
            "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "roles": ["data", "reflectance"],
            "eo:bands": [{"name": band, "common_name": common}],
            "raster:bands": [{"nodata": 0, "data_type": "uint16", "scale": 0.0001, "offset": -0.1}],
            "gsd": 10,
        }
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [
            "https://stac-extensions.github.io/eo/v1.1.0/schema.json",
            "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
            "https://stac-extensions.github.io/projection/v1.1.0/schema.json",
        ],
        "id": "S2A_33TUL_20220601_0_L2A",
        "geometry": {"type": "Polygon", "coordinates": [[[12, 45], [13, 45], [13, 46], [12, 46], [12, 45]]]},
        "bbox": [12, 45, 13, 46],
        "properties": {"datetime": "2022-06-01T10:00:31Z", "proj:epsg": 32633, "s2:processing_baseline": "04.00"},
        "links": [{"rel": "self", "href": "https://example.com/item.json"}],
        "assets": assets,
    }
    path = folder / "item.json"
    path.write_text(json.dumps(item))
    return path


def write_map(folder: Path, name: str, *, east: int = 0, seed: int = 0) -> Path:
    """The class raster and the confidences of a finished map of 40 by 30 cells of 160 m."""
    from rasterio.crs import CRS

    from geocfl.core.grid import CellGrid
    from geocfl.core.legend import EUROSAT
    from geocfl.products.formats.raster import write_confidence, write_lulc
    from geocfl.products.scratch import write_header

    rng = np.random.default_rng(seed)
    weights = [gaussian_filter(rng.random((30, 40)), 2) for _ in EUROSAT]
    codes = (np.argmax(weights, axis=0) + 1).astype(np.uint8)
    codes[:2] = 0
    grid = CellGrid(480, 640, 16, 64, PLACE["transform"] @ Affine.translation(east, 0), CRS.from_epsg(32633))
    cells = folder / f"{name}.cells"
    write_header(cells, *codes.shape)
    confidence = np.where(codes > 0, rng.integers(30, 100, codes.shape), 255).astype(np.uint8)
    cells.write_bytes(np.stack([codes, confidence], axis=1).tobytes())
    tags = {"GEOCFL_STRIDE": "16", "GEOCFL_WIDTH": "640", "GEOCFL_HEIGHT": "480"}
    path = folder / f"{name}_lulc.tif"
    write_lulc(cells, path, grid, EUROSAT, tags)
    write_confidence(cells, folder / f"{name}_confidence.tif", grid, tags)
    for left in (cells, *folder.glob(f"{name}.*")):
        left.unlink(missing_ok=True)
    return path


def write_zones(path: Path) -> Path:
    """Twelve districts in the maps' place, in degrees as GeoJSON and else in the maps' own CRS."""
    edges = [(3e5 + 1600 * column, 5e6 - 1600 * row) for row in range(3) for column in range(4)]
    zones = gpd.GeoDataFrame(
        {"name": [f"district {number}" for number in range(12)], "id": range(12)},
        geometry=[box(west, north - 1500, west + 1500, north) for west, north in edges],
        crs="EPSG:32633",
    )
    (zones.to_crs(4326) if path.suffix == ".geojson" else zones).to_file(path)
    return path


def write_patches(folder: Path, each: int = 8) -> Path:
    """Class folders of noisy patches, which any classifier can tell apart."""
    from geocfl.core.legend import EUROSAT

    rng = np.random.default_rng(0)
    for number, one in enumerate(EUROSAT):
        (folder / one.folder).mkdir(parents=True)
        for index in range(each):
            pixels = rng.normal((20 + 15 * number, 60, 160 - 12 * number), 12, (64, 64, 3)).clip(0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / one.folder / f"{one.folder}_{index + 1}.png")
    return folder
