"""A frozen convolution of images, its bias and an activation, as one operation on a CPU: the stem of a whitened network.

Three channels make most of a tile or vector of a convolution empty, and the map is the largest of the network: torch writes it as
floats, again as bf16 and again activated, and reads as much on the way back. In C (whitening.c) it is written once.
"""
# Shapes: B batch, C channels, S side of a filter, F filters, H and W height and width.

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from thumbnet.kernels.call import call
from thumbnet.kernels.library import library
from thumbnet.kernels.pool_norm_activate import CODES


def has_whiten(images: Tensor, filters: Tensor, bias: Tensor, dtype: torch.dtype) -> bool:
    """Whether `whiten` can take them: floats on the CPU, no smaller than a filter, without a gradient; a graph cannot hold it."""
    if torch.compiler.is_compiling() or images.requires_grad or filters.requires_grad:
        return False
    if not all(x.device.type == "cpu" and x.dtype == torch.float32 for x in (images, filters, bias)):
        return False
    fits = images.ndim == 4 and images.shape[1] == filters.shape[1] and min(images.shape[2:]) >= filters.shape[2]
    return fits and images.numel() > 0 and dtype.is_floating_point and library(dtype) is not None


def whiten(images: Tensor, filters: Tensor, bias: Tensor, activation: str, dtype: torch.dtype) -> Tensor:
    """B C H W by filters F C S S and a bias F, activated -> B F H-S+1 W-S+1 in bf16 or float, channels last."""
    return Whiten.apply(images, filters, bias, CODES[activation], dtype)  # type: ignore[no-any-return]


class Whiten(torch.autograd.Function):
    """`whiten` for what `has_whiten`, with a gradient for the bias alone."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, filters: Tensor, bias: Tensor, code: int, dtype: torch.dtype) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        filters, bias = filters.permute(0, 2, 3, 1).contiguous(), bias.contiguous()  # F S S C
        count, side = filters.shape[:2]
        rows, columns = (pixels - side + 1 for pixels in images.shape[2:])
        y = images.new_empty(len(images), rows, columns, count, dtype=dtype).permute(0, 3, 1, 2)  # channels last
        run("whiten", dtype, images, filters, bias, y, code=code)
        ctx.save_for_backward(images, filters, bias)
        ctx.code = code
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        images, filters, bias = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_bias = images.new_empty(len(images), len(filters))  # B F: of each image
        run("whiten_backward", gradient.dtype, images, filters, bias, gradient, of_bias, code=ctx.code)
        return None, None, of_bias.sum(0), None, None


def run(name: str, dtype: torch.dtype, images: Tensor, filters: Tensor, *others: Tensor, code: int) -> None:
    """What the C says of it: images B C H W, channels last, and filters F S S C."""
    batch, channels, height, width = images.shape
    count, side = filters.shape[:2]
    if call(name, dtype, images, filters, *others, batch, height, width, channels, side, count, code):
        raise MemoryError("no memory for the sums of a row of pixels")
