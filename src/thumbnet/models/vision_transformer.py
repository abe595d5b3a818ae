"""A vision transformer for images of about 32 pixels. Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929.

In the size that Lee et al. 2021 (https://arxiv.org/abs/2112.13492) compare on small images, simplified as by Beyer et al. 2022
(https://arxiv.org/abs/2205.01580): places are told by fixed waves, so images may have any size (filled up to whole patches), and
the mean of all patches is classified.
"""
# Shapes: B batch, C channels, H and W height and width in patches, N = H W patches, D width, A heads, K classes.

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thumbnet.models.convolution import Conv2d
from thumbnet.models.initial_weights import draw_weights

LONGEST_WAVE = (
    10_000.0  # of the waves that tell places, as Vaswani et al. 2017 (https://arxiv.org/abs/1706.03762) have it
)
DEVIATION = (
    0.02  # of the first weights of dense layers, as in DeiT, Touvron et al. 2021 (https://arxiv.org/abs/2012.12877)
)


class SelfAttention(nn.Module):
    """Every patch asks all others, in `heads` ways."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.questions_keys_values = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:  # B N D
        batch, patches, width = x.shape
        parts = self.questions_keys_values(x).view(batch, patches, 3, self.heads, width // self.heads)
        questions, keys, values = parts.permute(2, 0, 3, 1, 4)  # B A N D/A each
        scale = (width // self.heads) ** -0.5
        weights = (questions * scale @ keys.transpose(-2, -1)).softmax(-1)  # B A N N
        return self.project((weights @ values).transpose(1, 2).reshape(batch, patches, width))  # B N D


class TransformerBlock(nn.Module):
    """Attention, then two dense layers, each after a normalisation and with a shortcut around both."""

    def __init__(self, width: int, heads: int, expansion: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.dense = nn.Sequential(nn.Linear(width, expansion * width), nn.GELU(), nn.Linear(expansion * width, width))

    def forward(self, x: Tensor) -> Tensor:  # B N D
        x = x + self.attention(self.norm1(x))
        return x + self.dense(self.norm2(x))


class VisionTransformer(nn.Module):
    """Patches embedded, their places added, `depth` blocks, a last normalisation, mean, dense layer."""

    def __init__(
        self,
        *,
        classes: int,
        channels: int,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        expansion: int,
        dropout: float,
    ):
        super().__init__()
        self.patches = Conv2d(channels, width, patch, stride=patch)
        self.stages = nn.ModuleList(TransformerBlock(width, heads, expansion) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.map = nn.Identity()  # the patches in their places, for those who look where the network looked
        self.head_dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, classes)
        draw_weights(self, initialize)

    def forward(self, images: Tensor) -> Tensor:  # B C and pixels
        missing = [-side % self.patches.stride[0] for side in images.shape[2:]]
        x = self.patches(F.pad(images, (0, missing[1], 0, missing[0])))  # B D H W
        batch, width, rows, columns = x.shape
        x = x.flatten(2).transpose(1, 2) + places(rows, columns, width, device=x.device)  # B N D, in fp32 for its sums
        for stage in self.stages:
            x = stage(x)
        x = self.map(self.norm(x).transpose(1, 2).reshape(batch, width, rows, columns))
        x = x.mean(dim=(2, 3))  # B D
        return self.head(self.head_dropout(x))  # B K


def places(rows: int, columns: int, width: int, *, device: torch.device | None = None) -> Tensor:
    """N D: where a patch is, as sines and cosines of its row and column at width / 4 wavelengths (Beyer et al., section 3)."""
    # Made where they are needed: a copy to a GPU could not be recorded with the update (training/graphs.py).
    frequencies = LONGEST_WAVE ** -torch.linspace(0, 1, width // 4, device=device)
    row, column = torch.meshgrid(torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij")
    angles = [place.flatten()[:, None] * frequencies for place in (column, row)]
    return torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1)


def initialize(layer: nn.Module) -> None:
    """Dense layers from a narrow normal distribution, biases zero; the patches as torch draws them."""
    if isinstance(layer, nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=DEVIATION)
        nn.init.zeros_(layer.bias)


def vision_transformer(*, classes: int, channels: int = 3, dropout: Sequence[float] = (0.0,)) -> VisionTransformer:
    """Nine blocks of attention over patches of 4 pixels, 192 wide, with 12 heads: what attention alone does on small images."""
    return VisionTransformer(
        classes=classes,
        channels=channels,
        patch=4,
        width=192,
        depth=9,
        heads=12,
        expansion=2,
        dropout=dropout[-1],
    )
