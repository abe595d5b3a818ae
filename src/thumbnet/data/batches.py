"""Splits of a data set, the order in which training visits one, and the batches cut from it."""
# Shapes: N images, B batch, C channels, H and W height and width.

import hashlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NoReturn

import torch
from torch import Tensor

from thumbnet.errors import UserError
from thumbnet.randomness import generator

ONCE = "equal ones, and those of one group, count once"


@dataclass(frozen=True)
class Split:
    """Some rows of one pair of tensors. Cutting a split copies no image, so a memory-mapped set stays on disk."""

    images: Tensor  # uint8 M C H W: every stored image, of which `rows` are in the split
    labels: Tensor  # int64 M
    rows: Tensor  # int64 N: positions in `images`, in the order of the split

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Images uint8 B C H W and labels int64 B at `positions` (0 .. N - 1) of the split."""
        rows = self.rows[positions]
        return self.images.index_select(0, rows), self.labels[rows]

    def in_order(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image exactly once, in order; the last batch may be smaller."""
        for start in range(0, len(self), batch_size):
            yield self.take(torch.arange(start, min(start + batch_size, len(self)), device=self.rows.device))

    def evenly_spaced(self, count: int) -> tuple[Tensor, Tensor]:
        """Images and labels of `count` positions at even distances, of all where there are fewer."""
        return self.take(spread_over(len(self), count).to(self.rows.device))

    def to(self, device: torch.device) -> "Split":
        """The split with its images on `device`."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device), rows=self.rows.to(device))


def spread_over(images: int, count: int) -> Tensor:
    """int64: `count` positions at even distances among so many images, all where there are fewer."""
    return torch.linspace(0, images - 1, min(count, images)).long()


def whole(images: Tensor, labels: Tensor) -> Split:
    """The split of all rows."""
    return Split(images, labels, torch.arange(len(labels)))


def epoch_order(images: int, *, seed: int, epoch: int) -> Tensor:
    """int64 N: the order in which `epoch`, a round through them, visits the images; a function of seed and epoch alone."""
    return torch.randperm(images, generator=generator("cpu", seed, "order", epoch))


def together_in(split: Split, groups: Tensor | None = None) -> Tensor | None:
    """int64 N: for each image the position of the first that it must stay with, its own if there is none; None if all are alone.

    Together are images with equal pixels and, where `groups` (int64 M, a number for every stored image) are given, those of one
    group; also by way of others.
    """
    first = list(range(len(split)))

    def origin(place: int) -> int:
        while first[place] != place:
            first[place] = first[first[place]]  # half the way for the next one who asks
            place = first[place]
        return place

    ties: list[Sequence[Hashable]] = [digests_of(split)]
    if groups is not None:
        ties.append(groups[split.rows.cpu()].tolist())
    for shared in ties:
        seen: dict[Hashable, int] = {}
        for place, value in enumerate(shared):
            pair = origin(place), origin(seen.setdefault(value, place))
            first[max(pair)] = min(pair)
    found = [origin(place) for place in range(len(split))]
    return None if found == list(range(len(split))) else torch.tensor(found)


def digests_of(split: Split) -> list[bytes]:
    """What equal images share and others do not, of each image of the split in order."""
    images = split.images.cpu().numpy()
    return [hashlib.blake2b(images[row].tobytes(), digest_size=16).digest() for row in split.rows.tolist()]


def with_followers(
    split: Split, together: Tensor, cut: Callable[[Split], tuple[Split, Split | None]]
) -> tuple[Split, Split | None]:
    """`cut` in two the images that are first of theirs; the others follow them, so that none of them are on both sides."""
    own = torch.arange(len(split))
    if not together.any():  # each follows the first
        raise UserError(
            f"all {len(split):,} training images are equal or of one group, so none can be held out; give other groups, or "
            "--validation 0"
        )
    _, held = cut(replace(split, rows=split.rows[together == own]))
    assert held is not None
    out = torch.isin(split.rows[together], held.rows)
    return replace(split, rows=split.rows[~out]), replace(split, rows=split.rows[out])


def hold_out(split: Split, fraction: float, *, seed: int, together: Tensor | None = None) -> tuple[Split, Split | None]:
    """Cut `fraction` of every class off at random: (the rest, the part held out), or None for the second if fraction is 0.

    Where `together` (of `together_in`) says which, equal images and those of one group stay on one side. Each class gives its
    share rounded to whole images, so that the parts have the same balance of classes; where that is none at all, one image of
    each class that has two.
    """
    if fraction == 0:
        return split, None
    if together is not None:
        return with_followers(split, together, partial(hold_out, fraction=fraction, seed=seed))
    labels = split.labels[split.rows]
    random = generator("cpu", seed, "validation")
    held = torch.zeros(len(split), dtype=torch.bool)
    members_of_classes = []
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        shuffled = members[torch.randperm(len(members), generator=random)]
        held[shuffled[: round(fraction * len(members))]] = True
        members_of_classes.append(shuffled)
    if not held.any():  # shares of less than half an image: one of each class that can spare it
        for shuffled in members_of_classes:
            held[shuffled[: len(shuffled) > 1]] = True
    if not held.any() or held.all():
        raise UserError(
            f"validation {fraction} of {len(split)} images ({ONCE}) leaves one part empty; choose another or 0"
        )
    return replace(split, rows=split.rows[~held]), replace(split, rows=split.rows[held])


def fold_of(
    split: Split, folds: int, fold: int, *, seed: int, together: Tensor | None = None
) -> tuple[Split, Split | None]:
    """Cut every class into `folds` parts of equal size (to one image) at random: (all but part `fold`, that part).

    The parts are a function of seed and `folds`, so that every image is held out in just one fold. Where `together` (of
    `together_in`) says which, equal images and those of one group are in the same.
    """
    if together is not None:
        return with_followers(split, together, partial(fold_of, folds=folds, fold=fold, seed=seed))
    labels = split.labels[split.rows]
    random = generator("cpu", seed, "folds")
    part = torch.empty(len(split), dtype=torch.int64)
    begun = 0  # where the last class stopped dealing, so that the parts differ by one image over all classes too
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        shuffled = members[torch.randperm(len(members), generator=random)]
        part[shuffled] = (begun + torch.arange(len(members))) % folds
        begun = (begun + len(members)) % folds
    held = part == fold
    if len(part.unique()) < folds or held.all():
        raise UserError(f"{folds} folds of {len(split)} images ({ONCE}) leave one part empty; choose fewer")
    return replace(split, rows=split.rows[~held]), replace(split, rows=split.rows[held])


class LockedSplit:
    """A test split that is opened on purpose only: `unlock` is called by evaluation, which counts it in the run
    folder, and by the doctor and the report, which measure nothing.
    """

    def __init__(self, size: int, open_split: Callable[[], Split]):
        self._size = size
        self._open_split = open_split

    def __len__(self) -> int:
        return self._size

    def __repr__(self) -> str:
        return f"LockedSplit of {self._size} images; thumbnet.evaluate(run, split='test') opens and counts it"

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"the test split is locked and has no {name!r}: thumbnet.evaluate(run, split='test') opens and counts it"
        )

    def unlock(self) -> Split:
        """The images themselves. Training, previews and studies never call this."""
        return self._open_split()
