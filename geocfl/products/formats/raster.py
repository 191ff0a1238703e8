"""Rasters of a map: cloud-optimized GeoTIFFs with colors, names and statistics for GIS software."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree as ET

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray

from geocfl.core.grid import CellGrid
from geocfl.core.legend import NODATA, Legend, shown_classes
from geocfl.products.formats.attribute_table import color_table, write_attribute_table, xml_text
from geocfl.products.formats.overviews import keep_holes
from geocfl.products.prediction_sets import set_type, unpack
from geocfl.products.scratch import (
    CODE,
    CONFIDENCE,
    ENTROPY,
    MEMBERS,
    NO_CONFIDENCE,
    NOVELTY,
    PROBABILITY,
    VALID,
    band_numbers,
    count_values,
    open_cells,
    read_strips,
    write_header,
)
from geocfl.products.summary import class_table

BLOCK = 512
"""Side of a tile, pixels; only rasters larger than one tile get overviews."""

_GDAL_TYPES = {"uint8": "Byte", "uint16": "UInt16", "uint32": "UInt32"}


def write_lulc(cells: Path, path: Path, grid: CellGrid, legend: Legend, tags: Mapping[str, str]) -> None:
    """Writes the class raster and its attribute table, ``<path>.aux.xml``.

    Args:
        cells: Work raster.
        path: GeoTIFF to write: uint8, one pixel per cell, no data 0, a color table, overviews by mode.
        grid: Where the cells lie.
        legend: Names and colors of the codes.
        tags: GeoTIFF metadata.
    """
    band = _band(cells, CODE, "land use / land cover", NODATA, "Palette", [color_table(legend)])
    _write_cog(cells, path, grid, tags, [band], overviews="MODE")
    counted = class_table(cells, grid, legend)
    covers = [*counted["classes"], counted["unclassified"]]
    write_attribute_table(path, shown_classes(legend, unclassified=True), covers, ["No data", *legend.names])


def write_change(cells: Path, path: Path, grid: CellGrid, tags: Mapping[str, str]) -> None:
    """Writes the raster of transitions; its attribute table is left to `write_attribute_table`.

    Args:
        cells: Work raster of uint16 whose first band has the codes of `geocfl.core.transitions`.
        path: GeoTIFF to write: uint16, one pixel per cell, no data 0, overviews by mode.
        grid: Where the cells lie.
        tags: GeoTIFF metadata.
    """
    band = _band(cells, CODE, "transition", NODATA, "Undefined", [], kind="UInt16", metadata={})
    _write_cog(cells, path, grid, tags, [band], overviews="MODE")


def write_change_probability(cells: Path, path: Path, grid: CellGrid, tags: Mapping[str, str]) -> None:
    """Writes the probability of change, the second band of the work raster of `write_change`, as confidences are.

    Args:
        cells: Work raster.
        path: GeoTIFF to write: uint8 percent with scale 0.01, no data 255, averaged overviews.
        grid: Where the cells lie.
        tags: GeoTIFF metadata.
    """
    _write_cog(
        cells, path, grid, tags, [_percent_band(cells, CONFIDENCE, "probability of change")], overviews="AVERAGE"
    )


def write_confidence(cells: Path, path: Path, grid: CellGrid, tags: Mapping[str, str]) -> None:
    """Writes the confidence raster: uint8 percent with scale 0.01, no data 255, averaged overviews.

    Args:
        cells: Work raster.
        path: GeoTIFF to write, one pixel per cell.
        grid: Where the cells lie.
        tags: GeoTIFF metadata.
    """
    _write_cog(cells, path, grid, tags, [_percent_band(cells, CONFIDENCE, "confidence")], overviews="AVERAGE")


def write_entropy(cells: Path, path: Path, grid: CellGrid, tags: Mapping[str, str]) -> None:
    """Writes the entropy of the class probabilities, 0 (certain) to 1 (all equally likely), as `write_confidence` does.

    Args:
        cells: Work raster with entropies.
        path: GeoTIFF to write.
        grid: Where the cells lie.
        tags: GeoTIFF metadata.
    """
    bands = [_percent_band(cells, number, "entropy") for number in band_numbers(cells, ENTROPY)]
    _write_cog(cells, path, grid, tags, bands, overviews="AVERAGE")


def write_probabilities(cells: Path, path: Path, grid: CellGrid, legend: Legend, tags: Mapping[str, str]) -> None:
    """Writes the calibrated probability of every class, in one band per class with the class's name.

    Args:
        cells: Work raster with probabilities.
        path: GeoTIFF to write: uint8 percent with scale 0.01, no data 255, averaged overviews.
        grid: Where the cells lie.
        legend: Names of the classes.
        tags: GeoTIFF metadata.
    """
    numbers = band_numbers(cells, PROBABILITY)
    bands = [_percent_band(cells, number, c.name) for number, c in zip(numbers, legend, strict=True)]
    _write_cog(cells, path, grid, tags, bands, overviews="AVERAGE")


def write_novelty(cells: Path, path: Path, grid: CellGrid, tags: Mapping[str, str]) -> None:
    """Writes how unlike the training data each cell is: uint8 percent, no data 255, averaged overviews.

    Args:
        cells: Work raster with novelty.
        path: GeoTIFF to write: 0..100, the percentage of the model's validation patches that are less unlike.
        grid: Where the cells lie.
        tags: GeoTIFF metadata.
    """
    (number,) = band_numbers(cells, NOVELTY)
    band = _band(cells, number, "novelty", NO_CONFIDENCE, "Gray", [])
    _write_cog(cells, path, grid, tags, [band], overviews="AVERAGE")


def write_valid(cells: Path, path: Path, grid: CellGrid, tags: Mapping[str, str]) -> None:
    """Writes the share of each cell's window that holds pixels of the scene, as `write_confidence` does.

    Args:
        cells: Work raster with valid shares.
        path: GeoTIFF to write.
        grid: Where the cells lie.
        tags: GeoTIFF metadata.
    """
    (number,) = band_numbers(cells, VALID)
    _write_cog(cells, path, grid, tags, [_percent_band(cells, number, "valid share")], overviews="AVERAGE")


def write_sets(cells: Path, path: Path, grid: CellGrid, legend: Legend, tags: Mapping[str, str]) -> None:
    """Writes prediction sets: their size, and a bit mask of their members.

    Args:
        cells: Work raster with members.
        path: GeoTIFF to write, of the type `geocfl.products.prediction_sets.set_type`, whose highest value is no data;
            overviews by mode. Band 1 is the size, 0 if no class is a member; in band 2, bit (code - 1) is set for each
            member. Its metadata names the class of each bit.
        grid: Where the cells lie.
        legend: Names of the classes.
        tags: GeoTIFF metadata.
    """
    kind = set_type(len(legend))
    nodata = int(np.iinfo(kind).max)
    counts = np.zeros(256, np.int64)
    with TemporaryDirectory(dir=path.parent) as folder:
        sets = Path(folder) / "sets"
        with sets.open("wb") as file:
            for _, (codes, *packed) in read_strips(cells, [CODE, *band_numbers(cells, MEMBERS)]):
                members = unpack(np.stack(packed), len(legend))
                size = np.bitwise_count(members)
                counts += np.bincount(np.where(codes == NODATA, NO_CONFIDENCE, size).ravel(), minlength=256)
                both = np.where(codes == NODATA, nodata, np.stack([size.astype(kind), members]))
                file.write(both.astype(kind.newbyteorder("<")).transpose(1, 0, 2).tobytes())
        write_header(sets, grid.rows, grid.columns, ["size", "members"], kind.name)
        statistics, names = _statistics(counts, NO_CONFIDENCE), {f"BIT_{c.code - 1}": c.name for c in legend}
        bands = [
            _band(sets, 1, "size", nodata, "Gray", [], kind=_GDAL_TYPES[kind.name], metadata=statistics),
            _band(sets, 2, "members", nodata, "Undefined", [], kind=_GDAL_TYPES[kind.name], metadata=names),
        ]
        _write_cog(sets, path, grid, tags, bands, overviews="MODE")


def _percent_band(cells: Path, source: int, name: str) -> ET.Element:
    """A band of percentages, which readers scale to 0..1."""
    scaling = [xml_text("Scale", "0.01"), xml_text("Offset", "0")]
    return _band(cells, source, name, NO_CONFIDENCE, "Gray", scaling)


def _band(
    cells: Path,
    source: int,
    name: str,
    nodata: int,
    color: str,
    dress: list[ET.Element],
    *,
    kind: str = "Byte",
    metadata: Mapping[str, str] | None = None,
) -> ET.Element:
    """One band of the work raster for a virtual dataset, with metadata (statistics by default), without its number."""
    band = ET.Element("VRTRasterBand", dataType=kind)
    band.append(xml_text("Description", name))
    items = ET.SubElement(band, "Metadata")
    for key, value in (_statistics(count_values(cells, source), nodata) if metadata is None else metadata).items():
        items.append(xml_text("MDI", value, key=key))
    band.extend([xml_text("NoDataValue", str(nodata)), xml_text("ColorInterp", color), *dress])
    simple = ET.SubElement(band, "SimpleSource")
    simple.append(xml_text("SourceFilename", str(cells.resolve()), relativeToVRT="0"))
    simple.append(xml_text("SourceBand", str(source)))
    return band


def _statistics(counts: NDArray[np.int64], nodata: int) -> dict[str, str]:
    """GDAL's statistics of a band from the number of cells with each value; empty if all is no data."""
    counts = counts.copy()
    share = 1 - counts[nodata] / counts.sum()
    counts[nodata] = 0
    present = np.flatnonzero(counts)
    if not present.size:
        return {}
    mean = np.average(present, weights=counts[present])
    deviation = np.sqrt(np.average((present - mean) ** 2, weights=counts[present]))
    return {
        "STATISTICS_MINIMUM": str(present[0]),
        "STATISTICS_MAXIMUM": str(present[-1]),
        "STATISTICS_MEAN": f"{mean:.6g}",
        "STATISTICS_STDDEV": f"{deviation:.6g}",
        "STATISTICS_VALID_PERCENT": f"{100 * share:.4g}",
    }


def _write_cog(
    cells: Path, path: Path, grid: CellGrid, tags: Mapping[str, str], bands: Sequence[ET.Element], *, overviews: str
) -> None:
    """Copies bands of the work raster through a virtual dataset with their metadata; they are never all in memory."""
    with open_cells(cells) as dataset:
        rows, columns = dataset.shape
    if (rows, columns) != (grid.rows, grid.columns):
        raise ValueError(f"{cells} has {rows} x {columns} cells, the grid {grid.rows} x {grid.columns}")
    vrt = ET.Element("VRTDataset", rasterXSize=str(grid.columns), rasterYSize=str(grid.rows))
    vrt.append(xml_text("SRS", grid.crs.to_wkt(), dataAxisToSRSAxisMapping="1,2"))
    vrt.append(xml_text("GeoTransform", ", ".join(map(repr, grid.cell_transform.to_gdal()))))
    metadata = ET.SubElement(vrt, "Metadata")
    metadata.append(xml_text("MDI", "Area", key="AREA_OR_POINT"))
    for key in sorted(tags):
        metadata.append(xml_text("MDI", tags[key], key=key))
    for number, band in enumerate(bands, start=1):
        band.set("band", str(number))
        vrt.append(band)

    _copy(vrt, path, grid, overviews)
    if max(grid.rows, grid.columns) > BLOCK:
        with TemporaryDirectory(dir=path.parent) as folder:
            files = list(keep_holes(path, Path(folder)))
            for number, band in enumerate(bands, start=1):
                for file in files:
                    overview = ET.SubElement(band, "Overview")
                    overview.append(xml_text("SourceFilename", str(file.resolve()), relativeToVRT="0"))
                    overview.append(xml_text("SourceBand", str(number)))
            if files:
                path.unlink()
                _copy(vrt, path, grid, overviews)


def _copy(vrt: ET.Element, path: Path, grid: CellGrid, overviews: str) -> None:
    """Copies a virtual dataset, with its overviews if it has any; else GDAL makes them."""
    # Our own .aux.xml holds what a GeoTIFF cannot; GDAL must not add one.
    with rasterio.Env(GDAL_PAM_ENABLED="NO"), rasterio.open(ET.tostring(vrt, encoding="unicode")) as dataset:
        rasterio.shutil.copy(
            dataset,
            path,
            driver="COG",
            COMPRESS="DEFLATE",
            BLOCKSIZE=str(BLOCK),
            OVERVIEWS="AUTO" if max(grid.rows, grid.columns) > BLOCK else "NONE",
            OVERVIEW_RESAMPLING=overviews,
            BIGTIFF="IF_SAFER",
        )
