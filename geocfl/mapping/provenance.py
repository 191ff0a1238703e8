"""Where a map comes from: the digest of all that decides its cells, and the metadata that its products carry."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from geocfl._version import __version__
from geocfl.core.grid import CellGrid
from geocfl.core.remembered import Remembered
from geocfl.mapping.settings import MapSettings
from geocfl.models.bundle import Bundle
from geocfl.products.files import PRODUCT_SETTINGS
from geocfl.products.update import Order
from geocfl.scenes import Area, Scene
from geocfl.scenes.acquisition import find_mission
from geocfl.scenes.fingerprint import identities

CLASSIFICATION = 1
"""Version of the classification: a release with another one may give a scene other cells, and maps it again."""


@dataclass(frozen=True)
class Provenance:
    """What a map is made from.

    Attributes:
        scene: The open scene.
        model: The bundle.
        model_hash: SHA-256 of its files.
        settings: The settings.
        area: The ground to map; None for the whole scene.
        known: Remembers the hashes of files; None to read them in any case.
    """

    scene: Scene
    model: Bundle
    model_hash: str
    settings: MapSettings
    area: Area | None
    known: Remembered | None = None

    def digest(self) -> str:
        """SHA-256 of everything the cells depend on: scene files and metadata, model, settings, classification."""
        scene, bands = self.scene, self.model.bands
        metadata = [  # may come from files beside the rasters, such as a product's metadata
            [(scene.bands[band], asdict(scene.scaling[band])) for band in bands],
            (scene.nodata, scene.level),
            (list(scene.transform)[:6], scene.crs.to_wkt() if scene.crs else None),
        ]
        files = identities(scene.files, self.known)
        area = self.area.identity if self.area else None
        facts = [CLASSIFICATION, self.model_hash, files, metadata, self._settings(redacted=False), area]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def _settings(self, *, redacted: bool) -> dict[str, Any]:
        """The settings that decide the cells, as JSON."""
        values = self.settings.to_json(redacted=redacted)
        return {name: value for name, value in values.items() if name not in PRODUCT_SETTINGS}

    def tags(self, grid: CellGrid) -> dict[str, str]:
        """The tags of the rasters."""
        return {
            "GEOCFL_VERSION": __version__,
            "GEOCFL_MODEL": self.model.name,
            "GEOCFL_MODEL_HASH": self.model_hash,
            "GEOCFL_SOURCE": self.scene.name,
            "GEOCFL_SETTINGS": json.dumps(self._settings(redacted=True)),
            "GEOCFL_STRIDE": str(grid.stride),
            "GEOCFL_WIDTH": str(grid.width),
            "GEOCFL_HEIGHT": str(grid.height),
        }

    def facts(
        self,
        grid: CellGrid,
        *,
        order: Order,
        warnings: Sequence[str],
        classifier: str,
        masked: int,
    ) -> dict[str, Any]:
        """The summary without its class table.

        Args:
            grid: The cells.
            order: What the map holds.
            warnings: What was assumed of the scene or looks wrong with it.
            classifier: The back end that classified the windows.
            masked: Number of cells left empty because of the mask.
        """
        scene, model = self.scene, self.model
        return {
            "geocfl": __version__,
            "cells": order.cells,
            "hash": order.digest(),
            "scene": {
                "file": scene.name,
                "datetime": order.when,
                "width": scene.width,
                "height": scene.height,
                "crs": grid.crs.to_string(),
                "transform": list(grid.transform)[:6],
                "bounds": list(grid.bounds()),
                "mission": find_mission(scene.name, scene.level),
                "level": scene.level,
                "bands": {band: scene.bands[band] for band in model.bands},
                "scaling": {band: asdict(scene.scaling[band]) for band in model.bands},
                "scaling_from": scene.scaling_source,
            },
            "model": {
                "name": model.name,
                "hash": self.model_hash,
                "window": model.window,
                "correlation": model.correlation,
                "origin": model.origin,
            },
            "settings": self.settings.to_json() | order.settings | {"classifier": classifier},
            "cell_size_m": grid.stride * model.gsd,
            "masked_cells": masked,
            "warnings": list(warnings),
        }
