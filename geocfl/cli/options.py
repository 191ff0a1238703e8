"""Options that several commands share, so that they have the same names and help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from geocfl.cli import completion
from geocfl.cli.completion import a_model, one_of, some_of

SCENE, OUTPUT, SPEED, REGIONS, MANY = "Scene", "Products", "Speed and memory", "Regions and tiles", "Many scenes"
DATA, NETWORK, TRAINING, TEACHER = "Data", "Network", "Training", "Distillation"
"""Panels of a command's help; the options in none of them are listed first."""

MapFile = Annotated[
    Path, typer.Argument(help="A map's class raster, NAME_lulc.tif, or a folder with one map.", metavar="MAP")
]
Out = Annotated[Path, typer.Option(metavar="FOLDER", help="Output folder, created if it does not exist.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that already exist.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Random seed; the same seed gives the same result.")]
ModelName = Annotated[
    str,
    typer.Option(
        metavar="MODEL",
        help="Model: a built-in name or the folder of a model that you trained.",
        autocompletion=a_model,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Device: auto (a GPU if there is one), cpu, cuda, cuda:N or mps.",
        autocompletion=one_of(completion.DEVICES),
        rich_help_panel=SPEED,
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Windows per batch.",
        show_default="32 on a CPU, 256 on a GPU",
        rich_help_panel=SPEED,
    ),
]
Backend = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Inference library: openvino, onnx or torch; auto is torch on a GPU, otherwise the fastest installed.",
        autocompletion=one_of(completion.BACKENDS),
        rich_help_panel=SPEED,
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Numeric precision: float32, bfloat16 or float16; auto is the fastest on the device. Half precision "
        "changes the class of some cells (1.6% in one scene).",
        autocompletion=one_of(completion.PRECISIONS),
        rich_help_panel=SPEED,
    ),
]
PatchPrecision = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Numeric precision: float32, bfloat16 or float16 (GPUs only).",
        autocompletion=one_of(completion.PRECISIONS[1:]),
        rich_help_panel=SPEED,
    ),
]
Tta = Annotated[
    int | None,
    typer.Option(
        metavar="1|2|4|8",
        help="Test-time augmentation: average over N flips and rotations; N times slower.",
        show_default="from the model",
        rich_help_panel=SPEED,
    ),
]
Stride = Annotated[
    int,
    typer.Option(
        metavar="PIXELS",
        help="Cell size in pixels (1-64). At 10 m, 64 gives 640 m cells; halving it takes four times as long.",
        min=1,
        max=64,
    ),
]
SceneBands = Annotated[
    str | None,
    typer.Option(
        metavar="BAND=N,...",
        help="Band numbers for a scene that does not name its bands, such as B04=3,B03=2,B02=1.",
        show_default="from the scene",
        rich_help_panel=SCENE,
    ),
]
SceneScale = Annotated[
    float | None,
    typer.Option(
        metavar="NUMBER",
        help="Scale of the pixel values: reflectance = (value + offset) / scale; 10000 for Sentinel-2 products.",
        show_default="from the scene",
        rich_help_panel=SCENE,
    ),
]
SceneOffset = Annotated[
    float | None,
    typer.Option(
        metavar="NUMBER",
        help="Offset of the pixel values (see --scale); -1000 for Sentinel-2 products since baseline 04.00 (2022).",
        show_default="from the scene",
        rich_help_panel=SCENE,
    ),
]
SceneNodata = Annotated[
    float | None,
    typer.Option(
        metavar="NUMBER",
        help="Pixel value that means no data, such as -10000, in a scene that does not declare it.",
        show_default="from the scene",
        rich_help_panel=SCENE,
    ),
]
Bbox = Annotated[
    str | None,
    typer.Option(
        metavar="W,S,E,N",
        help="Map only this bounding box: west, south, east, north in degrees.",
        rich_help_panel=SCENE,
    ),
]
Aoi = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Map only the area of these polygons, in any vector format and CRS.",
        rich_help_panel=SCENE,
    ),
]
Mask = Annotated[
    str | None,
    typer.Option(
        metavar="scl|FILE",
        help="Mask clouds: scl uses the scene classification or cloud mask of a product; FILE is a mask raster, for "
        "example from geocfl clouds.",
        autocompletion=one_of(("scl",)),
        rich_help_panel=SCENE,
    ),
]
MaskClasses = Annotated[
    str | None,
    typer.Option(
        metavar="N,N,...",
        help="Mask values that count as masked.",
        show_default="SCL: 1,3,8,9,10; others: all but 0",
        rich_help_panel=SCENE,
    ),
]
MaskBits = Annotated[
    str | None,
    typer.Option(
        metavar="N,N,...",
        help="Bits of the mask's values, from 0, any of which masks a pixel, such as 1,3.",
        show_default="Fmask, QAI: 1,2,3; MG2: 1,3; QA60: 10,11",
        rich_help_panel=SCENE,
    ),
]
MaxMasked = Annotated[
    float,
    typer.Option(
        metavar="FRACTION", help="Leave a cell empty if more than this fraction is masked (0-1).", rich_help_panel=SCENE
    ),
]
ProductNames = Annotated[
    str,
    typer.Option(
        metavar="NAMES",
        help="Products, comma-separated: lulc (classes), confidence, vector (polygons), preview, windows, "
        "probabilities, entropy, novelty, valid (share), sets, features, sld, truecolor, project (QGIS), "
        "report, stac, zarr. Also: default, all (but features, zarr).",
        show_default="lulc,confidence,vector,preview",
        autocompletion=some_of(completion.PRODUCT_NAMES),
        rich_help_panel=OUTPUT,
    ),
]
VectorNames = Annotated[
    str,
    typer.Option(
        metavar="NAMES",
        help="Polygon formats, separated by commas: gpkg, geoparquet, flatgeobuf, geojson; or none.",
        autocompletion=some_of(completion.VECTOR_FORMATS),
        rich_help_panel=OUTPUT,
    ),
]
Interpolate = Annotated[
    bool,
    typer.Option(
        "--interpolate",
        help="Classify every second cell in each direction and interpolate the others: four times faster, but about a "
        "tenth of the cells get another class.",
        rich_help_panel=SPEED,
    ),
]
Smooth = Annotated[
    bool,
    typer.Option(
        "--smooth",
        help="Smooth the map: each cell gets the mean of the windows that cover it, in which sure windows count more.",
        rich_help_panel=OUTPUT,
    ),
]
SmoothKeep = Annotated[
    str | None,
    typer.Option(
        metavar="CLASSES",
        help="Classes whose cells are not smoothed, separated by commas, such as Highway,River.",
        show_default="none",
        rich_help_panel=OUTPUT,
    ),
]
MinConfidence = Annotated[
    float,
    typer.Option(
        metavar="FRACTION",
        help="Mark cells below this confidence as unclassified (0-1).",
        rich_help_panel=OUTPUT,
    ),
]
MaxNovelty = Annotated[
    float | None,
    typer.Option(
        metavar="PERCENT",
        help="Mark cells as unclassified that are more unlike the training data than PERCENT of validation patches.",
        show_default="none",
        rich_help_panel=OUTPUT,
    ),
]
MinArea = Annotated[
    float,
    typer.Option(
        metavar="HECTARES",
        help="Merge smaller polygons into the neighbor with the longest shared border.",
        rich_help_panel=OUTPUT,
    ),
]
Simplify = Annotated[
    float,
    typer.Option(
        metavar="METERS",
        help="Simplify polygons with this tolerance; shared borders stay shared.",
        rich_help_panel=OUTPUT,
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Memory limit of each process, such as 2GB.",
        show_default="a quarter of the free memory",
        rich_help_panel=SPEED,
    ),
]
ListFile = Annotated[
    Path | None,
    typer.Option(
        "--list",
        metavar="FILE",
        help="Text file with one scene per line.",
        show_default="none",
        rich_help_panel=MANY,
    ),
]
StacItems = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="STAC Items to map: the JSON file or URL of a catalog search.",
        show_default="none",
        rich_help_panel=MANY,
    ),
]

_PATCHES = typer.Option(
    metavar="PATH",
    help="Labeled patches: EuroSAT.zip or its folder, torchgeo's EuroSAT folder, a folder with one subfolder per "
    "class, or 'eurosat' to download EuroSAT.",
    rich_help_panel=DATA,
)
Data = Annotated[str | None, _PATCHES]
RequiredData = Annotated[str, _PATCHES]
SplitName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Split into training and test patches: paper (half of each class), spatial (by location), "
        "manifest (of geocfl patches), random:FRACTION, or all (cross-validation, the default of geocfl train "
        "--freeze and only there).",
        show_default="paper",
        autocompletion=one_of(completion.SPLITS),
        rich_help_panel=DATA,
    ),
]
ClassOrder = Annotated[
    str | None,
    typer.Option(
        metavar="ORDER",
        help="Classes from largest to smallest under an imbalance: legend, reversed, random, or codes such as 3,1,2.",
        show_default="legend",
        autocompletion=one_of(completion.CLASS_ORDERS),
        rich_help_panel=DATA,
    ),
]
PatchBands = Annotated[
    str | None,
    typer.Option(
        metavar="BANDS",
        help="Input bands: rgb, all, or names such as B04,B03,B02,B08.",
        show_default="rgb",
        autocompletion=one_of(completion.BANDS),
        rich_help_panel=DATA,
    ),
]
PatchScale = Annotated[
    float | None,
    typer.Option(
        metavar="NUMBER",
        help="Scale of the pixel values: reflectance = (value + offset) / scale.",
        show_default="from the data",
        rich_help_panel=DATA,
    ),
]
PatchOffset = Annotated[
    float | None,
    typer.Option(
        metavar="NUMBER",
        help="Offset of the pixel values (see --scale).",
        show_default="from the data",
        rich_help_panel=DATA,
    ),
]
SkipBad = Annotated[
    bool | None,
    typer.Option(
        "--skip-bad",
        help="Skip and list patches that cannot be read or do not match the others.",
        rich_help_panel=DATA,
    ),
]
BackboneName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Network: resnet18, resnet34, resnet50 or lite0 (fastest on a CPU).",
        show_default="resnet18",
        autocompletion=one_of(completion.BACKBONES),
        rich_help_panel=NETWORK,
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Initial weights: imagenet, a torchgeo weight name, a local file, a model folder, or none.",
        show_default="by backbone",
        autocompletion=one_of(completion.WEIGHTS),
        rich_help_panel=NETWORK,
    ),
]
Freeze = Annotated[
    bool | None,
    typer.Option(
        "--freeze",
        help="Train only the last layer: minutes on a CPU instead of hours. geocfl train then uses the features of the "
        "built-in model, unless --backbone or --weights names another.",
        rich_help_panel=NETWORK,
    ),
]
InputSize = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        help="Size that patches are resized to before the network.",
        show_default="by backbone",
        rich_help_panel=NETWORK,
    ),
]
Gamma = Annotated[
    float | None,
    typer.Option(
        metavar="NUMBER",
        help="Focusing parameter gamma of a focal loss; 0 gives cross-entropy.",
        show_default="by loss",
        rich_help_panel=TRAINING,
    ),
]
CflForm = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Where class frequencies enter the class focal loss: exponent or factor.",
        show_default="exponent",
        autocompletion=one_of(completion.CFL_FORMS),
        rich_help_panel=TRAINING,
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Passes over the training patches.", show_default="by recipe", rich_help_panel=TRAINING
    ),
]
StepSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        metavar="N",
        help="Patches per training step.",
        show_default="by recipe",
        rich_help_panel=TRAINING,
    ),
]
LearningRate = Annotated[
    float | None,
    typer.Option(metavar="NUMBER", help="Peak learning rate.", show_default="by recipe", rich_help_panel=TRAINING),
]
Compile = Annotated[
    bool | None,
    typer.Option(
        "--compile",
        help="Compile the network first; worthwhile if training takes hours.",
        rich_help_panel=TRAINING,
    ),
]
