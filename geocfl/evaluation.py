"""How good predictions are, and how far their probabilities can be believed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_calibration_error, multiclass_confusion_matrix

from geocfl.legend import Legend

ECE_BINS = 15


def metrics(logits: Tensor, labels: Tensor, legend: Legend, temperature: float = 1.0) -> dict[str, Any]:
    """The figures of ``metrics.json`` for one split.

    Args:
        logits: (N, C) float32.
        labels: (N,) int64, legend code - 1.
        legend: The C classes.
        temperature: Divides the logits before `ece` and `nll` are taken.

    Returns:
        ``n``, ``accuracy``, ``macro_f1`` (mean over the classes; F1 of a class without patches or predictions is 0),
        ``ece`` (expected calibration error: mean over 15 equal-width confidence bins, weighted by their samples, of
        the gap between confidence and accuracy), ``nll`` (mean negative log-likelihood, nats), ``per_class`` and
        ``confusion`` (rows are true classes, columns predicted ones).
    """
    confusion = multiclass_confusion_matrix(logits, labels, num_classes=len(legend)).numpy()
    true, predicted, correct = confusion.sum(1), confusion.sum(0), np.diag(confusion)
    f1 = _ratio(2 * correct, true + predicted)
    scaled = logits / temperature
    ece = multiclass_calibration_error(scaled.softmax(1), labels, num_classes=len(legend), n_bins=ECE_BINS, norm="l1")
    return {
        "n": len(labels),
        "accuracy": float(correct.sum() / len(labels)),
        "macro_f1": float(f1.mean()),
        "ece": float(ece),
        "nll": float(F.cross_entropy(scaled, labels)),
        "per_class": [
            {
                "code": c.code,
                "name": c.name,
                "count": int(true[c.code - 1]),
                "correct": int(correct[c.code - 1]),
                "accuracy": float(_ratio(correct, true)[c.code - 1]),
                "f1": float(f1[c.code - 1]),
            }
            for c in legend
        ],
        "confusion": confusion.tolist(),
    }


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature that minimises the negative log-likelihood of held-out patches.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2.

    Args:
        logits: (N, C) float32 of patches that were not trained on.
        labels: (N,) int64.

    Returns:
        T > 0; probabilities are ``softmax(logits / T)``.
    """
    logits, log_t = logits.double(), torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([log_t], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(logits / log_t.exp(), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    # Separable logits have no minimum: the loss falls for ever as T goes to 0.
    return float(log_t.detach().clamp(-3, 3).exp())
