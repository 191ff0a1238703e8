"""A training step: loss, gradients and the optimizer, in parts where the device lacks the memory for a batch."""

from __future__ import annotations

import logging
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from geocfl.core.lack import lacks_memory
from geocfl.errors import UsageError
from geocfl.models.devices import has_fast_bfloat16
from geocfl.models.parts import release
from geocfl.training.depthwise import Float32Backward
from geocfl.training.distillation import Objective

log = logging.getLogger("geocfl")


class Stepper:
    """Takes training steps of a module.

    Where the device lacks the memory for a batch, its gradient is the sum over two halves from then on, or over four
    parts, and so on. Batch normalization then uses the statistics of a part.

    Args:
        module: Has the parameters.
        objective: The loss of a batch.
        optimizer: Changes the parameters.
        compiled: The batch size for which the module is compiled, since compiling it again for the smaller last batch
            of an epoch does not pay; 0 does not compile it.

    Attributes:
        parts: In how many parts a batch is computed.
    """

    def __init__(
        self, module: nn.Module, objective: Objective, optimizer: torch.optim.Optimizer, compiled: int = 0
    ) -> None:
        self.module = module
        self.objective = objective
        self.optimizer = optimizer
        self.device = next(module.parameters()).device
        self.half = has_fast_bfloat16(self.device)
        self.parts = 1
        self._settled = bool(optimizer.state)
        self._compiled_for = compiled
        self._compiled = torch.compile(module, dynamic=False) if compiled else module

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Takes one step.

        Args:
            x: (n, ...) input of the module.
            y: (k * n,) int64 labels, k of each input.

        Returns:
            The batch's mean loss, a scalar on the device; reading it waits for the device.

        Raises:
            UsageError: The memory is not enough for two patches, or for the optimizer's state.
        """
        x = x.to(self.device, memory_format=torch.channels_last) if x.ndim == 4 else x.to(self.device)
        y = y.to(self.device)
        most = len(x) if len(y) > len(x) else max(1, len(x) // 2)  # batch normalization needs two patches
        before = self.parts
        while (loss := self._gradients(x, y, min(self.parts, most))) is None:
            if self.parts >= most:
                raise UsageError(
                    f"{self.device}: too little memory for two patches; use a smaller network, or `device=cpu`"
                )
            self.parts *= 2
        if self.parts > before:
            log.warning(
                "%s: too little memory for a batch of %d; each batch is computed in %d parts",
                self.device,
                len(y),
                self.parts,
            )
        self._update()
        return loss

    def _update(self) -> None:
        """Takes the optimizer's step; the first one, which allocates its state, again with less memory if that lacks.

        Raises:
            UsageError: The memory is not enough for the optimizer's state.
        """
        values = [value for group in self.optimizer.param_groups for value in group["params"]]
        before = None if self._settled else [value.detach().to("cpu", copy=True) for value in values]
        if not self._updated():
            if before is not None:
                log.warning("%s: too little memory to update all weights at once; each is updated alone", self.device)
                self.optimizer.state.clear()
                for group in self.optimizer.param_groups:
                    group["foreach"] = False
                with torch.no_grad():
                    for value, old in zip(values, before, strict=True):
                        value.copy_(old)
            if before is None or not self._updated():
                raise UsageError(
                    f"{self.device}: too little memory for the optimizer; use a smaller network, or `device=cpu`"
                )
        self._settled = True

    def _updated(self) -> bool:
        """Takes the optimizer's step; False if the memory is not enough."""
        try:
            self.optimizer.step()
        except (RuntimeError, MemoryError) as error:
            if not lacks_memory(error):
                raise
        else:
            return True
        release(self.device)
        return False

    def _gradients(self, x: Tensor, y: Tensor, parts: int) -> Tensor | None:
        """Computes the gradients of a batch and returns its loss; None if the memory is not enough."""
        self.optimizer.zero_grad(set_to_none=True)
        labels = y.view(len(x), -1)  # those of each input
        try:
            if parts == 1:
                return self._part(x, y, 1.0)
            split = zip(x.tensor_split(parts), labels.tensor_split(parts), strict=True)
            return torch.stack([self._part(part, own.flatten(), len(part) / len(x)) for part, own in split]).sum()
        except (RuntimeError, MemoryError) as error:
            if not lacks_memory(error):
                raise
        # Only here, after the error and its traceback, is what was computed before it freed.
        self.optimizer.zero_grad(set_to_none=True)
        release(self.device)
        return None

    def _part(self, x: Tensor, y: Tensor, share: float) -> Tensor:
        """Adds the gradients of a part of a batch, and returns its share of the loss."""
        compiled = self._compiled_for and round(len(y) / share) == self._compiled_for
        network = self._compiled if compiled else self.module
        faster = Float32Backward() if self.half and self.device.type == "cpu" and not compiled else nullcontext()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half), faster:
            loss = self.objective(network, x, y)
        loss = loss if share == 1 else share * loss
        loss.backward()
        return loss.detach()
