"""The errors of geocfl. Each message is one sentence that names the file and the remedy.

A message names a parameter of the Python API in backticks, such as ```overwrite=True```; the command line shows it as
the option, ``--overwrite``.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

DOCUMENTATION = "https://geocfl.readthedocs.io/en/latest/"
"""Address of the documentation."""


class GeocflError(Exception):
    """Base of every error that geocfl raises on purpose; the command line prints it and exits with `exit_code`.

    Args:
        message: One sentence.
        page: Page below `DOCUMENTATION` that explains the error, such as ``"how-to/formats/"``; empty if there is none.
        transient: Whether the same call may succeed later, such as after a server has failed. Finished work is kept.
    """

    exit_code = 1

    def __init__(self, message: str = "", *, page: str = "", transient: bool = False) -> None:
        super().__init__(message)
        self.page, self.transient = page, transient


class UsageError(GeocflError):
    """A parameter is unknown, or its value is not allowed."""

    exit_code = 2


class DataError(GeocflError):
    """Patches, split lists, finished maps or zones are missing, broken or incompatible."""


class ModelError(GeocflError):
    """A model bundle or weights file is missing, corrupt or incompatible."""


class SceneError(GeocflError):
    """A scene cannot be read, or it lacks something that the model needs."""


class OutputError(GeocflError):
    """An output cannot be written, or it would overwrite something."""


def resumable(error: BaseException) -> bool:
    """Whether work that an error ended is kept to be resumed: it was stopped, or the error may pass."""
    return isinstance(error, KeyboardInterrupt) or (isinstance(error, GeocflError) and error.transient)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The message about an unknown name.

    Args:
        kind: Kind of name, such as ``"product"``.
        name: The unknown name.
        known: The known names.

    Returns:
        For example ``"unknown product 'lucl'; did you mean 'lulc'? choose from: lulc, confidence"``, without the
        question if no known name is similar.
    """
    known = list(known)
    return f"unknown {kind} {name!r}; {did_you_mean(name, known)}choose from: {', '.join(known)}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A suggestion such as ``"did you mean 'lulc'? "``, whatever the case and hyphens; empty if no name is similar."""
    spelled = {_plain(each): each for each in known}
    found = get_close_matches(_plain(name), spelled, n=1)
    return f"did you mean {spelled[found[0]]!r}? " if found else ""


def _plain(name: object) -> str:
    return str(name).lower().replace("_", "-")
