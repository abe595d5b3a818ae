"""The matrix of a 3 x 3 convolution on a map of 1 x 1 or 2 x 2 pixels, which is one dense layer there, and its gradient.

In C (dense_matrix.c) it is one pass over kernel and matrix; torch needs one for each of the pairs of pixels.
"""
# Shapes: C channels in, D channels out, P pixels of the map.

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from thumbnet.kernels.call import call
from thumbnet.kernels.library import library


def dense_matrix(kernel: Tensor, side: int, dtype: torch.dtype) -> Tensor:
    """Kernel D C 3 3 -> the matrix P*D P*C of the same convolution, padded by one, on a map of P = side x side pixels."""
    fits = kernel.device.type == "cpu" and kernel.dtype == torch.float32 and kernel.is_contiguous()
    if fits and library(dtype) is not None:
        return DenseMatrix.apply(kernel, side, dtype)  # type: ignore[no-any-return]
    return PlainDenseMatrix.apply(kernel, side, dtype)  # type: ignore[no-any-return]


class DenseMatrix(torch.autograd.Function):
    """`dense_matrix` of a float kernel, in C."""

    @staticmethod
    def forward(ctx: Any, kernel: Tensor, side: int, dtype: torch.dtype) -> Tensor:
        ctx.shape, ctx.side = kernel.shape, side
        channels_out, channels = kernel.shape[:2]
        matrix = torch.empty(side**2 * channels_out, side**2 * channels, dtype=dtype)
        call("dense_from_kernel", dtype, kernel, matrix, channels_out, channels, side)
        return matrix

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        kernel = torch.empty(ctx.shape)
        call("kernel_from_dense", gradient.dtype, gradient.contiguous(), kernel, *ctx.shape[:2], ctx.side)
        return kernel, None, None


class PlainDenseMatrix(torch.autograd.Function):
    """By torch's operations, in any type, by hand: autograd's way copies all nine taps several times in slow orders."""

    @staticmethod
    def forward(ctx: Any, kernel: Tensor, side: int, dtype: torch.dtype) -> Tensor:
        ctx.shape, ctx.dtype, ctx.side = kernel.shape, kernel.dtype, side
        if side == 1:
            return kernel[:, :, 1, 1].to(dtype)
        taps = kernel.to(dtype).permute(2, 3, 0, 1).reshape(9, *kernel.shape[:2])  # 9 D C
        pixels, channels_out, channels = side**2, *kernel.shape[:2]
        blocks = taps.new_empty(pixels, channels_out, pixels, channels)  # filled block by block: faster than torch.cat
        for i, row in enumerate(taps_between_pixels(side)):
            for j, tap in enumerate(row):
                blocks[i, :, j] = taps[tap]
        return blocks.view(pixels * channels_out, pixels * channels)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        # In the kernel's own type and order, so that nothing is left to convert: each conversion is a pass over memory.
        channels_out, channels = ctx.shape[:2]
        if ctx.side == 1:
            result = torch.zeros(ctx.shape, dtype=ctx.dtype)
            result[:, :, 1, 1] = gradient
            return result, None, None
        pixels = ctx.side**2
        blocks = gradient.view(pixels, channels_out, pixels, channels)
        taps = torch.zeros(9, channels_out, channels, dtype=ctx.dtype)
        for i, row in enumerate(taps_between_pixels(ctx.side)):
            for j, tap in enumerate(row):
                taps[tap] += blocks[i, :, j]
        return taps.permute(1, 2, 0).reshape(ctx.shape), None, None


@cache
def taps_between_pixels(side: int) -> list[list[int]]:
    """For every output pixel, for every input pixel of a side x side map: the index (0 to 8) of the tap that joins them."""
    pixels = [(row, column) for row in range(side) for column in range(side)]
    return [[(p - i + 1) * 3 + (q - j + 1) for p, q in pixels] for i, j in pixels]
