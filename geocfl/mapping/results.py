"""The results of a run over many scenes, and their counts."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field

from geocfl.core.table import align
from geocfl.errors import GeocflError, SceneError
from geocfl.products.scene_map import SceneMap

log = logging.getLogger("geocfl")

Result = tuple[str, SceneMap | GeocflError]
"""A scene's path, and its map or the error that stopped it."""


def unexpected(path: str, error: Exception) -> GeocflError:
    """What one scene's failure that nobody foresaw is to a run of many."""
    log.debug("%s", path, exc_info=error)
    failure = SceneError(
        f"{path}: failed unexpectedly ({type(error).__name__}: {error}); map only this one, with --debug, to see where"
    )
    failure.__cause__ = error
    return failure


@dataclass
class Tally:
    """What became of the scenes of a run.

    Attributes:
        counts: How many are ``"done"``, ``"skipped"`` (mapped already) and ``"failed"``.
        failures: Path and reason of each that failed.
    """

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, str]] = field(default_factory=list)

    def add(self, path: str, result: SceneMap | GeocflError) -> str:
        """Counts a result, and returns which of the `counts` it belongs to."""
        if isinstance(result, GeocflError):
            self.failures.append((path, str(result)))
            status = "failed"
        else:
            status = "skipped" if result.already_done else "done"
        self.counts[status] += 1
        return status

    def table(self) -> str:
        """Counts and reasons as plain text, without a newline at its end."""
        notes = {"done": "mapped", "skipped": "mapped already", "failed": "not mapped, for the reasons below"}
        rows = [
            (status, str(self.counts[status]), note if self.counts[status] else "") for status, note in notes.items()
        ]
        lines = [align([("result", "scenes", ""), *rows], text_columns=[0, 2])]
        if self.failures:
            lines += ["", *(reason for _, reason in self.failures)]
        return "\n".join(lines)
