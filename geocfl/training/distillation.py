"""The objective of a training step: the loss against the labels, mixup, and distillation from a teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geocfl.data.patches import Patches
from geocfl.errors import UsageError
from geocfl.models.backbones import check_features, feature_count
from geocfl.models.bundle import Bundle
from geocfl.models.network import load_network
from geocfl.models.reflectance import Reflectance
from geocfl.training.unseen import check_unseen

Teacher = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From (N, B, H, W) reflectance to (N, C) probabilities and (N, D) features before the last layer."""


class Imitator(nn.Module):
    """A student network with a linear projection of its features, which is trained to match the teacher's features.

    Args:
        student: The network.
        features: D, the number of the teacher's features.
    """

    def __init__(self, student: Reflectance, features: int) -> None:
        super().__init__()
        self.student = student
        self.projection = nn.Linear(feature_count(student.head), features)

    def forward(self, reflectance: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C) logits and (N, D) projected features of (N, B, H, W) reflectance."""
        features = self.student.features(reflectance)
        return self.student.head(features), self.projection(features)


class Objective:
    """The loss of a batch.

    Without a teacher and mixup, it is the criterion L. Mixup draws one lambda per batch and trains on
    lambda * x + (1 - lambda) * x', the reflectance of two augmented patches, with the losses of their two labels in the
    same proportion. A teacher classifies the same augmented patches as the student and contributes its probabilities q
    with weight w:

        (1 - w) * L(z, y) + w * KL(q || softmax(z))

    Sources: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015; Beyer et al., "Knowledge
    distillation: A good teacher is patient and consistent", CVPR 2022 (same augmented patches, mixup); Zhang et al.,
    "mixup: Beyond Empirical Risk Minimization", ICLR 2018.

    Label smoothing replaces the criterion L by (1 - s) * L + s * mean_c(-log softmax(z)_c) (Szegedy et al., "Rethinking
    the Inception Architecture for Computer Vision", CVPR 2016), so that no class becomes certain.

    Args:
        criterion: From (N, C) float32 logits and (N,) int64 labels to a scalar.
        mixup: Both parameters of the Beta distribution of lambda; 0 turns mixup off.
        teacher: None trains on labels only.
        weight: *w*, 0..1.
        hint: Weight of the cosine distance between projected and teacher's features, >= 0.
        smoothing: *s*, in [0, 1).
    """

    def __init__(
        self,
        criterion: nn.Module,
        mixup: float = 0.0,
        teacher: Teacher | None = None,
        weight: float = 0.0,
        hint: float = 0.0,
        smoothing: float = 0.0,
    ) -> None:
        self.criterion = criterion
        self.mixup = mixup
        self.teacher = teacher
        self.weight = weight
        self.hint = hint
        self.smoothing = smoothing

    def __call__(self, network: Callable[[Tensor], Any], x: Tensor, y: Tensor) -> Tensor:
        """The scalar loss of `network` on (N, ...) inputs and (N,) int64 labels."""
        other, share = y, 1.0
        if self.mixup:
            share = float(torch.distributions.Beta(self.mixup, self.mixup).sample())
            order = torch.randperm(len(y), device=y.device)
            x, other = share * x + (1 - share) * x[order], y[order]
        output = network(x)
        logits, projected = output if isinstance(output, tuple) else (output, None)
        logits = logits.float()
        loss: Tensor = share * self.criterion(logits, y)
        if share < 1:
            loss = loss + (1 - share) * self.criterion(logits, other)
        if self.smoothing:
            loss = (1 - self.smoothing) * loss - self.smoothing * logits.log_softmax(1).mean()
        if self.teacher is None:
            return loss
        with torch.no_grad():
            probabilities, features = self.teacher(x)
        imitation = F.kl_div(logits.log_softmax(1), probabilities, reduction="batchmean")
        loss = (1 - self.weight) * loss + self.weight * imitation
        if projected is None:
            return loss
        standardized = F.batch_norm(features.float(), None, None, training=True)
        return loss + self.hint * (1 - F.cosine_similarity(projected.float(), standardized, dim=1)).mean()


def load_teacher(names: Sequence[str], student: Bundle, patches: Patches, device: torch.device) -> Teacher | None:
    """One teacher from one or more models: the mean of their calibrated probabilities, their features concatenated.

    Args:
        names: Model folders or names; empty for no teacher.
        student: The model to be trained.
        patches: The data set that it is trained on.
        device: Where the teacher computes.

    Raises:
        ModelError: A model cannot be read.
        UsageError: A model has other classes or bands than the student, may know the labels of validation or test
            patches, or has a backbone without features.
    """
    modules: list[tuple[Reflectance, float]] = []
    for name in names:
        model = Bundle.load(name)
        _check_teacher(name, model, student, patches)
        module = load_network(model)
        check_features(module.network, model.backbone)
        modules.append((module.to(device).to(memory_format=torch.channels_last), model.temperature))

    def classify(reflectance: Tensor) -> tuple[Tensor, Tensor]:
        features = [module.features(reflectance) for module, _ in modules]
        probabilities = [(module.head(f) / t).softmax(1) for (module, t), f in zip(modules, features, strict=True)]
        return torch.stack(probabilities).mean(0), torch.cat(features, 1)

    return classify if modules else None


def _check_teacher(name: str, model: Bundle, student: Bundle, patches: Patches) -> None:
    if model.legend.names != patches.legend.names:
        raise UsageError(f"{name}: the teacher's classes are not those of {patches.source}; pass another `teacher`")
    if model.bands != student.bands:
        raise UsageError(
            f"{name}: the teacher reads {', '.join(model.bands)}; pass the same `bands`, or another `teacher`"
        )
    check_unseen("teacher", name, model, student)
