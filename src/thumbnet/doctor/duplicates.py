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

from thumbnet.progress import Progress, no_progress

GRID = 8  # places of a descriptor along each side: enough to tell pictures apart, few enough to forgive noise
CANDIDATE = 0.9  # cosine of descriptors from which on two images are looked at pixel by pixel
NEIGHBOURS = 6  # of an image that are looked at: the nearest, and others to measure it by,
MOST_NEIGHBOURS = 24  # and so many where the first are alike, so that groups of up to twenty copies are found
ALIKE = 0.7  # correlation of their details from which on two images may be duplicates, and
APART = 0.5  # at most so far apart as the image is from the third neighbour beyond them: trousers are all alike
BEYOND = 3
DETAIL = 5  # pixels of the square whose mean is taken off
COLOUR = 0.1  # root mean square of the difference in colour, of 1, beyond which two images are of different things
MOST_FADED = 2.0  # times as strong the colours of one may be as of the other
SHIFTS = (-2, -1, 0, 1, 2)  # pixels that one may be displaced against the other
BLOCK = 2_000  # images or pairs looked at at a time, and
MOST_COSINES = 160_000_000  # 640 MB: fewer of them where they are compared with more than 80,000 others
LOOKING = "looking for duplicates"
ROWS = 500  # images whose neighbours are looked at between two words on how far it is: a second or two


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


def exact_duplicates(images: dict[str, NDArray[np.uint8]]) -> list[list[Place]]:
    """Groups of two images or more with the same pixels, over all splits."""
    groups: dict[bytes, list[Place]] = defaultdict(list)
    for split, pixels in images.items():
        for row, image in enumerate(pixels):
            groups[hashlib.blake2b(image.tobytes(), digest_size=16).digest()].append(Place(split, row))
    return [places for places in groups.values() if len(places) > 1]


def near_duplicates(
    images: dict[str, NDArray[np.uint8]], labels: dict[str, NDArray[np.int64]], progress: Progress = no_progress
) -> list[DuplicatePair]:
    """Pairs of images that are alike but not equal, the most similar first.

    Every image is compared with all others, and with their mirror images, by a descriptor that ignores brightness and contrast;
    its nearest are then compared by their details, displaced by up to two pixels, and by their colours. A pair counts where the
    details agree and are much nearer than those of neighbours beyond, and the colours are the same. Of equal images one stands
    for all. Flat images have no likeness. docs/doctor.md says how it was tested, and what it misses.
    """
    progress(LOOKING, 0, 1)
    places = [Place(split, row) for split, pixels in images.items() for row in range(len(pixels))]
    every = torch.from_numpy(np.concatenate(list(images.values())))  # uint8 N C H W
    truth = np.concatenate(list(labels.values()))
    first_of = {place: group[0] for group in exact_duplicates(images) for place in group[1:]}
    single = torch.tensor([number for number, place in enumerate(places) if place not in first_of])
    if len(single) < 3:
        progress(LOOKING, 1, 1)
        return []
    chosen = every[single]
    plain = descriptors(chosen)
    found: dict[tuple[int, int], tuple[float, bool]] = {}
    for mirrored in (False, True):
        rows, near = candidates(plain, descriptors(chosen, mirrored=True) if mirrored else plain)
        likeness = torch.empty(near.shape)  # R k
        for start in range(0, len(rows), ROWS):
            progress(LOOKING, int(rows[start]) + mirrored * len(single), 2 * len(single))
            part = slice(start, start + ROWS)
            likeness[part] = likenesses(chosen, rows[part], near[part], mirrored=mirrored)
        for i, j, value in standing_out(rows, near, likeness):
            pair = (min(i, j), max(i, j))
            other = chosen[j].flip(2) if mirrored else chosen[j]
            if value > found.get(pair, (0.0, False))[0] and colour_distance(chosen[i], other) <= COLOUR:
                found[pair] = (value, mirrored)
    progress(LOOKING, 1, 1)
    named = {pair: (int(single[pair[0]]), int(single[pair[1]])) for pair in found}
    return [
        DuplicatePair(places[i], places[j], value, mirrored, bool(truth[i] == truth[j]))
        for pair, (value, mirrored) in sorted(found.items(), key=lambda item: (-item[1][0], item[0]))
        for i, j in [named[pair]]
    ]


def descriptors(images: Tensor, *, mirrored: bool = False) -> Tensor:
    """float32 N D of length 1: the image shrunk to GRID x GRID, its mean taken off; zeros for flat images."""
    parts = []
    for block in images.split(BLOCK):
        small = F.adaptive_avg_pool2d(block.float() / 255, GRID)
        parts.append((small.flip(3) if mirrored else small).flatten(1))
    flat = torch.cat(parts)
    flat = flat - flat.mean(1, keepdim=True)
    return F.normalize(flat, dim=1)


def colour_distance(image: Tensor, other: Tensor) -> float:
    """Root mean square of the difference in colour of two images uint8 C H W, on a scale of 1.

    Light and dark do not count: the second's colours, which grow and fade with it, are scaled to fit the first's best.
    """
    small = F.adaptive_avg_pool2d(torch.stack((image, other)).float() / 255, GRID)  # 2 C 8 8
    first, second = small - small.mean(1, keepdim=True)  # C 8 8 each
    scale = ((first * second).sum() / second.square().sum().clamp(min=1e-6)).clamp(1 / MOST_FADED, MOST_FADED)
    return (first - scale * second).square().mean().sqrt().item()


def candidates(images: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """int64 R, and R k: the images with a near enough neighbour by descriptors N D, and the k nearest of each."""
    count = min(MOST_NEIGHBOURS, len(images) - 1)
    block = min(BLOCK, max(1, MOST_COSINES // len(others)))
    rows, neighbours = [], []
    for start in range(0, len(images), block):
        cosines = images[start : start + block] @ others.T  # B N
        own = torch.arange(start, start + len(cosines))
        cosines[torch.arange(len(own)), own] = -1
        some = (cosines.amax(1) >= CANDIDATE).nonzero().flatten()
        rows.append(own[some])
        neighbours.append(cosines[some].topk(count, dim=1).indices)
    return torch.cat(rows), torch.cat(neighbours)


def likenesses(images: Tensor, rows: Tensor, near: Tensor, *, mirrored: bool) -> Tensor:
    """float32 R k: `correlations` of images rows[r] and near[r, k], the likest first; -1 where the ones before were not alike."""
    likeness = torch.full(near.shape, -1.0)
    likeness[:, :NEIGHBOURS] = correlations(images, rows, near[:, :NEIGHBOURS], mirrored=mirrored)
    many = ((likeness >= ALIKE).sum(1) >= min(NEIGHBOURS, near.shape[1]) - BEYOND).nonzero().flatten()
    if near.shape[1] > NEIGHBOURS and len(many):
        likeness[many, NEIGHBOURS:] = correlations(images, rows[many], near[many, NEIGHBOURS:], mirrored=mirrored)
    return likeness


def standing_out(rows: Tensor, near: Tensor, likeness: Tensor) -> list[tuple[int, int, float]]:
    """(i, j, correlation) of the pairs whose details agree much better than those of image i and the neighbours beyond j.

    Neighbours are taken from the likest on: where one is `APART` as far as the third beyond it, it and all before it stand out.
    """
    ordered, places = likeness.sort(dim=1, descending=True, stable=True)
    distance = (2 - 2 * ordered).clamp(min=0).sqrt()  # of details of length 1
    last = distance.shape[1] - 1
    beyond = distance[:, (torch.arange(last + 1) + BEYOND).clamp(max=last)]
    jumps = (ordered >= ALIKE) & (distance <= APART * beyond)
    stand_out = jumps.int().flip(1).cummax(1).values.flip(1)  # those before a jump, too
    return [
        (int(rows[row]), int(near[row, places[row, rank]]), ordered[row, rank].item())
        for row, rank in stand_out.nonzero().tolist()
    ]


def correlations(images: Tensor, rows: Tensor, near: Tensor, *, mirrored: bool) -> Tensor:
    """float32 R k: the largest correlation of the details of images rows[r] and near[r, k], over displacements by SHIFTS."""
    first, second = rows.repeat_interleave(near.shape[1]), near.flatten()
    best = torch.full((len(first),), -1.0)
    for start in range(0, len(first), BLOCK):
        part = slice(start, start + BLOCK)
        a, b = details(images[first[part]]), details(images[second[part]])
        b = b.flip(3) if mirrored else b
        for down in SHIFTS:
            for right in SHIFTS:
                best[part] = torch.maximum(best[part], correlation(*overlap(a, b, down, right)))
    return best.view(near.shape)


def details(images: Tensor) -> Tensor:
    """float32 B C H W: what is left of the images when the mean of each place's neighbourhood is taken off."""
    x, reach = images.float(), DETAIL // 2
    return x - F.avg_pool2d(F.pad(x, (reach,) * 4, mode="replicate"), DETAIL, stride=1)


def overlap(a: Tensor, b: Tensor, down: int, right: int) -> tuple[Tensor, Tensor]:
    """The parts of images B C H W that cover each other when `b` is displaced."""
    height, width = a.shape[2:]
    rows = slice(max(0, down), height + min(0, down)), slice(max(0, -down), height + min(0, -down))
    columns = slice(max(0, right), width + min(0, right)), slice(max(0, -right), width + min(0, -right))
    return a[:, :, rows[0], columns[0]], b[:, :, rows[1], columns[1]]


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """float32 B: the cosine of all values of details B C H W, whose means are near zero; 0 where one has none."""
    dims = (1, 2, 3)
    size = (a.square().sum(dims) * b.square().sum(dims)).sqrt()
    return torch.where(size > 1e-3, (a * b).sum(dims) / size.clamp(min=1e-3), torch.zeros_like(size))
