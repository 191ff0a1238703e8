"""Tensors on their way to a device, without waiting for what it still computes."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geocfl.core.radiometry import Scaling


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on a device.

    A plain copy to a GPU waits until the GPU has finished all its work. From pinned memory the copy only joins the
    queue.
    """
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def as_stored(numbers: NDArray[np.generic]) -> Tensor:
    """Digital numbers as a tensor: uint8 as it is; uint16, with which torch computes little, as its bits in int16."""
    return torch.from_numpy(numbers if numbers.dtype == np.uint8 else numbers.view(np.int16))


def to_reflectance(stored: Tensor, scaling: Scaling) -> Tensor:
    """Float32 reflectance of numbers from `as_stored`, by the operations of `Scaling.to_reflectance`."""
    numbers = stored if stored.dtype == torch.uint8 else stored.to(torch.int32).bitwise_and_(0xFFFF)
    return numbers.to(torch.float32).add_(float(np.float32(scaling.offset))).mul_(float(np.float32(1 / scaling.scale)))
