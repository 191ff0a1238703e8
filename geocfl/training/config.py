"""The settings of a training: everything that decides its result, resolved once and written to ``config.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

from geocfl.core.files import parsed_json
from geocfl.data.augmentation import Augmentation
from geocfl.data.imbalance import check_order, parse_imbalance
from geocfl.data.mosaics import GROUP
from geocfl.data.patches import RGB
from geocfl.data.splits import EVERY, STATED, train_share
from geocfl.errors import UsageError, unknown_name
from geocfl.losses import loss_facts
from geocfl.models.backbones import backbone_facts
from geocfl.models.bundle import DEFAULT_MODEL, Bundle
from geocfl.models.weights import weights_model

AUGMENTATION = Augmentation(rotation=15, zoom=0.2, shift=0.06, dihedral=True, surface=0.5, gain=0.05, haze=0.005)
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
OPTIMIZERS = ("adam", "adamw")
SCHEDULES = ("one-cycle", "constant")
CFL_FORMS = ("exponent", "factor")
_TEXTS = ("split", "imbalance", "backbone", "weights", "recipe", "loss", "cfl_form", "optimizer", "schedule", "refit")
RENAMED = {"form": "cfl_form"}
"""Settings that version 0.1 wrote under another name."""


@dataclass(frozen=True)
class TrainSettings:
    """Everything that decides the result of a training; the content of ``config.json``.

    Attributes:
        data: Path of the patches, as for `geocfl.train`.
        split: ``paper``, ``spatial``, ``manifest`` (that of `geocfl.patches`) or ``random:FRACTION``; for a last layer
            on the features of a model also ``all``: every patch trains, and the accuracy is that of a cross-validation.
        imbalance: ``none``, ``long-tail:R`` or ``step:R``; thins the training patches until the largest class has R
            times as many as the smallest.
        class_order: Order of the classes, from largest to smallest, for the thinning: ``legend``, ``reversed``,
            ``random``, or every class code once.
        bands: Bands that the network reads, in this order.
        backbone: ``resnet18``, ``resnet34``, ``resnet50``, ``lite0``, or a name from `geocfl.register_backbone`.
        weights: Initial weights: ``imagenet``, a torchgeo name, a file, a model folder, a built-in model,
            or ``none``.
        dense: Train a model whose trunk runs over a whole scene: on mosaics of patches, blurred and under different
            atmospheres.
        freeze: Train only the last layer, on the backbone's features of the patches without augmentation. If `weights`
            is a model, the run takes its bands, backbone and normalization, and fits the layer until it converges.
        add_classes: Keep the classes of the model in `weights`, and add those of the patches.
        recipe: Name of the recipe that supplied the settings that were not given.
        loss: ``ce``, ``weighted-ce``, ``focal``, ``class-focal``, ``cb-focal``, ``balanced-softmax``,
            ``logit-adjusted``, ``ldam``, or a name from `geocfl.register_loss`.
        gamma: Focusing parameter of the loss, >= 0; 0 if it has none.
        cfl_form: ``exponent`` or ``factor``: where the class focal loss has the class shares.
        teacher: Models to distill from, folders or names.
        distill: Weight of the teacher's term in the loss, 0..1.
        hint: Weight of the cosine distance between the features of student and teacher, >= 0.
        label_smoothing: Share of the loss that treats all classes as equally right, in [0, 1).
        mixup: Parameter of mixup's Beta distribution, >= 0; 0 turns mixup off.
        epochs: Passes over the training patches, >= 1.
        batch_size: Patches per step, >= 2.
        lr: Peak learning rate, > 0.
        optimizer: ``adam`` or ``adamw``.
        weight_decay: Weight decay, >= 0; biases and normalization layers are not decayed.
        schedule: ``one-cycle`` or ``constant``.
        dropout: Probability of dropout before the last layer, in [0, 1).
        stage_dropout: Probability of dropping a channel after each stage of a ResNet, in [0, 1).
        compile: Compile the network with `torch.compile`, which takes minutes and then trains faster.
        augmentation: Random changes of the training patches.
        input_size: Side in pixels to which windows are scaled, >= 32.
        seed: Random seed, 0..4294967295; the same seed gives the same result.
        scale: In reflectance = (DN + offset) / scale, > 0; None takes the layout's own.
        offset: In the same formula, in digital numbers; None takes the layout's own.
        skip_bad: Leave out patches that cannot be read or differ from the others.
        refit: Run folder of a run with the same settings. Its validation patches become training patches, the last
            epoch is kept, and its temperature and tau are used. Empty for an ordinary run.
    """

    data: str
    split: str = "paper"
    imbalance: str = "none"
    class_order: str | tuple[int, ...] = "legend"
    bands: tuple[str, ...] = RGB
    backbone: str = "resnet18"
    weights: str = ""
    dense: bool = False
    freeze: bool = False
    add_classes: bool = False
    recipe: str = "default"
    loss: str = "class-focal"
    gamma: float = 0.0
    cfl_form: str = "exponent"
    teacher: tuple[str, ...] = ()
    distill: float = 0.9
    hint: float = 2.0
    label_smoothing: float = 0.0
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
        values = asdict(self) | {"teacher": ",".join(self.teacher)}
        if not isinstance(self.class_order, str):
            values["class_order"] = ",".join(map(str, self.class_order))
        facts: dict[str, Any] = json.loads(json.dumps(values))
        return facts


class GridOptions(TypedDict, total=False):
    """Options that `geocfl.train` and `geocfl.compare` share; see `TrainSettings`. None means not given."""

    split: str | None
    class_order: str | Sequence[int] | None
    bands: Sequence[str] | None
    backbone: str | None
    weights: str | Path | None
    freeze: bool | None
    recipe: str | None
    gamma: float | None
    cfl_form: str | None
    teacher: Sequence[str | Path] | None
    distill: float | None
    hint: float | None
    mixup: float | None
    epochs: int | None
    batch_size: int | None
    lr: float | None
    optimizer: str | None
    weight_decay: float | None
    schedule: str | None
    dropout: float | None
    stage_dropout: float | None
    compile: bool | None
    augmentation: Augmentation | None
    input_size: int | None
    scale: float | None
    offset: float | None
    skip_bad: bool | None


class TrainOptions(GridOptions, total=False):
    """Options of `geocfl.train`: the fields of `TrainSettings` except `data`. None means not given."""

    dense: bool | None
    add_classes: bool | None
    imbalance: str | None
    label_smoothing: float | None
    loss: str | None
    seed: int | None
    refit: str | Path | None


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
    _check(settings, on_model)
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


def frozen_model(settings: TrainSettings) -> Bundle | None:
    """The model whose features a run trains its last layer on; None for other runs."""
    return weights_model(settings.weights) if settings.freeze else None


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


def read_config(path: Path) -> TrainSettings:
    """The settings in a ``config.json``.

    Raises:
        UsageError: It is not the file of a run.
    """
    try:
        values = current_names(parsed_json(path.read_text()))
        values["bands"] = tuple(values["bands"])
        values["teacher"] = tuple(name for name in values.get("teacher", "").split(",") if name)
        values["class_order"] = read_order(values.get("class_order", "legend"))
        values["augmentation"] = Augmentation(**values["augmentation"])
        return TrainSettings(**values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path}: not the config.json of a run ({error}); pass RUN/config.json") from error


def current_names(values: dict[str, Any]) -> dict[str, Any]:
    """Settings that an older version wrote, under their current names."""
    return {RENAMED.get(name, name): value for name, value in values.items()}


def read_order(text: str) -> str | tuple[int, ...]:
    """``"legend"`` as it is; ``"3,1,2"`` as class codes."""
    codes = text.split(",")
    return tuple(map(int, codes)) if all(code.strip().isdigit() for code in codes) else text


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: Any, low: int, high: float = math.inf) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _not_negative(value: Any) -> bool:
    return _number(value) and value >= 0


def _probability(value: Any) -> bool:
    return _number(value) and 0 <= value < 1


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "bands": (bool, "name one band or more"),
    "freeze": (_flag, "be True or False"),
    "add_classes": (_flag, "be True or False"),
    "gamma": (_not_negative, "be a number of at least 0"),
    "distill": (lambda value: _number(value) and 0 <= value <= 1, "be a number from 0 to 1"),
    "dense": (_flag, "be True or False"),
    "label_smoothing": (_probability, "be at least 0 and below 1"),
    "hint": (_not_negative, "be a number of at least 0"),
    "mixup": (_not_negative, "be a number of at least 0"),
    "epochs": (lambda value: _whole(value, 1), "be a whole number of at least 1"),
    "batch_size": (lambda value: _whole(value, 2), "be a whole number of at least 2, because of batch normalization"),
    "lr": (lambda value: _number(value) and value > 0, "be a number above 0"),
    "weight_decay": (_not_negative, "be a number of at least 0"),
    "dropout": (_probability, "be at least 0 and below 1"),
    "stage_dropout": (_probability, "be at least 0 and below 1"),
    "compile": (_flag, "be True or False"),
    "augmentation": (lambda value: isinstance(value, Augmentation), "be an Augmentation"),
    "input_size": (lambda value: _whole(value, 32), "be a whole number of at least 32"),
    "seed": (lambda value: _whole(value, 0, 2**32 - 1), "be a whole number from 0 to 4294967295"),
    "scale": (lambda value: value is None or (_number(value) and value > 0), "be a number above 0"),
    "offset": (lambda value: value is None or _number(value), "be a number"),
    "skip_bad": (_flag, "be True or False"),
}
"""What the value of a setting must be."""


def _check(settings: TrainSettings, on_model: bool) -> None:
    source = frozen_model(settings) if on_model else None
    for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("cfl_form", CFL_FORMS)):
        if getattr(settings, name) not in known:
            raise UsageError(unknown_name(f"`{name}`", getattr(settings, name), known))
    loss = loss_facts(settings.loss)
    backbone_facts(settings.backbone)
    _check_split(settings, source)
    parse_imbalance(settings.imbalance)
    for name, (allowed, words) in _RULES.items():
        if not allowed(value := getattr(settings, name)):
            raise UsageError(f"`{name}` is {value!r} but must {words}")
    if settings.cfl_form != "exponent" and settings.loss != "class-focal":
        raise UsageError(f"`cfl_form` applies only to the loss class-focal, not to {settings.loss}; leave it out")
    if settings.gamma and loss.gamma is None:
        raise UsageError(f"the loss {settings.loss} has no gamma; leave out `gamma`")
    if settings.freeze:
        _check_frozen(settings, source)
    for name in ("freeze", "mixup", "teacher"):
        if settings.dense and getattr(settings, name) and not (name == "freeze" and source):
            raise UsageError(f"`{name}` cannot be used for a dense model; leave out `{name}` or `dense`")
    if settings.dense and settings.batch_size % GROUP:
        raise UsageError(
            f"`batch_size` is {settings.batch_size} but must be a multiple of {GROUP}, the windows of four mosaics"
        )


def _check_split(settings: TrainSettings, source: Bundle | None) -> None:
    if settings.split == EVERY and source is None:
        raise UsageError(
            "`split` is all, which leaves no test patches; pass another one, or train only the last layer on the "
            "features of a model (`freeze=True`)",
            page="how-to/own-model/",
        )
    if settings.split not in (*STATED, EVERY):
        train_share(settings.split)
    if settings.add_classes is True and not settings.freeze:
        raise UsageError("`add_classes` trains only the last layer; pass `freeze=True` too")


def _check_frozen(settings: TrainSettings, source: Bundle | None) -> None:
    """Refuses what a last layer by itself cannot have; `source` is the model whose features it is trained on."""
    if settings.mixup or settings.teacher:
        unusable = "mixup" if settings.mixup else "teacher"
        raise UsageError(f"`{unusable}` cannot be used with a frozen backbone; leave out `{unusable}` or `freeze`")
    if settings.weights == "none":
        raise UsageError("a frozen backbone needs initial weights; leave out `weights` or `freeze`")
    if source is None:
        return
    facts = loss_facts(settings.loss)
    if facts.head != "linear" or facts.posthoc:
        raise UsageError(
            f"the loss {settings.loss} cannot be used on the features of a model; choose class-focal, ce or "
            "balanced-softmax",
            page="how-to/own-model/",
        )
    if settings.refit:
        raise UsageError("`refit` does not apply to a last layer on the features of a model; leave it out")
