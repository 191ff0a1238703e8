"""The results of a run over many scenes, and their counts."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field

from geocfl.core.files import refusal
from geocfl.core.table import align
from geocfl.errors import GeocflError, SceneError, UsageError
from geocfl.products.scene_map import SceneMap
from geocfl.scenes.urls import without_secrets

log = logging.getLogger("geocfl")

MOST_WARNINGS = 20
"""Warnings that a tally keeps and lists."""
FEWEST = 10
"""Scenes that must have been mapped or failed before the share of failures can stop a run."""
SOME_FAILED = 3
"""Exit code of a run in which some of the scenes failed."""
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
        warnings: What was assumed of the scenes that are done, or looks wrong with them: the first of these warnings.
        more_warnings: Number of the others.
    """

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    more_warnings: int = 0

    def add(self, path: str, result: SceneMap | GeocflError) -> str:
        """Counts a result and returns its status, a key of `counts`."""
        if isinstance(result, GeocflError):
            self.failures.append((path, str(result)))
            status = "failed"
        else:
            status = "skipped" if result.already_done else "done"
            if status == "done":
                found = result.summary["warnings"]
                kept = found[: MOST_WARNINGS - len(self.warnings)]
                self.warnings += kept
                self.more_warnings += len(found) - len(kept)
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
            more = self.more_warnings
            shown = [f"warning: {warning}" for warning in self.warnings]
            lines += ["", *shown, *([f"{more} more warnings are in the summaries"] if more else [])]
        return "\n".join(lines)

    def exit_code(self) -> int:
        """0 if each scene is mapped, 3 if some of them failed, 1 if all did."""
        if not self.counts["failed"]:
            return 0
        return SOME_FAILED if self.counts["done"] + self.counts["skipped"] else GeocflError.exit_code


class FailureLimit:
    """Stops a run in which too many scenes fail.

    Args:
        most: Fraction of the scenes that may fail, 0..1; None for any.

    Raises:
        UsageError: `most` is out of range.
    """

    def __init__(self, most: float | None) -> None:
        if most is not None and not 0 <= most <= 1:
            raise UsageError(f"`max_failed` is {most:g} but must be between 0 and 1")
        self._most, self._counts = most, Counter[str]()

    def add(self, outcome: str) -> None:
        """Counts a scene.

        Raises:
            GeocflError: More have failed than may, of at least `FEWEST`; scenes that were already mapped do not count.
        """
        self._counts[outcome] += 1
        failed, tried = self._counts["failed"], self._counts["failed"] + self._counts["done"]
        if self._most is not None and tried >= FEWEST and failed > self._most * tried:
            raise GeocflError(
                f"{failed} of {tried} scenes failed, more than `max_failed={self._most:g}` allows, so the run was "
                "stopped; remove the cause, then run the same command again to do the rest"
            )
