"""Intervals of proportions from what was right image by image, each image perhaps of a group."""
# Shapes: N images.

import torch
from torch import Tensor

from thumbnet.judging.statistics import grouped_interval, wilson_interval


def interval_of(hit: Tensor, groups: Tensor | None = None) -> tuple[float, float]:
    """The 95 % interval of the part that is true of bool N; `groups` int64 N, numbers from 0 on, are as in `Predictions`."""
    if groups is None:
        return wilson_interval(int(hit.sum()), len(hit))
    each = torch.bincount(groups)
    return grouped_interval(torch.bincount(groups, weights=hit.double()).int().tolist(), each.tolist())


def part_of(groups: Tensor | None, chosen: Tensor) -> Tensor | None:
    """The groups of some of the images, bool N."""
    return None if groups is None else groups[chosen]


def count_of(groups: Tensor | None) -> int | None:
    """How many groups there are, None where none was named."""
    return None if groups is None else len(groups.unique())
