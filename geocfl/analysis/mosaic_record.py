"""What a mosaic is made of, as its summary records it, and what of an earlier mosaic an update can keep."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.windows import Window

from geocfl._version import __version__
from geocfl.analysis.alignment import AlignedMap
from geocfl.core.files import parsed_json
from geocfl.core.grid import CellGrid
from geocfl.errors import DataError
from geocfl.products.files import FILES, LULC, SUFFIXES, SUMMARY
from geocfl.products.scene_map import SceneMap
from geocfl.products.storage import existing, open_raster

log = logging.getLogger("geocfl")

PASTED = ("lulc", "confidence", "probabilities", "novelty", "valid")
"""Rasters of a map that the cells of a mosaic may depend on."""
WHOLE = 1e-6
"""Cells by which the offset between two grids of the same cells may differ from a whole number."""
Box = tuple[int, int, int, int]
"""First row, row after the last, first column, column after the last."""


@dataclass(frozen=True)
class Stated:
    """What the summary of a map says.

    Attributes:
        cells: Hash of all that decides the map's cells; empty if unknown.
        time: When its scene was taken, ISO 8601 in UTC; empty if unknown.
        correlation: How much it errs together with other maps of its place, 0..1; 1 if unknown.
    """

    cells: str = ""
    time: str = ""
    correlation: float = 1.0


def stated(m: SceneMap) -> Stated:
    """Reads a map's summary and forgets the rest of it: a mosaic may have thousands of maps.

    Raises:
        DataError: The summary cannot be read.
    """
    known = "summary" in vars(m)
    if not known and "summary" not in m.paths:
        return Stated()
    facts = m.summary
    if not known:
        del m.summary
    cells, time = facts.get("cells") or facts.get("hash") or "", facts.get("scene", {}).get("datetime") or ""
    correlation = facts.get("model", {}).get("correlation")
    known = isinstance(correlation, int | float) and 0 <= correlation <= 1
    return Stated(str(cells), str(time), float(correlation) if known else 1.0)


def time_of(m: SceneMap) -> str:
    """When a map's scene was taken, ISO 8601 in UTC.

    Raises:
        DataError: The map does not say.
    """
    when = stated(m).time
    if not when:
        raise DataError(
            f"{m.path}: does not say when its scene was taken, so it is neither newer nor older than others; map the "
            "scene with `datetime`"
        )
    return when


def facts_of(grid: CellGrid, maps: Sequence[AlignedMap], name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The summary of a mosaic without what its cells decide.

    Args:
        grid: Its cells.
        maps: The maps, in the order that they are pasted in.
        name: Stem of its files.
        settings: What decides the cells, beside the maps and the grid.
    """
    facts = [stated(part.map) for part in maps]
    sources = _sources(maps, facts)
    times = sorted(known.time for known in facts if known.time)
    place = {"crs": grid.crs.to_string(), "transform": list(grid.transform)[:6]}
    size = {"width": grid.width, "height": grid.height}
    decisive = [__version__, place, size, settings, sources, times]
    return {
        "geocfl": __version__,
        "hash": hashlib.sha256(json.dumps(decisive).encode()).hexdigest(),
        "scene": {
            "file": name,
            "datetime": times[0] if len(set(times)) == 1 else None,
            "start_datetime": times[0] if times else None,
            "end_datetime": times[-1] if times else None,
            **size,
            **place,
            "bounds": list(grid.bounds()),
        },
        "model": {"name": ", ".join(sorted({part.map.model for part in maps} - {""}))},
        "settings": {**settings, "stride": 1},
        "cell_size_m": round(grid.meters_per_pixel()[1], 6),
        "warnings": [],
        "maps": sources,
    }


def rasters_of(paths: Mapping[str, Path]) -> dict[str, str]:
    """SHA-256 of the rasters that hold a mosaic's cells, by which an update sees that nobody has changed them."""
    return {name: _content(paths[name]) for name in ("lulc", "confidence")}


def read_record(target: Path) -> dict[str, Any] | None:
    """The summary of a finished mosaic; None if there is none, or if it belongs to something else.

    Args:
        target: ``X_lulc.tif``.
    """
    path = target.with_name(target.stem.removesuffix(LULC) + FILES["summary"])
    try:
        record = parsed_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    known = isinstance(record, dict) and {"hash", "maps", "rasters", "scene", "settings"} <= record.keys()
    return record if known else None


def remove_mosaic(target: Path) -> None:
    """Removes a mosaic that geocfl has made and that maps no longer reach, its summary first.

    Args:
        target: ``X_lulc.tif``.
    """
    log.info("%s: removed, because no map has data there any more", target)
    stem = target.stem.removesuffix(LULC)
    (target.parent / f"{stem}{SUMMARY}").unlink()
    for path in existing(target.parent / f"{stem}{suffix}" for suffix in SUFFIXES):
        path.unlink()


@dataclass(frozen=True)
class Kept:
    """Cells of an earlier mosaic that a new one has, too.

    Attributes:
        lulc: Its class raster.
        confidence: Its raster of confidences.
        shape: Its rows and columns.
        top: Its first row in the new mosaic; may be negative.
        left: Its first column.
        stale: Boxes in the new mosaic whose cells must be pasted again.
    """

    lulc: Path
    confidence: Path
    shape: tuple[int, int]
    top: int
    left: int
    stale: tuple[Box, ...]

    def stale_cells(self, first: int, last: int, columns: int) -> NDArray[np.bool_]:
        """(last - first, columns) whether each cell in these rows of the new mosaic must be pasted."""
        stale = np.ones((last - first, columns), bool)
        stale[self._inside(first, last, columns)] = False
        for top, bottom, left, right in self.stale:
            stale[max(top - first, 0) : max(bottom - first, 0), max(left, 0) : max(right, 0)] = True
        return stale

    def fill(
        self, first: int, codes: NDArray[np.uint8], confidence: NDArray[np.uint8], stale: NDArray[np.bool_]
    ) -> None:
        """Sets the cells that are not stale in rows of the new mosaic.

        Args:
            first: The first of the rows.
            codes: (rows, columns) class codes.
            confidence: (rows, columns) confidences in percent.
            stale: (rows, columns) from `stale_cells`.
        """
        rows, columns = self._inside(first, first + len(codes), codes.shape[1])
        fresh = ~stale[rows, columns]
        if not fresh.any():
            return
        window = Window.from_slices(
            (rows.start + first - self.top, rows.stop + first - self.top),
            (columns.start - self.left, columns.stop - self.left),
        )
        for path, values in ((self.lulc, codes), (self.confidence, confidence)):
            with open_raster(path) as dataset:
                values[rows, columns][fresh] = dataset.read(1, window=window)[fresh]

    def _inside(self, first: int, last: int, columns: int) -> tuple[slice, slice]:
        """The rows, counted from `first`, and columns that the earlier mosaic has; may be empty."""
        top, left = max(self.top - first, 0), max(self.left, 0)
        bottom = min(self.top + self.shape[0], last) - first
        right = min(self.left + self.shape[1], columns)
        return slice(top, max(top, bottom)), slice(left, max(left, right))


def kept_cells(record: Mapping[str, Any], facts: Mapping[str, Any], grid: CellGrid, target: Path) -> Kept | None:
    """What of an earlier mosaic a new one can keep, so that it equals one that is made from scratch.

    A cell stays if the same maps reach it, pasted in the same order by the same rule and version. On another grid of
    the same cells, only cells of maps that are copied stay: reprojection rounds by the rows that it is given.

    Args:
        record: From `read_record`.
        facts: Those of the new mosaic, from `facts_of`.
        grid: Its cells.
        target: ``X_lulc.tif``.

    Returns:
        The cells; None if all must be pasted again.
    """
    paths = {name: target.with_name(target.stem.removesuffix(LULC) + FILES[name]) for name in ("lulc", "confidence")}
    try:
        offset = _offset(record, facts, grid)
        if offset is None or rasters_of(paths) != record["rasters"]:
            return None
        top, left = offset
        before = [_key(source, top, left) for source in record["maps"]]
        shape = (record["scene"]["height"], record["scene"]["width"])
    except (OSError, LookupError, TypeError, ValueError):  # rasters are gone, or someone has edited the summary
        return None
    after = [_key(source) for source in facts["maps"]]
    had, has = Counter(before), Counter(after)
    common = {key for key in had if had[key] == has[key]}
    if [key for key in before if key in common] != [key for key in after if key in common]:
        return None
    stale = [_box(key) for key in [*before, *after] if key not in common]
    if (top, left, shape) != (0, 0, (grid.rows, grid.columns)):
        stale += [_box(key) for key in common if not key[-1]]
    return Kept(paths["lulc"], paths["confidence"], shape, top, left, tuple(stale))


def _offset(record: Mapping[str, Any], facts: Mapping[str, Any], grid: CellGrid) -> tuple[int, int] | None:
    """Row and column of an earlier mosaic's first cell in a new one; None if it has other cells or settings."""
    old = record["scene"]
    if record["geocfl"] != facts["geocfl"] or old["crs"] != facts["scene"]["crs"]:
        return None
    if {**record["settings"], "vector": None} != {**facts["settings"], "vector": None}:
        return None
    transform = Affine(*old["transform"])
    if any(getattr(transform, name) != getattr(grid.transform, name) for name in "abde"):
        return None
    offset = ~grid.transform @ transform
    top, left = round(offset.f), round(offset.c)
    return None if max(abs(offset.f - top), abs(offset.c - left)) > WHOLE else (top, left)


def _sources(maps: Sequence[AlignedMap], facts: Sequence[Stated]) -> list[dict[str, Any]]:
    """What the summary of a mosaic records of each map: name, hash, place, whether cells are copied, and correlation.

    The hash is that of the cells and the correlation in the map's own summary and of the sizes of its rasters; without
    a summary, that of the rasters' content. It does not depend on where the map lies or when it was written.
    """
    return [
        {
            "file": part.map.path.name,
            "hash": _identity(part.map, known),
            "rows": [part.top, part.bottom],
            "columns": [part.left, part.right],
            "copied": part.copied,
            "correlation": known.correlation,
        }
        for part, known in zip(maps, facts, strict=True)
    ]


_Key = tuple[str, int, int, int, int, bool]


def _key(source: Mapping[str, Any], top: int = 0, left: int = 0) -> _Key:
    """A recorded map, so many rows and columns further down and to the right."""
    (first, last), (start, stop) = source["rows"], source["columns"]
    return source["hash"], first + top, last + top, start + left, stop + left, source["copied"]


def _box(key: _Key) -> Box:
    return key[1:5]


def _identity(m: SceneMap, known: Stated) -> str:
    """Hash of a map's cells, of which its summary may state the hash."""
    rasters = [m.paths[name] for name in PASTED if name in m.paths]
    if known.cells:
        facts: list[Any] = [known.cells, known.correlation, *([path.name, path.stat().st_size] for path in rasters)]
    else:
        facts = [known.correlation, *(_content(path) for path in rasters)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _content(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
