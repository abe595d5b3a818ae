"""The processor's tile registers (Intel AMX): are they there, and may they be used?"""

from functools import cache
from typing import Any

import torch

from thumbnet.kernels.library import library


@cache
def has_tiles() -> bool:
    """Whether the processor multiplies tiles of bf16 (Intel AMX)."""
    capabilities: dict[str, Any] = getattr(
        torch.cpu, "get_capabilities", dict
    )()  # younger than the oldest torch we accept
    return bool(capabilities.get("amx_bf16"))


@cache
def tiles_allowed() -> bool:
    """Whether system and compiler too let this process use the tiles."""
    compiled = library(torch.bfloat16)
    return has_tiles() and compiled is not None and bool(compiled.tiles_allowed(1))
