"""Novelty: how far the features of a window lie off those of the training patches."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from geocfl.models.bundle import NOVELTY, PERCENTILES, Bundle


class Residual(nn.Module):
    """The distance of features from the principal components of the training patches' features.

    r(g) = ||(I - U^T U) (g - mean)||, with the components as rows of U. Features of unknown land have parts that no
    training patch has.

    Source: Wang et al., "ViM: Out-Of-Distribution with Virtual-logit Matching", CVPR 2022, section 4.1.

    Args:
        mean: (D,) mean of the training patches' features.
        components: (K, D) principal components, orthonormal rows.
        median: Residual up to which logits are not damped, > 0.
        damping: Exponent of the damping, >= 0; 0 turns it off.
    """

    mean: Tensor
    components: Tensor

    def __init__(self, mean: Tensor, components: Tensor, median: float = 1.0, damping: float = 0.0) -> None:
        super().__init__()
        self.median, self.damping = median, damping
        self.register_buffer("mean", mean.float(), persistent=False)
        self.register_buffer("components", components.float(), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """(...) float32 residuals of (..., D) features."""
        with torch.autocast(features.device.type, enabled=False):  # a small difference of large numbers
            centered = features.float() - self.mean
            inside = centered @ self.components.T  # orthonormal components: Pythagoras gives the part outside
            squares = centered.square().sum(-1) - inside.square().sum(-1)
            return squares.clamp_min(0).sqrt()

    def damp(self, logits: Tensor, residuals: Tensor) -> Tensor:
        """(..., C) logits divided by max(1, residual / median) ** damping: less confident where land is new."""
        if not self.damping:
            return logits
        return logits / (residuals / self.median).clamp_min(1).pow(self.damping)[..., None]


def without_residual(tensors: Mapping[str, Tensor], bundle: Bundle) -> tuple[dict[str, Tensor], Residual | None]:
    """The tensors of a bundle's network, and the residual that is stored beside them; None if there is none.

    Args:
        tensors: Content of the weights file.
        bundle: The model.

    Raises:
        ValueError: The model's facts and the tensors do not fit together.
    """
    network = {name: value for name, value in tensors.items() if not name.startswith(NOVELTY)}
    stored = {name.removeprefix(NOVELTY): value for name, value in tensors.items() if name.startswith(NOVELTY)}
    if bool(stored) != bool(bundle.novelty):
        raise ValueError("novelty has quantiles or components, but not both")
    if not stored:
        return network, None
    mean, components = stored.get("mean"), stored.get("components")
    if mean is None or components is None or mean.ndim != 1 or components.shape[1:] != mean.shape:
        raise ValueError("the mean and the components of novelty do not fit together")
    if not all(bool(value.isfinite().all()) for value in (mean, components)):
        raise ValueError("the tensors of novelty are not finite")
    return network, Residual(mean, components, bundle.novelty[PERCENTILES // 2], bundle.damping)
