"""What ``geocfl map`` prints: each result as it finishes, as text or JSON, then the counts; and its exit code."""

from __future__ import annotations

import json
import textwrap
from types import TracebackType
from typing import TYPE_CHECKING, Any

import typer

import geocfl
from geocfl.cli.bars import Bars, Lines
from geocfl.cli.entry import as_options
from geocfl.errors import GeocflError, UsageError

if TYPE_CHECKING:
    from geocfl.products.scene_map import SceneMap


class Results:
    """Prints results without keeping them; a context manager, after which an array of JSON is complete.

    Args:
        shown: The progress, above whose bars text is printed.
        several: Whether there may be several scenes, whose results are an array.
        as_json: Whether to print JSON.
        quiet: Whether standard output is for something else.

    Raises:
        UsageError: Both JSON and something else are to be printed.
    """

    def __init__(self, shown: Bars | Lines, *, several: bool, as_json: bool, quiet: bool) -> None:
        if as_json and quiet:
            raise UsageError("`json` and `events=-` both print to standard output; choose a file for `events`")
        self._shown, self._several, self._as_json, self._quiet = shown, several, as_json, quiet
        self._tally = geocfl.Tally()
        self._error: GeocflError | None = None
        self._opened = False

    def add(self, path: str, result: SceneMap | GeocflError) -> None:
        """Prints a result."""
        status = self._tally.add(path, result)
        if isinstance(result, GeocflError):
            self._error = result
            fact: dict[str, Any] = {"scene": path, "result": status, "reason": str(result), "summary": None}
        elif not self._as_json:
            if not self._several:
                self._say(described(result))
            elif status == "done":
                self._say(f"{path}: {result.summary['total']['cells']:,} cells mapped")
            return
        else:
            fact = {"scene": path, "result": status, "reason": "", "summary": result.summary}
        if self._as_json and self._several:
            self._print(fact)
        elif self._as_json and fact["summary"]:
            typer.echo(json.dumps(fact["summary"], indent=2))

    def finish(self) -> None:
        """Ends the command: with the error of a single scene, or the exit code of several.

        Raises:
            GeocflError: The only scene failed.
            typer.Exit: Some of several scenes failed, or all.
        """
        if self._error and not self._several:
            raise self._error
        if code := self._tally.exit_code():
            raise typer.Exit(code)

    def __enter__(self) -> Results:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._several:
            return
        if not self._as_json:
            if error is None or (isinstance(error, GeocflError) and self._tally.counts):
                self._say(as_options(self._tally.table()))
        elif self._opened or error is None:
            typer.echo("\n]" if self._opened else "[]")

    def _print(self, fact: dict[str, Any]) -> None:
        """Prints an element of the array, so that all together are what ``json.dumps`` gives with an indent of 2."""
        before = ",\n" if self._opened else "[\n"
        self._opened = True
        typer.echo(before + textwrap.indent(json.dumps(fact, indent=2), "  "), nl=False)

    def _say(self, text: str) -> None:
        if not self._quiet:
            self._shown.say(text)


def described(result: SceneMap) -> str:
    """What a person reads of a map that is finished."""
    from geocfl.products.unlike import unlike_sentence

    name = result.summary["scene"]["file"]
    done = "already mapped, nothing to do" if result.already_done else "mapped"
    unlike = unlike_sentence(result.summary)
    warnings = [f"warning: {as_options(text)}\n" for text in result.summary["warnings"]]
    lines = [f"{name}: {done}\n", result.table(), "", *([f"{unlike}\n"] if unlike else []), *warnings]
    return "\n".join([*lines, *(f"  {file}" for file in result.paths.values())])
