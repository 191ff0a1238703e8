"""``geocfl similar``: cells like a given one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import geocfl
from geocfl.cli import options, parse
from geocfl.cli.entry import USE, app, examples, printable_lines


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
