"""Residual networks with full pre-activation for images of about 32 pixels, narrow and wide.

He et al. 2016, https://arxiv.org/abs/1603.05027. Zagoruyko & Komodakis 2016, https://arxiv.org/abs/1605.07146, made them wide.
"""
# Shapes: B batch, C channels in, D channels out, H and W height and width, K classes.

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from thumbnet.models.convolution import Conv2d
from thumbnet.models.initial_weights import draw_weights


class PreActivationBlock(nn.Module):
    """Normalise and activate before each 3x3 convolution (figure 4e); a projecting shortcut starts after the first of them.

    Dropout, if any, is between the convolutions, where Zagoruyko & Komodakis (section 2.4) have it.
    """

    def __init__(self, channels_in: int, channels_out: int, *, stride: int = 1, dropout: float = 0.0):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels_in)
        self.conv1 = Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.project = stride != 1 or channels_in != channels_out
        if self.project:
            self.shortcut = Conv2d(channels_in, channels_out, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # B C H W
        activated = F.relu(self.norm1(x))
        shortcut = self.shortcut(activated) if self.project else x
        y = self.conv1(activated)  # B D H/stride W/stride
        y = self.conv2(self.dropout(F.relu(self.norm2(y))))
        return y + shortcut


class PreActivationResNet(nn.Module):
    """3x3 stem, one stage per entry of `widths` (the first keeps the resolution, the others halve it), a last normalisation and
    activation, mean, dense layer.
    """

    def __init__(
        self,
        *,
        classes: int,
        channels: int,
        stem: int,
        widths: Sequence[int],
        blocks: int,
        block_dropout: float = 0.0,
        head_dropout: float = 0.0,
    ):
        super().__init__()
        self.stem = Conv2d(channels, stem, 3, padding=1, bias=False)
        stages, channels_in = [], stem
        block = partial(PreActivationBlock, dropout=block_dropout)
        for index, width in enumerate(widths):
            first = block(channels_in, width, stride=1 if index == 0 else 2)
            stages.append(nn.Sequential(first, *(block(width, width) for _ in range(blocks - 1))))
            channels_in = width
        self.stages = nn.ModuleList(stages)
        self.norm = nn.BatchNorm2d(channels_in)
        self.head_dropout = nn.Dropout(head_dropout)
        self.head = nn.Linear(channels_in, classes)
        draw_weights(self, initialize)

    def forward(self, images: Tensor) -> Tensor:  # B C H W
        x = self.stem(images)
        for stage in self.stages:
            x = stage(x)  # B D H W, then halved by every later stage
        x = F.relu(self.norm(x)).mean(dim=(2, 3))  # B D
        return self.head(self.head_dropout(x))  # B K


def initialize(layer: nn.Module) -> None:
    """He-normal kernels scaled by the fan out, as He et al. 2015 (https://arxiv.org/abs/1502.01852) for ReLU networks."""
    if isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


def preact_resnet18(*, classes: int, channels: int = 3, dropout: Sequence[float] = (0.0,)) -> PreActivationResNet:
    """ResNet-18 with full pre-activation and the stem for 32-pixel images."""
    return PreActivationResNet(
        classes=classes, channels=channels, stem=64, widths=(64, 128, 256, 512), blocks=2, head_dropout=dropout[-1]
    )


def wide_resnet16_4(*, classes: int, channels: int = 3, dropout: Sequence[float] = (0.0,)) -> PreActivationResNet:
    """Wide ResNet of 16 layers, four times as wide as ResNet-20; dropout is between the convolutions of a block."""
    return wide_resnet(16, 4, classes=classes, channels=channels, dropout=dropout[-1])


def wide_resnet28_10(*, classes: int, channels: int = 3, dropout: Sequence[float] = (0.0,)) -> PreActivationResNet:
    """Wide ResNet of 28 layers, ten times as wide as ResNet-20: for a GPU. Dropout is between the convolutions of a block."""
    return wide_resnet(28, 10, classes=classes, channels=channels, dropout=dropout[-1])


def wide_resnet(depth: int, width: int, *, classes: int, channels: int, dropout: float) -> PreActivationResNet:
    """WRN-depth-width: three stages of (depth - 4) / 6 blocks, 16, 32 and 64 times `width` channels (table 1)."""
    widths = tuple(width * base for base in (16, 32, 64))
    blocks = (depth - 4) // 6  # of two convolutions; the stem and three projections are the other four
    return PreActivationResNet(
        classes=classes, channels=channels, stem=16, widths=widths, blocks=blocks, block_dropout=dropout
    )
