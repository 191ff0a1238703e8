"""The novelty of a trained model: components of its training patches, and quantiles of its validation patches."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geocfl.data.patches import Patches
from geocfl.data.splits import Split
from geocfl.evaluation.held_out import patch_features
from geocfl.evaluation.logits import mosaic_features
from geocfl.models.backbones import has_features
from geocfl.models.bundle import NOVELTY, PERCENTILES, Bundle
from geocfl.models.devices import has_fast_bfloat16
from geocfl.models.network import load_network
from geocfl.models.novelty import Residual
from geocfl.models.reflectance import DenseReflectance, Reflectance

log = logging.getLogger("geocfl")

COMPONENTS = 256
"""Principal components at most; and at most half as many as features or patches, so that something is left over."""
PATCHES = 4096
"""Patches that are enough for the components and the quantiles."""


def with_novelty(
    model: Bundle,
    module: Reflectance,
    patches: Patches,
    split: Split,
    *,
    validated: Bundle | None = None,
    known: Tensor | None = None,
    seed: int = 0,
) -> tuple[Bundle, dict[str, Tensor]]:
    """Fits the novelty of a trained model.

    Args:
        model: The model.
        module: Its trained network, on the device where it computes. It gets the residual.
        patches: The data set.
        split: Which of the patches give the components (training) and the quantiles (validation). For a refit, that of
            the validated run.
        validated: For a refit, the validated run's model. No patches are left that the network has not seen, so that
            the quantiles are those of this model, scaled by the ratio of the two networks' median residuals of training
            patches.
        known: (N, D) features of all patches, if the network has given them already.
        seed: Chooses among many patches.

    Returns:
        The model with its quantiles, and the tensors to save beside those of its network. Without tensors, the model
        has no novelty: its network gives no features, or the validated model has none.
    """
    if not _gives_features(module, patches, split) or (validated and not validated.novelty):
        log.info("%s gets no novelty: its network gives no features for its last layer", model.name)
        return replace(model, novelty=()), {}
    device = next(module.parameters()).device
    training = _features(module, patches, split.train, seed, known)
    residual = fit_residual(training)
    if validated:
        first = load_network(validated).to(device)
        before = first.residual(_features(first, patches, split.train, seed).to(device))  # type: ignore[misc]
        ratio = float(residual(training).median()) / (float(before.median()) or 1.0)
        quantiles = ratio * np.array(validated.novelty)
    else:
        residuals = residual(_features(module, patches, split.validation, seed, known))
        quantiles = np.quantile(residuals.double().numpy(), np.linspace(0, 1, PERCENTILES))
    module.residual = residual.to(device)
    tensors = {f"{NOVELTY}{name}": value for name, value in residual.named_buffers()}
    return replace(model, novelty=tuple(quantiles.round(6).tolist())), tensors


def fit_residual(features: Tensor) -> Residual:
    """The residual off the principal components of features, rounded to half precision as it is stored.

    Args:
        features: (n, D), n >= 1.
    """
    x = features.double()
    mean = x.mean(0)
    # Its right vectors are the covariance's eigenvectors, whose solvers may fail with fewer patches than features.
    components = torch.linalg.svd(x - mean, full_matrices=False).Vh
    return Residual(mean.half(), components[: min(COMPONENTS, len(x) // 2, x.shape[1] // 2)].half())


def _features(
    module: Reflectance, patches: Patches, indices: NDArray[np.int64], seed: int, known: Tensor | None = None
) -> Tensor:
    """(n, D) features of at most `PATCHES` of some patches, on the CPU: as the model meets them in a scene."""
    chosen = np.random.default_rng(seed).permutation(indices)[:PATCHES]
    if known is not None:
        return known[torch.from_numpy(chosen)]
    device = next(module.parameters()).device
    precision = "bfloat16" if has_fast_bfloat16(device) else "float32"
    if isinstance(module, DenseReflectance):
        return mosaic_features(module, patches, chosen, seed=seed, precision=precision)
    return patch_features(module, patches, chosen, precision)


@torch.inference_mode()
def _gives_features(module: Reflectance, patches: Patches, split: Split) -> bool:
    """Whether the last layer makes the network's logits of its features; registered networks may not say so."""
    if not has_features(module.network) or not isinstance(module.head, nn.Module):
        return False
    device = next(module.parameters()).device
    x = module.eval().normalize(torch.from_numpy(patches.reflectance(split.train[:2])).to(device))
    logits, features = module.network(x), module.pooled(x)
    return features.ndim == 2 and torch.allclose(module.head(features), logits, rtol=1e-2, atol=1e-2)
