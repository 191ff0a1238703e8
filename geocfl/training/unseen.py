"""Refuses models that may have seen the validation or test patches of a training."""

from __future__ import annotations

import logging
import re
from typing import Any, Literal

import numpy as np

from geocfl.core.legend import EUROSAT
from geocfl.data.patches import Patches
from geocfl.data.splits import STATED
from geocfl.errors import UsageError
from geocfl.models.bundle import Bundle

log = logging.getLogger("geocfl")

NAMES = {"teacher": ("the teacher", "a teacher"), "weights": ("the model of these weights", "weights")}
"""How messages call the model of an option, and another one in its place."""


def check_unseen(option: Literal["teacher", "weights"], name: str, model: Bundle, student: Bundle) -> None:
    """Checks that a model has not seen the validation and test patches of a training.

    It has not if it was trained on the same split of as many patches, or if its classes are all different.

    Args:
        option: What the model is used as.
        name: What the user passed.
        model: The model.
        student: The model to be trained, whose `origin` describes its patches.

    Raises:
        UsageError: The model may have seen them.
    """
    theirs, ours = model.origin, student.origin
    who, another = NAMES[option]
    if not {lulc.folder for lulc in model.legend} & {lulc.folder for lulc in student.legend}:
        return
    for part in ("split",) if ours["split"] in STATED else ("split", "seed"):
        if theirs.get(part) != ours[part]:
            raise UsageError(
                f"{name}: {who} was trained on {part} {theirs.get(part)}, not {ours[part]}, so it may have seen these "
                f"test patches; pass {another} of the same {part}"
            )
    tested, count = theirs.get("patches", {}).get("test"), ours["patches"]["test"]
    if tested != count:
        raise UsageError(
            f"{name}: {who} was tested on {tested} patches, not on the {count} of {ours['data']}, so it may have seen "
            f"these; pass {another} trained on the same data"
        )
    if "refit_of" in theirs and ours["patches"]["validation"]:
        raise UsageError(
            f"{name}: {who} was also trained on the validation patches; pass the run that it refits as `{option}`"
        )


EUROSAT_NAME = re.compile(rf"({'|'.join(c.folder for c in EUROSAT)})/\1_\d+\.(jpg|tif)")
"""The name of a patch of EuroSAT."""
EUROSAT_PATCHES = 27_000


def trunk_origin(model: Bundle) -> dict[str, Any]:
    """How the trunk of a model was made: for a last layer on another model's features, that model's origin."""
    origin: dict[str, Any] = model.origin.get("trunk", model.origin)
    return origin


def trained_on_eurosat(model: Bundle) -> bool:
    """Whether the trunk of a model was trained on EuroSAT, the whole data set and nothing else."""
    patches = trunk_origin(model).get("patches", {})
    return sum(count for count in patches.values() if isinstance(count, int)) == EUROSAT_PATCHES


def check_unseen_trunk(source: Bundle, patches: Patches, split: str) -> None:
    """Refuses the training patches of a trunk, and warns where some of the patches may be among them.

    A trunk of EuroSAT has not seen other patches, even if they have classes of the same names.

    Args:
        source: The model with the trunk.
        patches: The data set.
        split: Name of its split.

    Raises:
        UsageError: Patches of EuroSAT would be tested that a trunk of EuroSAT was trained on.
    """
    if not trained_on_eurosat(source):
        present = {
            c.folder for c, count in zip(patches.legend, patches.counts(np.arange(len(patches))), strict=True) if count
        }
        if present & {c.folder for c in source.legend}:
            log.warning(
                "%s may have been trained on some of these patches; then it is less accurate elsewhere", source.name
            )
        return
    named = sum(EUROSAT_NAME.fullmatch(name) is not None for name in patches.names)
    if named > len(patches) / 2 and not split == trunk_origin(source).get("split") == "spatial":
        raise UsageError(
            f"{patches.source}: {source.name} was trained on most of these patches; pass `split=spatial`, which tests "
            "on the others, or leave out `freeze`",
            page="how-to/own-model/",
        )
