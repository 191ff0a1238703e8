"""OpenVINO, the fastest back end on most CPUs. It does not need torch after the model has been exported."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from geocfl.core.windows import cut, fill
from geocfl.errors import UsageError
from geocfl.models.backends.base import CPU_BATCH_SIZE
from geocfl.models.bundle import Bundle
from geocfl.models.onnx_file import cached_onnx

TYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
_CAPABILITIES = {"bfloat16": "BF16", "float16": "FP16"}


class OpenVinoBackend:
    """A `geocfl.models.backends.base.Backend` on the CPU; it computes several batches at once.

    Args:
        bundle: The model.
        precision: ``auto`` lets OpenVINO choose the fastest on the processor.
        batch_size: Windows per batch.
        threads: Cores to use; all by default.

    Raises:
        UsageError: The processor does not support the precision.
        ModelError: The model cannot be exported.
    """

    def __init__(
        self, bundle: Bundle, precision: str = "auto", batch_size: int | None = None, threads: int | None = None
    ) -> None:
        core = ov.Core()
        hints: dict[str, str] = {"PERFORMANCE_HINT": "THROUGHPUT"}
        if threads:
            # With pinning, processes that share a machine would all use its first cores.
            hints |= {"INFERENCE_NUM_THREADS": str(threads), "ENABLE_CPU_PINNING": "NO"}
        if precision != "auto":
            needed = _CAPABILITIES.get(precision)
            if needed and needed not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
                raise UsageError(f"this processor has no {precision}; use `precision=auto` or `precision=float32`")
            hints["INFERENCE_PRECISION_HINT"] = TYPES[precision]
        self.batch_size = batch_size or CPU_BATCH_SIZE // bundle.tta
        network = core.read_model(cached_onnx(bundle))
        side = bundle.window
        network.reshape([ov.Dimension(1, self.batch_size), len(bundle.bands), side, side])
        compiled = core.compile_model(network, "CPU", hints)
        found = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self.precision = {code: name for name, code in TYPES.items()}.get(found, found)
        self._jobs = ov.AsyncInferQueue(compiled)
        self._window, self._name = side, bundle.name

    def __repr__(self) -> str:
        return f"{self._name} on cpu in {self.precision} through openvino {ov.__version__.partition('-')[0]}"

    def place(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns them unchanged."""
        return pixels

    def classify(
        self, placed: NDArray[np.float32], rows: NDArray[np.int64], columns: NDArray[np.int64]
    ) -> Iterator[NDArray[np.float32]]:
        """See `geocfl.models.backends.base.Backend`."""
        done: dict[int, NDArray[np.float32]] = {}

        def keep(request: ov.InferRequest, start: int) -> None:
            done[start] = request.get_output_tensor(0).data.copy()

        self._jobs.set_callback(keep)
        wanted = 0
        for start in range(0, len(rows), self.batch_size):
            chosen = slice(start, start + self.batch_size)
            self._jobs.start_async({0: fill(cut(placed, self._window, rows[chosen], columns[chosen]))}, start)
            while wanted in done:
                yield done.pop(wanted)
                wanted += self.batch_size
        self._jobs.wait_all()
        yield from (done[start] for start in sorted(done))
