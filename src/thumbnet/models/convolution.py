"""torch's 2-D convolution, computed in other ways where they are faster; same parameters, same result.

Two cases, both common in networks for small images, cost oneDNN far more than their arithmetic: 1x1 kernels, which are
one matrix product over all pixels, and 3x3 kernels on maps of 1x1 or 2x2 pixels, where most taps meet only padding and
which are one dense layer. Measured on the classic ResNet-50 (batch 64): about twice the training images per second. Where the
processor has tile registers, `TileConvolution` takes the rest; elsewhere `Winograd` takes 2x2 and 3x3 kernels where it is faster.
"""
# Shapes: B batch, C channels in, D channels out, H and W height and width of the map, P pixels of the map (H W).

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thumbnet.kernels.dense_matrix import dense_matrix
from thumbnet.kernels.tile_convolution import TileConvolution
from thumbnet.kernels.tiles import tiles_allowed
from thumbnet.kernels.winograd import Winograd, pays

LARGEST_DENSE_SIDE = 2  # from 3x3 maps on, a dense layer does more multiplications than the convolution
FEWEST_CHANNELS = 16  # a tile's; with fewer most of it is empty


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d` with square kernels; takes and gives B C H W."""

    takes_filled_up = False  # more channels than its own, zeros after them, as `Whitening` gives them on a GPU

    def forward(self, x: Tensor) -> Tensor:
        if self.takes_filled_up and x.shape[1] > self.in_channels:
            return self.of_filled_up(x)
        if torch.compiler.is_compiling():  # or exporting: what reads the graph knows convolutions
            return super().forward(x)
        if self.in_channels == 1:
            return channels_last(super().forward(x))
        if self.is_plain() and self.kernel_size == (1, 1) and self.padding == (0, 0) and takes_products(x):
            return self.as_product_over_pixels(x)
        if x.device.type == "cpu" and self.is_plain() and self.stride == (1, 1) and self.is_dense(x):
            return self.as_dense_layer(x)
        if way := self.own_way(x):
            return way.apply(x, self.weight, self.bias, int(self.padding[0]))  # type: ignore[no-any-return]
        return super().forward(x)

    def of_filled_up(self, x: Tensor) -> Tensor:
        """Of the first channels of x; the others are zeros, as `Whitening` leaves them on a GPU. Padded with zeros, one group."""
        kernel = F.pad(self.weight, (0, 0, 0, 0, 0, x.shape[1] - self.in_channels))
        return F.conv2d(x, kernel, self.bias, self.stride, self.padding)

    def is_plain(self) -> bool:
        square = len(set(self.kernel_size)) == 1 and len(set(self.padding)) == 1
        return square and self.groups == 1 and self.dilation == (1, 1) and self.padding_mode == "zeros"

    def own_way(self, x: Tensor) -> type[TileConvolution] | type[Winograd] | None:
        """What x B C H W goes through in place of torch's convolution."""
        if x.device.type != "cpu" or torch.compiler.is_compiling() or not self.is_plain() or self.stride != (1, 1):
            return None
        side, padding = self.kernel_size[0], int(self.padding[0])
        if x.shape[1] != self.in_channels:  # torch says so
            return None
        if side == 1 or not 0 <= padding < side <= min(x.shape[2:]) + 2 * padding or self.is_dense(x):
            return None
        number = compute_dtype(x)
        if number == torch.bfloat16 and tiles_allowed():
            return TileConvolution if min(self.in_channels, self.out_channels) >= FEWEST_CHANNELS and len(x) else None
        by_winograd = side <= 3 and padding <= 1 and takes_winograd(number)
        return Winograd if by_winograd and pays(x, self.out_channels, side, padding, number) else None

    def pools(self, x: Tensor) -> bool:
        """Whether `pooled` takes x B C H W; not where somebody watches the map that it would not write, or sets the kernel."""
        if self.own_way(x) is None or self._forward_hooks or self._forward_pre_hooks:
            return False
        return min(x.shape[2:]) + 2 * int(self.padding[0]) - self.kernel_size[0] + 1 >= 2  # of less nothing is left

    def pooled(self, x: Tensor) -> Tensor:
        """Convolved and max-pooled by 2 x 2, in one operation; B D H'/2 W'/2."""
        way = self.own_way(x)
        assert way is not None
        return way.apply(x, self.weight, self.bias, int(self.padding[0]), True)  # type: ignore[no-any-return]

    def is_dense(self, x: Tensor) -> bool:
        """A 3x3 kernel, and a map so small that it is one dense layer."""
        height, width = x.shape[2:]
        return self.kernel_size == (3, 3) and self.padding == (1, 1) and height == width <= LARGEST_DENSE_SIDE

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


def takes_products(x: Tensor) -> bool:
    """Whether a 1x1 kernel on x is better a matrix product: on a CPU, and on a GPU in half precision, where it was measured."""
    return x.device.type == "cpu" or (x.device.type == "cuda" and x.dtype != torch.float32)


def channels_last(y: Tensor) -> Tensor:
    """B D H W in that order of memory: torch cannot tell it for grey images, takes the other, and all layers follow."""
    return y.contiguous(memory_format=torch.channels_last)


def takes_winograd(number: torch.dtype) -> bool:
    """In bf16 only to train: what is rounded between leaves 1 % of noise, which judging need not have."""
    return number == torch.float32 or (number == torch.bfloat16 and torch.is_grad_enabled())


def compute_dtype(x: Tensor) -> torch.dtype:
    """The type autocast would compute a convolution of `x` in."""
    changed = torch.is_autocast_enabled("cpu") and x.dtype != torch.float64
    return torch.get_autocast_dtype("cpu") if changed else x.dtype
