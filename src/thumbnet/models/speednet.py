"""The convolutional network of the CIFAR speed records: whitening, groups of convolutions, the maximum over the map.

The line of David Page's ResNet-9 (https://myrtle.ai/learn/how-to-train-your-resnet/), tysam-code's hlb-CIFAR10 and Keller
Jordan's airbench (https://arxiv.org/abs/2404.00498), whose plan and constants these are: a frozen whitening layer, kernels
that begin as the identity, normalisation without scales, pooling before normalisation and activation.
"""
# Shapes: B batch, C channels in, D channels out, H and W height and width, K classes.

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from thumbnet.kernels.map_maximum import map_maximum
from thumbnet.models.convolution import Conv2d
from thumbnet.models.initial_weights import draw_weights
from thumbnet.models.normalization import NormActivation, convolve_and_normalize
from thumbnet.models.whitening import Whitening

NORM_MOMENTUM = 0.3  # share of the newest batch in the running statistics; with 0.1 they lag behind (docs/findings.md)


def batch_norm(channels: int, activation: str, *, pool: bool = False) -> NormActivation:
    """Batch normalisation with trained shifts and fixed scales of one, pooled before where `pool`, activated after."""
    layer = NormActivation(channels, activation, pool=pool, momentum=NORM_MOMENTUM)
    layer.weight.requires_grad_(False)
    return layer


class Group(nn.Module):
    """A convolution that halves the map by pooling, then one more, or two with a shortcut around them (depth 3)."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        kernels: Sequence[int],
        activation: str = "gelu",
        after_whitening: bool = False,
    ):
        super().__init__()
        widths = [channels_in] + [channels_out] * len(kernels)
        convs = [
            Conv2d(width, channels_out, kernel, padding=kernel // 2 if kernel % 2 else 0, bias=False)
            for width, kernel in zip(widths, kernels, strict=False)
        ]
        convs[0].takes_filled_up = after_whitening
        self.convs = nn.ModuleList(convs)
        self.shortcut = len(kernels) >= 3
        self.norms = nn.ModuleList(batch_norm(channels_out, activation, pool=i == 0) for i in range(len(kernels)))

    def forward(self, x: Tensor) -> Tensor:  # B C H W
        x = first = convolve_and_normalize(x, self.convs[0], self.norms[0])  # B D H/2 W/2
        for conv, norm in zip(self.convs[1:], self.norms[1:], strict=True):
            added = first if self.shortcut and norm is self.norms[-1] else None  # before the activation
            x = convolve_and_normalize(x, conv, norm, added=added)
        return x


class SpeedNet(nn.Module):
    """Whitening, one group per width, the maximum over the map, a dense layer without bias.

    `kernels` holds the sides of the kernels of each group, so their number is the group's depth. Images of 2^groups + 1
    pixels or more, of any number of channels.
    """

    def __init__(
        self,
        *,
        classes: int,
        channels: int,
        widths: Sequence[int],
        kernels: Sequence[Sequence[int]],
        activation: str = "gelu",
        dropout: float = 0.0,
    ):
        super().__init__()
        self.whitening = Whitening(channels, activation=activation)
        pairs = zip([self.whitening.channels_out, *widths], widths, strict=False)
        self.groups = nn.ModuleList(
            Group(*pair, kernels=sides, activation=activation, after_whitening=i == 0)
            for i, (pair, sides) in enumerate(zip(pairs, kernels, strict=True))
        )
        self.head_dropout = nn.Dropout(dropout)
        self.head = nn.Linear(widths[-1], classes, bias=False)
        draw_weights(self, initialize)

    def forward(self, images: Tensor) -> Tensor:  # B C H W
        x = self.whitening(images)  # B 8C H-1 W-1
        for group in self.groups:
            x = group(x)  # B D H W, halved by every group
        x = map_maximum(x)  # B D
        return self.head(self.head_dropout(x)) / x.shape[1]  # B K


def initialize(layer: nn.Module) -> None:
    """The first filters of every kernel pass their input on (dirac); the dense layer has unit variance (airbench)."""
    if isinstance(layer, nn.Conv2d):
        layer.reset_parameters()
        with torch.no_grad():
            kernel = layer.weight  # D C S S
            channels, centre = min(kernel.shape[:2]), kernel.shape[2] // 2
            passing = kernel[: kernel.shape[1]].zero_()[:channels, :channels, centre, centre]
            passing.fill_diagonal_(1)  # `nn.init.dirac_` sets one number after the other
    elif isinstance(layer, nn.Linear):
        with torch.no_grad():
            layer.reset_parameters()
            layer.weight.div_(layer.weight.std())


def speednet(
    *,
    classes: int,
    channels: int = 3,
    widths: Sequence[int] = (64, 256, 256),
    depth: int = 2,
    dropout: Sequence[float] = (0.0,),
) -> SpeedNet:
    """Whitened network of the CIFAR speed records (airbench), with groups of any width and depth."""
    return SpeedNet(
        classes=classes, channels=channels, widths=widths, kernels=[[3] * depth] * len(widths), dropout=dropout[-1]
    )


def speednet_slim(
    *,
    classes: int,
    channels: int = 3,
    widths: Sequence[int] = (64, 192, 384),
    depth: int = 2,
    dropout: Sequence[float] = (0.0,),
) -> SpeedNet:
    """The same with cheaper kernels where they cost most: 1x1 second in the first group, 2x2 first in the last."""
    kernels = [[3] * depth for _ in widths]
    kernels[0][1:] = [1] * (depth - 1)
    kernels[-1][0] = 2
    return SpeedNet(classes=classes, channels=channels, widths=widths, kernels=kernels, dropout=dropout[-1])
