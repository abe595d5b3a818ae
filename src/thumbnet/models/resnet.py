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
    """Two 3x3 convolutions added to a shortcut; `stride` 2 halves height and width. Gives `channels`."""

    expansion = 1

    def __init__(self, channels_in: int, channels: int, *, stride: int, projects: bool):
        super().__init__()
        self.conv1 = Conv2d(channels_in, channels, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut = shortcut(channels_in, channels, stride=stride, projects=projects)

    def forward(self, x: Tensor) -> Tensor:  # B C H W
        y = F.relu(self.norm1(self.conv1(x)))  # B D H/stride W/stride
        y = self.norm2(self.conv2(y))
        return F.relu(y + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1 to fewer channels, 3x3, 1x1 to four times as many (figure 5), added to a shortcut. Gives 4 * `channels`."""

    expansion = 4

    def __init__(self, channels_in: int, channels: int, *, stride: int, projects: bool):
        super().__init__()
        channels_out = self.expansion * channels
        self.conv1 = Conv2d(channels_in, channels, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.conv3 = Conv2d(channels, channels_out, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(channels_out)
        self.shortcut = shortcut(channels_in, channels_out, stride=stride, projects=projects)

    def forward(self, x: Tensor) -> Tensor:  # B C H W
        y = F.relu(self.norm1(self.conv1(x)))
        y = F.relu(self.norm2(self.conv2(y)))  # H/stride W/stride
        y = self.norm3(self.conv3(y))  # B 4D
        return F.relu(y + self.shortcut(x))


def shortcut(channels_in: int, channels_out: int, *, stride: int, projects: bool) -> nn.Module:
    """Nothing where the shape stays; else a projection (option B of section 3.3), or zeros for the new channels (option A)."""
    if stride == 1 and channels_in == channels_out:
        return nn.Identity()
    if not projects:
        return ZeroPadding(channels_out - channels_in, stride)
    return nn.Sequential(Conv2d(channels_in, channels_out, 1, stride=stride, bias=False), nn.BatchNorm2d(channels_out))


class ZeroPadding(nn.Module):
    """Every `stride`-th pixel, and zeros for `more` channels, half of them before and half after."""

    def __init__(self, more: int, stride: int):
        super().__init__()
        self.before, self.after, self.stride = more // 2, more - more // 2, stride

    def forward(self, x: Tensor) -> Tensor:  # B C H W -> B C+more H/stride W/stride
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


class ResNet(nn.Module):
    """3x3 stem, one stage per entry of `widths` (the first keeps the resolution, the others halve it), mean, dense layer."""

    def __init__(
        self,
        *,
        classes: int,
        channels: int,
        widths: Sequence[int],
        blocks: Sequence[int],
        dropout: float,
        block: type[ResidualBlock | Bottleneck] = ResidualBlock,
        projects: bool = True,
    ):
        super().__init__()
        self.stem = nn.Sequential(
            Conv2d(channels, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        stages, channels_in = [], widths[0]
        for index, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            made = []
            for number in range(count):
                halves = number == 0 and index > 0
                made.append(block(channels_in, width, stride=2 if halves else 1, projects=projects))
                channels_in = block.expansion * width
            stages.append(nn.Sequential(*made))
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
    return ResNet(
        classes=classes, channels=channels, widths=(64, 128, 256, 512), blocks=(2, 2, 2, 2), dropout=dropout[-1]
    )


def resnet50(*, classes: int, channels: int = 3, dropout: Sequence[float] = (0.0,)) -> ResNet:
    """Four stages of 3, 4, 6 and 3 bottlenecks, 256 to 2048 channels, with the stem for 32-pixel images."""
    return ResNet(
        classes=classes,
        channels=channels,
        widths=(64, 128, 256, 512),
        blocks=(3, 4, 6, 3),
        dropout=dropout[-1],
        block=Bottleneck,
    )


def resnet20(*, classes: int, channels: int = 3, dropout: Sequence[float] = (0.0,)) -> ResNet:
    """The smallest network of the ResNet paper for CIFAR-10: three stages of three blocks, 16 to 64 channels."""
    return cifar_resnet(20, classes=classes, channels=channels, dropout=dropout[-1])


def resnet56(*, classes: int, channels: int = 3, dropout: Sequence[float] = (0.0,)) -> ResNet:
    """The same with nine blocks in each stage."""
    return cifar_resnet(56, classes=classes, channels=channels, dropout=dropout[-1])


def cifar_resnet(depth: int, *, classes: int, channels: int, dropout: float) -> ResNet:
    """Section 4.2: 6 n + 2 layers, three stages of n blocks, 16, 32 and 64 channels, shortcuts without parameters."""
    blocks = (depth - 2) // 6
    return ResNet(
        classes=classes, channels=channels, widths=(16, 32, 64), blocks=(blocks,) * 3, dropout=dropout, projects=False
    )
