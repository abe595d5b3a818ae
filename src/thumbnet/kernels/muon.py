"""What Muon's step does to a kernel beside its matrix products, in two passes over memory.

In C (muon.c): momentum, the look ahead and the norms in one, the scaling of the kernel and the step in the other, where torch's
operations need a dozen.
"""
# Shapes: D filters, C S S their inputs.

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from thumbnet.kernels.call import call
from thumbnet.kernels.library import library


def has_passes(kernel: Tensor, buffer: Tensor, dtype: torch.dtype) -> bool:
    """Whether the C can take a kernel and the sum of its gradients, with directions in `dtype`."""
    if torch.compiler.is_compiling() or kernel.numel() == 0:
        return False
    fits = all(x.device.type == "cpu" and x.dtype == torch.float32 and x.is_contiguous() for x in (kernel, buffer))
    return fits and library(dtype) is not None


def all_have_passes(kernels: Sequence[Tensor], buffers: Sequence[Tensor], dtype: torch.dtype) -> bool:
    """Whether it can take all of them."""
    return all(has_passes(*pair, dtype) for pair in zip(kernels, buffers, strict=True))


def look_ahead(
    kernel: Tensor, gradient: Tensor, buffer: Tensor, momentum: float, dtype: torch.dtype
) -> tuple[Tensor, float, float]:
    """Moves the buffer and gives the direction one step ahead, D x C S S in `dtype`, with its norm and the kernel's."""
    rows, columns = len(kernel), kernel.numel() // len(kernel)
    direction, squares = torch.empty(rows, columns, dtype=dtype), torch.empty(2, rows)
    call("look_ahead", dtype, kernel, gradient.contiguous(), buffer, direction, squares, float(momentum), rows, columns)
    of_direction, of_kernel = squares.sum(1, dtype=torch.float64).tolist()
    return direction, math.sqrt(of_direction), math.sqrt(of_kernel)


def take_step(kernel: Tensor, direction: Tensor, scale: float, rate: float) -> None:
    """kernel = scale * kernel - rate * direction, in place."""
    call("take_step", direction.dtype, kernel, direction.contiguous(), scale, rate, *direction.shape)
