"""The interface of the back ends, and what they share."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from geocfl.models.bundle import Bundle

BACKENDS = ("auto", "openvino", "onnx", "torch")
"""Those after ``auto`` in order of their speed on a CPU; ``auto`` takes the first one that is installed."""
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
CPU_BATCH_SIZE = 32
"""Windows per batch on a CPU; see `geocfl.models.network.fast_batch_size`, which imports torch."""


class Backend(Protocol):
    """A model that is ready to classify windows.

    Attributes:
        batch_size: Windows per batch.
        precision: Precision that it computes in, one of `PRECISIONS` except ``auto``.
    """

    batch_size: int
    precision: str

    def place(self, pixels: NDArray[np.float32]) -> Any:
        """Moves (B, h, w) float32 reflectance (NaN no data) to the device; called in the reading thread."""
        ...

    def classify(
        self, placed: Any, rows: NDArray[np.int64], columns: NDArray[np.int64]
    ) -> Iterator[NDArray[np.float32]]:
        """Calibrated probabilities of windows, batch after batch.

        Args:
            placed: From `place`.
            rows: (n,) rows of the windows' upper left pixels.
            columns: (n,) columns of the windows' upper left pixels.

        Yields:
            (m, classes) float32 of the next m windows.
        """
        ...


def measure_rate(backend: Backend, bundle: Bundle, seconds: float = 0.5) -> float:
    """Windows per second on noise, after one batch to warm up.

    Args:
        backend: The back end.
        bundle: Its model.
        seconds: Minimum duration of the measurement.
    """
    window, count = bundle.window, 4 * backend.batch_size  # some back ends compute several batches at once
    shape = (len(bundle.bands), window, window * count)
    noise = np.random.default_rng(0).uniform(*bundle.clip, shape).astype(np.float32)
    placed, rows, columns = backend.place(noise), np.zeros(count, np.int64), window * np.arange(count)

    def run(count: int) -> float:
        started = time.perf_counter()
        for _ in backend.classify(placed, rows[:count], columns[:count]):
            pass
        return time.perf_counter() - started

    run(backend.batch_size)
    times = [run(count)]
    while sum(times) < seconds:
        times.append(run(count))
    return float(count / np.median(times))
