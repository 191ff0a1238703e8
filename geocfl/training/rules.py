"""Rules for the settings of a training: what each may be, and which exclude each other."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from geocfl.data.augmentation import Augmentation
from geocfl.data.imbalance import parse_imbalance
from geocfl.data.mosaics import GROUP
from geocfl.data.splits import EVERY, STATED, train_share
from geocfl.errors import UsageError, unknown_name
from geocfl.losses import loss_facts
from geocfl.models.backbones import backbone_facts
from geocfl.models.bundle import Bundle
from geocfl.training.config import TrainSettings, frozen_model

OPTIMIZERS = ("adam", "adamw")
SCHEDULES = ("one-cycle", "constant")
CFL_FORMS = ("exponent", "factor")


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


def check(settings: TrainSettings, on_model: bool) -> None:
    """Checks the settings of a training.

    Args:
        settings: The settings.
        on_model: Whether a frozen backbone may be that of a model.

    Raises:
        UsageError: A value is not allowed, or not together with another.
    """
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
