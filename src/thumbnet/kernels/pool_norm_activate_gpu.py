"""Max-pooling, batch normalisation and activation in one operation on a GPU, written in Triton; see pool_norm_activate.py.

Two passes over memory forward, two backward: sums, then values. torch's own operations make nine, and its pooling writes an
eight-byte place for every value. A map is channels last, so that here it is rows (pixels of all images) of channels.
"""
# Shapes: B batch, C channels, H and W height and width; P pixels of all images after pooling; G programs that share P.

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from thumbnet.kernels import norm_activate_gpu as small
from thumbnet.kernels.activations_gpu import activated, slope

# That a program holds at once, 8 for each of its 128 threads: with 16 they need too many registers to be many.
VALUES = 1024
WIDEST = 128  # channels of these
# What differs from layer to layer: a kernel is not compiled anew for it. Not `channels`: how wide memory is read hangs on it.
VARYING = ("pixels", "windows", "height", "width", "rows", "columns", "rounds", "programs", "count")
PROGRAMS = 1056  # that share the pixels of a sum: 8 for each of the 132 processors of an H100


@triton.jit
def corner(p, height, width, rows, columns):
    """The first of the four pixels that window `p` of rows x columns windows an image takes; its image, row and column."""
    column, above = p % columns, p // columns
    image, row, column = above // rows, 2 * (above % rows), 2 * column
    return (image * height + row).to(tl.int64) * width + column, image, row, column


@triton.jit(do_not_specialize=VARYING)
def sums_kernel(
    x, pooled, place, near, sums, squares, pixels, channels, height, width, rounds,
    POOL: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Pool; and sums and squares G C of the distances from `near` C."""
    program, c = tl.program_id(0), tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    there = c < channels
    origin = tl.load(near + c, mask=there, other=0.0)
    total = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)  # added up over pixels once, at the end
    total_square = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    for k in range(rounds):
        p = (program * rounds + k) * BLOCK_P + tl.arange(0, BLOCK_P)
        mask = (p < pixels)[:, None] & there[None, :]
        to = p.to(tl.int64)[:, None] * channels + c[None, :]
        if POOL:
            first, _, _, _ = corner(p, height, width, height // 2, width // 2)
            start = x + first[:, None] * channels + c[None, :]
            largest = tl.load(start, mask=mask, other=0.0).to(tl.float32)
            chosen = tl.zeros((BLOCK_P, BLOCK_C), tl.int8)
            for i in tl.static_range(1, 4):
                other = tl.load(start + ((i // 2) * width + i % 2) * channels, mask=mask, other=0.0).to(tl.float32)
                larger = (other > largest) | (other != other)  # nan goes on, as in torch
                largest, chosen = tl.where(larger, other, largest), tl.where(larger, i, chosen)
            tl.store(pooled + to, largest.to(pooled.dtype.element_ty), mask=mask)
            tl.store(place + to, chosen.to(tl.int8), mask=mask)
            value = largest
        else:
            value = tl.load(x + to, mask=mask, other=0.0).to(tl.float32)
        value = tl.where(mask, value - origin[None, :], 0.0)
        total += value
        total_square += value * value
    tl.store(sums + program * channels + c, tl.sum(total, 0), mask=there)
    tl.store(squares + program * channels + c, tl.sum(total_square, 0), mask=there)


@triton.jit
def total_of(parts, programs, channels, c, there, BLOCK_G: tl.constexpr, BLOCK_C: tl.constexpr):
    """The sum over G of parts G C, at channels `c`."""
    total = tl.zeros((BLOCK_G, BLOCK_C), tl.float32)
    for start in range(0, programs, BLOCK_G):
        g = start + tl.arange(0, BLOCK_G)
        mask = (g < programs)[:, None] & there[None, :]
        total += tl.load(parts + g[:, None] * channels + c[None, :], mask=mask, other=0.0)
    return tl.sum(total, 0)


@triton.jit(do_not_specialize=VARYING)
def moments_kernel(
    sums, squares, weight, bias, running_mean, running_var, batches, moments,
    programs, channels, count, momentum, eps,
    BLOCK_G: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Moments 4 C: mean, inverse deviation, scale, shift; the running ones follow, and the number of batches."""
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    there = c < channels
    near = tl.load(running_mean + c, mask=there, other=0.0)
    distance = total_of(sums, programs, channels, c, there, BLOCK_G, BLOCK_C) / count
    variance = total_of(squares, programs, channels, c, there, BLOCK_G, BLOCK_C) / count - distance * distance
    variance = tl.where(variance < 0, 0.0, variance)
    mean, inverse = near + distance, 1 / tl.sqrt(variance + eps)
    scale = tl.load(weight + c, mask=there, other=0.0) * inverse
    tl.store(moments + c, mean, mask=there)
    tl.store(moments + channels + c, inverse, mask=there)
    tl.store(moments + 2 * channels + c, scale, mask=there)
    tl.store(moments + 3 * channels + c, tl.load(bias + c, mask=there, other=0.0) - mean * scale, mask=there)
    before = tl.load(running_var + c, mask=there, other=0.0)
    tl.store(running_mean + c, near + momentum * distance, mask=there)
    tl.store(running_var + c, before + momentum * (variance * (count / tl.maximum(count - 1, 1)) - before), mask=there)
    if tl.program_id(0) == 0:
        tl.store(batches, tl.load(batches) + 1)


@triton.jit(do_not_specialize=VARYING)
def values_kernel(
    x, moments, y, pixels, channels, rounds,
    NAME: tl.constexpr, LEAK: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Normalised and activated."""
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    there = c < channels
    scale = tl.load(moments + 2 * channels + c, mask=there, other=0.0)
    shift = tl.load(moments + 3 * channels + c, mask=there, other=0.0)
    for k in range(rounds):
        p = (tl.program_id(0) * rounds + k) * BLOCK_P + tl.arange(0, BLOCK_P)
        mask = (p < pixels)[:, None] & there[None, :]
        at = p.to(tl.int64)[:, None] * channels + c[None, :]
        z = tl.load(x + at, mask=mask, other=0.0).to(tl.float32) * scale[None, :] + shift[None, :]
        tl.store(y + at, activated(z, NAME, LEAK).to(y.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=VARYING)
def gradient_sums_kernel(
    x, gradient, moments, sums, products, pixels, channels, rounds,
    NAME: tl.constexpr, LEAK: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Sums G C of the gradients before the activation, and of their products with the normalised values."""
    program, c = tl.program_id(0), tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    there = c < channels
    mean = tl.load(moments + c, mask=there, other=0.0)
    scale = tl.load(moments + 2 * channels + c, mask=there, other=0.0)
    shift = tl.load(moments + 3 * channels + c, mask=there, other=0.0)
    total = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    total_product = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    for k in range(rounds):
        p = (program * rounds + k) * BLOCK_P + tl.arange(0, BLOCK_P)
        mask = (p < pixels)[:, None] & there[None, :]
        at = p.to(tl.int64)[:, None] * channels + c[None, :]
        value = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
        inner = tl.load(gradient + at, mask=mask, other=0.0).to(tl.float32)
        inner *= slope(value * scale[None, :] + shift[None, :], NAME, LEAK)
        total += inner
        total_product += inner * (value - mean[None, :])
    tl.store(sums + program * channels + c, tl.sum(total, 0), mask=there)
    inverse = tl.load(moments + channels + c, mask=there, other=0.0)
    tl.store(products + program * channels + c, tl.sum(total_product, 0) * inverse, mask=there)


@triton.jit(do_not_specialize=VARYING)
def totals_kernel(sums, products, totals, programs, channels, BLOCK_G: tl.constexpr, BLOCK_C: tl.constexpr):
    """Totals 2 C: the gradients of the bias and of the weight."""
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    there = c < channels
    tl.store(totals + c, total_of(sums, programs, channels, c, there, BLOCK_G, BLOCK_C), mask=there)
    tl.store(totals + channels + c, total_of(products, programs, channels, c, there, BLOCK_G, BLOCK_C), mask=there)


@triton.jit(do_not_specialize=VARYING)
def gradient_kernel(
    x, gradient, place, moments, totals, result, windows, channels, height, width, rows, columns, count, rounds,
    NAME: tl.constexpr, LEAK: tl.constexpr, POOL: tl.constexpr, OF_BATCH: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """The gradient of the map before pooling. Windows at an odd border hold pixels that pooling left out, which get zeros."""
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    there = c < channels
    scale = tl.load(moments + 2 * channels + c, mask=there, other=0.0)
    shift = tl.load(moments + 3 * channels + c, mask=there, other=0.0)
    if OF_BATCH:  # constant + tilt * value is the part of the gradient that the normalisation takes out
        mean = tl.load(moments + c, mask=there, other=0.0)
        inverse = tl.load(moments + channels + c, mask=there, other=0.0)
        tilt = tl.load(totals + channels + c, mask=there, other=0.0) / count * inverse
        constant = tl.load(totals + c, mask=there, other=0.0) / count - mean * tilt
    for k in range(rounds):
        p = (tl.program_id(0) * rounds + k) * BLOCK_P + tl.arange(0, BLOCK_P)
        mask = (p < windows)[:, None] & there[None, :]
        pooled_at, inside = p, mask
        if POOL:
            first, image, row, column = corner(p, height, width, rows, columns)
            pooled_at = (image * (height // 2) + row // 2) * (width // 2) + column // 2
            inside = mask & ((row + 1 < height) & (column + 1 < width))[:, None]
        at = pooled_at.to(tl.int64)[:, None] * channels + c[None, :]
        value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        found = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32)
        found *= slope(value * scale[None, :] + shift[None, :], NAME, LEAK)
        if OF_BATCH:
            found -= constant[None, :] + tilt[None, :] * value
        found = (found * scale[None, :]).to(result.dtype.element_ty)
        if POOL:
            chosen = tl.load(place + at, mask=inside, other=4)
            start = result + first[:, None] * channels + c[None, :]
            for i in tl.static_range(4):
                on_map = mask & ((row + i // 2 < height) & (column + i % 2 < width))[:, None]
                target = start + ((i // 2) * width + i % 2) * channels
                tl.store(target, tl.where(chosen == i, found, 0.0).to(result.dtype.element_ty), mask=on_map)
        else:
            tl.store(result + at, found, mask=mask)


class PoolNormActivate(torch.autograd.Function):
    """`pool_norm_activate` for maps B C H W on a GPU, channels last."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, norm: nn.BatchNorm2d, name: str, leak: float, pool: bool
    ) -> Tensor:
        ctx.name, ctx.leak, ctx.shape, ctx.of_batch = name, leak, x.shape, norm.training
        if norm.training and not pool and small.takes(x):
            y, moments = small.forward(x, weight, bias, norm, name, leak)
            ctx.save_for_backward(x, None, moments)
            return y
        batch, channels, height, width = x.shape
        shape = (batch, channels, height // 2, width // 2)
        pooled = x
        if pool:
            pooled = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        place = torch.empty_like(pooled, dtype=torch.int8) if pool else None
        pixels = pooled.numel() // channels
        moments = torch.empty(4, channels, device=x.device)
        block, rounds, grid = shared(pixels, channels)
        assert norm.running_mean is not None and norm.running_var is not None
        if norm.training:
            sums, squares = torch.empty(2, grid[0], channels, device=x.device)
            sums_kernel[grid](
                x, pooled, place, norm.running_mean, sums, squares, pixels, channels, height, width, rounds, pool, **block
            )  # fmt: skip
            moments_kernel[narrow(channels)](
                sums, squares, weight, bias, norm.running_mean, norm.running_var, norm.num_batches_tracked, moments,
                grid[0], channels, pixels, norm.momentum, norm.eps, **NARROW,
            )  # fmt: skip
        else:
            assert not pool
            inverse = (norm.running_var + norm.eps).rsqrt()
            scale = weight * inverse
            torch.stack((norm.running_mean, inverse, scale, bias - norm.running_mean * scale), out=moments)
        y = torch.empty_like(pooled)
        values_kernel[grid](pooled, moments, y, pixels, channels, rounds, name, leak, **block)
        ctx.save_for_backward(pooled, place, moments)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        pooled, place, moments = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        if ctx.of_batch and place is None and small.takes(pooled):
            found, totals = small.backward(pooled, gradient, moments, ctx.name, ctx.leak)
            return found, totals[1], totals[0], None, None, None, None
        totals = gradient_totals(pooled, gradient, moments, ctx.name, ctx.leak)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = gradient_of(
                pooled, gradient, place, moments, totals, ctx.shape, ctx.name, ctx.leak, of_batch=ctx.of_batch
            )
        return of_x, totals[1], totals[0], None, None, None, None


class BiasActivate(torch.autograd.Function):
    """A bias C added to a float map B C H W, activated, in the type of what follows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor, name: str, leak: float, dtype: torch.dtype) -> Tensor:
        channels, ones = len(bias), torch.ones_like(bias)
        moments = torch.stack((torch.zeros_like(bias), ones, ones, bias))
        y = torch.empty_like(x, dtype=dtype)
        block, rounds, grid = shared(x.numel() // channels, channels)
        values_kernel[grid](x, moments, y, x.numel() // channels, channels, rounds, name, leak, **block)
        ctx.save_for_backward(x, moments)
        ctx.name, ctx.leak = name, leak
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, moments = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_x = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = gradient_of(x, gradient, None, moments, moments, x.shape, ctx.name, ctx.leak, of_batch=False)
        if ctx.needs_input_grad[1]:
            of_bias = gradient_totals(x, gradient, moments, ctx.name, ctx.leak)[0]
        return of_x, of_bias, None, None, None


def gradient_totals(x: Tensor, gradient: Tensor, moments: Tensor, name: str, leak: float) -> Tensor:
    """2 C: the gradients of the bias and of the weight."""
    channels = moments.shape[1]
    pixels = x.numel() // channels
    block, rounds, grid = shared(pixels, channels)
    sums, products = torch.empty(2, grid[0], channels, device=x.device)
    gradient_sums_kernel[grid](x, gradient, moments, sums, products, pixels, channels, rounds, name, leak, **block)
    totals = torch.empty(2, channels, device=x.device)
    totals_kernel[narrow(channels)](sums, products, totals, grid[0], channels, **NARROW)
    return totals


def gradient_of(
    x: Tensor,
    gradient: Tensor,
    place: Tensor | None,
    moments: Tensor,
    totals: Tensor,
    shape: torch.Size,
    name: str,
    leak: float,
    *,
    of_batch: bool,
) -> Tensor:
    """The gradient of a map of `shape`, which was pooled to x where `place` says how."""
    batch, channels, height, width = shape
    pool = place is not None
    rows, columns = ((height + 1) // 2, (width + 1) // 2) if pool else (height, width)
    result = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    block, rounds, grid = shared(batch * rows * columns, channels)
    gradient_kernel[grid](
        x, gradient, place, moments, totals, result,
        batch * rows * columns, channels, height, width, rows, columns, x.numel() // channels, rounds,
        name, leak, pool, of_batch, **block,
    )  # fmt: skip
    return result


NARROW = {"BLOCK_G": 256, "BLOCK_C": 8}  # where parts G C are added up


def narrow(channels: int) -> tuple[int]:
    """The grid of the programs that do so."""
    return (triton.cdiv(channels, NARROW["BLOCK_C"]),)


def try_out() -> None:
    """Compile and launch a small kernel, or raise whatever keeps this machine from it."""
    parts, totals = torch.ones(3, 1, device="cuda"), torch.empty(2, 1, device="cuda")
    totals_kernel[narrow(1)](parts, parts, totals, 3, 1, **NARROW)
    if totals.tolist() != [[3.0], [3.0]]:
        raise RuntimeError(f"a sum of three ones by Triton is {totals[0].item()}")


def shared(pixels: int, channels: int) -> tuple[dict[str, int], int, tuple[int, int]]:
    """How many pixels and channels a program takes at once, how often, and the grid of programs."""
    wide = min(WIDEST, triton.next_power_of_2(channels))
    block = {"BLOCK_P": VALUES // wide, "BLOCK_C": wide}
    columns, blocks = triton.cdiv(channels, wide), triton.cdiv(pixels, block["BLOCK_P"])
    rounds = triton.cdiv(blocks, max(1, PROGRAMS // columns))
    return block, rounds, (triton.cdiv(blocks, rounds), columns)
