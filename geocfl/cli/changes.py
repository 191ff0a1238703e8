"""``geocfl change`` and ``compare-maps``: a finished map and another one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

import geocfl
from geocfl.cli import options, parse
from geocfl.cli.bars import bars
from geocfl.cli.entry import USE, app, examples

PROBABILITY = "Probability of change"


@app.command(
    rich_help_panel=USE,
    epilog=examples(
        (
            "what changed between two dates",
            "geocfl change maps/t2021_lulc.tif maps/t2023_lulc.tif --out t_change.tif",
        ),
        (
            "no town turns into forest; each folder has one map",
            "geocfl change 2021 2023 --out t_change.tif --forbid 'Residential>Forest'",
        ),
    ),
)
def change(
    before: Annotated[
        Path,
        typer.Argument(help="The earlier map: its class raster, NAME_lulc.tif, or a folder with one map.", metavar="A"),
    ],
    after: Annotated[Path, typer.Argument(help="The later map of the same place, with the same classes.", metavar="B")],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Output: NAME_change.tif; table, polygons, QGIS project and report are written beside it.",
        ),
    ],
    forbid: Annotated[
        list[str] | None,
        typer.Option(
            metavar="'A>B'",
            help="An impossible transition; its cells get the most probable other pair of classes. Repeat for several.",
            show_default="none",
        ),
    ] = None,
    min_area: Annotated[
        float, typer.Option(metavar="HECTARES", help="Leave out smaller polygons; raster and table keep all.")
    ] = 0.0,
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
    persistence: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            help="Prior probability that a cell keeps its class.",
            show_default="0.9",
            rich_help_panel=PROBABILITY,
        ),
    ] = None,
    prior: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Prior of all transitions: the table of another change map, NAME_change.csv.",
            show_default="none",
            rich_help_panel=PROBABILITY,
        ),
    ] = None,
) -> None:
    """Compare two maps of a place: from-to raster, hectares, polygons, probability."""
    with bars() as shown:
        made = geocfl.change(
            before,
            after,
            out,
            forbid=parse.transitions(forbid),
            persistence=persistence,
            prior=prior,
            min_area=min_area,
            overwrite=overwrite,
            progress=shown,
        )
    if as_json:
        typer.echo(json.dumps(made.summary, indent=2))
        return
    typer.echo(made.table() + "\n")
    for file in made.paths.values():
        typer.echo(f"  {file}")
    if made.already_done:
        typer.echo("\nalready done")


@app.command(
    rich_help_panel=USE,
    epilog=examples(
        (
            "agreement with ESA WorldCover, class by class",
            "geocfl compare-maps maps/scene_lulc.tif wc.tif --legend worldcover.csv",
        ),
    ),
)
def compare_maps(
    map_file: options.MapFile,
    other: Annotated[
        Path, typer.Argument(help="A raster of other class codes, one band of bytes, in any CRS.", metavar="OTHER")
    ],
    legend: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Crosswalk: CSV with the columns code, name and class, which names the map's classes, separated by ;.",
        ),
    ],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Output table: .csv.", show_default="none")] = None,
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
) -> None:
    """Compare a map with one of other classes, such as ESA WorldCover."""
    with bars() as shown:
        made = geocfl.compare_maps(map_file, other, legend, out=out, overwrite=overwrite, progress=shown)
    typer.echo(made.frame().to_json(orient="records", indent=2) if as_json else made.table())
    if out and not as_json:
        typer.echo(f"\n  {out}")
