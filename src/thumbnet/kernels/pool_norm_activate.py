"""Max-pooling, batch normalisation and activation in one operation, where torch makes a pass over memory for each.

In a network for small images these three cost more than half the time of the convolutions between them: torch's pooling keeps an
eight-byte place for every value, and each operation reads and writes the whole map. In C (pool_norm_activate.c) it is
one pass forward for the pooling, one for the sums, one for the rest, and two backward; on a GPU, in Triton
(pool_norm_activate_gpu.py), pooling and sums are one pass.
"""
# Shapes: B batch, C channels, H and W height and width, P pixels after pooling.

import os
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from thumbnet.kernels.call import call
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


def pool_norm_activate(
    x: Tensor, norm: nn.BatchNorm2d, activation: str, *, pool: bool, added: Tensor | None = None
) -> Tensor:
    """B C H W -> B C H W, or half of height and width where `pool`: max-pooled by 2 x 2, normalised, activated.

    In training mode by the batch's statistics, which also move the running ones of `norm`. What is normalised and `added`, in
    the shape of the result, are activated together.
    """
    if on_gpu := triton_kernels(x):
        if added is not None:
            return activate(pool_norm_activate(x, norm, "none", pool=pool) + added, activation)
        # The kernel that pools is that of the batch's sums, which evaluation does not need.
        if pool and not norm.training:
            x, pool = F.max_pool2d(x, 2), False
        return on_gpu.PoolNormActivate.apply(x, norm.weight, norm.bias, norm, activation, LEAKY_SLOPE, pool)  # type: ignore[no-any-return]
    if not has_kernel(x) or not fits(added, x, pool):
        return plain(x, norm, activation, pool=pool, added=added)
    return PoolNormActivate.apply(x, norm.weight, norm.bias, norm, CODES[activation], pool, added)  # type: ignore[no-any-return]


def fits(added: Tensor | None, x: Tensor, pool: bool) -> bool:
    """Whether the C can add it to what becomes of x B C H W; torch's operations take what else can be added."""
    if added is None:
        return True
    height, width = (pixels // 2 if pool else pixels for pixels in x.shape[2:])
    return added.dtype == x.dtype and added.shape == (*x.shape[:2], height, width) and has_kernel(added)


def plain(x: Tensor, norm: nn.BatchNorm2d, activation: str, *, pool: bool, added: Tensor | None = None) -> Tensor:
    """The same by torch's own operations, on any device and in any type."""
    x = nn.BatchNorm2d.forward(norm, F.max_pool2d(x, 2) if pool else x)
    return ACTIVATIONS[activation](x if added is None else x + added)


def activate(x: Tensor, activation: str) -> Tensor:
    """The activation alone."""
    return Activate.apply(x, CODES[activation]) if has_kernel(x) else ACTIVATIONS[activation](x)  # type: ignore[no-any-return]


def bias_activate(x: Tensor, bias: Tensor, activation: str) -> Tensor:
    """Float B C H W plus a bias C, activated, in the type that autocast is to use."""
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    if on_gpu := triton_kernels(x):
        return on_gpu.BiasActivate.apply(x, bias, activation, LEAKY_SLOPE, dtype)  # type: ignore[no-any-return]
    return activate((x + bias[:, None, None]).to(dtype), activation)


def triton_kernels(x: Tensor) -> Any:
    """The Triton of pool_norm_activate_gpu.py where it can take x, on the GPU in use and channels last; None where not."""
    if x.device.type != "cuda" or torch.compiler.is_compiling():
        return None
    if x.device.index != torch.cuda.current_device() or x.numel() == 0:
        return None
    if x.dtype not in (torch.bfloat16, torch.float16, torch.float32):
        return None
    return gpu_module() if x.is_contiguous(memory_format=torch.channels_last) else None


@cache
def gpu_module() -> Any:
    """The module with the Triton; None where it does not work, or THUMBNET_KERNELS=plain switches it off.

    It needs Triton, which comes with torch's builds for CUDA, a card that Triton has code for, and a compiler and Python's
    headers for what launches a kernel; whether all that is there, one small kernel tells.
    """
    if os.environ.get("THUMBNET_KERNELS") == "plain" or not torch.cuda.is_available():
        return None
    try:
        from thumbnet.kernels import pool_norm_activate_gpu

        pool_norm_activate_gpu.try_out()
    except Exception:  # of whatever kind: without it everything works as well
        return None
    return pool_norm_activate_gpu


def has_kernel(x: Tensor) -> bool:
    """Whether the C can take it: bf16 or float on the CPU, channels last, and compiled; a graph cannot hold it."""
    if torch.compiler.is_compiling():
        return False
    lies_well = x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last)
    return lies_well and x.numel() > 0 and x.dtype.is_floating_point and library(x.dtype) is not None


class PoolNormActivate(torch.autograd.Function):
    """`pool_norm_activate` for what `has_kernel`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        norm: nn.BatchNorm2d,
        code: int,
        pool: bool,
        added: Tensor | None,
    ) -> Tensor:
        pooled, place = largest_of_four(x) if pool else (x, None)
        of_batch = norm.training
        mean, inverse_deviation, scale, shift = moments(pooled, norm) if of_batch else running_moments(norm)  # C each
        y = torch.empty_like(pooled, memory_format=torch.channels_last)
        call("forward", pooled.dtype, pooled, added, scale, shift, y, y.numel() // len(scale), len(scale), code)
        ctx.save_for_backward(pooled, added, mean, inverse_deviation, scale, shift)
        ctx.place, ctx.code, ctx.shape, ctx.batch_decides = place, code, x.shape, of_batch
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        pooled, added, mean, inverse_deviation, scale, shift = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        batch, channels, height, width = pooled.shape
        inner = torch.empty_like(pooled, memory_format=torch.channels_last)
        sums, products = torch.empty(2, batch, channels)  # B C each: over the pixels of each image
        call(
            "backward",
            pooled.dtype,
            pooled,
            added,
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
        count = batch * height * width
        of_weight, of_bias, slope, constant = torch.empty(4, channels)
        call(
            "backward_moments",
            pooled.dtype,
            sums,
            products,
            scale,
            mean,
            inverse_deviation,
            of_weight,
            of_bias,
            slope,
            constant,
            batch,
            channels,
            count,
            int(ctx.batch_decides),
        )
        of_added = inner if ctx.needs_input_grad[6] else None
        if not ctx.needs_input_grad[0]:
            return None, of_weight, of_bias, None, None, None, of_added
        if ctx.place is None:
            result = inner if of_added is None else torch.empty_like(inner)
            call("backward_norm", pooled.dtype, inner, pooled, scale, slope, constant, result, count, channels)
            return result, of_weight, of_bias, None, None, None, of_added
        result = torch.empty(ctx.shape, dtype=pooled.dtype, memory_format=torch.channels_last)
        call(
            "backward_norm_pool",
            pooled.dtype,
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
        return result, of_weight, of_bias, None, None, None, of_added


class Activate(torch.autograd.Function):
    """`activate` for what `has_kernel`. A row of pixels is taken for one pixel of many channels: few make short loops."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, code: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.code = code
        batch, channels, height, width = x.shape
        row = width * channels
        y = torch.empty_like(x, memory_format=torch.channels_last)
        call("forward", x.dtype, x, None, torch.ones(row), torch.zeros(row), y, batch * height, row, code)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        [x] = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        batch, channels, height, width = x.shape
        row = width * channels
        one, zero = torch.ones(row), torch.zeros(row)
        result = torch.empty_like(x, memory_format=torch.channels_last)
        sums, products = torch.empty(2, batch, row)  # not needed
        call(
            "backward",
            x.dtype,
            x,
            None,
            gradient,
            one,
            zero,
            zero,
            result,
            sums,
            products,
            batch,
            height,
            row,
            ctx.code,
        )
        return result, None


def largest_of_four(x: Tensor) -> tuple[Tensor, Tensor]:
    """B C H W -> the largest of every 2 x 2 pixels, B C H/2 W/2, and which of them it was, uint8 in the C's order."""
    batch, channels, height, width = x.shape
    shape = (batch, channels, height // 2, width // 2)
    pooled = torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)
    place = torch.empty(batch * (height // 2) * (width // 2) * channels, dtype=torch.uint8)
    call("pool", x.dtype, x, pooled, place, batch, height, width, channels)
    return pooled, place


def moments(x: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean, inverse deviation, scale and shift of each channel of x, float C; the running ones of `norm` follow as in torch."""
    batch, channels, height, width = x.shape
    pixels = height * width
    near = norm.running_mean.clone()  # type: ignore[union-attr]
    sums, squares = torch.empty(2, batch, channels)
    call("statistics", x.dtype, x, near, sums, squares, batch, pixels, channels)
    found = torch.empty(4, channels).unbind()
    running = (norm.running_mean, norm.running_var)
    call(
        "moments",
        x.dtype,
        near,
        sums,
        squares,
        norm.weight,
        norm.bias,
        *running,
        *found,
        batch,
        channels,
        batch * pixels,
        float(norm.eps),
        float(norm.momentum),  # type: ignore[arg-type]
    )
    norm.num_batches_tracked.add_(1)  # type: ignore[union-attr, operator]
    return found  # type: ignore[return-value]


def running_moments(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same four from what `norm` uses in evaluation mode."""
    mean, inverse_deviation = norm.running_mean.clone(), (norm.running_var + norm.eps).rsqrt()  # type: ignore[union-attr, operator]
    scale = norm.weight * inverse_deviation
    return mean, inverse_deviation, scale, norm.bias - mean * scale
