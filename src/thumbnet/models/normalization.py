"""Batch normalisation with what stands before and after it: max-pooling by 2 x 2, and an activation.

The same parameters, buffers and results as torch's layers in a row; one operation where `kernels` has C or Triton for it.
"""

from typing import Any

from torch import Tensor, nn

from thumbnet.kernels.pool_norm_activate import ACTIVATIONS, pool_norm_activate
from thumbnet.models.convolution import Conv2d


class NormActivation(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d`, then `activation` (a name of `ACTIVATIONS`); max-pooled by 2 x 2 first where `pool`."""

    def __init__(self, channels: int, activation: str = "none", *, pool: bool = False, **options: Any):
        super().__init__(channels, **options)
        assert activation in ACTIVATIONS
        self.activation, self.pool = activation, pool

    def forward(self, x: Tensor, *, pooled: bool = False, added: Tensor | None = None) -> Tensor:
        """B C H W -> B C H W, or B C H/2 W/2 where it pools and x is not `pooled` yet; what is `added` is activated, too."""
        return pool_norm_activate(x, self, self.activation, pool=self.pool and not pooled, added=added)


def convolve_and_normalize(x: Tensor, conv: nn.Module, norm: nn.Module, *, added: Tensor | None = None) -> Tensor:
    """`norm(conv(x))` of a `Conv2d` and a `NormActivation`, pooled within the convolution where that is one operation."""
    assert isinstance(conv, Conv2d) and isinstance(norm, NormActivation)
    if norm.pool and conv.pools(x):
        return norm(conv.pooled(x), pooled=True, added=added)  # type: ignore[no-any-return]
    return norm(conv(x), added=added)  # type: ignore[no-any-return]
