"""Convolutions in the processor's tile registers (Intel AMX), forward and backward.

oneDNN works image by image and row by row, which in small images leaves most of a tile empty, and reads the whole kernel for a
few pixels. In C (tile_convolution.c) a tile takes pixels of several rows and images; docs/findings.md has the layers.
"""
# Shapes: B batch, C channels in, D channels out, S side of the kernel, H and W height and width, ' those of the output.

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from thumbnet.kernels.call import call
from thumbnet.kernels.weight_gradient import weight_gradient


class TileConvolution(torch.autograd.Function):
    """x B C H W, one image at least, kernel D C S S, bias D or None, padding 0 to S-1 -> B D H' W' in bf16, channels last.

    Where `pool`, max-pooled by 2 x 2 as well, B D H'/2 W'/2: the whole map is four times as large and never written.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, bias: Tensor | None, padding: int, pool: bool = False) -> Tensor:
        x = x.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
        y, chosen = convolve(x, kernel, bias, padding, pool=pool)
        ctx.save_for_backward(x, kernel, chosen)
        ctx.padding = padding
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, kernel, chosen = ctx.saved_tensors
        side = kernel.shape[2]
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_x = of_kernel = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = input_gradient(x, gradient, kernel, ctx.padding, chosen)
        if ctx.needs_input_grad[1]:
            of_kernel = weight_gradient(x, gradient, side, ctx.padding, chosen)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum(dim=(0, 2, 3), dtype=torch.float32)
        return of_x, of_kernel, of_bias, None, None


def convolve(
    x: Tensor, kernel: Tensor, bias: Tensor | None, padding: int, *, pool: bool = False
) -> tuple[Tensor, Tensor | None]:
    """x B C H W, bf16 and channels last, by a kernel D C S S -> y B D H' W'.

    With `pool`, y is pooled, and which of 2 x 2 was the largest comes beside it, uint8 in the shape of y.
    """
    rows, columns = (pixels + 2 * padding - kernel.shape[2] + 1 for pixels in x.shape[2:])
    by = 2 if pool else 1
    y = empty(len(x), kernel.shape[0], rows // by, columns // by)
    which = torch.empty_like(y, dtype=torch.uint8) if pool else None
    run(x, None, kernel, bias, y, which, x.shape[2:], padding, turned=False)
    return y, which


def input_gradient(x: Tensor, gradient: Tensor, kernel: Tensor, padding: int, chosen: Tensor | None = None) -> Tensor:
    """That of x B C H W, from the gradient of the output B D H' W', pooled where `chosen`: by the kernel turned round."""
    side, of_x = kernel.shape[2], empty(*x.shape)
    full = [pixels + 2 * padding - side + 1 for pixels in x.shape[2:]]  # H' W' before they were pooled
    run(gradient, chosen, kernel, None, of_x, None, full, side - 1 - padding, turned=True)
    return of_x


def empty(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.bfloat16, memory_format=torch.channels_last)


def run(
    x: Tensor,
    chosen: Tensor | None,
    kernel: Tensor,
    bias: Tensor | None,
    y: Tensor,
    which: Tensor | None,
    size: Sequence[int],
    padding: int,
    *,
    turned: bool,
) -> None:
    """What the C says of `tile_convolution`; `size` is that of x before it was pooled where `chosen`."""
    kernel, bias = kernel.float().contiguous(), None if bias is None else bias.float().contiguous()
    sizes = (len(x), *size, x.shape[1], y.shape[1], kernel.shape[2], padding, int(turned))
    if call("tile_convolution", y.dtype, x, chosen, kernel, bias, y, which, *sizes):
        raise MemoryError("no memory for a convolution")
