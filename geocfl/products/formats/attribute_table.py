"""What a raster says of its classes in GDAL's XML: colors, names and attribute table, written and read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from geocfl.core.legend import UNCLASSIFIED, Legend, LulcClass, palette
from geocfl.errors import DataError
from geocfl.products.summary import Cover

# Columns of the attribute table: name, type and usage, as GDALRATFieldType and GDALRATFieldUsage number them.
_INTEGER, _REAL, _STRING = "0", "1", "2"
_OF_CLASS = (
    ("Value", _INTEGER, "5"),
    ("Class", _STRING, "2"),
    ("Red", _INTEGER, "6"),
    ("Green", _INTEGER, "7"),
    ("Blue", _INTEGER, "8"),
)
_OF_COVER = (("Count", _INTEGER, "1"), ("Area_ha", _REAL, "0"))


def xml_text(tag: str, text: str, **attributes: str) -> ET.Element:
    """An element with text."""
    element = ET.Element(tag, attributes)
    element.text = text
    return element


def color_table(legend: Legend) -> ET.Element:
    """The colors of the codes 0..255; those without a class are transparent."""
    table = ET.Element("ColorTable")
    for rgba in palette(legend).tolist():
        ET.SubElement(table, "Entry", {f"c{i + 1}": str(value) for i, value in enumerate(rgba)})
    return table


def category_names(names: Iterable[str]) -> ET.Element:
    """Names of the values from 0, for readers without attribute tables."""
    categories = ET.Element("CategoryNames")
    categories.extend(xml_text("Category", name) for name in names)
    return categories


def attribute_table(classes: Sequence[LulcClass], covers: Sequence[Cover] | None = None) -> ET.Element:
    """Code, name and color of classes and, if it is known, what each covers."""
    table = ET.Element("GDALRasterAttributeTable", tableType="thematic")
    for index, (name, kind, usage) in enumerate(_OF_CLASS if covers is None else _OF_CLASS + _OF_COVER):
        field = ET.SubElement(table, "FieldDefn", index=str(index))
        field.extend([xml_text("Name", name), xml_text("Type", kind), xml_text("Usage", usage)])
    for index, c in enumerate(classes):
        row = ET.SubElement(table, "Row", index=str(index))
        cover = [] if covers is None else [covers[index]["cells"], f"{covers[index]['hectares']:.6f}"]
        row.extend(xml_text("F", str(value)) for value in (c.code, c.name, *c.rgb, *cover))
    return table


def write_attribute_table(
    path: Path, classes: Sequence[LulcClass], covers: Sequence[Cover], categories: Sequence[str] = ()
) -> None:
    """Writes the attribute table of a raster of codes, ``<path>.aux.xml``, as GDAL's persistent auxiliary metadata.

    Args:
        path: The raster.
        classes: Its codes.
        covers: What each covers.
        categories: Names of the values from 0; empty for none.
    """
    pam = ET.Element("PAMDataset")
    band = ET.SubElement(pam, "PAMRasterBand", band="1")
    if categories:
        band.append(category_names(categories))
    band.append(attribute_table(classes, covers))
    ET.indent(pam)
    path.with_name(path.name + ".aux.xml").write_bytes(ET.tostring(pam, encoding="utf-8") + b"\n")


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
        columns = [usages.index(usage) for _, _, usage in _OF_CLASS]
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
