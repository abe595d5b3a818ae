"""What stands in front of a network and is kept with it, so that wherever the network goes, its preprocessing goes too."""
# Shapes: B batch, C channels, H and W height and width of the images, h and w those the network works at.

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thumbnet.kernels.preprocess import has_preprocess, preprocess


class Normalize(nn.Module):
    """Subtract the mean and divide by the standard deviation of each channel; takes and gives B C H W in [0, 1] units."""

    mean: Tensor  # 1 C 1 1
    std: Tensor  # 1 C 1 1

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


class Resize(nn.Module):
    """Shrink images B C H W, or enlarge them, bilinearly, to the `part` of their height and width at which the network works.

    Training moves `part` through the recipe's resolutions; what it ends with is what the network is used with.
    """

    def __init__(self, part: float):
        super().__init__()
        self.part = part

    def side(self, images: Tensor) -> list[int]:
        """h and w."""
        return [round(self.part * length) for length in images.shape[2:]]

    def forward(self, images: Tensor) -> Tensor:  # B C H W -> B C h w
        if self.part == 1:
            return images
        side = self.side(images)
        if images.device.type == "cuda":
            return sampled(images, side)
        return F.interpolate(images, side, mode="bilinear", align_corners=False)


def sampled(images: Tensor, side: list[int]) -> Tensor:
    """What `F.interpolate` gives. On a GPU that one goes through all maps with a thread for each pixel of a single map."""
    y, x = (
        (2 * torch.arange(length, device=images.device) + 1) / length - 1 for length in side
    )  # pixels' centres, in [-1, 1]
    places = torch.stack(
        (x.expand(*side), y[:, None].expand(*side)), dim=-1
    )  # h w 2; by no product, which may be in bf16
    places = places.to(images.dtype).expand(len(images), -1, -1, -1)
    return F.grid_sample(images, places, mode="bilinear", padding_mode="border", align_corners=False)


class Preprocessed(nn.Module):
    """A network behind its `Resize` and `Normalize`: float B C H W in [0, 1] in, logits B K out."""

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float], part: float = 1.0):
        super().__init__()
        self.resize = Resize(part)
        self.normalize = Normalize(mean, std)
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(self.preprocess(images))

    def preprocess(self, images: Tensor) -> Tensor:
        """B C H W -> what the network is given, B C h w."""
        side, mean, std = self.resize.side(images), self.normalize.mean, self.normalize.std
        if has_preprocess(images, side, mean, std):
            return preprocess(images, side, mean, std)
        return self.normalize(self.resize(images))  # type: ignore[no-any-return]
