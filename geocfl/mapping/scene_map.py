"""A finished map in Python: where its files lie and what is in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geocfl.products.summary import format_table


@dataclass(frozen=True)
class SceneMap:
    """A finished map.

    Attributes:
        paths: File, such as ``"lulc"`` or ``"gpkg"``, to where it lies; names are those of
            `geocfl.products.staging.FILES`.
        summary: The content of ``S_summary.json``.
        already_done: Whether an earlier run of the same command had written it.
    """

    paths: dict[str, Path]
    summary: dict[str, Any]
    already_done: bool = False

    def table(self) -> str:
        """Cells, hectares, share and mean confidence of every class, as plain text."""
        table: Any = self.summary
        return format_table(table)
