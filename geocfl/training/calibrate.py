"""What is tuned on the validation patches after training: temperature, prediction sets, and tau of logit adjustment."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from geocfl.data.patches import Patches
from geocfl.data.splits import Split
from geocfl.evaluation.calibration import fit_temperature
from geocfl.evaluation.conformal import fit_thresholds
from geocfl.evaluation.held_out import augmented_logits
from geocfl.losses import fit_tau, log_prior, loss_facts
from geocfl.models.bundle import Bundle
from geocfl.models.network import Reflectance
from geocfl.training.config import TrainSettings
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

    The temperature is that of patches without augmentation; for a dense model, of patches in mosaics, once without and
    once with augmentation, because scenes are less sharp than patches and have other atmospheres. The thresholds of
    prediction sets are those of patches with augmentation.

    Args:
        model: The model as `geocfl.training.start.describe_model` describes it.
        module: Its trained network. If the loss is the post-hoc logit adjustment, the bias of its last layer is
            changed, so that it gives adjusted logits from now on.
        learner: What was trained.
        patches: The data set.
        split: Its split.
        settings: Those of the run.
        validated: The model whose temperature, thresholds and tau are used if there are no validation patches.
        sets: Fit the thresholds of prediction sets too.

    Returns:
        The model with its temperature and thresholds, and with tau in its origin if the logits are adjusted.
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
        return replace(model, temperature=validated.temperature, conformal=validated.conformal)
    logits, truth = learner.logits(split.validation), labels[split.validation]
    if not sets:
        return replace(model, temperature=fit_temperature(logits, truth))
    shifted = augmented_logits(module, patches, split.validation, settings.augmentation, settings.seed)
    if settings.dense:
        temperature = fit_temperature(torch.cat([logits, shifted]), torch.cat([truth, truth]))
    else:
        temperature = fit_temperature(logits, truth)
    return replace(model, temperature=temperature, conformal=fit_thresholds(shifted / temperature, truth))


@torch.no_grad()
def _shift_bias(head: nn.Module, offset: Tensor) -> None:
    head.bias += offset.to(head.bias)  # type: ignore[operator, arg-type]
