"""The settings of a training: everything that decides what it computes, resolved once and written down."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from geocfl.data.augmentation import Augmentation
from geocfl.data.imbalance import parse_imbalance, parse_order
from geocfl.data.patches import EUROSAT_BANDS, RGB
from geocfl.data.splits import train_share
from geocfl.errors import UsageError, unknown_name
from geocfl.losses import loss_facts
from geocfl.models.network import backbone_facts

AUGMENTATION = Augmentation(rotation=15, zoom=0.2, shift=0.06, dihedral=True, surface=0.5, gain=0.05, haze=0.005)
EPOCHS = {"fine-tuned": 4, "from scratch": 30, "frozen": 30}
"""Of the default recipe: longer fine-tuning forgets what the weights knew of other places."""
FROZEN_LR = 3e-3
"""A linear layer on fixed features bears a higher peak learning rate than a whole network."""
OPTIMIZERS = ("adam", "adamw")
RENAMED = {"form": "cfl_form"}
"""Names of settings in files of version 0.1 that have changed since."""
SCHEDULES = ("one-cycle", "constant")


@dataclass(frozen=True)
class Settings:
    """Everything that decides what a run computes; written to ``config.json``.

    Attributes:
        data: Where the patches are; see `geocfl.train`.
        split: ``paper``, ``spatial`` or ``random:FRACTION``.
        imbalance: ``none``, ``long-tail:R`` or ``step:R``: thins the training patches (`geocfl.data.imbalance`).
        class_order: Which classes the thinning leaves large: ``legend``, ``reversed``, ``random``, or class codes.
        bands: Bands that the network reads, in this order.
        backbone: Key of `geocfl.models.network.BACKBONES`.
        weights: Starting weights.
        freeze: Train the head alone, on the backbone's features of the patches as they are.
        recipe: Name of the recipe that gave the fields that were not chosen.
        loss: Key of `geocfl.losses.LOSSES`.
        gamma: Focusing strength of the loss; 0 for those that have none.
        cfl_form: ``exponent`` or ``factor``, of the class focal loss.
        teacher: Model bundle to distil from; empty for none.
        distill: Weight of the teacher's part of the loss, 0..1.
        hint: Weight of the likeness of features to the teacher's, at least 0.
        mixup: Beta distribution's parameter of mixed training views; 0 mixes none.
        epochs: Passes over the training patches.
        batch_size: Patches in a step.
        lr: Peak learning rate.
        optimizer: One of `OPTIMIZERS`.
        weight_decay: Of weights; biases and normalisation are not decayed.
        schedule: One of `SCHEDULES`.
        dropout: Probability of dropout before the head.
        stage_dropout: Probability of dropping a channel after each stage of a ResNet.
        compile: Train through `torch.compile`: faster, after minutes of compiling.
        augmentation: What the training views may differ in from their patches.
        input_size: Side that windows are scaled to, pixels.
        seed: Of everything random.
        scale: Of reflectance = (DN + offset) / scale; None for the layout's own.
        offset: Likewise.
        skip_bad: Leave out patches that cannot be read or are unlike the others.
        refit: Run folder of the same settings, whose validation stands for this run's: the validation patches train
            too, the last epoch counts, and what was tuned on validation is that run's. Empty for a run with its own
            validation.
    """

    data: str
    split: str = "paper"
    imbalance: str = "none"
    class_order: str = "legend"
    bands: tuple[str, ...] = RGB
    backbone: str = "resnet18"
    weights: str = ""
    freeze: bool = False
    recipe: str = "default"
    loss: str = "class-focal"
    gamma: float = 0.0
    cfl_form: str = "exponent"
    teacher: str = ""
    distill: float = 0.9
    hint: float = 2.0
    mixup: float = 0.0
    epochs: int = 0
    batch_size: int = 64
    lr: float = 1e-3
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    schedule: str = "one-cycle"
    dropout: float = 0.25
    stage_dropout: float = 0.0
    compile: bool = False
    augmentation: Augmentation = AUGMENTATION
    input_size: int = 0
    seed: int = 0
    scale: float | None = None
    offset: float | None = None
    skip_bad: bool = False
    refit: str = ""

    def to_json(self) -> dict[str, Any]:
        """The content of ``config.json``."""
        facts: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return facts


RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    # The paper names batch, learning rate, gamma, dropout and "rotation and scale"; the rest is ours to choose.
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


def resolve(data: str = "", recipe: str | None = None, config: str | Path | None = None, **chosen: Any) -> Settings:
    """Settings from a recipe or an earlier run, and what the user chose beside it (None is not chosen).

    Args:
        data: Where the patches are; may be empty with `config`.
        recipe: Key of `RECIPES`; ``default`` where there is no `config`.
        config: ``config.json`` of a run to repeat; every field of it that is not chosen here holds.
        **chosen: Fields of `Settings`.

    Raises:
        UsageError: A name or value is not valid, or `config` is no run's.
    """
    options = [f.name for f in fields(Settings)]
    if unknown := sorted(chosen.keys() - set(options)):
        raise UsageError(unknown_name("option", unknown[0], options))
    chosen = {name: value for name, value in chosen.items() if value is not None}
    if data:
        chosen["data"] = data
    if config is not None:
        if recipe is not None:
            raise UsageError("--config already holds a recipe; leave out --recipe")
        settings = _from_config(Path(config), chosen)
    else:
        settings = _from_recipe(recipe or "default", chosen)
    try:
        _check(settings)
    except TypeError as error:
        raise UsageError(f"a setting is of the wrong type ({error}); pass numbers for numbers") from error
    return settings


def _from_recipe(recipe: str, chosen: dict[str, Any]) -> Settings:
    if recipe not in RECIPES:
        raise UsageError(unknown_name("recipe", recipe, RECIPES))
    if "data" not in chosen:
        raise UsageError("no training data: pass --data, or --config of an earlier run")
    values = RECIPES[recipe] | chosen
    settings = Settings(recipe=recipe, **values)
    facts, loss = backbone_facts(settings.backbone), loss_facts(settings.loss)
    weights = settings.weights or facts.weights
    kind = "frozen" if settings.freeze else "from scratch" if weights == "none" else "fine-tuned"
    return replace(
        settings,
        weights=weights,
        gamma=settings.gamma if "gamma" in values else (loss.gamma or 0.0),
        input_size=settings.input_size or facts.input_size,
        epochs=settings.epochs if "epochs" in values else EPOCHS[kind],
        lr=FROZEN_LR if settings.freeze and "lr" not in chosen else settings.lr,
    )


def _from_config(path: Path, chosen: dict[str, Any]) -> Settings:
    """The settings of a run, and what follows from another loss or backbone where one is chosen beside them."""
    known = read_config(path)
    if "loss" in chosen and chosen["loss"] != known.loss:
        chosen = {"gamma": loss_facts(chosen["loss"]).gamma or 0.0, "cfl_form": "exponent"} | chosen
    if "backbone" in chosen and chosen["backbone"] != known.backbone:
        facts = backbone_facts(chosen["backbone"])
        chosen = {"weights": facts.weights, "input_size": facts.input_size} | chosen
    return replace(known, **chosen)


def read_config(path: Path) -> Settings:
    """The settings in a ``config.json``.

    Raises:
        UsageError: It is no run's.
    """
    try:
        values = json.loads(path.read_text())
        values = current_names(values)
        values["bands"] = tuple(values["bands"])
        values["augmentation"] = Augmentation(**values["augmentation"])
        return Settings(**values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path}: not the config.json of a run ({error}); pass RUN/config.json") from error


def current_names(values: dict[str, Any]) -> dict[str, Any]:
    """Settings that an older version wrote, under the names of today."""
    return {RENAMED.get(name, name): value for name, value in values.items()}


def _check(settings: Settings) -> None:
    for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("cfl_form", ("exponent", "factor"))):
        if getattr(settings, name) not in known:
            raise UsageError(unknown_name(f"`{name}`", getattr(settings, name), known))
    loss = loss_facts(settings.loss)
    backbone_facts(settings.backbone)
    if settings.split != "spatial":
        train_share(settings.split)
    parse_imbalance(settings.imbalance)
    parse_order(settings.class_order)
    rules = {
        "bands must name one band or more": bool(settings.bands),
        "epochs must be at least 1": settings.epochs >= 1,
        "the batch size must be at least 2, for batch normalisation": settings.batch_size >= 2,
        "the learning rate must be above 0": 0 < settings.lr < math.inf,
        "the weight decay must be at least 0": 0 <= settings.weight_decay < math.inf,
        "gamma must be at least 0": 0 <= settings.gamma < math.inf,
        "dropout must be at least 0 and below 1": 0 <= settings.dropout < 1 and 0 <= settings.stage_dropout < 1,
        "the weight of the teacher's part must be from 0 to 1": 0 <= settings.distill <= 1,
        "the weight of the teacher's features must be at least 0": 0 <= settings.hint < math.inf,
        "mixup must be at least 0": 0 <= settings.mixup < math.inf,
        "the input size must be at least 32 pixels": settings.input_size >= 32,
        "the seed must be from 0 to 4294967295": 0 <= settings.seed < 2**32,
        "the scale must be above 0": settings.scale is None or 0 < settings.scale < math.inf,
        "the offset must be a number": settings.offset is None or math.isfinite(settings.offset),
        "the factor form is the class focal loss's": settings.cfl_form == "exponent" or settings.loss == "class-focal",
        "frozen features are neither mixed nor taught; leave out --mixup and --teacher": not settings.freeze
        or not (settings.mixup or settings.teacher),
        "frozen features need starting weights; leave out --weights none": not settings.freeze
        or settings.weights != "none",
        f"the loss {settings.loss} has no gamma; leave out --gamma": loss.gamma is not None or not settings.gamma,
    }
    for rule, holds in rules.items():
        if not holds:
            raise UsageError(rule)


def parse_bands(bands: str) -> tuple[str, ...]:
    """``rgb``, ``all`` (EuroSAT's thirteen) or names separated by commas."""
    named = {"rgb": RGB, "all": EUROSAT_BANDS}
    return named.get(bands.lower()) or tuple(band.strip() for band in bands.split(",") if band.strip())
