"""The processor's tile registers (Intel AMX), and its vectors of bf16: are they there, and may they be used?"""

from functools import cache
from typing import Any

import torch

from thumbnet.kernels.library import library


@cache
def tiles_allowed() -> bool:
    """Whether the processor multiplies tiles of bf16, and system and compiler let this process use them."""
    get = getattr(torch.cpu, "get_capabilities", dict)  # younger than the oldest torch we accept
    capabilities: dict[str, Any] = get()
    compiled = library(torch.bfloat16)
    return bool(capabilities.get("amx_bf16")) and compiled is not None and bool(compiled.tiles_allowed(1))


@cache
def pairs_allowed() -> bool:
    """Whether the C multiplies pairs of bf16: in tiles, or by vectors (AVX-512 BF16) where it was compiled for no tiles."""
    compiled = library(torch.bfloat16)
    for_vectors = hasattr(compiled, "symmetric_product") and not hasattr(compiled, "tile_convolution")
    return tiles_allowed() or for_vectors
