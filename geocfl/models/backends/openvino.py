"""OpenVINO, the fastest back end on most CPUs. It does not need torch after the model has been exported."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from geocfl.core.numbers import Pixels, reflectance
from geocfl.errors import UsageError
from geocfl.models.backends.base import CPU_BATCH_SIZE, Classified, Scores, classify, classify_windows
from geocfl.models.backends.jobs import longest_side
from geocfl.models.bundle import Bundle
from geocfl.models.graph import FEATURES, NOVELTY, OUTPUT, outputs
from geocfl.models.onnx_file import backend_onnx
from geocfl.models.quiet_openvino import ov

TYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
_CAPABILITIES = {"bfloat16": "BF16", "float16": "FP16"}


class OpenVinoBackend:
    """A `geocfl.models.backends.base.Backend` on the CPU; it computes several batches at once.

    Args:
        bundle: The model.
        precision: ``auto`` lets OpenVINO choose the fastest on the processor.
        batch_size: Windows per batch.
        threads: Cores to use; all by default.
        features: Whether to give features too.

    Raises:
        UsageError: The processor does not support the precision.
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
        network = core.read_model(backend_onnx(bundle))
        wanted = outputs(features=features)
        kept = [result for result in network.results if result.output(0).any_name in wanted]
        self._outputs = [result.output(0).any_name for result in kept]
        network = ov.Model(kept, network.get_parameters())
        bands = len(bundle.bands)
        if bundle.feature_stride:
            side = ov.Dimension(bundle.footprint, longest_side(bundle))
            network.reshape([ov.Dimension(1, self.batch_size), bands, side, side])
        else:
            network.reshape([ov.Dimension(1, self.batch_size), bands, bundle.window, bundle.window])
        compiled = core.compile_model(network, "CPU", hints)
        found = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self.precision = {code: name for name, code in TYPES.items()}.get(found, found)
        self._jobs = ov.AsyncInferQueue(compiled)
        weakref.finalize(self, self._jobs.wait_all)  # a job that calls back while Python ends aborts the process
        self._bundle = bundle

    def __repr__(self) -> str:
        return f"{self._bundle.name} on cpu in {self.precision} through openvino {ov.__version__.partition('-')[0]}"

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
        done: dict[int, Scores] = {}

        def keep(request: ov.InferRequest, number: int) -> None:
            tensors = (tensor.data.copy() for tensor in request.output_tensors)
            found = dict(zip(self._outputs, tensors, strict=True))
            done[number] = Scores(found[OUTPUT], found.get(NOVELTY), found.get(FEATURES))

        self._jobs.set_callback(keep)
        wanted = 0
        for number, pixels in enumerate(inputs):
            self._jobs.start_async({0: pixels}, number)
            while wanted in done:
                yield done.pop(wanted)
                wanted += 1
        self._jobs.wait_all()
        yield from (done[number] for number in sorted(done))
