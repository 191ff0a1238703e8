"""What all commands have in common: the program's own options, its log, and how errors are told."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import geocfl
from geocfl.cli.renamed import current_spelling
from geocfl.errors import DOCUMENTATION, GeocflError, UsageError

MAP, USE, LEARN, MODELS = "Map", "Use maps", "Train and judge", "Models and scenes"
"""Panels of ``geocfl --help``."""


def examples(*each: tuple[str, str]) -> str:
    """The lines below a command's help: what it is good for, and the command to copy.

    Args:
        *each: What an example does, and the command; lines of 74 characters at most stay whole at 80 columns.
    """
    # Indented by four, so that it is code where the help is read as Markdown; the empty first line keeps the rest so.
    return "\nExamples:\n\n" + "\n\n".join(f"    # {purpose}\n    {command}" for purpose, command in each)


class _Commands(TyperGroup):
    """Prints a user's error as one sentence, without a traceback, and the page that explains it."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self.commands and Path(args[0]).exists():
            raise UsageError(f"{args[0]} is no command; to map it: geocfl map {args[0]}", page="tutorials/first-map/")
        name, command, rest = super().resolve_command(ctx, args)
        if command is None:
            return name, command, rest
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        return name, command, current_spelling(rest, known, lambda text: None if ctx.resilient_parsing else _warn(text))

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except GeocflError as error:
            if ctx.params.get("debug"):
                raise
            print_error(error)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt:
            typer.echo("geocfl: stopped", err=True)
            raise typer.Exit(130) from None


def _warn(text: str) -> None:
    typer.echo(f"warning: {text}", err=True)


PARAMETER = re.compile(r"`([a-z][a-z0-9_]*)(?:=([^`]+))?`")
"""A parameter of the Python API in a message, with or without a value."""


def as_options(message: str) -> str:
    """A message of the library with its parameters written as options: ```min_area=2``` as ``--min-area 2``."""

    def option(match: re.Match[str]) -> str:
        name, value = match.groups()
        flag = f"--{name.replace('_', '-')}"
        if value == "False":
            return f"--no-{flag.removeprefix('--')}"
        return flag if value in (None, "True") else f"{flag} {value}"

    return PARAMETER.sub(option, message)


def print_error(error: GeocflError) -> None:
    """Prints on standard error what went wrong, and the page that explains it."""
    typer.echo(f"geocfl: {as_options(str(error))}", err=True)
    if error.page:
        typer.echo(f"  see {DOCUMENTATION}{error.page}", err=True)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
    epilog=f"Documentation: {DOCUMENTATION} (without a network: docs/ in the source)",
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"geocfl {geocfl.__version__}")
        raise typer.Exit


@app.callback()
def main(
    debug: Annotated[
        bool, typer.Option("--debug", metavar="", help="Show the traceback of an error, for a bug report.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", metavar="", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Land-use / land-cover maps from Sentinel-2 scenes, offline, with models that come along or your own.

    New here? Make a map without any data of yours:  geocfl demo
    Map a scene of yours:                            geocfl map scene.tif
    What a command does and examples of it:          geocfl map --help
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LevelFormatter())
    logger = logging.getLogger("geocfl")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)


class _LevelFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        prefix = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        return prefix + as_options(record.getMessage())
