from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from geocfl.training import depthwise
from geocfl.training.depthwise import Float32Backward
from geocfl.training.distillation import Objective
from geocfl.training.step import Stepper


@pytest.fixture(autouse=True)
def bfloat16_convolutions() -> None:
    try:
        with torch.autocast("cpu", torch.bfloat16):
            F.conv2d(torch.ones(1, 2, 4, 4), torch.ones(2, 1, 3, 3), groups=2)
    except RuntimeError as error:  # pragma: no cover
        pytest.skip(f"torch has no bfloat16 convolutions here: {error}")


@pytest.fixture
def replaced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the kernels of the convolutions whose gradients are computed in float32."""
    sizes: list[int] = []
    whole = depthwise._Depthwise.apply

    def counted(x: torch.Tensor, weight: torch.Tensor, *how: Any) -> Any:
        sizes.append(weight.shape[-1])
        return whole(x, weight, *how)

    monkeypatch.setattr(depthwise._Depthwise, "apply", counted)
    return sizes


def gradients(module: nn.Module, x: torch.Tensor, mode: Any, bfloat16: bool = True) -> list[torch.Tensor]:
    """The output and the gradients of input and weights."""
    module.zero_grad()
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16), mode:
        y = module(x)
    y.float().square().sum().backward()
    return [y.detach().float(), x.grad, *(p.grad.clone() for p in module.parameters())]


def off(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize(("size", "stride"), [(5, 1), (3, 2), (5, 2)])
def test_gradients_are_those_of_torch(size, stride, replaced):
    torch.manual_seed(0)
    module = nn.Conv2d(8, 8, size, stride, padding=size // 2, groups=8, bias=False)
    x = torch.randn(4, 8, 20, 20)
    ours = gradients(module, x, Float32Backward())
    assert replaced == [size]
    torchs = gradients(module, x, torch.autocast("cpu", torch.bfloat16))
    exact = gradients(module, x, torch.autocast("cpu", torch.bfloat16, enabled=False), bfloat16=False)
    assert torch.equal(ours[0], torchs[0]), "the forward pass stays"
    for own, theirs, truth in zip(ours, torchs, exact, strict=True):
        assert own.dtype == theirs.dtype
        assert off(own, theirs) < 2**-6, "a few units of bfloat16's last place, 2^-8"
        assert off(own, truth) < 2**-6


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
        nn.Conv2d(8, 8, 5, padding=2, bias=False),
        nn.Conv2d(8, 8, 5, padding=2, groups=8),
        nn.Conv2d(8, 8, 5, padding="same", groups=8, bias=False),
    ],
    ids=["fast already", "not depthwise", "with bias", "padding in words"],
)
def test_other_convolutions_are_torchs_own(module, replaced):
    x = torch.randn(2, 8, 12, 12, generator=torch.Generator().manual_seed(0))
    assert all(map(torch.equal, gradients(module, x, Float32Backward()), gradients(module, x, torch.enable_grad())))
    assert replaced == []


class OneNumber(nn.Module):
    """Gives one number for both axes, as torch allows."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 1, 5, 5, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.conv2d(x, self.weight, None, 1, 2, 1, 4)


def test_one_number_stands_for_both_axes(replaced):
    x = torch.randn(2, 4, 12, 12, generator=torch.Generator().manual_seed(0))
    ours, torchs = gradients(OneNumber(), x, Float32Backward()), gradients(OneNumber(), x, torch.enable_grad())
    assert replaced == [5]
    assert all(off(own, theirs) < 2**-6 for own, theirs in zip(ours, torchs, strict=True))


@pytest.mark.parametrize("forced", ["on", "off"])
def test_only_training_in_bfloat16_uses_it(forced, replaced, monkeypatch):
    monkeypatch.setenv("GEOCFL_BFLOAT16", forced)
    network = nn.Sequential(nn.Conv2d(4, 4, 5, groups=4, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x, y = torch.randn(2, 4, 8, 8), torch.tensor([0, 3])
    before = network[0].weight.clone()
    Stepper(network, Objective(nn.CrossEntropyLoss()), torch.optim.SGD(network.parameters(), 0.1))(x, y)
    assert not torch.equal(network[0].weight, before)
    assert replaced == ([5] if forced == "on" else [])
