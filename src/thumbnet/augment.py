"""Random changes of training images: batched tensor functions, each image drawn anew, on the device the images are on.

`augment` is the one the training loop calls: bytes B C H W become floats in [0, 1], and what the recipe asks for is applied, in
its order. The others take such floats and a `torch.Generator` on the same device, or what it drew for them, and give new images
of the same shape and range. Then `mix`, whose few draws are for the whole batch: its generator is on the CPU, since reading
them from a GPU would wait for it.
"""
# Shapes: B batch, C channels, H and W height and width, K classes.

import math
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from thumbnet.errors import UserError
from thumbnet.kernels import augment as on_cpu
from thumbnet.kernels.pool_norm_activate import gpu_module
from thumbnet.own_code import call_own, has, shown
from thumbnet.randomness import generator
from thumbnet.recipes.recipe import Recipe


def augment(images: Tensor, recipe: Recipe, random: Generator, mirrored: Tensor) -> Tensor:
    """uint8 B C H W -> float B C H W in [0, 1], changed as the recipe says.

    Where it mirrors alternately, `mirrored` (bool B, of `mirrored_in_epoch`) says which images.
    """
    if recipe.zoom > 0 or recipe.shift > 0:
        x = resampled(images, recipe, random, mirrored)
    else:
        x = mirrored_and_cropped(images, recipe, random, mirrored)
    if recipe.cutout:
        x = cutout(x, random, side=recipe.cutout)
    return x


def resampled(images: Tensor, recipe: Recipe, random: Generator, mirrored: Tensor) -> Tensor:
    """Of `augment`, what begins with zoom and shift."""
    if recipe.flip and recipe.alternate_flip:
        images = mirror(images, mirrored)  # bytes as yet, a quarter of the memory
    random_flip = recipe.flip and not recipe.alternate_flip
    x = affine(to_float(images), random, zoom=recipe.zoom, shift=recipe.shift, flip=random_flip)
    if recipe.crop:
        x = crop(x, window_offsets(x, random, padding=recipe.crop), padding=recipe.crop)
    return jitter(x, jitter_draws(x, random), strength=recipe.jitter) if recipe.jitter else x


def mirrored_and_cropped(images: Tensor, recipe: Recipe, random: Generator, mirrored: Tensor) -> Tensor:
    """Of `augment`, what leaves pixels as they are but for jitter: in one pass where there is a kernel for it."""
    if not recipe.flip:
        mirrored = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    elif not recipe.alternate_flip:
        mirrored = flip_draws(images, random)
    offsets = window_offsets(images, random, padding=recipe.crop) if recipe.crop else None
    draws = jitter_draws(images, random) if recipe.jitter else None
    if fused := kernel_for(images, recipe.crop):
        return fused.augmented(images, mirrored, offsets, recipe.crop, draws, recipe.jitter)  # type: ignore[no-any-return]
    x = to_float(mirror(images, mirrored) if recipe.flip else images)
    if offsets is not None:
        x = crop(x, offsets, padding=recipe.crop)
    return x if draws is None else jitter(x, draws, strength=recipe.jitter)


def kernel_for(images: Tensor, padding: int) -> Any:
    """kernels/augment.py or augment_gpu.py, which mirror, crop and jitter at once, where it can take the images; else None."""
    if images.device.type == "cpu":
        return on_cpu if on_cpu.takes(images, padding) else None
    if images.device.type != "cuda" or images.device.index != torch.cuda.current_device() or gpu_module() is None:
        return None
    from thumbnet.kernels import augment_gpu

    return augment_gpu if augment_gpu.takes(images, padding) else None


def to_float(images: Tensor) -> Tensor:
    """uint8 B C H W in 0 .. 255 -> float B C H W in [0, 1]."""
    return images.float().div_(255)


def flip_draws(images: Tensor, random: Generator) -> Tensor:
    """bool B: which images to mirror, each with probability one half."""
    return torch.rand(len(images), generator=random, device=images.device) < 0.5


def mirror(images: Tensor, chosen: Tensor) -> Tensor:
    """Mirror the images where `chosen` (bool B) left to right."""
    return torch.where(chosen[:, None, None, None], images.flip(3), images)


def mirrored_in_epoch(images: int, *, seed: int, epoch: int) -> Tensor:
    """bool N: which images to mirror in `epoch`, a round through them: half of them, drawn once, and in the next the others.

    So two rounds show every image both ways, where random flips show a quarter of them the same way twice; Jordan 2024,
    https://arxiv.org/abs/2404.00498, section 3.6.
    """
    first = torch.rand(images, generator=generator("cpu", seed, "mirror")) < 0.5
    return first if epoch % 2 == 0 else ~first


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


def window_offsets(images: Tensor, random: Generator, *, padding: int) -> Tensor:
    """Of `crop`, int64 2 B: row and column of the window's corner in the padded image; all (2 padding + 1)^2 are equal."""
    return torch.randint(0, 2 * padding + 1, (2, len(images)), generator=random, device=images.device)


def crop(images: Tensor, offsets: Tensor, *, padding: int) -> Tensor:
    """Reflect `padding` pixels at every side and cut the original size at `offsets` 2 B."""
    _, _, height, width = images.shape
    padded = F.pad(images, (padding,) * 4, mode="reflect")
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # B C 2p+1 2p+1 H W, without a copy
    return windows[torch.arange(len(images), device=images.device), :, offsets[0], offsets[1]]


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


def jitter_draws(images: Tensor, random: Generator) -> Tensor:
    """Of `jitter`, 2 B in [-1, 1]: how far brightness and contrast of each image change."""
    return 2 * torch.rand(2, len(images), generator=random, device=images.device) - 1


def jitter(images: Tensor, draws: Tensor, *, strength: float) -> Tensor:
    """Brightness changed by up to `strength` of the range, contrast by a factor of 1 - strength to 1 + strength: `draws` 2 B."""
    brightness, contrast = strength * draws[:, :, None, None, None]  # B 1 1 1
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return ((images - mean) * (1 + contrast) + mean + brightness).clamp_(0, 1)


def mix(
    images: Tensor, labels: Tensor, classes: int, recipe: Recipe, random: Generator, *, at: float
) -> tuple[Tensor, Tensor]:
    """Images B C H W, mixed with others of the batch as the recipe says at a place `at` of the run (0 to 1), and targets.

    One draw decides for the whole batch: cutmix with probability `cutmix`, else mixup with probability `mixup`, else neither.
    The targets are probabilities B K where the recipe mixes, and the labels B themselves where it does not.
    """
    if at >= recipe.mix_until or not (recipe.cutmix or recipe.mixup):
        return images, labels
    targets = F.one_hot(labels, classes).to(images.dtype)
    draw = torch.rand((), generator=random).item()
    others = torch.randperm(len(images), generator=random).to(images.device)
    if draw < recipe.cutmix:
        return cutmix(images, targets, others, random)
    if draw < recipe.cutmix + recipe.mixup:
        return mixup(images, targets, others, random)
    return images, targets


def changed_by_own(images: Tensor, recipe: Recipe, epoch: int, step: int) -> Tensor:
    """Images B C H W in [0, 1], after the function `augment(images, random)` of a file of the user's, where it has one.

    `random` is a generator on the images' device, drawn for this very step, so that a resumed run goes on with the same draws.
    """
    if not has(recipe.augment, "augment"):
        return images
    random = generator(images.device, recipe.seed, "own augment", epoch, step)
    changed = call_own(recipe.augment, "augment", images, random, own=recipe.own)
    check_given(changed, images, recipe.augment, "augment(images, random)")
    return changed  # type: ignore[no-any-return]


def mixed_by_own(
    images: Tensor, targets: Tensor, classes: int, recipe: Recipe, epoch: int, step: int
) -> tuple[Tensor, Tensor]:
    """Images and targets B or B K, after the function `mix(images, targets, random)` of the file, which is given targets B K."""
    if not has(recipe.augment, "mix"):
        return images, targets
    random = generator(images.device, recipe.seed, "own mix", epoch, step)
    shares = F.one_hot(targets, classes).to(images.dtype) if targets.ndim == 1 else targets
    mixed, its_shares = pair_of(call_own(recipe.augment, "mix", images, shares, random, own=recipe.own), recipe.augment)
    check_given(mixed, images, recipe.augment, "mix(images, targets, random)")
    check_given(its_shares, shares, recipe.augment, "mix(images, targets, random)")
    return mixed, its_shares


def pair_of(given: Any, name: str) -> tuple[Tensor, Tensor]:
    """Images and targets. Raises `UserError` where a file of the user's gave no two values."""
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise UserError(
            f"{shown(name)}: mix(images, targets, random) gave {type(given).__name__}; wanted are images and targets"
        )
    return given[0], given[1]


def check_given(given: Any, like: Tensor, name: str, called: str) -> None:
    """Raise `UserError` for what a file of the user's gave, where it is not of this shape and type, on this device."""
    if not isinstance(given, Tensor) or (given.shape, given.dtype, given.device) != (
        like.shape,
        like.dtype,
        like.device,
    ):
        raise UserError(f"{shown(name)}: {called} gave {form(given)}; wanted is {form(like)}, as it came")


def form(value: Any) -> str:
    """`float32 (64, 3, 32, 32) on cpu`."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)} on {value.device}"


def cutmix(images: Tensor, targets: Tensor, others: Tensor, random: Generator) -> tuple[Tensor, Tensor]:
    """A rectangle of every image is that of another; targets mix by area. Yun et al. 2019, https://arxiv.org/abs/1905.04899

    The part of the area is U(0, 1) before the rectangle is cut at the border; all images of the batch share the rectangle.
    """
    height, width = images.shape[2:]
    draws = torch.rand(3, generator=random).tolist()
    side = math.sqrt(draws[0])
    top, bottom = edges(draws[1], side, height)
    left, right = edges(draws[2], side, width)
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images[others, :, top:bottom, left:right]
    part = (bottom - top) * (right - left) / (height * width)
    return mixed, (1 - part) * targets + part * targets[others]


def edges(centre: float, part: float, length: int) -> tuple[int, int]:
    """First and last + 1 pixel of a stretch of `part` of `length` around `centre` (of 1), cut at the border."""
    return max(0, round((centre - part / 2) * length)), min(length, round((centre + part / 2) * length))


def mixup(images: Tensor, targets: Tensor, others: Tensor, random: Generator) -> tuple[Tensor, Tensor]:
    """Every image is blended with another by a part that is U(0, 1), its target too. https://arxiv.org/abs/1710.09412"""
    part = torch.rand((), generator=random).item()
    return torch.lerp(images, images[others], part), torch.lerp(targets, targets[others], part)
