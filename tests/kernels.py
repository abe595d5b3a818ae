"""What the tests of the C share: maps to give it, how far off a result is, and when there is no C."""

import pytest
import torch

from thumbnet.kernels.library import library

compiled = pytest.mark.skipif(library(torch.bfloat16) is None, reason="the C needs Linux, gcc and torch's OpenMP")


def maps(shape, *, seed=0, number=torch.bfloat16):
    """B C H W, channels last."""
    x = 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + 1
    return x.to(number).contiguous(memory_format=torch.channels_last)


def distance(found, expected, *, but=0):
    """Relative to the size of the whole, without the `but` numbers that are farthest off."""
    off = (found.float() - expected).abs().flatten().sort().values
    return (off[: len(off) - but].norm() / expected.norm()).item()
