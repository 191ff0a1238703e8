"""Refuses models that may have seen the validation or test patches of a training."""

from __future__ import annotations

from typing import Literal

from geocfl.data.splits import STATED
from geocfl.errors import UsageError
from geocfl.models.bundle import Bundle

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
