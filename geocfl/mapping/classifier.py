"""The torch back end: batches of reflectance in, calibrated probabilities out."""

from __future__ import annotations

import time

import numpy as np
import torch
from numpy.typing import NDArray

from geocfl.errors import UsageError
from geocfl.model import Model
from geocfl.network import choose_device, has_fast_bfloat16

PRECISIONS = ("auto", "float32", "bfloat16")


class Classifier:
    """A model on a device, ready for batches.

    Args:
        model: The bundle.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        precision: ``auto`` is bfloat16 where the device is faster at it, else float32.

    Raises:
        UsageError: A name is not valid, or the device is not there.
        ModelError: The weights cannot be read.
    """

    def __init__(self, model: Model, device: str = "auto", precision: str = "auto") -> None:
        if precision not in PRECISIONS:
            raise UsageError(f"unknown precision {precision!r}; choose one of: {', '.join(PRECISIONS)}")
        self.model = model
        self.device = choose_device(device)
        self.bfloat16 = has_fast_bfloat16(self.device) if precision == "auto" else precision == "bfloat16"
        self._network = model.network().to(self.device).to(memory_format=torch.channels_last)

    def __repr__(self) -> str:
        return f"{self.model.name} on {self.device} in {'bfloat16' if self.bfloat16 else 'float32'}"

    @torch.inference_mode()
    def __call__(self, reflectance: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, classes) float32 probabilities of (n, B, window, window) float32 reflectance; NaN is no data."""
        batch = torch.from_numpy(reflectance).to(self.device, memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            logits = self._network(batch)
        return torch.softmax(logits.float() / self.model.temperature, dim=1).cpu().numpy()

    def measure(self, batch_size: int) -> float:
        """Windows per second, timed on one batch of noise after another has warmed up."""
        shape = (batch_size, len(self.model.bands), self.model.window, self.model.window)
        noise = np.random.default_rng(0).uniform(*self.model.clip, shape).astype(np.float32)
        self(noise)
        started = time.perf_counter()
        self(noise)
        return batch_size / (time.perf_counter() - started)
