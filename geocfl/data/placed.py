"""Patches where a network trains: digital numbers as stored, which become reflectance on its device."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geocfl.core.lack import lacks_memory
from geocfl.core.numbers import STORED
from geocfl.core.transfer import as_stored, send, to_reflectance
from geocfl.data.patches import Patches

T = TypeVar("T")

log = logging.getLogger("geocfl")

SHARE = 0.5
"""Largest share of a GPU's free memory that patches may take; the rest is for the network and its batches."""


class PlacedPatches:
    """Patches whose reflectance is computed on a device, to the same bits as by `Patches.reflectance`.

    On a GPU, the pixels of all patches are kept there as stored (uint8 or uint16) if they fit. Otherwise those of each
    batch are sent as stored.

    Args:
        patches: The data set.
        device: Where reflectance is computed.
        pixels: The pixels of all patches on the device, from `stored_pixels`; None sends those of each batch.
    """

    def __init__(self, patches: Patches, device: torch.device, pixels: Tensor | None = None) -> None:
        self.patches = patches
        self.device = device
        self._pixels = pixels
        self._labels = torch.from_numpy(patches.labels).to(device)

    def prepared(self, make: Callable[[], T], rng: torch.Generator) -> T:
        """What `make` gives: a batch of these patches.

        If the device lacks the memory for it, batches are prepared on the CPU from then on, from the same random
        numbers.

        Args:
            make: Uses `reflectance` and `labels`.
            rng: Source of all its random numbers.
        """
        before = rng.get_state()
        try:
            return make()
        except (RuntimeError, MemoryError) as error:
            if self.device.type == "cpu" or not lacks_memory(error):
                raise
        log.warning("%s: too little memory to prepare batches; the CPU prepares them, which is slower", self.device)
        self.device, self._pixels, self._labels = torch.device("cpu"), None, torch.from_numpy(self.patches.labels)
        rng.set_state(before)
        return make()

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands."""
        return self.patches.bands

    def reflectance(self, indices: NDArray[np.int64]) -> Tensor:
        """(n, B, H, W) float32 reflectance on the device of the patches at `indices`."""
        if self.device.type == "cpu" or self.patches.pixels.dtype not in STORED:
            return send(torch.from_numpy(self.patches.reflectance(indices)), self.device)
        if self._pixels is None:
            stored = send(as_stored(self.patches.pixels[indices]), self.device)
        else:
            stored = self._pixels[send(torch.from_numpy(indices), self.device)]
        return to_reflectance(stored, self.patches.scaling)

    def labels(self, indices: NDArray[np.int64]) -> Tensor:
        """(n,) int64 labels on the device of the patches at `indices`."""
        return self._labels[send(torch.from_numpy(indices), self.device)]


def place(patches: Patches, device: torch.device) -> PlacedPatches:
    """Patches for a network on a device; says so if a GPU has no memory for all of them.

    Only GPUs with CUDA compute reflectance and augmentation: torch lacks some of it on others.
    """
    if device.type != "cuda":
        return PlacedPatches(patches, torch.device("cpu"))
    if patches.pixels.dtype not in STORED:
        return PlacedPatches(patches, device)
    free = torch.cuda.mem_get_info(device)[0]
    if patches.pixels.nbytes <= SHARE * free:
        try:
            return PlacedPatches(patches, device, stored_pixels(patches, device))
        except RuntimeError as error:
            if not lacks_memory(error):
                raise
    log.warning(
        "%s: too little memory for all patches (%.1f GB); they are sent batch by batch, which is slower",
        device,
        patches.pixels.nbytes / 1e9,
    )
    return PlacedPatches(patches, device)


def stored_pixels(patches: Patches, device: torch.device) -> Tensor:
    """The (N, B, H, W) pixels of uint8 or uint16 patches on a device, as `to_reflectance` takes them."""
    return as_stored(np.ascontiguousarray(patches.pixels)).to(device)
