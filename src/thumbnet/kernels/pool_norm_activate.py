"""Max-pooling, batch normalisation and activation in one operation, where torch makes a pass over memory for each.

In a network for small images these three cost more than half the time of the convolutions between them: torch's pooling keeps an
eight-byte place for every two-byte value, and each operation reads and writes the whole map. In C (pool_norm_activate.c) it is
one pass forward for the pooling, one for the sums, one for the rest, and two backward.
"""
# Shapes: B batch, C channels, H and W height and width, P pixels after pooling.

import ctypes
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thumbnet.kernels.library import library

LEAKY_SLOPE = 0.2  # TensorFlow's default for tf.nn.leaky_relu; PyTorch's is 0.01
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {  # in the order of `enum activation` of the C
    "none": lambda x: x,
    "relu": F.relu,
    "silu": F.silu,
    "gelu": F.gelu,
    "leaky_relu": partial(F.leaky_relu, negative_slope=LEAKY_SLOPE),
}
CODES = {name: code for code, name in enumerate(ACTIVATIONS)}


def pool_norm_activate(x: Tensor, norm: nn.BatchNorm2d, activation: str, *, pool: bool) -> Tensor:
    """B C H W -> B C H W, or half of height and width where `pool`: max-pooled by 2 x 2, normalised, activated.

    In training mode by the batch's statistics, which also move the running ones of `norm`.
    """
    if not has_kernel(x):
        return plain(x, norm, activation, pool=pool)
    return PoolNormActivate.apply(x, norm.weight, norm.bias, norm, CODES[activation], pool)  # type: ignore[no-any-return]


def plain(x: Tensor, norm: nn.BatchNorm2d, activation: str, *, pool: bool) -> Tensor:
    """The same by torch's own operations, on any device and in any type."""
    x = F.max_pool2d(x, 2) if pool else x
    return ACTIVATIONS[activation](nn.BatchNorm2d.forward(norm, x))


def activate(x: Tensor, activation: str) -> Tensor:
    """The activation alone."""
    return Activate.apply(x, CODES[activation]) if has_kernel(x) else ACTIVATIONS[activation](x)  # type: ignore[no-any-return]


def has_kernel(x: Tensor) -> bool:
    """Whether the C can take it: bf16 on the CPU, channels last, and compiled."""
    fits = x.dtype == torch.bfloat16 and x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last)
    return fits and x.numel() > 0 and library() is not None


class PoolNormActivate(torch.autograd.Function):
    """`pool_norm_activate` for what `has_kernel`."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, norm: nn.BatchNorm2d, code: int, pool: bool
    ) -> Tensor:
        pooled, place = largest_of_four(x) if pool else (x, None)
        mean, inverse_deviation = moments(pooled, norm) if norm.training else running_moments(norm)  # C each
        scale = weight * inverse_deviation
        shift = bias - mean * scale
        y = torch.empty_like(pooled, memory_format=torch.channels_last)
        call("forward", pooled, scale, shift, y, y.numel() // len(scale), len(scale), code)
        ctx.save_for_backward(pooled, mean, inverse_deviation, scale, shift)
        ctx.place, ctx.code, ctx.shape, ctx.batch_decides = place, code, x.shape, norm.training
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        pooled, mean, inverse_deviation, scale, shift = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        batch, channels, height, width = pooled.shape
        inner = torch.empty_like(pooled, memory_format=torch.channels_last)
        sums, products = torch.empty(2, batch, channels)  # B C each: over the pixels of each image
        call(
            "backward",
            pooled,
            gradient,
            scale,
            shift,
            mean,
            inner,
            sums,
            products,
            batch,
            height * width,
            channels,
            ctx.code,
        )
        of_bias = sums.sum(0)
        of_weight = products.sum(0) * inverse_deviation
        if not ctx.needs_input_grad[0]:
            return None, of_weight, of_bias, None, None, None
        count = batch * height * width
        slope, constant = torch.zeros(
            2, channels
        )  # of what mean and variance take back, over the map: slope * x + constant
        if ctx.batch_decides:
            slope = -scale * inverse_deviation * of_weight / count
            constant = -scale * of_bias / count - slope * mean
        result = torch.empty(ctx.shape, dtype=pooled.dtype, memory_format=torch.channels_last)
        if ctx.place is None:
            call("backward_norm", inner, pooled, scale, slope, constant, result, count, channels)
        else:
            call(
                "backward_norm_pool",
                inner,
                pooled,
                ctx.place,
                scale,
                slope,
                constant,
                result,
                batch,
                *ctx.shape[2:],
                channels,
            )
        return result, of_weight, of_bias, None, None, None


class Activate(torch.autograd.Function):
    """`activate` for what `has_kernel`. A row of pixels is taken for one pixel of many channels: few make short loops."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, code: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.code = code
        batch, channels, height, width = x.shape
        row = width * channels
        y = torch.empty_like(x, memory_format=torch.channels_last)
        call("forward", x, torch.ones(row), torch.zeros(row), y, batch * height, row, code)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        [x] = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        batch, channels, height, width = x.shape
        row = width * channels
        one, zero = torch.ones(row), torch.zeros(row)
        result = torch.empty_like(x, memory_format=torch.channels_last)
        sums, products = torch.empty(2, batch, row)  # not needed
        call("backward", x, gradient, one, zero, zero, result, sums, products, batch, height, row, ctx.code)
        return result, None


def largest_of_four(x: Tensor) -> tuple[Tensor, Tensor]:
    """B C H W -> the largest of every 2 x 2 pixels, B C H/2 W/2, and which of them it was, uint8 in the C's order."""
    batch, channels, height, width = x.shape
    shape = (batch, channels, height // 2, width // 2)
    pooled = torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)
    place = torch.empty(batch * (height // 2) * (width // 2) * channels, dtype=torch.uint8)
    call("pool", x, pooled, place, batch, height, width, channels)
    return pooled, place


def moments(x: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Mean and inverse standard deviation of each channel of x, float C; the running ones of `norm` follow as in torch."""
    batch, channels, height, width = x.shape
    count = batch * height * width
    near = norm.running_mean.clone()  # type: ignore[union-attr]
    sums, squares = torch.empty(2, batch, channels)
    call("statistics", x, near, sums, squares, batch, height * width, channels)
    offset = sums.double().sum(0) / count
    variance = (squares.double().sum(0) / count - offset.square()).clamp(min=0)
    mean = near + offset.float()
    norm.running_mean.lerp_(mean, norm.momentum)  # type: ignore[union-attr, arg-type]
    norm.running_var.lerp_((variance * count / max(1, count - 1)).float(), norm.momentum)  # type: ignore[union-attr, arg-type]
    norm.num_batches_tracked.add_(1)  # type: ignore[union-attr, operator]
    return mean, (variance + norm.eps).rsqrt().float()


def running_moments(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """What `norm` uses in evaluation mode, float C each."""
    return norm.running_mean.clone(), (norm.running_var + norm.eps).rsqrt()  # type: ignore[union-attr, operator]


def call(name: str, *values: Tensor | int) -> None:
    """A function of the C: tensors as pointers, numbers as long, then the number of threads."""
    arguments = [
        ctypes.c_void_p(value.data_ptr()) if isinstance(value, Tensor) else ctypes.c_long(value)
        for value in (*values, torch.get_num_threads())
    ]
    getattr(library(), name)(*arguments)
