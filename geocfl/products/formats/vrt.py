"""A virtual raster: refers to class rasters side by side, with palette and class names."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from geocfl.core.grid import CellGrid
from geocfl.core.legend import NODATA, Legend, shown_classes
from geocfl.products.formats.attribute_table import attribute_table, category_names, color_table, xml_text


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
    vrt.append(xml_text("SRS", grid.crs.to_wkt(), dataAxisToSRSAxisMapping="1,2"))
    vrt.append(xml_text("GeoTransform", ", ".join(map(repr, grid.cell_transform.to_gdal()))))
    metadata = ET.SubElement(vrt, "Metadata")
    for key, value in sorted({"AREA_OR_POINT": "Area", **tags}.items()):
        metadata.append(xml_text("MDI", value, key=key))
    band = ET.SubElement(vrt, "VRTRasterBand", dataType="Byte", band="1")
    band.append(xml_text("Description", "land use / land cover"))
    band.append(xml_text("NoDataValue", str(NODATA)))
    band.append(xml_text("ColorInterp", "Palette"))
    names = category_names(["No data", *legend.names])
    band.extend([color_table(legend), names, attribute_table(shown_classes(legend, unclassified=True))])
    for tile in tiles:
        _add_tile(band, tile, folder)
    ET.indent(vrt)
    return ET.tostring(vrt, encoding="unicode") + "\n"


def _add_tile(band: ET.Element, tile: Tile, folder: Path) -> None:
    """Adds a raster with its properties, so that GDAL need not open it for them."""
    element = ET.SubElement(band, "ComplexSource")
    relative = os.path.relpath(tile.path.resolve(), folder.resolve())
    element.append(xml_text("SourceFilename", Path(relative).as_posix(), relativeToVRT="1"))
    element.append(xml_text("SourceBand", "1"))
    columns, rows = str(tile.columns), str(tile.rows)
    ET.SubElement(element, "SourceProperties", RasterXSize=columns, RasterYSize=rows, DataType="Byte")
    ET.SubElement(element, "SrcRect", xOff="0", yOff="0", xSize=columns, ySize=rows)
    place = {"xOff": tile.left, "yOff": tile.top, "xSize": tile.width, "ySize": tile.height}
    ET.SubElement(element, "DstRect", {key: repr(value) for key, value in place.items()})
    element.append(xml_text("NODATA", str(NODATA)))
