"""The largest number of each channel of a map: in C (map_maximum.c) one pass forward and two backward; torch makes seven."""
# Shapes: B batch, C channels, H and W height and width.

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from thumbnet.kernels.call import call
from thumbnet.kernels.pool_norm_activate import has_kernel


def map_maximum(x: Tensor) -> Tensor:
    """B C H W -> B C; the gradient is shared by equals, as that of `Tensor.amax`."""
    return MapMaximum.apply(x) if has_kernel(x) else x.amax(dim=(2, 3))  # type: ignore[no-any-return]


class MapMaximum(torch.autograd.Function):
    """`map_maximum` for what `has_kernel`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        y = x.new_empty(batch, channels)
        call("map_maximum", x.dtype, x, y, batch, height * width, channels)
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        x, y = ctx.saved_tensors
        batch, channels, height, width = x.shape
        result = torch.empty_like(x, memory_format=torch.channels_last)
        call("map_maximum_backward", x.dtype, x, y, gradient.contiguous(), result, batch, height * width, channels)
        return result
