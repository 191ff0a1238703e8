"""Blocks of rows of a scene that is too large for one task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Blocks:
    """A scene divided into blocks of rows.

    Attributes:
        parent: The scene's partial folder, which holds the folders of the blocks.
        cell_rows: Rows of cells per strip.
        thumbnail_step: Every n-th pixel of the scene is kept for its pictures.
        rows: First row of each block and the row after its last, in cells; the first rows are multiples of `cell_rows`.
    """

    parent: Path
    cell_rows: int
    thumbnail_step: int
    rows: tuple[tuple[int, int], ...]

    def folder(self, first: int) -> Path:
        """Folder of the block that begins at row `first`, once it is complete."""
        return self.parent / f"rows-{first:06}"
