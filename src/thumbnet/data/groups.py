"""Images that belong together, such as those of one patient: named when they are read, numbered when they are kept."""

from collections.abc import Mapping, Sequence
from typing import Any

from thumbnet.words import counted


def numbered(groups: Mapping[str, Sequence[str]]) -> dict[str, list[int]]:
    """The groups of every split as numbers, the same name the same number in all of them; "" is a group of its own each time."""
    numbers: dict[Any, int] = {}

    def number(name: str, image: tuple[str, int]) -> int:
        return numbers.setdefault(name or image, len(numbers))

    return {split: [number(name, (split, row)) for row, name in enumerate(names)] for split, names in groups.items()}


def shared_groups(groups: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """How many groups of the training images there are in each other split, too."""
    trained_on = {name for name in groups.get("train", ()) if name}
    found = {split: len(trained_on & set(names)) for split, names in groups.items() if split != "train"}
    return {split: count for split, count in found.items() if count}


def told_of_groups(shared: Mapping[str, int]) -> list[str]:
    """A sentence on each split that shares groups with the training images."""
    return [
        f"{counted(count, 'group has', 'groups have')} training and {split} images; what is measured on these looks too good"
        for split, count in shared.items()
    ]
