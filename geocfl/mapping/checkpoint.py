"""The finished strips of a map, from which an interrupted run resumes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geocfl.core.files import parsed_json, sync, write_whole
from geocfl.core.grid import CellGrid
from geocfl.core.numbers import Pixels, thinned
from geocfl.products.scratch import BANDS, write_header

CHECKPOINT = "checkpoint.jsonl"
_CELLS, _THUMBNAIL = "cells", "thumbnail"
FILES = (_CELLS, _THUMBNAIL, CHECKPOINT)
"""Names of the files that a checkpoint can be copied by; in this order, a copy that breaks off is no harm."""
_COUNTS = ("row", "windows", "masked")
"""Keys of a line of the log."""
_EARLIER = "earlier"
"""Key of the first line."""


class Checkpoint:
    """The results of a run in a folder, strip by strip, so that another run can resume after any strip.

    Three files grow together: the work raster of `geocfl.products.scratch`, the rows of the thumbnail, and
    ``checkpoint.jsonl``. Its first line holds the facts that a resuming run must share, every other line a finished
    strip. A strip counts once its line is complete; anything beyond it in the other files is cut off. The other files
    are on the disk before the line is written, so that a strip that counts survives a power cut.

    Args:
        folder: An existing folder to keep it in.
        grid: The scene's cells.
        shown: Indices of the bands that the thumbnail keeps.
        facts: What decides how cells are computed, such as the back end and the strip height. A checkpoint with other
            facts starts over, unless it was made with a fact ``gpu`` that no longer holds: where the GPU is gone, the
            CPU goes on.
        cell_bands: Names of the work raster's bands.
        thumbnail_step: The thumbnail has every n-th pixel.
        first: First row of cells, if it belongs to a block of a scene.
        appended: Called after each strip.

    Attributes:
        cells: Path of the work raster.
        row: Row of cells after the last finished one.
        windows: Windows classified so far.
        masked: Cells left empty so far because of the mask.
        earlier: Back ends on GPUs that computed the first strips, in order.
    """

    def __init__(
        self,
        folder: Path,
        grid: CellGrid,
        shown: Sequence[int],
        facts: dict[str, Any],
        *,
        cell_bands: Sequence[str] = BANDS,
        thumbnail_step: int = 1,
        first: int = 0,
        appended: Callable[[], object] = lambda: None,
    ) -> None:
        self._appended = appended
        self.cells = folder / _CELLS
        self._thumbnail, self._log = folder / _THUMBNAIL, folder / CHECKPOINT
        self._grid, self._shown, self._cell_bands = grid, list(shown), len(cell_bands)
        self._facts = facts
        self._first = first
        self._step = thumbnail_step
        header, strips = _read(self._log)
        earlier = self._continued(header, facts, strips) if strips else None
        self.earlier: list[str] = earlier or []
        self._take(strips[-1] if earlier is not None else None)
        if any(not path.exists() or path.stat().st_size < size for path, size in self._sizes().items()):
            self._take(None)
        if self.row == first:
            self.earlier = []
        noted = facts | {_EARLIER: self.earlier} if self.earlier else facts
        lines = [noted, *strips] if self.row > first else [facts]
        write_whole(self._log, "".join(json.dumps(line) + "\n" for line in lines).encode())
        for path, size in self._sizes().items():
            with path.open("ab") as file:
                file.truncate(size)
        write_header(self.cells, grid.rows, grid.columns, cell_bands)
        sync(folder)

    @staticmethod
    def _continued(header: Any, facts: dict[str, Any], strips: list[dict[str, int]]) -> list[str] | None:
        """Back ends that computed these strips before the one of `facts`, if that may continue them; else None."""
        if not isinstance(header, dict):
            return None
        earlier = header.get(_EARLIER, [])
        if {name: value for name, value in header.items() if name != _EARLIER} == facts:
            return list(earlier)
        lost_gpu = header.get("gpu") and facts.get("gpu") is False
        if lost_gpu and strips[-1]["row"] % facts["cell_rows"] == 0:
            return [*earlier, header["backend"]]
        return None

    def join(self, folders: Sequence[Path]) -> None:
        """Appends the rows of blocks of the same scene; the first block begins where this checkpoint ends.

        Args:
            folders: Folders of the blocks' checkpoints, in the order of their rows. A block with other facts, such as
                another back end, is left out with all that follow, so that their cells are computed again.
        """
        for folder in folders:
            header, strips = _read(folder / self._log.name)
            if header != self._facts or not strips:
                return
            for mine in (self.cells, self._thumbnail):
                with mine.open("ab") as file, (folder / mine.name).open("rb") as block:
                    shutil.copyfileobj(block, file)
            counts = {"row": 0, "windows": self.windows, "masked": self.masked}
            with self._log.open("a") as file:
                for strip in strips:
                    file.write(json.dumps({name: strip[name] + counts[name] for name in _COUNTS}) + "\n")
            self._take({name: strips[-1][name] + counts[name] for name in _COUNTS})

    def _take(self, strip: dict[str, int] | None) -> None:
        """Resumes after a strip, or starts over."""
        self.row, self.windows, self.masked = (strip[name] for name in _COUNTS) if strip else (self._first, 0, 0)

    def _sizes(self) -> dict[Path, int]:
        """Bytes that the pixel files have for the finished rows of cells."""
        first, end = (
            -(-min(self._grid.height, row * self._grid.stride) // self._step) for row in (self._first, self.row)
        )
        return {
            self.cells: (self.row - self._first) * self._cell_bands * self._grid.columns,
            self._thumbnail: (end - first) * self._row_bytes(),
        }

    def _row_bytes(self) -> int:
        return 4 * len(self._shown) * -(-self._grid.width // self._step)

    def append(self, cells: NDArray[np.uint8], inside: Pixels, windows: int, masked: int = 0) -> None:
        """Adds a strip.

        Args:
            cells: (cell_bands, k, columns) values of the next k rows of cells.
            inside: The cells' own pixels.
            windows: Windows classified.
            masked: Cells left empty because of the mask.
        """
        offset = -self.row * self._grid.stride % self._step
        every = slice(offset, None, self._step), slice(None, None, self._step)
        small = thinned(inside, self._shown, *every).transpose(1, 0, 2)
        with self.cells.open("ab") as file:
            file.write(cells.transpose(1, 0, 2).tobytes())
        with self._thumbnail.open("ab") as file:
            file.write(small.astype("<f4").tobytes())
        for path in (self.cells, self._thumbnail):
            sync(path)
        self.row += cells.shape[1]
        self.windows += windows
        self.masked += masked
        with self._log.open("a") as file:
            file.write(json.dumps({name: getattr(self, name) for name in _COUNTS}) + "\n")
        sync(self._log)
        self._appended()

    def thumbnail(self) -> NDArray[np.float32]:
        """(h, w, bands shown) float32 reflectance of every n-th pixel, NaN is no data; read from disk when used."""
        bands = len(self._shown)
        columns = self._row_bytes() // 4 // bands
        if not self._thumbnail.stat().st_size:  # nothing to map into memory
            return np.empty((0, columns, bands), np.float32)
        return np.memmap(self._thumbnail, "<f4", "r").reshape(-1, bands, columns).transpose(0, 2, 1)


def finished_strips(log: Path) -> int:
    """Number of finished strips in the log of a checkpoint; 0 if there is none."""
    return len(_read(log)[1])


def _read(log: Path) -> tuple[Any, list[dict[str, int]]]:
    """The first line of a checkpoint, and its other complete lines."""
    try:
        lines = log.read_text().splitlines(keepends=True)
        whole = [parsed_json(line) for line in lines if line.endswith("\n")]
        return whole[0], whole[1:]
    except (OSError, ValueError, IndexError):
        return None, []
