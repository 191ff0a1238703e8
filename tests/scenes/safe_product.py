"""Writes small Sentinel-2 products in ESA's SAFE format: its folders, XML and lossless JPEG 2000, with known pixels.

Structure and metadata are those of products of 2017 and later, as in ESA's "Sentinel-2 Products Specification
Document" and as GDAL's SENTINEL2 driver reads them.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
NATIVE = dict(zip(BANDS, (60, 10, 10, 10, 20, 20, 20, 10, 20, 60, 60, 20, 20), strict=True))
TILE, EPSG, ULX, ULY = "T33TUL", 32633, 300_000, 5_100_000
START, MADE, SENSED = "20220601T100031", "20220601T160000", "20220601T100206"


@dataclass(frozen=True)
class SafeProduct:
    """A product that was written, and what is in it.

    Attributes:
        path: Its folder or zip.
        dn: Band, or ``"SCL"``, to its digital numbers at 10 m, (size, size). An image of it at r m is ``dn[:: r // 10,
            :: r // 10]``.
        images: Images, such as ``"B04_10m"`` or in L1C ``"B04"``, to where they lie in the product.
    """

    path: Path
    dn: Mapping[str, NDArray[np.integer]]
    images: Mapping[str, str]


def write_safe(
    folder: Path,
    level: str = "L2A",
    baseline: str = "04.00",
    size: int = 192,
    bands: Iterable[str] = ("B02", "B03", "B04", "B08", "B8A", "B11"),
    dn: Mapping[str, NDArray[np.integer]] | None = None,
    offset: float | Mapping[str, float] = -1000,
    quantification: float = 10_000,
    zipped: bool = False,
    name: str = "",
) -> SafeProduct:
    """Writes a product.

    Args:
        folder: Where to.
        level: ``"L1C"`` or ``"L2A"``.
        baseline: Processing baseline; before 04.00 there are no offsets in the metadata.
        size: Pixels of 10 m down and across, a multiple of 6.
        bands: Which of the level's bands have their images in it; the metadata lists these.
        dn: Digital numbers of some bands, or of ``"SCL"``, at 10 m; random ones else.
        offset: Added to digital numbers first, as the metadata says: of all bands, or of each.
        quantification: Digital numbers per unit of reflectance, as the metadata says.
        zipped: As ``NAME.zip`` instead of the folder ``NAME.SAFE``.
        name: Without ``.SAFE``; by default the name that ESA would give it.
    """
    name = name or f"S2A_MSI{level}_{START}_N{baseline.replace('.', '')}_R122_{TILE}_{MADE}"
    granule = f"GRANULE/{level}_{TILE}_A036250_{SENSED}"
    bands = [band for band in bands if (level, band) != ("L2A", "B10")]
    rng = np.random.default_rng(0)
    pixels: dict[str, NDArray[np.integer]] = {
        band: rng.integers(1, 12_000, (size, size), dtype=np.uint16) for band in bands
    }
    if level == "L2A":
        pixels["SCL"] = rng.integers(0, 12, (size, size), dtype=np.uint8)
    pixels.update({band: values for band, values in (dn or {}).items() if band in pixels})
    product = folder / f"{name}.SAFE"
    images = {}
    for kind in pixels:
        for meters in _resolutions(level, kind):
            image = f"{kind}_{meters}m" if level == "L2A" else kind
            images[image] = _image_path(granule, level, image)
            step = meters // 10
            _write_jp2(product / images[image], pixels[kind][None, ::step, ::step], meters)
    for image in _others(level):
        images[image] = _image_path(granule, level, image)
        meters = int(image[4:6] or 10)
        shape = (3 if image.startswith("TCI") else 1, size // (meters // 10), size // (meters // 10))
        _write_jp2(product / images[image], np.ones(shape, np.uint8 if shape[0] == 3 else np.uint16), meters)
    _write_jp2(product / granule / "QI_DATA" / f"{TILE}_{START}_PVI.jp2", np.ones((3, 6, 6), np.uint8), size * 10 // 6)
    offsets = offset if isinstance(offset, Mapping) else dict.fromkeys(BANDS, offset)
    texts = {
        f"MTD_MSI{level}.xml": metadata_xml(
            level, baseline, images.values(), quantification, offsets if baseline >= "04.00" else {}, f"{name}.SAFE"
        ),
        f"{granule}/MTD_TL.xml": _tile_xml(level, size),
        "manifest.safe": _manifest(level, images.values()),
        "INSPIRE.xml": '<?xml version="1.0" encoding="UTF-8"?>\n<gmd:MD_Metadata xmlns:gmd='
        '"http://www.isotc211.org/2005/gmd"/>\n',
    }
    for file, text in texts.items():
        (product / file).write_text(text, encoding="utf-8")
    return SafeProduct(zip_product(product) if zipped else product, pixels, images)


def zip_product(product: Path) -> Path:
    """Zips a product's folder, as it is downloaded, and removes it."""
    path = product.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(product.rglob("*")):
            archive.write(file, file.relative_to(product.parent))
    for file in sorted(product.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    product.rmdir()
    return path


def metadata_xml(
    level: str,
    baseline: str,
    images: Iterable[str],
    quantification: float = 10_000,
    offsets: Mapping[str, float] | None = None,
    uri: str = "S2A.SAFE",
) -> str:
    """The text of ``MTD_MSIL1C.xml`` or ``MTD_MSIL2A.xml``."""
    short = level[1:]
    files = "\n".join(f"            <IMAGE_FILE>{image.removesuffix('.jp2')}</IMAGE_FILE>" for image in images)
    said = "\n".join(
        f'        <{"RADIO" if level == "L1C" else "BOA"}_ADD_OFFSET band_id="{BANDS.index(band)}">{value:g}'
        f"</{'RADIO' if level == 'L1C' else 'BOA'}_ADD_OFFSET>"
        for band, value in (offsets or {}).items()
    )
    if level == "L1C":
        radiometry = f'      <QUANTIFICATION_VALUE unit="none">{quantification:g}</QUANTIFICATION_VALUE>'
        if said:
            radiometry += f"\n      <Radiometric_Offset_List>\n{said}\n      </Radiometric_Offset_List>"
    else:
        radiometry = f"""      <QUANTIFICATION_VALUES_LIST>
        <BOA_QUANTIFICATION_VALUE unit="none">{quantification:g}</BOA_QUANTIFICATION_VALUE>
        <AOT_QUANTIFICATION_VALUE unit="none">1000.0</AOT_QUANTIFICATION_VALUE>
        <WVP_QUANTIFICATION_VALUE unit="cm">1000.0</WVP_QUANTIFICATION_VALUE>
      </QUANTIFICATION_VALUES_LIST>"""
        if said:
            radiometry += f"\n      <BOA_ADD_OFFSET_VALUES_LIST>\n{said}\n      </BOA_ADD_OFFSET_VALUES_LIST>"
    spectral = "\n".join(
        f'        <Spectral_Information bandId="{number}" physicalBand="{band.replace("B0", "B")}">'
        f"<RESOLUTION>{NATIVE[band]}</RESOLUTION></Spectral_Information>"
        for number, band in enumerate(BANDS)
    )
    return f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:Level-{short}_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-{short}.xsd">
  <n1:General_Info>
    <Product_Info>
      <PRODUCT_START_TIME>2022-06-01T10:00:31.024Z</PRODUCT_START_TIME>
      <PRODUCT_STOP_TIME>2022-06-01T10:00:31.024Z</PRODUCT_STOP_TIME>
      <PRODUCT_URI>{uri}</PRODUCT_URI>
      <PROCESSING_LEVEL>Level-{short}</PROCESSING_LEVEL>
      <PRODUCT_TYPE>S2MSI{short}</PRODUCT_TYPE>
      <PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE>
      <GENERATION_TIME>2022-06-01T16:00:00.000000Z</GENERATION_TIME>
      <PREVIEW_IMAGE_URL>Not applicable</PREVIEW_IMAGE_URL>
      <PREVIEW_GEO_INFO>Not applicable</PREVIEW_GEO_INFO>
      <Datatake datatakeIdentifier="GS2A_{START}_036250_N{baseline}">
        <SPACECRAFT_NAME>Sentinel-2A</SPACECRAFT_NAME>
        <DATATAKE_TYPE>INS-NOBS</DATATAKE_TYPE>
        <DATATAKE_SENSING_START>2022-06-01T10:00:31.024Z</DATATAKE_SENSING_START>
        <SENSING_ORBIT_NUMBER>122</SENSING_ORBIT_NUMBER>
        <SENSING_ORBIT_DIRECTION>DESCENDING</SENSING_ORBIT_DIRECTION>
      </Datatake>
      <Query_Options completeSingleTile="true"><PRODUCT_FORMAT>SAFE_COMPACT</PRODUCT_FORMAT></Query_Options>
      <Product_Organisation>
        <Granule_List>
          <Granule datastripIdentifier="S2A_OPER_MSI_{level}_DS_VGS4_{MADE}_S{SENSED}_N{baseline}"
              granuleIdentifier="S2A_OPER_MSI_{level}_TL_VGS4_{MADE}_A036250_{TILE}_N{baseline}"
              imageFormat="JPEG2000">
{files}
          </Granule>
        </Granule_List>
      </Product_Organisation>
    </Product_Info>
    <Product_Image_Characteristics>
      <Special_Values>
        <SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT>
        <SPECIAL_VALUE_INDEX>0</SPECIAL_VALUE_INDEX>
      </Special_Values>
      <Special_Values>
        <SPECIAL_VALUE_TEXT>SATURATED</SPECIAL_VALUE_TEXT>
        <SPECIAL_VALUE_INDEX>65535</SPECIAL_VALUE_INDEX>
      </Special_Values>
{radiometry}
      <Spectral_Information_List>
{spectral}
      </Spectral_Information_List>
    </Product_Image_Characteristics>
  </n1:General_Info>
  <n1:Quality_Indicators_Info>
    <Cloud_Coverage_Assessment>0.0</Cloud_Coverage_Assessment>
  </n1:Quality_Indicators_Info>
</n1:Level-{short}_User_Product>
"""


def _resolutions(level: str, kind: str) -> list[int]:
    """In meters: L1C has each band once, L2A at its own resolution and all coarser ones, but B08 only at 10 m."""
    if kind == "SCL":
        return [20, 60]
    if level == "L1C" or kind == "B08":
        return [NATIVE[kind]]
    return [meters for meters in (10, 20, 60) if meters >= NATIVE[kind]]


def _others(level: str) -> list[str]:
    """Images that are no bands."""
    return ["TCI"] if level == "L1C" else [f"{kind}_{meters}m" for meters in (10, 20) for kind in ("TCI", "AOT", "WVP")]


def _image_path(granule: str, level: str, image: str) -> str:
    folder = f"{granule}/IMG_DATA" if level == "L1C" else f"{granule}/IMG_DATA/R{image[-3:]}"
    return f"{folder}/{TILE}_{START}_{image}.jp2"


def _write_jp2(path: Path, pixels: NDArray[np.integer], meters: float) -> None:
    """Writes (B, H, W) without loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    with rasterio.open(
        path, "w", driver="JP2OpenJPEG", count=count, height=height, width=width, dtype=pixels.dtype,
        crs=f"EPSG:{EPSG}", transform=Affine(meters, 0, ULX, 0, -meters, ULY), QUALITY="100", REVERSIBLE="YES",
    ) as dataset:  # fmt: skip
        dataset.write(pixels)


def _tile_xml(level: str, size: int) -> str:
    short = level[1:]
    sizes = "\n".join(
        f"""      <Size resolution="{meters}">
        <NROWS>{size * 10 // meters}</NROWS><NCOLS>{size * 10 // meters}</NCOLS>
      </Size>
      <Geoposition resolution="{meters}">
        <ULX>{ULX}</ULX><ULY>{ULY}</ULY><XDIM>{meters}</XDIM><YDIM>-{meters}</YDIM>
      </Geoposition>"""
        for meters in (10, 20, 60)
    )
    return f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:Level-{short}_Tile_ID xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/S2_PDI_Level-{short}_Tile_Metadata.xsd">
  <n1:General_Info>
    <TILE_ID metadataLevel="Brief">S2A_OPER_MSI_{level}_TL_VGS4_{MADE}_A036250_{TILE}</TILE_ID>
    <SENSING_TIME metadataLevel="Standard">2022-06-01T10:05:35.271949Z</SENSING_TIME>
  </n1:General_Info>
  <n1:Geometric_Info>
    <Tile_Geocoding metadataLevel="Brief">
      <HORIZONTAL_CS_NAME>WGS84 / UTM zone 33N</HORIZONTAL_CS_NAME>
      <HORIZONTAL_CS_CODE>EPSG:{EPSG}</HORIZONTAL_CS_CODE>
{sizes}
    </Tile_Geocoding>
  </n1:Geometric_Info>
</n1:Level-{short}_Tile_ID>
"""


def _manifest(level: str, images: Iterable[str]) -> str:
    objects = "\n".join(
        f'    <dataObject ID="IMG_{number}"><byteStream mimeType="application/octet-stream">'
        f'<fileLocation href="./{image}" locatorType="URL"/></byteStream></dataObject>'
        for number, image in enumerate(images)
    )
    return f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<xfdu:XFDU xmlns:xfdu="urn:ccsds:schema:xfdu:1"
    version="esa/safe/sentinel/1.1/sentinel-2/msi/archive_{level.lower()}_user_product">
  <dataObjectSection>
{objects}
  </dataObjectSection>
</xfdu:XFDU>
"""
