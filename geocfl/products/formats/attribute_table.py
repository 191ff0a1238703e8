"""Reads the legend in the raster attribute table of a map."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

from geocfl.core.legend import UNCLASSIFIED, Legend, LulcClass
from geocfl.errors import DataError

# Usages of the columns in GDAL's raster attribute tables (GDALRATFieldUsage): value, name, red, green, blue.
_COLUMNS = ("5", "2", "6", "7", "8")


def read_legend(path: Path) -> Legend:
    """Reads the legend of a map: inside a virtual raster, and in the attribute table beside any other.

    Args:
        path: The class raster, on a disk or in a store.

    Raises:
        DataError: The map has no legend, or not one that geocfl has written.
    """
    virtual = path.suffix.lower() == ".vrt"
    missing = DataError(
        f"{path}: has no legend; "
        + ("pass a map" if virtual else f"pass a map made by geocfl, and keep its {path.name}.aux.xml beside it")
    )
    try:
        text = (path if virtual else path.with_name(path.name + ".aux.xml")).read_bytes()
        root = ET.fromstring(text)  # noqa: S314, GDAL has read it already
    except (OSError, ET.ParseError) as error:
        raise missing from error
    table = root.find(".//GDALRasterAttributeTable")
    if table is None:
        raise missing
    usages = [field.findtext("Usage", "") for field in table.iter("FieldDefn")]
    try:
        columns = [usages.index(usage) for usage in _COLUMNS]
        rows = [[row.findall("F")[column].text or "" for column in columns] for row in table.iter("Row")]
        return Legend(
            tuple(
                LulcClass(int(code), name, "", f"#{int(red):02x}{int(green):02x}{int(blue):02x}")
                for code, name, red, green, blue in rows
                if int(code) != UNCLASSIFIED
            )
        )
    except (ValueError, IndexError) as error:
        raise DataError(f"{path}: its attribute table is not a map's; pass a raster that geocfl has written") from error
