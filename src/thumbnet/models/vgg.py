"""VGG with normalisation for images of about 32 pixels. Simonyan & Zisserman 2014, https://arxiv.org/abs/1409.1556.

One dense layer in place of the paper's three, which were made for 224 pixels and have nine tenths of its parameters; Liu & Deng
2015 (https://doi.org/10.1109/ACPR.2015.7486599) found fewer enough for CIFAR.
"""
# Shapes: B batch, C channels in, D channels out, H and W height and width, K classes.

from collections.abc import Sequence

from torch import Tensor, nn

from thumbnet.models.convolution import Conv2d
from thumbnet.models.initial_weights import draw_weights

CONFIGURATION_D = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))  # table 1: VGG-16


class VGG(nn.Module):
    """Stages of 3x3 convolutions, each normalised and activated, with 2x2 max-pooling after every stage; mean, dense layer."""

    def __init__(self, *, classes: int, channels: int, stages: Sequence[Sequence[int]], dropout: float):
        super().__init__()
        made, channels_in = [], channels
        for widths in stages:
            layers: list[nn.Module] = []
            for width in widths:
                layers += [Conv2d(channels_in, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
                channels_in = width
            # Rounded up, so that five halvings leave a pixel of images of 28 pixels.
            made.append(nn.Sequential(*layers, nn.MaxPool2d(2, ceil_mode=True)))
        self.stages = nn.ModuleList(made)
        self.head_dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels_in, classes)
        draw_weights(self, initialize)

    def forward(self, images: Tensor) -> Tensor:  # B C H W
        x = images
        for stage in self.stages:
            x = stage(x)  # B D H W, halved by every stage
        x = x.mean(dim=(2, 3))  # B D
        return self.head(self.head_dropout(x))  # B K


def initialize(layer: nn.Module) -> None:
    """He-normal kernels scaled by the fan out, as He et al. 2015 (https://arxiv.org/abs/1502.01852) for ReLU networks."""
    if isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


def vgg16(*, classes: int, channels: int = 3, dropout: Sequence[float] = (0.0,)) -> VGG:
    """Thirteen 3x3 convolutions in five stages, with normalisation and one dense layer."""
    return VGG(classes=classes, channels=channels, stages=CONFIGURATION_D, dropout=dropout[-1])
