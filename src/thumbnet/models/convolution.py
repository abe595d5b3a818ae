"""torch's 2-D convolution, computed as a matrix product where that is faster on a CPU; same parameters, same result.

Two cases, both common in networks for small images, cost oneDNN far more than their arithmetic: 1x1 kernels, which are
one matrix product over all pixels, and 3x3 kernels on maps of 1x1 or 2x2 pixels, where most taps meet only padding and
which are one dense layer. Measured on the classic ResNet-50 (batch 64): about twice the training images per second.
"""
# Shapes: B batch, C channels in, D channels out, H and W height and width of the map, P pixels of the map (H W).

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LARGEST_DENSE_SIDE = 2  # from 3x3 maps on, a dense layer does more multiplications than the convolution


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d` with square kernels; takes and gives B C H W."""

    def forward(self, x: Tensor) -> Tensor:
        plain = self.groups == 1 and self.dilation == (1, 1) and self.padding_mode == "zeros"
        if x.device.type != "cpu" or not plain:  # a GPU has kernels for these cases
            return super().forward(x)
        if self.kernel_size == (1, 1) and self.padding == (0, 0):
            return self.as_product_over_pixels(x)
        if self.kernel_size == (3, 3) and self.padding == (1, 1) and self.stride == (1, 1):
            height, width = x.shape[2:]
            if height == width <= LARGEST_DENSE_SIDE:
                return self.as_dense_layer(x)
        return super().forward(x)

    def as_product_over_pixels(self, x: Tensor) -> Tensor:
        """A 1x1 kernel: every pixel the kernel visits is multiplied by the same matrix."""
        if self.stride != (1, 1):
            x = x[:, :, :: self.stride[0], :: self.stride[1]]
        batch, channels, height, width = x.shape
        # As rows: given four dimensions and strides, torch multiplies each image by a copy of the matrix of its own.
        rows = x.permute(0, 2, 3, 1).reshape(-1, channels)  # B*H*W C
        y = F.linear(rows, self.weight.flatten(1), self.bias)  # B*H*W D
        return y.view(batch, height, width, -1).permute(0, 3, 1, 2)  # B D H W, channels last in memory

    def as_dense_layer(self, x: Tensor) -> Tensor:
        """A 3x3 kernel on a map no larger than 2x2: each output pixel sees each input pixel through one tap."""
        batch, channels, height, width = x.shape
        pixels, channels_out = height * width, self.out_channels
        taps = self.weight.flatten(2).permute(2, 0, 1).to(compute_dtype(x))  # 9 D C
        taps = taps.index_select(0, torch.tensor(taps_between_pixels(height)))  # P*P D C
        matrix = taps.view(pixels, pixels, channels_out, channels).transpose(1, 2)  # P D P C
        rows = x.permute(0, 2, 3, 1).reshape(batch, pixels * channels)  # B P*C
        y = F.linear(rows, matrix.reshape(pixels * channels_out, pixels * channels))  # B P*D
        y = y.view(batch, height, width, channels_out)
        if self.bias is not None:
            y = y + self.bias.to(y.dtype)
        return y.permute(0, 3, 1, 2)


def compute_dtype(x: Tensor) -> torch.dtype:
    """The type autocast would compute a convolution of `x` in."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


@cache
def taps_between_pixels(side: int) -> list[int]:
    """For every output pixel and input pixel of a side x side map, the index (0 to 8) of the tap that joins them."""
    pixels = [(row, column) for row in range(side) for column in range(side)]
    return [(p - i + 1) * 3 + (q - j + 1) for i, j in pixels for p, q in pixels]
