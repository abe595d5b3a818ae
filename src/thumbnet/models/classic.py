"""The two ResNet-50s of the classic report: 7x7 stem, bottlenecks, convolutions with biases, Keras defaults spelled out.

Bottlenecks: He et al. 2016, https://arxiv.org/abs/1512.03385. Full pre-activation: He et al. 2016,
https://arxiv.org/abs/1603.05027, figure 4(e). What differs from those papers is what the report did, and is marked.
"""
# Shapes: B batch, C channels in, W width of a bottleneck, D channels out, H and V height and width of the map, K classes.

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from thumbnet.models.convolution import Conv2d
from thumbnet.models.initial_weights import draw_weights
from thumbnet.models.normalization import NormActivation

STAGES = (
    (3, 64, 256, 1),
    (4, 128, 512, 2),
    (6, 256, 1024, 2),
    (3, 512, 2048, 2),
)  # blocks, width, channels out, stride


def batch_norm(channels: int, activation: str = "none") -> NormActivation:
    """Batch normalisation with Keras's defaults: epsilon 1e-3, running statistics keep 0.99 (PyTorch counts the rest)."""
    return NormActivation(channels, activation, eps=1e-3, momentum=0.01)


class PreActivationBlock(nn.Module):
    """Bottleneck with normalisation and activation before each convolution; the first of a stage projects its shortcut."""

    def __init__(self, channels_in: int, width: int, channels_out: int, *, stride: int = 1, project: bool = False):
        super().__init__()
        self.norm1 = batch_norm(channels_in, "leaky_relu")
        self.conv1 = Conv2d(channels_in, width, 1, stride=stride)
        self.norm2 = batch_norm(width, "leaky_relu")
        self.conv2 = Conv2d(width, width, 3, padding=1)
        self.norm3 = batch_norm(width, "relu")  # the report's third activation is the plain ReLU
        self.conv3 = Conv2d(width, channels_out, 1)
        self.shortcut: nn.Module = nn.Identity()
        if project:  # the report normalises the shortcut by itself instead of sharing norm1
            self.shortcut = nn.Sequential(
                batch_norm(channels_in, "relu"), Conv2d(channels_in, channels_out, 1, stride=stride)
            )

    def forward(self, x: Tensor) -> Tensor:  # B C H V
        y = self.conv1(self.norm1(x))  # B W H/stride V/stride
        y = self.conv2(self.norm2(y))
        y = self.conv3(self.norm3(y))  # B D H/stride V/stride
        return y + self.shortcut(x)


class PostActivationBlock(nn.Module):
    """The ordinary bottleneck: convolution, normalisation, ReLU; the sum is activated."""

    def __init__(self, channels_in: int, width: int, channels_out: int, *, stride: int = 1, project: bool = False):
        super().__init__()
        self.conv1 = Conv2d(channels_in, width, 1, stride=stride)
        self.norm1 = batch_norm(width, "relu")
        self.conv2 = Conv2d(width, width, 3, padding=1)
        self.norm2 = batch_norm(width, "relu")
        self.conv3 = Conv2d(width, channels_out, 1)
        self.norm3 = batch_norm(channels_out)
        self.shortcut: nn.Module = nn.Identity()
        if project:
            self.shortcut = nn.Sequential(Conv2d(channels_in, channels_out, 1, stride=stride), batch_norm(channels_out))

    def forward(self, x: Tensor) -> Tensor:  # B C H V
        y = self.norm1(self.conv1(x))  # B W H/stride V/stride
        y = self.norm2(self.conv2(y))
        y = self.norm3(self.conv3(y))  # B D H/stride V/stride
        return F.relu(y + self.shortcut(x))


class ClassicResNet50(nn.Module):
    """Stem, four stages, head. `dropout` holds the rates after stage 2, after stage 3 and before the dense layer."""

    def __init__(
        self,
        block: type[PreActivationBlock] | type[PostActivationBlock],
        *,
        classes: int,
        channels: int = 3,
        dropout: Sequence[float] = (0.0, 0.0, 0.0),
    ):
        super().__init__()
        after_stage2, after_stage3, before_dense = dropout
        self.stem = nn.Sequential(
            nn.Conv2d(channels, 64, 7, stride=2, padding=3),
            batch_norm(64, "relu"),
            nn.MaxPool2d(3, stride=2),  # without padding, so 16 -> 7
        )
        stages, channels_in = [], 64
        for blocks, width, channels_out, stride in STAGES:
            first = block(channels_in, width, channels_out, stride=stride, project=True)
            rest = [block(channels_out, width, channels_out) for _ in range(blocks - 1)]
            stages.append(nn.Sequential(first, *rest))
            channels_in = channels_out
        self.stages = nn.ModuleList(stages)
        self.dropouts = nn.ModuleList(nn.Dropout(rate) for rate in (0.0, after_stage2, after_stage3, 0.0))
        self.head_dropout = nn.Dropout(before_dense)
        self.head = nn.Linear(2048, classes)
        draw_weights(self, initialize_like_the_report)

    def forward(self, images: Tensor) -> Tensor:  # B 3 32 32
        x = self.stem(images)  # B 64 7 7
        for stage, dropout in zip(self.stages, self.dropouts, strict=True):
            x = dropout(stage(x))  # B 256 7 7, B 512 4 4, B 1024 2 2, B 2048 1 1
        x = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)  # Keras's "same" pooling; the identity on 1x1
        x = (
            x.mean(dim=(2, 3)) if x.shape[2:].numel() > 1 else x.flatten(1)
        )  # B 2048; larger images than the report's are averaged
        return self.head(self.head_dropout(x))  # B K


# Keras's he_normal draws from a normal cut at two standard deviations and widens it so that the variance is 2 / fan in:
# 0.87962566 is the standard deviation of a unit normal cut at +-2 (keras.initializers.VarianceScaling).
TRUNCATED_STD = 0.87962566103423978
LIMIT = 2 * (2 / 2048) ** 0.5 / TRUNCATED_STD


def initialize_like_the_report(layer: nn.Module) -> None:
    """Keras's defaults, Glorot uniform kernels and zero biases; the dense layer's kernel He normal, as the report asks."""
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.constant_(layer.get_parameter("bias"), 0)
    if isinstance(layer, nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=(2 / 2048) ** 0.5 / TRUNCATED_STD, a=-LIMIT, b=LIMIT)


def preact_resnet50_classic(
    *, classes: int, channels: int = 3, dropout: Sequence[float] = (0.0, 0.0, 0.0)
) -> ClassicResNet50:
    """ResNet-50 with full pre-activation as the report built it; nothing stands between the last block and the pooling."""
    return ClassicResNet50(PreActivationBlock, classes=classes, channels=channels, dropout=dropout)


def resnet50_classic(*, classes: int, channels: int = 3, dropout: Sequence[float] = (0.0, 0.0, 0.0)) -> ClassicResNet50:
    """The ordinary ResNet-50 with the same stem, stages and head: the report's figures 2 and 3."""
    return ClassicResNet50(PostActivationBlock, classes=classes, channels=channels, dropout=dropout)
