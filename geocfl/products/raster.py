"""Class and confidence rasters: cloud-optimised GeoTIFFs with everything a GIS needs to show them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

import rasterio
import rasterio.shutil

from geocfl.grid import CellGrid
from geocfl.legend import NODATA, Legend
from geocfl.products.cells import NO_CONFIDENCE, open_cells
from geocfl.products.style import shown_classes
from geocfl.products.summary import class_table

BLOCK = 512
"""Side of a tile, pixels; only rasters beyond one tile get overviews."""

# Types and usages of GDAL's raster attribute tables (GDALRATFieldType, GDALRATFieldUsage).
_INTEGER, _REAL, _STRING = "0", "1", "2"
_COLUMNS = (
    ("Value", _INTEGER, "5"),
    ("Class", _STRING, "2"),
    ("Red", _INTEGER, "6"),
    ("Green", _INTEGER, "7"),
    ("Blue", _INTEGER, "8"),
    ("Count", _INTEGER, "1"),
    ("Area_ha", _REAL, "0"),
)


def write_lulc(cells: Path, path: Path, grid: CellGrid, legend: Legend, tags: Mapping[str, str]) -> None:
    """Writes the class raster and its attribute table, ``<path>.aux.xml``.

    Args:
        cells: Work raster, band 1 of which holds class codes.
        path: GeoTIFF to write: uint8, one pixel per cell, no data 0, a colour table, overviews by mode.
        grid: Where the cells lie.
        legend: Names and colours of the codes.
        tags: GeoTIFF metadata; must not depend on the clock if the file must not.
    """
    colors = {c.code: (*c.rgb, 255) for c in shown_classes(legend, unclassified=True)}
    table = ET.Element("ColorTable")
    for code in range(256):
        rgba = colors.get(code, (0, 0, 0, 0))
        ET.SubElement(table, "Entry", {f"c{i + 1}": str(value) for i, value in enumerate(rgba)})
    band = [
        _element("Description", "land use / land cover"),
        _element("NoDataValue", str(NODATA)),
        _element("ColorInterp", "Palette"),
        table,
    ]
    _write_cog(cells, path, grid, tags, source_band=1, band=band, overviews="MODE")
    path.with_name(path.name + ".aux.xml").write_bytes(_attribute_table(cells, grid, legend))


def write_confidence(cells: Path, path: Path, grid: CellGrid, tags: Mapping[str, str]) -> None:
    """Writes the confidence raster: uint8 percent with scale 0.01, no data 255, averaged overviews.

    Args:
        cells: Work raster, band 2 of which holds percentages.
        path: GeoTIFF to write, one pixel per cell.
        grid: Where the cells lie.
        tags: GeoTIFF metadata; must not depend on the clock if the file must not.
    """
    band = [
        _element("Description", "confidence"),
        _element("NoDataValue", str(NO_CONFIDENCE)),
        _element("Scale", "0.01"),
        _element("Offset", "0"),
        _element("ColorInterp", "Gray"),
    ]
    _write_cog(cells, path, grid, tags, source_band=2, band=band, overviews="AVERAGE")


def _write_cog(
    cells: Path,
    path: Path,
    grid: CellGrid,
    tags: Mapping[str, str],
    *,
    source_band: int,
    band: list[ET.Element],
    overviews: str,
) -> None:
    """Copies one band of the work raster through a virtual dataset that dresses it, so never all of it is in memory."""
    with open_cells(cells) as dataset:
        columns, rows = dataset.width, dataset.height
    if (rows, columns) != (grid.rows, grid.columns):
        raise ValueError(f"{cells} has {rows} x {columns} cells, the grid {grid.rows} x {grid.columns}")
    vrt = ET.Element("VRTDataset", rasterXSize=str(columns), rasterYSize=str(rows))
    vrt.append(_element("SRS", grid.crs.to_wkt(), dataAxisToSRSAxisMapping="1,2"))
    vrt.append(_element("GeoTransform", ", ".join(map(repr, grid.cell_transform.to_gdal()))))
    metadata = ET.SubElement(vrt, "Metadata")
    metadata.append(_element("MDI", "Area", key="AREA_OR_POINT"))
    for key in sorted(tags):
        metadata.append(_element("MDI", tags[key], key=key))
    dressed = ET.SubElement(vrt, "VRTRasterBand", dataType="Byte", band="1")
    dressed.extend(band)
    source = ET.SubElement(dressed, "SimpleSource")
    source.append(_element("SourceFilename", str(cells.resolve()), relativeToVRT="0"))
    source.append(_element("SourceBand", str(source_band)))

    # What a GeoTIFF cannot hold is in our own .aux.xml; GDAL must not add one.
    with rasterio.Env(GDAL_PAM_ENABLED="NO"), rasterio.open(ET.tostring(vrt, encoding="unicode")) as dataset:
        rasterio.shutil.copy(
            dataset,
            path,
            driver="COG",
            COMPRESS="DEFLATE",
            BLOCKSIZE=str(BLOCK),
            OVERVIEWS="AUTO" if max(rows, columns) > BLOCK else "NONE",
            OVERVIEW_RESAMPLING=overviews,
            BIGTIFF="IF_SAFER",
        )


def _attribute_table(cells: Path, grid: CellGrid, legend: Legend) -> bytes:
    """Category names and the attribute table as GDAL's persistent auxiliary metadata."""
    pam = ET.Element("PAMDataset")
    band = ET.SubElement(pam, "PAMRasterBand", band="1")
    names = ET.SubElement(band, "CategoryNames")
    names.extend(_element("Category", name) for name in ["No data", *legend.names])

    rat = ET.SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    for index, (name, kind, usage) in enumerate(_COLUMNS):
        field = ET.SubElement(rat, "FieldDefn", index=str(index))
        field.extend([_element("Name", name), _element("Type", kind), _element("Usage", usage)])
    table = class_table(cells, grid, legend)
    covers = [*table["classes"], table["unclassified"]]
    for index, (c, cover) in enumerate(zip(shown_classes(legend, unclassified=True), covers, strict=True)):
        row = ET.SubElement(rat, "Row", index=str(index))
        values = (c.code, c.name, *c.rgb, cover["cells"], f"{cover['hectares']:.6f}")
        row.extend(_element("F", str(value)) for value in values)
    ET.indent(pam)
    xml: bytes = ET.tostring(pam, encoding="utf-8")
    return xml + b"\n"


def _element(tag: str, text: str, **attributes: str) -> ET.Element:
    """An element with text."""
    element = ET.Element(tag, attributes)
    element.text = text
    return element
