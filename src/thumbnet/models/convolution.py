"""torch's 2-D convolution, computed in other ways where they are faster; same parameters, same result.

Two cases, both common in networks for small images, cost oneDNN far more than their arithmetic: 1x1 kernels, which are
one matrix product over all pixels, and 3x3 kernels on maps of 1x1 or 2x2 pixels, where most taps meet only padding and
which are one dense layer. Measured on the classic ResNet-50 (batch 64): about twice the training images per second. Where the
processor has tile registers, `TileConvolution` takes the rest; in fp32 `Winograd` takes 2x2 and 3x3 kernels where it is faster.
"""
# Shapes: B batch, C channels in, D channels out, H and W height and width of the map, P pixels of the map (H W).

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from thumbnet.kernels.dense_matrix import dense_matrix
from thumbnet.kernels.tiles import has_tiles, tiles_allowed
from thumbnet.kernels.weight_gradient import weight_gradient
from thumbnet.kernels.winograd import Winograd, pays

LARGEST_DENSE_SIDE = 2  # from 3x3 maps on, a dense layer does more multiplications than the convolution
LARGEST_SHORT_MAP = 36  # pixels; with 49 a kernel is read seldom enough (docs/findings.md)
LARGEST_CACHED_KERNEL = 2**20  # numbers; 2 MB of bf16, the second cache of the processors that have tiles
WIDEST_NARROW_MAP = 8  # pixels; from 11 on copying costs more than full registers save (docs/findings.md)
WIDEST_ROW = 48  # pixels; from 32 to 80 it matters little
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
        if x.device.type != "cpu" or not self.is_plain():  # a GPU has kernels for the other cases
            return super().forward(x)
        if self.stride != (1, 1):
            return super().forward(x)
        if self.is_dense(x):
            return self.as_dense_layer(x)
        if self.by_winograd(x):
            return Winograd.apply(x, self.weight, self.bias, int(self.padding[0]))  # type: ignore[no-any-return]
        same_or_valid = self.padding[0] in (0, (self.kernel_size[0] - 1) / 2)
        wide = min(self.in_channels, self.out_channels) >= FEWEST_CHANNELS
        if same_or_valid and wide and compute_dtype(x) == torch.bfloat16 and has_tiles():
            return TileConvolution.apply(x, self.weight, self.bias, int(self.padding[0]))  # type: ignore[no-any-return]
        return super().forward(x)

    def of_filled_up(self, x: Tensor) -> Tensor:
        """Of the first channels of x; the others are zeros, as `Whitening` leaves them on a GPU. Padded with zeros, one group."""
        kernel = F.pad(self.weight, (0, 0, 0, 0, 0, x.shape[1] - self.in_channels))
        return F.conv2d(x, kernel, self.bias, self.stride, self.padding)

    def is_plain(self) -> bool:
        square = len(set(self.kernel_size)) == 1 and len(set(self.padding)) == 1
        return square and self.groups == 1 and self.dilation == (1, 1) and self.padding_mode == "zeros"

    def by_winograd(self, x: Tensor) -> bool:
        """Whether x B C H W goes through `Winograd`."""
        fits = (
            self.kernel_size in ((2, 2), (3, 3))
            and self.stride == (1, 1)
            and self.is_plain()
            and self.padding[0] in (0, 1)
        )
        if not fits or x.device.type != "cpu" or compute_dtype(x) != torch.float32 or torch.compiler.is_compiling():
            return False
        return not self.is_dense(x) and pays(x, self.out_channels, self.kernel_size[0], int(self.padding[0]))

    def pools(self, x: Tensor) -> bool:
        """Whether `pooled` takes x B C H W: what goes `by_winograd`, unless somebody watches the map that it would not write."""
        return self.by_winograd(x) and not self._forward_hooks

    def pooled(self, x: Tensor) -> Tensor:
        """Convolved and max-pooled by 2 x 2, in one operation; B D H'/2 W'/2."""
        return Winograd.apply(x, self.weight, self.bias, int(self.padding[0]), True)  # type: ignore[no-any-return]

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


class TileConvolution(torch.autograd.Function):
    """x B C H W, kernel D C S S, bias D or None, padding 0 or (S-1)/2 -> B D H' W' in bf16, by tiles (Intel AMX).

    oneDNN works image by image and row by row. Where the map is short it reads the whole kernel for a few pixels, so that
    there several images are laid in a row; and its gradient of the kernel, whose sums end with a row, is ours.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
        x, kernel = x.to(torch.bfloat16), weight.to(torch.bfloat16)
        ctx.save_for_backward(x, kernel)
        ctx.padding = padding
        bias = None if bias is None else bias.to(torch.bfloat16)
        if not is_short(x, kernel):
            return F.conv2d(x, kernel, bias, padding=padding)
        period = x.shape[3] + padding
        wide = F.conv2d(in_a_row(x, period), kernel, bias, padding=padding)
        return taken_apart(wide, len(x), period, period + padding - kernel.shape[2] + 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, kernel = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_x = of_kernel = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = input_gradient(x, gradient, kernel, ctx.padding)
        if ctx.needs_input_grad[1]:
            of_kernel = kernel_gradient(x, gradient, kernel, ctx.padding)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum(dim=(0, 2, 3), dtype=torch.float32)
        return of_x, of_kernel, of_bias, None


def input_gradient(x: Tensor, gradient: Tensor, kernel: Tensor, padding: int) -> Tensor:
    """The gradient of a convolution's input x B C H W from that of its output, B D H' W'."""

    def by_torch(x: Tensor, gradient: Tensor) -> Tensor:
        found = torch.ops.aten.convolution_backward(
            gradient, x, kernel, None, [1, 1], [padding] * 2, [1, 1], False, [0, 0], 1, [True, False, False]
        )
        return found[0]  # type: ignore[no-any-return]

    if not is_short(x, kernel):
        return by_torch(x, gradient)
    period = x.shape[3] + padding
    wide = gradient_in_a_row(gradient, period, kernel.shape[2], padding)
    like = x.new_empty(len(wide), x.shape[1], x.shape[2], len(x) // len(wide) * period)
    found = by_torch(like.to(memory_format=torch.channels_last), wide)
    return taken_apart(found, len(x), period, x.shape[3])


def kernel_gradient(x: Tensor, gradient: Tensor, kernel: Tensor, padding: int) -> Tensor:
    """The gradient of a convolution's kernel, float D C S S; without the C, long rows fill oneDNN's tiles better too."""
    if not tiles_allowed() and is_short(x, kernel):
        period = x.shape[3] + padding
        x, gradient = in_a_row(x, period), gradient_in_a_row(gradient, period, kernel.shape[2], padding)
    return weight_gradient(x, gradient, kernel.shape[2], padding)


def gradient_in_a_row(gradient: Tensor, period: int, side: int, padding: int) -> Tensor:
    """That of the output of a convolution of `in_a_row(x, period)`: a few columns more or less than x has."""
    wide = in_a_row(gradient, period)
    return channels_last(wide[..., : wide.shape[3] + 2 * padding - side + 1])


def is_short(x: Tensor, kernel: Tensor) -> bool:
    """Whether the map has few pixels and the kernel many numbers, so that several images at once are worth their copies.

    Without the C, whose sums run through several images anyway, all narrow maps are.
    """
    if not tiles_allowed():
        return x.shape[3] <= WIDEST_NARROW_MAP
    return x.shape[2] * x.shape[3] <= LARGEST_SHORT_MAP and kernel.numel() > LARGEST_CACHED_KERNEL


def in_a_row(x: Tensor, period: int) -> Tensor:
    """B C H W -> B/n C H n*period: n images in a row, each filled up with zeros; channels last in memory."""
    batch, channels, height, width = x.shape
    count = next(n for n in range(max(1, WIDEST_ROW // period), 0, -1) if batch % n == 0)
    images = x.permute(0, 2, 3, 1).reshape(batch // count, count, height, width, channels).transpose(1, 2)
    wide = x.new_zeros(batch // count, height, count, period, channels)
    wide[:, :, :, :width] = images
    return wide.view(batch // count, height, count * period, channels).permute(0, 3, 1, 2)


def taken_apart(wide: Tensor, batch: int, period: int, width: int) -> Tensor:
    """The images of `in_a_row` again, B C H W, of each row the first `width` pixels."""
    count = batch // len(wide)
    rows = wide.permute(0, 2, 3, 1)  # B/n H n*period C, perhaps a few columns short
    if missing := count * period - rows.shape[2]:
        rows = F.pad(rows, (0, 0, 0, missing))
    images = rows.unflatten(2, (count, period))[:, :, :, :width].transpose(1, 2)
    return channels_last(images.reshape(batch, rows.shape[1], width, -1).permute(0, 3, 1, 2))


def compute_dtype(x: Tensor) -> torch.dtype:
    """The type autocast would compute a convolution of `x` in."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
