"""Novelty, temperature and prediction sets of a last layer on a model's features, from its cross-validation."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from geocfl.evaluation.calibration import fit_damping, fit_temperature
from geocfl.evaluation.conformal import fit_thresholds
from geocfl.evaluation.significance import wilson_interval
from geocfl.models.bundle import PERCENTILES, Bundle
from geocfl.models.novelty import Residual
from geocfl.models.reflectance import Reflectance
from geocfl.training.novelty import fit_residual

log = logging.getLogger("geocfl")

NEW_COMPONENTS = 32
"""Components at most that new land adds to the novelty of a model; and at most half as many as patches."""


@dataclass(frozen=True)
class HeldOut:
    """What a cross-validation has predicted, each patch as a map meets it.

    Attributes:
        features: (P, D) float32: first those of the new patches, then those that were stored.
        logits: (P, C) float32 of the fold that a patch is held out in.
        labels: (P,) int64.
        folds: (P,) the folds.
        own: Number of new patches.
    """

    features: Tensor
    logits: Tensor
    labels: Tensor
    folds: NDArray[np.int64]
    own: int


@dataclass(frozen=True)
class Tuned:
    """The novelty of a model, and how it damps logits.

    Attributes:
        residual: The residual; None for a model without novelty.
        residuals: (P,) residuals of the patches.
        median: Median of the residuals.
        damping: Exponent of the damping.
    """

    residual: Residual | None
    residuals: Tensor
    median: float
    damping: float

    def damp(self, logits: Tensor, residuals: Tensor) -> Tensor:
        """As `geocfl.models.novelty.Residual.damp`."""
        if not self.damping:
            return logits
        return logits / (residuals / self.median).clamp_min(1).pow(self.damping)[:, None]


def tune(model: Bundle, source: Bundle, module: Reflectance, held: HeldOut, *, kept: bool) -> tuple[Bundle, Tuned]:
    """Tunes a model on the patches that its cross-validation has held out.

    A temperature and a damping are only used if they lower the negative log-likelihood of patches that they were not
    fitted on, and if the mean confidence without them is outside the 95 % interval of the accuracy: few patches, all of
    them correct, are no reason to be certain.

    A model that keeps the classes of another also keeps its damping and its novelty, which gets components for the new
    land. Its temperature is the one for which its probabilities of stored patches are closest to those of that model,
    and its thresholds of kept classes are at least those of that model.

    Args:
        model: The new model.
        source: The model whose features it uses.
        module: The network of `source`, on the CPU.
        held: The held-out patches.
        kept: Whether the model keeps the classes of `source`, of which there are stored features.

    Returns:
        The model with novelty, temperature, damping and thresholds; and its novelty.
    """
    if kept:
        quantiles, tuned = _extended(source, module, held)
    else:
        quantiles, tuned = _fitted(held)
    targets = F.one_hot(held.labels, len(model.legend)).double()
    if kept:
        targets[held.own :, : len(source.legend)] = _probabilities(source, module, held.features[held.own :])
    temperature, tuned = _temperature(held, targets, tuned, fixed=kept)
    logits = tuned.damp(held.logits, tuned.residuals) / temperature
    thresholds = fit_thresholds(logits, held.labels)
    if kept and source.conformal:
        least = (*source.conformal, *[0.0] * (len(thresholds) - len(source.conformal)))
        thresholds = tuple(map(max, thresholds, least))
    if kept:
        _describe_kept(module, held)
    return replace(
        model, novelty=quantiles, temperature=temperature, damping=tuned.damping, conformal=thresholds
    ), tuned


def _fitted(held: HeldOut) -> tuple[tuple[float, ...], Tuned]:
    """Novelty of new patches only; its quantiles are those of held-out patches."""
    residuals = torch.zeros(len(held.features))
    for fold in np.unique(held.folds):
        out = torch.from_numpy(held.folds == fold)
        residuals[out] = fit_residual(held.features[~out])(held.features[out])
    quantiles = tuple(np.quantile(residuals.double().numpy(), np.linspace(0, 1, PERCENTILES)).round(6).tolist())
    return quantiles, Tuned(fit_residual(held.features), residuals, quantiles[PERCENTILES // 2] or 1.0, 0.0)


def _extended(source: Bundle, module: Reflectance, held: HeldOut) -> tuple[tuple[float, ...], Tuned]:
    """The novelty of a model, with components for the new land, scaled so that known land keeps its percentile."""
    known = module.residual
    if known is None:
        return (), Tuned(None, torch.zeros(len(held.features)), 1.0, 0.0)
    centered = held.features[: held.own] - known.mean
    outside = centered - centered @ known.components.T @ known.components
    count = min(NEW_COMPONENTS, max(1, held.own // 2))
    directions = torch.linalg.svd(outside, full_matrices=False)[2][:count]
    residual = Residual(known.mean.half(), torch.cat([known.components, directions]).half())
    stored = held.features[held.own :]
    ratio = float(residual(stored).median()) / (float(known(stored).median()) or 1.0)
    quantiles = tuple((ratio * np.array(source.novelty)).round(6).tolist())
    return quantiles, Tuned(residual, residual(held.features), quantiles[PERCENTILES // 2], source.damping)


@torch.no_grad()
def _probabilities(source: Bundle, module: Reflectance, features: Tensor) -> Tensor:
    """(n, C) probabilities that a model gives to features."""
    logits = module.head(features)
    if module.residual is not None:
        logits = module.residual.damp(logits, module.residual(features))
    probabilities: Tensor = (logits.double() / source.temperature).softmax(1)
    return probabilities


def _temperature(held: HeldOut, targets: Tensor, tuned: Tuned, *, fixed: bool) -> tuple[float, Tuned]:
    """The temperature, and the damping if it is not fixed; neither where they make held-out patches less likely."""
    ratio = (tuned.residuals / tuned.median).clamp_min(1) if tuned.residual else None

    def fit(rows: Tensor) -> tuple[float, float]:
        if not fixed:
            return fit_damping(held.logits[rows], targets[rows], None if ratio is None else ratio[rows])
        damped = tuned.damp(held.logits[rows], tuned.residuals[rows])
        return fit_temperature(damped, targets[rows]), tuned.damping

    def score(rows: Tensor, temperature: float, damping: float) -> float:
        logits = replace(tuned, damping=damping).damp(held.logits[rows], tuned.residuals[rows]).double()
        return float(F.cross_entropy(logits / temperature, targets[rows], reduction="sum"))

    fitted, plain = 0.0, 0.0
    for fold in np.unique(held.folds):
        out = torch.from_numpy(held.folds == fold)
        fitted += score(out, *fit(~out))
        plain += score(out, 1.0, tuned.damping)
    if fitted >= plain or (not fixed and _credible(held.logits, held.labels)):
        log.info("the temperature stays 1: these patches do not show that another one is better")
        return 1.0, tuned
    temperature, damping = fit(torch.ones(len(targets), dtype=torch.bool))
    return temperature, replace(tuned, damping=damping)


def _credible(logits: Tensor, labels: Tensor) -> bool:
    """Whether the mean confidence lies in Wilson's 95 % interval of the accuracy."""
    confidence, predicted = logits.double().softmax(1).max(1)
    low, high = wilson_interval(int((predicted == labels).sum()), len(labels))
    return low <= float(confidence.mean()) <= high


@torch.no_grad()
def _describe_kept(module: Reflectance, held: HeldOut) -> None:
    """Says how much the kept classes have lost to the new ones."""
    truth = held.labels[held.own :]
    before = module.head(held.features[held.own :]).argmax(1) == truth
    after = held.logits[held.own :].argmax(1) == truth
    log.info(
        "the classes that are kept: %.1f%% of %s stored patches correct before, %.1f%% now",
        100 * float(before.float().mean()),
        f"{len(truth):,}",
        100 * float(after.float().mean()),
    )
