"""A faster backward pass for depthwise convolutions on CPUs that compute in bfloat16."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class Float32Backward(TorchFunctionMode):
    """Within this context, the gradients of some depthwise convolutions are computed in float32.

    Where the kernel is larger than 3 x 3 or the stride above 1, torch's gradients in bfloat16 take two to nine times as
    long on a CPU as those in float32: more than half of the time of training an EfficientNet. The forward pass stays in
    bfloat16.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replaces the convolutions concerned."""
        if func is not torch.conv2d or kwargs or len(args) < 7:
            return func(*args, **(kwargs or {}))
        x, weight, bias, stride, padding, dilation, groups = args
        if bias is not None or groups == 1 or isinstance(padding, str):
            return func(*args)
        if weight.shape[-1] <= 3 and max(_pair(stride)) == 1:
            return func(*args)
        how = _pair(stride), _pair(padding), _pair(dilation)
        return _Depthwise.apply(x.bfloat16(), weight.bfloat16(), *how, groups)


def _pair(value: int | Sequence[int]) -> list[int]:
    """A size along both axes; networks also give one number for the two."""
    return [value, value] if isinstance(value, int) else list(value)


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, stride: list[int], padding: list[int], dilation: list[int], groups: int
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.how = stride, padding, dilation, groups
        return F.conv2d(x, weight, None, stride, padding, dilation, groups)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.how
        dx, dweight, _ = torch.ops.aten.convolution_backward(
            gradients[0].float(),
            x.float(),
            weight.float(),
            None,
            stride,
            padding,
            dilation,
            False,
            [0, 0],
            groups,
            [True, True, False],
        )
        return dx.bfloat16(), dweight.bfloat16(), None, None, None, None
