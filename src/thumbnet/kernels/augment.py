"""Mirroring, cropping and jitter of training images in one pass on a CPU: bytes in, numbers out, channels last.

torch's operations for them are a dozen passes over the batch; see ../augment.py for what they mean.
"""
# Shapes: B batch, C channels, H and W height and width.

import torch
from torch import Tensor

from thumbnet.kernels.call import call
from thumbnet.kernels.library import IMAGES, library


def augmented(
    images: Tensor, mirrored: Tensor, offsets: Tensor | None, padding: int, draws: Tensor | None, strength: float
) -> Tensor:
    """uint8 B C H W -> float B C H W in [0, 1], channels last: mirrored where bool B says, cut at `offsets` 2 B, jittered."""
    assert mirrored.dtype == torch.bool and mirrored.shape == images.shape[:1]
    result = torch.empty_like(images, dtype=torch.float32, memory_format=torch.channels_last)
    offsets = mirrored.new_zeros(2, len(images), dtype=torch.int64) if offsets is None else offsets
    draws = None if draws is None else draws.contiguous()
    call(
        "augment",
        IMAGES,
        images,
        mirrored.contiguous(),
        offsets.contiguous(),
        draws,
        result,
        *images.shape,
        padding,
        float(strength),
    )
    return result


def takes(images: Tensor, padding: int) -> bool:
    """Whether the C can have images B C H W, padded by reflection at every side."""
    fits = images.numel() > 0 and images.is_contiguous() and padding < min(images.shape[2:])
    return fits and images.dtype == torch.uint8 and library(IMAGES) is not None
