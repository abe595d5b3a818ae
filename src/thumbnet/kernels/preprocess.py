"""Resizing and normalising images in one pass on a CPU, where torch makes three; in C (preprocess.c)."""
# Shapes: B batch, C channels, H and W height and width of the images, h and w those of the result.

from collections.abc import Sequence

import torch
from torch import Tensor

from thumbnet.kernels.call import call
from thumbnet.kernels.library import library

FLOATS = torch.bfloat16  # the C that is compiled for most runs; that for maps of floats has the same function


def preprocess(images: Tensor, side: Sequence[int], mean: Tensor, std: Tensor) -> Tensor:
    """B C H W, resized bilinearly to `side`, less `mean` and divided by `std`, C numbers each -> B C h w, channels last."""
    images = images.contiguous(memory_format=torch.channels_last)
    batch, channels, height, width = images.shape
    result = torch.empty((batch, channels, *side), memory_format=torch.channels_last)
    moments = (mean.flatten().contiguous(), std.flatten().contiguous())
    if call("preprocess", FLOATS, images, *moments, result, batch, height, width, channels, *side):
        raise MemoryError("no memory for a row of pixels")
    return result


def takes(images: Tensor, mean: Tensor) -> bool:
    """Whether the C can have images B C H W: floats on the CPU, without a gradient; a graph cannot hold it."""
    if torch.compiler.is_compiling() or images.device.type != "cpu" or images.requires_grad or images.numel() == 0:
        return False
    fits = images.ndim == 4 and images.shape[1] == mean.numel()
    return fits and images.dtype == mean.dtype == torch.float32 and library(FLOATS) is not None
