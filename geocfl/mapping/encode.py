"""The values that a cell keeps of its window's probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geocfl.core.legend import UNCLASSIFIED
from geocfl.models.projection import COMPONENTS, Projection
from geocfl.models.sets import prediction_sets
from geocfl.products.prediction_sets import pack, set_type
from geocfl.products.scratch import (
    BANDS,
    ENTROPY,
    FEATURES,
    LOGITS,
    MEMBERS,
    NO_CONFIDENCE,
    NOVELTY,
    PROBABILITY,
    VALID,
)

LEAST = 1e-7
"""Probabilities below this count as this much, because the logarithm of 0 is infinite."""
LARGEST = float(np.finfo(np.float16).max)
"""Features beyond this are cut, because half precision has no larger numbers."""


@dataclass(frozen=True)
class Decision:
    """Turns calibrated probabilities, and novelty if the model knows it, into the values of cells.

    Attributes:
        classes: Number of classes.
        min_confidence: Cells are unclassified if their confidence, in whole percent, is below this (0..1).
        detail: Whether to keep entropy and all probabilities too.
        logits: Whether to append what `geocfl.mapping.refine` needs: the logarithm of each probability in half
            precision, as two bytes. Percentages would change a third of the smoothed confidences.
        novelty: Whether to keep novelty.
        max_novelty: Cells are unclassified if their novelty, in whole percent, is beyond this (0..100).
        saturation: Reflectance from which on a pixel saturates; cells with many such pixels have a novelty of 100.
        valid: Whether to keep the valid share.
        conformal: Threshold of each class (0..1) for prediction sets; empty to keep no sets.
        projection: Gives the components of features to keep; None to keep none.
    """

    classes: int
    min_confidence: float = 0.0
    detail: bool = False
    logits: bool = False
    novelty: bool = False
    max_novelty: float | None = None
    saturation: float = np.inf
    valid: bool = False
    conformal: tuple[float, ...] = ()
    projection: Projection | None = None

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the values of a cell, see `geocfl.products.scratch`."""
        return (
            *BANDS,
            *([NOVELTY] if self.novelty else []),
            *([VALID] if self.valid else []),
            *([MEMBERS] * set_type(self.classes).itemsize if self.conformal else []),
            *([ENTROPY, *[PROBABILITY] * self.classes] if self.detail else []),
            *([FEATURES] * 2 * (COMPONENTS + 1) if self.projection else []),
            *([LOGITS] * 2 * self.classes if self.logits else []),
        )

    def of(
        self,
        probability: NDArray[np.float32],
        novelty: NDArray[np.float32] | None = None,
        features: NDArray[np.floating] | None = None,
        valid: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8]:
        """Values of cells from the probabilities of their windows.

        Entropy is normalized Shannon entropy, -sum p log p / log(classes): 0 if one class is certain, 1 if all are
        equally likely.

        Args:
            probability: (n, classes), rows sum to 1.
            novelty: (n,) percent, 0..100; only if cells keep it.
            features: (n, `COMPONENTS` + 1), from `projection`; only if cells keep them.
            valid: (n,) percent, from `geocfl.mapping.valid`; only if cells keep it.

        Returns:
            (bands, n) uint8: code; confidence in percent; novelty, rounded up to whole percent so that what is beyond a
            whole number stays so; the valid share; the bytes of `geocfl.products.prediction_sets.pack`; entropy and
            probabilities in percent; features; logits.
        """
        percent = np.rint(100 * probability).astype(np.uint8)
        confidence = percent.max(axis=1)
        withheld = confidence < round(100 * self.min_confidence, 6)  # 100 * 0.07 is above 7
        values = []
        if self.novelty:
            if novelty is None:
                raise ValueError("the back end gives no novelty")
            unlike = np.ceil(novelty.clip(0, 100))
            values.append(unlike)
            if self.max_novelty is not None:
                withheld |= unlike > self.max_novelty
        if self.valid:
            if valid is None:
                raise ValueError("the valid shares are missing")
            values.append(valid)
        if self.conformal:
            values += [*pack(prediction_sets(probability, self.conformal))]
        if self.detail:
            surprise = -np.log(np.maximum(probability, np.finfo(np.float32).tiny))
            entropy = np.rint(100 * (probability * surprise).sum(axis=1) / np.log(max(2, self.classes)))
            values += [np.clip(entropy, 0, 100), *percent.T]
        if self.projection:
            if features is None:
                raise ValueError("the features are missing")
            values += [*features.clip(-LARGEST, LARGEST).astype("<f2").view(np.uint8).T]
        if self.logits:
            values += [*np.log(np.maximum(probability, LEAST)).astype("<f2").view(np.uint8).T]
        codes = np.where(withheld, UNCLASSIFIED, probability.argmax(axis=1) + 1)
        return np.array([codes, confidence, *values]).astype(np.uint8)

    def logits_of(self, cells: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits of cells that `of` has encoded.

        Args:
            cells: (rows, bands, columns) of a work raster with logits.

        Returns:
            (rows, columns, classes) logarithms of probabilities; NaN where all bytes are 255.
        """
        stored = np.ascontiguousarray(cells[:, -2 * self.classes :].transpose(0, 2, 1))
        return stored.view("<f2").astype(np.float32)

    def features_of(self, cells: NDArray[np.uint8]) -> NDArray[np.float16]:
        """Features of cells that `of` has encoded.

        Args:
            cells: (rows, bands, columns) of a work raster.

        Returns:
            (rows, columns, `COMPONENTS` + 1); NaN where all bytes are 255.
        """
        return np.ascontiguousarray(cells[:, self._numbers(FEATURES)].transpose(0, 2, 1)).view("<f2")

    def novelty_of(self, cells: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Novelty of cells that `of` has encoded.

        Args:
            cells: (rows, bands, columns) of a work raster.

        Returns:
            (rows, columns, 1) percent, NaN where it is not known; (rows, columns, 0) if cells keep none.
        """
        stored = cells[:, self._numbers(NOVELTY)].transpose(0, 2, 1)
        return np.where(stored == NO_CONFIDENCE, np.nan, stored).astype(np.float32)

    def valid_of(self, cells: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """Valid shares of cells that `of` has encoded.

        Args:
            cells: (rows, bands, columns) of a work raster.

        Returns:
            (rows, columns) percent; None if cells keep none.
        """
        return cells[:, self.bands.index(VALID)] if self.valid else None

    def _numbers(self, name: str) -> list[int]:
        """Numbers of the bands of a name, from 0."""
        return [band for band, found in enumerate(self.bands) if found == name]
