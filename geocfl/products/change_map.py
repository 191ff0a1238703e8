"""A finished change map: where its files lie, what is in them, and its tables."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import RasterioError

from geocfl.core.display import html_table, paragraph
from geocfl.core.files import parsed_json
from geocfl.core.grid import CellGrid
from geocfl.core.keywords import declared
from geocfl.core.legend import Legend, LulcClass
from geocfl.core.table import align
from geocfl.core.transitions import transition_classes
from geocfl.errors import DataError
from geocfl.products.files import CHANGE, CHANGE_FILES
from geocfl.products.scratch import NO_CONFIDENCE
from geocfl.products.storage import existing, open_raster, output_folder

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

LAYER = "change"
"""Layer of the GeoPackage."""
LISTED = 20
"""Transitions in the table of text."""


class ChangeMap:
    """A finished change map, as `change` returns it and `open_change` opens it again.

    Attributes:
        paths: Name of a file, such as ``"change"``, ``"probability"`` or ``"gpkg"``, to its path.
        summary: Content of ``X_change_summary.json``.
        already_done: Whether an earlier run of the same command had written it.
    """

    def __init__(self, paths: Mapping[str, Path], summary: dict[str, Any], *, already_done: bool = False) -> None:
        """Takes the files of a change map without reading them; `open_change` finds them for you."""
        self.paths, self.summary, self.already_done = dict(paths), summary, already_done

    @property
    def path(self) -> Path:
        """The raster of transitions: one pixel per cell, uint16."""
        return self.paths["change"]

    @cached_property
    def legend(self) -> Legend:
        """Names and colors of the classes of both maps."""
        return Legend.from_json(self.summary["legend"])

    @cached_property
    def classes(self) -> list[LulcClass]:
        """Code, name and color of each transition that the map has, those of classes that stay included."""
        return transition_classes(self.legend, [(row["before"], row["after"]) for row in self.summary["classes"]])

    @cached_property
    def grid(self) -> CellGrid:
        """Where the cells lie."""
        grid = self.summary["grid"]
        stride = grid["stride"]
        crs = CRS.from_user_input(grid["crs"])
        return CellGrid(grid["height"], grid["width"], stride, stride, Affine(*grid["transform"]), crs)

    @cached_property
    def codes(self) -> NDArray[np.uint16]:
        """(rows, columns) uint16 codes of the transitions: 0 no data, 65535 unclassified on one of the maps.

        Raises:
            DataError: The raster is gone.
        """
        return np.asarray(self._read("change"), np.uint16)

    @cached_property
    def probability(self) -> NDArray[np.float32]:
        """(rows, columns) float32 probability of change, 0..1, in whole percent; NaN where there is none.

        Raises:
            DataError: The map has no such raster, or it is gone.
        """
        percent = self._read("probability")
        return np.where(percent == NO_CONFIDENCE, np.nan, percent / 100).astype(np.float32)

    @cached_property
    def polygons(self) -> gpd.GeoDataFrame:
        """The polygons of change.

        The fields are ``class_code``, ``class_name``, ``from_class``, ``to_class``, ``area_ha`` and, if the map has
        it, ``probability``.

        Raises:
            DataError: Their file is gone.
        """
        import geopandas as gpd

        path = self.paths.get("gpkg")
        if path is None or not path.exists():
            raise DataError(f"{self.path}: has no polygons beside it; run geocfl change again")
        return gpd.read_file(path, layer=LAYER)

    def frame(self) -> pd.DataFrame:
        """One row per transition: from each class, unclassified cells and no data to each other one that occurs.

        The columns are ``from_code``, ``from_class``, ``to_code``, ``to_class``, ``cells``, ``hectares``,
        ``share_of_from`` (0..1, of the hectares that have classes on both maps) and ``probability`` (mean over the
        cells); the last two are NaN where they are undefined.
        """
        import pandas as pd

        frame = pd.DataFrame(self.summary["transitions"])
        return frame.astype({"share_of_from": float, "probability": float})

    def matrix(self) -> pd.DataFrame:
        """Hectares of each transition: a row for each class before, a column for each class after."""
        long = self.frame()
        wide = long.pivot_table(
            index="from_class", columns="to_class", values="hectares", aggfunc="sum", fill_value=0.0
        )
        names = [*self.legend.names, "Unclassified", "No data"]
        return wide.reindex(
            index=[name for name in names if name in wide.index],
            columns=[name for name in names if name in wide.columns],
        )

    def by_class(self) -> pd.DataFrame:
        """Hectares of each class: ``before_ha``, ``after_ha``, ``stayed_ha``, ``lost_ha`` and ``gained_ha``.

        Lost and gained are to and from other classes, not to and from unclassified cells and no data.
        """
        import pandas as pd

        return pd.DataFrame(self.summary["by_class"]).set_index("code").rename(columns={"name": "class"})

    def table(self) -> str:
        """Hectares of each class before and after, then the largest changes, as plain text."""
        lines = [("class", "before ha", "after ha", "net", "stayed", "lost", "gained")]
        for row in self.summary["by_class"]:
            if row["before_ha"] or row["after_ha"]:
                values = [row[key] for key in ("before_ha", "after_ha", "stayed_ha", "lost_ha", "gained_ha")]
                shown = [f"{value:,.1f}" for value in values]
                net = f"{row['after_ha'] - row['before_ha']:+,.1f}"
                lines.append((row["name"], shown[0], shown[1], net, *shown[2:]))
        text = align(lines, text_columns=[0])
        changes = self._changes()
        if not changes:
            return f"{text}\n\nno cell changed its class"
        largest: list[tuple[str, ...]] = [("from", "to", "cells", "hectares", "probability")]
        for row in changes[:LISTED]:
            sure = "-" if row["probability"] is None else f"{row['probability']:.2f}"
            names = (self.legend[row["before"]].name, self.legend[row["after"]].name)
            largest.append((*names, f"{row['cells']:,}", f"{row['hectares']:,.1f}", sure))
        rest = f"\n{len(changes) - LISTED} smaller changes are in {self.paths['table'].name}"
        return f"{text}\n\n{align(largest, text_columns=[0, 1])}{rest if len(changes) > LISTED else ''}"

    def __repr__(self) -> str:
        """One line: how much changed, the largest changes, where."""
        changed = self.summary["changed"]
        names = ", ".join(f"{row['name']} {row['hectares']:,.0f} ha" for row in self._changes()[:3])
        return (
            f"<ChangeMap {self.path.stem}: {changed['hectares']:,.0f} ha ({changed['share']:.1%}) changed"
            f"{f'; {names}' if names else ''}; in {self.path.parent}>"
        )

    def _repr_html_(self) -> str:
        colors = {c.code: c.color for c in self.classes}
        lines = [
            (colors[row["code"]], [row["name"], f"{row['cells']:,}", f"{row['hectares']:,.1f}"])
            for row in self._changes()[:LISTED]
        ]
        return paragraph(repr(self)[1:-1]) + html_table(["change", "cells", "hectares"], lines)

    def _changes(self) -> list[dict[str, Any]]:
        """Rows of the transitions between two classes, the largest first."""
        rows = (row for row in self.summary["classes"] if row["before"] != row["after"])
        return sorted(rows, key=lambda row: -row["hectares"])

    def _read(self, name: str) -> NDArray[Any]:
        if name not in self.paths:
            raise DataError(f"{self.path}: has no {name} beside it; run geocfl change on maps with confidences")
        try:
            with open_raster(self.paths[name]) as dataset:
                values: NDArray[Any] = dataset.read(1)
        except (RasterioError, OSError) as error:
            raise DataError(f"{self.paths[name]}: not a raster that GDAL reads; run geocfl change again") from error
        return values


@declared
def open_change(path: str | Path) -> ChangeMap:
    """Opens a finished change map; its cells are read when they are first used.

    Args:
        path: A raster of transitions that `geocfl.change` has written, ``X_change.tif``, with
            ``X_change_summary.json`` beside it.

    Raises:
        DataError: There is no such change map.
    """
    raster = output_folder(path)
    if not raster.is_file():
        raise DataError(f"{path}: no such file; pass a change map, such as valley_change.tif")
    if not raster.stem.endswith(CHANGE):
        raise DataError(
            f"{path}: not a change map, whose name ends in {CHANGE}.tif; pass what geocfl change has written"
        )
    files = {name: raster.with_name(raster.stem + suffix) for name, suffix in CHANGE_FILES.items()}
    there = set(existing(files.values()))
    paths = {name: file for name, file in files.items() if file in there}
    try:
        summary = parsed_json(paths["summary"].read_text(encoding="utf-8"))
        _ = summary["transitions"], summary["grid"]
    except (KeyError, OSError, ValueError, TypeError) as error:
        raise DataError(
            f"{path}: its summary, {files['summary'].name}, is not beside it or is broken; run geocfl change again"
        ) from error
    return ChangeMap(paths, summary)
