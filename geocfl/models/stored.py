"""Features of training patches that a bundle carries, so that classes can be added to its model without its data."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from geocfl.errors import ModelError
from geocfl.models.bundle import WEIGHTS, Bundle

FEATURES = "features.safetensors"
"""The file of stored features in a bundle."""
LEVELS = 255
"""Steps between the smallest and the largest value of a stored feature."""


@dataclass(frozen=True)
class StoredFeatures:
    """Features of training patches, as the model's trunk gives them.

    Attributes:
        features: (N, D) float32.
        labels: (N,) int64, code of the class - 1.
    """

    features: Tensor
    labels: Tensor


def write_stored(folder: Path, features: Tensor, labels: Tensor) -> None:
    """Writes the stored features of the bundle in a folder, whose weights must be there already.

    They are rounded to 256 levels between the smallest and the largest value of each feature.

    Args:
        folder: Folder of the bundle.
        features: (N, D) float32.
        labels: (N,) int64, code of the class - 1.
    """
    low = features.min(0).values
    step = ((features.max(0).values - low) / LEVELS).clamp_min(1e-12)
    tensors = {
        "features": ((features - low) / step).round().clamp(0, LEVELS).to(torch.uint8),
        "labels": labels.to(torch.uint8),
        "low": low,
        "step": step,
    }
    (folder / FEATURES).write_bytes(save(tensors, metadata={"weights": _digest(folder)}))


def read_stored(bundle: Bundle) -> StoredFeatures | None:
    """The stored features of a bundle; None if it has none. No code in the file runs.

    Raises:
        ModelError: They are corrupt, or of another model.
    """
    file = bundle.folder / FEATURES
    if not file.is_file():
        return None
    try:
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata() or {}
            levels, labels, low, step = (opened.get_tensor(name) for name in ("features", "labels", "low", "step"))
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelError(f"{file}: not a readable file of stored features ({error}); restore the file") from error
    if metadata.get("weights") != _digest(bundle.folder):
        raise ModelError(f"{file}: not the stored features of the weights beside it; restore the model")
    if levels.ndim != 2 or labels.shape != levels.shape[:1] or not low.shape == step.shape == levels.shape[1:]:
        raise ModelError(f"{file}: the stored features and their labels do not fit together; restore the file")
    labels, features = labels.long(), low.float() + levels.float() * step.float()
    if not bool(features.isfinite().all()):
        raise ModelError(f"{file}: some stored features are not finite numbers; restore the file")
    if len(labels) == 0 or int(labels.max()) >= len(bundle.legend):
        raise ModelError(f"{file}: some stored features are of no class of {bundle.name}; restore the file")
    return StoredFeatures(features, labels)


def _digest(folder: Path) -> str:
    """SHA-256 of a bundle's weights: features are only of use with the trunk that made them."""
    return hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
