"""Runs a network on a batch in parts, where its device lacks the memory for the whole."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from geocfl.core.lack import lacks_memory
from geocfl.errors import UsageError

log = logging.getLogger("geocfl")


class InParts:
    """Computes batches whole, or from the first one on for which the device lacks memory in halves, quarters and so on.

    Args:
        device: Where they are computed.

    Attributes:
        parts: In how many parts a batch is computed.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.parts = 1

    def __call__(self, count: int, compute: Callable[[slice], tuple[Tensor | None, ...]]) -> tuple[Tensor | None, ...]:
        """The results for a batch.

        Args:
            count: Its size, n.
            compute: Gives the results of a slice of it, each (m, ...) or always None.

        Returns:
            The results, each (n, ...) or None.

        Raises:
            UsageError: The memory is not enough for one of the batch.
        """
        while (found := self._attempt(count, compute)) is None:
            if self.parts >= count:
                raise UsageError(f"{self.device}: too little memory for a single input; use `device=cpu`")
            _say(self.device)
            self.parts *= 2
        return tuple(None if column[0] is None else torch.cat(column) for column in zip(*found, strict=True))

    def _attempt(
        self, count: int, compute: Callable[[slice], tuple[Tensor | None, ...]]
    ) -> list[tuple[Tensor | None, ...]] | None:
        """The results of all parts; None if the memory is not enough."""
        size = -(-count // self.parts)
        try:
            return [compute(slice(start, min(start + size, count))) for start in range(0, count, size)]
        except (RuntimeError, MemoryError) as error:
            if not lacks_memory(error):
                raise
        # Only here, after the error and its traceback, is what was computed before it freed.
        release(self.device)
        return None


def release(device: torch.device) -> None:
    """Gives memory back to a GPU that torch keeps for later."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


@cache
def _say(device: torch.device) -> None:
    """Says once per process that a device lacks memory."""
    log.warning("%s: too little memory for a whole batch; each batch is classified in parts", device)
