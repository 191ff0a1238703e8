"""A finished map, opened again: where its cells lie, what its codes mean, where its confidence is."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import rasterio
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from geocfl.core.grid import CellGrid
from geocfl.core.legend import UNCLASSIFIED, Legend, LulcClass
from geocfl.errors import DataError

LULC, CONFIDENCE = "_lulc", "_confidence"
"""How the names of a map's class raster and of its confidence end, before the file's ending."""

# Usages of the columns in GDAL's raster attribute tables (GDALRATFieldUsage): value, name, red, green, blue.
_COLUMNS = ("5", "2", "6", "7", "8")


@dataclass(frozen=True)
class FinishedMap:
    """A class raster that `geocfl map` or `geocfl mosaic` has written.

    Attributes:
        path: The class raster: uint8, one pixel a cell, codes 0 (no data), 1..N and 255 (unclassified).
        confidence: The raster of confidence in percent beside it, of the same cells; None where there is none.
        grid: Where the cells lie, cut at the scene's rectangle where the raster still says where that is.
        legend: Names and colours of the codes.
        model: Name of the model that made it; empty where the raster does not say.
    """

    path: Path
    confidence: Path | None
    grid: CellGrid
    legend: Legend
    model: str


def open_map(path: str | Path) -> FinishedMap:
    """Reads what a map says about itself; its cells stay on the disk.

    Args:
        path: ``S_lulc.tif``, with its attribute table ``S_lulc.tif.aux.xml`` beside it, or ``X_lulc.vrt``.

    Raises:
        DataError: It is no raster, no map, or one without legend or coordinate reference system.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; pass the class raster of a map, such as scene_lulc.tif")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # said below
            with rasterio.open(path) as dataset:
                shape, count, dtype = dataset.shape, dataset.count, dataset.dtypes[0]
                transform, crs, tags = dataset.transform, dataset.crs, dataset.tags()
    except RasterioError as error:
        raise DataError(f"{path}: not a raster that GDAL reads; pass the class raster of a map") from error
    if count != 1 or dtype != "uint8":
        raise DataError(f"{path}: not a class raster, which has one band of bytes; pass a map, such as scene_lulc.tif")
    if not crs or not (crs.is_projected or crs.is_geographic):
        raise DataError(
            f"{path}: has no coordinate reference system of the earth; "
            "add its own, such as gdal_edit.py -a_srs EPSG:32633"
        )
    return FinishedMap(
        path=path,
        confidence=_confidence_beside(path),
        grid=_grid(shape, transform, crs, tags),
        legend=read_legend(path),
        model=tags.get("GEOCFL_MODEL", ""),
    )


def _grid(shape: tuple[int, int], transform: Affine, crs: rasterio.CRS, tags: Mapping[str, str]) -> CellGrid:
    """The cells, cut where the map says; those of a part of a map, or of a resampled one, are its pixels."""
    try:
        stride, width, height = (int(tags[f"GEOCFL_{name}"]) for name in ("STRIDE", "WIDTH", "HEIGHT"))
        if stride > 0 and (-(-height // stride), -(-width // stride)) == shape:
            a, b, c, d, e, f = transform[:6]
            pixel = Affine(a / stride, b / stride, c, d / stride, e / stride, f)  # as it was, to the last bit
            return CellGrid(height, width, stride, stride, pixel, crs)
    except (KeyError, ValueError):
        pass
    return CellGrid(*shape, 1, 1, transform, crs)


def read_legend(path: Path) -> Legend:
    """The legend in a map's attribute table, which a virtual raster holds itself and others have beside them.

    Args:
        path: The class raster, on disk or in a store.

    Raises:
        DataError: There is none, or none that geocfl has written.
    """
    virtual = path.suffix.lower() == ".vrt"
    missing = DataError(
        f"{path}: has no legend; "
        + ("pass a map" if virtual else f"keep {path.name}.aux.xml, which geocfl map writes, beside it")
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


def _confidence_beside(path: Path) -> Path | None:
    """``S_confidence.tif`` beside ``S_lulc.tif``, if it is there."""
    if not path.stem.endswith(LULC):
        return None
    beside = path.with_name(path.stem.removesuffix(LULC) + CONFIDENCE + ".tif")
    return beside if beside.is_file() else None
