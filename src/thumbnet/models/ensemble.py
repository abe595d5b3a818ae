"""Several networks trained side by side on the same batches, whose answers are averaged: a deep ensemble.

Lakshminarayanan, Pritzel & Blundell 2017, https://arxiv.org/abs/1612.01474.
"""
# Shapes: B batch, C channels, H and W height and width, M members, K classes.

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """B C H W -> logits B M K in training, where each member has a loss of its own; else B K, of their mean probabilities."""

    def __init__(self, members: Iterable[nn.Module]):
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        logits = torch.stack([member(images) for member in self.members], dim=1)  # B M K
        return logits if self.training else averaged(logits)


def averaged(logits: Tensor) -> Tensor:
    """Logits B M K of the members -> float32 B K, the logarithms of their mean probabilities; bf16 would round them visibly."""
    return logits.float().log_softmax(-1).logsumexp(1) - math.log(logits.shape[1])


def members_of(model: nn.Module) -> list[nn.Module]:
    """The members of the ensemble in a model, or, where there is none, the model itself."""
    found = [list(module.members) for module in model.modules() if isinstance(module, Ensemble)]
    return found[0] if found else [model]
