"""Blocks of rows of a scene that is too large for one task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Blocks:
    """How a scene is divided.

    Attributes:
        parent: The scene's partial folder, in which the blocks' own ones lie.
        cell_rows: Rows of cells in a strip.
        rows: First row of cells of each block, and the one after its last; multiples of `cell_rows`.
    """

    parent: Path
    cell_rows: int
    rows: tuple[tuple[int, int], ...]

    def folder(self, first: int) -> Path:
        """Where the block that begins at a row lies once it is whole."""
        return self.parent / f"rows-{first:06}"
