"""How many images each class has, and where they are so few that nothing can be said of it, or uneven."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from thumbnet.words import counted

FEW = (
    20  # images of a class, below which Wilson's interval of its accuracy is wider than 30 points, if not all are right
)
UNEVEN = 10  # times as many images in the largest class as in the smallest


def counts_by_class(labels: NDArray[np.int64], classes: Sequence[str]) -> dict[str, int]:
    """Images of each class, by its name in the order of the labels."""
    return dict(zip(classes, np.bincount(labels, minlength=len(classes)).tolist(), strict=True))


def few_images(counts: Mapping[str, int], split: str) -> str | None:
    """A sentence on the classes with fewer than `FEW` images in the split, or None where there are none."""
    few = [name for name, count in counts.items() if count < FEW]
    if not few:
        return None
    shown = ", ".join(few[:5]) + (" ..." if len(few) > 5 else "")
    kind = {"train": "training"}.get(split, split)
    return f"{counted(len(few), 'class has', 'classes have')} fewer than {FEW} {kind} images: {shown}"


def held_out_whole(before: Mapping[str, int], after: Mapping[str, int]) -> str | None:
    """A sentence on the classes of which no training image is left, or None where each that had some has."""
    lost = [name for name, count in before.items() if count and not after[name]]
    if not lost:
        return None
    shown = ", ".join(lost[:5]) + (" ..." if len(lost) > 5 else "")
    return f"of {counted(len(lost), 'class', 'classes')} no image is left to train on, all are held out: {shown}"


def uneven(counts: Mapping[str, int], split: str) -> str | None:
    """A sentence on classes of which one has `UNEVEN` times the images of another in the split, or None where none has."""
    smallest, largest = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    if counts[largest] < UNEVEN * max(1, counts[smallest]):
        return None
    kind = {"train": "training"}.get(split, split)
    return f"classes are uneven: {largest} has {counts[largest]:,} {kind} images, {smallest} {counts[smallest]:,}"
