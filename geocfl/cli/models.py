"""``geocfl info`` and ``export``: what a model or a scene is, and models for other programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

import geocfl
from geocfl.cli import completion, options
from geocfl.cli.completion import a_model, one_of
from geocfl.cli.entry import MODELS, app, examples


@app.command(
    rich_help_panel=MODELS,
    epilog=examples(
        ("bands, grid, pixel values, and how many windows a map would have", "geocfl info scene.tif"),
        ("classes, bands and origin of a model", "geocfl info eurosat-rgb-lite0"),
    ),
)
def info(
    path: Annotated[
        str,
        typer.Argument(
            help="A scene, the folder of a model, or the name of a model that comes with geocfl.",
            metavar="SCENE|MODEL",
            autocompletion=a_model,
        ),
    ],
    as_json: options.AsJson = False,
    bands: options.SceneBands = "",
    scale: options.SceneScale = None,
    offset: options.SceneOffset = None,
) -> None:
    """Describe a scene or a model."""
    facts = geocfl.info(path, bands=bands, scale=scale, offset=offset)
    typer.echo(json.dumps(facts, indent=2) if as_json else "\n".join(_lines(facts)))


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
    return ", ".join(str(v) for v in value) if isinstance(value, list) else str(value)


@app.command(
    rich_help_panel=MODELS,
    epilog=examples(
        ("for onnxruntime, in Python or elsewhere", "geocfl export eurosat-rgb-lite0"),
        ("a model of yours for OpenVINO", "geocfl export runs/mine --format openvino --out mine.xml"),
    ),
)
def export(
    model: Annotated[
        str,
        typer.Argument(
            help="The folder of a model, or the name of one that comes with geocfl.",
            metavar="MODEL",
            autocompletion=a_model,
        ),
    ],
    format: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="onnx, torchscript, openvino, or stac-mlm, a STAC Item that describes the model in a catalogue.",
            autocompletion=one_of(completion.EXPORT_FORMATS),
        ),
    ] = "onnx",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File to write.", show_default="the model's name with the format's ending"),
    ] = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Write a model for other programs: reflectance in, calibrated probabilities out."""
    for file in geocfl.export(model, out, format=format, overwrite=overwrite):
        typer.echo(file)
