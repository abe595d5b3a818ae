"""Residual networks for images of about 32 pixels. He et al. 2016, https://arxiv.org/abs/1512.03385.

The 3x3 stem without pooling replaces ImageNet's 7x7 stem with stride, which would leave a 32-pixel image 8 pixels wide.
"""
# Shapes: B batch, C channels in, D channels out, H and W height and width, K classes.

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from thumbnet.models.convolution import Conv2d
from thumbnet.models.initial_weights import draw_weights


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions added to a shortcut; `stride` 2 halves height and width."""

    def __init__(self, channels_in: int, channels_out: int, *, stride: int = 1):
        super().__init__()
        self.conv1 = Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.conv2 = Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:  # option B of section 3.3: project where the shape changes
            self.shortcut = nn.Sequential(
                Conv2d(channels_in, channels_out, 1, stride=stride, bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, x: Tensor) -> Tensor:  # B C H W
        y = F.relu(self.norm1(self.conv1(x)))  # B D H/stride W/stride
        y = self.norm2(self.conv2(y))
        return F.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    """3x3 stem, one stage per entry of `widths` (the first keeps the resolution, the others halve it), mean, dense layer."""

    def __init__(self, *, classes: int, channels: int, widths: Sequence[int], blocks: int, dropout: float):
        super().__init__()
        self.stem = nn.Sequential(
            Conv2d(channels, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        stages, channels_in = [], widths[0]
        for index, width in enumerate(widths):
            first = ResidualBlock(channels_in, width, stride=1 if index == 0 else 2)
            stages.append(nn.Sequential(first, *(ResidualBlock(width, width) for _ in range(blocks - 1))))
            channels_in = width
        self.stages = nn.ModuleList(stages)
        self.head_dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels_in, classes)
        draw_weights(self, initialize)

    def forward(self, images: Tensor) -> Tensor:  # B C H W
        x = self.stem(images)
        for stage in self.stages:
            x = stage(x)  # B D H W, then halved by every later stage
        x = x.mean(dim=(2, 3))  # B D
        return self.head(self.head_dropout(x))  # B K


def initialize(layer: nn.Module) -> None:
    """He-normal kernels scaled by the fan out, as He et al. 2015 (https://arxiv.org/abs/1502.01852) for ReLU networks."""
    if isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


def resnet18(*, classes: int, channels: int = 3, dropout: Sequence[float] = (0.0,)) -> ResNet:
    """Four stages of two blocks, 64 to 512 channels, with the stem for 32-pixel images."""
    return ResNet(classes=classes, channels=channels, widths=(64, 128, 256, 512), blocks=2, dropout=dropout[-1])
