"""``geocfl find``: scenes of a place and a period in a STAC API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

import geocfl
from geocfl.cli import completion, options, parse
from geocfl.cli.bars import bars
from geocfl.cli.completion import one_of
from geocfl.cli.entry import MAP, app, as_options, examples


@app.command(
    rich_help_panel=MAP,
    epilog=examples(
        (
            "the clearest scene of each tile in a summer",
            "geocfl find --bbox 13,45.6,13.6,46 --datetime 2022-06/2022-08",
        ),
        ("then map them, without clouds", "geocfl map --stac-items items.json --mask scl --out maps"),
        (
            "three dates of each tile of a region, newest first",
            "geocfl find --aoi region.gpkg --datetime 2022 --per-tile 3 --sort newest",
        ),
    ),
)
def find(
    datetime: Annotated[
        str,
        typer.Option(metavar="PERIOD", help="A day, month, year or period: 2022-06-01, 2022-06, 2022-06/2022-08."),
    ],
    bbox: Annotated[
        str | None,
        typer.Option(metavar="W,S,E,N", help="The ground to cover: west, south, east, north in degrees."),
    ] = None,
    aoi: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The ground to cover: polygons in any vector format and CRS."),
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="File of STAC Items to write, for geocfl map --stac-items.")
    ] = Path("items.json"),
    api: Annotated[
        str,
        typer.Option(
            metavar="NAME|URL",
            help="Catalog: earth-search, planetary-computer, copernicus, or the URL of a STAC API.",
            autocompletion=one_of(completion.CATALOGS),
        ),
    ] = "earth-search",
    collection: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Collection in the catalog.", show_default="sentinel-2-l2a in known catalogs"),
    ] = None,
    max_cloud: Annotated[
        float | None, typer.Option(metavar="PERCENT", help="Leave out scenes with more clouds than this, 0 to 100.")
    ] = None,
    per_tile: Annotated[
        int, typer.Option(metavar="N", help="Scenes to take of each tile; others are added to fill gaps.")
    ] = 1,
    sort: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Which scenes of a tile come first: cloud (the clearest) or newest.",
            autocompletion=one_of(("cloud", "newest")),
        ),
    ] = "cloud",
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
) -> None:
    """Find the Sentinel-2 scenes of a place and a period, and say what they leave uncovered."""
    with bars() as shown:
        found = geocfl.find(
            out,
            datetime=datetime,
            bbox=parse.box(bbox),
            aoi=aoi or None,
            api=api,
            collection=collection,
            max_cloud=max_cloud,
            per_tile=per_tile,
            sort=sort,
            overwrite=overwrite,
            progress=shown,
        )
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2))
        return
    typer.echo(as_options(found.table()) + f"\n\n  {found.path}")
