"""The normalisation in front of a network, kept with its weights: wherever the network goes, its preprocessing goes too."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """Subtract the mean and divide by the standard deviation of each channel; takes and gives B C H W in [0, 1] units."""

    mean: Tensor  # 1 C 1 1
    std: Tensor  # 1 C 1 1

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


def with_normalization(network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> nn.Sequential:
    """`network` behind a `Normalize`: float B C H W in [0, 1] in, logits B K out."""
    model = nn.Sequential()
    model.add_module("normalize", Normalize(mean, std))
    model.add_module("network", network)
    return model
