"""``geocfl sample`` and ``assess``: accuracy and areas of a map, from a sample that a person has answered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

import geocfl
from geocfl.cli import completion, options, parse
from geocfl.cli.bars import bars
from geocfl.cli.completion import one_of
from geocfl.cli.entry import USE, app, examples

STRATA = "Strata"


@app.command(
    rich_help_panel=USE,
    epilog=examples(
        (
            "as many points as give the accuracy with a standard error of 0.02",
            "geocfl sample maps/scene_lulc.tif --target-se 0.02 --expected-ua 0.8",
        ),
        (
            "300 points, at least 30 in each class",
            "geocfl sample maps/scene_lulc.tif --size 300 --allocation rare:30",
        ),
    ),
)
def sample(
    map_file: options.MapFile,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="GeoPackage to write; a QGIS project is written beside it.")
    ] = Path("sample.gpkg"),
    size: Annotated[
        int | None, typer.Option(metavar="N", help="Number of points.", show_default="from --target-se")
    ] = None,
    target_se: Annotated[
        float | None,
        typer.Option(
            metavar="FRACTION",
            help="Standard error of the overall accuracy, from which the number of points is computed, such as 0.02.",
            show_default="none",
        ),
    ] = None,
    expected_ua: Annotated[
        str | None,
        typer.Option(
            metavar="FRACTION",
            help="Expected user's accuracy: 0.8 for all classes, or Forest=0.9,River=0.7,... for each.",
            show_default="the model's user's accuracies on its test patches",
        ),
    ] = None,
    design: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Design: stratified (random within strata), simple (random) or systematic (a grid).",
            autocompletion=one_of(completion.DESIGNS),
        ),
    ] = "stratified",
    min_distance: Annotated[float, typer.Option(metavar="METERS", help="Smallest distance between two points.")] = 0.0,
    seed: options.Seed = 0,
    csv: Annotated[bool, typer.Option("--csv", help="Write the points as CSV too, such as for Collect Earth.")] = False,
    kml: Annotated[bool, typer.Option("--kml", help="Write the points as KML too, for Google Earth.")] = False,
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
    allocation: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Points of each stratum: proportional to its area, equal, neyman (more where errors are expected), or "
            "rare:MIN (proportional, but at least MIN).",
            autocompletion=one_of(completion.ALLOCATIONS),
            rich_help_panel=STRATA,
        ),
    ] = "proportional",
    strata: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Raster of whole numbers, or polygons, that form the strata.",
            show_default="the map's classes",
            rich_help_panel=STRATA,
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(metavar="FIELD", help="Field that names the polygons of the strata.", rich_help_panel=STRATA),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Layer of the strata, if the file has several.", rich_help_panel=STRATA),
    ] = None,
) -> None:
    """Draw a random sample of cells, to answer in QGIS and assess the map with."""
    name, at_least = parse.allocation(allocation)
    with bars() as shown:
        made = geocfl.sample(
            map_file,
            out,
            size=size,
            target_se=target_se,
            expected_ua=parse.accuracies(expected_ua),
            design=design,
            allocation=name,
            at_least=at_least,
            strata=strata,
            by=by,
            layer=layer,
            min_distance=min_distance,
            seed=seed,
            csv=csv,
            kml=kml,
            overwrite=overwrite,
            progress=shown,
        )
    if as_json:
        typer.echo(made.frame().to_json(orient="records", indent=2))
        return
    typer.echo(made.table() + "\n")
    for file in made.paths:
        typer.echo(f"  {file}")


@app.command(
    rich_help_panel=USE,
    epilog=examples(
        (
            "accuracy and hectares with their intervals",
            "geocfl assess maps/scene_lulc.tif sample.gpkg",
        ),
        (
            "the same with tables and a report",
            "geocfl assess maps/scene_lulc.tif sample.gpkg --out assessment",
        ),
    ),
)
def assess(
    map_file: options.MapFile,
    sample_file: Annotated[Path, typer.Argument(help="The answered sample, from geocfl sample.", metavar="SAMPLE")],
    answers: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="CSV file with the columns id and reference: answers that replace those in the sample.",
            show_default="from the sample",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder for report.html, assessment.json and tables.", show_default="none"),
    ] = None,
    post_stratify: Annotated[
        bool,
        typer.Option(
            "--post-stratify",
            help="Read the map's classes at the points again: assesses another map than the sampled one.",
        ),
    ] = False,
    missing_at_random: Annotated[
        bool,
        typer.Option("--missing-at-random", help="Leave out points without an answer, as if chance had chosen them."),
    ] = False,
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
) -> None:
    """Estimate a map's accuracy and the area of each class from an answered sample."""
    found = geocfl.assess(
        map_file,
        sample_file,
        answers=answers,
        out=out,
        post_stratify=post_stratify,
        missing_at_random=missing_at_random,
        overwrite=overwrite,
    )
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2))
        return
    typer.echo(found.table())
    for file in found.paths:
        typer.echo(f"  {file}")
