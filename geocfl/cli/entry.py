"""What all commands have in common: the options of ``geocfl`` itself, its log, and how it prints errors."""

from __future__ import annotations

import ast
import errno
import io
import logging
import os
import re
import sys
import traceback
import warnings
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import geocfl
from geocfl.cli.parse import joined_box
from geocfl.cli.renamed import current_spelling
from geocfl.cli.stopping import exit_code, stop_on_sigterm
from geocfl.core.files import refusal, remedy_of
from geocfl.errors import DOCUMENTATION, GeocflError, UsageError

MAP, USE, LEARN, MODELS = "Map", "Use maps", "Train and evaluate", "Models and scenes"
"""Panels of ``geocfl --help``."""


def examples(*each: tuple[str, str]) -> str:
    """The lines below a command's help: the purpose of each example, and the command to copy.

    Args:
        *each: Purpose and command; lines of up to 74 characters are not wrapped at 80 columns.
    """
    # Indented by four, so that Markdown renders the examples as code; the empty first line keeps the indentation.
    return "\nExamples:\n\n" + "\n\n".join(f"    # {purpose}\n    {command}" for purpose, command in each)


LEAST_OPEN_FILES = 64
"""Files that a process must be able to open at once: the bands of a product, its map's rasters and the libraries'."""
LEFT_OUT = ("torch", "torchgeo", "timm", "onnxscript")
"""Packages that an installation for maps alone may lack, such as the container image for CPUs."""
_ADDRESS = re.compile(r"\w\w:[/\\]|/vsi|@|/.*\?")
"""What only messages with addresses contain, or few others."""
_Misuse: Any = typer.BadParameter.__base__
"""Typer's errors about arguments and options."""


class _Commands(TyperGroup):
    """Prints an error as one sentence without a traceback, and accepts old spellings of options."""

    def main(self, args: Any = None, *rest: Any, **options: Any) -> Any:
        open_standard_streams()
        sys.excepthook = _print_traceback
        stop_on_sigterm()
        if few := _few_open_files():
            print_error(GeocflError(few))
            sys.exit(1)
        try:
            return super().main(args, *rest, **options)
        except (OSError, UnicodeEncodeError) as error:
            message = _system_message(error)
            if not message or "--debug" in (sys.argv[1:] if args is None else args):
                raise
            print_error(GeocflError(message))
            sys.exit(1)

    def get_params(self, ctx: Any) -> Any:
        return _without_types(super().get_params(ctx))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            _without_types(command.get_params(ctx))
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self.commands and ("://" in args[0] or Path(args[0]).exists()):
            scene = _without_secrets(args[0])
            raise UsageError(f"{scene} is not a command; to map it: geocfl map {scene}", page="tutorials/first-map/")
        name, command, rest = super().resolve_command(ctx, args)
        if command is None:
            return name, command, rest
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        warn = (lambda _: None) if ctx.resilient_parsing else _warn
        return name, command, current_spelling(joined_box(rest), known, warn)

    def invoke(self, ctx: Any) -> Any:
        # rasterio says so of every raster without a place; geocfl says it once, with what to do.
        warnings.filterwarnings("ignore", "Dataset has no geotransform")
        try:
            return super().invoke(ctx)
        except GeocflError as error:
            if ctx.params.get("debug"):
                raise
            print_error(error, _running(ctx))
            raise typer.Exit(error.exit_code) from error
        except ModuleNotFoundError as error:
            if error.name not in LEFT_OUT or ctx.params.get("debug"):
                raise
            lack = f"this command needs {error.name}, which is not installed; run: pip install geocfl"
            print_error(GeocflError(lack))
            raise typer.Exit(1) from error
        except _Misuse as error:
            error.message = _without_secrets(error.message)
            raise
        except KeyboardInterrupt as stopped:
            typer.echo("geocfl: stopped", err=True)
            raise typer.Exit(exit_code(stopped)) from None


def _system_message(error: OSError | UnicodeEncodeError) -> str:
    """The message about a file that the system refuses, or about standard output; empty if there is another cause."""
    if isinstance(error, UnicodeEncodeError):
        return f"{error.object!a}: the name is not UTF-8; rename it" if "surrogates" in error.reason else ""
    if error.errno is None or error.errno == errno.EPIPE:  # a bug, or a reader that has seen enough
        return ""
    if error.filename is not None:
        return refusal(error)
    try:
        sys.stdout.flush()
    except OSError:  # Python would try again at its end, and report that
        os.dup2(os.open(os.devnull, os.O_RDWR), sys.stdout.fileno())
    return f"standard output or a file cannot be written ({str(error.strerror).lower()}); {remedy_of(error.errno)}"


def open_standard_streams() -> None:
    """Opens closed standard streams on nothing, because the next files would get their numbers and their text."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    if sys.stdout is None:
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), encoding="utf-8")
    if sys.stderr is None:
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), encoding="utf-8")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream in (sys.__stdout__, sys.__stderr__):
            stream.reconfigure(errors="backslashreplace")  # names of files may be anything


def _few_open_files() -> str:
    """Raises a low limit of open files; the message if it stays too low, since GDAL does not say what it lacks."""
    if sys.platform == "win32":  # has no such limit
        return ""
    import resource

    limit, highest = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY or limit >= LEAST_OPEN_FILES:
        return ""
    if highest == resource.RLIM_INFINITY or highest >= LEAST_OPEN_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (LEAST_OPEN_FILES, highest))
        return ""
    return f"this process may open only {highest} files at once; raise the limit with ulimit -n {LEAST_OPEN_FILES}"


def _without_types(parameters: list[Any]) -> list[Any]:
    """Hides the ``<bool>`` of flags and the ``<str>`` of arguments from the help."""
    for parameter in parameters:
        if parameter.param_type_name == "argument":
            parameter.display_type_rich = lambda ctx: None
        elif parameter.is_flag:
            parameter.metavar = ""
    return parameters


def _print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """As Python does, but without the passwords and tokens of URLs, which messages of other libraries contain."""
    typer.echo(_without_secrets("".join(traceback.format_exception(kind, error, trace))), err=True, nl=False)


def _without_secrets(text: str) -> str:
    if not _ADDRESS.search(text):
        return text
    from geocfl.scenes.urls import without_secrets  # which loads rasterio

    return without_secrets(text)


def _warn(text: str) -> None:
    typer.echo(f"warning: {text}", err=True)


CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that a name may hold, but that would break a message into lines or change the terminal."""
PARAMETER = re.compile(r"`([a-z][a-z0-9_]*)(?:=([^`]+))?`")
"""A parameter of the Python API in a message, with or without a value."""


def as_options(message: str, command: Any = None) -> str:
    """Rewrites a message of the library for the command line: parameters become options of the running command.

    Args:
        message: Names parameters in backticks, such as ```min_area=2```.
        command: The running command; without one, each parameter becomes the option of the same name.

    Returns:
        The message with ``--min-area 2``. An argument is shown as in the help, such as ``SCENE``; a parameter that the
        command does not have loses its backticks only.
    """

    def rewritten(match: re.Match[str]) -> str:
        name, value = match.groups()
        shown = _flag(name, value) if command is None else _option_of(command, name, value)
        if not shown:
            return match.group().strip("`")
        return shown if value in {None, "True", "False"} else f"{shown} {_on_the_command_line(value)}"

    return PARAMETER.sub(rewritten, message)


def _flag(name: str, value: str | None) -> str:
    return f"--{'no-' if value == 'False' else ''}{name.replace('_', '-')}"


def _option_of(command: Any, name: str, value: str | None) -> str:
    """How a command's help calls a parameter; empty if the command does not have it."""
    flag = _flag(name, value)
    for parameter in command.params:
        if flag in parameter.opts:
            return flag
    for parameter in command.params:
        # The command line may use the singular or plural: SCENE for `scene`, --imbalance for `imbalances`.
        if parameter.name in {name, f"{name}s", name.removesuffix("s")} and value != "False":
            return str(parameter.metavar if parameter.param_type_name == "argument" else parameter.opts[0])
    return ""


def _on_the_command_line(value: str) -> str:
    """A Python value as an option takes it: ``{"B04": 1}`` as ``B04=1``, ``("lulc", "vector")`` as ``lulc,vector``."""
    try:
        parsed = ast.literal_eval(value)
    except (SyntaxError, ValueError):  # a placeholder, such as FILE
        return value
    if isinstance(parsed, dict):
        return ",".join(f"{key}={item}" for key, item in parsed.items())
    return ",".join(map(str, parsed)) if isinstance(parsed, list | tuple) else str(parsed)


def printable(message: str) -> str:
    """A message in one line without passwords, which does not change the terminal whatever names it holds."""
    return CONTROL.sub(lambda found: ascii(found.group())[1:-1], _without_secrets(message))


def printable_lines(text: str) -> str:
    """The same for a text of several lines, such as a table."""
    return "\n".join(map(printable, text.split("\n")))


def print_error(error: GeocflError, command: Any = None) -> None:
    """Prints an error on standard error, and the address of the page that explains it.

    Args:
        error: The error.
        command: The running command, whose options the message shows.
    """
    typer.echo(f"geocfl: {printable(as_options(str(error), command))}", err=True)
    if error.page:
        typer.echo(f"  see {DOCUMENTATION}{error.page}", err=True)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
    epilog=f"Documentation: {DOCUMENTATION} (offline: docs/ in the source)",
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"geocfl {geocfl.__version__}")
        raise typer.Exit


@app.callback()
def main(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error, for a bug report.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", "-V", callback=_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Land-use and land-cover maps from Sentinel-2 scenes, offline, with a built-in model or your own.

    New here? Make a map without any data:      geocfl demo
    Map a scene:                                geocfl map scene.tif
    See what a command does, with examples:     geocfl map --help
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LevelFormatter(_running(context)))
    logger = logging.getLogger("geocfl")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)


def _running(context: Any) -> Any:
    return context.command.commands.get(context.invoked_subcommand)


class _LevelFormatter(logging.Formatter):
    """Shows the level of warnings, and parameters as options of the running command."""

    def __init__(self, command: Any) -> None:
        super().__init__()
        self._command = command

    def format(self, record: logging.LogRecord) -> str:
        prefix = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        return prefix + printable(as_options(record.getMessage(), self._command))
