"""The values that a cell keeps of its window's probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geocfl.core.legend import UNCLASSIFIED
from geocfl.products.scratch import BANDS, ENTROPY, PROBABILITY


@dataclass(frozen=True)
class Decision:
    """Turns calibrated probabilities into the values of cells.

    Attributes:
        classes: Number of classes.
        min_confidence: Cells are unclassified if their confidence, in whole percent, is below this (0..1).
        detail: Whether to keep entropy and all probabilities too.
    """

    classes: int
    min_confidence: float = 0.0
    detail: bool = False

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the values of a cell, see `geocfl.products.scratch`."""
        return (*BANDS, ENTROPY, *[PROBABILITY] * self.classes) if self.detail else BANDS

    def of(self, probability: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Values of cells from the probabilities of their windows.

        Entropy is normalized Shannon entropy, -sum p log p / log(classes): 0 if one class is certain, 1 if all are
        equally likely.

        Args:
            probability: (n, classes), rows sum to 1.

        Returns:
            (bands, n) uint8: code; confidence, entropy and probabilities in percent.
        """
        percent = np.rint(100 * probability).astype(np.uint8)
        confidence = percent.max(axis=1)
        withheld = confidence < round(100 * self.min_confidence, 6)  # 100 * 0.07 is above 7
        codes = np.where(withheld, UNCLASSIFIED, probability.argmax(axis=1) + 1)
        if not self.detail:
            return np.stack([codes, confidence]).astype(np.uint8)
        surprise = -np.log(np.maximum(probability, np.finfo(np.float32).tiny))
        entropy = np.rint(100 * (probability * surprise).sum(axis=1) / np.log(max(2, self.classes)))
        return np.concatenate([[codes, confidence, np.clip(entropy, 0, 100)], percent.T]).astype(np.uint8)
