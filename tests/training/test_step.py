from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from geocfl.errors import UsageError
from geocfl.training.distillation import Objective
from geocfl.training.step import Stepper


class Narrow(nn.Module):
    """A linear network on a device that has memory for a few inputs at a time; gives `each` logits for each."""

    def __init__(self, room: int, each: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(6, 3)
        self.room, self.each, self.seen = room, each, []

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        self.seen.append(len(x))
        return self.linear(x).repeat_interleave(self.each, 0)


def stepper(module: nn.Module) -> Stepper:
    return Stepper(module, Objective(nn.CrossEntropyLoss()), torch.optim.SGD(module.parameters(), 0.1))


def batch(n: int, each: int = 1) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    return torch.randn(n, 6, generator=rng), torch.randint(3, (n * each,), generator=rng)


@pytest.mark.parametrize(("room", "parts"), [(8, 2), (4, 4), (3, 8)])
@pytest.mark.parametrize("each", [1, 16])
def test_a_batch_that_does_not_fit_is_computed_in_parts(room, parts, each, caplog, monkeypatch):
    monkeypatch.setenv("GEOCFL_BFLOAT16", "off")  # rounding to bfloat16 would hide whether the sums agree
    whole, narrow = Narrow(99, each), Narrow(room, each)
    step, step_in_parts = stepper(whole), stepper(narrow)
    for n in (16, 16, 3):
        x, y = batch(n, each)
        with caplog.at_level(logging.WARNING, "geocfl"):
            torch.testing.assert_close(step_in_parts(x, y), step(x, y))
        torch.testing.assert_close(narrow.linear.weight, whole.linear.weight)
    assert step_in_parts.parts == parts
    assert [record.getMessage() for record in caplog.records] == [
        f"cpu: too little memory for a batch of {16 * each}; each batch is computed in {parts} parts"
    ]


def test_a_device_without_memory_for_two_patches_is_one_sentence():
    with pytest.raises(UsageError, match="too little memory for two patches; use a smaller network, or `device=cpu`"):
        stepper(Narrow(1))(*batch(16))


def test_other_errors_stay_as_they_are():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        stepper(Narrow(99))(torch.zeros(4, 5), torch.zeros(4, dtype=torch.int64))


class Reads(TorchDispatchMode):
    """Counts how often a number is read from a tensor, for which a GPU would have to be waited for."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_a_step_reads_no_number_from_the_device():
    step, (x, y) = stepper(Narrow(99)), batch(16)
    with Reads() as reads:
        loss = step(x, y)
        assert reads.count == 0
        loss.item()
        assert reads.count == 1


class Greedy(torch.optim.AdamW):
    """Lacks memory after it has changed some weights, unless it updates one at a time."""

    def __init__(self, module: nn.Module, room: bool = True) -> None:
        super().__init__(module.parameters(), 0.1)
        self.room = room

    def step(self, closure: Any = None) -> None:
        group = self.param_groups[0]
        if group["foreach"] is not False or not self.room:
            with torch.no_grad():
                group["params"][0].mul_(0)
            self.state[group["params"][0]]["step"] = torch.tensor(1.0)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        super().step(closure)


def test_an_optimizer_that_lacks_memory_updates_one_weight_at_a_time(caplog):
    whole, narrow = Narrow(99), Narrow(99)
    step = Stepper(whole, Objective(nn.CrossEntropyLoss()), torch.optim.AdamW(whole.parameters(), 0.1))
    greedy = Stepper(narrow, Objective(nn.CrossEntropyLoss()), Greedy(narrow))
    with caplog.at_level(logging.WARNING, "geocfl"):
        for _ in range(3):
            torch.testing.assert_close(greedy(*batch(16)), step(*batch(16)))
            torch.testing.assert_close(narrow.linear.weight, whole.linear.weight)
    assert [record.getMessage() for record in caplog.records] == [
        "cpu: too little memory to update all weights at once; each is updated alone"
    ]


def test_a_device_without_memory_for_the_optimizer_is_one_sentence():
    module = Narrow(99)
    greedy = Stepper(module, Objective(nn.CrossEntropyLoss()), Greedy(module, room=False))
    with pytest.raises(UsageError, match="too little memory for the optimizer; use a smaller network, or `device=cpu`"):
        greedy(*batch(16))
