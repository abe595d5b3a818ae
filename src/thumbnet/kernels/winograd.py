"""3 x 3 convolutions in fp32 by tiles, with a quarter of the multiplications (Winograd), for CPUs that compute in fp32.

In C (winograd.c); Lavin & Gray 2016, https://arxiv.org/abs/1509.09308. Measured 1.0 to 2.4 times as fast as oneDNN, which
multiplies all, on maps and widths of the networks here (docs/findings.md).
"""
# Shapes: B batch, C channels in, D channels out, H and W height and width, ' those of the output, T tiles of a part of the batch.

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from thumbnet.kernels.call import call
from thumbnet.kernels.library import library

STEP, PLACES = 4, 36  # pixels of a tile along each side; numbers that it is changed into
PANEL = 16  # channels that lie together; the C's LANES
PART = 2**19  # numbers a part of the batch is changed into: 2 MB, which the last cache holds beside as many products
LEAST_SAVING = 1.5  # times as many multiplications as here; with less (maps of 2 x 2) changing the tiles costs more
FEWEST_CHANNELS = 24  # with fewer there is too little to multiply for what is changed; 16 were not measured


def pays(x: Tensor, channels_out: int, padding: int) -> bool:
    """Whether x B C H W is convolved faster by tiles: float on the CPU, and enough of everything."""
    rows, columns = x.shape[2] + 2 * padding - 2, x.shape[3] + 2 * padding - 2
    if (
        x.dtype != torch.float32
        or min(x.shape[1], channels_out) < FEWEST_CHANNELS
        or x.numel() == 0
        or min(rows, columns) < 1
    ):
        return False
    return 9 * rows * columns >= LEAST_SAVING * PLACES * tiles_of(rows, columns) and library(x.dtype) is not None


class Winograd(torch.autograd.Function):
    """x B C H W, kernel D C 3 3, bias D or None, padding -> B D H' W', all float; channels last in memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, bias: Tensor | None, padding: int) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(x, kernel)
        ctx.padding = padding
        y = convolve(x, kernel, padding)
        return y if bias is None else y.add_(bias[:, None, None])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, kernel = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_x = of_kernel = of_bias = None
        if ctx.needs_input_grad[0]:  # a convolution with the kernel turned round
            of_x = convolve(gradient, kernel, 2 - ctx.padding, turned=True)
        if ctx.needs_input_grad[1]:
            of_kernel = kernel_gradient(x, gradient, ctx.padding)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum(dim=(0, 2, 3))
        return of_x, of_kernel, of_bias, None


def convolve(x: Tensor, kernel: Tensor, padding: int, *, turned: bool = False) -> Tensor:
    """x B C H W by a kernel D C 3 3 -> B D H' W'; `turned`, x B D H W -> B C H' W', as the gradient of the input needs it."""
    (batch, channels, height, width), channels_out = x.shape, kernel.shape[1 if turned else 0]
    rows, columns = height + 2 * padding - 2, width + 2 * padding - 2
    y = torch.empty((batch, channels_out, rows, columns), memory_format=torch.channels_last)
    changed_kernel, tiles = torch.empty(PLACES * filled_up(channels_out, PANEL) * channels), tiles_of(rows, columns)
    call(
        "winograd_kernel",
        x.dtype,
        kernel.contiguous(),
        changed_kernel,
        channels_out,
        channels,
        kernel.shape[1],
        int(turned),
    )
    for x_part, y_part in parts(x, y, tiles):
        count, places = len(x_part), filled_up(len(x_part) * tiles, 2)  # the C multiplies no tile alone
        changed, products = torch.empty(numbers(places, channels)), torch.empty(numbers(places, channels_out))
        call("winograd_input", x.dtype, x_part, changed, count, height, width, channels, rows, columns, padding, places)
        call("winograd_multiply", x.dtype, changed, changed_kernel, products, places, channels, channels_out)
        call("winograd_output", x.dtype, products, y_part, count, rows, columns, channels_out, places)
    return y


def kernel_gradient(x: Tensor, gradient: Tensor, padding: int) -> Tensor:
    """That of the kernel, D C 3 3, from x B C H W and the gradient of the output B D H' W'."""
    (_, channels, height, width), (_, channels_out, rows, columns) = x.shape, gradient.shape
    total, tiles = torch.zeros(numbers(filled_up(channels, PANEL), channels_out)), tiles_of(rows, columns)
    for x_part, g_part in parts(x, gradient, tiles):
        count, places = len(x_part), filled_up(len(x_part) * tiles, 2)
        changed, of_output = torch.zeros(numbers(places, channels)), torch.zeros(numbers(places, channels_out))
        call("winograd_input", x.dtype, x_part, changed, count, height, width, channels, rows, columns, padding, places)
        call("winograd_gradient", x.dtype, g_part, of_output, count, rows, columns, channels_out, places)
        call("winograd_add_gradient", x.dtype, changed, of_output, total, places, channels, channels_out)
    result = torch.empty(channels_out, channels, 3, 3)
    call("winograd_kernel_back", x.dtype, total, result, channels_out, channels)
    return result


def tiles_of(rows: int, columns: int) -> int:
    """Of an image."""
    return -(-rows // STEP) * -(-columns // STEP)


def filled_up(count: int, by: int) -> int:
    """To a multiple of `by`."""
    return -(-count // by) * by


def numbers(places: int, channels: int) -> int:
    """That so many tiles are changed into."""
    return PLACES * filled_up(channels, PANEL) * places


def parts(x: Tensor, y: Tensor, tiles: int) -> "zip[tuple[Tensor, Tensor]]":
    """Both cut into as many images at a time as fit `PART`, where an image has so many tiles."""
    count = max(1, PART // numbers(tiles, max(x.shape[1], y.shape[1])))
    return zip(x.split(count), y.split(count), strict=True)
