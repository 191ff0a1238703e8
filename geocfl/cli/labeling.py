"""``geocfl similar`` and ``suggest``: cells like a given one, and where to label next."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import geocfl
from geocfl.cli import options, parse
from geocfl.cli.entry import LEARN, USE, app, examples, printable_lines


@app.command(
    rich_help_panel=USE,
    epilog=examples(
        ("a map with features", "geocfl map scene.tif --products default,features"),
        ("the ten cells most like the one at a point", "geocfl similar maps/scene_lulc.tif 13.4,45.8"),
        (
            "their squares for QGIS; --raster writes the similarity of all cells",
            "geocfl similar maps/scene_lulc.tif 13.4,45.8 --out similar.gpkg",
        ),
    ),
    context_settings={"ignore_unknown_options": True},  # a point may begin with a minus
)
def similar(
    map_file: options.MapFile,
    point: Annotated[
        str,
        typer.Argument(
            help="Longitude and latitude in degrees, or x and y in the map's coordinates: 13.4,45.8.", metavar="POINT"
        ),
    ],
    n: Annotated[int, typer.Option("--n", metavar="N", help="Number of cells to list.")] = 10,
    search: Annotated[
        Path | None,
        typer.Option(metavar="MAP", help="Search this map, made with the same model, instead.", show_default="MAP"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="GeoPackage of the listed cells to write.", show_default="none")
    ] = None,
    raster: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="GeoTIFF of the similarity of every cell to write.", show_default="none"),
    ] = None,
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
) -> None:
    """List the cells of a map that are most like the one at a point.

    The map needs features: geocfl map --products default,features
    """
    found = geocfl.similar(
        map_file, parse.point(point), n=n, search=search, out=out, raster=raster, overwrite=overwrite
    )
    if as_json:
        typer.echo(found.places().to_json(orient="records", indent=2))
        return
    typer.echo(printable_lines(found.table()))
    for file in found.paths:
        typer.echo(f"  {file}")


@app.command(
    rich_help_panel=LEARN,
    epilog=examples(
        ("a map with features", "geocfl map scene.tif --products default,features,truecolor"),
        ("50 windows to label in QGIS", "geocfl suggest maps/scene_lulc.tif --n 50"),
        (
            "the next round, on the map of a model that was trained on the first",
            "geocfl suggest round2/scene_lulc.tif --labeled suggest.gpkg --out 2.gpkg",
        ),
    ),
)
def suggest(
    map_file: options.MapFile,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="GeoPackage to write; a QGIS project is written beside it.")
    ] = Path("suggest.gpkg"),
    n: Annotated[int, typer.Option("--n", metavar="N", help="Number of windows.")] = 50,
    labeled: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Labels of earlier rounds, in a field reference; may be given several times.",
            show_default="none",
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="More classes for the drop-down of the form, separated by commas, such as Snow,Bare Rock.",
            show_default="none",
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
) -> None:
    """Suggest where to label next, to train a model of your own.

    Answer the windows in QGIS, then: geocfl patches, geocfl train --freeze.
    They are not a random sample: for accuracies and areas, use geocfl sample.
    """
    made = geocfl.suggest(
        map_file, out, n=n, labeled=labeled or (), classes=parse.names(classes or ""), overwrite=overwrite
    )
    if as_json:
        typer.echo(made.frame().to_json(orient="records", indent=2))
        return
    typer.echo(printable_lines(made.table()) + "\n")
    for file in made.paths:
        typer.echo(f"  {file}")
