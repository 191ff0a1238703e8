"""``geocfl plan``: time and size of a run over many scenes."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

import geocfl
from geocfl.cli import options
from geocfl.cli.bars import bars
from geocfl.cli.entry import MAP, app, as_options, examples
from geocfl.cli.map_options import with_map_options
from geocfl.cli.options import SCENE

PLAN = "Assumptions and prices"


@app.command(
    rich_help_panel=MAP,
    epilog=examples(
        ("these scenes, on this machine", "geocfl plan 'scenes/*.tif'"),
        (
            "finer cells, on ten machines that each read 100 MB/s",
            "geocfl plan --list scenes.txt --stride 16 --machines 10 --read-rate 100",
        ),
        ("all land: about 20,000 tiles like this one", "geocfl plan tile.tif --tiles 20000 --machines 100"),
        ("their price, at four dates a tile", "geocfl plan tile.tif --tiles 20000 --dates 4 --price-hour 0.1"),
    ),
)
@with_map_options
def plan(
    scenes: Annotated[
        list[str] | None,
        typer.Argument(
            help="Scenes, as for geocfl map; without any, a synthetic scene is measured.",
            metavar="SCENE",
            show_default=False,
        ),
    ] = None,
    tiles: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Plan for this number of similar scenes. All land is about 20,000 tiles.",
            show_default="number of scenes",
            min=1,
        ),
    ] = None,
    machines: Annotated[
        int, typer.Option(metavar="N", help="Number of machines like this one to share the scenes.", min=1)
    ] = 1,
    read_rate: Annotated[
        float | None,
        typer.Option(
            metavar="MB/S",
            help="Rate at which each machine receives files, in megabytes per second.",
            show_default="as measured",
        ),
    ] = None,
    dates: Annotated[
        int, typer.Option(metavar="N", help="Number of dates of each scene.", min=1, rich_help_panel=PLAN)
    ] = 1,
    cloud_share: Annotated[
        float,
        typer.Option(
            metavar="SHARE", help="Share of the ground that clouds hide, 0 to 1.", min=0, max=1, rich_help_panel=PLAN
        ),
    ] = 0.0,
    retry_share: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="Share of the scenes that are mapped twice, 0 to 1.",
            min=0,
            max=1,
            rich_help_panel=PLAN,
        ),
    ] = 0.0,
    price_hour: Annotated[
        float | None,
        typer.Option(
            metavar="PRICE",
            help="Price of a machine for an hour.",
            show_default="none",
            min=0,
            rich_help_panel=PLAN,
        ),
    ] = None,
    events: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Events of an earlier run, or their folder, to compare the plan with.",
            show_default="none",
            rich_help_panel=PLAN,
        ),
    ] = None,
    model: options.ModelName = "eurosat-rgb-dense",
    stride: options.Stride = 64,
    as_json: options.AsJson = False,
    *,
    arguments: dict[str, Any],
    allow_no_crs: Annotated[
        bool,
        typer.Option("--allow-no-crs", help="Plan for scenes without a CRS.", rich_help_panel=SCENE),
    ] = False,
) -> None:
    """Estimate how long geocfl map takes for many scenes, and how much it reads and writes.

    Takes seconds: it measures parts of up to three scenes and leaves no files
    behind. Options shared with geocfl map have the same meaning.
    """
    with bars() as shown:
        planned = geocfl.plan(
            scenes or [],
            tiles=tiles,
            machines=machines,
            read_rate=read_rate,
            dates=dates,
            cloud_share=cloud_share,
            retry_share=retry_share,
            price_hour=price_hour,
            events=events or None,
            model=model,
            stride=stride,
            allow_no_crs=allow_no_crs,
            progress=shown,
            **arguments,
        )
    typer.echo(json.dumps(planned.to_json(), indent=2) if as_json else as_options(planned.table()))
