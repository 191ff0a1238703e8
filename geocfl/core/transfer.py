"""Tensors on their way to a device, without waiting for what it still computes."""

from __future__ import annotations

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on a device.

    A plain copy to a GPU waits until the GPU has finished all its work. From pinned memory the copy only joins the
    queue.
    """
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
