"""The files of suggestions: a GeoPackage with the form of a sample, but no design, and a QGIS project."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import pyogrio
from pyogrio.errors import DataLayerError, DataSourceError

from geocfl._version import __version__
from geocfl.analysis.sample_files import around, scene_layers
from geocfl.core.files import replacing
from geocfl.errors import DataError
from geocfl.products.formats.qgis import ProjectLayer, write_layers
from geocfl.products.formats.sample_form import sample_qml, sample_style
from geocfl.products.formats.vector import fixed_date, write_default_styles, write_layer
from geocfl.products.formats.vector_formats import GEOMETRY
from geocfl.products.scene_map import SceneMap

LAYER = "suggest"
"""The only layer of the GeoPackage that has geometries."""
KEY = "GEOCFL_SUGGESTION"
"""Item of a GeoPackage's metadata that tells suggestions from a sample."""
NOTE = "chosen to be labeled for training, not at random: no accuracy or area follows from these windows"
"""What the files say of themselves."""


def write_suggestions(
    files: Sequence[Path], finished: SceneMap, squares: gpd.GeoDataFrame, names: Sequence[str], how: Mapping[str, Any]
) -> None:
    """Writes the files of suggestions.

    Args:
        files: GeoPackage and project.
        finished: The map.
        squares: From `geocfl.analysis.sample_files.unanswered`.
        names: Classes of the drop-down.
        how: What the windows were chosen by.

    Raises:
        OutputError: One cannot be written.
    """
    geopackage, project = files
    facts = {"note": NOTE, "geocfl": __version__, "map": finished.path.name, **how}
    with replacing(project) as partial:
        part = f"|layername={LAYER}"
        layer = ProjectLayer(geopackage.name, "Windows to label", tuple(sample_style(names)), checked=True, part=part)
        layers = [layer, *scene_layers(finished, geopackage.parent)]
        title = f"{geopackage.stem}: windows of {finished.path.name} to label"
        write_layers(partial, title, finished.grid.crs, around(squares.geometry.iloc[0]), layers)
    with replacing(geopackage) as partial, fixed_date():
        write_layer(squares.rename_geometry(GEOMETRY), partial, LAYER, "Polygon", metadata={KEY: json.dumps(facts)})
        write_default_styles(partial, {LAYER: sample_qml(names)})


def refuse_suggestions(path: Path) -> None:
    """Refuses suggestions where a random sample is needed.

    Raises:
        DataError: The file holds suggestions.
    """
    try:
        metadata = pyogrio.read_info(path, layer=LAYER).get("dataset_metadata") or {}
    except (DataSourceError, DataLayerError):
        return
    if KEY in metadata:
        raise DataError(
            f"{path}: holds suggestions of geocfl suggest, windows that were {NOTE}; draw a sample with geocfl sample"
        )
