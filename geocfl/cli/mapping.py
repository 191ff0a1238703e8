"""``geocfl demo``, ``map`` and ``clouds``: maps of scenes."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated, Any

import typer

import geocfl
from geocfl.cli import options, parse
from geocfl.cli.bars import bars
from geocfl.cli.entry import MAP, app, examples
from geocfl.cli.map_options import with_map_options
from geocfl.cli.options import MANY, OUTPUT, SCENE
from geocfl.cli.results import Results, described

log = logging.getLogger("geocfl")


@app.command(
    rich_help_panel=MAP,
    epilog=examples(("write a map into the folder demo", "geocfl demo")),
)
def demo(
    out: options.Out = Path("demo"),
    model: options.ModelName = "eurosat-rgb-dense",
    seed: options.Seed = 0,
    device: options.Device = "auto",
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
) -> None:
    """Map a synthetic scene, to see what geocfl does without any data.

    The map is compared with the land cover from which the scene was generated.
    """
    with bars() as shown:
        result = geocfl.demo(out, model=model, seed=seed, device=device, overwrite=overwrite, progress=shown)
    if as_json:
        names = ("cells", "agreement", "clear_cells", "clear_agreement")
        agreement = {name: getattr(result, name) for name in names}
        typer.echo(json.dumps(result.result.summary | {"synthetic": True, "truth": agreement}, indent=2))
        return
    typer.echo(described(result.result))
    typer.echo(f"  {result.scene}\n  {result.truth}\n")
    typer.echo(
        "The scene is synthetic, not a satellite image. The map matches the true class in\n"
        f"{result.agreement:.1%} of {result.cells} cells, and in {result.clear_agreement:.1%} of the "
        f"{result.clear_cells} cells that clearly belong to one class."
    )


@app.command(
    "map",
    rich_help_panel=MAP,
    epilog=examples(
        ("map a scene; open maps/scene_lulc.tif in QGIS", "geocfl map scene.tif --out maps"),
        (
            "finer cells, a QGIS project and a page for the browser",
            "geocfl map scene.tif --stride 16 --products default,project,report",
        ),
        ("a product as downloaded, with clouds masked", "geocfl map S2A_MSIL2A_20190416.SAFE.zip --mask scl"),
        (
            "part of a scene on a server; only that part is read",
            "geocfl map https://example.com/scene.tif --bbox 13.0,52.3,13.8,52.7",
        ),
        ("with your own model", "geocfl map scene.tif --model runs/mine"),
        ("many scenes, in two processes", "geocfl map 'scenes/*.tif' --workers 2"),
        ("one shard of an array job, in folders by tile", "geocfl map --list scenes.txt --shard auto --layout {mgrs}"),
    ),
)
@with_map_options
def map_scenes(
    scenes: Annotated[
        list[str] | None,
        typer.Argument(
            help="Sentinel-2 scenes: paths, URLs or quoted patterns. GeoTIFF or another raster, SAFE product or its "
            "zip, folder or files with one band each, STAC Item.",
            metavar="SCENE",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        str,
        typer.Option(
            metavar="FOLDER",
            help="Output folder, created if it does not exist, or an object store, such as s3://bucket/maps.",
        ),
    ] = "maps",
    model: options.ModelName = "eurosat-rgb-dense",
    stride: options.Stride = 64,
    overwrite: options.Overwrite = False,
    redo: Annotated[bool, typer.Option("--redo", help="Map again even what is done.")] = False,
    as_json: options.AsJson = False,
    *,
    arguments: dict[str, Any],
    no_warp: Annotated[
        bool,
        typer.Option(
            "--no-warp",
            help="Refuse a scene whose pixel size differs from the model's, instead of resampling it.",
            rich_help_panel=SCENE,
        ),
    ] = False,
    allow_no_crs: Annotated[
        bool,
        typer.Option(
            "--allow-no-crs",
            help="Map scenes without a CRS; their maps have none either.",
            rich_help_panel=SCENE,
        ),
    ] = False,
    layout: Annotated[
        str,
        typer.Option(
            metavar="FOLDERS",
            help="Folders for the maps below the output folder, such as {mgrs}/{year}.",
            show_default="none",
            rich_help_panel=OUTPUT,
        ),
    ] = "",
    datetime: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Acquisition time for the STAC Item, such as 2019-04-16T10:00Z.",
            show_default="from the scene",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Dask processes on this machine that share the scenes.",
            show_default="0, no extra process",
            min=0,
            rich_help_panel=MANY,
        ),
    ] = 0,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Address of a Dask scheduler to map the scenes, such as tcp://10.0.0.1:8786.",
            show_default="none",
            rich_help_panel=MANY,
        ),
    ] = None,
    retries: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Number of times a scene is mapped again if its server fails; with Dask, after any failure.",
            min=0,
            rich_help_panel=MANY,
        ),
    ] = 2,
    work: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder that all machines see, or an object store, for what is unfinished: other machines resume from "
            "it if this one is lost.",
            show_default="none",
            rich_help_panel=MANY,
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Map only shard I of N, from 0; auto asks Slurm, Kubernetes or AWS Batch. Then run geocfl catalog.",
            show_default="all scenes",
            rich_help_panel=MANY,
        ),
    ] = None,
    events: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Add a line of JSON to FILE whenever a scene is done or fails (- prints it); geocfl status reads it.",
            show_default="none",
            rich_help_panel=MANY,
        ),
    ] = None,
    retry_failed: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Map only the scenes that failed according to FILE, written by --events, which names them.",
            show_default="all scenes",
            rich_help_panel=MANY,
        ),
    ] = None,
    max_failed: Annotated[
        float | None,
        typer.Option(
            metavar="FRACTION",
            help="Stop once more than this fraction of the scenes has failed (0-1), of at least ten.",
            show_default="none",
            rich_help_panel=MANY,
        ),
    ] = None,
) -> None:
    """Map the land cover of Sentinel-2 scenes: rasters, polygons, styles and areas.

    Each 64 x 64 pixel window gets one of the model's classes and a confidence.
    The built-in model has ten classes, from annual crop to sea and lake.
    Rerun an interrupted command to resume it.
    """
    from geocfl.scenes.collect import is_pattern
    from geocfl.scenes.formats.folder import group_files
    from geocfl.scenes.urls import shown as without_tokens

    named = scenes or []
    others = arguments["list_file"] or arguments["stac_items"] or retry_failed
    one = without_tokens(str(named[0] if named else others or ""))
    what = f"{len(named)} scenes" if len(named) > 1 else one
    if what:  # at once, because loading the model takes seconds
        log.info("mapping %s into %s with the model %s", what, out, model)
    several = bool(others or shard) or len(group_files(named)) != 1 or is_pattern(named[0])
    with bars() as shown, Results(shown, several=several, as_json=as_json, quiet=events == "-") as results:
        for path, result in geocfl.map_scenes(
            named,
            out,
            workers=workers,
            scheduler=scheduler,
            retries=retries,
            work=work or None,
            layout=layout,
            shard=parse.shard(shard),
            events=events or None,
            retry_failed=retry_failed or None,
            max_failed=max_failed,
            model=model,
            stride=stride,
            overwrite=overwrite,
            redo=redo,
            datetime=datetime or None,
            warp=not no_warp,
            allow_no_crs=allow_no_crs,
            progress=shown,
            **arguments,
        ):
            results.add(path, result)
    results.finish()


@app.command(
    rich_help_panel=MAP,
    epilog=examples(
        ("find the clouds", "geocfl clouds scene.tif --out clouds.tif"),
        ("then mask them in the map", "geocfl map scene.tif --mask clouds.tif"),
    ),
)
def clouds(
    scene: Annotated[
        str, typer.Argument(help="A scene, as for geocfl map, with the bands B02, B03, B04 and B08.", metavar="SCENE")
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="Output mask (GeoTIFF) for geocfl map --mask: 1 is cloud, 2 is cloud shadow."
        ),
    ],
    overwrite: options.Overwrite = False,
    bands: options.SceneBands = None,
    scale: options.SceneScale = None,
    offset: options.SceneOffset = None,
    nodata: options.SceneNodata = None,
    buffer: Annotated[int, typer.Option(metavar="N", help="Mask clouds with a margin of N pixels of 30 m.", min=0)] = 4,
) -> None:
    """Detect clouds and cloud shadows in a scene without a cloud mask.

    Use it for L1C products and other scenes without a scene classification.
    L2A products include one: use geocfl map --mask scl instead.
    Needs two more packages: pip install ukis-csmask onnxruntime
    """
    with bars() as shown:
        mask = geocfl.find_clouds(
            scene,
            out,
            bands=parse.bands(bands),
            scale=scale,
            offset=offset,
            nodata=nodata,
            buffer=buffer,
            overwrite=overwrite,
            progress=shown,
        )
    typer.echo(mask)
