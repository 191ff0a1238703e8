"""ONNX Runtime. It does not need torch after the model has been exported."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from geocfl.core.numbers import Pixels, reflectance
from geocfl.errors import UsageError
from geocfl.models.backends.base import CPU_BATCH_SIZE, Classified, Scores, classify, classify_windows
from geocfl.models.bundle import Bundle
from geocfl.models.graph import FEATURES, INPUT, NOVELTY, OUTPUT, outputs
from geocfl.models.onnx_file import backend_onnx

ort.disable_telemetry_events()  # Microsoft's builds for Windows send usage data


class OnnxBackend:
    """A `geocfl.models.backends.base.Backend` on the CPU.

    Args:
        bundle: The model.
        precision: ``auto`` or ``float32``.
        batch_size: Windows per batch.
        threads: Cores to use; all by default.
        features: Whether to give features too.

    Raises:
        UsageError: Another precision.
        ModelError: The model cannot be exported.
    """

    takes_numbers = False

    def __init__(
        self,
        bundle: Bundle,
        precision: str = "auto",
        batch_size: int | None = None,
        threads: int | None = None,
        *,
        features: bool = False,
    ) -> None:
        if precision not in ("auto", "float32"):
            raise UsageError(f"`backend=onnx` computes in float32; leave out `precision={precision}`")
        self.precision = "float32"
        self.batch_size = batch_size or CPU_BATCH_SIZE // bundle.tta
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or 0  # 0: as many as there are cores
        self._bundle = bundle
        self._session = ort.InferenceSession(backend_onnx(bundle), options, providers=["CPUExecutionProvider"])
        wanted = outputs(features=features)
        self._outputs = [output.name for output in self._session.get_outputs() if output.name in wanted]

    def __repr__(self) -> str:
        return f"{self._bundle.name} on cpu in float32 through onnxruntime {ort.__version__}"

    def place(self, pixels: Pixels) -> NDArray[np.float32]:
        """Returns reflectance as it is."""
        return reflectance(pixels)

    def classify(
        self, placed: NDArray[np.float32], rows: NDArray[np.int64], columns: NDArray[np.int64], stride: int
    ) -> Iterator[Classified]:
        """See `geocfl.models.backends.base.Backend`."""
        return classify(self._run, self._bundle, placed, rows, columns, stride, self.batch_size)

    def classify_windows(self, windows: NDArray[np.float32]) -> Iterator[Classified]:
        """See `geocfl.models.backends.base.Backend`."""
        return classify_windows(self._run, self._bundle, windows, self.batch_size)

    def _run(self, inputs: Iterator[NDArray[np.float32]]) -> Iterator[Scores]:
        for pixels in inputs:
            found = dict(zip(self._outputs, self._session.run(self._outputs, {INPUT: pixels}), strict=True))
            yield Scores(found[OUTPUT], found.get(NOVELTY), found.get(FEATURES))
