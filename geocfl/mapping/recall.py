"""Recognizes scenes that have not changed and maps that are done, from what an earlier run has remembered."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from geocfl._version import __version__
from geocfl.core.files import cache_folder
from geocfl.core.remembered import Remembered
from geocfl.errors import SceneError
from geocfl.products.inventory import Inventory
from geocfl.products.storage import in_store
from geocfl.products.update import Order
from geocfl.scenes import Source
from geocfl.scenes.fingerprint import Seal
from geocfl.scenes.urls import gdal_path

MANIFEST = ".manifest.jsonl"
"""Name of the file in an output folder that remembers hashes."""


class Recall:
    """What is remembered for each output folder, and one listing of each; several threads may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, Remembered] = {}
        self._inventories: dict[str, Inventory] = {}

    def known(self, out: Path) -> Remembered:
        """What is remembered of the scenes and maps of an output folder."""
        with self._lock:
            if str(out) not in self._known:
                self._known[str(out)] = Remembered(manifest(out))
            return self._known[str(out)]

    def done(self, out: Path, stem: str, order: Order, *, overwrite: bool) -> Order | None:
        """What the map of a scene holds, if the listing of the folder shows that it is done.

        The folder is listed at the first call. A map that another process finishes later is not found here.
        """
        known = self.known(out)
        with self._lock:
            if str(out) not in self._inventories:
                self._inventories[str(out)] = Inventory(out, known)
            inventory = self._inventories[str(out)]
        return inventory.done(order, stem, overwrite=overwrite)


class Opening:
    """What opening a scene has shown, remembered for as long as its files and those beside them stay the same.

    Args:
        known: Where to remember it.
        source: The scene.
        bands: Names of the bands to read.
        more: Other rasters that are read, such as a mask.
        how: All else that decides what opening shows.
    """

    def __init__(
        self, known: Remembered, source: Source, bands: Sequence[str], more: Sequence[str], how: Sequence[Any]
    ) -> None:
        chosen = [source.bands[name] for name in bands if name in source.bands]
        found = chosen if len(chosen) == len(bands) else list(source.bands.values())
        layer = [source.scl] if source.scl and more else []
        paths = {band.path for band in [*found, *layer]} | {path for path in more if path != "scl"}
        if source.raster:
            paths.add(gdal_path(source.raster))
        facts = json.dumps([__version__, repr(source), *how])
        self._known, self._key = known, f"opened {hashlib.sha256(facts.encode()).hexdigest()}"
        self._paths = sorted(paths)

    @property
    def known(self) -> bool:
        """Whether anything is remembered, perhaps of files that have changed since."""
        return self._known.get(self._key) is not None

    @cached_property
    def _seal(self) -> Seal | None:
        with suppress(SceneError):  # raised again when the scene is opened
            return Seal.of(self._paths)
        return None

    def recalled(self) -> dict[str, Any] | None:
        """What was remembered; None if nothing was, or a file has changed. Looks at the files, not into them."""
        held = self._known.get(self._key) if self._seal else None
        if self._seal and isinstance(held, list) and held[:1] == [self._seal.text] and isinstance(held[-1], dict):
            return held[-1]
        return None

    def remember(self, facts: dict[str, Any]) -> None:
        """Remembers what opening has shown; call it after `recalled`, once the scene was read."""
        if self._seal and self._seal.settled and self.recalled() != facts:
            self._known.put(self._key, [self._seal.text, facts])


def manifest(out: Path) -> Path:
    """The file that remembers the scenes and maps of an output folder: in it, or in the cache if it is in a store."""
    if not in_store(out):
        return out / MANIFEST
    folder = cache_folder() / "manifests"
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{hashlib.sha256(str(out).encode()).hexdigest()[:16]}.jsonl"
