"""Features of cells as GeoParquet: a row for each cell with data, with its square and its principal components."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from geocfl.core.grid import CellGrid
from geocfl.core.legend import NODATA
from geocfl.products.formats.vector_formats import GEOMETRY
from geocfl.products.scratch import CODE, FEATURES, band_numbers, read_strips

KEY = "geocfl"
"""Item of the file's metadata with the facts about the features, as JSON."""
PCA = "geocfl_pca"
"""Item of the file's metadata with mean and components: a NumPy archive (``.npz``) in base 64."""
CELLS_AT_A_TIME = 65_536
"""Rows of a row group, roughly."""


@dataclass(frozen=True)
class FeatureSpace:
    """What features are the components of.

    Attributes:
        model: Name of the model.
        digest: SHA-256 of its files. Features of models with the same digest can be compared.
        mean: (D,) mean of the network's features.
        components: (K, D) principal components, orthonormal rows.
        source: Whose features they are the components of, such as ``"training patches"``.
    """

    model: str
    digest: str
    mean: NDArray[np.float32]
    components: NDArray[np.float32]
    source: str


def write_features(
    cells: Path, path: Path, grid: CellGrid, space: FeatureSpace, tags: Mapping[str, str]
) -> dict[str, Any]:
    """Writes the features of all cells with data, in row groups, so that they are never all in memory.

    Columns: ``row`` and ``column`` of the cell, ``class_code``, ``features`` (K float16 in a list of fixed size),
    ``geometry`` (the cell's square, WKB) and its ``bbox``.

    Args:
        cells: Work raster with features.
        path: GeoParquet file to write.
        grid: Where the cells lie.
        space: What the features are the components of.
        tags: Metadata of the map's rasters.

    Returns:
        The facts about the features: how many components there are, whose, and ``explained``, the share of the squared
        distances of these cells from the mean that they hold.

    Source: GeoParquet 1.1.0, https://geoparquet.org/releases/v1.1.0/.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from geocfl.products.formats.vector import cell_squares  # imports geopandas

    count = len(space.components)
    bbox = pa.struct([(name, pa.float64()) for name in ("xmin", "ymin", "xmax", "ymax")])
    schema = pa.schema(
        [
            ("row", pa.int32()),
            ("column", pa.int32()),
            ("class_code", pa.uint8()),
            ("features", pa.list_(pa.float16(), count)),
            (GEOMETRY, pa.binary()),
            ("bbox", bbox),
        ]
    )
    squares_of, rest_of = np.zeros(count), 0.0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        bands = [CODE, *band_numbers(cells, FEATURES)]
        for first, (codes, *values) in read_strips(cells, bands, at_a_time=CELLS_AT_A_TIME):
            rows, columns = np.nonzero(codes != NODATA)
            if not len(rows):
                continue
            stored = np.ascontiguousarray(np.array(values)[:, rows, columns].T).view("<f2")
            features = stored[:, :count]
            squares_of += np.square(features, dtype=np.float64).sum(axis=0)
            rest_of += float(np.square(stored[:, count], dtype=np.float64).sum())
            squares = cell_squares(grid, rows + first, columns)
            arrays = [
                pa.array((rows + first).astype(np.int32)),
                pa.array(columns.astype(np.int32)),
                pa.array(codes[rows, columns]),
                pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), count),
                pa.array(shapely.to_wkb(squares)),
                pa.StructArray.from_arrays([pa.array(edge) for edge in shapely.bounds(squares).T], fields=list(bbox)),
            ]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
        explained = squares_of / max(squares_of.sum() + rest_of, np.finfo(float).tiny)
        facts = {"components": count, "of": space.source, "explained": round(float(explained.sum()), 4)}
        stated = facts | {
            "explained_by_each": [round(float(share), 6) for share in explained],
            "model": space.model,
            "model_hash": space.digest,
            "window_px": grid.window,
            "stride_px": grid.stride,
            "rows": grid.rows,
            "columns": grid.columns,
            "transform": list(grid.cell_transform)[:6],
            "source": tags.get("GEOCFL_SOURCE", ""),
        }
        writer.add_key_value_metadata({"geo": _geo(grid), KEY: json.dumps(stated), PCA: _archive(space)})
    return facts


def _geo(grid: CellGrid) -> str:
    """The metadata of GeoParquet."""
    crs = json.loads(pyproj.CRS.from_wkt(grid.crs.to_wkt()).to_json()) if grid.crs else None
    column = {
        "encoding": "WKB",
        "geometry_types": ["Polygon"],
        "crs": crs,
        "bbox": list(grid.bounds()),
        "covering": {"bbox": {name: ["bbox", name] for name in ("xmin", "ymin", "xmax", "ymax")}},
    }
    return json.dumps({"version": "1.1.0", "primary_column": GEOMETRY, "columns": {GEOMETRY: column}})


def _archive(space: FeatureSpace) -> str:
    content = io.BytesIO()
    np.savez_compressed(content, mean=space.mean.astype(np.float16), components=space.components.astype(np.float16))
    return base64.b64encode(content.getvalue()).decode()


def read_facts(file: Any) -> dict[str, Any]:
    """The facts about the features in a file, which pyarrow can open.

    Raises:
        ValueError: They are missing or damaged.
    """
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(file).metadata or {}
    try:
        facts: dict[str, Any] = json.loads(metadata[KEY.encode()])
        return facts
    except KeyError as error:
        raise ValueError("not a file of features") from error


def read_features(file: Any, rows: int, columns: int) -> NDArray[np.float16]:
    """The features in a file as an array.

    Args:
        file: What pyarrow can open.
        rows: Rows of cells.
        columns: Columns of cells.

    Returns:
        (rows, columns, K) float16, NaN where a cell has no data.

    Raises:
        ValueError: It is no such file, or one of another grid.
    """
    import pyarrow.parquet as pq

    facts = read_facts(file)
    if (facts["rows"], facts["columns"]) != (rows, columns):
        raise ValueError("it has other cells than the map")
    features = np.full((rows, columns, facts["components"]), np.nan, np.float16)
    for batch in pq.ParquetFile(file).iter_batches(columns=["row", "column", "features"]):
        row, column, values = (batch.column(name) for name in ("row", "column", "features"))
        features[row, column] = values.flatten().to_numpy(zero_copy_only=False).reshape(len(row), -1)
    return features
