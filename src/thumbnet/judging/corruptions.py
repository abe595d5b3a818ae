"""Corruptions of small images: 15 kinds in 5 levels, batched tensor code, seeded.

Kinds and levels follow CIFAR-10-C of Hendrycks & Dietterich 2019, https://arxiv.org/abs/1903.12261: the numbers in `LEVELS`
are those of its published generator for 32 pixels. Four kinds are made here in another way: frost is grown from noise rather
than cut from photographs, JPEG is its block transform and quantisation without the lossless coding, fog is noise of several
octaves rather than a diamond-square fractal, and glass blur takes every pixel from a place drawn near it rather than swapping
them one after the other. Glass blur is not harder at every next level, there as here: its second and third levels smooth what
the first scatters. So levels compare networks with each other, not with numbers published for CIFAR-10-C.

Every function takes float images B C H W in [0, 1], the parameters of a level and a generator, and gives the same shape and
range. Lengths in pixels are for 32 and scale with the side.
"""
# Shapes: B batch, C channels, H and W height and width.

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from thumbnet.randomness import generator

Level = tuple[float, ...]
Corruption = Callable[[Tensor, Level, Generator], Tensor]
REFERENCE_SIDE = 32  # pixels; what the parameters below are for


def corrupt(images: Tensor, kind: str, level: int, *, seed: int = 0) -> Tensor:
    """Float images B C H W in [0, 1], corrupted at `level` 1 (mild) to 5 (severe); a function of its arguments alone."""
    random = generator(images.device, seed, "corruption", kind, level)
    return KINDS[kind](images, LEVELS[kind][level - 1], random).clamp(0, 1)


# ---------------------------------------------------------------- noise


def gaussian_noise(images: Tensor, level: Level, random: Generator) -> Tensor:
    """Normal noise of standard deviation level[0]."""
    return images + level[0] * normal(images.shape, random)


def shot_noise(images: Tensor, level: Level, random: Generator) -> Tensor:
    """Counts of level[0] photons at full brightness."""
    return torch.poisson(images * level[0], generator=random) / level[0]


def impulse_noise(images: Tensor, level: Level, random: Generator) -> Tensor:
    """A part level[0] of all values black or white."""
    draws = torch.rand(images.shape, generator=random, device=images.device)
    noisy = torch.where(draws < level[0] / 2, torch.zeros_like(images), images)
    return torch.where(draws > 1 - level[0] / 2, torch.ones_like(images), noisy)


# ---------------------------------------------------------------- blur


def defocus_blur(images: Tensor, level: Level, random: Generator) -> Tensor:
    """A disc of radius level[0] pixels, its edge softened by level[1]."""
    radius, soft = level[0] * scale_of(images), level[1] * scale_of(images)
    reach = math.ceil(radius + 3 * soft)
    disc = torch.zeros(2 * reach + 1, 2 * reach + 1)
    fine = torch.linspace(-reach - 0.5, reach + 0.5, 11 * (2 * reach + 1))  # 11 samples a pixel: a disc below one pixel
    inside = (fine[:, None].square() + fine[None, :].square() <= max(radius, 0.5) ** 2).float()
    disc = F.avg_pool2d(inside[None, None], 11)[0, 0]
    return blur(blur_kernel(images, disc), *gaussian_pair(soft))


def glass_blur(images: Tensor, level: Level, random: Generator) -> Tensor:
    """Blurred by level[0] pixels, then level[2] times every pixel takes one up to level[1] pixels away, then blurred again."""
    soft = gaussian_pair(level[0] * scale_of(images))
    x = blur(images, *soft)
    batch, _, height, width = x.shape
    reach = max(1, round(level[1] * scale_of(images)))
    rows, columns = torch.arange(height, device=x.device)[:, None], torch.arange(width, device=x.device)[None, :]
    for _ in range(int(level[2])):
        offsets = torch.randint(-reach, reach + 1, (2, batch, height, width), generator=random, device=x.device)
        places = (rows + offsets[0]).clamp(0, height - 1) * width + (columns + offsets[1]).clamp(0, width - 1)
        x = x.flatten(2).gather(2, places.flatten(1)[:, None].expand(-1, x.shape[1], -1)).view_as(x)
    return blur(x, *soft)


def motion_blur(images: Tensor, level: Level, random: Generator) -> Tensor:
    """A streak of level[0] pixels with a falloff of level[1], at an angle of -45 to 45 degrees for each image."""
    return streak(images, level[0], level[1], torch.rand(len(images), generator=random, device=images.device) * 90 - 45)


def zoom_blur(images: Tensor, level: Level, random: Generator) -> Tensor:
    """The mean of the image and of itself zoomed in, in steps of 1 %, up to level[0]."""
    zooms = torch.arange(1, level[0], 0.01).tolist()
    return (images + sum(zoomed(images, zoom) for zoom in zooms)) / (1 + len(zooms))


# ---------------------------------------------------------------- weather


def snow(images: Tensor, level: Level, random: Generator) -> Tensor:
    """Flakes of mean level[0] and spread level[1], zoomed by level[2], those below level[3] left out, blown by the wind.

    level[4], level[5]: length and falloff of the streaks in pixels; level[6]: how much of the picture is not whitened.
    """
    batch, _, height, width = images.shape
    flakes = level[0] + level[1] * normal((batch, 1, height, width), random)
    flakes = zoomed(flakes, level[2])
    flakes = torch.where(flakes < level[3], torch.zeros_like(flakes), flakes).clamp(0, 1)
    angles = torch.rand(batch, generator=random, device=images.device) * 90 - 135  # from upper right to upper left
    flakes = streak(flakes, level[4], level[5], angles)
    pale = torch.maximum(images, grey(images) * 1.5 + 0.5)
    return level[6] * images + (1 - level[6]) * pale + flakes + flakes.flip((2, 3))


def frost(images: Tensor, level: Level, random: Generator) -> Tensor:
    """The picture at level[0] with crystals at level[1] over it: ridges of fractal noise, brighter towards the border."""
    batch, channels, height, width = images.shape
    ridges = 1 - (2 * plasma(batch, height, width, 1.5, random) - 1).abs()  # B 1 H W, bright along lines
    needles = (ridges**4 + 0.3 * plasma(batch, height, width, 1.2, random)).clamp(0, 1)
    tint = torch.tensor([0.85, 0.95, 1.0], device=images.device)[:channels].view(1, -1, 1, 1)  # ice is slightly blue
    return level[0] * images + level[1] * needles * (tint if channels == 3 else 1)


def fog(images: Tensor, level: Level, random: Generator) -> Tensor:
    """Fractal noise of strength level[0] that falls off with level[1] from coarse to fine, darkening the rest."""
    batch, _, height, width = images.shape
    brightest = images.amax(dim=(1, 2, 3), keepdim=True)
    haze = plasma(batch, height, width, level[1], random)
    return (images + level[0] * haze) * brightest / (brightest + level[0]).clamp(min=1e-6)


def brightness(images: Tensor, level: Level, random: Generator) -> Tensor:
    """The value (largest of red, green and blue) raised by level[0], hue and saturation kept."""
    value = images.amax(dim=1, keepdim=True)
    return torch.where(value > 0, images / value.clamp(min=1e-6), torch.ones_like(images)) * (value + level[0]).clamp(
        max=1
    )


# ---------------------------------------------------------------- digital


def contrast(images: Tensor, level: Level, random: Generator) -> Tensor:
    """Differences from each channel's mean multiplied by level[0]."""
    mean = images.mean(dim=(2, 3), keepdim=True)
    return (images - mean) * level[0] + mean


def elastic_transform(images: Tensor, level: Level, random: Generator) -> Tensor:
    """An affine jolt of up to level[2] of the side, then a smooth random shift: level[0] strong, level[1] smooth, of the side."""
    batch, _, height, width = images.shape
    side = min(height, width)
    strength, smooth, jolt = (value * side for value in level)
    corners = torch.tensor([[-1.0, -1, 1], [1, -1, 1], [-1, 1, 1]], device=images.device)  # three points, with a one
    moved = corners[:, :2] + 2 * jolt / side * (2 * torch.rand(batch, 3, 2, generator=random, device=images.device) - 1)
    theta = torch.linalg.solve(corners.expand(batch, 3, 3), moved).transpose(1, 2)  # B 2 3
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)  # B H W 2
    if strength:
        shifts = 2 * torch.rand(batch, 2, height, width, generator=random, device=images.device) - 1
        smoothed = blur(shifts, *gaussian_pair(smooth, truncate=3)) * strength * 2 / side
        grid = grid + smoothed.permute(0, 2, 3, 1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def pixelate(images: Tensor, level: Level, random: Generator) -> Tensor:
    """Shrunk to level[0] of its side by area, then enlarged again by repeating pixels."""
    height, width = images.shape[2:]
    small = F.interpolate(images, (max(1, int(height * level[0])), max(1, int(width * level[0]))), mode="area")
    return F.interpolate(small, (height, width), mode="nearest")


def jpeg_compression(images: Tensor, level: Level, random: Generator) -> Tensor:
    """Quality level[0] of 100: colour at half the resolution, cosines of 8 x 8 blocks quantised (ITU-T T.81, Annex K)."""
    quality = level[0]
    factor = (5000 / quality if quality < 50 else 200 - 2 * quality) / 100  # the Independent JPEG Group's scaling
    tables = [(torch.tensor(table) * factor).round().clamp(1, 255).view(8, 8) for table in (LUMINANCE, CHROMINANCE)]
    if images.shape[1] == 1:
        return quantise(images * 255, tables[0]) / 255
    x = torch.einsum("dc,bchw->bdhw", TO_YCBCR.to(images), images * 255)
    height, width = x.shape[2:]
    luminance = quantise(x[:, :1], tables[0])
    small = quantise(F.avg_pool2d(F.pad(x[:, 1:], (0, width % 2, 0, height % 2), mode="replicate"), 2), tables[1], 0)
    colour = F.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False)[:, :, :height, :width]
    whole = torch.cat((luminance, colour), dim=1)
    return torch.einsum("dc,bchw->bdhw", torch.linalg.inv(TO_YCBCR).to(images), whole) / 255


# ---------------------------------------------------------------- what they are made of


def normal(shape: "torch.Size | tuple[int, ...]", random: Generator) -> Tensor:
    """Standard normal noise on the generator's device."""
    return torch.randn(tuple(shape), generator=random, device=random.device)


def scale_of(images: Tensor) -> float:
    """Side in units of the side that the parameters are for."""
    return min(images.shape[2:]) / REFERENCE_SIDE


def grey(images: Tensor) -> Tensor:
    """B 1 H W: luminance of RGB (ITU-R BT.601), grey images as they are."""
    if images.shape[1] == 1:
        return images
    weights = torch.tensor([0.299, 0.587, 0.114], device=images.device).view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True)


def gaussian_pair(deviation: float, truncate: float = 4) -> tuple[Tensor, int]:
    """A normalised Gaussian of an odd number of pixels, and how far it reaches."""
    reach = max(1, math.ceil(truncate * deviation))
    steps = torch.arange(-reach, reach + 1, dtype=torch.float32)
    weights = torch.exp(-steps.square() / (2 * max(deviation, 1e-3) ** 2))
    return weights / weights.sum(), reach


def blur(images: Tensor, weights: Tensor, reach: int) -> Tensor:
    """Smoothed with `weights` along both sides, borders repeating the nearest pixel."""
    channels = images.shape[1]
    kernel = weights.to(images).expand(channels, 1, -1)
    x = F.pad(images, (reach, reach, reach, reach), mode="replicate")
    x = F.conv2d(x, kernel[:, :, None, :], groups=channels)
    return F.conv2d(x, kernel[:, :, :, None], groups=channels)


def blur_kernel(images: Tensor, kernel: Tensor) -> Tensor:
    """Smoothed with one square kernel, normalised here."""
    channels, reach = images.shape[1], kernel.shape[0] // 2
    weights = (kernel / kernel.sum()).to(images).expand(channels, 1, -1, -1)
    return F.conv2d(F.pad(images, (reach,) * 4, mode="replicate"), weights, groups=channels)


def streak(images: Tensor, length: float, falloff: float, degrees: Tensor) -> Tensor:
    """Each image smeared along its own angle: weights exp(-d^2 / 2 falloff^2) over `length` pixels on one side."""
    pixels = max(1, round(length * scale_of(images)))
    theta = degrees * math.pi / 180
    height, width = images.shape[2:]
    still = torch.eye(2, 3, device=images.device).expand(len(images), 2, 3)
    grid = F.affine_grid(still, list(images.shape), align_corners=False)  # B H W 2
    weights = torch.exp(-torch.arange(pixels).float().square() / (2 * (falloff * scale_of(images)) ** 2))
    weights = weights / weights.sum()
    step = torch.stack((theta.cos() * 2 / width, theta.sin() * 2 / height), dim=1)[:, None, None, :]  # B 1 1 2
    moved = torch.zeros_like(images)
    for distance, weight in enumerate(weights.tolist()):
        moved += weight * F.grid_sample(images, grid + distance * step, padding_mode="border", align_corners=False)
    return moved


def zoomed(images: Tensor, zoom: float) -> Tensor:
    """Enlarged about the centre, the border cut off."""
    down, across = (interpolation(side, zoom, images.device) for side in images.shape[2:])
    return down @ (images @ across.T)


def interpolation(side: int, zoom: float, device: torch.device) -> Tensor:
    """The matrix, side side, whose rows make a pixel each of the two nearest, of a line enlarged about its centre."""
    pixels = torch.arange(side, device=device)
    places = ((pixels + 0.5 - side / 2) / zoom + side / 2 - 0.5).clamp(0, side - 1)
    return (1 - (places[:, None] - pixels).abs()).clamp(min=0)


def plasma(batch: int, height: int, width: int, decay: float, random: Generator) -> Tensor:
    """B 1 H W in [0, 1]: noise summed over octaves, each half as coarse and `decay` times as weak as the one before."""
    total = torch.zeros(batch, 1, height, width, device=random.device)
    side, weight = 2, 1.0
    while side <= max(height, width):
        cells = torch.rand(batch, 1, side, side, generator=random, device=random.device)
        down, across = (enlargement(side, length).to(cells) for length in (height, width))
        total += weight * (down @ cells @ across.T)
        side, weight = side * 2, weight / decay
    low, high = total.amin(dim=(2, 3), keepdim=True), total.amax(dim=(2, 3), keepdim=True)
    return (total - low) / (high - low).clamp(min=1e-6)


@cache
def enlargement(side: int, length: int) -> Tensor:
    """The matrix, length side, that bicubic interpolation multiplies a line by: a product is faster than the interpolation."""
    cells = torch.eye(side)[None, None]
    return F.interpolate(cells, (length, side), mode="bicubic", align_corners=True)[0, 0]


def quantise(x: Tensor, table: Tensor, centre: float = 128) -> Tensor:
    """Channels in 0 .. 255 (around `centre`) through the cosine transform of 8 x 8 blocks, rounded to multiples of `table`."""
    height, width = x.shape[2:]
    x = F.pad(x, (0, -width % 8, 0, -height % 8), mode="replicate") - centre
    blocks = x.unfold(2, 8, 8).unfold(3, 8, 8)  # B C H/8 W/8 8 8
    table, cosines = table.to(x), COSINES.to(x)
    quantised = (cosines @ blocks @ cosines.T / table).round() * table
    blocks = cosines.T @ quantised @ cosines
    whole = blocks.permute(0, 1, 2, 4, 3, 5).reshape(x.shape)  # B C H W again
    return (whole + centre)[:, :, :height, :width]


COSINES = torch.tensor(  # 8 8: the orthonormal cosine transform, a row per frequency
    [
        [math.sqrt((1 if k == 0 else 2) / 8) * math.cos(math.pi * k * (2 * n + 1) / 16) for n in range(8)]
        for k in range(8)
    ]
)
TO_YCBCR = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])  # JFIF 1.02
LUMINANCE = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
CHROMINANCE = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99,
    24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
)  # fmt: skip

KINDS: dict[str, Corruption] = {
    "gaussian_noise": gaussian_noise,
    "shot_noise": shot_noise,
    "impulse_noise": impulse_noise,
    "defocus_blur": defocus_blur,
    "glass_blur": glass_blur,
    "motion_blur": motion_blur,
    "zoom_blur": zoom_blur,
    "snow": snow,
    "frost": frost,
    "fog": fog,
    "brightness": brightness,
    "contrast": contrast,
    "elastic_transform": elastic_transform,
    "pixelate": pixelate,
    "jpeg_compression": jpeg_compression,
}
FAMILIES = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
LEVELS: dict[str, tuple[Level, ...]] = {
    "gaussian_noise": ((0.04,), (0.06,), (0.08,), (0.09,), (0.10,)),
    "shot_noise": ((500,), (250,), (100,), (75,), (50,)),
    "impulse_noise": ((0.01,), (0.02,), (0.03,), (0.05,), (0.07,)),
    "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    "glass_blur": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    "zoom_blur": ((1.06,), (1.11,), (1.16,), (1.21,), (1.26,)),
    "snow": (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    "frost": ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    "fog": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    "brightness": ((0.05,), (0.1,), (0.15,), (0.2,), (0.3,)),
    "contrast": ((0.75,), (0.5,), (0.4,), (0.3,), (0.15,)),
    "elastic_transform": ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    "pixelate": ((0.95,), (0.9,), (0.85,), (0.75,), (0.65,)),
    "jpeg_compression": ((80,), (65,), (58,), (50,), (40,)),
}
