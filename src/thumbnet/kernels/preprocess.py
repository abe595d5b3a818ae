"""Resizing and normalising images in one pass on a CPU, where torch makes three; in C (preprocess.c)."""
# Shapes: B batch, C channels, H and W height and width of the images, h and w those of the result.

from collections.abc import Sequence

import torch
from torch import Tensor

from thumbnet.kernels.call import call
from thumbnet.kernels.library import IMAGES, library


def preprocess(images: Tensor, side: Sequence[int], mean: Tensor, std: Tensor) -> Tensor:
    """B C H W, resized bilinearly to `side`, less `mean` and divided by `std`, C numbers each -> B C h w, channels last."""
    images = images.contiguous(memory_format=torch.channels_last)
    batch, channels, height, width = images.shape
    result = images.new_empty(batch, *side, channels).permute(0, 3, 1, 2)
    moments = (mean.flatten().contiguous(), std.flatten().contiguous())
    if call("preprocess", IMAGES, images, *moments, result, batch, height, width, channels, *side):
        raise MemoryError("no memory for a row of pixels")
    return result


def has_preprocess(images: Tensor, side: Sequence[int], mean: Tensor, std: Tensor) -> bool:
    """Whether the C can have images B C H W: floats on the CPU, without a gradient; a graph cannot hold it."""
    if torch.compiler.is_compiling() or images.requires_grad:
        return False
    if images.ndim != 4 or images.numel() == 0 or min(side) < 1:
        return False
    floats = all(x.device.type == "cpu" and x.dtype == torch.float32 for x in (images, mean, std))
    return floats and images.shape[1] == mean.numel() == std.numel() and library(IMAGES) is not None
