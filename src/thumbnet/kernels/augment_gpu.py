"""Mirroring, cropping and jitter of training images in one kernel on a GPU, in Triton: bytes in, numbers out, channels last.

torch's operations for them are a dozen passes over the batch, each a launch; see augment.py for what they mean.
"""
# Shapes: B batch, C channels, H and W height and width.

import torch
import triton
import triton.language as tl
from torch import Tensor

MOST_VALUES = 16_384  # of an image, which a program has to itself


@triton.jit(do_not_specialize=("height", "width", "padding"))
def augment_kernel(
    images, mirrored, offsets, draws, result, batch, height, width, padding, strength,
    CHANNELS: tl.constexpr, JITTER: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """An image a program: offsets 2 B of the window's corner, draws 2 B of brightness and contrast in [-1, 1]."""
    b = tl.program_id(0)
    at = tl.arange(0, BLOCK)
    values = CHANNELS * height * width
    there = at < values
    channel, pixel = at % CHANNELS, at // CHANNELS
    row = pixel // width + tl.load(offsets + b).to(tl.int32) - padding
    column = pixel % width + tl.load(offsets + batch + b).to(tl.int32) - padding
    row = tl.where(row < 0, -row, row)  # reflected at the borders, which are not repeated
    row = tl.where(row >= height, 2 * (height - 1) - row, row)
    column = tl.where(column < 0, -column, column)
    column = tl.where(column >= width, 2 * (width - 1) - column, column)
    column = tl.where(tl.load(mirrored + b) != 0, width - 1 - column, column)
    image = images + b.to(tl.int64) * values
    value = tl.load(image + (channel * height + row) * width + column, mask=there, other=0).to(tl.float32) / 255
    if JITTER:
        mean = tl.sum(value, 0) / values
        value = (value - mean) * (1 + strength * tl.load(draws + batch + b)) + mean + strength * tl.load(draws + b)
        value = tl.minimum(tl.maximum(value, 0.0), 1.0)
    tl.store(result + b.to(tl.int64) * values + at, value, mask=there)


def augmented(
    images: Tensor, mirrored: Tensor, offsets: Tensor | None, padding: int, draws: Tensor | None, strength: float
) -> Tensor:
    """uint8 B C H W -> float B C H W in [0, 1], channels last: mirrored where bool B says, cut at `offsets` 2 B, jittered."""
    batch, channels, height, width = images.shape
    if offsets is None:
        offsets = torch.zeros(2, batch, dtype=torch.int64, device=images.device)
    result = torch.empty(images.shape, device=images.device, memory_format=torch.channels_last)
    block = triton.next_power_of_2(channels * height * width)
    augment_kernel[(batch,)](
        images, mirrored.view(torch.uint8), offsets, draws, result, batch, height, width, padding, strength,
        channels, draws is not None, block, num_warps=8,
    )  # fmt: skip
    return result


def takes(images: Tensor, padding: int) -> bool:
    """Whether the kernel can have images B C H W, padded by reflection at every side."""
    fits = images.numel() > 0 and images.is_contiguous() and padding < min(images.shape[2:])
    return fits and images.shape[1:].numel() <= MOST_VALUES
