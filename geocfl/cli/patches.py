"""``geocfl patches``: training patches from scenes and the labels that a person has drawn."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

import geocfl
from geocfl.cli import completion, options, parse
from geocfl.cli.bars import bars
from geocfl.cli.completion import one_of
from geocfl.cli.entry import LEARN, app, examples

log = logging.getLogger("geocfl")

CUT = "Patches"
"""Panel of the help."""


@app.command(
    rich_help_panel=LEARN,
    epilog=examples(
        (
            "patches from polygons, split by place in blocks of 5 km",
            "geocfl patches scene.tif labels.gpkg --by class --split blocks:5",
        ),
        ("then train your own model in minutes", "geocfl train --data patches --split manifest --freeze --out run"),
        (
            "two dates, without their clouds",
            "geocfl patches april.SAFE june.SAFE labels.gpkg --by class --mask scl",
        ),
    ),
)
def patches(
    scenes: Annotated[
        list[str],
        typer.Argument(help="Sentinel-2 scenes, as for geocfl map: paths, URLs or quoted patterns.", metavar="SCENE"),
    ],
    labels: Annotated[
        Path, typer.Argument(help="Points and polygons, in any vector format and CRS.", metavar="LABELS")
    ],
    by: Annotated[
        str, typer.Option(metavar="FIELD", help="Field of the labels with the classes: texts or whole numbers.")
    ],
    out: options.Out = Path("patches"),
    layer: Annotated[
        str | None, typer.Option(metavar="NAME", help="Layer of the labels, if the file has several.")
    ] = None,
    min_share: Annotated[
        float,
        typer.Option(
            metavar="FRACTION",
            help="Smallest part of a patch that polygons of its class cover (0-1).",
            rich_help_panel=CUT,
        ),
    ] = 0.7,
    spacing: Annotated[
        float | None,
        typer.Option(
            metavar="METERS",
            help="Distance between patches of a class in polygons; smaller gives more patches, which overlap.",
            show_default="side of a patch, 640",
            rich_help_panel=CUT,
        ),
    ] = None,
    overlap: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Where labels of different classes overlap: refuse them, or share: the one that covers more counts.",
            autocompletion=one_of(completion.OVERLAPS),
            rich_help_panel=CUT,
        ),
    ] = "refuse",
    split: Annotated[
        str | None,
        typer.Option(
            metavar="blocks:KM",
            help="Split by place: whole blocks of KM kilometers go to training, validation or test.",
            show_default="none",
            autocompletion=one_of(("blocks:5",)),
        ),
    ] = None,
    seed: options.Seed = 0,
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
    model: options.ModelName = "eurosat-rgb-dense",
    patch_bands: Annotated[
        str | None,
        typer.Option(
            metavar="BANDS",
            help="Bands to write: rgb, all, or names such as B04,B03,B02,B08.",
            show_default="from the model",
            autocompletion=one_of(completion.BANDS),
            rich_help_panel=CUT,
        ),
    ] = None,
    bands: options.SceneBands = None,
    scale: options.SceneScale = None,
    offset: options.SceneOffset = None,
    nodata: options.SceneNodata = None,
    mask: options.Mask = None,
    mask_classes: options.MaskClasses = None,
    mask_bits: options.MaskBits = None,
) -> None:
    """Cut training patches from scenes, where your points and polygons say what is there.

    A point gives the patch around it; polygons are filled with patches on a grid.
    The output folder is the --data of geocfl train. Its manifest.gpkg shows every
    patch in QGIS: its square, class, scene and date, and its part of the split.
    """
    log.info("cutting patches of %s from %s", labels, ", ".join(scenes))
    with bars() as shown:
        made = geocfl.patches(
            scenes,
            labels,
            out,
            by=by,
            layer=layer,
            model=model,
            patch_bands=parse.patch_bands(patch_bands),
            min_share=min_share,
            spacing=spacing,
            overlap=overlap,
            split=split or None,
            seed=seed,
            bands=parse.bands(bands),
            scale=scale,
            offset=offset,
            nodata=nodata,
            mask=mask or None,
            mask_classes=parse.mask_classes(mask_classes),
            mask_bits=parse.mask_bits(mask_bits),
            overwrite=overwrite,
            progress=shown,
        )
    if as_json:
        typer.echo(made.frame().to_json(orient="records", indent=2))
        return
    typer.echo(f"{made.table()}\n\n  {made.path}")
