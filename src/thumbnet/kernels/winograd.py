"""3 x 3 and 2 x 2 convolutions by tiles, with a fifth to two thirds of the multiplications (Winograd).

In C (winograd.c); Lavin & Gray 2016, https://arxiv.org/abs/1509.09308. Measured 1.0 to 2.7 times as fast as oneDNN, which
multiplies all, on maps and widths of the networks here (docs/findings.md). In float the result is right to 6e-6 of the whole; in
bf16, with AVX-512 BF16 alone, to 1 %, since what is changed is rounded before it is multiplied.
"""
# Shapes: B batch, C channels in, D channels out, S side of the kernel, H and W height and width, ' those of the output.

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from thumbnet.kernels.call import call
from thumbnet.kernels.library import library

PANEL, ROWS = 16, 6  # channels that lie together, tiles that are multiplied together; the C's LANES and ROWS (of AVX2)
# Numbers a part of the batch is changed into: 2 MB of floats, which a core's part of the last cache holds with the products.
PART = 2**19
PARTS_OF_A_THREAD = 4  # at least, so that no thread waits long for the last one
GROUPS = 4  # of a batch, whose sums for the gradient of the kernel are kept apart, so that a thread needs no other's
ROOM_FOR_SUMS = 2**25  # numbers; with less room there are fewer groups, and more threads than groups share each
TILES_OF_A_GROUP = 2_000  # at least: with fewer, sums take longer to write and add up than threads do to share one
FEWEST_TILES = 24  # of a part; with 4 to 8 a product takes two to three times as long
LEAST_SAVING = 1.5  # times as many multiplications as here; with less (maps of one pixel) changing the tiles costs more
FEWEST_PIXELS = 800  # of a batch's maps; with fewer, changing the kernel costs more than is saved (docs/findings.md)
FEWEST_CHANNELS = 24  # with fewer there is too little to multiply for what is changed; 16 were not measured


@dataclass(frozen=True)
class Tiling:
    """What differs between float and bf16, whose products are made in half the time: kernels and sums must be read less often."""

    steps: tuple[int, ...]  # pixels of a tile along each side; a map is cut into tiles of one of them
    places: int  # numbers that the largest tile is changed into
    tiles: int  # of a part at least, where there are enough: the whole kernel is read for it
    summed: int  # the same for the gradient of the kernel, where all sums are read and written


TILINGS = {
    torch.float32: Tiling(steps=(4, 6), places=64, tiles=FEWEST_TILES, summed=FEWEST_TILES),
    torch.bfloat16: Tiling(steps=(4,), places=36, tiles=96, summed=256),  # 6 pixels would leave 4 % of error (points.h)
}


def pays(x: Tensor, channels_out: int, side: int, padding: int, number: torch.dtype) -> bool:
    """Whether x B C H W on the CPU is convolved faster by tiles of float or bf16: enough of everything."""
    rows, columns = output_size(x, side, padding)
    few = (
        min(x.shape[1], channels_out) < FEWEST_CHANNELS
        or min(rows, columns) < 1
        or len(x) * rows * columns < FEWEST_PIXELS
    )
    if few:
        return False
    saving = side**2 * rows * columns / places_of((rows, columns), side, step_of((rows, columns), side, number))
    return saving >= LEAST_SAVING and has_winograd(number)


@cache
def has_winograd(number: torch.dtype) -> bool:
    """Whether the C is there: for bf16 only where the processor multiplies it (AVX-512)."""
    return hasattr(library(number), "winograd_convolve")


class Winograd(torch.autograd.Function):
    """x B C H W, B 1 or more, kernel D C S S, S 2 or 3, bias D or None, padding -> B D H' W', float or bf16, channels last.

    Where `pool`, max-pooled by 2 x 2 as well, B D H'/2 W'/2: the whole map is four times as large and never written.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, bias: Tensor | None, padding: int, pool: bool = False) -> Tensor:
        if torch.is_autocast_enabled("cpu"):
            x = x.to(torch.get_autocast_dtype("cpu"))
        x = x.contiguous(memory_format=torch.channels_last)
        rows, columns = output_size(x, kernel.shape[2], padding)
        if pool:  # an odd last row or column belongs to no 2 x 2
            rows, columns = rows - rows % 2, columns - columns % 2
        y, chosen = convolve(x, kernel, padding, (rows, columns), pool=pool)
        ctx.save_for_backward(x, kernel, chosen)
        ctx.padding = padding
        return y if bias is None else y.add_(bias[:, None, None])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, kernel, chosen = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_x = of_kernel = of_bias = None
        if ctx.needs_input_grad[0]:  # a convolution with the kernel turned round
            size, padding = (x.shape[2], x.shape[3]), kernel.shape[2] - 1 - ctx.padding
            of_x, _ = convolve(gradient, kernel, padding, size, chosen=chosen, turned=True)
        if ctx.needs_input_grad[1]:
            of_kernel = kernel_gradient(x, gradient, kernel.shape[2], ctx.padding, chosen)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum(dim=(0, 2, 3), dtype=torch.float32)
        return of_x, of_kernel, of_bias, None, None


def convolve(
    x: Tensor,
    kernel: Tensor,
    padding: int,
    size: tuple[int, int],
    *,
    pool: bool = False,
    chosen: Tensor | None = None,
    turned: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """x B C H W by a kernel D C S S -> y B D H' W'; `turned`, x B D H W -> B C H' W', as the gradient of the input needs it.

    H' and W' are given: zeros lie beyond the padding too, and what is not wanted is not computed. With `pool`, y is pooled, and
    which of 2 x 2 was the largest comes beside it, uint8 in the shape of y. Given that as `chosen`, x is the gradient of what
    was pooled.
    """
    channels, channels_out = x.shape[1], kernel.shape[1 if turned else 0]
    by, widest, side = 2 if pool else 1, max(channels, channels_out), kernel.shape[2]
    step, tiling = step_of(size, side, x.dtype), TILINGS[x.dtype]
    teams, at_once = teams_and_images(len(x), size, widest, torch.get_num_threads(), side=side, number=x.dtype)
    shape = (len(x), channels_out, size[0] // by, size[1] // by)
    y = torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)
    which = torch.empty_like(y, dtype=torch.uint8) if pool else None
    call(
        "winograd_convolve",
        x.dtype,
        x,
        chosen,
        kernel.float().contiguous(),
        y,
        which,
        room_for(at_once, size, channels, step, x.dtype, teams),
        torch.empty(tiling.places * panels(channels_out) * PANEL * channels),
        room_for(at_once, size, channels_out, step, x.dtype, teams),
        len(x),
        at_once,
        teams,
        *full_size(x, chosen),
        channels,
        *size,
        step,
        channels_out,
        padding,
        int(turned),
        side,
    )
    return y, which


def kernel_gradient(x: Tensor, gradient: Tensor, side: int, padding: int, chosen: Tensor | None = None) -> Tensor:
    """That of the kernel, D C S S, from x B C H W and the gradient of the output B D H' W', pooled where `chosen`."""
    (_, channels, height, width), channels_out, size = x.shape, gradient.shape[1], full_size(gradient, chosen)
    step, tiling = step_of(size, side, x.dtype), TILINGS[x.dtype]
    sums = tiling.places * panels(channels_out) * panels(channels) * PANEL**2
    groups = groups_of(len(x), size, step, sums)
    teams = threads if (threads := torch.get_num_threads()) <= groups else 1
    at_once = images_at_once(-(-len(x) // groups), size, max(channels, channels_out), side, step, tiling.summed)
    result = torch.empty(channels_out, channels, side, side)
    call(
        "winograd_kernel_gradient",
        x.dtype,
        x,
        gradient,
        chosen,
        result,
        room_for(at_once, size, channels, step, x.dtype, teams),
        room_for(at_once, size, channels_out, step, x.dtype, teams),
        torch.empty(groups * sums),
        len(x),
        at_once,
        groups,
        teams,
        height,
        width,
        channels,
        *size,
        step,
        channels_out,
        padding,
        side,
    )
    return result


def groups_of(images: int, size: Sequence[int], step: int, sums: int) -> int:
    """Into how many groups the images part, whatever the threads; one, two or four, so that two threads have as much to do."""
    tiles = images * tiles_along(size[0], step) * tiles_along(size[1], step)
    most = min(GROUPS, ROOM_FOR_SUMS // sums, tiles // TILES_OF_A_GROUP, images)
    return 1 << (max(1, most).bit_length() - 1)


def full_size(x: Tensor, chosen: Tensor | None) -> tuple[int, int]:
    """Height and width of a map, before it was pooled where `chosen`."""
    by = 1 if chosen is None else 2
    return x.shape[2] * by, x.shape[3] * by


def output_size(x: Tensor, side: int, padding: int) -> tuple[int, int]:
    """Height and width of x B C H W convolved."""
    return x.shape[2] + 2 * padding - side + 1, x.shape[3] + 2 * padding - side + 1


def step_of(size: Sequence[int], side: int, number: torch.dtype) -> int:
    """The side of the tiles in which a map of this size has fewest places; the smaller of two, whose places have more tiles."""
    return min(TILINGS[number].steps, key=lambda step: (places_of(size, side, step), step))


def places_of(size: Sequence[int], side: int, step: int) -> int:
    """That a map of this size is changed into: a tile of n pixels along a side has n + S - 1 there."""
    rows, columns = (pixels + (side - 1) * tiles_along(pixels, step) for pixels in size)
    return rows * columns


def tiles_along(pixels: int, step: int) -> int:
    """A side of so many pixels; the last tile may have fewer of them."""
    return -(-pixels // step)


def panels(channels: int) -> int:
    """That so many channels fill, the last one perhaps in part."""
    return -(-channels // PANEL)


def room_for(images: int, size: Sequence[int], channels: int, step: int, number: torch.dtype, teams: int = 1) -> Tensor:
    """For what the tiles of maps of this size are changed into by each team, not yet filled: at least the C's `stream_of`."""
    lines = panels(channels) * tiles_along(size[0], step) * tiles_along(size[1], step) * images
    return torch.empty(teams * TILINGS[number].places * (lines | 1) * PANEL)


def images_at_once(images: int, size: Sequence[int], channels: int, side: int, step: int, tiles: int) -> int:
    """As many of them as fit `PART` when their maps of this size are changed, or as have so many tiles."""
    fit = PART // (places_of(size, side, step) * panels(channels) * PANEL)
    return min(images, max(in_rows(max(1, fit)), images_with(tiles, size, step)))


def images_with(tiles: int, size: Sequence[int], step: int) -> int:
    """As many images as have so many tiles."""
    return -(-tiles // (tiles_along(size[0], step) * tiles_along(size[1], step)))


def teams_and_images(
    images: int, size: Sequence[int], channels: int, threads: int, *, side: int, number: torch.dtype
) -> tuple[int, int]:
    """Into how many teams of one the threads part, and how many images each takes at once; or one team of all, for few images."""
    step, tiles = step_of(size, side, number), TILINGS[number].tiles
    share = max(images_with(FEWEST_TILES, size, step), in_rows(-(-images // (threads * PARTS_OF_A_THREAD))))
    at_once = images_at_once(min(images, share), size, channels, side, step, tiles)
    if at_once * threads <= images:
        return threads, at_once
    return 1, images_at_once(images, size, channels, side, step, tiles)


def in_rows(count: int) -> int:
    """Less than `ROWS` away from so many: a multiple of it, so that few tiles are multiplied twice."""
    return count if count < ROWS else count - count % ROWS
