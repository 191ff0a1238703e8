"""Recipes of a training: the settings that follow from a recipe or an earlier run, and from what the user chose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from geocfl.data.augmentation import Augmentation
from geocfl.data.imbalance import check_order
from geocfl.data.splits import EVERY
from geocfl.errors import UsageError, unknown_name
from geocfl.losses import loss_facts
from geocfl.models.backbones import backbone_facts
from geocfl.models.bundle import DEFAULT_MODEL
from geocfl.models.weights import weights_model
from geocfl.training.config import AUGMENTATION, TrainSettings, read_config
from geocfl.training.rules import check

RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    # The paper states batch size, learning rate, gamma, dropout and "rotation and scale"; the rest is our choice.
    "paper": {
        "epochs": 30,
        "lr": 6e-4,
        "optimizer": "adam",
        "weight_decay": 0.0,
        "schedule": "constant",
        "stage_dropout": 0.25,
        "augmentation": Augmentation(rotation=180, zoom=0.2),
    },
}
DENSE = {
    "augmentation": replace(AUGMENTATION, veil=0.55, flatten=0.7, blur=1.7),
    "batch_size": 64,
    "label_smoothing": 0.05,
    "lr": 6e-4,
}
"""What the default recipe does otherwise for a dense model."""
EPOCHS = {"fine-tuned": 4, "from scratch": 30, "frozen": 30}
"""Epochs of the default recipe. Longer fine-tuning forgets what the weights knew of other places."""
DENSE_INPUT = 128
"""Side in pixels to which the window of a dense model is scaled: then there are 4 x 4 features in each."""
FROZEN_LR = 3e-3
"""A linear layer on fixed features tolerates a higher peak learning rate than a whole network."""
STEPS = 100
"""Most iterations that fit a last layer to the features of a model."""
UNUSED = {
    *("augmentation", "batch_size", "compile", "distill", "dropout", "hint", "label_smoothing", "lr", "optimizer"),
    *("schedule", "stage_dropout", "weight_decay"),
}
"""Settings of a training in steps, which a last layer on the features of a model does not have."""
_TEXTS = ("split", "imbalance", "backbone", "weights", "recipe", "loss", "cfl_form", "optimizer", "schedule", "refit")


def resolve(
    data: str | Path | None = None, config: str | Path | None = None, *, on_model: bool = True, **options: Any
) -> TrainSettings:
    """The settings that follow from a recipe or an earlier run, and from the options that the caller has chosen.

    Args:
        data: Path of the patches; may be None if there is a `config`.
        config: ``config.json`` of a run to repeat; it supplies every setting that is not given here.
        on_model: Whether a frozen backbone may be that of a model, with all that belongs to it.
        **options: `TrainOptions`.

    Raises:
        UsageError: A name or value is not valid, or `config` is not the file of a run.
    """
    chosen = {name: _stored(name, value) for name, value in options.items() if value is not None}
    if data is not None:
        chosen["data"] = str(data)
    if config is None:
        settings = _from_recipe(chosen, on_model)
    elif "recipe" in chosen:
        raise UsageError("`config` already contains a recipe; leave out `recipe`")
    else:
        settings = _from_config(Path(config), chosen)
    check(settings, on_model)
    return settings


def _stored(name: str, value: Any) -> Any:
    """An option's value as `TrainSettings` has it."""
    if name in ("bands", "teacher"):
        if isinstance(value, str) or not isinstance(value, Sequence):
            example = '("B04", "B03", "B02")' if name == "bands" else '("runs/first",)'
            raise UsageError(f"`{name}` is {value!r} but must be a sequence of names, such as {example}")
        return tuple(map(str, value))
    if name == "class_order":
        return check_order(value)
    if name in _TEXTS:
        if not isinstance(value, str | Path):
            raise UsageError(f"`{name}` is {value!r} but must be text")
        return str(value)
    return value


def _from_recipe(chosen: dict[str, Any], on_model: bool) -> TrainSettings:
    recipe = chosen.get("recipe", "default")
    if recipe not in RECIPES:
        raise UsageError(unknown_name("`recipe`", recipe, RECIPES))
    if "data" not in chosen:
        raise UsageError("no training data; pass `data`, or the `config` of an earlier run")
    if on_model:
        chosen = _on_model(chosen)
    values = RECIPES[recipe] | (DENSE if chosen.get("dense") and recipe == "default" else {}) | chosen
    settings = TrainSettings(**values)
    backbone, loss = backbone_facts(settings.backbone), loss_facts(settings.loss)
    weights = settings.weights or backbone.weights
    kind = "frozen" if settings.freeze else "from scratch" if weights == "none" else "fine-tuned"
    return replace(
        settings,
        weights=weights,
        gamma=settings.gamma if "gamma" in values else (loss.gamma or 0.0),
        input_size=settings.input_size or (DENSE_INPUT if settings.dense else backbone.input_size),
        epochs=settings.epochs if "epochs" in values else EPOCHS[kind],
        lr=FROZEN_LR if settings.freeze and "lr" not in chosen else settings.lr,
    )


def _on_model(chosen: dict[str, Any]) -> dict[str, Any]:
    """The chosen settings, completed by those of the model whose backbone is frozen, if it is one.

    Raises:
        UsageError: A setting differs from the model's, or does not apply.
    """
    if chosen.get("add_classes") and chosen.get("freeze") is False:
        raise UsageError("`add_classes` trains only the last layer; leave out `freeze=False`")
    frozen = chosen.get("freeze") is True or chosen.get("add_classes") is True
    own = {"backbone", "weights", "dense"} & set(chosen)
    weights = chosen.get("weights", "") if own else DEFAULT_MODEL
    source = weights_model(weights) if frozen and weights else None
    if source is None:
        if chosen.get("add_classes") is True:
            raise UsageError(
                "`add_classes` needs the model whose classes are kept; pass its folder as `weights`, or leave out "
                "`weights`, `backbone` and `dense` to use the built-in one"
            )
        return chosen
    if unused := sorted(set(chosen) & UNUSED):
        raise UsageError(
            f"`{unused[0]}` does not apply to a last layer on the features of {source.name}, which is fitted until it "
            f"converges; leave out `{unused[0]}` or `freeze`",
            page="how-to/own-model/",
        )
    theirs = {
        "bands": source.bands,
        "backbone": source.backbone,
        "input_size": source.input_size,
        "dense": bool(source.feature_stride),
    }
    for name, value in theirs.items():
        if chosen.get(name, value) != value:
            ours, words = (", ".join(v) if isinstance(v, tuple) else v for v in (chosen[name], value))
            raise UsageError(f"`{name}` is {ours}, but that of {source.name} is {words}; leave out `{name}`")
    return {"split": EVERY, "epochs": STEPS} | chosen | theirs | {"weights": weights, "freeze": True}


def _from_config(path: Path, chosen: dict[str, Any]) -> TrainSettings:
    """The settings of a run, adapted if another loss or backbone, or a dense model, is chosen."""
    known = read_config(path)
    dense = chosen.get("dense", known.dense)
    if dense != known.dense:
        changes = DENSE if dense else {name: getattr(TrainSettings(data=""), name) for name in DENSE}
        size = DENSE_INPUT if dense else backbone_facts(known.backbone).input_size
        chosen = (changes if known.recipe == "default" else {}) | {"input_size": size} | chosen
    if "loss" in chosen and chosen["loss"] != known.loss:
        chosen = {"gamma": loss_facts(chosen["loss"]).gamma or 0.0, "cfl_form": "exponent"} | chosen
    if "backbone" in chosen and chosen["backbone"] != known.backbone:
        backbone = backbone_facts(chosen["backbone"])
        chosen = {"weights": backbone.weights, "input_size": DENSE_INPUT if dense else backbone.input_size} | chosen
    return replace(known, **chosen)
