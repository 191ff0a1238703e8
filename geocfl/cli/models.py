"""``geocfl info`` and ``export``: facts about models and scenes, and models for other programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, cast

import typer

import geocfl
from geocfl.cli import completion, options, parse
from geocfl.cli.completion import a_model, one_of
from geocfl.cli.entry import MODELS, app, examples, printable_lines


@app.command(
    rich_help_panel=MODELS,
    epilog=examples(
        ("bands, grid, pixel values and number of windows", "geocfl info scene.tif"),
        ("classes, bands and training data of a model", "geocfl info eurosat-rgb-lite0"),
    ),
)
def info(
    path: Annotated[
        str,
        typer.Argument(
            help="A scene, the folder of a model, or the name of a built-in model.",
            metavar="SCENE|MODEL",
            autocompletion=a_model,
        ),
    ],
    as_json: options.AsJson = False,
    bands: options.SceneBands = None,
    scale: options.SceneScale = None,
    offset: options.SceneOffset = None,
    nodata: options.SceneNodata = None,
    mask: options.Mask = None,
    mask_classes: options.MaskClasses = None,
    mask_bits: options.MaskBits = None,
) -> None:
    """Describe a scene or a model."""
    facts = geocfl.info(
        path,
        bands=parse.bands(bands),
        scale=scale,
        offset=offset,
        nodata=nodata,
        mask=mask or None,
        mask_classes=parse.mask_classes(mask_classes),
        mask_bits=parse.mask_bits(mask_bits),
    )
    typer.echo(json.dumps(facts, indent=2) if as_json else printable_lines("\n".join(_lines(facts))))


def _lines(facts: dict[str, Any], indent: int = 0) -> list[str]:
    width = max(len(str(name)) for name in facts)
    lines = []
    for name, value in facts.items():
        label = f"{' ' * indent}{str(name).replace('_', ' '):<{width}}"
        if isinstance(value, dict) and value:
            lines += [label.rstrip(), *_lines(value, indent + 2)]
        else:
            lines.append(f"{label}  {_text(value) or '-'}")
    return lines


def _text(value: Any) -> str:
    """A value as it is printed; empty where there is none."""
    if value is None or value == {}:
        return ""
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.5g}"
    return ", ".join(_text(v) for v in value) if isinstance(value, list) else str(value)


@app.command(
    rich_help_panel=MODELS,
    epilog=examples(
        ("for onnxruntime, in Python or elsewhere", "geocfl export eurosat-rgb-lite0"),
        ("for Deepness, a plugin of QGIS", "geocfl export eurosat-rgb-dense --format deepness"),
        ("your own model for OpenVINO", "geocfl export runs/mine --format openvino --out mine.xml"),
    ),
)
def export(
    model: Annotated[
        str,
        typer.Argument(
            help="The folder of a model, or the name of a built-in model.",
            metavar="MODEL",
            autocompletion=a_model,
        ),
    ],
    format: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Format: onnx, torchscript, openvino, deepness (for that QGIS plugin), or stac-mlm (a STAC Item that "
            "describes the model).",
            autocompletion=one_of(completion.EXPORT_FORMATS),
        ),
    ] = "onnx",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Output file.", show_default="MODEL with the extension of the format"),
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option(
            metavar="NUMBER",
            help="For Deepness: reflectance = (value + offset) / scale.",
            show_default="10000",
        ),
    ] = None,
    offset: Annotated[
        float | None,
        typer.Option(
            metavar="NUMBER",
            help="For Deepness: see --scale; -1000 for Sentinel-2 products since baseline 04.00 (2022).",
            show_default="0",
        ),
    ] = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Export a model for other programs: reflectance in, calibrated probabilities out."""
    for file in geocfl.export(model, out, format=cast(Any, format), scale=scale, offset=offset, overwrite=overwrite):
        typer.echo(file)
