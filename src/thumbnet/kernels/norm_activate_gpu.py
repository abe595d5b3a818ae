"""Batch normalisation and activation of small maps on a GPU, in Triton: one kernel forward, one backward.

A network as deep as the classic one has hundreds of steps of some microseconds each over maps of a few pixels, where starting a
kernel takes longer than its work. So a program has some channels to itself, with all their pixels, and needs no other's sums.
"""
# Shapes: B batch, C channels, H and W height and width; P pixels of all images.

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from thumbnet.kernels.activations_gpu import activated, slope

MOST_PIXELS = 4_096  # the classic network has 3,136 at most, at batch 64; no other limit was measured
CHANNELS = 16  # of a program: 32 bytes of bf16, the least that memory gives
PIXELS_AT_ONCE = 1_024
VALUES_OF_A_THREAD = 32


@triton.jit(do_not_specialize=("pixels", "rounds"))
def forward_kernel(
    x, weight, bias, running_mean, running_var, batches, moments, y, pixels, channels, rounds, momentum, eps,
    NAME: tl.constexpr, LEAK: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Normalised and activated; moments 4 C: mean, inverse deviation, scale, shift; the running ones follow."""
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    there = c < channels
    near = tl.load(running_mean + c, mask=there, other=0.0)
    total = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)  # of distances from `near`, whose squares lose no bits
    total_square = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    for k in range(rounds):
        p = k * BLOCK_P + tl.arange(0, BLOCK_P)
        mask = (p < pixels)[:, None] & there[None, :]
        value = tl.load(x + p[:, None] * channels + c[None, :], mask=mask, other=0.0).to(tl.float32)
        value = tl.where(mask, value - near[None, :], 0.0)
        total += value
        total_square += value * value
    distance = tl.sum(total, 0) / pixels
    variance = tl.sum(total_square, 0) / pixels - distance * distance
    variance = tl.where(variance < 0, 0.0, variance)
    mean, inverse = near + distance, 1 / tl.sqrt(variance + eps)
    scale = tl.load(weight + c, mask=there, other=0.0) * inverse
    shift = tl.load(bias + c, mask=there, other=0.0) - mean * scale
    tl.store(moments + c, mean, mask=there)
    tl.store(moments + channels + c, inverse, mask=there)
    tl.store(moments + 2 * channels + c, scale, mask=there)
    tl.store(moments + 3 * channels + c, shift, mask=there)
    before = tl.load(running_var + c, mask=there, other=0.0)
    unbiased = variance * (pixels / tl.maximum(pixels - 1, 1))
    tl.store(running_mean + c, near + momentum * distance, mask=there)
    tl.store(running_var + c, before + momentum * (unbiased - before), mask=there)
    if tl.program_id(0) == 0:
        tl.store(batches, tl.load(batches) + 1)
    for k in range(rounds):
        p = k * BLOCK_P + tl.arange(0, BLOCK_P)
        mask = (p < pixels)[:, None] & there[None, :]
        at = p[:, None] * channels + c[None, :]
        z = tl.load(x + at, mask=mask, other=0.0).to(tl.float32) * scale[None, :] + shift[None, :]
        tl.store(y + at, activated(z, NAME, LEAK).to(y.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=("pixels", "rounds"))
def backward_kernel(
    x, gradient, moments, totals, result, pixels, channels, rounds,
    NAME: tl.constexpr, LEAK: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """The gradient of x; totals 2 C: those of the bias and of the weight."""
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    there = c < channels
    mean = tl.load(moments + c, mask=there, other=0.0)
    inverse = tl.load(moments + channels + c, mask=there, other=0.0)
    scale = tl.load(moments + 2 * channels + c, mask=there, other=0.0)
    shift = tl.load(moments + 3 * channels + c, mask=there, other=0.0)
    total = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    total_product = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    for k in range(rounds):
        p = k * BLOCK_P + tl.arange(0, BLOCK_P)
        mask = (p < pixels)[:, None] & there[None, :]
        at = p[:, None] * channels + c[None, :]
        value = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
        inner = tl.load(gradient + at, mask=mask, other=0.0).to(tl.float32)
        inner *= slope(value * scale[None, :] + shift[None, :], NAME, LEAK)
        total += inner
        total_product += inner * (value - mean[None, :])
    of_bias, of_weight = tl.sum(total, 0), tl.sum(total_product, 0) * inverse
    tl.store(totals + c, of_bias, mask=there)
    tl.store(totals + channels + c, of_weight, mask=there)
    tilt = of_weight / pixels * inverse  # constant + tilt * value is what the normalisation takes out
    constant = of_bias / pixels - mean * tilt
    for k in range(rounds):
        p = k * BLOCK_P + tl.arange(0, BLOCK_P)
        mask = (p < pixels)[:, None] & there[None, :]
        at = p[:, None] * channels + c[None, :]
        value = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
        found = tl.load(gradient + at, mask=mask, other=0.0).to(tl.float32)
        found *= slope(value * scale[None, :] + shift[None, :], NAME, LEAK)
        found = (found - constant[None, :] - tilt[None, :] * value) * scale[None, :]
        tl.store(result + at, found.to(result.dtype.element_ty), mask=mask)


def takes(x: Tensor) -> bool:
    """Whether x B C H W has so few pixels that a program is to have all of a channel."""
    return x.numel() // x.shape[1] <= MOST_PIXELS


def forward(
    x: Tensor, weight: Tensor, bias: Tensor, norm: nn.BatchNorm2d, name: str, leak: float
) -> tuple[Tensor, Tensor]:
    """y like x, by the batch's statistics, and its moments 4 C; the running ones of `norm` follow."""
    channels = x.shape[1]
    y, moments = torch.empty_like(x), torch.empty(4, channels, device=x.device)
    grid, rounds, block = shared(x)
    forward_kernel[grid](
        x, weight, bias, norm.running_mean, norm.running_var, norm.num_batches_tracked, moments, y,
        x.numel() // channels, channels, rounds, norm.momentum, norm.eps, name, leak, **block,
    )  # fmt: skip
    return y, moments


def backward(x: Tensor, gradient: Tensor, moments: Tensor, name: str, leak: float) -> tuple[Tensor, Tensor]:
    """The gradient of x, and 2 C: those of the bias and of the weight."""
    channels = x.shape[1]
    result, totals = torch.empty_like(x), torch.empty(2, channels, device=x.device)
    grid, rounds, block = shared(x)
    backward_kernel[grid](
        x, gradient, moments, totals, result, x.numel() // channels, channels, rounds, name, leak, **block
    )
    return result, totals


def shared(x: Tensor) -> tuple[tuple[int], int, dict[str, Any]]:
    """The grid of programs for x B C H W, how often each takes a block of pixels, and what is in one."""
    channels = x.shape[1]
    pixels = x.numel() // channels
    block = min(PIXELS_AT_ONCE, triton.next_power_of_2(pixels))
    warps = min(16, max(4, block * CHANNELS // (32 * VALUES_OF_A_THREAD)))
    sizes = {"BLOCK_P": block, "BLOCK_C": CHANNELS, "num_warps": warps}
    return (triton.cdiv(channels, CHANNELS),), triton.cdiv(pixels, block), sizes
