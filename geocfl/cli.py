"""The command line: one command a verb; each parses, calls one function of the package and prints."""

from __future__ import annotations

import json as json_module
import logging
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import geocfl
from geocfl.errors import GeocflError


class _Commands(TyperGroup):
    """Prints a user's error as one sentence, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except GeocflError as error:
            if ctx.params.get("debug"):
                raise
            typer.echo(f"geocfl: {error}", err=True)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt:
            typer.echo("geocfl: stopped", err=True)
            raise typer.Exit(130) from None


app = typer.Typer(cls=_Commands, no_args_is_help=True, pretty_exceptions_enable=False)

Out = Annotated[Path, typer.Option(help="Folder to write into; made where it is missing.")]
Device = Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu, cuda, cuda:N or mps.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace earlier outputs that are in the way.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
ModelName = Annotated[str, typer.Option(help="A model bundle's folder or the name of a bundled model.")]
BatchSize = Annotated[
    int | None, typer.Option(help="Windows classified at a time.", show_default="32 on a CPU, 256 on a GPU")
]
Scale = Annotated[float | None, typer.Option(help="In reflectance = (DN + offset) / scale; 10000 for Sentinel-2.")]
Offset = Annotated[float | None, typer.Option(help="Likewise; -1000 for processing baseline 04.00 and later.")]
SceneBands = Annotated[
    str,
    typer.Option(help="Which band is which where the scene does not say: B04=3,B03=2,B02=1.", rich_help_panel="Scene"),
]


def _version(value: bool) -> None:
    if value:
        typer.echo(f"geocfl {geocfl.__version__}")
        raise typer.Exit


@app.callback()
def main(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Land-use / land-cover maps from Sentinel-2 scenes.

    Start with `geocfl demo`, then `geocfl map scene.tif --out maps`.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LevelFormatter())
    logger = logging.getLogger("geocfl")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)


class _LevelFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        prefix = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        return prefix + record.getMessage()


@app.command("map")
def map_command(
    scenes: Annotated[
        list[str],
        typer.Argument(
            help="Sentinel-2 scenes: GeoTIFF or another raster, SAFE product or its zip, folder or files of one band "
            "each, STAC Item; paths or URLs.",
        ),
    ],
    out: Out = Path("maps"),
    model: ModelName = "eurosat-rgb-lite0",
    stride: Annotated[
        int, typer.Option(help="Side of a map cell in pixels, 1..64; smaller is finer and slower.", min=1, max=64)
    ] = 64,
    bands: SceneBands = "",
    scale: Scale = None,
    offset: Offset = None,
    device: Device = "auto",
    backend: Annotated[
        str, typer.Option(help="auto (torch on a GPU, else the fastest that is installed), openvino, onnx or torch.")
    ] = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    batch_size: BatchSize = None,
    memory: Annotated[
        str, typer.Option(help="What the process may take, such as 2GB.", show_default="a quarter of what is free")
    ] = "",
    bbox: Annotated[
        str, typer.Option(help="Map this part alone: west,south,east,north in degrees.", rich_help_panel="Scene")
    ] = "",
    aoi: Annotated[
        str, typer.Option(help="Map what these polygons cover alone; any CRS.", rich_help_panel="Scene")
    ] = "",
    mask: Annotated[
        str,
        typer.Option(
            help="scl for clouds by the product's own classification (L2A), or a raster of masked pixels.",
            rich_help_panel="Scene",
        ),
    ] = "",
    mask_classes: Annotated[
        str,
        typer.Option(
            help="Values of the mask that count.",
            show_default="scl: 1,3,8,9,10; else all but 0",
            rich_help_panel="Scene",
        ),
    ] = "",
    max_masked: Annotated[
        float, typer.Option(help="Cells of a larger masked share, 0..1, are no data.", rich_help_panel="Scene")
    ] = 0.5,
    no_warp: Annotated[
        bool, typer.Option("--no-warp", help="Refuse scenes on another grid than the model's.", rich_help_panel="Scene")
    ] = False,
    allow_no_crs: Annotated[
        bool,
        typer.Option(
            "--allow-no-crs", help="Map scenes without CRS, to maps without a place.", rich_help_panel="Scene"
        ),
    ] = False,
    products: Annotated[
        str,
        typer.Option(
            help="What to write, separated by commas: lulc, confidence, vector, preview (the default; a summary comes "
            "with any), windows, probabilities, entropy, sld, truecolor, project, report, stac; or all.",
            rich_help_panel="Products",
        ),
    ] = "default",
    probabilities: Annotated[
        bool,
        typer.Option("--probabilities", help="Also a raster of every class's probability.", rich_help_panel="Products"),
    ] = False,
    entropy: Annotated[
        bool,
        typer.Option(
            "--entropy", help="Also a raster of how undecided each cell is, 0..1.", rich_help_panel="Products"
        ),
    ] = False,
    windows: Annotated[
        bool,
        typer.Option(
            "--windows",
            help="Also a layer of square cells in the GeoPackage, with probabilities.",
            rich_help_panel="Products",
        ),
    ] = False,
    sld: Annotated[
        bool, typer.Option("--sld", help="Also styles for GeoServer and MapServer.", rich_help_panel="Products")
    ] = False,
    vector: Annotated[
        str,
        typer.Option(
            help="Formats of the polygons, separated by commas: gpkg, geoparquet, flatgeobuf, geojson; or none.",
            rich_help_panel="Products",
        ),
    ] = "gpkg",
    min_confidence: Annotated[
        float, typer.Option(help="Cells below this confidence, 0..1, are unclassified.", rich_help_panel="Products")
    ] = 0.0,
    simplify: Annotated[
        float,
        typer.Option(
            help="Simplify the polygons by this many metres; shared borders stay shared.", rich_help_panel="Products"
        ),
    ] = 0.0,
    min_area: Annotated[
        float,
        typer.Option(
            help="Merge polygons of fewer hectares into the neighbour of the longest border.",
            rich_help_panel="Products",
        ),
    ] = 0.0,
    datetime: Annotated[
        str,
        typer.Option(
            help="When the scene was taken, such as 2019-04-16T10:00Z, for the STAC Item.",
            show_default="what the scene says",
            rich_help_panel="Products",
        ),
    ] = "",
    overwrite: Overwrite = False,
    json: AsJson = False,
) -> None:
    """Map scenes: land-cover raster, confidence, polygons, styles, preview and summary for each.

    Example: geocfl map scene.tif --out maps --stride 16 --products default,project,report
    """
    flags = {"probabilities": probabilities, "entropy": entropy, "windows": windows, "sld": sld}
    failed = None
    summaries = []
    for _, result in geocfl.map_scenes(
        scenes,
        out,
        model=model,
        stride=stride,
        bands=bands,
        scale=scale,
        offset=offset,
        device=device,
        backend=backend,
        precision=precision,
        batch_size=batch_size,
        memory=memory,
        overwrite=overwrite,
        products=",".join([products, *(name for name, wanted in flags.items() if wanted)]),
        vector=vector,
        min_confidence=min_confidence,
        simplify=simplify,
        min_area=min_area,
        datetime=datetime,
        bbox=bbox,
        aoi=aoi,
        mask=mask,
        mask_classes=mask_classes,
        max_masked=max_masked,
        warp=not no_warp,
        allow_no_crs=allow_no_crs,
    ):
        if isinstance(result, GeocflError):
            if len(scenes) == 1:
                raise result
            typer.echo(f"geocfl: {result}", err=True)
            failed = result
        elif json:
            summaries.append(result.summary)
        else:
            _print_map(result)
    if json:
        typer.echo(json_module.dumps(summaries[0] if len(scenes) == 1 else summaries, indent=2))
    if failed:
        raise typer.Exit(failed.exit_code)


def _print_map(result: Any) -> None:
    name = result.summary["scene"]["file"]
    typer.echo(f"{name}: {'already mapped, nothing to do' if result.already_done else 'mapped'}\n")
    typer.echo(result.table())
    typer.echo("")
    for file in result.paths.values():
        typer.echo(f"  {file}")


@app.command()
def clouds(
    scene: Annotated[str, typer.Argument(help="A scene, as for geocfl map; it needs B02, B03, B04 and B08.")],
    out: Annotated[Path, typer.Option(help="Mask to write, GeoTIFF: 1 cloud, 2 cloud shadow; for geocfl map --mask.")],
    bands: SceneBands = "",
    scale: Scale = None,
    offset: Offset = None,
    buffer: Annotated[int, typer.Option(help="Pixels of 30 m around clouds that are masked too.", min=0)] = 4,
    overwrite: Overwrite = False,
) -> None:
    """Find clouds and their shadows in a scene without classification layer.

    Example: geocfl clouds scene.tif --out clouds.tif
    """
    typer.echo(
        geocfl.find_clouds(scene, out, bands=bands, scale=scale, offset=offset, buffer=buffer, overwrite=overwrite)
    )


@app.command()
def stats(
    map: Annotated[Path, typer.Argument(help="A map's class raster, S_lulc.tif.")],
    zones: Annotated[Path, typer.Option(help="Polygons, in any format that GDAL reads and any coordinate system.")],
    by: Annotated[
        str | None,
        typer.Option(help="Field that names the zones; polygons of one name are one.", show_default="each polygon"),
    ] = None,
    layer: Annotated[str | None, typer.Option(help="Layer of the zones, where their file has several.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Table to write: .csv, or .gpkg with the polygons.", show_default="none")
    ] = None,
    overwrite: Overwrite = False,
    json: AsJson = False,
) -> None:
    """Count the area of each class in each zone.

    Example: geocfl stats maps/scene_lulc.tif --zones districts.gpkg --by name --out districts.csv
    """
    table = geocfl.stats(map, zones, by=by, layer=layer, out=out, overwrite=overwrite)
    typer.echo(table.frame().to_json(orient="records", indent=2) if json else table.table())
    if out and not json:
        typer.echo(f"\n  {out}")


@app.command()
def mosaic(
    maps: Annotated[list[Path], typer.Argument(help="Class rasters of maps, with their confidences beside them.")],
    out: Annotated[
        Path, typer.Option(help="X_lulc.tif, the most confident cell on top; or X_lulc.vrt, which refers to the maps.")
    ],
    crs: Annotated[
        str | None, typer.Option(help="Its coordinate system, such as EPSG:32633.", show_default="the first map's")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Make one map of many, over overlaps and UTM zones.

    Example: geocfl mosaic maps/A_lulc.tif maps/B_lulc.tif --out region_lulc.tif
    """
    for file in geocfl.mosaic(maps, out, crs=crs, overwrite=overwrite):
        typer.echo(file)


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="A model bundle's folder or the name of a bundled model.")],
    format: Annotated[
        str, typer.Option(help="onnx, torchscript, openvino, or stac-mlm, a STAC Item of the model.")
    ] = "onnx",
    out: Annotated[
        Path | None, typer.Option(help="File to write.", show_default="MODEL with the format's ending")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a model for other programs: reflectance in, calibrated probabilities out.

    Example: geocfl export eurosat-rgb-lite0 --format onnx
    """
    for file in geocfl.export(model, out, format=format, overwrite=overwrite):
        typer.echo(file)


@app.command()
def demo(
    out: Out = Path("demo"),
    model: ModelName = "eurosat-rgb-lite0",
    seed: Seed = 0,
    device: Device = "auto",
    overwrite: Overwrite = False,
    json: AsJson = False,
) -> None:
    """Map a synthetic scene with the bundled model: see what geocfl does without any data of yours.

    Example: geocfl demo --out demo
    """
    result = geocfl.demo(out, model=model, seed=seed, device=device, overwrite=overwrite)
    if json:
        names = ("cells", "agreement", "clear_cells", "clear_agreement")
        agreement = {name: getattr(result, name) for name in names}
        typer.echo(json_module.dumps(result.result.summary | {"synthetic": True, "truth": agreement}, indent=2))
        return
    _print_map(result.result)
    typer.echo(f"  {result.scene}\n  {result.truth}\n")
    typer.echo(
        "The scene is synthetic: drawn by a program, not seen by a satellite. The map agrees with what was drawn in\n"
        f"{result.agreement:.1%} of {result.cells} cells, and in {result.clear_agreement:.1%} of the "
        f"{result.clear_cells} that are clearly of one class."
    )


Data = Annotated[
    str,
    typer.Option(
        help="EuroSAT.zip or its folder, torchgeo's EuroSAT folder, a folder of class-named folders of patches, "
        "or 'eurosat' to download it through torchgeo.",
        rich_help_panel="Data",
    ),
]
SplitName = Annotated[
    str | None,
    typer.Option(
        help="paper (half of each class), spatial, or random:SHARE.", show_default="paper", rich_help_panel="Data"
    ),
]
ClassOrder = Annotated[
    str | None,
    typer.Option(
        help="Which classes the imbalance leaves large: legend, reversed, random, or codes such as 3,1,2.",
        show_default="legend",
        rich_help_panel="Data",
    ),
]
PatchBands = Annotated[
    str | None,
    typer.Option(help="rgb, all, or names such as B04,B03,B02,B08.", show_default="rgb", rich_help_panel="Data"),
]
SkipBad = Annotated[
    bool | None,
    typer.Option("--skip-bad", help="Leave out unreadable and odd patches, and list them.", rich_help_panel="Data"),
]
BackboneName = Annotated[
    str | None,
    typer.Option(help="resnet18, resnet34, resnet50 or lite0.", show_default="resnet18", rich_help_panel="Network"),
]
Weights = Annotated[
    str | None,
    typer.Option(
        help="A torchgeo weights name, imagenet, none, or a local file.",
        show_default="the backbone's",
        rich_help_panel="Network",
    ),
]
Freeze = Annotated[
    bool | None,
    typer.Option(
        "--freeze", help="Train the head alone, on cached activations: minutes on a CPU.", rich_help_panel="Network"
    ),
]
InputSize = Annotated[
    int | None,
    typer.Option(
        help="Side that patches are scaled to, pixels.", show_default="the backbone's", rich_help_panel="Network"
    ),
]
Gamma = Annotated[
    float | None,
    typer.Option(help="Focusing strength.", show_default="the loss's", rich_help_panel="Optimisation"),
]
Form = Annotated[
    str | None,
    typer.Option(
        help="exponent or factor, of the class focal loss.", show_default="exponent", rich_help_panel="Optimisation"
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(help="Passes over the training patches.", show_default="recipe's", rich_help_panel="Optimisation"),
]
StepSize = Annotated[
    int | None,
    typer.Option("--batch-size", help="Patches per step.", show_default="recipe's", rich_help_panel="Optimisation"),
]
LearningRate = Annotated[
    float | None,
    typer.Option(help="Peak learning rate.", show_default="recipe's", rich_help_panel="Optimisation"),
]
Compile = Annotated[
    bool | None,
    typer.Option("--compile", help="Compile the network first; pays off in long runs.", rich_help_panel="Optimisation"),
]


@app.command()
def train(
    out: Out,
    data: Data = "",
    config: Annotated[
        Path | None, typer.Option(help="config.json of a run to repeat; options given here go before it.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="default, or paper for the settings that the paper states.", show_default="default"),
    ] = None,
    split: SplitName = None,
    imbalance: Annotated[
        str | None,
        typer.Option(
            help="none, long-tail:R or step:R: thin the training patches to R : 1 between largest and smallest class.",
            show_default="none",
            rich_help_panel="Data",
        ),
    ] = None,
    class_order: ClassOrder = None,
    bands: PatchBands = None,
    scale: Scale = None,
    offset: Offset = None,
    skip_bad: SkipBad = None,
    backbone: BackboneName = None,
    weights: Weights = None,
    freeze: Freeze = None,
    input_size: InputSize = None,
    loss: Annotated[
        str | None,
        typer.Option(
            help="ce, weighted-ce, focal, class-focal, cb-focal, balanced-softmax, logit-adjusted or ldam.",
            show_default="class-focal",
            rich_help_panel="Optimisation",
        ),
    ] = None,
    gamma: Gamma = None,
    form: Form = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="Model bundle to learn from as well; several, separated by commas, are averaged.",
            rich_help_panel="Optimisation",
        ),
    ] = None,
    distill: Annotated[
        float | None,
        typer.Option(help="Weight of the teacher's part, 0..1.", show_default="0.9", rich_help_panel="Optimisation"),
    ] = None,
    hint: Annotated[
        float | None,
        typer.Option(
            help="Weight of looking like the teacher before the last layer.",
            show_default="2",
            rich_help_panel="Optimisation",
        ),
    ] = None,
    mixup: Annotated[
        float | None,
        typer.Option(
            help="Train on mixtures of two views, drawn from Beta(a, a).",
            show_default="0, none",
            rich_help_panel="Optimisation",
        ),
    ] = None,
    epochs: Epochs = None,
    batch_size: StepSize = None,
    lr: LearningRate = None,
    compile: Compile = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.", show_default="0")] = None,
    refit: Annotated[
        str | None, typer.Option(help="A finished run of the same settings: train on its validation patches too.")
    ] = None,
    device: Device = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint of a killed run.")] = False,
    overwrite: Overwrite = False,
    json: AsJson = False,
) -> None:
    """Train a scene classifier with the class focal loss and write its run folder.

    Example: geocfl train --data EuroSAT.zip --out runs/mine --backbone lite0 --split spatial
    """
    from geocfl.settings import parse_bands

    run = geocfl.train(
        data,
        out,
        config=config,
        device=device,
        resume=resume,
        overwrite=overwrite,
        recipe=recipe,
        split=split,
        imbalance=imbalance,
        class_order=class_order,
        bands=parse_bands(bands) if bands is not None else None,
        scale=scale,
        offset=offset,
        skip_bad=skip_bad,
        backbone=backbone,
        weights=weights,
        freeze=freeze,
        input_size=input_size,
        loss=loss,
        gamma=gamma,
        form=form,
        teacher=teacher,
        distill=distill,
        hint=hint,
        mixup=mixup,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        compile=compile,
        seed=seed,
        refit=refit,
    )
    if json:
        typer.echo(json_module.dumps(run.metrics, indent=2))
    else:
        typer.echo(run.table())


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A model bundle's folder, a run, or the name of a bundled model.")],
    data: Data,
    out: Out,
    split: Annotated[
        str,
        typer.Option(
            help="paper, spatial, random:SHARE, all, or a text file that names patches, such as RUN/test_patches.txt.",
            show_default="the model's own",
        ),
    ] = "",
    part: Annotated[str, typer.Option(help="test, validation or train.")] = "test",
    seed: Annotated[int | None, typer.Option(help="Seed of a random split.", show_default="the model's own")] = None,
    scale: Scale = None,
    offset: Offset = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out unreadable and odd patches, and list them.")
    ] = False,
    device: Device = "auto",
    batch_size: BatchSize = None,
    overwrite: Overwrite = False,
    json: AsJson = False,
) -> None:
    """Judge a model on labelled patches: accuracy, per class, calibration, figures and a report.

    Example: geocfl evaluate eurosat-rgb-lite0 --data EuroSAT.zip --split spatial --out evaluation
    """
    evaluation = geocfl.evaluate(
        model,
        data=data,
        out=out,
        split=split,
        part=part,
        seed=seed,
        scale=scale,
        offset=offset,
        skip_bad=skip_bad,
        device=device,
        batch_size=batch_size,
        overwrite=overwrite,
    )
    typer.echo(json_module.dumps(evaluation.metrics, indent=2) if json else evaluation.table())


@app.command()
def compare(
    data: Data,
    out: Out,
    losses: Annotated[str, typer.Option(help="Names of losses, separated by commas.")] = "ce,focal,class-focal",
    imbalance: Annotated[
        str, typer.Option(help="none, long-tail:R and step:R, separated by commas.", rich_help_panel="Data")
    ] = "none,long-tail:50",
    seeds: Annotated[int, typer.Option(help="Trainings of each loss under each imbalance: seeds 0, 1, ...")] = 3,
    results: Annotated[
        Path | None,
        typer.Option(help="Folder of finished cells, which are read, not trained.", show_default="OUT/cells"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how many trainings are left and, from measured steps, how long.")
    ] = False,
    split: SplitName = None,
    class_order: ClassOrder = None,
    bands: PatchBands = None,
    scale: Scale = None,
    offset: Offset = None,
    skip_bad: SkipBad = None,
    backbone: BackboneName = None,
    weights: Weights = None,
    freeze: Freeze = None,
    input_size: InputSize = None,
    gamma: Gamma = None,
    form: Form = None,
    epochs: Epochs = None,
    batch_size: StepSize = None,
    lr: LearningRate = None,
    compile: Compile = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    json: AsJson = False,
) -> None:
    """Compare losses under class imbalance: train the grid, test against cross-entropy, write the table.

    Example: geocfl compare --data EuroSAT.zip --out comparison --losses ce,class-focal --seeds 3 --freeze
    """
    from geocfl.settings import parse_bands

    grid: dict[str, Any] = {
        "losses": _names(losses),
        "imbalance": _names(imbalance),
        "seeds": seeds,
        "results": results,
        "device": device,
        "split": split,
        "class_order": class_order,
        "bands": parse_bands(bands) if bands is not None else None,
        "scale": scale,
        "offset": offset,
        "skip_bad": skip_bad,
        "backbone": backbone,
        "weights": weights,
        "freeze": freeze,
        "input_size": input_size,
        "gamma": gamma,
        "form": form,
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "compile": compile,
    }
    if dry_run:
        from geocfl.comparison import plan

        prepared = plan(data, out, **grid)
        typer.echo(json_module.dumps(asdict(prepared), indent=2) if json else prepared.table())
        return
    comparison = geocfl.compare(data, out, overwrite=overwrite, **grid)
    rows = [row.to_json() for row in comparison.rows]
    typer.echo(json_module.dumps(rows, indent=2) if json else comparison.table())


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


@app.command()
def info(
    path: Annotated[str, typer.Argument(help="A scene, a model bundle's folder, or the name of a bundled model.")],
    bands: SceneBands = "",
    scale: Scale = None,
    offset: Offset = None,
    json: AsJson = False,
) -> None:
    """Describe a scene or a model.

    Example: geocfl info scene.tif
    """
    facts = geocfl.info(path, bands=bands, scale=scale, offset=offset)
    if json:
        typer.echo(json_module.dumps(facts, indent=2))
        return
    _print_facts(facts)


def _print_facts(facts: dict[str, Any], indent: int = 0) -> None:
    width = max(len(str(name)) for name in facts)
    for name, value in facts.items():
        label = f"{' ' * indent}{str(name).replace('_', ' '):<{width}}"
        if isinstance(value, dict) and value:
            typer.echo(label.rstrip())
            _print_facts(value, indent + 2)
        else:
            text = ", ".join(str(v) for v in value) if isinstance(value, list) else str(value)
            typer.echo(f"{label}  {text or '-'}")
