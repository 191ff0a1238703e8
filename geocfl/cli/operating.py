"""``geocfl status``: how runs over many scenes stand."""

from __future__ import annotations

import json
from typing import Annotated

import typer

import geocfl
from geocfl.cli import options
from geocfl.cli.entry import MAP, app, as_options, examples, printable_lines


@app.command(
    rich_help_panel=MAP,
    epilog=examples(
        ("a run that writes maps/events.jsonl", "geocfl status maps/events.jsonl"),
        ("all shards of a run, each with its own file", "geocfl status maps"),
    ),
)
def status(
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Files that geocfl map --events has written, or folders with such files (*.jsonl).",
            metavar="FOLDER|FILE",
            show_default=False,
        ),
    ],
    as_json: options.AsJson = False,
) -> None:
    """Show how runs over many scenes stand: done, failed, running, rate and time left.

    Reads what geocfl map --events writes, while a run goes on or after it.
    Several files, such as those of shards, are counted together.
    """
    found = geocfl.status(paths)
    typer.echo(json.dumps(found.to_json(), indent=2) if as_json else printable_lines(as_options(found.table())))
