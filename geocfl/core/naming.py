"""Refuses names that are none, and guesses which one was meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


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
