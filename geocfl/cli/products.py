"""``geocfl stats`` and ``mosaic``: what finished maps are good for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

import geocfl
from geocfl.cli import completion, options, parse
from geocfl.cli.bars import bars
from geocfl.cli.completion import some_of
from geocfl.cli.entry import USE, app, examples
from geocfl.cli.options import REGIONS


@app.command(
    rich_help_panel=USE,
    epilog=examples(
        (
            "hectares of each class in each district, as a table",
            "geocfl stats maps/scene_lulc.tif --zones districts.gpkg --by name",
        ),
        (
            "likewise, with the districts' polygons, for QGIS",
            "geocfl stats maps/scene_lulc.tif --zones districts.gpkg --out areas.gpkg",
        ),
    ),
)
def stats(
    map_file: Annotated[Path, typer.Argument(help="A map's class raster, NAME_lulc.tif.", metavar="MAP")],
    zones: Annotated[
        Path,
        typer.Option(metavar="FILE", help="Polygons, in any format that GDAL reads and any coordinate system."),
    ],
    by: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD",
            help="Field that names the zones; polygons of one name are one.",
            show_default="each polygon is a zone",
        ),
    ] = None,
    layer: Annotated[
        str | None, typer.Option(metavar="NAME", help="Layer of the zones, where their file has several.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Table to write: .csv, or .gpkg with the polygons.", show_default="none"),
    ] = None,
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
) -> None:
    """Count the hectares of each class in each zone, such as districts or parcels."""
    with bars() as shown:
        table = geocfl.stats(map_file, zones, by=by, layer=layer, out=out, overwrite=overwrite, progress=shown)
    typer.echo(table.frame().to_json(orient="records", indent=2) if as_json else table.table())
    if out and not as_json:
        typer.echo(f"\n  {out}")


@app.command(
    rich_help_panel=USE,
    epilog=examples(
        ("all maps of a folder as one raster", "geocfl mosaic maps --out all_lulc.tif"),
        (
            "with polygons; patterns in quotes may be as long as they like",
            "geocfl mosaic 'maps/*_lulc.tif' --out all_lulc.tif --vector gpkg",
        ),
        ("a small file that refers to the maps", "geocfl mosaic maps --out maps/all_lulc.vrt"),
        (
            "a map for each district, cut at its border, in the folder districts",
            "geocfl mosaic maps --out districts --regions districts.gpkg --by name",
        ),
    ),
)
def mosaic(
    maps: Annotated[
        list[str],
        typer.Argument(
            help="Maps, as folders, class rasters (NAME_lulc.tif) or patterns in quotes; their confidences lie beside "
            "them.",
            metavar="MAP",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE|FOLDER",
            help="NAME_lulc.tif, where the most confident cell wins; or NAME_lulc.vrt, which refers to the maps; or, "
            "with --regions, a folder.",
        ),
    ],
    crs: Annotated[
        str | None,
        typer.Option(metavar="CRS", help="Its coordinate system, such as EPSG:32633.", show_default="the first map's"),
    ] = None,
    vector: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Formats of polygons to write too, separated by commas: gpkg, geoparquet, flatgeobuf, geojson; or "
            "none.",
            autocompletion=some_of(completion.VECTOR_FORMATS),
        ),
    ] = "none",
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
    regions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Polygons that each get a map of their own, cut at their borders.",
            show_default="none",
            rich_help_panel=REGIONS,
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD",
            help="Field that names the regions, and their maps; polygons of one name are one.",
            rich_help_panel=REGIONS,
        ),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Layer of the regions, where their file has several.", rich_help_panel=REGIONS
        ),
    ] = None,
) -> None:
    """Make one map of many, over overlaps and UTM zones; or one for each region."""
    with bars() as shown:
        made = geocfl.mosaic(
            maps,
            out,
            crs=crs,
            vector=parse.vector_formats(vector),
            regions=regions,
            by=by,
            layer=layer,
            overwrite=overwrite,
            progress=shown,
        )
    if as_json:
        typer.echo(json.dumps(made.classes if regions else made.classes[""], indent=2))
        return
    typer.echo(made.table() + "\n")
    for file in made.paths:
        typer.echo(f"  {file}")
