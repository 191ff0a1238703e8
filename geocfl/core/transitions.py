"""Transitions between two classes: their raster codes, names and colors."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from geocfl.core.legend import NODATA, UNCLASSIFIED, Legend, LulcClass

INCOMPLETE = LulcClass(65535, "Unclassified", "", "#d9d9d9")
"""Cells with data on both maps that are unclassified on one of them."""
PALE = 0.75
"""Share of white in the color of a class that stays."""
TRACE = 0.3
"""Share of the earlier class's color in that of a transition, which is close to the color of the later class."""


def code_factor(legend: Legend) -> int:
    """What the earlier class's code is multiplied by in the code of a transition; the later class's code is added.

    It is 100 if it can be, so that 208 reads "from 2 to 8".
    """
    return 100 if len(legend) < 100 else 256


def transition_codes(legend: Legend) -> NDArray[np.uint16]:
    """(256, 256) codes of transitions by the codes of both classes; 0 where either has no data."""
    codes = np.zeros((256, 256), np.uint16)
    codes[1:, 1:] = INCOMPLETE.code
    numbers = np.arange(1, len(legend) + 1)
    codes[1 : len(legend) + 1, 1 : len(legend) + 1] = numbers[:, None] * code_factor(legend) + numbers
    return codes


def transition_classes(legend: Legend, pairs: Iterable[tuple[int, int]]) -> list[LulcClass]:
    """Code, name and color of each pair of class codes that has a class before and after, in the order of `pairs`."""
    factor = code_factor(legend)
    return [
        LulcClass(factor * before + after, _name(legend, before, after), "", _color(legend, before, after))
        for before, after in pairs
        if not {before, after} & {NODATA, UNCLASSIFIED}
    ]


def _name(legend: Legend, before: int, after: int) -> str:
    """Such as ``"Forest > Residential"``, or ``"Forest"`` if the class stays."""
    return legend[before].name if before == after else f"{legend[before].name} > {legend[after].name}"


def _color(legend: Legend, before: int, after: int) -> str:
    """Pale if the class stays, else close to the later class."""
    other, share = ((255, 255, 255), PALE) if before == after else (legend[before].rgb, TRACE)
    mixed = (share * a + (1 - share) * b for a, b in zip(other, legend[after].rgb, strict=True))
    return "#" + bytes(round(value) for value in mixed).hex()
