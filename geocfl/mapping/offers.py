"""What a model offers besides classes and confidences: novelty and prediction sets."""

from __future__ import annotations

from collections.abc import Callable

from geocfl.errors import UsageError
from geocfl.mapping.settings import MapSettings
from geocfl.models.bundle import Bundle, bundled_models
from geocfl.products.prediction_sets import MOST_CLASSES
from geocfl.products.selection import Selection

PAGE = "how-to/unlike-land/"


def missing_products(model: Bundle) -> dict[str, str]:
    """Products that cannot be made with a model, each with the reason and the remedy."""
    missing = {}
    if not model.novelty:
        missing["novelty"] = _without(model, "novelty", lambda other: bool(other.novelty))
    if len(model.legend) > MOST_CLASSES:
        missing["sets"] = (
            f"the model {model.name} has {len(model.legend)} classes, more than the {MOST_CLASSES} of a set; "
            "leave it out"
        )
    elif not model.conformal:
        missing["sets"] = _without(model, "prediction sets", lambda other: bool(other.conformal))
    return missing


def check_novelty(model: Bundle, settings: MapSettings) -> None:
    """Refuses settings that need novelty of a model without it.

    Raises:
        UsageError: They do.
    """
    if settings.max_novelty is not None and not model.novelty:
        raise UsageError(f"`max_novelty` is set, but {missing_products(model)['novelty']}", page=PAGE)


def check_features(settings: MapSettings, selection: Selection) -> None:
    """Refuses settings that leave cells without features.

    Raises:
        UsageError: Features are among the products, and cells are interpolated.
    """
    if settings.interpolate and selection.features:
        raise UsageError(
            "`interpolate` gives no features for the cells in between; leave it out, or leave features out of "
            "`products`"
        )


def _without(model: Bundle, what: str, offers: Callable[[Bundle], bool]) -> str:
    """That a model has no such thing, and which models have it."""
    others = [name for name in bundled_models() if offers(Bundle.load(name))]
    remedy = f"use {' or '.join(others)}" if others else "train one with this version of geocfl"
    return f"the model {model.name} has no {what}; {remedy}"
