"""Cells like the one at a point: those whose features have the same direction."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio
from numpy.typing import NDArray

from geocfl.analysis.places import Apart, cell_at, cell_centers, window_reach
from geocfl.core.files import refuse_existing, replacing
from geocfl.core.keywords import declared
from geocfl.core.legend import WITHHELD
from geocfl.core.table import align
from geocfl.errors import DataError, UsageError
from geocfl.products.formats.vector import cell_squares, fixed_date, write_layer
from geocfl.products.formats.vector_formats import GEOMETRY
from geocfl.products.scene_map import SceneMap, open_map

log = logging.getLogger("geocfl")

LAYER = "similar"
"""Layer of the GeoPackage."""


@dataclass(frozen=True, eq=False, repr=False)
class Similar:
    """Cells like a given one.

    Attributes:
        similarity: (rows, columns) float32 cosine of each cell of the searched map, -1..1; NaN is no data.
        cells: (n, 2) rows and columns of the most similar cells whose windows do not overlap, the most similar first.
        map: The searched map.
        paths: The files that were written.
    """

    similarity: NDArray[np.float32]
    cells: NDArray[np.int64]
    map: SceneMap
    paths: tuple[Path, ...] = ()

    def frame(self) -> gpd.GeoDataFrame:
        """The cells: ``rank``, ``similarity``, ``class_code``, ``class_name`` and their squares in the map's CRS."""
        rows, columns = self.cells.T
        names = {c.code: c.name for c in (*self.map.legend, WITHHELD)}
        codes = self.map.lulc[rows, columns].tolist()
        crs = self.map.crs
        return gpd.GeoDataFrame(
            {
                "rank": np.arange(1, len(rows) + 1, dtype=np.int32),
                "similarity": self.similarity[rows, columns].round(4).astype(np.float64),
                "class_code": np.array(codes, np.int32),
                "class_name": [names[code] for code in codes],
            },
            geometry=cell_squares(self.map.grid, rows, columns),
            crs=crs.to_wkt() if crs else None,
        )

    def places(self) -> pd.DataFrame:
        """The cells as a table: ``rank``, ``similarity``, ``class``, and ``longitude`` and ``latitude`` of the middle.

        For a map without a coordinate reference system of the earth, ``x`` and ``y`` instead.
        """
        frame, crs = self.frame(), self.map.crs
        centers = cell_centers(self.map.grid, *self.cells.T)
        points = gpd.GeoSeries(gpd.points_from_xy(*centers.T), crs=crs.to_wkt() if crs else None)
        named = ("x", "y")
        if crs and (crs.is_projected or crs.is_geographic):
            points, named = points.to_crs(4326), ("longitude", "latitude")
        return pd.DataFrame(
            {
                "rank": frame["rank"],
                "similarity": frame["similarity"],
                "class": frame["class_name"],
                named[0]: points.x.round(6),
                named[1]: points.y.round(6),
            }
        )

    def table(self) -> str:
        """The same as aligned plain text, without a newline at the end."""
        places = self.places()
        rows = [
            (str(rank), f"{similarity:.3f}", name, f"{x:.6f}", f"{y:.6f}")
            for rank, similarity, name, x, y in places.itertuples(index=False)
        ]
        return align([tuple(places.columns), *rows], text_columns=[2])

    def __repr__(self) -> str:
        """One line: how many cells, and of which map."""
        return f"<Similar: {len(self.cells)} cells of {self.map.name}>"

    def _repr_html_(self) -> str:
        return str(self.places().to_html(index=False))


@declared
def similar(
    map: SceneMap | str | Path,
    point: tuple[float, float],
    *,
    n: int = 10,
    search: SceneMap | str | Path | None = None,
    out: str | Path | None = None,
    raster: str | Path | None = None,
    overwrite: bool = False,
) -> Similar:
    """Finds the cells whose features are most like those of the cell at a point.

    The similarity is the cosine between the features, which are measured from the mean of the model's
    features: 1 for the same direction, 0 for unrelated cells. Of cells whose windows overlap only
    the most similar one is listed, and none that overlaps with the cell at the point.

    Args:
        map: A map with ``features`` among its products, or a path as `geocfl.open_map` takes it.
        point: Longitude and latitude in degrees, or x and y in the map's coordinate reference system.
        n: Number of cells to list.
        search: Another map of the same model to search instead of `map`.
        out: GeoPackage to write, ``.gpkg``: layer ``similar`` with the squares of the cells.
        raster: GeoTIFF to write, ``.tif``: the similarity of every cell, float32, NaN is no data.
        overwrite: Replace `out` and `raster` if they exist.

    Raises:
        UsageError: The point is outside the map or on no data, or `n` is more than there are cells.
        DataError: A map has no features, or the two maps are of different models.
        OutputError: A file exists already or cannot be written.
    """
    files = _files(out, raster)
    for path in files.values():
        refuse_existing(path, overwrite=overwrite)
    here = map if isinstance(map, SceneMap) else open_map(map)
    there = here if search is None else search if isinstance(search, SceneMap) else open_map(search)
    cell = cell_at(here, point)
    if there is not here:
        require_same_model(here, there)
    wanted = here.features[cell].astype(np.float32)
    similarity = cosines(there.features, wanted)
    count = int(np.isfinite(similarity).sum())
    if not 1 <= n <= count:
        raise UsageError(f"`n` is {n} but must be from 1 to the {count} cells with data of {there.path.name}")
    apart = Apart(similarity.shape, window_reach(there.feature_facts["window_px"], there.grid.stride))
    if there is here:
        apart.block(*cell)
    order = np.argsort(-similarity, axis=None, kind="stable")[:count]
    ranked = zip(*(axis.tolist() for axis in np.unravel_index(order, similarity.shape)), strict=True)
    cells = np.array(list(islice(apart.among(ranked), n)), np.int64).reshape(-1, 2)
    if len(cells) < n:
        log.info("only %d cells have windows that do not overlap", len(cells))
    found = Similar(similarity, cells, there, tuple(files.values()))
    _write(found, files)
    return found


def require_same_model(here: SceneMap, there: SceneMap) -> None:
    """Refuses two maps whose features cannot be compared.

    Raises:
        DataError: They are of different models.
    """
    if here.feature_facts["model_hash"] != there.feature_facts["model_hash"]:
        raise DataError(
            f"{there.path}: its features are of another model, {there.feature_facts['model']}, than those of "
            f"{here.path}, {here.feature_facts['model']}; map both scenes with the same `model`"
        )


def cosines(features: NDArray[np.floating], wanted: NDArray[np.float32]) -> NDArray[np.float32]:
    """(rows, columns) cosines between (rows, columns, K) features and (K,) ones; NaN where the features are."""
    result = np.empty(features.shape[:2], np.float32)
    for row, stored in enumerate(features):  # never all in single precision
        values = stored.astype(np.float32)
        lengths = np.linalg.norm(values, axis=-1) * np.linalg.norm(wanted)
        result[row] = values @ wanted / np.maximum(lengths, np.finfo(np.float32).tiny)
    return result


def _files(out: str | Path | None, raster: str | Path | None) -> Mapping[str, Path]:
    """The files to write.

    Raises:
        UsageError: One has another ending than is written.
    """
    files: dict[str, Path] = {}
    for name, path, suffix in (("out", out, ".gpkg"), ("raster", raster, ".tif")):
        if path is not None:
            files[name] = Path(path)
            if files[name].suffix.lower() != suffix:
                raise UsageError(f"`{name}` is {path} but must end in {suffix}")
    return files


def _write(found: Similar, files: Mapping[str, Path]) -> None:
    """Writes the files that are asked for."""
    if "out" in files:
        with replacing(files["out"]) as partial, fixed_date():
            write_layer(found.frame().rename_geometry(GEOMETRY), partial, LAYER, "Polygon")
    if "raster" in files:
        grid = found.map.grid
        profile: dict[str, Any] = {
            "driver": "COG",
            "dtype": "float32",
            "count": 1,
            "height": grid.rows,
            "width": grid.columns,
            "crs": found.map.crs,
            "transform": grid.cell_transform,
            "nodata": np.nan,
            "compress": "deflate",
            "predictor": 3,
        }
        with replacing(files["raster"]) as partial, rasterio.open(partial, "w", **profile) as dataset:
            dataset.write(found.similarity, 1)
            dataset.set_band_description(1, "cosine similarity")
