"""The gradient of a convolution's kernel in the processor's tile registers (Intel AMX).

oneDNN sums over the pixels of one row at a time, which in small images leaves most of a tile empty. In C (weight_gradient.c)
one sum runs over the pixels of many images; docs/findings.md has the layers.
"""
# Shapes: B batch, C channels in, D channels out, S side of the kernel, H and W height and width, ' those of the output.

import torch
from torch import Tensor

from thumbnet.kernels.call import call

RANGE = 128  # channels in and out whose sums one unit of the C's work takes
UNITS = 10  # at least, so that as many threads have work; the sums of each lie in memory


def weight_gradient(x: Tensor, gradient: Tensor, side: int, padding: int, chosen: Tensor | None = None) -> Tensor:
    """From x B C H W and the gradient of the output, B D H' W', both bf16 and channels last: float D C S S.

    Where the output was max-pooled by 2 x 2, its gradient is B D H'/2 W'/2, and `chosen` says which of four each came from.
    Between images zeros are multiplied, so that one infinite number makes NaN of more than its own gradients.
    """
    assert x.dtype == gradient.dtype == torch.bfloat16
    x, gradient = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, gradient))
    (images, channels, height, width), channels_out = x.shape, gradient.shape[1]
    units = -(-channels_out // RANGE) * -(-channels // RANGE)
    groups = min(images, -(-UNITS // units))
    result = torch.empty(channels_out, channels, side, side)
    sizes = (images, height, width, channels, channels_out, side, padding, groups)
    if call("weight_gradient", x.dtype, x, gradient, chosen, result, *sizes):
        raise MemoryError("no memory for the gradient of a convolution")
    return result
