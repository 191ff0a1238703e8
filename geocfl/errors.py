"""Errors: one sentence each, which names the file and the remedy.

A message names a parameter of the Python API in backticks, such as ```overwrite=True```; the command line shows it as
the option, ``--overwrite``.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

DOCUMENTATION = "https://geocfl.readthedocs.io/en/latest/"
"""Where the pages of ``docs/`` are read."""


class GeocflError(Exception):
    """Base of every error that geocfl raises on purpose; the command line prints it and exits with `exit_code`.

    Args:
        message: The sentence.
        page: Address of the page below `DOCUMENTATION` that explains it, such as ``"how-to/formats/"``; empty where
            the sentence says all.
    """

    exit_code = 1

    def __init__(self, message: str = "", *, page: str = "") -> None:
        super().__init__(message)
        self.page = page


class UsageError(GeocflError):
    """An argument or option that is unknown, or whose value is not allowed."""

    exit_code = 2


class DataError(GeocflError):
    """Patches, split lists, finished maps or zones that are missing, broken or do not fit together."""


class ModelError(GeocflError):
    """A model bundle or weights file that is missing, corrupt or does not fit."""


class SceneError(GeocflError):
    """A scene that cannot be read or lacks what the model needs."""


class OutputError(GeocflError):
    """An output that cannot be written, or that would overwrite something."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The sentence that refuses a name.

    Args:
        kind: What it should name, such as ``"product"``.
        name: As the user wrote it.
        known: The names that there are.

    Returns:
        Such as ``"unknown product 'lucl'; did you mean 'lulc'? choose from: lulc, confidence"``; without the question
        where no name is like it.
    """
    known = list(known)
    return f"unknown {kind} {name!r}; {did_you_mean(name, known)}choose from: {', '.join(known)}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``"did you mean 'lulc'? "``, whatever case and hyphens the name is written with; empty where none is like it."""
    spelled = {_plain(each): each for each in known}
    found = get_close_matches(_plain(name), spelled, n=1)
    return f"did you mean {spelled[found[0]]!r}? " if found else ""


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")
