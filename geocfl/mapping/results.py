"""The results of a run over many scenes, and their counts."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field

from geocfl.core.files import refusal
from geocfl.core.table import align
from geocfl.errors import GeocflError, SceneError
from geocfl.products.scene_map import SceneMap
from geocfl.scenes.urls import without_secrets

log = logging.getLogger("geocfl")

MOST_WARNINGS = 20
"""Warnings that a tally lists."""
Result = tuple[str, SceneMap | GeocflError]
"""A scene's path, and its map or the error that stopped it."""


def unexpected(path: str, error: Exception) -> GeocflError:
    """The error that stands for an unexpected failure of one scene in a run of many, or for a file that is refused."""
    log.debug("%s", path, exc_info=error)
    why = without_secrets(f"{type(error).__name__}: {error}")
    what = f"failed unexpectedly ({why}); map only this one, with --debug, to see where"
    failure = SceneError(f"{path}: {(refusal(error) if isinstance(error, OSError) else '') or what}")
    failure.__cause__ = error
    return failure


@dataclass
class Tally:
    """Counts the results of a run.

    Attributes:
        counts: Number of scenes that are ``"done"``, ``"skipped"`` (already mapped) and ``"failed"``.
        failures: Path and reason of each scene that failed.
        warnings: What was assumed of the scenes that are done, or looks wrong with them.
    """

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, path: str, result: SceneMap | GeocflError) -> str:
        """Counts a result and returns its status, a key of `counts`."""
        if isinstance(result, GeocflError):
            self.failures.append((path, str(result)))
            status = "failed"
        else:
            status = "skipped" if result.already_done else "done"
            if status == "done":
                self.warnings += result.summary["warnings"]
        self.counts[status] += 1
        return status

    def table(self) -> str:
        """Counts and reasons as plain text, without a final newline."""
        notes = {"done": "mapped", "skipped": "already mapped", "failed": "not mapped; reasons below"}
        rows = [
            (status, str(self.counts[status]), note if self.counts[status] else "") for status, note in notes.items()
        ]
        lines = [align([("result", "scenes", ""), *rows], text_columns=[0, 2])]
        if self.failures:
            lines += ["", *(reason for _, reason in self.failures)]
        if self.warnings:
            shown = [f"warning: {warning}" for warning in self.warnings[:MOST_WARNINGS]]
            more = len(self.warnings) - len(shown)
            lines += ["", *shown, *([f"{more} more warnings are in the summaries"] if more else [])]
        return "\n".join(lines)
