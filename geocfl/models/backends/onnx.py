"""ONNX Runtime; needs no torch once the model has been exported."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from geocfl.core.windows import fill
from geocfl.errors import UsageError
from geocfl.mapping.strips import cut
from geocfl.models.backends import CPU_BATCH_SIZE
from geocfl.models.bundle import Model
from geocfl.models.export import cached_onnx


class OnnxBackend:
    """A `geocfl.models.backends.Backend` on the CPU.

    Args:
        model: The bundle.
        precision: ``auto`` or ``float32``.
        batch_size: Windows at a time.
        threads: Cores to use; all by default.

    Raises:
        UsageError: Another precision.
        ModelError: The model cannot be exported.
    """

    def __init__(
        self, model: Model, precision: str = "auto", batch_size: int | None = None, threads: int | None = None
    ) -> None:
        if precision not in ("auto", "float32"):
            raise UsageError(f"--backend onnx computes in float32; leave out --precision {precision}")
        self.precision = "float32"
        self.batch_size = batch_size or CPU_BATCH_SIZE // model.tta
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or 0  # 0: as many as there are cores
        self._session = ort.InferenceSession(cached_onnx(model), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._window, self._name = model.window, model.name

    def __repr__(self) -> str:
        return f"{self._name} on cpu in float32 through onnxruntime {ort.__version__}"

    def place(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """As they are."""
        return pixels

    def classify(
        self, placed: NDArray[np.float32], rows: NDArray[np.int64], columns: NDArray[np.int64]
    ) -> Iterator[NDArray[np.float32]]:
        """See `geocfl.models.backends.Backend`."""
        for start in range(0, len(rows), self.batch_size):
            chosen = slice(start, start + self.batch_size)
            windows = fill(cut(placed, self._window, rows[chosen], columns[chosen]))
            yield self._session.run(None, {self._input: windows})[0]
