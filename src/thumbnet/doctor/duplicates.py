"""Images that are there twice: bit for bit, or nearly, mirrored or not, within and across splits."""
# Shapes: N and M images, C channels, H and W height and width, D numbers of a descriptor.

import hashlib
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

GRID = (
    8  # a descriptor has so many places along each side: enough to tell pictures apart, little enough to forgive noise
)
CANDIDATE = 0.95  # cosine of descriptors from which on two images are looked at pixel by pixel
ALIKE = (
    0.975  # correlation of their pixels from which on they count as near duplicates; chosen by looking at CIFAR's pairs
)
SHIFTS = (-2, -1, 0, 1, 2)  # pixels that one may be displaced against the other
BLOCK = 2_000  # images compared with all others at a time: 2,000 x 50,000 cosines are 400 MB


@dataclass(frozen=True)
class Place:
    """An image by its split and its position among the split's stored images."""

    split: str
    row: int


@dataclass(frozen=True)
class DuplicatePair:
    """Two images that are the same or nearly: `similarity` is the correlation of their pixels, 1 for exact ones."""

    first: Place
    second: Place
    similarity: float
    mirrored: bool
    same_label: bool

    @property
    def across(self) -> bool:
        """True where the two are in different splits: then one can be learnt by heart for the other."""
        return self.first.split != self.second.split


def exact_duplicates(images: dict[str, NDArray[np.uint8]], labels: dict[str, NDArray[np.int64]]) -> list[list[Place]]:
    """Groups of two images or more with the same pixels, over all splits."""
    groups: dict[bytes, list[Place]] = defaultdict(list)
    for split, pixels in images.items():
        for row, image in enumerate(pixels):
            groups[hashlib.blake2b(image.tobytes(), digest_size=16).digest()].append(Place(split, row))
    return [places for places in groups.values() if len(places) > 1]


def near_duplicates(images: dict[str, NDArray[np.uint8]], labels: dict[str, NDArray[np.int64]]) -> list[DuplicatePair]:
    """Pairs of images that are alike but not equal, the most similar first.

    Every image is compared with all others by a descriptor that ignores brightness and contrast, and with their mirror images;
    its two nearest are then compared pixel by pixel, displaced by up to two pixels. Flat images have no likeness.
    """
    places = [(split, row) for split, pixels in images.items() for row in range(len(pixels))]
    every = torch.from_numpy(np.concatenate(list(images.values())))  # uint8 N C H W
    truth = np.concatenate(list(labels.values()))
    plain = descriptors(every)
    found: dict[tuple[int, int], tuple[float, bool]] = {}
    for mirrored in (False, True):
        others = descriptors(every, mirrored=True) if mirrored else plain
        first, second = candidates(plain, others)
        likeness = correlations(every, first, second, mirrored=mirrored)
        for i, j, value in zip(first.tolist(), second.tolist(), likeness.tolist(), strict=True):
            pair = (min(i, j), max(i, j))
            if value >= ALIKE and value > found.get(pair, (0.0, False))[0]:
                found[pair] = (value, mirrored)
    pairs = []
    for (i, j), (value, mirrored) in sorted(found.items(), key=lambda item: (-item[1][0], item[0])):
        if mirrored or not torch.equal(every[i], every[j]):
            pairs.append(
                DuplicatePair(Place(*places[i]), Place(*places[j]), value, mirrored, bool(truth[i] == truth[j]))
            )
    return pairs


def descriptors(images: Tensor, *, mirrored: bool = False) -> Tensor:
    """float32 N D of length 1: the image shrunk to GRID x GRID, its mean taken off; zeros for flat images."""
    parts = []
    for block in images.split(BLOCK):
        small = F.adaptive_avg_pool2d(block.float() / 255, GRID)
        parts.append((small.flip(3) if mirrored else small).flatten(1))
    flat = torch.cat(parts)
    flat = flat - flat.mean(1, keepdim=True)
    return F.normalize(flat, dim=1)


def candidates(images: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """(i, j) int64 each: for every image the two others whose descriptors N D are nearest, if near enough."""
    firsts, seconds = [], []
    for start in range(0, len(images), BLOCK):
        cosines = images[start : start + BLOCK] @ others.T  # B N
        own = torch.arange(start, min(start + BLOCK, len(images)))
        cosines[torch.arange(len(own)), own] = -1
        for _ in range(min(2, len(images) - 1)):
            value, place = cosines.max(1)
            near = value >= CANDIDATE
            firsts.append(own[near])
            seconds.append(place[near])
            cosines[torch.arange(len(own)), place] = -1
    return torch.cat(firsts), torch.cat(seconds)


def correlations(images: Tensor, first: Tensor, second: Tensor, *, mirrored: bool) -> Tensor:
    """float32 N: the largest correlation of the pixels of images first[n] and second[n], over displacements by SHIFTS."""
    best = torch.full((len(first),), -1.0)
    for start in range(0, len(first), BLOCK):
        part = slice(start, start + BLOCK)
        a, b = images[first[part]].float(), images[second[part]].float()
        b = b.flip(3) if mirrored else b
        for down in SHIFTS:
            for right in SHIFTS:
                best[part] = torch.maximum(best[part], correlation(*overlap(a, b, down, right)))
    return best


def overlap(a: Tensor, b: Tensor, down: int, right: int) -> tuple[Tensor, Tensor]:
    """The parts of images B C H W that cover each other when `b` is displaced."""
    height, width = a.shape[2:]
    rows = slice(max(0, down), height + min(0, down)), slice(max(0, -down), height + min(0, -down))
    columns = slice(max(0, right), width + min(0, right)), slice(max(0, -right), width + min(0, -right))
    return a[:, :, rows[0], columns[0]], b[:, :, rows[1], columns[1]]


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """float32 B: Pearson's correlation of all values of images B C H W; 0 where one is flat."""
    x, y = (part.flatten(1) - part.flatten(1).mean(1, keepdim=True) for part in (a, b))
    size = x.norm(dim=1) * y.norm(dim=1)
    return torch.where(size > 0, (x * y).sum(1) / size.clamp(min=1e-6), torch.zeros_like(size))
