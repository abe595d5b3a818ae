"""torch's 2-D convolution, computed as a matrix product where that is faster on a CPU; same parameters, same result.

Two cases, both common in networks for small images, cost oneDNN far more than their arithmetic: 1x1 kernels, which are
one matrix product over all pixels, and 3x3 kernels on maps of 1x1 or 2x2 pixels, where most taps meet only padding and
which are one dense layer. Measured on the classic ResNet-50 (batch 64): about twice the training images per second.
"""
# Shapes: B batch, C channels in, D channels out, H and W height and width of the map, P pixels of the map (H W).

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thumbnet.kernels.dense_matrix import dense_matrix

LARGEST_DENSE_SIDE = 2  # from 3x3 maps on, a dense layer does more multiplications than the convolution
LARGEST_NARROW_SIDE = 8  # from rows of 11 pixels on, copying costs more than full registers save (docs/findings.md)
WIDEST_ROW = 48  # pixels; the best is 32 for maps of 7 pixels and 80 for those of 3, between them it matters little


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d` with square kernels; takes and gives B C H W."""

    def forward(self, x: Tensor) -> Tensor:
        if self.in_channels == 1:
            return channels_last(super().forward(x))
        plain = self.groups == 1 and self.dilation == (1, 1) and self.padding_mode == "zeros"
        if x.device.type != "cpu" or not plain:  # a GPU has kernels for these cases
            return super().forward(x)
        if self.kernel_size == (1, 1) and self.padding == (0, 0):
            return self.as_product_over_pixels(x)
        if self.stride != (1, 1):
            return super().forward(x)
        height, width = x.shape[2:]
        if self.kernel_size == (3, 3) and self.padding == (1, 1) and height == width <= LARGEST_DENSE_SIDE:
            return self.as_dense_layer(x)
        same_or_valid = self.padding[0] in (0, (self.kernel_size[0] - 1) / 2)
        if same_or_valid and width <= LARGEST_NARROW_SIDE and compute_dtype(x) == torch.bfloat16 and has_tiles():
            return self.side_by_side(x)
        return super().forward(x)

    def side_by_side(self, x: Tensor) -> Tensor:
        """A map with short rows: several images in a row, with columns of zeros between them, then taken apart again.

        oneDNN works row by row, and a row of seven pixels fills less than half of a processor's tile registers (Intel AMX),
        of which it needs several for a gradient. Without such registers this gains nothing.
        """
        (batch, _, height, width), padding = x.shape, int(self.padding[0])
        rows, columns = (side + 2 * padding - self.kernel_size[0] + 1 for side in (height, width))  # of the result
        period = width + padding  # columns from one image to the next
        count = images_side_by_side(batch, period)
        wide = in_a_row(x, count, period)  # B/count C H count*period
        y = super().forward(wide).permute(0, 2, 3, 1)  # B/count H count*period-S+1+2*padding D
        missing = count * period - y.shape[2]
        if missing:
            y = F.pad(y, (0, 0, 0, missing))
        y = y.unflatten(2, (count, period))[:, :, :, :columns].transpose(1, 2)
        return y.reshape(batch, rows, columns, -1).permute(0, 3, 1, 2)  # B D H W, channels last in memory

    def as_product_over_pixels(self, x: Tensor) -> Tensor:
        """A 1x1 kernel: every pixel the kernel visits is multiplied by the same matrix."""
        # Cut with channels last: the gradient of a cut is contiguous in the order of what was cut, and the slow path of every
        # operation behind it is taken where orders differ.
        visited = x.permute(0, 2, 3, 1)[:, :: self.stride[0], :: self.stride[1]]  # B H W C
        batch, height, width, channels = visited.shape
        # As rows: given four dimensions and strides, torch multiplies each image by a copy of the matrix of its own.
        rows = visited.reshape(-1, channels)  # B*H*W C
        y = F.linear(rows, self.weight.flatten(1), self.bias)  # B*H*W D
        return y.view(batch, height, width, -1).permute(0, 3, 1, 2)  # B D H W, channels last in memory

    def as_dense_layer(self, x: Tensor) -> Tensor:
        """A 3x3 kernel on a map no larger than 2x2: each output pixel sees each input pixel through one tap."""
        batch, channels, height, width = x.shape
        matrix = dense_matrix(self.weight, height, compute_dtype(x))  # P*D P*C
        rows = x.permute(0, 2, 3, 1).reshape(batch, height * width * channels)  # B P*C
        y = F.linear(rows, matrix).view(batch, height, width, self.out_channels)
        if self.bias is not None:
            y = y + self.bias.to(y.dtype)
        return y.permute(0, 3, 1, 2)  # B D H W, channels last in memory


def channels_last(y: Tensor) -> Tensor:
    """B D H W in that order of memory: torch cannot tell it for grey images, takes the other, and all layers follow."""
    return y.contiguous(memory_format=torch.channels_last)


def images_side_by_side(batch: int, period: int) -> int:
    """How many images to put beside each other: the most that divide the batch and keep to `WIDEST_ROW` pixels."""
    return next(count for count in range(max(1, WIDEST_ROW // period), 0, -1) if batch % count == 0)


def in_a_row(x: Tensor, count: int, period: int) -> Tensor:
    """B C H W -> B/count C H count*period: `count` images in a row, each filled up with zeros; channels last in memory."""
    batch, channels, height, width = x.shape
    images = x.permute(0, 2, 3, 1).reshape(batch // count, count, height, width, channels).transpose(1, 2)
    wide = x.new_zeros(batch // count, height, count, period, channels)
    wide[:, :, :, :width] = images
    return wide.view(batch // count, height, count * period, channels).permute(0, 3, 1, 2)


def compute_dtype(x: Tensor) -> torch.dtype:
    """The type autocast would compute a convolution of `x` in."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


@cache
def has_tiles() -> bool:
    """Whether the processor multiplies tiles of bf16 (Intel AMX)."""
    capabilities: dict[str, Any] = getattr(
        torch.cpu, "get_capabilities", dict
    )()  # younger than the oldest torch we accept
    return bool(capabilities.get("amx_bf16"))
