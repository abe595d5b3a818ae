"""A small residual network for CPUs, in the plan of David Page's ResNet-9: convolve, pool, normalise, activate.

https://myrtle.ai/learn/how-to-train-your-resnet/. Pooling right after the first convolution of each group, before
normalisation and activation, saves passes over memory, which cost a small network more than its arithmetic.
"""
# Shapes: B batch, C channels in, D channels out, H and W height and width, K classes.

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from thumbnet.kernels.map_maximum import map_maximum
from thumbnet.models.convolution import Conv2d
from thumbnet.models.initial_weights import draw_weights


class PooledGroup(nn.Module):
    """A convolution that halves the map by max-pooling, then one with a shortcut around it."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.conv1 = Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.conv2 = Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:  # B C H W
        x = F.relu(self.norm1(F.max_pool2d(self.conv1(x), 2)))  # B D H/2 W/2
        return x + F.relu(self.norm2(self.conv2(x)))


class SmallResNet(nn.Module):
    """A pooled stem, one group per further width, the maximum over the map, a dense layer. Images of 8 pixels or more."""

    def __init__(self, *, classes: int, channels: int, widths: Sequence[int], dropout: float):
        super().__init__()
        self.stem = Conv2d(channels, widths[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        self.stages = nn.ModuleList(PooledGroup(*pair) for pair in zip(widths, widths[1:], strict=False))
        self.head_dropout = nn.Dropout(dropout)
        self.head = nn.Linear(widths[-1], classes)
        draw_weights(self, initialize)

    def forward(self, images: Tensor) -> Tensor:  # B C H W
        x = F.relu(self.norm(F.max_pool2d(self.stem(images), 2)))  # B D H/2 W/2
        for stage in self.stages:
            x = stage(x)  # B D H W, halved by every stage
        x = map_maximum(x)  # B D
        return self.head(self.head_dropout(x))  # B K


def initialize(layer: nn.Module) -> None:
    """He-normal kernels scaled by the fan out, as He et al. 2015 (https://arxiv.org/abs/1502.01852) for ReLU networks."""
    if isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


def small_resnet(*, classes: int, channels: int = 3, dropout: Sequence[float] = (0.0,)) -> SmallResNet:
    """Two groups of 96 and 192 channels behind a stem of 32: seconds on a CPU."""
    return SmallResNet(classes=classes, channels=channels, widths=(32, 96, 192), dropout=dropout[-1])
