"""A finished map in Python: where its files lie, what is in them, how it looks."""

from __future__ import annotations

import base64
import io
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.io import MemoryFile

from geocfl.core.display import html_table, paragraph
from geocfl.core.legend import NODATA, UNCLASSIFIED, Legend, LulcClass
from geocfl.errors import DataError
from geocfl.products.formats.qml import WITHHELD, shown_classes
from geocfl.products.formats.vector import POLYGONS
from geocfl.products.scratch import NO_CONFIDENCE
from geocfl.products.staging import SUMMARY
from geocfl.products.summary import format_table

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    from matplotlib.axes import Axes

POLYGON_FILES = ("gpkg", "geoparquet", "flatgeobuf", "geojson")
"""Where polygons are looked for; GeoJSON last, whose coordinates are not the scene's own."""
DRAWN_CELLS = 2000
"""Cells along the longer side of a plot; of a larger map every n-th is drawn."""
SHOWN_PIXELS = 900
"""Width of the picture that a notebook shows."""


@dataclass(frozen=True, repr=False)
class SceneMap:
    """A finished map. Its arrays and polygons are read from its files when they are first asked for, and then kept.

    Attributes:
        paths: File, such as ``"lulc"`` or ``"gpkg"``, to where it lies; names are those of
            `geocfl.products.staging.FILES`. A map in an object store has paths of universal-pathlib.
        summary: The content of ``S_summary.json``.
        already_done: Whether an earlier run of the same command had written it.
    """

    paths: dict[str, Path]
    summary: dict[str, Any]
    already_done: bool = False

    def table(self) -> str:
        """Cells, hectares, share and mean confidence of every class, as plain text."""
        table: Any = self.summary
        return format_table(table)

    def frame(self) -> pd.DataFrame:
        """The same, one row a class of the legend, then what has no class where there is any.

        Its index is ``code``; its columns are ``class``, ``cells``, ``hectares``, ``share`` (0..1, of the area of all
        classes) and ``confidence`` (0..1, mean of its cells), the last two missing where there is nothing to divide by.
        """
        import pandas as pd

        rest = [(UNCLASSIFIED, WITHHELD.name, "unclassified"), (NODATA, "No data", "nodata")]
        rows = [*self.summary["classes"]]
        rows += [{"code": code, "name": name, **self.summary[key]} for code, name, key in rest]
        frame = pd.DataFrame([row for row in rows if row["cells"] or row["code"] in self._names()])
        frame = frame.set_index("code").rename(columns={"name": "class"})
        numbers = frame[["share", "confidence"]].astype(float)
        return pd.concat([frame[["class", "cells", "hectares"]], numbers], axis=1)

    @property
    def lulc(self) -> NDArray[np.uint8]:
        """(rows, columns) uint8 class codes of the cells: 0 no data, 1..N as in the legend, 255 unclassified.

        Raises:
            DataError: The map was made without ``lulc`` among its products, or its file is gone.
        """
        return self._raster.codes

    @cached_property
    def confidence(self) -> NDArray[np.float32]:
        """(rows, columns) float32 probability of each cell's class, 0..1, in whole percent; NaN is no data.

        Raises:
            DataError: The map was made without ``confidence`` among its products, or its file is gone.
        """
        with MemoryFile(self._read("confidence")) as memory, memory.open() as dataset:
            percent = dataset.read(1)
        return np.where(percent == NO_CONFIDENCE, np.nan, percent / 100).astype(np.float32)

    @cached_property
    def polygons(self) -> gpd.GeoDataFrame:
        """The map's polygons: ``class_code``, ``class_name``, ``area_ha``, ``confidence`` and ``geometry``.

        They lie in the scene's coordinate reference system; in WGS 84, where GeoJSON is all that was written.

        Raises:
            DataError: The map was made without polygons, or their file is gone.
        """
        import geopandas as gpd
        import pyogrio

        for name in POLYGON_FILES:
            if name not in self.paths:
                continue
            with self._on_disk(name) as path:
                if name == "geoparquet":
                    return gpd.read_parquet(path).rename_geometry("geometry")
                if name != "gpkg":
                    return gpd.read_file(path)
                if POLYGONS in pyogrio.list_layers(path)[:, 0]:  # else it holds windows alone
                    return gpd.read_file(path, layer=POLYGONS)
        raise DataError(f"{self._folder()}: the map of {self.name} has no polygons; map it again with vector='gpkg'")

    @cached_property
    def legend(self) -> Legend:
        """Names and colours of the codes."""
        colors = self._raster.colors
        return Legend(tuple(LulcClass(code, name, "", colors[code]) for code, name in self._names().items()))

    @property
    def crs(self) -> CRS | None:
        """The map's coordinate reference system; None of a scene that has none."""
        return self._raster.crs

    @property
    def transform(self) -> Affine:
        """Cell (column, row) of `lulc` to coordinates of `crs`."""
        return self._raster.transform

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north of the scene's rectangle, which the cells at its edges may reach beyond."""
        west, south, east, north = self.summary["scene"]["bounds"]
        return west, south, east, north

    @property
    def name(self) -> str:
        """The stem that the names of the files begin with."""
        return self.paths["summary"].name.removesuffix(SUMMARY)

    def plot(self, ax: Axes | None = None, *, legend: bool = True) -> Axes:
        """Draws the map in the colours of its legend.

        Args:
            ax: Where to draw; axes of a new pyplot figure by default.
            legend: Whether to name the classes beside it, those of the largest area first.

        Returns:
            The axes, in coordinates of `crs`.
        """
        from matplotlib.patches import Patch

        if ax is None:
            import matplotlib.pyplot as plt

            _, ax = plt.subplots(figsize=(9, 6), layout="compressed")
        step = -(-max(self.lulc.shape) // DRAWN_CELLS)
        codes = self.lulc[::step, ::step]
        palette = np.zeros((256, 4), np.uint8)
        for c in shown_classes(self.legend, unclassified=True):
            palette[c.code] = (*c.rgb, 255)
        left, top = self.transform @ (0, 0)
        right, bottom = self.transform @ (step * codes.shape[1], step * codes.shape[0])
        ax.imshow(palette[codes], extent=(left, right, bottom, top), interpolation="nearest")
        west, south, east, north = self.bounds
        aspect = 1 / math.cos(math.radians((south + north) / 2)) if self.crs and self.crs.is_geographic else 1
        ax.set(xlim=(west, east), ylim=(south, north), aspect=aspect, title=self.name)
        ax.ticklabel_format(useOffset=False, style="plain")
        if legend:
            shown = [Patch(facecolor=color, label=name) for color, name, row in self._lines() if row["cells"] and color]
            ax.legend(handles=shown, loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, frameon=False)
        return ax

    def __repr__(self) -> str:
        """One line: how many cells, the largest classes, where."""
        shares = [f"{row['name']} {row['share']:.1%}" for row in self._by_area() if row["share"]]
        found = ", ".join([*shares[:3], *(["..."] if len(shares) > 3 else [])]) or "no class"
        return f"<SceneMap {self.name}: {self._extent()}; {found}; in {self._folder()}>"

    def _repr_html_(self) -> str:
        lines = []
        for color, name, row in self._lines():
            share, sure = (
                "" if row.get(key) is None else form(row[key])
                for key, form in (("share", "{:.1%}".format), ("confidence", "{:.2f}".format))
            )
            if row["cells"]:
                lines.append((color, [name, f"{row['cells']:,}", f"{row['hectares']:,.1f}", share, sure]))
        table = html_table(["class", "cells", "hectares", "share", "confidence"], lines)
        return paragraph(f"{self.name}: {self._extent()}, in {self._folder()}") + self._picture() + table

    def _picture(self) -> str:
        """The preview, made small enough to be kept in a notebook; nothing where there is none."""
        from PIL import Image

        if "preview" not in self.paths:
            return ""
        try:
            with Image.open(io.BytesIO(self._read("preview"))) as preview:
                small = preview.convert("RGB")
        except (DataError, OSError):  # a table still says something
            return ""
        small.thumbnail((SHOWN_PIXELS, SHOWN_PIXELS), Image.Resampling.LANCZOS)
        small.save(content := io.BytesIO(), "JPEG", quality=85)
        source = f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
        return f'<img alt="Scene and map" style="max-width:100%" src="{source}">'

    def _lines(self) -> list[tuple[str | None, str, dict[str, Any]]]:
        """Colour, name and row of the class table, by falling area, then of what has no class."""
        colors = self._raster.colors if "lulc" in self.paths else {}
        lines = [(colors.get(row["code"]), str(row["name"]), row) for row in self._by_area()]
        return [
            *lines,
            (WITHHELD.color, WITHHELD.name, self.summary["unclassified"]),
            (None, "No data", self.summary["nodata"]),
        ]

    def _by_area(self) -> list[dict[str, Any]]:
        return sorted(self.summary["classes"], key=lambda row: -float(row["hectares"]))

    def _names(self) -> dict[int, str]:
        return {row["code"]: row["name"] for row in self.summary["classes"]}

    def _extent(self) -> str:
        return f"{self.summary['total']['cells']:,} cells of {self.summary['cell_size_m']:g} m"

    def _folder(self) -> str:
        return str(self.paths["summary"].parent)

    @cached_property
    def _raster(self) -> _Raster:
        with MemoryFile(self._read("lulc")) as memory, memory.open() as dataset:
            table = dataset.colormap(1)
            colors = {code: "#{:02x}{:02x}{:02x}".format(*rgba[:3]) for code, rgba in table.items()}
            return _Raster(dataset.read(1), dataset.transform, dataset.crs, colors)

    @contextmanager
    def _on_disk(self, name: str) -> Iterator[Path]:
        """A file that GDAL can open by its path: the file itself, or a copy of one in an object store."""
        path = self.paths[name]
        if getattr(path, "protocol", "") in ("", "file", "local"):  # of universal-pathlib; pathlib has none
            if not path.exists():
                raise DataError(f"{path}: is gone; map the scene again")
            yield path
            return
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / path.name
            copy.write_bytes(self._read(name))
            yield copy

    def _read(self, name: str) -> bytes:
        """The content of a file, wherever it lies.

        Raises:
            DataError: It was not among the products, or is gone.
        """
        if name not in self.paths:
            raise DataError(f"{self._folder()}: the map of {self.name} has no {name}; map it again with it in products")
        try:
            return self.paths[name].read_bytes()
        except OSError as error:
            raise DataError(f"{self.paths[name]}: cannot be read ({error}); map the scene again") from error


@dataclass(frozen=True)
class _Raster:
    """The content of the class raster; `colors` are ``"#rrggbb"`` by code."""

    codes: NDArray[np.uint8]
    transform: Affine
    crs: CRS | None
    colors: dict[int, str]
