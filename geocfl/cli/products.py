"""``geocfl stats``, ``mosaic`` and ``catalog``: statistics, mosaics and catalogs of finished maps."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated

import typer

import geocfl
from geocfl.cli import completion, options, parse
from geocfl.cli.bars import bars
from geocfl.cli.completion import one_of, some_of
from geocfl.cli.entry import USE, app, examples, printable_lines
from geocfl.cli.options import REGIONS

log = logging.getLogger("geocfl")


@app.command(
    rich_help_panel=USE,
    epilog=examples(
        (
            "hectares of each class in each district, as a table",
            "geocfl stats maps/scene_lulc.tif --zones districts.gpkg --by name",
        ),
        (
            "the same with the districts' polygons, for QGIS",
            "geocfl stats maps/scene_lulc.tif --zones districts.gpkg --out areas.gpkg",
        ),
    ),
)
def stats(
    map_file: options.MapFile,
    zones: Annotated[
        Path,
        typer.Option(metavar="FILE", help="Polygons, in any vector format and CRS."),
    ],
    by: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD",
            help="Field with the zone names; polygons with the same name form one zone.",
            show_default="one zone per polygon",
        ),
    ] = None,
    layer: Annotated[str | None, typer.Option(metavar="NAME", help="Layer to read, if the file has several.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Output table: .csv, or .gpkg with the polygons.", show_default="none"),
    ] = None,
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
) -> None:
    """Sum the area of each class in each zone, such as districts or parcels."""
    with bars() as shown:
        table = geocfl.stats(map_file, zones, by=by, layer=layer, out=out, overwrite=overwrite, progress=shown)
    typer.echo(table.frame().to_json(orient="records", indent=2) if as_json else printable_lines(table.table()))
    if out and not as_json:
        typer.echo(f"\n  {out}")


@app.command(
    rich_help_panel=USE,
    epilog=examples(
        ("all maps of a folder in one raster", "geocfl mosaic maps --out all_lulc.tif"),
        (
            "with polygons, from a quoted pattern",
            "geocfl mosaic 'maps/*_lulc.tif' --out all_lulc.tif --vector gpkg",
        ),
        (
            "several dates of a place, of which maps have probabilities",
            "geocfl mosaic dates --out all_lulc.tif --overlap fuse",
        ),
        ("the same after maps were added or changed", "geocfl mosaic maps --out all_lulc.tif --update"),
        ("a small file that references the maps", "geocfl mosaic maps --out maps/all_lulc.vrt"),
        (
            "one map per district, cut at its border",
            "geocfl mosaic maps --out districts --regions districts.gpkg --by name",
        ),
        ("one map per 100 km square, from and to a store", "geocfl mosaic s3://b/maps --out s3://b/tiles --grid mgrs"),
    ),
)
def mosaic(
    maps: Annotated[
        list[str],
        typer.Argument(
            help="Maps: folders, class rasters (NAME_lulc.tif) or quoted patterns.",
            metavar="MAP",
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            metavar="FILE|FOLDER",
            help="Output: NAME_lulc.tif, a new map; NAME_lulc.vrt, which only references the maps; or, with "
            "--regions or --grid, a folder.",
        ),
    ],
    overlap: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What counts where maps overlap: confidence (the surest), newest, mode (the class of most maps), or "
            "fuse (their probabilities together).",
            autocompletion=one_of(("confidence", "newest", "mode", "fuse")),
        ),
    ] = "confidence",
    crs: Annotated[
        str | None,
        typer.Option(
            metavar="CRS",
            help="CRS of the mosaic, such as EPSG:32633.",
            show_default="from the first map",
        ),
    ] = None,
    vector: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Polygon formats to add, separated by commas: gpkg, geoparquet, flatgeobuf, geojson; or none.",
            autocompletion=some_of(completion.VECTOR_FORMATS),
        ),
    ] = "none",
    update: Annotated[
        bool,
        typer.Option(
            "--update",
            help="Update existing mosaics: paste again only where maps were added, changed or removed.",
        ),
    ] = False,
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
    regions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Polygons, in any vector format and CRS: write one map per polygon, cut at its border.",
            show_default="none",
            rich_help_panel=REGIONS,
        ),
    ] = None,
    grid: Annotated[
        str | None,
        typer.Option(
            metavar="mgrs|FILE",
            help="Write one map per tile, with STAC Items and a catalog: mgrs, the 100 km squares of MGRS; or polygons "
            "named by --by.",
            show_default="none",
            rich_help_panel=REGIONS,
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Processes that make tiles in parallel.", rich_help_panel=REGIONS),
    ] = 1,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD",
            help="Field with the names of regions or tiles, and of their maps; polygons with the same name form one.",
            rich_help_panel=REGIONS,
        ),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Layer to read, if the file has several.", rich_help_panel=REGIONS),
    ] = None,
) -> None:
    """Merge maps across overlaps and UTM zones, into one map or one per region or tile."""
    with bars() as shown:
        made = geocfl.mosaic(
            maps,
            out,
            overlap=overlap,
            crs=crs,
            vector=parse.vector_formats(vector),
            regions=regions,
            by=by,
            layer=layer,
            grid=grid,
            workers=workers,
            update=update,
            overwrite=overwrite,
            progress=shown,
        )
    if as_json:
        typer.echo(json.dumps(made.classes if regions or grid else made.classes[""], indent=2))
        return
    typer.echo(printable_lines(made.table()) + "\n")
    for file in made.paths:
        typer.echo(f"  {file}")


@app.command(
    rich_help_panel=USE,
    epilog=examples(
        ("after the last shard of a run over many scenes", "geocfl catalog maps"),
        ("in an object store, with a table of all maps", "geocfl catalog s3://bucket/maps --parquet"),
    ),
)
def catalog(
    folder: Annotated[
        str, typer.Argument(help="A folder with maps, or its address in an object store.", metavar="FOLDER")
    ],
    parquet: Annotated[
        bool, typer.Option("--parquet", help="Write catalog.parquet too, a table of all maps (stac-geoparquet).")
    ] = False,
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
) -> None:
    """Write a STAC catalog and Collection of the finished maps in a folder.

    geocfl map writes them after many scenes, but not with --shard.
    """
    made = geocfl.write_catalog(folder, parquet=parquet, overwrite=overwrite)
    if as_json:
        facts = {"catalog": str(made.path), "maps": made.maps, "undated": made.undated}
        typer.echo(json.dumps(facts, indent=2))
        return
    typer.echo(f"{made.path}: {len(made.maps):,} map{'' if len(made.maps) == 1 else 's'}")
    if made.undated:
        log.warning(
            "%s lacks %d of the maps, such as %s, because nothing says when their scenes were taken; map these scenes "
            "again with geocfl map --datetime",
            made.path.name,
            len(made.undated),
            made.undated[0],
        )
