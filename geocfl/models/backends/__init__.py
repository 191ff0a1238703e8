"""What classifies windows: one small interface, and the choice among the libraries that are installed."""

from __future__ import annotations

import ctypes
import platform
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from geocfl.errors import UsageError, unknown_name
from geocfl.models.bundle import Model

BACKENDS = ("auto", "openvino", "onnx", "torch")
"""Those after ``auto`` in the order of their speed on a CPU, which is the order in which ``auto`` looks for them."""
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
CPU_BATCH_SIZE = 32
"""Windows at a time on a CPU; see `geocfl.models.network.fast_batch_size`, which imports torch."""
PACKAGES = {"openvino": "openvino", "onnx": "onnxruntime", "torch": "torch"}


class Backend(Protocol):
    """A model, ready to classify windows.

    Attributes:
        batch_size: Windows that it classifies at a time.
        precision: What it computes in, one of `PRECISIONS` but not ``auto``.
    """

    batch_size: int
    precision: str

    def place(self, pixels: NDArray[np.float32]) -> Any:
        """Takes (B, h, w) float32 reflectance (NaN no data) to where it is classified; called in the reading thread."""
        ...

    def classify(
        self, placed: Any, rows: NDArray[np.int64], columns: NDArray[np.int64]
    ) -> Iterator[NDArray[np.float32]]:
        """Calibrated probabilities of windows, batch after batch.

        Args:
            placed: From `place`.
            rows: (n,) rows of the windows' upper left pixels.
            columns: (n,) their columns.

        Yields:
            (m, classes) float32 of the next m windows.
        """
        ...


def load_backend(
    model: Model,
    backend: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    batch_size: int | None = None,
    threads: int | None = None,
) -> Backend:
    """A model on the back end and device of these names.

    Args:
        model: The bundle.
        backend: ``auto`` is torch where there is a GPU or one is named, else the fastest that is installed.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        precision: ``auto`` is half precision where the device is faster at it, else float32.
        batch_size: Windows classified at a time; what is fast by default.
        threads: Cores of the CPU to use; all by default.

    Raises:
        UsageError: A name is not valid, the device is not there, or the back end cannot do what is asked.
        ModelError: The weights cannot be read.
    """
    for option, name, known in (("backend", backend, BACKENDS), ("precision", precision, PRECISIONS)):
        if name not in known:
            raise UsageError(unknown_name(option, name, known))
    if backend == "auto":
        gpu = device not in ("auto", "cpu") or (device == "auto" and has_gpu())
        backend = "torch" if gpu else next(name for name in BACKENDS[1:] if find_spec(PACKAGES[name]))
    elif backend != "torch" and device not in ("auto", "cpu"):
        raise UsageError(
            f"--backend {backend} runs on the CPU; leave out --device {device}, or pass --backend torch",
            page="how-to/gpu/",
        )
    if not find_spec(PACKAGES[backend]):
        raise UsageError(
            f"--backend {backend} is not installed; pip install 'geocfl[{backend}]' or choose another",
            page="how-to/gpu/",
        )
    # Each imports its library, and none but its own.
    if backend == "openvino":
        from geocfl.models.backends.openvino import OpenVinoBackend

        return OpenVinoBackend(model, precision, batch_size, threads)
    if backend == "onnx":
        from geocfl.models.backends.onnx import OnnxBackend

        return OnnxBackend(model, precision, batch_size, threads)
    from geocfl.models.backends.torch import TorchBackend

    return TorchBackend(model, device, precision, batch_size, threads)


def has_gpu() -> bool:
    """Whether torch may find a GPU; asks the driver, since importing torch to ask takes seconds."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        count = ctypes.c_int()
        return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
    except (OSError, AttributeError):
        return False


def measure(backend: Backend, model: Model, seconds: float = 0.5) -> float:
    """Windows per second on noise, after one batch has warmed up.

    Args:
        backend: The classifier.
        model: Its bundle.
        seconds: How long to measure at least.
    """
    window, count = model.window, 4 * backend.batch_size  # several may be in work at a time
    shape = (len(model.bands), window, window * count)
    noise = np.random.default_rng(0).uniform(*model.clip, shape).astype(np.float32)
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
