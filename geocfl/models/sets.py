"""Prediction sets: the classes that a window may belong to, instead of the most probable one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def prediction_sets(probabilities: NDArray[np.floating], thresholds: Sequence[float]) -> NDArray[np.bool_]:
    """The classes whose probability is not too low for them.

    Args:
        probabilities: (..., C) calibrated probabilities.
        thresholds: Those of the C classes, 0..1, `geocfl.models.bundle.Bundle.conformal`.

    Returns:
        (..., C) whether a class is in the set: 1 - its probability is at most its threshold. A set may be empty, if no
        class fits, as on land that belongs to none.
    """
    return 1 - np.asarray(probabilities, np.float64) <= np.asarray(thresholds)
