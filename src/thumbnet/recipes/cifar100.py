"""Recipes for CIFAR-100, with the fine labels."""

import dataclasses

from thumbnet.recipes import cifar10
from thumbnet.recipes.recipe import Recipe


def classic() -> Recipe:
    """The report's network with its three dropouts. `thumbnet train cifar100 --recipe cifar100-classic`.

    The report's other rows: `--dropout 0 0 0` (about 79 % top-5) and `--dropout 0 0 0.2` (80.04 %).
    """
    return dataclasses.replace(cifar10.classic(), name="cifar100-classic", dropout=(0.15, 0.2, 0.2))


def resnet18() -> Recipe:
    """The CIFAR-10 setting on CIFAR-100. `thumbnet train cifar100 --recipe cifar100-resnet18`."""
    return dataclasses.replace(cifar10.resnet18(), name="cifar100-resnet18")
