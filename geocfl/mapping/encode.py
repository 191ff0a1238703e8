"""The values that a cell keeps of its window's probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geocfl.core.legend import UNCLASSIFIED
from geocfl.products.scratch import BANDS, ENTROPY, LOGITS, PROBABILITY

LEAST = 1e-7
"""Probabilities below this count as this much, because the logarithm of 0 is infinite."""


@dataclass(frozen=True)
class Decision:
    """Turns calibrated probabilities into the values of cells.

    Attributes:
        classes: Number of classes.
        min_confidence: Cells are unclassified if their confidence, in whole percent, is below this (0..1).
        detail: Whether to keep entropy and all probabilities too.
        logits: Whether to append what `geocfl.mapping.refine` needs: the logarithm of each probability in half
            precision, as two bytes. Percentages would change a third of the smoothed confidences.
    """

    classes: int
    min_confidence: float = 0.0
    detail: bool = False
    logits: bool = False

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the values of a cell, see `geocfl.products.scratch`."""
        shown = (*BANDS, ENTROPY, *[PROBABILITY] * self.classes) if self.detail else BANDS
        return (*shown, *[LOGITS] * 2 * self.classes) if self.logits else shown

    def of(self, probability: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Values of cells from the probabilities of their windows.

        Entropy is normalized Shannon entropy, -sum p log p / log(classes): 0 if one class is certain, 1 if all are
        equally likely.

        Args:
            probability: (n, classes), rows sum to 1.

        Returns:
            (bands, n) uint8: code; confidence, entropy and probabilities in percent; logits.
        """
        percent = np.rint(100 * probability).astype(np.uint8)
        confidence = percent.max(axis=1)
        withheld = confidence < round(100 * self.min_confidence, 6)  # 100 * 0.07 is above 7
        codes = np.where(withheld, UNCLASSIFIED, probability.argmax(axis=1) + 1)
        values = [codes, confidence]
        if self.detail:
            surprise = -np.log(np.maximum(probability, np.finfo(np.float32).tiny))
            entropy = np.rint(100 * (probability * surprise).sum(axis=1) / np.log(max(2, self.classes)))
            values += [np.clip(entropy, 0, 100), *percent.T]
        if self.logits:
            values += [*np.log(np.maximum(probability, LEAST)).astype("<f2").view(np.uint8).T]
        return np.array(values).astype(np.uint8)

    def logits_of(self, cells: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits of cells that `of` has encoded.

        Args:
            cells: (rows, bands, columns) of a work raster with logits.

        Returns:
            (rows, columns, classes) logarithms of probabilities; NaN where all bytes are 255.
        """
        stored = np.ascontiguousarray(cells[:, -2 * self.classes :].transpose(0, 2, 1))
        return stored.view("<f2").astype(np.float32)
