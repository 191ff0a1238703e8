"""A virtual raster: refers to class rasters side by side, with palette and class names."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from geocfl.core.grid import CellGrid
from geocfl.core.legend import NODATA, Legend, shown_classes

# Columns of the attribute table: name, type and usage, as GDALRATFieldType and GDALRATFieldUsage number them.
_COLUMNS = (("Value", "0", "5"), ("Class", "2", "2"), ("Red", "0", "6"), ("Green", "0", "7"), ("Blue", "0", "8"))


@dataclass(frozen=True)
class Tile:
    """A class raster on the grid of a virtual one; all numbers are in cells.

    Attributes:
        path: The raster.
        columns: Its own columns.
        rows: Its own rows.
        left: Column of the grid where it begins; may be a fraction.
        top: Row of the grid where it begins; may be a fraction.
        width: Columns of the grid that it covers.
        height: Rows of the grid that it covers.
    """

    path: Path
    columns: int
    rows: int
    left: float
    top: float
    width: float
    height: float


def virtual_raster(folder: Path, grid: CellGrid, legend: Legend, tiles: Sequence[Tile], tags: Mapping[str, str]) -> str:
    """Text of a GDAL virtual raster (VRT), which names its tiles relative to itself.

    Args:
        folder: Where it will lie.
        grid: Its cells.
        legend: Names and colors of the codes.
        tiles: Later ones lie on top of earlier ones; their cells without data are transparent.
        tags: Metadata.
    """
    vrt = ET.Element("VRTDataset", rasterXSize=str(grid.columns), rasterYSize=str(grid.rows))
    _add(vrt, "SRS", grid.crs.to_wkt(), dataAxisToSRSAxisMapping="1,2")
    _add(vrt, "GeoTransform", ", ".join(map(repr, grid.cell_transform.to_gdal())))
    metadata = ET.SubElement(vrt, "Metadata")
    for key, value in sorted({"AREA_OR_POINT": "Area", **tags}.items()):
        _add(metadata, "MDI", value, key=key)
    band = ET.SubElement(vrt, "VRTRasterBand", dataType="Byte", band="1")
    _add(band, "Description", "land use / land cover")
    _add(band, "NoDataValue", str(NODATA))
    _add(band, "ColorInterp", "Palette")
    _add_legend(band, legend)
    for tile in tiles:
        _add_tile(band, tile, folder)
    ET.indent(vrt)
    return ET.tostring(vrt, encoding="unicode") + "\n"


def _add_legend(band: ET.Element, legend: Legend) -> None:
    """Color table, category names and attribute table."""
    shown = shown_classes(legend, unclassified=True)
    colors = {c.code: (*c.rgb, 255) for c in shown}
    table = ET.SubElement(band, "ColorTable")
    for code in range(256):
        ET.SubElement(
            table, "Entry", {f"c{i + 1}": str(value) for i, value in enumerate(colors.get(code, (0, 0, 0, 0)))}
        )
    names = ET.SubElement(band, "CategoryNames")
    for name in ("No data", *legend.names):
        _add(names, "Category", name)
    attributes = ET.SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    for index, (name, kind, usage) in enumerate(_COLUMNS):
        field = ET.SubElement(attributes, "FieldDefn", index=str(index))
        for tag, text in (("Name", name), ("Type", kind), ("Usage", usage)):
            _add(field, tag, text)
    for index, c in enumerate(shown):
        row = ET.SubElement(attributes, "Row", index=str(index))
        for value in (c.code, c.name, *c.rgb):
            _add(row, "F", str(value))


def _add_tile(band: ET.Element, tile: Tile, folder: Path) -> None:
    """Adds a raster with its properties, so that GDAL need not open it for them."""
    element = ET.SubElement(band, "ComplexSource")
    relative = os.path.relpath(tile.path.resolve(), folder.resolve())
    _add(element, "SourceFilename", Path(relative).as_posix(), relativeToVRT="1")
    _add(element, "SourceBand", "1")
    columns, rows = str(tile.columns), str(tile.rows)
    ET.SubElement(element, "SourceProperties", RasterXSize=columns, RasterYSize=rows, DataType="Byte")
    ET.SubElement(element, "SrcRect", xOff="0", yOff="0", xSize=columns, ySize=rows)
    place = {"xOff": tile.left, "yOff": tile.top, "xSize": tile.width, "ySize": tile.height}
    ET.SubElement(element, "DstRect", {key: repr(value) for key, value in place.items()})
    _add(element, "NODATA", str(NODATA))


def _add(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    """Adds an element with text."""
    ET.SubElement(parent, tag, attributes).text = text
