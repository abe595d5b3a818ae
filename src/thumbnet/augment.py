"""Random changes of training images: batched tensor functions, each image drawn anew, on the device the images are on.

Every function takes float images B C H W in [0, 1] and a `torch.Generator` on the same device, and gives new images of
the same shape and range. `augment` is the one the training loop calls; it applies what the recipe asks for, in its order.
"""
# Shapes: B batch, C channels, H and W height and width.

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from thumbnet.recipes.recipe import Recipe


def augment(images: Tensor, recipe: Recipe, random: Generator) -> Tensor:
    """uint8 B C H W -> float B C H W in [0, 1], changed as the recipe says."""
    x = to_float(images)
    if recipe.zoom or recipe.shift:
        x = affine(x, random, zoom=recipe.zoom, shift=recipe.shift, flip=recipe.flip)
    elif recipe.flip:
        x = flip(x, random)
    if recipe.crop:
        x = crop(x, random, padding=recipe.crop)
    if recipe.cutout:
        x = cutout(x, random, side=recipe.cutout)
    return x


def to_float(images: Tensor) -> Tensor:
    """uint8 B C H W in 0 .. 255 -> float B C H W in [0, 1]; the one place where pixels become numbers."""
    return images.float().div_(255)


def flip(images: Tensor, random: Generator) -> Tensor:
    """Mirror each image left to right with probability one half."""
    mirrored = torch.rand(len(images), 1, 1, 1, generator=random, device=images.device) < 0.5
    return torch.where(mirrored, images.flip(3), images)


def affine(images: Tensor, random: Generator, *, zoom: float, shift: float, flip: bool) -> Tensor:
    """Zoom, shift and mirror in one bilinear resampling, borders repeating the nearest pixel (Keras's ImageDataGenerator).

    Height and width are zoomed independently by factors from U(1 - zoom, 1 + zoom), where a factor above one shrinks the
    picture as in Keras; shifts are U(-shift, shift) of the side; mirrored with probability one half where `flip`.
    """
    batch, channels, height, width = images.shape
    draws = torch.rand(batch, 5, generator=random, device=images.device)
    scale = 1 + zoom * (2 * draws[:, 0:2] - 1)  # B 2, for rows and columns
    offset = shift * (2 * draws[:, 2:4] - 1)  # B 2, in parts of the side
    sign = torch.where(draws[:, 4] < 0.5, -1.0, 1.0) if flip else torch.ones(batch, device=images.device)
    rows = resampling_matrix(scale[:, 0], offset[:, 0] * height, height)
    columns = resampling_matrix(scale[:, 1] * sign, offset[:, 1] * width, width)
    # Without rotation the map is a product of two one-dimensional ones: matrix products are faster than gathering pixels.
    x = images.reshape(batch, channels * height, width) @ columns.transpose(1, 2)  # B CH W
    x = x.view(batch, channels, height, width).transpose(1, 2).reshape(batch, height, channels * width)
    return (rows @ x).view(batch, height, channels, width).transpose(1, 2)  # B C H W


def resampling_matrix(scale: Tensor, offset: Tensor, side: int) -> Tensor:
    """B side side: row `o` holds the linear weights of the source pixels at centre + scale * (o - centre) + offset, each B."""
    positions = torch.arange(side, device=scale.device, dtype=scale.dtype)
    centre = (side - 1) / 2
    source = centre + scale[:, None] * (positions - centre) + offset[:, None]  # B side
    source = source.clamp(0, side - 1)  # beyond the border lies the nearest pixel
    return (1 - (source[:, :, None] - positions).abs()).clamp_(min=0)


def crop(images: Tensor, random: Generator, *, padding: int) -> Tensor:
    """Reflect `padding` pixels at every side and cut the original size at a random place (all (2 padding + 1)^2 are equal)."""
    batch, _, height, width = images.shape
    padded = F.pad(images, (padding,) * 4, mode="reflect")
    offsets = torch.randint(0, 2 * padding + 1, (2, batch, 1), generator=random, device=images.device)
    rows = offsets[0] + torch.arange(height, device=images.device)  # B H
    columns = offsets[1] + torch.arange(width, device=images.device)  # B W
    index = torch.arange(batch, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def cutout(images: Tensor, random: Generator, *, side: int) -> Tensor:
    """Set a square of side x side pixels around a random centre to the batch's mean colour.

    DeVries & Taylor 2017, https://arxiv.org/abs/1708.04552; the square may reach over the border.
    """
    batch, _, height, width = images.shape
    centres = torch.rand(2, batch, 1, generator=random, device=images.device)
    rows = torch.arange(height, device=images.device) - (centres[0] * height).floor()  # B H
    columns = torch.arange(width, device=images.device) - (centres[1] * width).floor()  # B W
    low, high = -(side // 2), side - side // 2
    inside = ((rows >= low) & (rows < high))[:, None, :, None] & ((columns >= low) & (columns < high))[:, None, None, :]
    return torch.where(inside, images.mean(dim=(0, 2, 3), keepdim=True), images)
