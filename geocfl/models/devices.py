"""Where a network computes, and in which precision."""

from __future__ import annotations

import os
import re

import torch

from geocfl.errors import UsageError, did_you_mean, unknown_name

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Precisions that a network can compute in; its weights are float32."""


def choose_device(name: str) -> torch.device:
    """The torch device of a name; ``auto`` is a GPU if there is one.

    Raises:
        UsageError: The name is unknown, or the device is not available.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?|mps", name):
        known = ("auto", "cpu", "cuda", "cuda:N", "mps")
        suggestion = "did you mean 'cuda'? " if name.lower() == "gpu" else did_you_mean(name, known)
        raise UsageError(f"unknown `device` {name!r}; {suggestion}choose from: {', '.join(known)}", page="how-to/gpu/")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        lacking = name.startswith("cuda") and not (torch.version.cuda or torch.version.hip)
        why = f" because torch {torch.__version__} is built without CUDA" if lacking else ""
        remedy = "install a build with CUDA as pytorch.org says, or use" if lacking else "use"
        raise UsageError(
            f"`device` {name!r} is not available here{why}; {remedy} `device=auto` or `device=cpu`", page="how-to/gpu/"
        ) from error
    return device


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which a network computes in one of `PRECISIONS`.

    Raises:
        UsageError: The precision is unknown, or the device does not support it.
    """
    if precision not in PRECISIONS:
        raise UsageError(unknown_name("`precision`", precision, PRECISIONS))
    if precision == "float16" and device.type == "cpu":
        raise UsageError("torch has no float16 convolutions on a CPU; use `precision=float32` or `precision=bfloat16`")
    return torch.autocast(device.type, PRECISIONS[precision], enabled=precision != "float32")


def fast_batch_size(device: torch.device) -> int:
    """Default number of patches per batch.

    On a CPU, the activations of larger batches outgrow the memory that the C library keeps for reuse. Fetching new
    pages for every layer would then take up to half of the time.
    """
    return 32 if device.type == "cpu" else 256


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 autocast is faster than float32; it is not on processors that only emulate it.

    ``GEOCFL_BFLOAT16=on`` or ``off`` overrides the detection, to reproduce a training of another machine.

    Raises:
        UsageError: The variable has another value.
    """
    forced = os.environ.get("GEOCFL_BFLOAT16", "")
    if forced not in ("", "on", "off"):
        raise UsageError(f"GEOCFL_BFLOAT16={forced} is neither on nor off; unset it to let geocfl choose")
    if forced:
        return forced == "on"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        # Processors with AVX2 only run bfloat16 convolutions about fifteen times slower than float32.
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(probe() for name in probes if (probe := getattr(torch.cpu, name, None)))
    return False
