"""What is tuned on validation patches after training: temperature, prediction sets, correlation of dates, and tau."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geocfl.data.augmentation import Augmentation
from geocfl.data.patches import Patches
from geocfl.data.splits import Split
from geocfl.evaluation.calibration import fit_damping, fit_temperature
from geocfl.evaluation.conformal import fit_thresholds
from geocfl.evaluation.held_out import augmented_scores
from geocfl.evaluation.logits import mosaic_features
from geocfl.losses import fit_tau, log_prior, loss_facts
from geocfl.models.bundle import PERCENTILES, Bundle
from geocfl.models.devices import has_fast_bfloat16
from geocfl.models.reflectance import DenseReflectance, Reflectance
from geocfl.training.config import TrainSettings
from geocfl.training.correlation import with_correlation
from geocfl.training.loop import Learner


def calibrate(
    model: Bundle,
    module: Reflectance,
    learner: Learner,
    patches: Patches,
    split: Split,
    settings: TrainSettings,
    validated: Bundle | None = None,
    *,
    sets: bool = True,
) -> Bundle:
    """Tunes a trained model on its validation patches.

    The temperature is that of patches without augmentation; for a dense model see `calibrate_dense`. The thresholds of
    prediction sets are those of patches with augmentation. For the correlation see `with_correlation`.

    Args:
        model: The model as `geocfl.training.start.describe_model` describes it.
        module: Its trained network, with its residual if it has novelty. If the loss is the post-hoc logit adjustment,
            the bias of its last layer is changed, so that it gives adjusted logits from now on. The residual of a dense
            network damps them from now on.
        learner: What was trained.
        patches: The data set.
        split: Its split.
        settings: Those of the run.
        validated: The model whose temperature, damping, thresholds, correlation and tau are used if there are no
            validation patches.
        sets: Fit the thresholds of prediction sets and the correlation too.

    Returns:
        The model with its temperature, damping, thresholds and correlation, and with tau in its origin if the logits
        are adjusted.
    """
    labels, counts = torch.from_numpy(patches.labels), patches.counts(split.train)
    if loss_facts(settings.loss).posthoc:
        if validated:
            tau = float(validated.origin["tau"])
        else:
            tau = fit_tau(learner.logits(split.validation), labels[split.validation], counts)
        _shift_bias(module.head, -tau * log_prior(counts))
        model = replace(model, origin={**model.origin, "tau": tau})
    if validated:
        return replace(
            model,
            temperature=validated.temperature,
            damping=validated.damping,
            conformal=validated.conformal,
            correlation=validated.correlation,
        )
    how = patches, split.validation, settings.augmentation, settings.seed
    if isinstance(module, DenseReflectance):
        model = calibrate_dense(model, module, *how)
        if module.residual is not None:
            module.residual.median, module.residual.damping = model.novelty[PERCENTILES // 2], model.damping
        return with_correlation(model, module, *how) if sets else model
    truth = labels[split.validation]
    temperature = fit_temperature(learner.logits(split.validation), truth)
    if not sets:
        return replace(model, temperature=temperature)
    shifted, _ = augmented_scores(module, *how)
    model = replace(model, temperature=temperature, conformal=fit_thresholds(shifted / temperature, truth))
    return with_correlation(model, module, *how)


def calibrate_dense(
    model: Bundle,
    module: DenseReflectance,
    patches: Patches,
    validation: NDArray[np.int64],
    augmentation: Augmentation,
    seed: int,
) -> Bundle:
    """Tunes a dense model on its validation patches.

    The temperature and its growth with novelty are fitted inside random mosaics. Land in a scene has other land around
    it, as a patch in a mosaic has, and the network is less sure there than of a patch with mirrored edges. The
    thresholds of prediction sets are those of patches with augmentation.

    Args:
        model: The model, with its novelty.
        module: Its network, with its residual, on the device where it computes. Its residual does not damp yet.
        patches: The data set.
        validation: (n,) indices of the patches, which the network was not trained on.
        augmentation: That of the training.
        seed: Decides the mosaics and the changes.

    Returns:
        The model with its temperature, damping and thresholds.
    """
    truth = torch.from_numpy(patches.labels[validation])
    device = next(module.parameters()).device
    precision = "bfloat16" if has_fast_bfloat16(device) else "float32"
    features = mosaic_features(module, patches, validation, seed=seed, precision=precision)
    with torch.no_grad():
        inside, usual = module.scores_of(features.to(device))
    shifted, unlike = augmented_scores(module, patches, validation, augmentation, seed, precision)
    if usual is None or unlike is None:
        temperature, damping = fit_temperature(inside.cpu(), truth), 0.0
    else:
        median = model.novelty[PERCENTILES // 2]
        temperature, damping = fit_damping(inside.cpu(), truth, (usual.cpu() / median).clamp_min(1))
        shifted = shifted / (unlike / median).clamp_min(1)[:, None] ** damping
    thresholds = fit_thresholds(shifted / temperature, truth)
    return replace(model, temperature=temperature, damping=damping, conformal=thresholds)


@torch.no_grad()
def _shift_bias(head: nn.Module, offset: Tensor) -> None:
    head.bias += offset.to(head.bias)  # type: ignore[operator, arg-type]
