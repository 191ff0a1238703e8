"""A finished map: its cells, polygons, legend and class table, read from its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import RasterioError

from geocfl.core.files import parsed_json
from geocfl.core.grid import CellGrid
from geocfl.core.keywords import declared
from geocfl.core.legend import NODATA, UNCLASSIFIED, WITHHELD, Legend
from geocfl.errors import DataError
from geocfl.products.files import SUMMARY
from geocfl.products.formats.attribute_table import read_legend
from geocfl.products.formats.features import read_facts, read_features
from geocfl.products.formats.vector_formats import POLYGONS
from geocfl.products.map_files import MapFiles, class_raster, files_of
from geocfl.products.map_view import draw, notebook_html
from geocfl.products.scratch import NO_CONFIDENCE
from geocfl.products.storage import output_folder
from geocfl.products.summary import ClassTable, class_table_of_rasters, format_table

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    from matplotlib.axes import Axes

POLYGON_FILES = ("gpkg", "geoparquet", "flatgeobuf", "geojson")
"""Where polygons are looked for; GeoJSON last, whose coordinates are not the scene's own."""


class SceneMap:
    """A finished map, as `map_scene` returns it and `open_map` opens it again.

    Arrays, polygons and the legend are read from the map's files when they are first used, and then kept.

    Attributes:
        paths: Name of a file, such as ``"lulc"``, ``"gpkg"`` or ``"summary"``, to its path. A map in an object store
            has paths of universal-pathlib.
        already_done: Whether an earlier run of the same command had written it.
    """

    def __init__(
        self, paths: Mapping[str, Path], summary: dict[str, Any] | None = None, *, already_done: bool = False
    ) -> None:
        """Takes the files of a map without reading them; `open_map` finds them for you.

        Args:
            paths: The map's files.
            summary: Content of ``S_summary.json``; read from the file by default.
            already_done: Whether an earlier run had written the map.
        """
        self.paths = dict(paths)
        self._files = MapFiles(self.paths)
        self.already_done = already_done
        if summary is not None:
            self.summary = summary

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Content of ``S_summary.json``: scene, model, settings, warnings and what each class covers.

        Raises:
            DataError: The map has no summary, as a virtual mosaic has none, or the file cannot be read.
        """
        if "summary" not in self.paths:
            raise DataError(
                f"{self.path}: {self.name}{SUMMARY} is not beside it, so its scene, model and settings are unknown; "
                "copy it there, or map the scene again"
            )
        path = self.paths["summary"]
        try:
            content: dict[str, Any] = parsed_json(self._files.read("summary"))
        except ValueError as error:
            raise DataError(f"{path}: is not a map's summary; map the scene again") from error
        return content

    @cached_property
    def classes(self) -> ClassTable:
        """What each class covers: from the summary, or counted in the rasters of a map that has none.

        Raises:
            DataError: A raster is gone or damaged.
        """
        if self._has_summary:
            counted = self.summary
            return ClassTable(
                classes=counted["classes"],
                unclassified=counted["unclassified"],
                nodata=counted["nodata"],
                total=counted["total"],
            )
        try:
            return class_table_of_rasters(self.path, self.paths.get("confidence"), self.grid, self.legend)
        except (RasterioError, ValueError) as error:
            raise DataError(f"{self.path}: its cells cannot be counted ({error}); map the scene again") from error

    def table(self) -> str:
        """Cells, hectares, share and mean confidence of every class, as plain text."""
        return format_table(self.classes)

    def frame(self) -> pd.DataFrame:
        """The same as a data frame: one row per class of the legend, then rows for unclassified cells and no data.

        The index is ``code``; the columns are ``class``, ``cells``, ``hectares``, ``share`` (0..1, of the area of all
        classes) and ``confidence`` (0..1, mean of the class's cells). The last two are NaN where they are undefined.
        """
        import pandas as pd

        rows: list[dict[str, Any]] = [dict(row) for row in self.classes["classes"]]
        rest = [
            (UNCLASSIFIED, WITHHELD.name, self.classes["unclassified"]),
            (NODATA, "No data", self.classes["nodata"]),
        ]
        rows += [{"code": code, "name": name, **cover} for code, name, cover in rest if cover["cells"]]
        frame = pd.DataFrame(rows).set_index("code").rename(columns={"name": "class"})
        numbers = frame[["share", "confidence"]].astype(float)
        return pd.concat([frame[["class", "cells", "hectares"]], numbers], axis=1)

    @property
    def path(self) -> Path:
        """The class raster: one pixel per cell, uint8, codes 0 (no data), 1..N and 255 (unclassified).

        Raises:
            DataError: The map was made without ``lulc`` among its products.
        """
        return self._files.find("lulc")

    @cached_property
    def lulc(self) -> NDArray[np.uint8]:
        """(rows, columns) uint8 class codes of the cells: 0 no data, 1..N as in the legend, 255 unclassified.

        Raises:
            DataError: The map was made without ``lulc`` among its products, or its file is gone.
        """
        with self._files.open("lulc") as dataset:
            codes: NDArray[np.uint8] = dataset.read(1)
        return codes

    @cached_property
    def confidence(self) -> NDArray[np.float32]:
        """(rows, columns) float32 probability of each cell's class, 0..1, in whole percent; NaN is no data.

        Raises:
            DataError: The map was made without ``confidence`` among its products, or its file is gone.
        """
        with self._files.open("confidence") as dataset:
            percent = dataset.read(1)
        return np.where(percent == NO_CONFIDENCE, np.nan, percent / 100).astype(np.float32)

    @cached_property
    def novelty(self) -> NDArray[np.float32]:
        """(rows, columns) float32 novelty of each cell, 0..100, in whole percent; NaN is no data.

        It is the percentage of the model's validation patches that are less unlike its training data.

        Raises:
            DataError: The map was made without ``novelty`` among its products, or its file is gone.
        """
        with self._files.open("novelty") as dataset:
            percent = dataset.read(1)
        return np.where(percent == NO_CONFIDENCE, np.nan, percent).astype(np.float32)

    @cached_property
    def valid(self) -> NDArray[np.float32]:
        """(rows, columns) float32 share of each cell's window that holds pixels of the scene, 0..1; NaN is no data.

        Pixels beyond the scene's edge, without data or under the mask do not count. Shares are in whole percent.

        Raises:
            DataError: The map was made without ``valid`` among its products, or its file is gone.
        """
        with self._files.open("valid") as dataset:
            percent = dataset.read(1)
        return np.where(percent == NO_CONFIDENCE, np.nan, percent / 100).astype(np.float32)

    @cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """(rows, columns, classes) float32 probability of each class, 0..1, in whole percent; NaN is no data.

        Raises:
            DataError: The map was made without ``probabilities`` among its products, or its file is gone.
        """
        with self._files.open("probabilities") as dataset:
            percent = dataset.read().transpose(1, 2, 0)
        return np.where(percent == NO_CONFIDENCE, np.nan, percent / np.float32(100)).astype(np.float32)

    @cached_property
    def features(self) -> NDArray[np.float16]:
        """(rows, columns, components) float16 features of the cells, NaN is no data.

        They are principal components of the features of the model's network, the same for all scenes of a model.

        Raises:
            DataError: The map was made without ``features`` among its products, or its file is gone or damaged.
        """
        with self._files.features() as file:
            return read_features(file, self.grid.rows, self.grid.columns)

    @cached_property
    def feature_facts(self) -> dict[str, Any]:
        """What `features` are: ``components``, ``explained``, ``model``, ``model_hash``, ``window_px`` and others.

        Raises:
            DataError: As for `features`.
        """
        with self._files.features() as file:
            return read_facts(file)

    @cached_property
    def sets(self) -> NDArray[np.bool_]:
        """(rows, columns, classes) bool prediction sets: whether each class, in the legend's order, may be a cell's.

        A cell without data has no members, like a cell with an empty set.

        Raises:
            DataError: The map was made without ``sets`` among its products, or its file is gone.
        """
        with self._files.open("sets") as dataset:
            masks, nodata = dataset.read(2), dataset.nodata
        bits = np.left_shift(1, np.arange(len(self.legend))).astype(masks.dtype)
        members: NDArray[np.bool_] = (masks[..., None] & bits != 0) & (masks != nodata)[..., None]
        return members

    @cached_property
    def polygons(self) -> gpd.GeoDataFrame:
        """The map's polygons: ``class_code``, ``class_name``, ``area_ha``, ``confidence`` and ``geometry``.

        Maps of a model with novelty also have ``novelty``, the mean over the cells. The coordinate reference system is
        the scene's; WGS 84 if GeoJSON is the only format written.

        Raises:
            DataError: The map was made without polygons, or their file is gone.
        """
        import geopandas as gpd
        import pyogrio

        for name in POLYGON_FILES:
            if name not in self.paths:
                continue
            with self._files.on_disk(name) as path:
                if name == "geoparquet":
                    return gpd.read_parquet(path).rename_geometry("geometry")
                if name != "gpkg":
                    return gpd.read_file(path)
                if POLYGONS in pyogrio.list_layers(path)[:, 0]:  # else it holds only windows
                    return gpd.read_file(path, layer=POLYGONS)
        raise DataError(
            f"{self._files.folder}: the map of {self.name} has no polygons; map the scene again with gpkg in `vector`"
        )

    @cached_property
    def legend(self) -> Legend:
        """Names and colors of the codes."""
        return read_legend(self.path)

    @cached_property
    def grid(self) -> CellGrid:
        """Where the cells lie, cut at the scene's rectangle if the raster's tags state it."""
        header = self._header
        try:
            stride, width, height = (int(header.tags[f"GEOCFL_{name}"]) for name in ("STRIDE", "WIDTH", "HEIGHT"))
            if stride > 0 and (-(-height // stride), -(-width // stride)) == header.shape:
                a, b, c, d, e, f = header.transform[:6]
                pixel = Affine(a / stride, b / stride, c, d / stride, e / stride, f)  # exactly the scene's
                return CellGrid(height, width, stride, stride, pixel, header.crs or CRS())
        except (KeyError, ValueError):
            pass
        # The cells of a clipped or resampled map are its pixels.
        return CellGrid(*header.shape, 1, 1, header.transform, header.crs or CRS())

    @property
    def crs(self) -> CRS | None:
        """The map's coordinate reference system; None if the scene has none."""
        return self._header.crs

    @property
    def transform(self) -> Affine:
        """Cell (column, row) of `lulc` to coordinates of `crs`."""
        return self._header.transform

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north of the scene's rectangle; the cells at its edges may reach beyond it."""
        if not self._has_summary:
            return self.grid.bounds()
        west, south, east, north = self.summary["scene"]["bounds"]
        return west, south, east, north

    @property
    def model(self) -> str:
        """Name of the model that made the map; empty where the raster does not say."""
        return self._header.tags.get("GEOCFL_MODEL", "")

    @property
    def name(self) -> str:
        """The stem that the names of the files begin with."""
        return self._files.name

    def plot(self, ax: Axes | None = None, *, legend: bool = True) -> Axes:
        """Draws the map in the colors of its legend.

        Args:
            ax: Where to draw; axes of a new pyplot figure by default.
            legend: Whether to list the classes beside the map, the largest first.

        Returns:
            The axes, in coordinates of `crs`.
        """
        return draw(self, ax, legend=legend)

    def __repr__(self) -> str:
        """One line: how many cells, the largest classes, where."""
        found = ""
        if self._has_summary:  # counting the cells of a large map takes long
            rows = sorted(self.classes["classes"], key=lambda row: -row["hectares"])
            shares = [f"{row['name']} {row['share']:.1%}" for row in rows if row["share"]]
            found = ", ".join([*shares[:3], *(["..."] if len(shares) > 3 else [])]) or "no class"
            found += "; "
        return f"<SceneMap {self.name}: {self._extent()}; {found}in {self._files.folder}>"

    def _repr_html_(self) -> str:
        return notebook_html(self, f"{self.name}: {self._extent()}, in {self._files.folder}")

    @property
    def _has_summary(self) -> bool:
        return "summary" in vars(self) or "summary" in self.paths

    def _extent(self) -> str:
        if self._has_summary:
            cells, side = self.summary["total"]["cells"], self.summary["cell_size_m"]
        else:
            cells, side = self.grid.rows * self.grid.columns, self.grid.stride * self.grid.meters_per_pixel()[1]
        return f"{cells:,} cells of {side:g} m"

    @cached_property
    def _header(self) -> _Header:
        """What the class raster says about itself.

        Raises:
            DataError: It is no raster, or not one of classes.
        """
        with self._files.open("lulc") as dataset:
            if dataset.count != 1 or dataset.dtypes[0] != "uint8":
                raise DataError(
                    f"{self.path}: not a class raster, which has one band of bytes; pass a map, such as scene_lulc.tif"
                )
            return _Header(dataset.shape, dataset.transform, dataset.crs, dataset.tags())


@dataclass(frozen=True)
class _Header:
    """What a class raster says about itself; its cells are not read for it."""

    shape: tuple[int, int]
    transform: Affine
    crs: CRS | None
    tags: dict[str, str]


@declared
def open_map(path: str | Path) -> SceneMap:
    """Opens a finished map; its cells are read when they are first used.

    Args:
        path: A class raster that geocfl has written, ``S_lulc.tif``, with its attribute table ``S_lulc.tif.aux.xml``
            beside it; or a virtual one, ``X_lulc.vrt``; or a folder that holds one of either kind and no other. The
            map's other files are found beside the raster. Without a summary, as for a virtual mosaic, classes are
            counted in the raster, and only `SceneMap.summary` is not available.

    Raises:
        DataError: There is no such map, or it has no legend.
    """
    if str(path).lower().startswith(("https://", "http://")):
        raise DataError(
            f"{path}: maps are not opened from web servers; download it and its .aux.xml, and open the copy"
        )
    lulc = class_raster(output_folder(path))
    opened = SceneMap(files_of(lulc))
    _ = opened.grid, opened.legend  # fails here if it is no map
    return opened


def georeferenced(map: SceneMap | str | Path) -> SceneMap:
    """A map on the earth, opened if only its path is known.

    Raises:
        DataError: It cannot be opened, or has no coordinate reference system of the earth.
    """
    opened = map if isinstance(map, SceneMap) else open_map(map)
    if opened.crs and not (np.isfinite(tuple(opened.transform)).all() and opened.transform.determinant):
        raise DataError(f"{opened.path}: its geotransform is damaged; map the scene again")
    if not opened.crs or not (opened.crs.is_projected or opened.crs.is_geographic):
        raise DataError(
            f"{opened.path}: has no coordinate reference system of the earth; "
            "add its own, such as gdal_edit.py -a_srs EPSG:32633"
        )
    return opened
