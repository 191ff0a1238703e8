"""The libraries that classify windows, and the choice among those that are installed."""

from __future__ import annotations

import ctypes
import logging
import platform
import re
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from geocfl.errors import UsageError, unknown_name
from geocfl.models.backends.base import BACKENDS, PRECISIONS, Backend
from geocfl.models.bundle import Bundle

log = logging.getLogger("geocfl")

_PACKAGES = {"openvino": "openvino", "onnx": "onnxruntime", "torch": "torch"}
_INSTALL = {
    "openvino": "openvino onnx onnxscript",
    "onnx": "onnxruntime onnx onnxscript",
    "torch": "torch",
}


def load_backend(
    bundle: Bundle,
    backend: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    batch_size: int | None = None,
    threads: int | None = None,
    *,
    features: bool = False,
) -> Backend:
    """Loads a model into a back end.

    Args:
        bundle: The model.
        backend: One of `BACKENDS`. ``auto`` is torch if there is a GPU or `device` names one, else the fastest one that
            is installed.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        precision: One of `PRECISIONS`. ``auto`` is half precision if it is faster on the device, else float32.
        batch_size: Windows per batch; by default what is fast on the device.
        threads: CPU cores to use; all by default.
        features: Whether to give the pooled features of windows too.

    Raises:
        UsageError: A name is unknown, the device is not available, or the back end does not support the device or the
            precision.
        ModelError: The weights cannot be read.
    """
    for parameter, name, known in (("backend", backend, BACKENDS), ("precision", precision, PRECISIONS)):
        if name not in known:
            raise UsageError(unknown_name(f"`{parameter}`", name, known))
    chosen = backend
    if backend == "auto":
        gpu = device not in ("auto", "cpu") or (device == "auto" and has_gpu() and _torch_uses_gpus())
        chosen = "torch" if gpu else next(name for name in BACKENDS[1:] if find_spec(_PACKAGES[name]))
    elif backend != "torch" and device not in ("auto", "cpu"):
        raise UsageError(
            f"`backend={backend}` runs on the CPU only; leave out `device={device}`, or use `backend=torch`",
            page="how-to/gpu/",
        )
    if not find_spec(_PACKAGES[chosen]):
        raise UsageError(
            f"`backend={chosen}` is not installed; run: pip install {_INSTALL[chosen]}, or use another `backend`",
            page="how-to/gpu/",
        )
    # Each imports only its own library.
    if chosen == "openvino":
        from geocfl.models.backends.openvino import OpenVinoBackend

        return OpenVinoBackend(bundle, precision, batch_size, threads, features=features)
    if chosen == "onnx":
        from geocfl.models.backends.onnx import OnnxBackend

        return OnnxBackend(bundle, precision, batch_size, threads, features=features)
    from geocfl.models.backends.torch import TorchBackend

    loaded = TorchBackend(bundle, device, precision, batch_size, threads, features=features)
    if backend == "auto" and loaded.device.type == "cpu":
        _recommend_openvino()
    return loaded


@cache
def _recommend_openvino() -> None:
    """Says once per process that another back end is faster on a CPU."""
    # benchmarks/backends.py: 2.4 times with the built-in model in bfloat16; a ResNet-18 in float32: about 1.5 times.
    remedy = "use `backend=openvino`" if find_spec("openvino") else f"run: pip install {_INSTALL['openvino']}"
    log.info("OpenVINO is about twice as fast as torch on a CPU; %s", remedy)


@cache
def _torch_uses_gpus() -> bool:
    """Whether the torch that is installed can use the GPU of this machine; says once per process if it cannot."""
    if sys.platform == "darwin" or cuda_of_torch() != "":
        return True
    log.warning(
        "this machine has a GPU, but the installed torch is built without CUDA, so the CPU classifies; install a build "
        "with CUDA as pytorch.org says"
    )
    return False


def cuda_of_torch() -> str | None:
    """Version of CUDA, or of ROCm, that torch is built with; empty if with none, None if torch does not say.

    Reads the file that states it, since importing torch takes seconds.
    """
    found = find_spec("torch")
    for folder in (found and found.submodule_search_locations) or ():
        try:
            text = (Path(folder) / "version.py").read_text()
        except OSError:
            continue
        stated = re.findall(r"^(?:cuda|hip)\b[^=\n]*=\s*(?:None|'(.*)')", text, re.MULTILINE)
        return "".join(stated) if stated else None
    return None


def has_gpu() -> bool:
    """Whether torch may find a GPU; asks the driver, since importing torch takes seconds."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    return count_gpus() > 0


def count_gpus() -> int:
    """Number of NVIDIA GPUs that the driver offers to this process."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        count = ctypes.c_int()
        ready = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
        return count.value if ready else 0
    except (OSError, AttributeError):
        return 0
