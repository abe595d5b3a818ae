"""A frozen first layer that decorrelates the colours and edges of small patches, computed from training images.

David Page 2019, https://myrtle.ai/learn/how-to-train-your-resnet-8-bag-of-tricks/; with both signs of every filter as in
airbench (Jordan 2024, https://arxiv.org/abs/2404.00498, section 3.2).
"""
# Shapes: B batch, C channels, S side of a patch, H and W height and width, F filters (2 C S^2).

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thumbnet.kernels.pool_norm_activate import activate, bias_activate
from thumbnet.kernels.whitening import has_whiten, whiten
from thumbnet.models.convolution import channels_last

PIXELS_AT_ONCE = 2**20  # whose patches are in memory, in double: 100 MB of a colour image
EPSILON = 5e-4  # added to the variances, so that directions in which images hardly vary are not blown up (airbench)
# Variance below which a direction shows nothing: less than rounding to 8 bits makes of pixels in [0, 1], which is 1.3e-6. Of grey
# pictures with three equal channels two directions in three have none at all.
FAINT = 1e-6


class Whitening(nn.Module):
    """Filters S x S without padding, then an activation: B C H W -> B F H-S+1 W-S+1. Random until `fit_whitening`.

    On a CUDA GPU channels of zeros follow, up to a power of two (24 to 32, 8 as they are): `Conv2d.of_filled_up` takes them.
    """

    filters: Tensor  # F C S S, never trained; the bias is, see `train_stem`

    def __init__(self, channels: int, side: int = 2, activation: str = "none"):
        super().__init__()
        directions = channels * side**2  # of a patch, each taken with both signs
        self.register_buffer("filters", torch.empty(2 * directions, channels, side, side))
        nn.init.normal_(self.filters, std=directions**-0.5)
        self.bias = nn.Parameter(torch.zeros(2 * directions))
        self.activation = activation

    @property
    def channels_out(self) -> int:
        return len(self.filters)

    def forward(self, x: Tensor) -> Tensor:
        """In fp32 also where the rest is bf16, whose rounding of the pixels the weakest directions would magnify 45 times."""
        kind, x = x.device.type, x.to(self.filters.dtype)
        if kind == "cuda":
            # Bias, type and activation in one pass over the largest map, whose rows are filled up: with 24 filters the next
            # layer's kernel gradient takes three times as long as with 32.
            with torch.autocast(kind, enabled=False):
                filters = len(self.filters)
                empty = 2 ** (filters - 1).bit_length() - filters
                y = F.conv2d(x, F.pad(self.filters, (0, 0, 0, 0, 0, 0, 0, empty)))
            return bias_activate(channels_last(y), F.pad(self.bias, (0, empty)), self.activation)
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        if has_whiten(x, self.filters, self.bias, dtype):
            return whiten(x, self.filters, self.bias, self.activation, dtype)
        with torch.autocast(kind, enabled=False):
            y = F.conv2d(x, self.filters, self.bias)
        return activate(channels_last(y.to(dtype)), self.activation)


def train_stem(network: nn.Module, trained: bool) -> None:
    """Whether the bias of a network's `Whitening` is trained on. Once it is not, no gradient goes through the largest map."""
    for layer in network.modules():
        if isinstance(layer, Whitening):
            layer.bias.requires_grad_(trained)


def stem_is_trained(network: nn.Module) -> bool:
    """What `train_stem` was last told; False for a network without whitening."""
    return any(layer.bias.requires_grad for layer in network.modules() if isinstance(layer, Whitening))


@torch.no_grad()
def fit_whitening(network: nn.Module, images: Tensor) -> None:
    """Set the filters of every `Whitening` of a network that takes float images B C H W; without one, do nothing."""
    for layer in network.modules():
        if not isinstance(layer, Whitening):
            continue
        filters = whitening_filters(images, layer.filters.shape[2])
        layer.filters.copy_(torch.cat((filters, -filters)))


def whitening_filters(images: Tensor, side: int) -> Tensor:
    """C*S^2 C S S: each eigenvector of the patches' covariance, divided by the square root of its variance.

    In place of faint ones the others come again. A filter that shows nothing would be a constant to the layers behind it: their
    normalisation takes that away, so that nothing holds its bias but rounding, which carries it off (docs/findings.md).
    """
    channels, height, width = images.shape[1:]
    images = images if images.device.type == "cuda" else images.cpu()  # Apple's GPU has no double
    directions, count = channels * side**2, 0
    total = torch.zeros(directions, directions, dtype=torch.float64, device=images.device)
    for part in images.split(max(1, PIXELS_AT_ONCE // (height * width))):
        patches = F.unfold(part.double(), side).transpose(0, 1).flatten(1)  # C*S*S patches
        total += patches @ patches.T
        count += patches.shape[1]
    variances, vectors = torch.linalg.eigh((total / count).cpu())  # ascending; vectors in columns
    scaled = vectors / (variances + EPSILON).sqrt()
    seen = (variances > FAINT).nonzero().flatten()
    if 0 < len(seen) < directions:
        again = seen.repeat(directions // len(seen))[: directions - len(seen)]
        scaled = scaled[:, torch.cat((again, seen))]
    return scaled.T.reshape(-1, channels, side, side).to(images)
