"""``geocfl train``, ``evaluate`` and ``compare``: models from labeled patches, and their accuracy."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

import geocfl
from geocfl.cli import completion, options, parse
from geocfl.cli.bars import bars
from geocfl.cli.completion import a_model, one_of, some_of
from geocfl.cli.entry import LEARN, app, examples
from geocfl.cli.options import DATA, NETWORK, TEACHER, TRAINING

log = logging.getLogger("geocfl")


@app.command(
    rich_help_panel=LEARN,
    epilog=examples(
        (
            "the network of the built-in model, tested on places it has not seen",
            "geocfl train --data EuroSAT.zip --out run --backbone lite0 --split spatial",
        ),
        (
            "your own patches and classes, in minutes on a CPU",
            "geocfl train --data patches --out runs/mine --freeze",
        ),
        (
            "more classes for the built-in model",
            "geocfl train --data patches --out runs/more --add-classes",
        ),
        (
            "the same with another loss",
            "geocfl train --config runs/mine/config.json --loss ce --out runs/ce",
        ),
        (
            "a dense model, which maps fine cells at the cost of coarse ones",
            "geocfl train --data EuroSAT.zip --backbone lite0 --dense --out runs/dense",
        ),
        ("then map with it", "geocfl map scene.tif --model runs/mine"),
    ),
)
def train(
    out: options.Out,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="config.json of a run to repeat; options given here override it."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Base settings: default, or paper for the settings of the paper.",
            show_default="default",
            autocompletion=one_of(completion.RECIPES),
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", help="Random seed; the same seed gives the same result.", show_default="0"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume an interrupted run from its checkpoint.")] = False,
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
    data: options.Data = None,
    split: options.SplitName = None,
    imbalance: Annotated[
        str | None,
        typer.Option(
            metavar="NAME:R",
            help="Class imbalance to create in the training patches: none, long-tail:R or step:R. R is the ratio of "
            "the largest to the smallest class.",
            show_default="none",
            autocompletion=one_of(completion.IMBALANCES),
            rich_help_panel=DATA,
        ),
    ] = None,
    class_order: options.ClassOrder = None,
    bands: options.PatchBands = None,
    scale: options.PatchScale = None,
    offset: options.PatchOffset = None,
    skip_bad: options.SkipBad = None,
    refit: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Train on the validation patches as well, after this finished run with the same settings.",
            rich_help_panel=DATA,
        ),
    ] = None,
    backbone: options.BackboneName = None,
    weights: options.Weights = None,
    dense: Annotated[
        bool | None,
        typer.Option(
            "--dense",
            help="Train a dense model on mosaics of patches: it maps fine cells at the cost of coarse ones.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    freeze: options.Freeze = None,
    add_classes: Annotated[
        bool | None,
        typer.Option(
            "--add-classes",
            help="Add the classes of the patches to those of the model in --weights, by default the built-in one.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    input_size: options.InputSize = None,
    loss: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Loss function: ce (cross-entropy), weighted-ce, focal, class-focal, cb-focal, balanced-softmax, "
            "logit-adjusted or ldam.",
            show_default="class-focal",
            autocompletion=one_of(completion.LOSSES),
            rich_help_panel=TRAINING,
        ),
    ] = None,
    gamma: options.Gamma = None,
    cfl_form: options.CflForm = None,
    label_smoothing: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Share of the loss that treats all classes as equally right, which makes a model less certain.",
            show_default="0; 0.05 with --dense",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    mixup: Annotated[
        float | None,
        typer.Option(
            metavar="A",
            help="Mixup: train on mixtures of two patches, with weights from Beta(A, A).",
            show_default="0, off",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    epochs: options.Epochs = None,
    batch_size: options.StepSize = None,
    lr: options.LearningRate = None,
    compile: options.Compile = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Teacher model to distill from; several, separated by commas, are averaged.",
            autocompletion=a_model,
            rich_help_panel=TEACHER,
        ),
    ] = None,
    distill: Annotated[
        float | None,
        typer.Option(
            metavar="FRACTION",
            help="Weight of the teacher in the loss (0-1).",
            show_default="0.9",
            rich_help_panel=TEACHER,
        ),
    ] = None,
    hint: Annotated[
        float | None,
        typer.Option(
            metavar="NUMBER",
            help="Weight of matching the teacher's features before the last layer.",
            show_default="2",
            rich_help_panel=TEACHER,
        ),
    ] = None,
    device: options.Device = "auto",
) -> None:
    """Train a model on labeled patches; write the model, test metrics, curves and a report.

    Use the output folder as geocfl map --model. The default is a ResNet-18 with
    the class focal loss: easy patches lose weight, more so in larger classes.
    """
    if data or config:
        log.info("training on %s; the run is written to %s", data or f"the data of {config}", out)
    with bars() as shown:
        run = geocfl.train(
            data or None,
            out,
            config=config,
            device=device,
            resume=resume,
            overwrite=overwrite,
            recipe=recipe,
            split=split,
            imbalance=imbalance,
            class_order=parse.class_order(class_order),
            bands=parse.patch_bands(bands),
            scale=scale,
            offset=offset,
            skip_bad=skip_bad,
            backbone=backbone,
            weights=weights,
            dense=dense,
            freeze=freeze,
            add_classes=add_classes,
            input_size=input_size,
            loss=loss,
            gamma=gamma,
            cfl_form=cfl_form,
            teacher=parse.names(teacher) if teacher is not None else None,
            distill=distill,
            hint=hint,
            label_smoothing=label_smoothing,
            mixup=mixup,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            compile=compile,
            seed=seed,
            refit=refit,
            progress=shown,
        )
    typer.echo(json.dumps(run.metrics, indent=2) if as_json else run.table())


@app.command(
    rich_help_panel=LEARN,
    epilog=examples(
        (
            "the built-in model on places that it was not trained on",
            "geocfl evaluate eurosat-rgb-lite0 --data EuroSAT.zip --out evaluation",
        ),
        (
            "a model on all patches of a folder",
            "geocfl evaluate runs/mine --data patches --split all --out evaluation",
        ),
    ),
)
def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            help="The folder of a model or run, or the name of a built-in model.",
            metavar="MODEL",
            autocompletion=a_model,
        ),
    ],
    data: options.RequiredData,
    out: options.Out,
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Split: paper, spatial, manifest, random:FRACTION, all, or a file of patch names, such as "
            "RUN/test_patches.txt.",
            show_default="from the model",
            autocompletion=one_of((*completion.SPLITS, "all")),
            rich_help_panel=DATA,
        ),
    ] = None,
    subset: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Subset of the split to evaluate on: test, validation or train.",
            autocompletion=one_of(completion.SUBSETS),
            rich_help_panel=DATA,
        ),
    ] = "test",
    mosaics: Annotated[
        bool,
        typer.Option(
            "--mosaics",
            help="Evaluate a dense model on patches inside random mosaics, as in a scene, instead of each alone.",
            rich_help_panel=DATA,
        ),
    ] = False,
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Random seed of a random split.", show_default="from the model", rich_help_panel=DATA
        ),
    ] = None,
    scale: options.PatchScale = None,
    offset: options.PatchOffset = None,
    skip_bad: options.SkipBad = False,
    device: options.Device = "auto",
    tta: options.Tta = None,
    precision: options.PatchPrecision = "float32",
    batch_size: options.BatchSize = None,
) -> None:
    """Evaluate a model on labeled patches: accuracy per class, calibration, figures and a report."""
    log.info("evaluating %s on %s; the results are written to %s", model, data, out)
    with bars() as shown:
        evaluation = geocfl.evaluate(
            model,
            data=data,
            out=out,
            split=split,
            subset=subset,
            mosaics=mosaics,
            seed=seed,
            scale=scale,
            offset=offset,
            skip_bad=bool(skip_bad),
            device=device,
            tta=tta,
            precision=precision,
            batch_size=batch_size,
            overwrite=overwrite,
            progress=shown,
        )
    typer.echo(json.dumps(evaluation.metrics, indent=2) if as_json else evaluation.table())


@app.command(
    rich_help_panel=LEARN,
    epilog=examples(
        (
            "how long it would take on this machine",
            "geocfl compare --data EuroSAT.zip --out comparison --freeze --dry-run",
        ),
        (
            "two losses, with and without imbalance, three runs of each",
            "geocfl compare --data EuroSAT.zip --out comparison --losses ce,class-focal",
        ),
    ),
)
def compare(
    out: options.Out,
    data: options.RequiredData,
    losses: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Losses, separated by commas; geocfl train --help lists them.",
            autocompletion=some_of(completion.LOSSES),
        ),
    ] = "ce,focal,class-focal",
    seeds: Annotated[
        int,
        typer.Option(metavar="N", min=1, help="Number of runs of each loss under each imbalance, with seeds 0, 1, ..."),
    ] = 3,
    results: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File of finished runs, which are not repeated; new runs are added to it.",
            show_default="OUT/runs.jsonl",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Only estimate how long the remaining runs take.",
        ),
    ] = False,
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
    imbalances: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Class imbalances, separated by commas: none, long-tail:R, step:R. R is the ratio of the largest to "
            "the smallest class.",
            autocompletion=some_of(completion.IMBALANCES),
            rich_help_panel=DATA,
        ),
    ] = "none,long-tail:50",
    split: options.SplitName = None,
    class_order: options.ClassOrder = None,
    bands: options.PatchBands = None,
    scale: options.PatchScale = None,
    offset: options.PatchOffset = None,
    skip_bad: options.SkipBad = None,
    backbone: options.BackboneName = None,
    weights: options.Weights = None,
    freeze: options.Freeze = None,
    input_size: options.InputSize = None,
    gamma: options.Gamma = None,
    cfl_form: options.CflForm = None,
    epochs: options.Epochs = None,
    batch_size: options.StepSize = None,
    lr: options.LearningRate = None,
    compile: options.Compile = None,
    device: options.Device = "auto",
) -> None:
    """Compare losses under class imbalance: train with each and test it against cross-entropy.

    Writes a table as CSV, Markdown and a web page. Rerun an interrupted command
    to resume it.
    """
    if dry_run:
        log.info("estimating how long the comparison on %s takes", data)
    else:
        log.info("comparing losses on %s; the results are written to %s", data, out)
    grid: dict[str, Any] = {
        "losses": parse.names(losses),
        "imbalances": parse.names(imbalances),
        "seeds": range(seeds),
        "results": results,
        "device": device,
        "split": split,
        "class_order": parse.class_order(class_order),
        "bands": parse.patch_bands(bands),
        "scale": scale,
        "offset": offset,
        "skip_bad": skip_bad,
        "backbone": backbone,
        "weights": weights,
        "freeze": freeze,
        "input_size": input_size,
        "gamma": gamma,
        "cfl_form": cfl_form,
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "compile": compile,
    }
    if dry_run:
        from geocfl.experiments.estimate import estimate

        with bars() as shown:
            estimated = estimate(data, out, progress=shown, **grid)
        typer.echo(json.dumps(asdict(estimated), indent=2) if as_json else estimated.table())
        return
    with bars() as shown:
        comparison = geocfl.compare(data, out, overwrite=overwrite, progress=shown, **grid)
    rows = [row.to_json() for row in comparison.rows]
    typer.echo(json.dumps(rows, indent=2) if as_json else comparison.table())
