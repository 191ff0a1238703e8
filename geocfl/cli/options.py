"""Arguments and options that several commands share, so that they are named and explained alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from geocfl.cli import completion
from geocfl.cli.completion import a_model, one_of, some_of

SCENE, PRODUCTS, SPEED, REGIONS, MANY = "Scene", "Products", "Speed and memory", "Regions", "Many scenes"
DATA, NETWORK, TRAINING, TEACHER = "Data", "Network", "Training", "Learning from another model"
"""Panels of a command's help; options that belong to none are those of every command."""

Out = Annotated[Path, typer.Option(metavar="FOLDER", help="Folder to write into; made where it is missing.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", metavar="", help="Replace earlier outputs in the way.")]
AsJson = Annotated[bool, typer.Option("--json", metavar="", help="Print the result as JSON, for programs.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Number that all chance follows from; the same, the same result.")]
ModelName = Annotated[
    str,
    typer.Option(
        metavar="MODEL",
        help="Model to map with: the name of one that comes with geocfl, or the folder of one that you trained.",
        autocompletion=a_model,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Where to compute: auto (a GPU where there is one), cpu, cuda, cuda:N or mps.",
        autocompletion=one_of(completion.DEVICES),
        rich_help_panel=SPEED,
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Windows classified at a time.",
        show_default="32 on a CPU, 256 on a GPU",
        rich_help_panel=SPEED,
    ),
]
Backend = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Library that classifies: openvino, onnx or torch; auto is torch on a GPU, else the fastest installed.",
        autocompletion=one_of(completion.BACKENDS),
        rich_help_panel=SPEED,
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Numbers to compute with: float32, bfloat16 or float16; auto is the fastest that keeps the map.",
        autocompletion=one_of(completion.PRECISIONS),
        rich_help_panel=SPEED,
    ),
]
PatchPrecision = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Numbers to compute with: float32, bfloat16 or float16 (GPUs only).",
        autocompletion=one_of(completion.PRECISIONS[1:]),
        rich_help_panel=SPEED,
    ),
]
Tta = Annotated[
    int | None,
    typer.Option(
        metavar="1|2|4|8",
        help="Test-time augmentation: average over N flips and rotations; N times slower.",
        show_default="1",
        rich_help_panel=SPEED,
    ),
]
Stride = Annotated[
    int,
    typer.Option(
        metavar="PIXELS",
        help="Side of a map cell, 1 to 64 pixels: of 10 m each, 64 makes cells of 640 m. Half of it takes four times "
        "as long.",
        min=1,
        max=64,
    ),
]
SceneBands = Annotated[
    str,
    typer.Option(
        metavar="BAND=N,...",
        help="Which band is which where the scene does not say, such as B04=3,B03=2,B02=1.",
        show_default="what the scene says",
        rich_help_panel=SCENE,
    ),
]
SceneScale = Annotated[
    float | None,
    typer.Option(
        metavar="NUMBER",
        help="Of the pixel values: reflectance = (value + offset) / scale. 10000 for Sentinel-2 products.",
        show_default="what the scene says",
        rich_help_panel=SCENE,
    ),
]
SceneOffset = Annotated[
    float | None,
    typer.Option(
        metavar="NUMBER",
        help="Likewise; -1000 for products of processing baseline 04.00 (2022) and later.",
        show_default="what the scene says",
        rich_help_panel=SCENE,
    ),
]
Bbox = Annotated[
    str,
    typer.Option(
        metavar="W,S,E,N",
        help="Map this part alone: west, south, east, north in degrees.",
        rich_help_panel=SCENE,
    ),
]
Aoi = Annotated[
    str,
    typer.Option(
        metavar="FILE",
        help="Map what these polygons cover alone; any vector format and coordinate system.",
        rich_help_panel=SCENE,
    ),
]
Mask = Annotated[
    str,
    typer.Option(
        metavar="scl|FILE",
        help="Leave out clouds: scl takes the product's own classification (L2A), else a raster of masked pixels, "
        "such as geocfl clouds writes.",
        autocompletion=one_of(("scl",)),
        rich_help_panel=SCENE,
    ),
]
MaskClasses = Annotated[
    str,
    typer.Option(
        metavar="N,N,...",
        help="Values of the mask that are left out.",
        show_default="scl: 1,3,8,9,10; else all but 0",
        rich_help_panel=SCENE,
    ),
]
MaxMasked = Annotated[
    float,
    typer.Option(metavar="SHARE", help="Cells of a larger masked share, 0 to 1, have no class.", rich_help_panel=SCENE),
]
ProductNames = Annotated[
    str,
    typer.Option(
        metavar="NAMES",
        help="What to write, separated by commas: lulc (the map), confidence, vector (polygons), preview, windows, "
        "probabilities, entropy, sld, truecolor, project (QGIS), report (browser), stac; default and all stand for "
        "several. A summary always comes along.",
        show_default="lulc,confidence,vector,preview",
        autocompletion=some_of(completion.PRODUCTS),
        rich_help_panel=PRODUCTS,
    ),
]
VectorNames = Annotated[
    str,
    typer.Option(
        metavar="NAMES",
        help="Formats of the polygons, separated by commas: gpkg, geoparquet, flatgeobuf, geojson; or none.",
        autocompletion=some_of(completion.VECTOR_FORMATS),
        rich_help_panel=PRODUCTS,
    ),
]
MinConfidence = Annotated[
    float,
    typer.Option(
        metavar="SHARE",
        help="Cells below this confidence, 0 to 1, are unclassified.",
        show_default="0, none",
        rich_help_panel=PRODUCTS,
    ),
]
MinArea = Annotated[
    float,
    typer.Option(
        metavar="HECTARES",
        help="Merge smaller polygons into the neighbour of the longest border.",
        show_default="0, none",
        rich_help_panel=PRODUCTS,
    ),
]
Simplify = Annotated[
    float,
    typer.Option(
        metavar="METRES",
        help="Simplify the polygons by so much; borders that they share stay shared.",
        show_default="0, not",
        rich_help_panel=PRODUCTS,
    ),
]
Memory = Annotated[
    str,
    typer.Option(
        metavar="SIZE",
        help="What each process may take, such as 2GB.",
        show_default="a quarter of what is free",
        rich_help_panel=SPEED,
    ),
]
ListFile = Annotated[
    Path | None,
    typer.Option(
        "--list",
        metavar="FILE",
        help="Text file with scenes, one a line.",
        show_default="none",
        rich_help_panel=MANY,
    ),
]
StacItems = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="STAC Items to map, as a search of a catalogue writes them (JSON); path or URL.",
        show_default="none",
        rich_help_panel=MANY,
    ),
]

Data = Annotated[
    str,
    typer.Option(
        metavar="PATH",
        help="Labelled patches: EuroSAT.zip or its folder, torchgeo's EuroSAT folder, a folder that has a folder of "
        "patches for each class, or 'eurosat' to download that.",
        rich_help_panel=DATA,
    ),
]
SplitName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="How patches are parted into training and test: paper (half of each class), spatial (by place), or "
        "random:SHARE.",
        show_default="paper",
        autocompletion=one_of(completion.SPLITS),
        rich_help_panel=DATA,
    ),
]
ClassOrder = Annotated[
    str | None,
    typer.Option(
        metavar="ORDER",
        help="Which classes the imbalance leaves large: legend, reversed, random, or codes such as 3,1,2.",
        show_default="legend",
        autocompletion=one_of(completion.CLASS_ORDERS),
        rich_help_panel=DATA,
    ),
]
PatchBands = Annotated[
    str | None,
    typer.Option(
        metavar="BANDS",
        help="Bands that the network reads: rgb, all, or names such as B04,B03,B02,B08.",
        show_default="rgb",
        autocompletion=one_of(completion.BANDS),
        rich_help_panel=DATA,
    ),
]
PatchScale = Annotated[
    float | None,
    typer.Option(
        metavar="NUMBER",
        help="Of the pixel values: reflectance = (value + offset) / scale.",
        show_default="the data's own",
        rich_help_panel=DATA,
    ),
]
PatchOffset = Annotated[
    float | None,
    typer.Option(metavar="NUMBER", help="Likewise.", show_default="the data's own", rich_help_panel=DATA),
]
SkipBad = Annotated[
    bool | None,
    typer.Option(
        "--skip-bad",
        metavar="",
        help="Leave out patches that cannot be read or are unlike the others, and list them.",
        rich_help_panel=DATA,
    ),
]
BackboneName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Network: resnet18, resnet34, resnet50 or lite0, the fastest on a CPU.",
        show_default="resnet18",
        autocompletion=one_of(completion.BACKBONES),
        rich_help_panel=NETWORK,
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="What the network starts from: imagenet, a name of torchgeo's, a local file, or none.",
        show_default="the backbone's",
        autocompletion=one_of(completion.WEIGHTS),
        rich_help_panel=NETWORK,
    ),
]
Freeze = Annotated[
    bool | None,
    typer.Option(
        "--freeze",
        metavar="",
        help="Train the last layer alone: minutes on a CPU instead of hours, some accuracy less.",
        rich_help_panel=NETWORK,
    ),
]
InputSize = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        help="Side that patches are scaled to.",
        show_default="the backbone's",
        rich_help_panel=NETWORK,
    ),
]
Gamma = Annotated[
    float | None,
    typer.Option(
        metavar="NUMBER",
        help="How much a focal loss turns to patches that are still hard; 0 not at all.",
        show_default="the loss's",
        rich_help_panel=TRAINING,
    ),
]
CflForm = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Where the class focal loss has the classes' shares: exponent or factor.",
        show_default="exponent",
        autocompletion=one_of(completion.CFL_FORMS),
        rich_help_panel=TRAINING,
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Passes over the training patches.", show_default="the recipe's", rich_help_panel=TRAINING
    ),
]
StepSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        metavar="N",
        help="Patches in a training step.",
        show_default="the recipe's",
        rich_help_panel=TRAINING,
    ),
]
LearningRate = Annotated[
    float | None,
    typer.Option(metavar="NUMBER", help="Peak learning rate.", show_default="the recipe's", rich_help_panel=TRAINING),
]
Compile = Annotated[
    bool | None,
    typer.Option(
        "--compile",
        metavar="",
        help="Compile the network first; pays off in trainings of hours.",
        rich_help_panel=TRAINING,
    ),
]
