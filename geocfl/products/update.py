"""What a map is asked to hold, and which files of a finished map stay valid when it is asked to hold more."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from geocfl.core.files import parsed_json
from geocfl.products.files import FILES, SUMMARY
from geocfl.products.formats.vector_formats import VECTOR_FORMATS
from geocfl.products.scratch import BANDS, ENTROPY, FEATURES, MEMBERS, NOVELTY, PROBABILITY, VALID
from geocfl.products.selection import PRODUCTS, Selection
from geocfl.products.storage import existing

COUNTED = ("classes", "unclassified", "nodata", "total", "novelty", "features")
"""What a summary says of the cells, in this order."""
LISTS = {"project", "stac", "summary"}
"""Files that list the others: they are written again with any other."""
DETAILED = {"truecolor", "report"}
"""Files that show the scene itself in detail."""
PICTURES = {"preview", *DETAILED}
"""Files that show the scene itself, whose pixels no product holds unchanged."""
CODE, CONFIDENCE = BANDS
SOURCES = {
    CODE: "lulc",
    CONFIDENCE: "confidence",
    NOVELTY: "novelty",
    VALID: "valid",
    ENTROPY: "entropy",
    PROBABILITY: "probabilities",
}
"""Band of the work raster to the raster of a map that holds the same values, if files are made from them."""
LAYERS = {"entropy": ENTROPY, "novelty": NOVELTY, "valid": VALID, "probabilities": PROBABILITY}
"""Products that a cube holds, too, if they are asked for, each with its band."""
_OF_FILES = {file: (band,) for band, file in SOURCES.items()} | {
    "attributes": (CODE,),
    "sets": (CODE, MEMBERS),
    "features": (CODE, CONFIDENCE, FEATURES),
    "preview": (CODE,),
    "report": (CODE, CONFIDENCE),
}


@dataclass(frozen=True)
class Order:
    """What a map is asked to hold.

    Attributes:
        cells: Hash of all that decides its cells.
        selection: Its products.
        simplify: Tolerance for simplifying polygons, meters.
        min_area: Polygons smaller than this are merged, hectares.
        when: When the scene was taken, as in ``S_summary.json``; None if unknown.
    """

    cells: str
    selection: Selection
    simplify: float
    min_area: float
    when: str | None

    @classmethod
    def of_summary(cls, summary: Any) -> Self | None:
        """What a finished map holds, by its summary; None if the summary is damaged, changed or from an older version.

        Args:
            summary: Content of ``S_summary.json``, of whatever type.
        """
        try:
            how = summary["settings"]
            products, vector = frozenset(how["products"]), tuple(how["vector"])
            order = cls(
                str(summary["cells"]),
                Selection(products, vector),
                float(how["simplify"]),
                float(how["min_area"]),
                summary["scene"]["datetime"],
            )
            known = products <= PRODUCTS.keys() and set(vector) <= set(VECTOR_FORMATS)
            return order if known and order.digest() == summary["hash"] else None
        except (KeyError, TypeError, ValueError):
            return None

    def as_summary(self) -> dict[str, Any]:
        """The part of a summary that `of_summary` reads."""
        return {
            "cells": self.cells,
            "hash": self.digest(),
            "settings": self.settings,
            "scene": {"datetime": self.when},
        }

    def digest(self) -> str:
        """SHA-256 of all that decides the products."""
        return hashlib.sha256(json.dumps([self.cells, self.settings, self.when]).encode()).hexdigest()

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that decide the products, as JSON: the same for the same products, however they were named."""
        vector = bool(self.selection.vector)
        return {
            "products": [name for name in PRODUCTS if name in self.selection.products],
            "vector": list(self.selection.vector),
            "simplify": self.simplify if vector else 0.0,
            "min_area": self.min_area if vector else 0.0,
        }

    def joined(self, earlier: Order) -> Order:
        """This order, and all that a finished map of the same cells holds; what both hold is as in this order."""
        mine, other = self.selection, earlier.selection
        formats = {*mine.vector, *other.vector}
        return replace(
            self if mine.vector else replace(self, simplify=earlier.simplify, min_area=earlier.min_area),
            when=self.when or earlier.when,
            selection=Selection(mine.products | other.products, tuple(f for f in VECTOR_FORMATS if f in formats)),
        )

    def basis(self, file: str) -> frozenset[Any]:
        """What decides a file's content besides the cells; if it grows, the file holds all that it did before."""
        polygons = ("polygons", *(float(self.settings[name]) for name in ("simplify", "min_area")))
        if file == "gpkg":
            parts = [polygons] if "gpkg" in self.selection.vector else []
            return frozenset([*parts, *(["windows"] if "windows" in self.selection.products else [])])
        if file in VECTOR_FORMATS:
            return frozenset([polygons])
        if file == "zarr":
            layers = self.selection.products & LAYERS.keys()
            return layers | ({("when", self.when)} if self.when else set())
        dated = {("when", self.when)} if self.when and file in {"preview", "report", *LISTS} else set()
        return frozenset(dated | ({*self.selection.files} if file in LISTS else set()))


@dataclass(frozen=True)
class Update:
    """What to do for a map to hold what it is asked to.

    Attributes:
        order: What it will hold.
        kept: Files of the finished map that stay as they are.
        there: Its other files, which are replaced or removed.
        summary: Summary of the finished map with the same cells; empty if there is none.
    """

    order: Order
    kept: frozenset[str] = frozenset()
    there: frozenset[str] = frozenset()
    summary: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, order: Order, summary: Any, present: Collection[str], *, overwrite: bool, redo: bool = False) -> Update:
        """Decides what stays of a map.

        Products that are asked for are added to those of a finished map with the same cells. With `overwrite`, the map
        holds just what is asked for. Nothing stays if files would have to change and `overwrite` does not allow it.

        Args:
            order: What is asked for.
            summary: Content of the summary in place; None if there is none.
            present: Files in place, of `geocfl.products.files.FILES`.
            overwrite: Whether files may be replaced by others.
            redo: Whether to make everything anew.
        """
        earlier = Order.of_summary(summary)
        if redo or earlier is None or earlier.cells != order.cells:
            return cls(order)
        target = order if overwrite else order.joined(earlier)
        there = earlier.selection.files.intersection(present)
        shared = there & target.selection.files
        kept = {name for name in shared if target.basis(name) == earlier.basis(name)}
        if not overwrite and any(not target.basis(name) > earlier.basis(name) for name in shared - kept):
            return cls(order)
        if target.digest() != earlier.digest():
            kept.discard("summary")
        return cls(target, frozenset(kept), frozenset(there - kept), summary)

    @property
    def made(self) -> frozenset[str]:
        """Files to write."""
        return self.order.selection.files - self.kept

    @property
    def pictures(self) -> bool:
        """Whether a file to write shows the scene itself."""
        return not PICTURES.isdisjoint(self.made)

    @property
    def detail(self) -> bool:
        """Whether one of them shows it in detail."""
        return not DETAILED.isdisjoint(self.made)

    def needed(self, bands: Collection[str]) -> set[str]:
        """Names of the work raster's bands that the files to write need.

        Args:
            bands: Those that the work raster has after classification.
        """
        selection = self.order.selection
        names = {band for file in self.made for band in _OF_FILES.get(file, ())}
        if self.made.intersection(selection.vector):
            names |= {CODE, CONFIDENCE, NOVELTY}
        if "gpkg" in self.made and "windows" in selection.products:
            names |= {CODE, CONFIDENCE, NOVELTY, PROBABILITY}
        if "zarr" in self.made:
            names |= {CODE, CONFIDENCE, *(LAYERS[name] for name in selection.products & LAYERS.keys())}
        return names.intersection(bands)

    @property
    def stored(self) -> dict[str, str]:
        """Bands that the finished map holds, each with the name of its file."""
        return {band: file for band, file in SOURCES.items() if file in self.kept | self.there}


def finished(out: Path, stem: str) -> tuple[Any, set[str]]:
    """The content of a map's summary and the names of its files, as far as they are in place.

    Args:
        out: Output folder, from `geocfl.products.storage.output_folder`.
        stem: Stem of the scene's file name.

    Returns:
        The summary, of whatever type, and the names of its files that are there. None and nothing if there is no
        summary that can be read; `geocfl.products.staging.Staging` then says what is wrong.
    """
    try:
        summary = parsed_json((out / f"{stem}{SUMMARY}").read_text(encoding="utf-8"))
    except Exception:  # a store raises errors of any type
        return None, set()
    order = Order.of_summary(summary)
    if order is None:
        return None, set()
    paths = {name: out / f"{stem}{FILES[name]}" for name in order.selection.files}
    there = set(existing(paths.values()))
    return summary, {name for name, path in paths.items() if path in there}


def counted(summary: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a map's summary says of its cells; nothing if there is none."""
    return {name: summary[name] for name in COUNTED if name in summary} if summary else {}
