"""The reference of the command line, written from the commands themselves, so that it is never behind them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

import typer.main

from geocfl.cli import app

PLACE = "<!-- every command -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page's Markdown, with all commands where `PLACE` stands."""
    return markdown.replace(PLACE, "\n".join(reference())) if PLACE in markdown else markdown


def reference() -> Iterator[str]:
    """Lines of Markdown: every command with its examples, arguments and options, in the panels of ``--help``."""
    group: Any = typer.main.get_command(app)
    for panel, commands in _by_panel(group.commands.values(), "Commands").items():
        yield f"## {panel}\n"
        for command in commands:
            yield from _command(command)


def _command(command: Any) -> Iterator[str]:
    context = typer.Context(command, info_name=f"geocfl {command.name}")
    yield f"### geocfl {command.name} {{#{command.name} data-toc-label='{command.name}'}}\n"
    yield f"```text\ngeocfl {command.name} {' '.join(command.collect_usage_pieces(context))}\n```\n"
    yield from _prose(command.help)
    yield from _prose(command.epilog)
    for panel, parameters in _by_panel(command.get_params(context), "").items():
        entries = [
            record
            for parameter in parameters
            if parameter.name != "help" and (record := parameter.get_help_record(context))
        ]
        if panel and entries:
            yield f"**{panel}**\n"
        for name, text in entries:
            metavar = re.sub(r" <.*>$", "", name)  # SCENE <list[str]>
            yield f"`{metavar}`\n:   {_with_default(text)}\n"


def _by_panel(members: Iterable[Any], other: str) -> dict[str, list[Any]]:
    panels: dict[str, list[Any]] = {}
    for member in members:
        panel = getattr(member, "rich_help_panel", None)
        panels.setdefault(panel if isinstance(panel, str) else other, []).append(member)
    return panels


def _prose(text: str | None) -> Iterator[str]:
    """Help as Markdown: what is indented in it, the examples, becomes a block of code."""
    for indented, lines in groupby(_lines(text or ""), key=lambda line: line.startswith("    ") or not line.strip()):
        block = inspect.cleandoc("\n".join(lines))
        if not block:
            yield ""
        elif indented:
            yield "\n```sh\n" + re.sub(r"\n\n+", "\n", block) + "\n```\n"
        elif block != "Examples:":
            yield _escaped(block) + "\n"


def _lines(text: str) -> list[str]:
    return inspect.cleandoc(text.replace("\b\n", "").replace("\\[", "[")).splitlines()


def _with_default(text: str) -> str:
    """What an option does, and in italics what stands in brackets at the end: its default and its range."""
    what, _, rest = text.partition("  [")
    facts = re.sub(r"^default: \((.*)\)", r"default: \1", rest.removesuffix("]"))
    return f"{_escaped(what)} *({_escaped(facts)})*" if facts else _escaped(text)


def _escaped(text: str) -> str:
    return re.sub(r"([*_\[\]])", r"\\\1", text.replace("<", "&lt;"))
