"""How much the maps of one place at several dates err together, fitted on patches under several radiometries."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geocfl.data.augmentation import Augmentation
from geocfl.data.patches import Patches
from geocfl.evaluation.calibration import fit_correlation
from geocfl.evaluation.held_out import augmented_scores
from geocfl.evaluation.logits import mosaic_features
from geocfl.models.bundle import Bundle
from geocfl.models.devices import has_fast_bfloat16
from geocfl.models.reflectance import DenseReflectance, Reflectance

DATES = 2
"""Radiometries under which each patch is seen."""


def with_correlation(
    model: Bundle,
    module: Reflectance,
    patches: Patches,
    validation: NDArray[np.int64],
    augmentation: Augmentation,
    seed: int,
) -> Bundle:
    """Fits how much the probabilities of a calibrated model err together at two dates.

    Args:
        model: The model, calibrated.
        module: Its network, with its damping, on the device where it computes.
        patches: The data set.
        validation: (n,) indices of the patches, which the network was not trained on.
        augmentation: That of the training, of which the radiometry counts.
        seed: Decides the radiometries, and what lies around a patch.

    Returns:
        The model with its correlation.
    """
    looks = log_probabilities(model, module, patches, validation, augmentation, seed)
    return replace(model, correlation=fit_correlation(looks, torch.from_numpy(patches.labels[validation])))


@torch.no_grad()
def log_probabilities(
    model: Bundle,
    module: Reflectance,
    patches: Patches,
    indices: NDArray[np.int64],
    augmentation: Augmentation,
    seed: int,
    dates: int = DATES,
) -> Tensor:
    """Classifies patches under several radiometries each, as a scene is seen at several dates.

    A dense model sees them inside random mosaics, with the same land around a patch at each date.

    Args:
        model: As for `with_correlation`.
        module: As for `with_correlation`.
        patches: The data set.
        indices: (n,) which of its patches.
        augmentation: As for `with_correlation`.
        seed: As for `with_correlation`.
        dates: Number of radiometries.

    Returns:
        (dates, n, C) float64 logarithms of calibrated probabilities on the CPU.
    """
    device = next(module.parameters()).device
    precision = "bfloat16" if has_fast_bfloat16(device) else "float32"
    seeds = np.random.SeedSequence(seed).generate_state(dates).tolist()
    radiometry = Augmentation(
        surface=augmentation.surface, gain=augmentation.gain, haze=augmentation.haze, veil=augmentation.veil
    )
    found = []
    for each in seeds:
        if isinstance(module, DenseReflectance):
            rng = torch.Generator().manual_seed(each)
            change = partial(radiometry.radiometry, bands=patches.bands, rng=rng)
            features = mosaic_features(module, patches, indices, change=change, seed=seed, precision=precision)
            logits = module.scores_of(features.to(device))[0].cpu()
        else:
            logits = augmented_scores(module, patches, indices, radiometry, each, precision)[0]
        found.append((logits.double() / model.temperature).log_softmax(1))
    return torch.stack(found)
