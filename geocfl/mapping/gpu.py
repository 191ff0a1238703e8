"""A GPU that fails while it classifies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from geocfl.core.lack import lacks_memory
from geocfl.errors import GeocflError, SceneError
from geocfl.models.backends.base import Backend

_GPU = re.compile(r"\b(?:CUDA|cuDNN|CUBLAS|NVML|HIP|MPS)", re.IGNORECASE)


@contextmanager
def surviving(path: str) -> Iterator[None]:
    """Turns the failure of a GPU in the block into a transient error, so that the finished strips are kept.

    Raises:
        SceneError: The GPU failed, other than by a lack of memory.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, GeocflError) or lacks_memory(error) or not _GPU.search(str(error)):
            raise
        why = str(error).partition("\n")[0]
        raise SceneError(
            f"{path}: the GPU failed ({why}); run the same command again to resume, and use `device=cpu` if the GPU is "
            "gone",
            page="how-to/gpu/",
            transient=True,
        ) from error


def on_gpu(backend: Backend) -> bool:
    """Whether a back end computes on a GPU."""
    return str(getattr(backend, "device", "cpu")) != "cpu"
